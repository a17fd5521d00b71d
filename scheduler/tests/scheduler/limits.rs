//! What is bounded stays bounded, and what was cut is said by its numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use stepcast_records::UsdMicros;
use stepcast_scheduler::ids::{Epoch, InstanceId, JobId, OrgId, StagingId, TokenHash, UserId};
use stepcast_scheduler::model::limits::{
    ARRAY_MAX, ATTEMPTS_MAX, BACKOFF_MAX_MS, Bounds, DETAIL_BYTES_MAX, EARLIER_DETAIL_BYTES_MAX,
    EVENTS_MAX, EXPIRED_MAX, JOB_RETENTION_MS, LOST_RETRIES_MAX, RETRIES_MAX, SWEEP_MAX,
};
use stepcast_scheduler::model::{
    FailureReason, Inventory, Job, JobSpec, JobState, Outcome, Owner, TeamName, TeamRules,
    TrainerKind,
};
use stepcast_scheduler::placement::{Placement, PlacementNote, plan};
use stepcast_scheduler::{
    Command, Envelope, Rejection, Reply, RequestId, State, codec, invariants,
};

use crate::history::History;
use crate::support::workload;

/// A history with one worker and one job.
fn with_a_job(retry_limit: u8) -> (History, JobId) {
    let mut history = History::new();
    let (name, hash) = ("host".parse().expect("a label"), TokenHash([1; 32]));
    history.propose(Command::CreateWorkerToken { name, hash }, None);
    let inventory = Inventory {
        gpus: vec!["h100".parse().expect("a GPU")],
        trainers: [TrainerKind::SimpleTuner].into(),
        labels: BTreeMap::new(),
        price_per_gpu_hour: None,
        address: None,
        outputs: None,
    };
    let instance = InstanceId([1; 16]);
    history.propose(
        Command::RegisterWorker {
            token_hash: hash,
            instance,
            inventory,
        },
        None,
    );
    let job = submit(
        &mut history,
        JobSpec {
            retry_limit,
            ..JobSpec::new(workload(), StagingId([0; 16]))
        },
    );
    (history, job)
}

fn submit(history: &mut History, spec: JobSpec) -> JobId {
    match history
        .propose(
            Command::SubmitJob {
                spec: Box::new(spec),
            },
            None,
        )
        .reply
    {
        Ok(Reply::JobSubmitted { job }) => job,
        other => panic!("{other:?}"),
    }
}

/// Places the job as soon as it may run, and ends the attempt.
fn run(history: &mut History, job: JobId, outcome: Outcome, detail: &str) {
    history.now_ms = history.now_ms.max(at(history, job).not_before_ms);
    let placements = plan(&history.state, &history.forecast, history.now_ms, 1).placements;
    history.propose(Command::Place { placements }, None);
    let epoch = at(history, job).live_attempt().expect("it runs").epoch;
    history.propose(
        Command::EndAttempt {
            job,
            epoch,
            outcome,
            step: 0,
            detail: detail.to_owned(),
        },
        None,
    );
    assert_eq!(invariants::check(&history.state), []);
}

fn at(history: &History, job: JobId) -> Cow<'_, Job> {
    history.state.job(job).expect("the job is there")
}

/// How many attempts a job has that always ends so.
fn attempts(retry_limit: u8, outcome: Outcome) -> (usize, JobState) {
    let (mut history, job) = with_a_job(retry_limit);
    while at(&history, job).state == JobState::Pending {
        run(&mut history, job, outcome, "");
    }
    (at(&history, job).attempts.len(), at(&history, job).state)
}

#[test]
fn no_job_is_tried_for_ever() {
    let failed = |reason| JobState::Failed { reason };
    let preempted = FailureReason::Preempted;
    assert_eq!(
        attempts(0, Outcome::Failed(preempted)),
        (ATTEMPTS_MAX, failed(preempted))
    );
    let lost = FailureReason::WorkerRestarted;
    assert_eq!(
        attempts(0, Outcome::Failed(lost)),
        (1 + usize::from(LOST_RETRIES_MAX), failed(lost))
    );
    let stuck = FailureReason::Stuck;
    assert_eq!(attempts(0, Outcome::Failed(stuck)), (1, failed(stuck)));
    assert_eq!(
        attempts(RETRIES_MAX, Outcome::Failed(stuck)),
        (1 + usize::from(RETRIES_MAX), failed(stuck))
    );
}

#[test]
fn the_wait_before_a_retry_doubles_up_to_ten_minutes() {
    let (mut history, job) = with_a_job(RETRIES_MAX);
    let mut waits_s = Vec::new();
    for _ in 0..RETRIES_MAX {
        run(&mut history, job, Outcome::Failed(FailureReason::Stuck), "");
        waits_s.push((at(&history, job).not_before_ms - history.now_ms) / 1_000);
    }
    assert_eq!(waits_s, [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]);
    assert_eq!(BACKOFF_MAX_MS, 600_000);
}

#[test]
fn the_newest_events_are_kept_without_a_gap() {
    let (mut history, job) = with_a_job(0);
    let placements = plan(&history.state, &history.forecast, history.now_ms, 1).placements;
    history.propose(Command::Place { placements }, None);
    let epoch = at(&history, job).live_attempt().expect("it runs").epoch;
    for step in 1..=100 {
        history.propose(Command::Checkpoint { job, epoch, step }, None);
    }
    let numbers: Vec<u64> = at(&history, job)
        .events
        .iter()
        .map(|event| event.seq)
        .collect();
    // Submitted and placed came before the hundred.
    assert_eq!(numbers, (103 - EVENTS_MAX as u64..=102).collect::<Vec<_>>());
    assert_eq!(at(&history, job).checkpoint_step(), 100);
}

#[test]
fn the_tail_of_an_end_is_kept_and_shortened_by_the_next() {
    let (mut history, job) = with_a_job(3);
    let words = format!("{}end", "é".repeat(DETAIL_BYTES_MAX));
    run(
        &mut history,
        job,
        Outcome::Failed(FailureReason::TrainerError),
        &words,
    );
    let detail = &at(&history, job).attempts[0].detail;
    assert!(
        detail.ends_with("éend")
            && (DETAIL_BYTES_MAX - 1..=DETAIL_BYTES_MAX).contains(&detail.len())
    );
    run(
        &mut history,
        job,
        Outcome::Failed(FailureReason::TrainerError),
        "short",
    );
    let [first, second] = &at(&history, job).attempts[..] else {
        panic!("two attempts")
    };
    assert!(first.detail.ends_with("éend") && first.detail.len() <= EARLIER_DETAIL_BYTES_MAX);
    assert_eq!(second.detail, "short");
}

#[test]
fn a_sweep_forgets_so_many_and_leaves_the_rest_to_the_next() {
    let mut history = History::new();
    for number in 0..SWEEP_MAX as u128 + 1 {
        let job = submit(
            &mut history,
            JobSpec::new(workload(), StagingId(number.to_le_bytes())),
        );
        history.propose(Command::CancelJob { job }, None);
    }
    history.now_ms += JOB_RETENTION_MS;
    for left in [1, 0] {
        assert!(history.state.is_sweep_due(history.now_ms));
        history.propose(Command::Sweep, None);
        assert_eq!(history.state.jobs().count(), left);
    }
    assert!(!history.state.is_sweep_due(history.now_ms));
}

#[test]
fn a_command_that_holds_too_much_is_refused() {
    let (mut history, job) = with_a_job(0);
    let worker = history.state.workers().next().expect("a worker").id;
    let attempt = at(&history, job).next_attempt();
    let placement = Placement {
        job,
        attempt,
        worker,
        gpus: vec![0],
        note: PlacementNote::default(),
        others: Vec::new(),
    };
    let placements = vec![placement; Epoch::PLACEMENTS_MAX as usize + 1];
    let refused = history
        .propose(
            Command::Place {
                placements: placements.clone(),
            },
            None,
        )
        .reply;
    assert_eq!(refused, Err(Rejection::TooMany { what: "placements" }));
    let expired = vec![(job, Epoch(0)); EXPIRED_MAX + 1];
    let refused = history
        .propose(Command::ExpireLeases { expired }, None)
        .reply;
    assert_eq!(refused, Err(Rejection::TooMany { what: "leases" }));
    // As many as there may be, all the same: one is placed.
    let placements = placements[1..].to_vec();
    let Ok(Reply::Placed { outcomes }) = history.propose(Command::Place { placements }, None).reply
    else {
        panic!("as many as there may be are refused")
    };
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(outcomes.len(), Epoch::PLACEMENTS_MAX as usize);
}

#[test]
fn an_entry_of_a_newer_version_asks_for_an_upgrade() {
    let newer = codec::VERSION + 1;
    let mut bytes = codec::encode(&stepcast_scheduler::Envelope::new(1, None, Command::Sweep));
    assert!(codec::decode(&bytes).is_ok());
    bytes[..2].copy_from_slice(&newer.to_le_bytes());
    assert_eq!(
        codec::decode(&bytes),
        Err(codec::Error::UpgradeRequired { found: newer })
    );
    let barrier = stepcast_scheduler::Envelope::new(1, None, Command::Barrier { version: newer });
    let decoded = codec::decode(&codec::encode(&barrier));
    assert_eq!(decoded, Err(codec::Error::UpgradeRequired { found: newer }));
}

#[test]
fn an_array_of_a_million_tasks_is_refused_whole() {
    let mut history = History::new();
    let version = codec::VERSION;
    history.propose(Command::Barrier { version }, None);
    let spec = Box::new(JobSpec::new(workload(), StagingId([0; 16])));
    let array = |tasks: u32| Command::SubmitArray {
        spec: spec.clone(),
        tasks: (1..=tasks)
            .map(|task| StagingId(u128::from(task).to_le_bytes()))
            .collect(),
        parallel: 0,
    };
    for tasks in [0, ARRAY_MAX as u32 + 1, 1_000_000] {
        let refused = history.propose(array(tasks), None).reply;
        let (max, asked) = (ARRAY_MAX as u32, tasks);
        assert_eq!(refused, Err(Rejection::ArraySize { max, asked }));
        assert_eq!(
            (history.state.job_count(), history.state.pending_count()),
            (0, 0)
        );
    }
    history
        .propose(array(ARRAY_MAX as u32), None)
        .reply
        .expect("as many as there may be");
    assert_eq!(history.state.pending_count(), ARRAY_MAX);
}

#[test]
fn a_request_that_is_only_checked_once_it_was_taken_has_its_first_answer() {
    let mut history = History::new();
    let version = codec::VERSION;
    history.propose(Command::Barrier { version }, None);
    let submit = |staging| Command::SubmitJob {
        spec: Box::new(JobSpec::new(workload(), StagingId([staging; 16]))),
    };
    let id = Some(RequestId([7; 16]));
    let check = |history: &History, request, command| {
        let envelope = Envelope::new(history.now_ms, request, command).in_format(version);
        history.state.would_take(&envelope)
    };
    assert_eq!(check(&history, id, submit(1)), Ok(()));
    history.propose(submit(1), id).reply.expect("it is taken");
    assert_eq!(check(&history, id, submit(1)), Ok(()));
    assert_eq!(
        check(&history, id, submit(2)),
        Err(Rejection::RequestIdReused)
    );
    // The files of another request are still its own.
    let other = Some(RequestId([8; 16]));
    assert_eq!(
        check(&history, other, submit(1)),
        Err(Rejection::StagingInUse)
    );
}

#[test]
fn nobody_takes_the_places_of_all() {
    let mut history = History::new();
    let version = codec::VERSION;
    history.propose(Command::Barrier { version }, None);
    let max = Bounds::of(version).of_one_person;
    let mut files = 0_u128;
    let mut spec = |user: Option<u64>| {
        files += 1_000_000;
        let mut spec = JobSpec::new(workload(), StagingId(files.to_le_bytes()));
        spec.terms.owner = user.map(|user| Owner {
            org: OrgId(1),
            user: UserId(user),
        });
        Box::new(spec)
    };
    let array = |spec: Box<JobSpec>, tasks: usize| {
        let first = u128::from_le_bytes(spec.staging.0);
        let files = (first..).take(tasks);
        Command::SubmitArray {
            tasks: files.map(|files| StagingId(files.to_le_bytes())).collect(),
            spec,
            parallel: 0,
        }
    };
    for _ in 1..max / ARRAY_MAX {
        let taken = history.propose(array(spec(Some(1)), ARRAY_MAX), None).reply;
        taken.expect("there is room");
    }
    // All of the next but one task, and that one; then neither a job nor a sweep of whom they belong to.
    let taken = history.propose(array(spec(Some(1)), ARRAY_MAX - 1), None);
    taken.reply.expect("there is room");
    let would = |history: &History, command: &Command| {
        let envelope = Envelope::new(history.now_ms, None, command.clone()).in_format(version);
        history.state.would_take(&envelope)
    };
    let full = |unfinished| Err(Rejection::YoursFull { unfinished, max });
    let two = array(spec(Some(1)), 2);
    assert_eq!(would(&history, &two), full(max - 1));
    assert_eq!(history.propose(two, None).reply.map(drop), full(max - 1));
    let one = |spec| Command::SubmitJob { spec };
    let last = one(spec(Some(1)));
    assert_eq!(would(&history, &last), Ok(()));
    let taken = history.propose(last, None).reply;
    assert!(matches!(taken, Ok(Reply::JobSubmitted { .. })), "{taken:?}");
    let more = one(spec(Some(1)));
    assert_eq!(would(&history, &more), full(max));
    assert_eq!(history.propose(more, None).reply.map(drop), full(max));
    // Others, and who has no name, have places of their own.
    for user in [Some(2), None] {
        let taken = history.propose(array(spec(user), ARRAY_MAX), None).reply;
        assert!(taken.is_ok(), "{user:?}: {taken:?}");
    }
    // What is over makes room, and a snapshot counts the same.
    let job = JobId(1);
    history.propose(Command::CancelJob { job }, None);
    let restored = State::restore(&history.state.snapshot()).expect("it is restored");
    assert_eq!(restored, history.state);
    let taken = history.propose(one(spec(Some(1))), None).reply;
    assert!(taken.is_ok(), "{taken:?}");
    assert_eq!(invariants::check(&history.state), []);
}

#[test]
fn what_was_approved_waits_for_nobody_who_was_not() {
    let (mut history, only) = with_a_job(0);
    history.propose(Command::CancelJob { job: only }, None);
    let version = codec::VERSION;
    history.propose(Command::Barrier { version }, None);
    let rules = TeamRules {
        approve_above: Some(UsdMicros(100_000)),
        ..TeamRules::default()
    };
    let name: TeamName = "careful".parse().expect("a team's name");
    history.propose(
        Command::SetTeam {
            name: name.clone(),
            rules,
        },
        None,
    );
    let team = history.state.team_named(&name).expect("a team").id;
    // One more than are looked at of jobs that ask for the same.
    let mut waits = JobId(0);
    for number in 0..=4_096_u64 {
        let mut files = [1; 16];
        files[..8].copy_from_slice(&number.to_le_bytes());
        let mut spec = JobSpec::new(workload(), StagingId(files));
        spec.terms.team = team;
        spec.terms.expected_cost = Some(UsdMicros(5_000_000));
        waits = submit(&mut history, spec);
    }
    let starts = |history: &History| {
        let plan = plan(&history.state, &history.forecast, history.now_ms, 256);
        plan.placements
            .iter()
            .map(|one| one.job)
            .collect::<Vec<_>>()
    };
    assert_eq!(starts(&history), []);
    history.propose(
        Command::ApproveJob {
            job: waits,
            seq: None,
        },
        None,
    );
    assert_eq!(starts(&history), [waits]);
    // What was approved was something else: it stands with the others again.
    let lines = history.state.line_count();
    let mut spec = at(&history, waits).spec.clone();
    for gpu_count in [2, 1] {
        spec.gpu_count = gpu_count;
        let spec = Box::new(spec.clone());
        let job = waits;
        let changed = history.propose(
            Command::UpdateJob {
                job,
                spec,
                seq: None,
            },
            None,
        );
        assert_eq!(changed.reply, Ok(Reply::Done));
    }
    assert_eq!(history.state.line_count(), lines - 1);
    assert_eq!(starts(&history), []);
    assert_eq!(invariants::check(&history.state), []);
}
