//! Formats of the log: raised once every node reads them, and refused with a sentence by a node that does not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use stepcast_cluster::consensus::log::{Batch, EngineLog, LogStore, Position};
use stepcast_cluster::members::Members;
use stepcast_cluster::snapshot::{Header, Snapshots};
use stepcast_cluster::{Handle, Health, Node, ProposeError, StartError};
use stepcast_scheduler::{Command, Envelope, State, codec};

use crate::support::{World, config, start, submit, until, within};

/// A format that no program knows yet.
const NEWER: u16 = codec::VERSION + 1;

/// The entries in a node's log that carry a command: index and format.
fn formats(dir: &Path) -> Vec<(u64, u16)> {
    let mut log = EngineLog::open(&dir.join("log")).unwrap();
    let entries = log.load().unwrap().entries;
    let with_command = entries.iter().filter(|entry| {
        !entry.data.is_empty() && entry.get_entry_type() == raft::eraftpb::EntryType::EntryNormal
    });
    with_command
        .map(|entry| {
            (
                entry.index,
                u16::from_le_bytes([entry.data[0], entry.data[1]]),
            )
        })
        .collect()
}

/// Why the node has stopped.
async fn stopped(node: &Handle) -> String {
    let ended = within(node.ended()).await;
    assert!(!ended.again, "it stops again: {ended}");
    assert_eq!(node.status().health, Health::Stopped(ended.why.clone()));
    ended.why
}

fn says_what_to_do(why: &str) {
    let expected = format!("reads up to {}: upgrade this node", codec::VERSION);
    assert!(why.contains(&expected), "{why}");
    assert!(why.contains(&format!("format {NEWER}")), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_over_to_the_newest_format_and_then_writes_in_it() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let node = start(config(dir.path()), &world).await;
    until("the barrier", || {
        node.read_stale(State::format) == codec::VERSION
    })
    .await;
    submit(&node, 1).await;
    node.shutdown().await;
    let formats = formats(dir.path());
    let written: Vec<u16> = formats.iter().map(|(_, format)| *format).collect();
    assert_eq!(
        written.first(),
        Some(&codec::FIRST),
        "an older node reads it"
    );
    assert_eq!(written.last(), Some(&codec::VERSION));
    assert!(written.is_sorted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_barrier_stops_a_node_that_keeps_everything() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let node = start(config(dir.path()), &world).await;
    let job = submit(&node, 1).await;
    let barrier = Command::Barrier { version: NEWER };
    let outcome = node.propose(barrier, None).await;
    assert!(
        matches!(
            outcome,
            Err(ProposeError::OutcomeUnknown | ProposeError::Stopped(_))
        ),
        "{outcome:?}"
    );
    says_what_to_do(&stopped(&node).await);
    let refused = node.propose(Command::Sweep, None).await;
    assert!(
        matches!(refused, Err(ProposeError::Stopped(_))),
        "{refused:?}"
    );
    node.shutdown().await;
    let before = formats(dir.path());
    // Started again it stops again at the same entry, and what came before can be read.
    let node = Node::start(config(dir.path()), world.ports()).unwrap();
    says_what_to_do(&stopped(&node).await);
    assert!(node.read_stale(|state| state.job(job).is_some()));
    assert!(node.read_stale(State::format) < NEWER);
    node.shutdown().await;
    let after = formats(dir.path());
    assert_eq!(after[..before.len()], before, "the log is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_entry_stops_a_node_that_keeps_everything() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let node = start(config(dir.path()), &world).await;
    let job = submit(&node, 1).await;
    node.shutdown().await;
    let newer = {
        let mut log = EngineLog::open(&dir.path().join("log")).unwrap();
        let loaded = log.load().unwrap();
        let mut entry = loaded.entries.last().unwrap().clone();
        entry.index += 1;
        let envelope = Envelope::new(1, None, Command::Sweep).in_format(NEWER);
        entry.data = codec::encode(&envelope).into();
        let mut hard_state = loaded.hard_state;
        hard_state.commit = entry.index;
        let index = entry.index;
        log.write(&Batch::new(None, vec![entry], Some(hard_state)), true)
            .unwrap();
        index
    };
    let node = Node::start(config(dir.path()), world.ports()).unwrap();
    let why = stopped(&node).await;
    says_what_to_do(&why);
    assert!(why.contains(&format!("log entry {newer}")), "{why}");
    assert!(node.read_stale(|state| state.job(job).is_some()));
    node.shutdown().await;
    assert!(formats(dir.path()).contains(&(newer, NEWER)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_snapshot_is_refused_and_left_for_the_newer_program() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let node = start(config(dir.path()), &world).await;
    submit(&node, 1).await;
    let index = node.status().applied_index;
    node.shutdown().await;
    let mut state = State::new();
    let barrier = Envelope::new(1, None, Command::Barrier { version: NEWER });
    state.apply(2, &barrier).reply.unwrap();
    let snapshots = Snapshots::open(&dir.path().join("snapshots")).unwrap();
    let (at, members) = (Position { index, term: 2 }, Members::founder(1));
    let written = snapshots.write(&Header { at, members }, &state.view());
    written.unwrap();
    let files = || fs::read_dir(dir.path().join("snapshots")).unwrap().count();
    let before = files();
    for _ in 0..2 {
        let Err(StartError::Snapshot(error)) = Node::start(config(dir.path()), world.ports())
        else {
            panic!("it is used")
        };
        let expected = format!("needs format {NEWER}, and this version knows less: upgrade");
        assert!(error.to_string().contains(&expected), "{error}");
    }
    assert_eq!(files(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_held_writes_as_before_and_goes_no_further() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let older = codec::VERSION - 1;
    let held = || stepcast_cluster::Config {
        log_format: older,
        ..config(dir.path())
    };
    let node = Node::start(held(), world.ports()).unwrap();
    assert!(node.leading().await);
    until("the format before", || {
        node.read_stale(State::format) == older
    })
    .await;
    let job = submit(&node, 1).await;
    node.shutdown().await;
    let written = formats(dir.path());
    assert!(written.iter().all(|(_, format)| *format <= older));

    // It can be held again, and once it is not, there is no way back.
    let node = Node::start(held(), world.ports()).unwrap();
    assert!(node.leading().await);
    assert_eq!(node.read_stale(State::format), older);
    node.shutdown().await;
    start(config(dir.path()), &world).await.shutdown().await;
    let node = Node::start(held(), world.ports()).unwrap();
    let why = stopped(&node).await;
    let expected = format!(
        "format {}, and this node is held at format {older}: start it without --hold-format",
        codec::VERSION
    );
    assert!(why.contains(&expected), "{why}");
    assert!(node.read_stale(|state| state.job(job).is_some()));
    node.shutdown().await;

    let node = start(config(dir.path()), &world).await;
    node.snapshot_now().await.unwrap();
    node.shutdown().await;
    let refused = Node::start(held(), world.ports());
    assert!(matches!(refused, Err(StartError::Held { .. })));
}
