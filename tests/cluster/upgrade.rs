//! Nodes are upgraded one after the other while the cluster is used; what is new comes with the last of them, and from then
//! on the version before is turned away.
//!
//! `STEPCAST_CLUSTER_OLDER=PATH` begins with another program, one whose newest log format is the one before. Without it the
//! program under test is held at that format, which refuses what a program that knows no other refuses.

use std::time::Instant;

use crate::cluster::{Cluster, LOOK, PATIENCE};
use crate::crowd::Crowd;
use crate::faults::serves;
use crate::history::History;
use crate::process::Process;
use crate::wires::Wires;
use crate::{ALONE, WORKERS, begin};

/// The format of the program under test, and of the one before.
const NEW: u32 = stepcast_cluster::LOG_FORMAT;
const OLD: u32 = NEW - 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_upgraded_one_after_the_other_while_the_cluster_is_used() {
    let mut random = begin("rolling upgrade");
    let _alone = ALONE.lock().await;
    let history = History::new();
    let mut cluster = Cluster::new(Wires::Direct, &history, random.fork()).await;
    cluster.older = true;
    for _ in 0..3 {
        cluster.grow(false).await;
    }
    cluster.hire(WORKERS).await;
    let crowd = Crowd::begin(&cluster, &history, &mut random);
    until_format(&cluster, OLD).await;
    serves(&history).await;

    // The leader is the last, as docs/operating.md says.
    let leader = cluster.await_leader().await;
    let mut order = cluster.members();
    order.retain(|number| *number != leader);
    order.push(leader);
    for number in order {
        assert_eq!(formats(&cluster).await, [Some(OLD); 3], "one is still old");
        println!("node {number} is upgraded");
        replace(&mut cluster, number, false).await;
        cluster.until_even().await;
        serves(&history).await;
    }
    until_format(&cluster, NEW).await;
    serves(&history).await;

    let leader = cluster.await_leader().await;
    let follower = cluster.members().into_iter().find(|node| *node != leader);
    let follower = follower.unwrap();
    println!("node {follower} is put back");
    replace(&mut cluster, follower, true).await;
    let why = until_stopped(&mut cluster, follower).await;
    assert!(why.contains(&format!("format {NEW}")), "{why}");
    serves(&history).await;
    replace(&mut cluster, follower, false).await;
    cluster.until_even().await;
    crowd
        .settle(&mut cluster, &history, &mut random)
        .await
        .tell();
}

/// Stops a node and starts it as the old or the new program, on the same data.
async fn replace(cluster: &mut Cluster, number: usize, older: bool) {
    if let Some(process) = cluster.node(number).process.take() {
        process.stop().await;
    }
    cluster.node(number).older = older;
    cluster.start_node(number);
}

/// The log's format, as each node says.
async fn formats(cluster: &Cluster) -> Vec<Option<u32>> {
    let mut formats = Vec::new();
    for number in cluster.members() {
        let status = cluster.status(number).await;
        formats.push(status.map(|status| status.log_format));
    }
    formats
}

async fn until_format(cluster: &Cluster, format: u32) {
    let begun = Instant::now();
    loop {
        let formats = formats(cluster).await;
        if formats.iter().all(|found| *found == Some(format)) {
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "the log's format is {formats:?} and not {format}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until a node goes no further; why, in its own words. Older programs stay, and say it to whoever asks.
async fn until_stopped(cluster: &mut Cluster, number: usize) -> String {
    let begun = Instant::now();
    loop {
        let process = cluster.node(number).process.as_mut();
        if process.is_some_and(Process::has_ended) {
            return cluster.last_word(number);
        }
        if let Some(status) = cluster.status(number).await
            && status.health == "STOPPED"
        {
            return status.detail;
        }
        assert!(begun.elapsed() < PATIENCE, "node {number} goes on");
        tokio::time::sleep(LOOK).await;
    }
}
