//! A job on two hosts: both are told at once, each with its place, and the end of one is the end of all.

use std::sync::Arc;
use std::time::Duration;

use stepcast_cluster::session::{GangPlace, Order, Report, StopReason};
use stepcast_cluster::{Handle, Session};
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::{FailureReason, JobState, Outcome};
use stepcast_scheduler::{Command, Reply};

use crate::support::{Worker, World, assignment, config, ended, order, renew, spec, start, until};

const TERM: Duration = Duration::from_secs(30);

async fn submit(node: &Handle, number: u64) -> JobId {
    let mut spec = Box::new(spec(number));
    spec.terms.more_hosts = 1;
    match node.propose(Command::SubmitJob { spec }, None).await {
        Ok(Reply::JobSubmitted { job }) => job,
        other => panic!("{other:?}"),
    }
}

async fn stops(session: &mut Session) -> StopReason {
    loop {
        match order(session).await {
            Order::Stop { why, .. } => return why,
            Order::Acknowledged { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn state(node: &Handle, job: JobId) -> JobState {
    node.read_stale(|state| state.job(job).unwrap().state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_are_told_their_places_and_rank_0_says_when_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    let job = submit(&node, 1).await;
    let (first, second) = (
        Worker::join_reached(&node, 7).await,
        Worker::join_reached(&node, 8).await,
    );
    let (mut one, mut two) = (first.attach(&node), second.attach(&node));
    let (lead, follow) = (assignment(&mut one).await, assignment(&mut two).await);
    assert_eq!((lead.job, lead.epoch), (job, follow.epoch));
    let place = |rank| {
        Some(GangPlace {
            rank,
            hosts: 2,
            main_host: "10.0.0.7".to_owned(),
            main_port: 29_500,
            resume_step: 0,
        })
    };
    assert_eq!((&lead.gang, &follow.gang), (&place(0), &place(1)));
    let epoch = lead.epoch;
    let started = || {
        node.read_stale(|state| {
            state
                .live_attempt(epoch)
                .is_some_and(|(_, a)| a.started_ms.is_some())
        })
    };
    one.reports
        .report(Report::Started {
            job,
            epoch,
            from: None,
        })
        .await
        .unwrap();
    // What the second says of checkpoints is not the job's: the report before it is in the log by then.
    let said = [
        Report::Checkpointed {
            job,
            epoch,
            step: 9,
        },
        Report::Started {
            job,
            epoch,
            from: None,
        },
    ];
    assert!(!started());
    for report in said {
        two.reports.report(report).await.unwrap();
    }
    until("the start of both", started).await;
    let checkpoint = node.read_stale(|state| state.job(job).unwrap().checkpoint_step());
    assert_eq!(checkpoint, 0);
    one.reports
        .report(ended(&lead, Outcome::Succeeded))
        .await
        .unwrap();
    assert_eq!(stops(&mut two).await, StopReason::PartOver);
    assert_eq!(
        state(&node, job),
        JobState::Running,
        "its second host still trains"
    );
    let stopped = Outcome::Failed(FailureReason::Preempted);
    two.reports.report(ended(&follow, stopped)).await.unwrap();
    until("the end", || state(&node, job) == JobState::Succeeded).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_lost_has_the_other_stopped_and_the_job_waits_for_two_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::still());
    let node = start(config(dir.path()), &world).await;
    let (first, second) = (
        Worker::join_reached(&node, 7).await,
        Worker::join_reached(&node, 8).await,
    );
    let (mut one, mut two) = (first.attach(&node), second.attach(&node));
    let job = submit(&node, 1).await;
    let lead = assignment(&mut one).await;
    // Its lease begins when it is told, and it is not heard of again.
    assert_eq!(assignment(&mut two).await.epoch, lead.epoch);
    world.pass(TERM - Duration::from_secs(2));
    assert_eq!(renew(&mut one, lead.epoch).await, [lead.epoch]);
    world.pass(Duration::from_secs(3));
    assert_eq!(stops(&mut one).await, StopReason::PartOver);
    let stopped = Outcome::Failed(FailureReason::TrainerError);
    one.reports.report(ended(&lead, stopped)).await.unwrap();
    until("the end of the attempt", || {
        state(&node, job) == JobState::Pending
    })
    .await;
    node.read_stale(|state| {
        let job = state.job(job).unwrap();
        assert_eq!(job.attempts[0].outcome(), Some(Outcome::LeaseExpired));
        assert_eq!((job.retries, job.lost_retries), (0, 1), "nobody's fault");
    });
    drop(two);
    let third = Worker::join_reached(&node, 9).await;
    let mut three = third.attach(&node);
    let again = assignment(&mut three).await;
    assert_eq!(again.gang.map(|gang| (gang.rank, gang.hosts)), Some((1, 2)));
    node.shutdown().await;
}
