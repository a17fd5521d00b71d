//! Sessions and leases: who may attach, who is replaced, and what time does to a worker that is silent.

use std::time::Duration;

use stepcast_cluster::session::{Order, Parting, Report, StopReason};
use stepcast_cluster::{AttachError, Config, ReportError};
use stepcast_scheduler::Command;
use stepcast_scheduler::ids::{InstanceId, JobId, WorkerId};
use stepcast_scheduler::model::{EventKind, FailureReason, JobState, Outcome, WorkerState};

use crate::support::{
    Worker, World, alone, alone_with, assignment, at_work, config, end, ended, events_until, order,
    renew, spec, start, stop, submit, until, within,
};

const TERM: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_attaches_who_is_not_registered_or_was_replaced() {
    let (_dir, _world, node) = alone(World::default()).await;
    assert_eq!(
        node.attach(WorkerId(9), InstanceId([9; 16])).err(),
        Some(AttachError::UnknownWorker)
    );
    let worker = Worker::join(&node, 7).await;
    assert_eq!(
        node.attach(worker.id, InstanceId([8; 16])).err(),
        Some(AttachError::StaleInstance)
    );
    // The worker's host is set up anew: the first process is given up, and a second one comes with its token. When the
    // two are not in the log side by side, the first one's session has it take part again, and it is given up again.
    let mut first = worker.attach(&node);
    let losing = Command::LoseWorker {
        worker: worker.id,
        instance: worker.instance,
    };
    let replaced = async {
        loop {
            let registering = Worker::try_register(&node, worker.token, InstanceId([8; 16]));
            let (_, second) = tokio::join!(node.propose(losing.clone(), None), registering);
            if let Some(second) = second {
                return second;
            }
        }
    };
    let second = within(replaced).await;
    assert_eq!(second.id, worker.id);
    assert!(matches!(
        order(&mut first).await,
        Order::Shutdown(Parting::Replaced)
    ));
    assert_eq!(
        node.attach(worker.id, worker.instance).err(),
        Some(AttachError::StaleInstance)
    );
    let _session = second.attach(&node);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_session_replaces_the_first_and_is_told_everything_anew() {
    let (_dir, _world, node) = alone(World::default()).await;
    let (worker, mut first, assigned) = at_work(&node).await;
    let mut second = worker.attach(&node);
    assert!(matches!(
        order(&mut first).await,
        Order::Shutdown(Parting::Replaced)
    ));
    let renewing = Report::Renew {
        renewal: 9,
        epochs: vec![assigned.epoch],
    };
    assert_eq!(
        first.reports.report(renewing).await,
        Err(ReportError::SessionOver)
    );
    assert_eq!(assignment(&mut second).await.epoch, assigned.epoch);
    assert_eq!(renew(&mut second, assigned.epoch).await, [assigned.epoch]);
    drop(first);
    assert_eq!(node.attached(), [worker.id]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_workers_lease_ends_after_its_term_and_the_job_goes_elsewhere() {
    let (_dir, world, node) = alone(World::still()).await;
    let job = submit(&node, 1).await;
    let mut watch = node.watch(job).unwrap();
    let silent = Worker::join(&node, 7).await;
    let mut session = silent.attach(&node);
    let first = assignment(&mut session).await;

    world.pass(TERM - Duration::from_secs(2));
    assert_eq!(
        renew(&mut session, first.epoch).await,
        [first.epoch],
        "a renewal in time keeps it"
    );
    world.pass(TERM - Duration::from_secs(2));
    assert_eq!(
        renew(&mut session, first.epoch).await,
        [first.epoch],
        "and counts from when it came"
    );
    let other = Worker::join(&node, 8).await;
    let mut elsewhere = other.attach(&node);
    // It runs on as soon as the lease is over, and not where nobody has been heard of.
    world.pass(TERM + Duration::from_secs(1));
    let second = assignment(&mut elsewhere).await;
    assert!(second.epoch > first.epoch);
    assert_eq!((second.job, second.attempt.0), (job, 2));
    let kinds = events_until(
        &mut watch,
        |kind| matches!(kind, EventKind::Placed { epoch, .. } if epoch == second.epoch),
    )
    .await;
    let requeued = kinds.iter().find_map(|kind| match kind {
        EventKind::Requeued { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(requeued, Some(FailureReason::WorkerLost));
    assert!(matches!(
        order(&mut session).await,
        Order::Shutdown(Parting::TooSlow)
    ));

    // One that was only slow attaches again, and takes part. The old epoch is worth nothing any more.
    let mut session = silent.attach(&node);
    until("the worker's return", || {
        node.read_stale(|state| state.worker(silent.id).unwrap().takes_work())
    })
    .await;
    session
        .reports
        .report(Report::Renew {
            renewal: 3,
            epochs: vec![first.epoch],
        })
        .await
        .unwrap();
    assert!(
        matches!(order(&mut session).await, Order::Renewed { renewal: 3, epochs, .. } if epochs.is_empty())
    );
    let lost = (first.epoch, StopReason::LeaseLost, 0);
    assert_eq!(stop(&mut session).await, lost);
    session
        .reports
        .report(Report::Started {
            job,
            epoch: first.epoch,
            from: None,
        })
        .await
        .unwrap();
    assert_eq!(stop(&mut session).await.1, StopReason::LeaseLost);
    end(&mut session, &first, Outcome::Succeeded).await;
    assert!(
        node.metrics_text()
            .contains("stepcast_lease_expirations_total 1\n")
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_session_comes_back_in_time_renews() {
    let (_dir, world, node) = alone(World::still()).await;
    let (worker, session, assigned) = at_work(&node).await;
    let epoch = assigned.epoch;
    drop(session);
    assert_eq!(node.attached(), []);
    world.pass(TERM - Duration::from_secs(5));
    let mut session = worker.attach(&node);
    assert_eq!(
        assignment(&mut session).await.epoch,
        epoch,
        "told again, since the session is new"
    );
    assert_eq!(renew(&mut session, epoch).await, [epoch]);
    world.pass(TERM - Duration::from_secs(5));
    assert_eq!(renew(&mut session, epoch).await, [epoch]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stays_away_is_lost_and_takes_part_again_once_it_is_back() {
    let (_dir, world, node) = alone(World::still()).await;
    let worker = Worker::join(&node, 7).await;
    drop(worker.attach(&node));
    let state = || node.read_stale(|state| state.worker(worker.id).unwrap().state);
    assert_eq!(state(), WorkerState::Present);
    world.pass(TERM + Duration::from_secs(1));
    until("the loss of the worker", || {
        matches!(state(), WorkerState::Lost { .. })
    })
    .await;
    submit(&node, 1).await;
    // The same process comes back, and need not say again what it is.
    let mut session = worker.attach(&node);
    assignment(&mut session).await;
    assert_eq!(state(), WorkerState::Present);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_gives_every_lease_a_full_term_and_the_handover() {
    let (dir, world, node) = alone(World::still()).await;
    let (worker, session, assigned) = at_work(&node).await;
    let (job, epoch) = (assigned.job, assigned.epoch);
    world.pass(TERM - Duration::from_secs(1));
    node.shutdown().await;
    drop((session, node));

    let node = start(config(dir.path()), &world).await;
    world.pass(TERM + Duration::from_secs(2));
    let mut session = worker.attach(&node);
    assert_eq!(assignment(&mut session).await.epoch, epoch);
    assert_eq!(renew(&mut session, epoch).await, [epoch]);
    end(&mut session, &assigned, Outcome::Succeeded).await;
    assert_eq!(
        node.read(|state| state.job(job).unwrap().state)
            .await
            .unwrap(),
        JobState::Succeeded
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_can_neither_end_nor_renew_what_another_one_runs() {
    let (_dir, _world, node) = alone(World::default()).await;
    let (_, mut session, mine) = at_work(&node).await;
    let job = mine.job;
    let mut other = Worker::join(&node, 8).await.attach(&node);
    end(&mut other, &mine, Outcome::Succeeded).await;
    assert_eq!(renew(&mut other, mine.epoch).await, []);
    assert_eq!(stop(&mut other).await.1, StopReason::LeaseLost);
    assert_eq!(
        node.read(|state| state.job(job).unwrap().state)
            .await
            .unwrap(),
        JobState::Running
    );
    assert_eq!(renew(&mut session, mine.epoch).await, [mine.epoch]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_worker_stops_at_once_and_is_sent_away_when_nothing_is_left() {
    let (_dir, _world, node) = alone(World::default()).await;
    let (worker, mut session, assigned) = at_work(&node).await;
    let token = node
        .read(|state| state.tokens().next().unwrap().id)
        .await
        .unwrap();
    node.propose(Command::RevokeWorkerToken { token }, None)
        .await
        .unwrap();
    let revoked = (assigned.epoch, StopReason::Revoked, 0);
    assert_eq!(stop(&mut session).await, revoked);
    session
        .reports
        .report(ended(&assigned, Outcome::Cancelled))
        .await
        .unwrap();
    loop {
        match order(&mut session).await {
            Order::Acknowledged { .. } => {}
            Order::Shutdown(Parting::Revoked) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        node.attach(worker.id, worker.instance).err(),
        Some(AttachError::UnknownWorker)
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_worker_ends_what_it_runs_gets_nothing_new_and_can_be_resumed() {
    let (_dir, _world, node) = alone(World::default()).await;
    let (worker, mut session, first) = at_work(&node).await;
    let drain = async |stop_running| {
        let worker = worker.id;
        let draining = Command::DrainWorker {
            worker,
            stop_running,
        };
        node.propose(draining, None).await.unwrap();
    };
    drain(false).await;
    submit(&node, 2).await;
    assert_eq!(
        renew(&mut session, first.epoch).await,
        [first.epoch],
        "what runs may end"
    );
    end(&mut session, &first, Outcome::Succeeded).await;
    assert_eq!(node.read(|state| state.pending_count()).await.unwrap(), 1);
    node.propose(Command::ResumeWorker { worker: worker.id }, None)
        .await
        .unwrap();
    let second = assignment(&mut session).await;
    drain(true).await;
    let (epoch, why, grace_ms) = stop(&mut session).await;
    assert_eq!((epoch, why), (second.epoch, StopReason::Draining));
    assert!(grace_ms > 0);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_on_time_and_money_are_kept_within_a_look() {
    let long = |config: &mut Config| config.lease_term = Duration::from_secs(7_200);
    let (_dir, world, node) = alone_with(World::still(), long).await;
    let mut spec = spec(1);
    spec.max_runtime_ms = Some(3_600_000);
    node.propose(
        Command::SubmitJob {
            spec: Box::new(spec),
        },
        None,
    )
    .await
    .unwrap();
    let worker = Worker::join(&node, 7).await;
    let mut session = worker.attach(&node);
    let epoch = assignment(&mut session).await.epoch;
    world.pass(Duration::from_secs(3_601));
    let (stopped, why, _) = stop(&mut session).await;
    assert_eq!((stopped, why), (epoch, StopReason::MaxRuntime));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_no_job_needs_are_found_and_removed() {
    let (left_behind, needed) = (spec(5).staging, spec(6).staging);
    let often = |config: &mut Config| config.sweep_every = Duration::from_millis(20);
    let (_dir, world, node) = alone_with(World::default(), often).await;
    submit(&node, 6).await;
    for round in 0..3 {
        world.stage(needed);
        world.stage(left_behind);
        until("the removal of what nobody needs", || {
            !world.is_staged(left_behind)
        })
        .await;
        assert!(world.is_staged(needed), "in round {round}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_of_a_job_that_is_over_do_not_wait_for_lines_of_others() {
    let world = World::keeping_lines([JobId(9_001), JobId(9_002)]);
    let (_dir, world, node) = alone_with(world, |_| {}).await;
    world.stage(spec(1).staging);
    let job = submit(&node, 1).await;
    let cancelled = node.propose(Command::CancelJob { job }, None).await;
    cancelled.unwrap();
    until("the end of its files", || !world.is_staged(spec(1).staging)).await;
    node.shutdown().await;
}
