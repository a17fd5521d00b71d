//! A job that is wanted by a time and has to do all again is due by all of it, however many others wait.

use stepcast_records::UsdMicros;
use stepcast_records::simpletuner::Length;
use stepcast_scheduler::Command;
use stepcast_scheduler::ids::{JobId, StagingId, TokenHash, WorkerId};
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::placement::Planner;
use stepcast_scheduler::policy::Aim;

use crate::history::History;
use crate::home::{AWAY, HOME, JOB, MINUTE_MS, comes, leaves_home, rules, wide};
use crate::support::{BySteps, workload};

/// Two hosts with folders of their own, and one job of a hundred minutes that has saved ninety of them on the first and is
/// wanted in a hundred; and one of fifty minutes that came later.
fn story() -> History {
    let mut history = rules(Aim::ShortestRemaining);
    for number in 1..=2 {
        let name = format!("host-{number}").parse().expect("a label");
        let hash = TokenHash(wide(number));
        history.propose(Command::CreateWorkerToken { name, hash }, None);
        comes(&mut history, number, (1, 1_000_000), Some(number));
    }
    let mut spec = JobSpec::new(workload(), StagingId([1; 16]));
    spec.terms.finish_by_ms = Some(history.now_ms + 100 * MINUTE_MS);
    // With a limit it is asked at its turn whether it waits for the first host.
    spec.max_price_per_hour = Some(UsdMicros(100_000_000));
    leaves_home(&mut history, JOB, spec);
    let mut spec = JobSpec::new(workload(), StagingId([2; 16]));
    spec.workload.length = Length::Steps(50);
    let spec = Box::new(spec);
    history.propose(Command::SubmitJob { spec }, None);
    history
}

fn starts(history: &History, planner: &mut Planner) -> Vec<(JobId, WorkerId)> {
    let plan = planner.plan(&history.state, &BySteps, history.now_ms, usize::MAX);
    let starts = plan.placements.iter();
    starts.map(|one| (one.job, one.worker)).collect()
}

fn drains(history: &mut History, worker: WorkerId) {
    let stop_running = true;
    let drain = Command::DrainWorker {
        worker,
        stop_running,
    };
    history.propose(drain, None).reply.expect("it drains");
}

#[test]
fn what_nobody_has_the_checkpoint_of_is_due_by_all_of_it() {
    for one_by_one in [0, usize::MAX] {
        let mut history = story();
        drains(&mut history, HOME);
        let mut planner = Planner::default().with_crowds_above(one_by_one);
        let starts = starts(&history, &mut planner);
        assert_eq!(starts, [(JOB, AWAY)], "{one_by_one}");
    }
}

#[test]
fn it_is_due_by_what_there_is_to_do_when_the_host_with_its_checkpoint_goes() {
    for one_by_one in [0, usize::MAX] {
        let mut history = story();
        let mut planner = Planner::default().with_crowds_above(one_by_one);
        let mut both = starts(&history, &mut planner);
        both.sort_unstable();
        assert_eq!(both, [(JOB, HOME), (JobId(2), AWAY)], "{one_by_one}");
        drains(&mut history, HOME);
        let alone = starts(&history, &mut planner);
        assert_eq!(alone, [(JOB, AWAY)], "{one_by_one}");
        let worker = HOME;
        let resume = Command::ResumeWorker { worker };
        history.propose(resume, None).reply.expect("it is back");
        let mut again = starts(&history, &mut planner);
        again.sort_unstable();
        assert_eq!(again, both, "{one_by_one}");
    }
}
