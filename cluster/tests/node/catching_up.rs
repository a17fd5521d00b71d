//! Nodes that the log no longer reaches get a snapshot, and go on from there, whatever happens meanwhile.

use std::fs;

use stepcast_cluster::consensus::{ChangeError, NodeProgress, Sending};
use stepcast_cluster::{Config, Health};

use crate::net::Cluster;
use crate::support::{submit, until};

/// Snapshots often, and a log that keeps next to nothing behind them.
fn forgetful(config: &mut Config) {
    config.snapshot_entries = 20;
    config.log_tail_entries = 5;
}

/// Submits jobs until the leader's log begins behind `entry`.
async fn forget(cluster: &Cluster, numbers: std::ops::Range<u64>, entry: u64) {
    let leader = cluster.leader().await.clone();
    for number in numbers {
        submit(&leader, number).await;
    }
    until("the log to begin later", || {
        leader.status().snapshot_index > entry + 20
    })
    .await;
}

fn snapshots(cluster: &Cluster, id: u64) -> usize {
    let received = cluster.net.snapshots.lock();
    received.iter().filter(|node| **node == id).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_gets_a_snapshot_and_the_log_behind_it() {
    let mut cluster = Cluster::tuned(3, forgetful).await;
    let leader = cluster.leader().await.status().node_id;
    let away = if leader == 3 { 2 } else { 3 };
    let at = cluster.level().await;
    let mut watch = {
        let job = submit(cluster.leader().await, 1_000).await;
        cluster.level().await;
        cluster.node(away).watch(job).unwrap()
    };
    cluster.net.isolate(away);
    // It counts as alive for a while, and until then the log is kept for it.
    forget(&cluster, 0..100, at).await;
    until("it to count as away", || {
        let followers = cluster.node(leader).status().followers;
        followers.iter().any(|f| f.id == away && !f.active)
    })
    .await;
    forget(&cluster, 100..200, at + 100).await;
    cluster.net.heal();
    cluster.level().await;
    assert!(
        snapshots(&cluster, away) > 0,
        "the log reached it after all"
    );
    let told = crate::support::within(async {
        let mut last = None;
        while let Some(update) = watch.next().await {
            last = Some(update);
        }
        last
    })
    .await;
    assert!(
        matches!(told, Some(stepcast_cluster::Update::Behind { .. })),
        "its watchers are told to watch again: {told:?}"
    );
    let node = cluster.node(away).clone();
    assert_eq!(node.read(|state| state.jobs().count()).await, Ok(201));
    // What it has now is on its disk, under the log that it goes on with.
    let before = node.status();
    drop(node);
    cluster.kill(away).await;
    cluster.start(away);
    assert!(cluster.node(away).status().applied_index >= before.snapshot_index);
    cluster.level().await;
    assert_eq!(
        cluster.node(away).read(|state| state.jobs().count()).await,
        Ok(201)
    );
    cluster.shutdown().await;
}

/// One of three that needs a snapshot, which is held up on its way: who leads, who has everything, and who waits for it.
async fn waiting_for_a_snapshot(cluster: &Cluster) -> (u64, u64, u64) {
    let leader = cluster.leader().await.status().node_id;
    let behind = if leader == 3 { 2 } else { 3 };
    let at = cluster.level().await;
    cluster.net.isolate(behind);
    until("it to count as away", || {
        let followers = cluster.node(leader).status().followers;
        followers.iter().any(|f| f.id == behind && !f.active)
    })
    .await;
    forget(cluster, 0..100, at).await;
    cluster.net.hold_snapshots();
    cluster.net.heal();
    until("it to be heard again", || {
        let followers = cluster.node(leader).status().followers;
        let waits = |f: &NodeProgress| f.id == behind && f.sending == Sending::Snapshot;
        followers.iter().any(|f| waits(f) && f.active)
    })
    .await;
    (leader, 6 - leader - behind, behind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_not_removed_while_another_one_that_is_here_still_waits_for_the_log() {
    let cluster = Cluster::tuned(3, forgetful).await;
    let (leader, other, behind) = waiting_for_a_snapshot(&cluster).await;
    let node = cluster.node(leader).clone();
    assert_eq!(
        crate::support::within(node.remove_node(other)).await,
        Err(ChangeError::TooFewHere(other))
    );
    assert_eq!(node.members().voters.len(), 3);
    submit(&node, 1_000).await;
    // What is behind is no loss, and once it has caught up it is not missed either.
    cluster.net.release_snapshots();
    cluster.level().await;
    let left = crate::support::within(node.remove_node(other))
        .await
        .unwrap();
    assert_eq!(left.voters, [leader, behind].into());
    submit(&node, 1_001).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_for_a_snapshot_knows_by_its_leader_that_it_is_behind() {
    let cluster = Cluster::tuned(3, forgetful).await;
    let (leader, other, behind) = waiting_for_a_snapshot(&cluster).await;
    let committed = cluster.node(leader).status().commit_index;
    let waiting = cluster.node(behind).status();
    // By its own word it has everything: Raft tells it of no more than it has.
    assert!(waiting.applied_index < committed && waiting.commit_index < committed);
    assert!(waiting.cluster_commit_index >= Some(committed));
    let there = cluster.node(other).status();
    assert!(there.applied_index >= committed && there.cluster_commit_index >= Some(committed));
    // What it was told counts only for as long as it hears the leader.
    cluster.net.isolate(behind);
    assert_eq!(cluster.node(behind).status().cluster_commit_index, None);
    cluster.net.heal();
    cluster.net.release_snapshots();
    cluster.level().await;
    let arrived = cluster.node(behind).status();
    assert_eq!(arrived.cluster_commit_index, Some(arrived.applied_index));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_node_joins_by_a_snapshot_and_can_lead() {
    let mut cluster = Cluster::tuned(1, forgetful).await;
    forget(&cluster, 0..200, 1).await;
    let id = cluster.join().await;
    cluster.voting(vec![1, id]).await;
    assert!(snapshots(&cluster, id) > 0, "the log reached it after all");
    let third = cluster.join().await;
    cluster.voting(vec![1, id, third]).await;
    cluster.level().await;
    let leader = cluster.leader().await.clone();
    if leader.status().node_id != third {
        leader.transfer_leadership(Some(third)).await.unwrap();
    }
    let leader = cluster.node(third).clone();
    assert!(leader.leading().await);
    assert_eq!(leader.read(|state| state.jobs().count()).await, Ok(200));
    assert_eq!(leader.members().nodes.len(), 3);
    submit(&leader, 200).await;
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    (1..=3).for_each(|id| cluster.start(id));
    let leader = cluster.leader().await.clone();
    assert_eq!(leader.read(|state| state.jobs().count()).await, Ok(201));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_logs_reset_and_the_new_state_starts_from_the_new_state() {
    let mut cluster = Cluster::tuned(1, |config| {
        forgetful(config);
        // The joiner takes no snapshot of its own while it lives, so the one it was sent is all it has.
        if config.data_dir.ends_with("node-2") {
            config.snapshot_entries = 1_000_000;
        }
    })
    .await;
    forget(&cluster, 0..100, 1).await;
    let id = cluster.join().await;
    cluster.voting(vec![1, id]).await;
    cluster.level().await;
    cluster.kill(id).await;
    let sent: Vec<_> = fs::read_dir(cluster.data(id).join("snapshots"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(sent.len(), 1, "{sent:?}");
    fs::rename(&sent[0], sent[0].with_extension("received")).unwrap();
    cluster.start(id);
    cluster.level().await;
    assert!(sent[0].exists(), "adopted");
    let node = cluster.node(id);
    assert_eq!(node.read(|state| state.jobs().count()).await, Ok(100));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_not_sent_and_another_is_taken_for_who_waits() {
    let mut cluster = Cluster::tuned(1, |config| {
        forgetful(config);
        // Once started again it takes a snapshot only when it is asked to.
        if config.data_dir.exists() {
            config.snapshot_entries = 1_000_000;
        }
    })
    .await;
    forget(&cluster, 0..100, 1).await;
    let dir = cluster.data(1).join("snapshots");
    cluster.stop(1).await;
    cluster.start(1);
    assert!(cluster.node(1).leading().await);
    // Found whole at the start; it rots while nobody looks.
    for file in fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let id = cluster.join().await;
    cluster.voting(vec![1, id]).await;
    cluster.level().await;
    let node = cluster.node(id);
    assert_eq!(node.read(|state| state.jobs().count()).await, Ok(100));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_came_but_was_not_taken_up_is_no_harm() {
    let mut cluster = Cluster::tuned(3, forgetful).await;
    forget(&cluster, 0..100, 1).await;
    let leader = cluster.leader().await.status().node_id;
    let other = if leader == 3 { 2 } else { 3 };
    cluster.level().await;
    cluster.kill(other).await;
    // As a crash between the file and the log's reset leaves it: a received file that the log does not begin with.
    let dir = cluster.data(other).join("snapshots");
    let newest = fs::read_dir(cluster.data(leader).join("snapshots"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|e| e == "snapshot"))
        .max()
        .unwrap();
    let stem = newest.file_stem().unwrap().to_string_lossy().into_owned();
    fs::copy(&newest, dir.join(format!("{stem}.received"))).unwrap();
    fs::write(
        dir.join("00000000000000000009-00000000000000000001.tmp"),
        "half",
    )
    .unwrap();
    cluster.start(other);
    cluster.level().await;
    let node = cluster.node(other);
    until("it to serve", || node.status().health == Health::Serving).await;
    assert_eq!(node.read(|state| state.jobs().count()).await, Ok(100));
    cluster.shutdown().await;
}
