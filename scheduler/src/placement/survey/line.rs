//! A line of waiting jobs as it is known between looks: its first job, what is left of each on every model, and its turn.

use std::sync::Arc;

use super::saved::Saved;
use super::waiting::Wait;
use crate::ids::{JobId, TeamId};
use crate::model::Objective;
use crate::placement::left::{GUESSED_MS, Left};
use crate::policy::Aim;
use crate::state::Line;

/// A line.
pub(in crate::placement) struct Known {
    pub(in crate::placement) line: Line,
    /// The place in the queue of its first job.
    pub(in crate::placement) head: (i64, JobId),
    /// How many jobs stand in it.
    pub(in crate::placement) count: usize,
    /// How many GPUs each of its jobs takes, on all of its hosts.
    pub(in crate::placement) width: u8,
    /// The team of its jobs.
    pub(in crate::placement) team: TeamId,
    /// What its jobs choose hardware by.
    pub(in crate::placement) objective: Objective,
    /// Its jobs do not pay every price, or could not be started somewhere.
    pub(in crate::placement) is_choosy: bool,
    /// The priority of its jobs.
    pub(in crate::placement) priority: i8,
    /// From when on GPUs are kept for its first job, by stamp.
    pub(in crate::placement) due_ms: u64,
    /// Which lines have the same needs.
    pub(in crate::placement) bucket: u32,
    /// How its job waits for the host with its checkpoint, if it is one and does so for certain.
    pub(in crate::placement) waits: Option<Wait>,
    /// What is left of a job on each model at best; `None` where no worker would take it, busy or not.
    pub(in crate::placement) left: Arc<[Option<Left>]>,
    /// The checkpoint that its jobs go on from, which may not be everywhere.
    pub(in crate::placement) saved: Option<Saved>,
    /// Which forecasts that is by; `None` if it has to be asked again in any case.
    pub(in crate::placement) forecasts: Option<u64>,
}

impl Known {
    /// What is to be done of a job on each model: what is left of it, and all of it where nobody has its checkpoint any more.
    pub(in crate::placement) fn to_do(&self) -> &Arc<[Option<Left>]> {
        self.saved.as_ref().map_or(&self.left, |saved| &saved.to_do)
    }
}

/// A job that came so many times its own length later does not go before it.
const AGE: f64 = 8.0;

/// When a job with an order gets its turn if it is to run where so much is left of it: the least first.
pub(in crate::placement) fn turn_at(aim: Aim, order: i64, width: f64, left: &Left) -> f64 {
    // Nobody knows: by the order of the queue alone.
    let length = if left.is_guess {
        GUESSED_MS
    } else {
        left.p50_ms * width.sqrt()
    };
    turn(aim, order, length)
}

/// When something of a length gets its turn.
pub(in crate::placement) fn turn(aim: Aim, order: i64, length: f64) -> f64 {
    match aim {
        Aim::ShortestRemaining => length,
        _ => order as f64 + AGE * length,
    }
}

/// A number as another whose order as an integer is the number's.
pub(in crate::placement) const fn ordered(number: f64) -> u64 {
    let bits = number.to_bits();
    if bits >> 63 == 0 {
        bits | 1 << 63
    } else {
        !bits
    }
}

/// The number that was made into one by [`ordered`].
pub(in crate::placement) const fn number(ordered: u64) -> f64 {
    let bits = if ordered >> 63 == 1 {
        ordered & !(1 << 63)
    } else {
        !ordered
    };
    f64::from_bits(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_order() {
        let numbers = [
            f64::NEG_INFINITY,
            -2.5,
            -1e-300,
            0.0,
            1e-300,
            3.0,
            1e300,
            f64::INFINITY,
        ];
        assert!(numbers.is_sorted_by(|a, b| ordered(*a) < ordered(*b)));
        assert_eq!(numbers.map(|x| number(ordered(x))), numbers);
    }
}
