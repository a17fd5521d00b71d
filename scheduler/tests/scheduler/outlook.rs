//! When jobs are said to start and to be done.

use std::cell::Cell;

use proptest::prelude::*;
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::JobState;
use stepcast_scheduler::outlook::{Outlook, WORLDS, Whom, outlook};

use crate::history::{History, steps};

/// What is expected of these jobs, with all the time in the world.
fn expected(history: &History, whom: Whom<'_>) -> Outlook {
    outlook(
        &history.state,
        &history.forecast,
        history.now_ms,
        whom,
        &|| 0.0,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nine_in_ten_is_never_earlier_than_half_and_nothing_is_before_now(steps in steps(60)) {
        let history = History::of(&steps);
        let (state, now_ms) = (&history.state, history.now_ms);
        let all = expected(&history, Whom::All);
        prop_assert_eq!(all.jobs.len(), state.pending_count() + state.leases().count());
        prop_assert_eq!(all.worlds, WORLDS[0]);
        prop_assert_eq!(&all, &expected(&history, Whom::All));
        for (job, expected) in all.jobs {
            let runs = state.open_job(job).is_some_and(|job| job.state != JobState::Pending);
            prop_assert!(!runs || expected.start.p50_ms.is_none());
            for times in [expected.start, expected.finish] {
                prop_assert!(times.p50_ms.is_none_or(|ms| ms >= now_ms));
                prop_assert!(times.p90_ms.is_none_or(|late| times.p50_ms.is_some_and(|ms| ms <= late)));
            }
            let (start, finish) = (expected.start.p50_ms, expected.finish.p50_ms);
            prop_assert!(finish.is_none() || runs || start.is_some_and(|start| start <= finish.unwrap_or(0)));
        }
    }

    /// To ask for a few is quicker and says the same of them.
    #[test]
    fn some_are_told_what_all_are(steps in steps(60), every in 1..4_usize) {
        let history = History::of(&steps);
        let all = expected(&history, Whom::All);
        let some: Vec<JobId> = all.jobs.keys().copied().step_by(every).collect();
        let told = expected(&history, Whom::These(&some));
        prop_assert_eq!(told.jobs.len(), some.len());
        for (job, expected) in told.jobs {
            prop_assert_eq!(Some(&expected), all.jobs.get(&job), "{}", job);
        }
    }
}

/// Two workers, and jobs that wait.
fn some_history() -> History {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let histories = (0..).map(|_| {
        let tree = steps(60).new_tree(&mut runner).expect("steps");
        History::of(&tree.current())
    });
    let waits = |history: &History| history.state.pending_count() > 2;
    let mut waiting = histories.filter(waits);
    waiting.next().expect("histories go on for ever")
}

#[test]
fn less_time_means_fewer_worlds_and_no_time_means_nothing() {
    let history = some_history();
    let (state, forecast) = (&history.state, &history.forecast);
    let with = |spent: &dyn Fn() -> f64| outlook(state, forecast, history.now_ms, Whom::All, spent);
    assert_eq!(with(&|| 1.0), Outlook::default());
    let whole = Cell::new(0.0);
    _ = with(&|| {
        whole.set(whole.get() + 1.0);
        0.0
    });
    let one = whole.get() / 17.0;
    let mut found = Vec::new();
    for room in [40.0, 12.0, 6.5, 1.7] {
        let asked = Cell::new(0.0);
        let told = with(&|| {
            asked.set(asked.get() + 1.0);
            asked.get() / (room * one)
        });
        found.push(told.worlds);
        let late = |times: stepcast_scheduler::outlook::Times| times.p90_ms.is_some();
        let any = told
            .jobs
            .values()
            .any(|job| late(job.start) || late(job.finish));
        assert!(told.worlds > 1 || !any, "one world has no ninth decile");
    }
    // Worlds differ in how long they take, so it is only known that there are fewer and fewer.
    assert!(found.is_sorted_by(|a, b| a >= b), "{found:?}");
    assert_eq!((found[0], found[3] < 4), (16, true), "{found:?}");
}
