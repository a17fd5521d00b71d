//! What yields to a higher priority, and that what was freed goes to whom it was freed for.

use std::collections::BTreeMap;

use proptest::prelude::*;
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::{FailureReason, JobState, Outcome};
use stepcast_scheduler::placement::{Planner, plan};
use stepcast_scheduler::policy::{Aim, Policy, Preemption};
use stepcast_scheduler::{Command, Reply, codec, invariants};

use crate::history::{History, steps};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_freed_goes_to_whom_it_was_freed_for(
        steps in steps(120),
        aim in prop::sample::select(Aim::ALL.to_vec()),
        crowd in any::<bool>(),
    ) {
        let mut history = History::new();
        history.propose(Command::Barrier { version: codec::VERSION }, None);
        steps.iter().for_each(|step| _ = history.step(step));
        let preemption = Preemption::ForPriority;
        let policy = Policy { aim, preemption, min_run_ms: 0, ..Policy::default() };
        history.propose(Command::SetPolicy { policy }, None);
        history.now_ms += 1;
        let mut planner = Planner::default();
        if crowd {
            planner = planner.with_crowds_above(0);
        }
        settle(&mut history, &mut planner);
        // Who yields, by whom it is for.
        let mut freed: BTreeMap<JobId, Vec<JobId>> = BTreeMap::new();
        loop {
            let planned = planner.plan(&history.state, &history.forecast, history.now_ms, usize::MAX);
            if planned.placements.is_empty() && planned.preemptions.is_empty() {
                break;
            }
            // What was kept for one for whom others stop elsewhere now is for anybody. What stops or has stopped is not.
            prop_assert!(planned.placements.is_empty() || !freed.is_empty());
            for placement in &planned.placements {
                prop_assert!(!freed.contains_key(&placement.job), "they stop in vain: {:?}", planned);
                for urgent in freed.keys().filter_map(|urgent| history.state.open_job(*urgent)) {
                    let takes = urgent.standing.freed.is_some_and(|kept| {
                        placement.worker == kept.worker
                            && placement.gpus.iter().any(|gpu| kept.gpus >> gpu & 1 == 1)
                    });
                    prop_assert!(!takes, "somebody else has it: {:?}", placement);
                }
            }
            for asked in &planned.preemptions {
                let yields = history.state.open_job(asked.job).expect("it runs");
                let urgent = asked.for_job.and_then(|job| history.state.open_job(job)).expect("it is for somebody");
                prop_assert_eq!(urgent.state, JobState::Pending);
                prop_assert!(yields.spec.priority < urgent.spec.priority);
                freed.entry(urgent.id).or_default().push(yields.id);
            }
            let (placements, preemptions) = (planned.placements, planned.preemptions);
            let applied = history.propose(Command::Place { placements }, None);
            let Ok(Reply::Placed { outcomes }) = applied.reply else { panic!("a plan is refused") };
            prop_assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            let applied = history.propose(Command::Preempt { preemptions }, None);
            let Ok(Reply::Preempted { outcomes }) = applied.reply else { panic!("a plan is refused") };
            prop_assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            prop_assert_eq!(invariants::check(&history.state), []);
        }
        for (urgent, yields) in freed {
            for (at, job) in yields.iter().enumerate() {
                stop(&mut history, *job);
                let (state, now_ms) = (&history.state, history.now_ms);
                let planned = planner.plan(state, &history.forecast, now_ms, usize::MAX);
                // It may have found another place while others were stopping for it: then nothing is kept any more.
                let urgent_job = state.open_job(urgent).expect("it is not over");
                let has_started = urgent_job.state == JobState::Running;
                let starts = has_started || planned.placements.iter().any(|placement| placement.job == urgent);
                prop_assert!(starts || at + 1 < yields.len(), "it has made room: {:?}", planned);
                if !crowd {
                    prop_assert_eq!(&planned, &plan(state, &history.forecast, now_ms, usize::MAX));
                }
                let kept = urgent_job.standing.freed;
                prop_assert_eq!(kept.is_none(), has_started);
                for placement in planned.placements.iter().filter(|placement| placement.job != urgent) {
                    let takes = kept.is_some_and(|kept| {
                        placement.worker == kept.worker
                            && placement.gpus.iter().any(|gpu| kept.gpus >> gpu & 1 == 1)
                    });
                    prop_assert!(starts || !takes, "somebody else has it: {:?}", placement);
                }
                let placements = planned.placements;
                let applied = history.propose(Command::Place { placements }, None);
                let Ok(Reply::Placed { outcomes }) = applied.reply else { panic!("a plan is refused") };
                prop_assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            }
            let started = history.state.open_job(urgent).expect("it runs");
            prop_assert_eq!((started.state, started.standing.freed), (JobState::Running, None));
        }
        prop_assert_eq!(invariants::check(&history.state), []);
    }
}

/// Places whatever can be placed, until nothing more can.
fn settle(history: &mut History, planner: &mut Planner) {
    loop {
        let (state, now_ms) = (&history.state, history.now_ms);
        let planned = planner.plan(state, &history.forecast, now_ms, usize::MAX);
        let placements = planned.placements;
        if placements.is_empty() {
            break;
        }
        history.propose(Command::Place { placements }, None);
        history.now_ms += 1;
    }
}

fn stop(history: &mut History, job: JobId) {
    let attempt = history
        .state
        .open_job(job)
        .and_then(|job| job.live_attempt());
    let epoch = attempt.expect("it runs").epoch;
    let stopped = Command::EndAttempt {
        job,
        epoch,
        outcome: Outcome::Failed(FailureReason::Preempted),
        step: 0,
        detail: String::new(),
    };
    assert!(history.propose(stopped, None).reply.is_ok());
}
