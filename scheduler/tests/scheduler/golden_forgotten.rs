//! A job that is asked to stop again and again: it goes on, and what is forgotten of its attempts stands in a snapshot as
//! bytes in the repository.

use stepcast_records::UsdMicros;
use stepcast_scheduler::ids::{
    AttemptNumber, Epoch, InstanceId, JobId, StagingId, TokenHash, WorkerId,
};
use stepcast_scheduler::model::limits::ATTEMPTS_MAX;
use stepcast_scheduler::model::{
    FailureReason, Inventory, JobSpec, JobState, Outcome, TrainerKind,
};
use stepcast_scheduler::placement::{Placement, PlacementNote};
use stepcast_scheduler::{Command, Envelope, State, invariants};

use crate::golden::{bytes, hex};
use crate::support::workload;

/// A snapshot of a state of which something is forgotten.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-forgotten.txt");

const JOB: JobId = JobId(1);

/// One worker at a dollar for each second that an attempt is held, and one job.
struct Story {
    state: State,
    seconds: u64,
    /// The step that attempts say that they go on from, if they say so.
    from: Option<u64>,
}

impl Story {
    fn new(format: u16, retry_limit: u8) -> Self {
        let mut story = Self {
            state: State::new(),
            seconds: 0,
            from: None,
        };
        let hash = TokenHash([7; 32]);
        let commands = [
            Command::Barrier { version: format },
            Command::CreateWorkerToken {
                name: "host".parse().expect("a label"),
                hash,
            },
            Command::RegisterWorker {
                token_hash: hash,
                instance: InstanceId([7; 16]),
                inventory: Inventory {
                    gpus: vec!["h100".parse().expect("a GPU")],
                    trainers: [TrainerKind::SimpleTuner].into(),
                    labels: [].into(),
                    price_per_gpu_hour: Some(UsdMicros(3_600_000_000)),
                    address: None,
                    outputs: None,
                },
            },
            Command::SubmitJob {
                spec: Box::new(JobSpec {
                    retry_limit,
                    ..JobSpec::new(workload(), StagingId([7; 16]))
                }),
            },
        ];
        commands
            .into_iter()
            .for_each(|command| story.apply(command));
        story
    }

    /// Applies a command a second after the one before.
    fn apply(&mut self, command: Command) {
        self.seconds += 1;
        let envelope = Envelope::new(1_700_000_000_000 + 1_000 * self.seconds, None, command);
        let applied = self.state.apply(self.seconds, &envelope);
        assert!(applied.reply.is_ok(), "{envelope:?}: {applied:?}");
        assert_eq!(invariants::check(&self.state), []);
    }

    /// An attempt that ends so, three seconds after it was placed; at first its worker drains, if it is asked to stop.
    fn attempt(&mut self, is_asked: bool, checkpoint: u64, outcome: Outcome) {
        let job = self.state.job(JOB).expect("it is known");
        let wait_ms = job.not_before_ms.saturating_sub(1_700_000_000_000);
        self.seconds = self.seconds.max(wait_ms.div_ceil(1_000));
        let epoch = Epoch::new(self.seconds + 1, 0);
        let attempt = job.next_attempt();
        self.apply(Command::Place {
            placements: vec![Placement {
                job: JOB,
                attempt,
                worker: WorkerId(1),
                gpus: vec![0],
                note: PlacementNote::default(),
                others: Vec::new(),
            }],
        });
        if let Some(step) = self.from {
            let job = JOB;
            self.apply(Command::GoOnFrom { job, epoch, step });
        }
        self.apply(Command::DrainWorker {
            worker: WorkerId(1),
            stop_running: is_asked,
        });
        self.apply(Command::Checkpoint {
            job: JOB,
            epoch,
            step: checkpoint,
        });
        self.apply(Command::EndAttempt {
            job: JOB,
            epoch,
            outcome,
            step: checkpoint,
            detail: String::new(),
        });
        self.apply(Command::ResumeWorker {
            worker: WorkerId(1),
        });
    }

    /// So many attempts that are asked to stop; the first alone saves something.
    fn asked(&mut self, count: usize) {
        for number in 0..count {
            let step = if number == 0 { 40 } else { 1 };
            self.attempt(true, step, Outcome::Cancelled);
        }
    }
}

#[test]
fn a_job_that_is_asked_to_stop_goes_on_however_often() {
    let mut story = Story::new(3, 0);
    story.asked(50);
    let job = story.state.job(JOB).expect("it is known");
    assert_eq!(job.state, JobState::Pending);
    assert_eq!(job.next_attempt(), AttemptNumber(51));
    assert_eq!(job.attempts.len(), ATTEMPTS_MAX - 1, "one more finds room");
    // What is forgotten was paid for and saved all the same.
    assert_eq!(job.cost(0), UsdMicros(150_000_000));
    assert_eq!(job.committed(), job.cost(0));
    assert_eq!(job.checkpoint_step(), 40);
}

/// What an attempt does not find on its host counts no more, however many are forgotten after it, until one finds it again.
#[test]
fn what_is_saved_on_another_host_does_not_count() {
    let mut story = Story::new(3, 0);
    let steps = |story: &Story| {
        let job = story.state.job(JOB).expect("it is known");
        let newest = job.attempts.last().expect("it was tried");
        let begun = (
            job.begun_step(newest.epoch),
            job.begun_elsewhere(newest.number),
        );
        (job.checkpoint_step(), begun)
    };
    story.attempt(true, 40, Outcome::Cancelled);
    assert_eq!(steps(&story), (40, (0, None)));
    story.from = Some(40);
    story.attempt(true, 50, Outcome::Cancelled);
    assert_eq!(steps(&story), (50, (40, None)), "as it was expected to");
    story.from = Some(0);
    story.attempt(true, 10, Outcome::Cancelled);
    assert_eq!(steps(&story), (10, (0, Some(0))));
    story.from = None;
    for _ in 0..ATTEMPTS_MAX {
        story.attempt(true, 1, Outcome::Cancelled);
    }
    assert_eq!(steps(&story), (10, (10, None)));
    story.from = Some(50);
    story.attempt(true, 1, Outcome::Cancelled);
    assert_eq!(steps(&story), (50, (50, Some(50))));
    let restored = State::restore(&story.state.snapshot()).expect("it is restored");
    assert_eq!(restored, story.state);
}

/// The attempt that began anew failed by itself and is kept, while later ones that were asked to stop are forgotten.
#[test]
fn what_an_attempt_has_begun_with_stays_as_it_was_said() {
    let mut story = Story::new(3, 1);
    story.attempt(true, 40, Outcome::Cancelled);
    story.from = Some(0);
    story.attempt(false, 10, Outcome::Failed(FailureReason::TrainerError));
    story.from = None;
    story.attempt(true, 20, Outcome::Cancelled);
    story.attempt(true, 30, Outcome::Cancelled);
    let second = AttemptNumber(2);
    for _ in 0..ATTEMPTS_MAX {
        let job = story.state.job(JOB).expect("it is known");
        assert_eq!(job.begun_elsewhere(second), Some(0));
        assert_eq!(job.checkpoint_step(), 30);
        let restored = State::restore(&story.state.snapshot()).expect("it is restored");
        assert_eq!(restored, story.state);
        story.attempt(true, 1, Outcome::Cancelled);
    }
    let job = story.state.job(JOB).expect("it is known");
    assert_eq!(
        job.standing.forgotten.checkpoint_step, 30,
        "they are forgotten"
    );
    assert!(job.attempts.iter().any(|attempt| attempt.number == second));
}

#[test]
fn what_ends_unasked_is_tried_so_often_and_no_more() {
    let unasked = Outcome::Failed(FailureReason::Preempted);
    let mut story = Story::new(3, 0);
    for number in 1..=ATTEMPTS_MAX {
        let job = story.state.job(JOB).expect("it is known");
        assert_eq!(job.state, JobState::Pending, "before attempt {number}");
        story.attempt(false, 1, unasked);
        if number == 10 {
            story.asked(30);
        }
    }
    let job = story.state.job(JOB).expect("it is known");
    let reason = FailureReason::Preempted;
    assert_eq!(job.state, JobState::Failed { reason });
}

/// To be asked to stop takes nothing of the tries that a job has for its own failures and for lost workers.
#[test]
fn to_be_asked_to_stop_costs_no_retry() {
    let mut story = Story::new(3, 1);
    story.asked(31);
    story.attempt(false, 1, Outcome::Failed(FailureReason::TrainerError));
    story.asked(3);
    story.attempt(false, 1, Outcome::LeaseExpired);
    let job = story.state.job(JOB).expect("it is known");
    assert_eq!(
        (job.state, job.retries, job.lost_retries),
        (JobState::Pending, 1, 1)
    );
}

/// What stands in an older log was decided by the rule of its format.
#[test]
fn an_older_log_ends_it_as_before() {
    let mut story = Story::new(2, 0);
    story.asked(ATTEMPTS_MAX);
    let job = story.state.job(JOB).expect("it is known");
    let reason = FailureReason::Preempted;
    assert_eq!(job.state, JobState::Failed { reason });
    assert_eq!(job.attempts.len(), ATTEMPTS_MAX);
}

#[test]
fn a_snapshot_of_what_is_forgotten_is_written_and_read_as_ever() {
    let mut story = Story::new(3, 0);
    story.asked(ATTEMPTS_MAX + 1);
    assert_eq!(hex(&story.state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, story.state);
    let job = restored.job(JOB).expect("it is known");
    assert_eq!(job.checkpoint_step(), 40);
    assert_eq!(
        job.cost(0),
        UsdMicros(3_000_000 * (ATTEMPTS_MAX as u64 + 1))
    );
}
