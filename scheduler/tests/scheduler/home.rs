//! Jobs go on where their checkpoints are, by whatever policy, and begin anew where they are not.

use std::cell::Cell;

use stepcast_records::simpletuner::Length;
use stepcast_records::{Hardware, UsdMicros};
use stepcast_scheduler::forward::{Forward, Truth};
use stepcast_scheduler::ids::{
    Epoch, InstanceId, JobId, OutputsId, StagingId, TokenHash, WorkerId,
};
use stepcast_scheduler::model::{FailureReason, Inventory, Job, JobSpec, Outcome, TrainerKind};
use stepcast_scheduler::placement::{Forecast, ForecastSource, Placement, PlacementNote, Planner};
use stepcast_scheduler::policy::{Aim, Policy};
use stepcast_scheduler::{Command, codec};

use crate::history::History;
use crate::support::{BySteps, workload};

pub(crate) const MINUTE_MS: u64 = 60_000;

/// How long all of the job takes, on either host.
const WHOLE_MS: u64 = 100 * MINUTE_MS;

pub(crate) const HOME: WorkerId = WorkerId(1);
pub(crate) const AWAY: WorkerId = WorkerId(2);
pub(crate) const JOB: JobId = JobId(1);

/// No host, and all of a job on one GPU known.
pub(crate) fn rules(aim: Aim) -> History {
    let mut history = History::new();
    let hardware = "h100".parse().expect("a hardware");
    history.forecast.0.insert(hardware, WHOLE_MS / MINUTE_MS);
    let version = codec::VERSION;
    history.propose(Command::Barrier { version }, None);
    let policy = Policy {
        aim,
        ..Policy::default()
    };
    history.propose(Command::SetPolicy { policy }, None);
    history
}

/// Two hosts that put results into these folders, the second of them cheaper, and a job that has saved nine tenths of its
/// steps on the first.
fn story(aim: Aim, outputs: [Option<u8>; 2]) -> History {
    let mut history = rules(aim);
    for (number, outputs) in (1..).zip(outputs) {
        let name = format!("host-{number}").parse().expect("a label");
        let hash = TokenHash(wide(number));
        history.propose(Command::CreateWorkerToken { name, hash }, None);
        let price = 3_000_000 - 1_000_000 * u64::from(number);
        comes(&mut history, number, (1, price), outputs.map(u16::from));
    }
    let spec = JobSpec::new(workload(), StagingId([1; 16]));
    leaves_home(&mut history, JOB, spec);
    history
}

/// Numbers that are ids.
pub(crate) fn wide(number: u16) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Has a host with a token come, with so many GPUs at a price each and a folder.
pub(crate) fn comes(
    history: &mut History,
    number: u16,
    (gpus, price): (usize, u64),
    outputs: Option<u16>,
) {
    let id = |number: u16| wide(number).first_chunk().copied().expect("there are 16");
    let register = Command::RegisterWorker {
        token_hash: TokenHash(wide(number)),
        instance: InstanceId(id(number)),
        inventory: Inventory {
            gpus: vec!["h100".parse().expect("a GPU"); gpus],
            trainers: [TrainerKind::SimpleTuner].into(),
            labels: [].into(),
            price_per_gpu_hour: Some(UsdMicros(price)),
            address: None,
            outputs: outputs.map(|outputs| OutputsId(id(outputs))),
        },
    };
    history.propose(register, None).reply.expect("it comes");
}

/// Has a job begin at home and wait again with nine tenths of its steps.
pub(crate) fn leaves_home(history: &mut History, job: JobId, spec: JobSpec) {
    let gpus = (0..spec.gpu_count).collect();
    let spec = Box::new(spec);
    history.propose(Command::SubmitJob { spec }, None);
    let epoch = place(history, job, (HOME, gpus), PlacementNote::default());
    let step = 90;
    history.propose(Command::StartAttempt { job, epoch }, None);
    history.propose(Command::Checkpoint { job, epoch, step }, None);
    let end = Command::EndAttempt {
        job,
        epoch,
        outcome: Outcome::Failed(FailureReason::Preempted),
        step,
        detail: String::new(),
    };
    history.propose(end, None).reply.expect("it runs");
    history.now_ms += MINUTE_MS;
}

fn place(
    history: &mut History,
    id: JobId,
    (worker, gpus): (WorkerId, Vec<u8>),
    note: PlacementNote,
) -> Epoch {
    let job = history.state.open_job(id).expect("it is not over");
    let placements = vec![Placement {
        job: id,
        attempt: job.next_attempt(),
        worker,
        gpus,
        note,
        others: Vec::new(),
    }];
    history.propose(Command::Place { placements }, None);
    let job = history.state.open_job(id).expect("it is not over");
    job.live_attempt().expect("it is placed").epoch
}

/// Where the job would start now and how long it would take, by a planner that looks at each job or at a crowd.
fn planned(history: &History, is_crowd: bool) -> Option<(WorkerId, Option<u64>)> {
    let one_by_one = if is_crowd { 0 } else { usize::MAX };
    let mut planner = Planner::default().with_crowds_above(one_by_one);
    let (state, now_ms) = (&history.state, history.now_ms);
    let plan = planner.plan(state, &history.forecast, now_ms, usize::MAX);
    let placement = plan.placements.first()?;
    Some((placement.worker, placement.note.run_ms_p50))
}

#[test]
fn a_job_goes_on_where_its_checkpoint_is() {
    let restart_ms = Policy::default().restart_ms;
    let (rest, all) = (WHOLE_MS / 10 + restart_ms, WHOLE_MS + restart_ms);
    for (aim, is_crowd) in Aim::ALL
        .into_iter()
        .flat_map(|aim| [(aim, false), (aim, true)])
    {
        let mut history = story(aim, [Some(1), Some(2)]);
        let at = |history: &History| {
            let (worker, ms) = planned(history, is_crowd).expect("it starts");
            // Parts of a run are no whole milliseconds.
            (worker, ms.map(|ms| (ms + 1) / 1_000))
        };
        let (rest, all) = (Some(rest / 1_000), Some(all / 1_000));
        assert_eq!(at(&history), (HOME, rest), "{aim:?} {is_crowd}");
        // One that is away or takes nothing new is not waited for.
        let (worker, stop_running) = (HOME, true);
        history.propose(
            Command::DrainWorker {
                worker,
                stop_running,
            },
            None,
        );
        assert_eq!(at(&history), (AWAY, all), "{aim:?} {is_crowd}");
        for outputs in [[Some(1), Some(1)], [Some(1), None], [None, Some(2)]] {
            let history = story(aim, outputs);
            assert_eq!(at(&history), (AWAY, rest), "{aim:?} {is_crowd} {outputs:?}");
        }
    }
}

/// Whatever is in the way where it is, it begins anew elsewhere before that has cost more than to do all again.
#[test]
fn nobody_waits_for_longer_than_what_is_done_again() {
    for (aim, is_crowd) in Aim::ALL
        .into_iter()
        .flat_map(|aim| [(aim, false), (aim, true)])
    {
        let mut history = story(aim, [Some(1), Some(2)]);
        let mut spec = JobSpec::new(workload(), StagingId([2; 16]));
        spec.priority = 0;
        let spec = Box::new(spec);
        history.propose(Command::SubmitJob { spec }, None);
        // It should have ended long ago.
        let note = PlacementNote {
            run_ms_p50: Some(1),
            run_ms_p90: Some(1),
            cost_p50: None,
        };
        place(&mut history, JobId(2), (HOME, vec![0]), note);
        history.now_ms += MINUTE_MS;
        assert_eq!(planned(&history, is_crowd), None, "{aim:?} {is_crowd}");
        history.now_ms += WHOLE_MS;
        let starts = planned(&history, is_crowd).map(|(worker, _)| worker);
        assert_eq!(starts, Some(AWAY), "{aim:?} {is_crowd}");
    }
}

/// Whatever a planner has seen before, it knows when a job does not wait any more.
#[test]
fn what_ends_the_wait_for_a_host_is_seen_at_once() {
    type End = fn(&mut History);
    let ends: [(End, Option<WorkerId>); 6] = [
        (|_| {}, None),
        (|history| history.now_ms += WHOLE_MS, Some(AWAY)),
        (|history| comes(history, 1, (1, 2_000_000), Some(5)), None),
        (
            |history| comes(history, 2, (1, 1_000_000), None),
            Some(AWAY),
        ),
        (
            |history| {
                let job = history.state.open_job(JobId(2)).expect("it runs");
                let epoch = job.live_attempt().expect("it runs").epoch;
                let end = Command::EndAttempt {
                    job: JobId(2),
                    epoch,
                    outcome: Outcome::Succeeded,
                    step: 100,
                    detail: String::new(),
                };
                history.propose(end, None).reply.expect("it runs");
            },
            Some(HOME),
        ),
        (
            |history| {
                let (worker, stop_running) = (HOME, false);
                let drain = Command::DrainWorker {
                    worker,
                    stop_running,
                };
                history.propose(drain, None).reply.expect("it is there");
            },
            Some(AWAY),
        ),
    ];
    for (number, (end, expected)) in ends.into_iter().enumerate() {
        for one_by_one in [0, usize::MAX] {
            let mut history = story(Aim::Balanced, [Some(1), Some(2)]);
            let spec = Box::new(JobSpec::new(workload(), StagingId([2; 16])));
            history.propose(Command::SubmitJob { spec }, None);
            let note = PlacementNote {
                run_ms_p50: Some(1),
                run_ms_p90: Some(1),
                cost_p50: None,
            };
            place(&mut history, JobId(2), (HOME, vec![0]), note);
            history.now_ms += MINUTE_MS;
            let mut planner = Planner::default().with_crowds_above(one_by_one);
            let mut starts = |history: &History| {
                let (state, now_ms) = (&history.state, history.now_ms);
                let plan = planner.plan(state, &history.forecast, now_ms, usize::MAX);
                plan.placements.first().map(|one| one.worker)
            };
            assert_eq!(starts(&history), None);
            end(&mut history);
            assert_eq!(starts(&history), expected, "{number} {one_by_one}");
        }
    }
}

/// Has jobs of the lowest priority run on both hosts: on the one with the checkpoint for an hour, on the other one, which loses
/// less by stopping, for half of that.
fn both_busy(history: &mut History) {
    for (id, worker) in [(2, HOME), (3, AWAY)] {
        let mut spec = JobSpec::new(workload(), StagingId([id; 16]));
        spec.priority = -10;
        let spec = Box::new(spec);
        history.propose(Command::SubmitJob { spec }, None);
        let job = JobId(id.into());
        let epoch = place(history, job, (worker, vec![0]), PlacementNote::default());
        history.propose(Command::StartAttempt { job, epoch }, None);
        history.now_ms += 30 * MINUTE_MS;
    }
}

#[test]
fn others_yield_where_its_checkpoint_is_and_what_frees_itself_elsewhere_is_left_alone() {
    for is_crowd in [false, true] {
        let one_by_one = if is_crowd { 0 } else { usize::MAX };
        let mut history = story(Aim::Balanced, [Some(1), Some(2)]);
        both_busy(&mut history);
        let mut planner = Planner::default().with_crowds_above(one_by_one);
        let (state, now_ms) = (&history.state, history.now_ms);
        let plan = planner.plan(state, &history.forecast, now_ms, usize::MAX);
        let asked: Vec<_> = plan.preemptions.iter().map(|one| one.job).collect();
        assert_eq!(asked, [JobId(2)], "{is_crowd}");
        let preemptions = plan.preemptions;
        let stop = Command::Preempt { preemptions };
        history.propose(stop, None).reply.expect("it runs");
        // While the one still saves, the other one ends.
        let job = JobId(3);
        let other = history.state.open_job(job).expect("it runs");
        let epoch = other.live_attempt().expect("it runs").epoch;
        let end = Command::EndAttempt {
            job,
            epoch,
            outcome: Outcome::Succeeded,
            step: 100,
            detail: String::new(),
        };
        history.propose(end, None).reply.expect("it runs");
        let (state, now_ms) = (&history.state, history.now_ms);
        let plan = planner.plan(state, &history.forecast, now_ms, usize::MAX);
        assert_eq!(plan.placements, [], "{is_crowd}");
    }
}

/// However many hosts are free that are of no use to it: who comes later finds them.
#[test]
fn gpus_are_kept_where_a_checkpoint_is_for_a_job_that_was_passed_for_long() {
    for (aim, is_crowd) in [Aim::Fifo, Aim::Priority, Aim::Balanced, Aim::Makespan]
        .into_iter()
        .flat_map(|aim| [(aim, false), (aim, true)])
    {
        let mut history = rules(aim);
        let two = Hardware::new("h100".parse().expect("a GPU"), 2).expect("a hardware");
        history.forecast.0.insert(two, WHOLE_MS / MINUTE_MS);
        for number in 1..300 {
            let name = format!("host-{number}").parse().expect("a label");
            let hash = TokenHash(wide(number));
            history.propose(Command::CreateWorkerToken { name, hash }, None);
            let price = if number == 1 { 1_000_000 } else { 2_000_000 };
            comes(&mut history, number, (2, price), Some(number));
        }
        let mut spec = JobSpec::new(workload(), StagingId([1; 16]));
        spec.gpu_count = 2;
        leaves_home(&mut history, JOB, spec);
        for staging in 2..=3 {
            let spec = Box::new(JobSpec::new(workload(), StagingId([staging; 16])));
            history.propose(Command::SubmitJob { spec }, None);
        }
        // One of the two is in use for a little longer than it takes until others do not pass it any more.
        let note = PlacementNote {
            run_ms_p50: Some(40 * MINUTE_MS),
            run_ms_p90: Some(40 * MINUTE_MS),
            cost_p50: None,
        };
        place(&mut history, JobId(2), (HOME, vec![0]), note);
        history.now_ms += 30 * MINUTE_MS;
        let one_by_one = if is_crowd { 0 } else { usize::MAX };
        let mut planner = Planner::default().with_crowds_above(one_by_one);
        let (state, now_ms) = (&history.state, history.now_ms);
        let plan = planner.plan(state, &history.forecast, now_ms, usize::MAX);
        let starts = plan.placements.iter();
        let starts: Vec<_> = starts.map(|one| (one.job, one.worker == HOME)).collect();
        assert_eq!(starts, [(JobId(3), false)], "{aim:?} {is_crowd}");
    }
}

#[test]
fn a_job_whose_checkpoint_nobody_has_any_more_is_as_long_as_all_of_it() {
    for one_by_one in [0, usize::MAX] {
        let mut history = story(Aim::ShortestRemaining, [Some(1), Some(2)]);
        let (worker, stop_running) = (HOME, true);
        let drain = Command::DrainWorker {
            worker,
            stop_running,
        };
        history.propose(drain, None);
        let mut spec = JobSpec::new(workload(), StagingId([2; 16]));
        spec.workload.length = Length::Steps(50);
        let spec = Box::new(spec);
        history.propose(Command::SubmitJob { spec }, None);
        let mut planner = Planner::default().with_crowds_above(one_by_one);
        let plan = planner.plan(&history.state, &BySteps, history.now_ms, usize::MAX);
        let starts: Vec<_> = plan.placements.iter().map(|one| one.job).collect();
        assert_eq!(starts, [JobId(2)], "{one_by_one}");
    }
}

/// Forecasts, and how many were asked for.
struct Counted(Cell<usize>);

impl ForecastSource for Counted {
    fn version(&self) -> Option<u64> {
        BySteps.version()
    }

    fn forecast(&self, spec: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        self.0.set(self.0.get() + 1);
        BySteps.forecast(spec, hardware)
    }
}

#[test]
fn nothing_is_asked_about_those_who_wait_for_a_host_with_each_event() {
    // A minute each, and none of them waits for as long as GPUs are kept for it.
    const WAITING: u8 = 20;
    let mut history = story(Aim::Balanced, [Some(1), Some(2)]);
    for number in 2..=WAITING {
        let mut spec = JobSpec::new(workload(), StagingId([number; 16]));
        // Each has a line of its own.
        spec.workload.length = Length::Steps(100 + u64::from(number));
        leaves_home(&mut history, JobId(number.into()), spec);
    }
    let spec = Box::new(JobSpec::new(workload(), StagingId([WAITING + 1; 16])));
    history.propose(Command::SubmitJob { spec }, None);
    let note = PlacementNote {
        run_ms_p50: Some(1),
        run_ms_p90: Some(1),
        cost_p50: None,
    };
    let job = JobId(u64::from(WAITING) + 1);
    place(&mut history, job, (HOME, vec![0]), note);
    let counted = Counted(Cell::new(0));
    let mut planner = Planner::default().with_crowds_above(0);
    let mut starts = || {
        let (state, now_ms) = (&history.state, history.now_ms);
        planner.plan(state, &counted, now_ms, usize::MAX).placements
    };
    assert_eq!(starts(), []);
    let before = counted.0.get();
    assert_eq!(starts(), []);
    let asked = counted.0.get() - before;
    assert!(asked < usize::from(WAITING), "{asked}");
}

#[test]
fn a_host_that_comes_with_another_folder_is_known_by_that() {
    for one_by_one in [0, usize::MAX] {
        let mut history = story(Aim::Balanced, [Some(1), Some(2)]);
        let mut planner = Planner::default().with_crowds_above(one_by_one);
        let starts = |history: &History, planner: &mut Planner| {
            let (state, now_ms) = (&history.state, history.now_ms);
            let plan = planner.plan(state, &history.forecast, now_ms, usize::MAX);
            plan.placements.first().map(|one| one.worker)
        };
        let only_on = |history: &History| {
            let job = history.state.open_job(JOB).expect("it waits");
            history.state.checkpoint_only_on(job).map(|host| host.id)
        };
        assert_eq!(starts(&history, &mut planner), Some(HOME));
        assert_eq!(only_on(&history), Some(HOME));
        comes(&mut history, 2, (1, 1_000_000), Some(1));
        assert_eq!(starts(&history, &mut planner), Some(AWAY), "it is cheaper");
        assert_eq!(only_on(&history), None);
        comes(&mut history, 2, (1, 1_000_000), Some(3));
        assert_eq!(starts(&history, &mut planner), Some(HOME));
        assert_eq!(only_on(&history), Some(HOME));
        // What takes nothing new is no other for anybody.
        let (worker, stop_running) = (AWAY, false);
        let drain = Command::DrainWorker {
            worker,
            stop_running,
        };
        history.propose(drain, None);
        assert_eq!(only_on(&history), None);
    }
}

/// Every job takes as long as is expected of it.
struct AsExpected;

impl Truth for AsExpected {
    fn run_ms(&self, _: &Job, _: Hardware) -> Option<u64> {
        Some(WHOLE_MS)
    }

    fn restart_ms(&self) -> u64 {
        0
    }
}

#[test]
fn what_is_to_come_begins_anew_too() {
    for (outputs, left_ms) in [
        ([Some(1), Some(2)], WHOLE_MS),
        ([None, None], WHOLE_MS / 10),
    ] {
        let mut history = story(Aim::Balanced, outputs);
        let (worker, stop_running) = (HOME, true);
        history.propose(
            Command::DrainWorker {
                worker,
                stop_running,
            },
            None,
        );
        let (state, now_ms) = (history.state.clone(), history.now_ms);
        let mut forward = Forward::new(state, &history.forecast, &AsExpected, now_ms);
        assert_eq!(forward.look(usize::MAX).plan.placements.len(), 1);
        let took_ms = forward.ends_ms(JOB).expect("it runs") - now_ms;
        assert_eq!(took_ms.div_ceil(1_000), left_ms / 1_000, "{outputs:?}");
    }
}
