//! What is said to start a job starts it.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use stepcast_scheduler::model::JobState;
use stepcast_scheduler::sooner::sooner;
use stepcast_scheduler::{Command, Envelope, Reply, State};

use crate::history::{History, steps};
use crate::support::planned;

/// Applies a command to a state.
fn apply(state: &mut State, now_ms: u64, command: Command) -> Option<Reply> {
    let index = state.applied_index() + 1;
    state
        .apply(index, &Envelope::new(now_ms, None, command))
        .reply
        .ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every suggestion for every waiting job of a random state, applied to it, and one look at the queue.
    #[test]
    fn a_suggested_change_starts_the_job(steps in steps(120)) {
        let history = History::of(&steps);
        let (state, now_ms) = (&history.state, history.now_ms);
        let waiting: Vec<_> = state.pending().map(|job| job.id).take(8).collect();
        for job in waiting {
            for suggestion in sooner(state, &history.forecast, job, now_ms) {
                prop_assert!(!suggestion.changes.is_empty() && !suggestion.commands.is_empty());
                let mut changed = state.clone();
                for command in &suggestion.commands {
                    prop_assert!(apply(&mut changed, now_ms, command.clone()).is_some(), "{command:?}");
                }
                let placements = planned(&changed, &history.forecast, now_ms);
                apply(&mut changed, now_ms, Command::Place { placements });
                let started = changed.job(job).is_some_and(|job| job.state == JobState::Running);
                prop_assert!(started, "{:?} does not start {job}", suggestion.changes);
            }
        }
    }
}

/// Not vacuous: in the states that are drawn there is something to suggest.
#[test]
fn there_is_something_to_suggest() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut suggested = 0;
    for _ in 0..40 {
        let tree = steps(120).new_tree(&mut runner).expect("steps");
        let history = History::of(&tree.current());
        let waiting: Vec<_> = history.state.pending().map(|job| job.id).take(8).collect();
        let some = waiting
            .iter()
            .map(|job| sooner(&history.state, &history.forecast, *job, history.now_ms).len());
        suggested += some.sum::<usize>();
    }
    assert!(suggested > 20, "only {suggested}");
}
