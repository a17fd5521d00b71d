//! What holds of every history: invariants, the same bytes for the same log, and no panic on any bytes.

use proptest::prelude::*;
use stepcast_scheduler::{Rejection, State, codec, invariants};
use xxhash_rust::xxh3::xxh3_64;

use crate::history::{History, Step, steps};

/// Where a snapshot's body begins: behind magic, version and checksum.
const BODY: usize = 14;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_history_breaks_an_invariant(steps in steps(120)) {
        let mut history = History::new();
        for step in &steps {
            history.step(step);
            prop_assert_eq!(invariants::check(&history.state), []);
        }
    }

    #[test]
    fn the_same_log_gives_the_same_bytes(steps in steps(120)) {
        let history = History::of(&steps);
        let replayed = history.replayed();
        prop_assert_eq!(replayed.snapshot(), history.state.snapshot());
        prop_assert_eq!(replayed, history.state);
    }

    #[test]
    fn a_snapshot_goes_on_like_the_state(before in steps(100), after in steps(40)) {
        let mut history = History::of(&before);
        let mut restored = State::restore(&history.state.snapshot()).expect("a snapshot is restored");
        prop_assert_eq!(&restored, &history.state);
        for step in &after {
            let applied = history.step(step);
            if let (Some(applied), Some((index, envelope))) = (applied, history.log.last()) {
                prop_assert_eq!(restored.apply(*index, envelope), applied);
            }
        }
        prop_assert_eq!(restored.snapshot(), history.state.snapshot());
    }

    #[test]
    fn a_refused_command_changes_nothing(steps in steps(100)) {
        let mut history = History::new();
        for step in &steps {
            let before = history.state.clone();
            if let Some(applied) = history.step(step) && applied.reply.is_err() {
                prop_assert_eq!(applied.effects, []);
                prop_assert!(history.state.jobs().eq(before.jobs()));
                prop_assert!(history.state.workers().eq(before.workers()));
                prop_assert!(history.state.tokens().eq(before.tokens()));
            }
        }
    }

    #[test]
    fn a_late_report_is_refused(steps in steps(120)) {
        let mut history = History::new();
        for step in &steps {
            let applied = history.step(step);
            if let (Step::Late { .. }, Some(applied)) = (step, applied) {
                let refused = matches!(
                    applied.reply,
                    Err(Rejection::StaleEpoch { .. } | Rejection::AttemptOver { .. })
                );
                prop_assert!(refused, "{:?}", applied.reply);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_codec_panic(bytes: Vec<u8>) {
        _ = codec::decode(&bytes);
        _ = State::restore(&bytes);
    }

    #[test]
    fn damaged_entries_are_read_or_refused(steps in steps(30), at: prop::sample::Index, bit in 0..8) {
        for (_, envelope) in History::of(&steps).log {
            let mut bytes = codec::encode(&envelope);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            if let Ok(read) = codec::decode(&bytes) {
                prop_assert_eq!(codec::decode(&codec::encode(&read)), Ok(read));
            }
        }
    }

    #[test]
    fn a_damaged_snapshot_is_refused(steps in steps(60), at: prop::sample::Index, bit in 0..8) {
        let mut bytes = History::of(&steps).state.snapshot();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(State::restore(&bytes).is_err());
    }

    #[test]
    fn a_forged_snapshot_is_sound_or_refused(steps in steps(60), at: prop::sample::Index, byte: u8) {
        let mut bytes = History::of(&steps).state.snapshot();
        let at = BODY + at.index(bytes.len() - BODY);
        bytes[at] = byte;
        let checksum = xxh3_64(&bytes[BODY..]).to_le_bytes();
        bytes[BODY - 8..BODY].copy_from_slice(&checksum);
        if let Ok(state) = State::restore(&bytes) {
            prop_assert_eq!(invariants::check(&state), []);
        }
    }
}
