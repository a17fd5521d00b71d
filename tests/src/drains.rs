//! Whether one worker is drained, as its callers may see it: a register that is written by draining and resuming.

use crate::linearizable::Model;

/// A call about the worker, with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It was drained (`true`) or resumed.
    Set(bool),
    /// It was looked at.
    Get(bool),
}

/// The model.
#[derive(Debug, Clone, Copy)]
pub struct Drained;

impl Model for Drained {
    type State = bool;
    type Call = Call;

    fn initial(&self) -> bool {
        false
    }

    fn step(&self, drained: &bool, call: &Call) -> Option<bool> {
        match *call {
            Call::Set(value) => Some(value),
            Call::Get(value) => (value == *drained).then_some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linearizable::{Timed, check};

    fn timed(call: Call, start: u64, end: Option<u64>) -> Timed<Call> {
        Timed { call, start, end }
    }

    #[test]
    fn a_write_that_was_acknowledged_is_read() {
        let lost = [
            timed(Call::Set(true), 0, Some(1)),
            timed(Call::Get(false), 2, Some(3)),
        ];
        assert!(check(&Drained, &lost).is_err());
        let unknown = [
            timed(Call::Set(true), 0, None),
            timed(Call::Get(false), 2, Some(3)),
            timed(Call::Get(true), 4, Some(5)),
            timed(Call::Get(false), 6, Some(7)),
        ];
        assert!(check(&Drained, &unknown).is_err(), "nobody has resumed it");
    }
}
