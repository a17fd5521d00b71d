//! Whatever is in the log: it is decoded or refused, and what is applied leaves a state in which everything holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepcast_scheduler::{State, codec, invariants};

fuzz_target!(|data: &[u8]| {
    let mut state = State::new();
    let mut index = 1;
    for piece in stepcast_fuzz::pieces(data) {
        let Ok(envelope) = codec::decode(piece) else {
            continue;
        };
        let bytes = codec::encode(&envelope);
        assert_eq!(codec::decode(&bytes).as_ref(), Ok(&envelope));
        index += 1;
        state.apply(index, &envelope);
    }
    assert_eq!(invariants::check(&state), []);
    let bytes = state.snapshot();
    let restored = State::restore(&bytes).expect("a state's own snapshot");
    assert_eq!(restored.snapshot(), bytes);
});
