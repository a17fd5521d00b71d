//! A worker that was asked to stop: nothing new from that moment on, and what it runs keeps its lease.

use std::time::Duration;

use stepcast_cluster::session::Report;
use stepcast_scheduler::model::{FailureReason, Outcome, WorkerState};

use crate::support::{Worker, World, alone, assignment, at_work, end, renew, submit, until};

const TERM: Duration = Duration::from_secs(30);

/// A job that was preempted waits for less.
const RETRY: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_leaves_gets_nothing_new_at_once_and_what_it_runs_keeps_its_lease() {
    let (_dir, world, node) = alone(World::still()).await;
    let (worker, mut session, running) = at_work(&node).await;
    let job = running.job;
    let is_lost = || {
        let state = node.read_stale(|state| state.worker(worker.id).unwrap().state);
        matches!(state, WorkerState::Lost { .. })
    };
    session.reports.report(Report::Leaving).await.unwrap();
    // No time passes here but what the test says: that a lease ended cannot have been the reason.
    until("the word that it leaves", is_lost).await;
    assert_eq!(node.attached(), [worker.id], "it is there until it goes");

    // Its trainer saves a checkpoint for longer than a lease, and ends as preempted.
    for _ in 0..2 {
        world.pass(TERM - Duration::from_secs(5));
        assert_eq!(renew(&mut session, running.epoch).await, [running.epoch]);
    }
    let preempted = Outcome::Failed(FailureReason::Preempted);
    end(&mut session, &running, preempted).await;
    // The job waits: the only GPU is free and is not given away, however often the queue is looked at.
    assert_eq!(node.read(|state| state.pending_count()).await.unwrap(), 1);
    world.pass(RETRY);
    let elsewhere = Worker::join(&node, 8).await;
    let mut other = elsewhere.attach(&node);
    assert_eq!(assignment(&mut other).await.job, job);
    submit(&node, 2).await;
    assert!(is_lost());
    drop(session);

    // Started again, it takes part as before.
    let again = Worker::register(&node, worker.token, worker.instance).await;
    let mut session = again.attach(&node);
    assert_ne!(assignment(&mut session).await.job, job);
    assert!(!is_lost());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_attaches_while_it_leaves_is_not_taken_for_one_that_is_back() {
    let (_dir, _world, node) = alone(World::still()).await;
    let worker = Worker::join(&node, 7).await;
    let state = || node.read_stale(|state| state.worker(worker.id).unwrap().state);
    let is_lost = || matches!(state(), WorkerState::Lost { .. });
    // A leader that has not heard of it yet.
    let session = node.attach_leaving(worker.id, worker.instance).unwrap();
    until("the word that it leaves", is_lost).await;
    drop(session);
    let mut session = node.attach_leaving(worker.id, worker.instance).unwrap();
    submit(&node, 1).await;
    let other = Worker::join(&node, 8).await;
    let mut elsewhere = other.attach(&node);
    let assigned = assignment(&mut elsewhere).await;
    assert_eq!(
        renew(&mut elsewhere, assigned.epoch).await,
        [assigned.epoch]
    );
    assert!(is_lost() && session.orders.try_recv().is_err());
    // Saying it again changes nothing, and neither does the end of the session.
    session.reports.report(Report::Leaving).await.unwrap();
    drop(session);
    assert!(is_lost());
    node.shutdown().await;
}
