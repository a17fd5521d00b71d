//! Three nodes and more: they elect, fail over, lose nothing that was acknowledged, and do nothing twice.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stepcast_cluster::consensus::ChangeError;
use stepcast_cluster::session::{Order, Report};
use stepcast_cluster::{Config, Health, ProposeError, ReadError};
use stepcast_scheduler::ids::{JobId, StagingId};
use stepcast_scheduler::model::{EventKind, Outcome};
use stepcast_scheduler::{Command, RequestId};

use crate::net::{Cluster, FAILOVER};
use crate::support::{Worker, assignment, ended, order, renew, spec, submit, until, wide, within};

/// The jobs that a node has, by its own state.
fn jobs(node: &stepcast_cluster::Handle) -> BTreeSet<JobId> {
    node.read_stale(|state| state.jobs().map(|job| job.id).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_hold_the_same_state_and_it_survives_a_restart_of_all() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await.clone();
    let mut submitted = BTreeSet::new();
    for number in 0..50 {
        submitted.insert(submit(&leader, number).await);
    }
    cluster.level().await;
    for node in cluster.nodes() {
        assert_eq!(jobs(node), submitted);
        assert_eq!(node.status().health, Health::Serving);
    }
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    for id in 1..=3 {
        cluster.start(id);
    }
    let leader = cluster.leader().await.clone();
    assert_eq!(leader.read(|state| state.jobs().count()).await, Ok(50));
    submit(&leader, 50).await;
    cluster.level().await;
    assert!(cluster.nodes().all(|node| jobs(node).len() == 51));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_has_everything_acknowledged_and_gives_the_same_answers() {
    let mut cluster = Cluster::of(3).await;
    let mut acknowledged = Vec::new();
    for round in 0..3u64 {
        let leader = cluster.leader().await.clone();
        let id = leader.status().node_id;
        for number in round * 20..round * 20 + 20 {
            acknowledged.push((number, submit(&leader, number).await));
        }
        let begun = Instant::now();
        cluster.kill(id).await;
        let next = cluster.leader().await.clone();
        assert!(begun.elapsed() < FAILOVER);
        assert_ne!(next.status().node_id, id);
        for (number, job) in &acknowledged {
            assert_eq!(submit(&next, *number).await, *job, "the same request again");
        }
        cluster.start(id);
        cluster.level().await;
    }
    for node in cluster.nodes() {
        assert_eq!(jobs(node).len(), acknowledged.len());
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_reads_nothing() {
    let cluster = Cluster::of(3).await;
    let old = cluster.leader().await.clone();
    let id = old.status().node_id;
    submit(&old, 1).await;
    cluster.net.isolate(id);
    // Both are asked of the old leader before it can know.
    let asked = old.clone();
    let unknown = tokio::spawn(async move {
        let command = Command::SubmitJob {
            spec: Box::new(spec(2)),
        };
        asked.propose(command, Some(RequestId(wide(2)))).await
    });
    let read = within(old.read(|state| state.jobs().count())).await;
    assert!(
        matches!(read, Err(ReadError::NotLeader { .. } | ReadError::Timeout)),
        "{read:?}"
    );
    assert!(matches!(
        within(unknown).await.unwrap(),
        Err(ProposeError::OutcomeUnknown | ProposeError::NotLeader { .. })
    ));
    until("another leader", || {
        cluster
            .nodes()
            .any(|node| node.status().leading && node.status().node_id != id)
    })
    .await;
    let new = cluster.leader().await.clone();
    let third = submit(&new, 3).await;
    cluster.net.heal();
    // What it had not committed is gone or in, but one job at most, and the new leader's is there.
    let again = submit(&new, 2).await;
    cluster.level().await;
    for node in cluster.nodes() {
        assert_eq!(jobs(node).len(), 3);
        assert!(jobs(node).is_superset(&BTreeSet::from([again, third])));
    }
    cluster.shutdown().await;
}

/// The staging area is everybody's, and of what was let in by another leader one that is cut off knows nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_removes_nothing_that_it_has_not_heard_of() {
    let often = |config: &mut Config| config.sweep_every = Duration::from_millis(5);
    let cluster = Cluster::tuned(3, often).await;
    let old = cluster.leader().await.clone();
    for id in 1..=3 {
        cluster.net.isolate(id);
    }
    let (job, files) = (JobId(9), StagingId(wide(9)));
    cluster.world.lined.lock().insert(job);
    cluster.world.stage(files);
    let has_lines = || cluster.world.lined.lock().contains(&job);
    let has_files = || cluster.world.is_staged(files);
    until("the end of its leadership", || !old.status().leading).await;
    assert!(has_lines() && has_files());
    // Together they know that nobody has let them in.
    cluster.net.heal();
    until("the end of what is nobody's", || {
        !has_lines() && !has_files()
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_reads_what_was_acknowledged_anywhere() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await.clone();
    for number in 0..100 {
        submit(&leader, number).await;
        for node in cluster.nodes() {
            let seen = within(node.read(|state| state.jobs().count())).await;
            assert_eq!(seen, Ok(number as usize + 1));
        }
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_runs_on_under_a_new_leader() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await.clone();
    let job = submit(&leader, 1).await;
    let worker = Worker::join(&leader, 7).await;
    let mut session = worker.attach(&leader);
    let assigned = assignment(&mut session).await;
    let started = Report::Started {
        job,
        epoch: assigned.epoch,
        from: None,
    };
    session.reports.report(started).await.unwrap();
    assert_eq!(renew(&mut session, assigned.epoch).await, [assigned.epoch]);
    until("the start in the log", || {
        let is_running = |kind: &EventKind| matches!(kind, EventKind::Started { .. });
        let events = leader.read_stale(|state| state.job(job).unwrap().events.clone());
        events.iter().any(|event| is_running(&event.kind))
    })
    .await;
    let id = leader.status().node_id;
    cluster.kill(id).await;
    assert!(matches!(order(&mut session).await, Order::Shutdown(_)));
    let next = cluster.leader().await.clone();
    let mut session = worker.attach(&next);
    let again = assignment(&mut session).await;
    assert_eq!((again.job, again.epoch), (job, assigned.epoch));
    assert_eq!(renew(&mut session, assigned.epoch).await, [assigned.epoch]);
    let report = ended(&again, Outcome::Succeeded);
    session.reports.report(report).await.unwrap();
    assert!(matches!(
        order(&mut session).await,
        Order::Acknowledged { epoch } if epoch == assigned.epoch
    ));
    let attempts = next.read(|state| state.job(job).unwrap().attempts.len());
    assert_eq!(within(attempts).await, Ok(1), "nothing was started again");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_where_it_is_sent_and_a_leader_that_stops_hands_it_over() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await.clone();
    let id = leader.status().node_id;
    let to = if id == 3 { 1 } else { id + 1 };
    assert_eq!(within(leader.transfer_leadership(Some(to))).await, Ok(to));
    // The one before ends its duties when it hears of the next, which may be a moment later than this.
    assert!(within(cluster.node(to).leading()).await);
    assert!(matches!(
        leader.transfer_leadership(Some(id)).await,
        Err(ChangeError::NotLeader { leader: Some(leads) }) if leads == to
    ));
    assert_eq!(
        cluster.node(to).transfer_leadership(Some(9)).await,
        Err(ChangeError::Unknown(9))
    );
    let term = cluster.node(to).status().term;
    cluster.stop(to).await;
    let next = cluster.leader().await.clone();
    assert_eq!(
        next.status().term,
        term + 1,
        "no election was lost on the way"
    );
    submit(&next, 1).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_started_by_a_wrong_clock_does_not_take_the_cluster_along() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await.status().node_id;
    let other = leader % 3 + 1;
    submit(cluster.node(leader), 1).await;
    cluster.stop(other).await;
    let ahead = 8 * 3_600_000;
    cluster.world.ahead_ms.store(ahead, Ordering::SeqCst);
    cluster.start(other);
    // It is put right, and nothing is written meanwhile.
    cluster.world.ahead_ms.store(0, Ordering::SeqCst);
    let right = || cluster.node(leader).now_ms() + ahead / 2;
    until("the leader's time", || {
        cluster.node(other).now_ms() < right()
    })
    .await;
    let wrong = right();
    cluster.level().await;
    let old = cluster.node(leader);
    old.transfer_leadership(Some(other)).await.unwrap();
    assert!(cluster.node(other).leading().await);
    submit(cluster.node(other), 2).await;
    let newest = cluster.node(other).read(|state| state.newest_stamp_ms());
    assert!(newest.await.unwrap() < wrong);
    cluster.shutdown().await;
}
