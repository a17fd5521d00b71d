//! Whether this test can fail: callers that are content with stale reads must be found out.

use std::time::Duration;

use crate::cluster::{Cluster, PATIENCE};
use crate::crowd::join;
use crate::faults::serves;
use crate::history::History;
use crate::people::People;
use crate::proxy::{Network, Party};
use crate::random::SharedRandom;
use crate::wires::Wires;
use crate::{ALONE, begin, verdict};

/// Between two looks whether something was found.
const LOOK: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_reads_are_found() {
    let mut random = begin("callers content with stale reads");
    let _alone = ALONE.lock().await;
    let history = History::new();
    let wires = Wires::Proxied(Network::new(SharedRandom::new(random.fork())));
    let mut cluster = Cluster::new(wires, &history, random.fork()).await;
    cluster.servers.content_with_stale_reads();
    for _ in 0..3 {
        cluster.grow(false).await;
    }
    // Without workers every job waits, until it is cancelled to make room for the next.
    let people = People::new(cluster.servers.clone(), history.clone(), true);
    let calling = people.begin(&mut random);
    serves(&history).await;
    let leader = cluster.await_leader().await;
    let members = cluster.members();
    let follower = *members.iter().find(|node| **node != leader).unwrap();
    // The others do not reach it, and callers do.
    let nodes: Vec<Party> = members.iter().map(|node| Party::Node(*node)).collect();
    cluster.wires.isolate(follower, &nodes);
    let found = async {
        loop {
            let wrong = verdict::of(&history, &[], &[]).wrong();
            // Everything that is said here is about what callers saw, for nobody has asked which jobs there are.
            if let Some(wrong) = wrong.into_iter().find(|wrong| wrong.contains("no order")) {
                return wrong;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    people.close();
    cluster.wires.heal();
    join(calling).await;
    let told = found.unwrap_or_else(|_late| panic!("stale reads are not found"));
    println!(
        "as it should be: {}",
        told.lines().next().unwrap_or_default()
    );
}
