//! A job as its callers may see it: it comes into being once, its events only go forward, and what is over stays over.
//!
//! Callers do not decide what becomes of a job, workers do. So the model lets a read find any newer event than the one
//! before, and holds it to everything that callers can know: a read that finds no job, an older event, another state at
//! the same event, or a job that goes on although its cancellation was acknowledged or its end was seen, has no order.

use crate::linearizable::Model;

/// Where a job stands, as the wire says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stand {
    /// It waits.
    Pending,
    /// An attempt holds GPUs.
    Running,
    /// It was asked to end.
    Cancelling,
    /// It is done.
    Succeeded,
    /// It has failed for good.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl Stand {
    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A call about one job, with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It was submitted. The same request may be sent again.
    Submit,
    /// It was looked at, alone or in a list.
    Get {
        /// Number of the newest event that was seen.
        seq: u64,
        /// Where it stood.
        stand: Stand,
    },
    /// It was looked for and was not there.
    Missing,
    /// Its cancellation was acknowledged.
    Cancel,
    /// Its cancellation was refused because it is over.
    CancelOver,
    /// Its cancellation was asked for and nobody knows what became of it.
    CancelUnknown,
}

/// What is known of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Known {
    /// Number of the newest event that anybody saw; 0 for no job.
    seq: u64,
    /// Where it stood then, if anybody looked.
    stand: Option<Stand>,
    cancelled: bool,
    over: bool,
    /// It ended by itself: a cancellation was refused.
    done: bool,
}

/// The model of one job.
#[derive(Debug, Clone, Copy)]
pub struct Job;

impl Model for Job {
    type State = Known;
    type Call = Call;

    fn initial(&self) -> Known {
        Known::default()
    }

    fn step(&self, known: &Known, call: &Call) -> Option<Known> {
        let there = known.seq > 0;
        match *call {
            Call::Submit if there => Some(*known),
            Call::Submit => Some(Known { seq: 1, ..*known }),
            Call::Missing => (!there).then_some(*known),
            Call::Get { seq, stand } => (there && fits(known, seq, stand)).then_some(Known {
                seq,
                stand: Some(stand),
                over: known.over || stand.is_over(),
                ..*known
            }),
            Call::Cancel => cancelled(known),
            Call::CancelOver => (there && !known.was_cancelled()).then_some(Known {
                over: true,
                done: true,
                ..*known
            }),
            Call::CancelUnknown => Some(cancelled(known).unwrap_or(*known)),
        }
    }
}

impl Known {
    fn was_cancelled(&self) -> bool {
        self.stand == Some(Stand::Cancelled)
    }
}

/// The job once its cancellation is acknowledged, if it can be: cancelling what is cancelled changes nothing.
fn cancelled(known: &Known) -> Option<Known> {
    if known.was_cancelled() {
        return Some(*known);
    }
    (known.seq > 0 && !known.over).then_some(Known {
        cancelled: true,
        // What was seen before says nothing about the moment after.
        stand: None,
        ..*known
    })
}

fn fits(known: &Known, seq: u64, stand: Stand) -> bool {
    let same = seq == known.seq && known.stand.is_none_or(|seen| seen == stand);
    let final_seen = known.stand.is_some_and(Stand::is_over);
    let newer = seq > known.seq && !final_seen;
    let goes_on = matches!(stand, Stand::Pending | Stand::Running);
    let undone = (known.over && !stand.is_over()) || (known.cancelled && goes_on);
    (same || newer) && !undone && !(known.done && stand == Stand::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linearizable::{Timed, check};

    fn get(seq: u64, stand: Stand) -> Call {
        Call::Get { seq, stand }
    }

    /// Calls one after the other.
    fn accepted(calls: &[Call]) -> bool {
        let history: Vec<Timed<Call>> = (0..)
            .zip(calls)
            .map(|(at, call)| Timed {
                call: *call,
                start: 2 * at,
                end: Some(2 * at + 1),
            })
            .collect();
        check(&Job, &history).is_ok()
    }

    #[test]
    fn a_job_lives_once_and_forward() {
        let life = [
            Call::Missing,
            Call::Submit,
            get(1, Stand::Pending),
            get(1, Stand::Pending),
            get(3, Stand::Running),
            Call::Submit,
            Call::Cancel,
            get(4, Stand::Cancelling),
            get(6, Stand::Cancelled),
            Call::Cancel,
            get(6, Stand::Cancelled),
        ];
        assert!(accepted(&life));
        let done = [
            Call::Submit,
            get(5, Stand::Succeeded),
            Call::CancelOver,
            get(5, Stand::Succeeded),
        ];
        assert!(accepted(&done));
    }

    #[test]
    fn a_lost_submit_is_found() {
        assert!(!accepted(&[Call::Submit, Call::Missing]));
    }

    #[test]
    fn a_job_out_of_nowhere_is_found() {
        assert!(!accepted(&[get(1, Stand::Pending)]));
    }

    #[test]
    fn a_stale_read_is_found() {
        let back = [Call::Submit, get(3, Stand::Running), get(1, Stand::Pending)];
        assert!(!accepted(&back));
    }

    #[test]
    fn two_stories_of_one_event_are_found() {
        let two = [Call::Submit, get(3, Stand::Running), get(3, Stand::Pending)];
        assert!(!accepted(&two));
    }

    #[test]
    fn what_is_over_and_goes_on_is_found() {
        for next in [
            get(6, Stand::Running),
            get(7, Stand::Succeeded),
            Call::Cancel,
        ] {
            assert!(!accepted(&[Call::Submit, get(5, Stand::Succeeded), next]));
        }
        for next in [Stand::Running, Stand::Cancelled] {
            assert!(!accepted(&[Call::Submit, Call::CancelOver, get(9, next)]));
        }
        let both = [Call::Submit, get(9, Stand::Cancelled), Call::CancelOver];
        assert!(!accepted(&both));
    }

    #[test]
    fn an_acknowledged_cancellation_that_is_lost_is_found() {
        let lost = [
            Call::Submit,
            get(3, Stand::Running),
            Call::Cancel,
            get(3, Stand::Running),
        ];
        assert!(!accepted(&lost));
        let unknown = [Call::Submit, Call::CancelUnknown, get(3, Stand::Running)];
        assert!(!accepted(&unknown), "it took effect, or it was none");
    }

    #[test]
    fn an_unknown_cancellation_may_stay_without_effect() {
        let timed = |call, start, end| Timed { call, start, end };
        let history = [
            timed(Call::Submit, 0, Some(1)),
            timed(Call::CancelUnknown, 2, None),
            timed(get(3, Stand::Running), 4, Some(5)),
            timed(get(4, Stand::Cancelling), 6, Some(7)),
        ];
        assert_eq!(check(&Job, &history), Ok(()));
    }
}
