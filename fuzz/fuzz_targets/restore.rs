//! Whatever a snapshot's chunks say: it is no state, or one in which everything holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepcast_scheduler::{Restoring, State, invariants};
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(|data: &[u8]| {
    // In one piece, as the first version wrote it, and as it is.
    let mut whole = data.to_vec();
    let _ = State::restore(&whole).map(|state| good(&state));
    if whole.len() > 14 {
        let sum = xxh3_64(&whole[14..]);
        whole[6..14].copy_from_slice(&sum.to_le_bytes());
        let _ = State::restore(&whole).map(|state| good(&state));
    }
    // In chunks.
    let mut restoring = Restoring::default();
    for chunk in stepcast_fuzz::pieces(data) {
        if restoring.take(chunk).is_err() {
            return;
        }
    }
    let _ = restoring.finish().map(|state| good(&state));
});

fn good(state: &State) {
    assert_eq!(invariants::check(state), []);
    let bytes = state.snapshot();
    let again = State::restore(&bytes).expect("a state's own snapshot");
    assert_eq!(again.snapshot(), bytes);
}
