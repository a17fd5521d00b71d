//! Clusters of real servers and workers, with their logs on disk, while processes die and stop, networks part and disks
//! fill: what callers saw must have one order, and every job must run as if nothing had happened.
//!
//! Everything that is random comes from a seed. `STEPCAST_CLUSTER_SEED`, `_SECONDS` (of faults), `_NODES` and `_FAULTS`
//! (names, separated by commas) choose others. What cannot be done here says so in one line, or fails with
//! `STEPCAST_CLUSTER_ALL`. Run `cargo test --workspace --test cluster -- --nocapture` to read what was done.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it did"
)]

mod caller;
mod cluster;
#[path = "../ring/contributions.rs"]
mod contributions;
mod crowd;
mod disk;
mod doubt;
mod faults;
mod figures;
mod history;
mod namespaces;
mod people;
mod process;
mod proxy;
mod random;
mod trainers;
mod upgrade;
mod verdict;
mod watchers;
mod wires;
#[path = "../ring/work.rs"]
mod work;

use std::time::{Duration, Instant};

use stepcast_tests::random::Random;
use tokio::sync::Mutex;

use cluster::Cluster;
use crowd::Crowd;
use faults::Faults;
use history::History;
use namespaces::Namespaces;
use proxy::Network;
use random::SharedRandom;
use wires::Wires;

/// Seconds of faults in a plain `cargo test`: enough for each kind to come about once.
const SECONDS: u64 = 30;

/// Workers that take jobs.
const WORKERS: usize = 3;

/// One cluster at a time: the machine is small, and elections want their turn.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_behind_proxies_lose_nothing_and_run_nothing_twice() {
    let mut random = begin("three nodes behind proxies");
    let network = Network::new(SharedRandom::new(random.fork()));
    let nodes = number("STEPCAST_CLUSTER_NODES").unwrap_or(3);
    under_faults(Wires::Proxied(network), nodes, 0, random).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_grows_to_five_in_namespaces_and_loses_nothing() {
    let random = begin("one node to five in namespaces");
    match Namespaces::new() {
        Ok(spaces) => {
            let nodes = number("STEPCAST_CLUSTER_NODES").unwrap_or(5);
            under_faults(Wires::Spaces(spaces), 1, nodes, random).await;
        }
        Err(why) => skipped(&why),
    }
}

/// A cluster of so many nodes that grows to so many more while it is used.
async fn under_faults(wires: Wires, nodes: u64, grown: u64, mut random: Random) {
    let _alone = ALONE.lock().await;
    let history = History::new();
    let mut cluster = Cluster::new(wires, &history, random.fork()).await;
    for number in 0..nodes {
        // The second node has a disk of its own, or the first if there is only one.
        cluster.grow(number == 1 || nodes == 1).await;
    }
    cluster.hire(WORKERS).await;
    let crowd = Crowd::begin(&cluster, &history, &mut random);
    faults::serves(&history).await;
    while (cluster.members().len() as u64) < grown {
        cluster.grow(false).await;
        faults::serves(&history).await;
    }
    let names = std::env::var("STEPCAST_CLUSTER_FAULTS").ok();
    let mut faults = Faults::new(random.fork(), names.as_deref());
    let begun = Instant::now();
    let seconds = Duration::from_secs(number("STEPCAST_CLUSTER_SECONDS").unwrap_or(SECONDS));
    while begun.elapsed() < seconds || !faults.were_all(&cluster) {
        faults.one(&mut cluster, &history).await;
    }
    println!("settling after {} s", begun.elapsed().as_secs());
    let verdict = crowd.settle(&mut cluster, &history, &mut random).await;
    println!("faults: {}", faults.told());
    verdict.tell();
}

/// Says what cannot be done here. With `STEPCAST_CLUSTER_ALL` nothing may be left out.
fn skipped(why: &str) {
    let all = std::env::var_os("STEPCAST_CLUSTER_ALL").is_some();
    assert!(!all, "everything is to be done, and {why}");
    println!("skipped: {why}");
}

/// Says which seed it is, before anything can fail.
fn begin(what: &str) -> Random {
    let seed = number("STEPCAST_CLUSTER_SEED").unwrap_or(20_261_126);
    println!("{what}: seed {seed}");
    Random::new(seed)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number"))
    })
}
