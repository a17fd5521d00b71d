//! A disk that fails: torn, damaged, full, or another node's.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;
use std::time::Duration;

use stepcast_cluster::{Config, Handle, Health, IdentityError, Node, ProposeError, StartError};
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::{Command, Reply, RequestId};

use crate::net::Cluster;
use crate::support::{World, config, spec, start, submit, until, wide};

/// Submits jobs under these numbers; all of them are acknowledged.
async fn fill(node: &Handle, numbers: std::ops::Range<u64>) -> Vec<JobId> {
    futures::future::join_all(numbers.map(|number| submit(node, number))).await
}

/// The newest file of a folder with this ending.
fn newest(dir: &Path, ending: &str) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|e| e == ending))
        .max()
        .unwrap()
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_a_crash_tore_is_dropped_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    let jobs = fill(&node, 1..50).await;
    node.shutdown().await;
    drop(node);
    let log = newest(&dir.path().join("log"), "raftlog");
    // What a power loss in the middle of a write leaves: the beginning of a record, and then nothing.
    let half: Vec<u8> = (0..700u32).map(|n| (n * n) as u8).collect();
    OpenOptions::new()
        .append(true)
        .open(log)
        .unwrap()
        .write_all(&half)
        .unwrap();
    let node = start(config(dir.path()), &world).await;
    assert_eq!(
        fill(&node, 1..50).await,
        jobs,
        "the same requests get the same replies"
    );
    assert_eq!(
        node.read(|state| state.jobs().count()).await.unwrap(),
        jobs.len()
    );
    submit(&node, 50).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_gone_is_not_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    let jobs = fill(&node, 1..5).await;
    node.shutdown().await;
    drop(node);
    let (log, aside) = (dir.path().join("log"), dir.path().join("aside"));
    fs::rename(&log, &aside).unwrap();
    fs::remove_file(dir.path().join("log.mark")).unwrap();
    for is_there in [false, true] {
        if is_there {
            fs::create_dir(&log).unwrap();
        }
        let refused = Node::start(config(dir.path()), world.ports()).unwrap_err();
        assert!(
            matches!(&refused, StartError::Identity(IdentityError::NoLog { .. })),
            "{refused}"
        );
    }
    fs::remove_dir(&log).unwrap();
    fs::rename(&aside, &log).unwrap();
    let node = start(config(dir.path()), &world).await;
    assert_eq!(fill(&node, 1..5).await, jobs);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_end_that_is_gone_stops_the_start_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    for number in 1..20 {
        submit(&node, number).await;
    }
    node.shutdown().await;
    drop(node);
    let log = newest(&dir.path().join("log"), "raftlog");
    let length = fs::metadata(&log).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(log)
        .unwrap()
        .set_len(length - 200)
        .unwrap();
    match Node::start(config(dir.path()), world.ports()) {
        Err(StartError::Log(error)) => {
            assert!(error.to_string().contains("was acknowledged"), "{error}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_falls_back_to_the_older_one_and_two_damaged_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let config = Config {
        snapshot_entries: 20,
        log_tail_entries: 0,
        ..config(dir.path())
    };
    let node = start(config.clone(), &world).await;
    assert_eq!(node.status().snapshot_index, 0, "there is none yet");
    let mut jobs = Vec::new();
    let mut numbers = 1..;
    for _ in 0..3 {
        let before = node.status().snapshot_index;
        while node.status().snapshot_index == before {
            jobs.push(submit(&node, numbers.next().unwrap()).await);
        }
    }
    node.shutdown().await;
    drop(node);
    let snapshots = dir.path().join("snapshots");
    flip(&newest(&snapshots, "snapshot"));
    let node = start(config.clone(), &world).await;
    assert_eq!(fill(&node, 1..jobs.len() as u64 + 1).await, jobs);
    assert_eq!(
        node.read(|state| state.jobs().count()).await.unwrap(),
        jobs.len()
    );
    node.shutdown().await;
    drop(node);
    for file in fs::read_dir(&snapshots).unwrap() {
        OpenOptions::new()
            .write(true)
            .open(file.unwrap().path())
            .unwrap()
            .set_len(100)
            .unwrap();
    }
    match Node::start(config, world.ports()) {
        Err(StartError::Snapshot(error)) => {
            assert!(error.to_string().contains("data is missing"), "{error}")
        }
        other => panic!("{other:?}"),
    }
}

/// While there is one alone the log has everything, so that nothing is missing; but it must not pass for one that is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_first_snapshot_is_none_of_the_two_that_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let config = Config {
        snapshot_entries: 20,
        log_tail_entries: 0,
        ..config(dir.path())
    };
    let snapshots = dir.path().join("snapshots");
    let mut numbers = 1..;
    let mut jobs = Vec::new();
    // The newest is damaged each time, and is none of two that the log is forgotten for.
    for _ in 0..3 {
        let node = start(config.clone(), &world).await;
        let all = node.read(|state| state.jobs().count()).await;
        assert_eq!(all.unwrap(), jobs.len());
        while node.status().snapshot_index == 0 {
            jobs.push(submit(&node, numbers.next().unwrap()).await);
        }
        node.shutdown().await;
        drop(node);
        flip(&newest(&snapshots, "snapshot"));
    }
    let node = start(config, &world).await;
    assert_eq!(fill(&node, 1..jobs.len() as u64 + 1).await, jobs);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_one_nodes_and_one_process_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    let second = Node::start(config(dir.path()), world.ports());
    assert!(matches!(second, Err(StartError::Log(_))), "{second:?}");
    let job = submit(&node, 1).await;
    node.shutdown().await;
    drop(node);
    let other = Node::start(
        Config {
            node_id: Some(2),
            ..config(dir.path())
        },
        world.ports(),
    );
    assert!(
        matches!(
            other,
            Err(StartError::Identity(IdentityError::OtherNode {
                found: 1,
                asked: 2
            }))
        ),
        "{other:?}"
    );
    let node = start(config(dir.path()), &world).await;
    assert_eq!(submit(&node, 1).await, job);
    node.shutdown().await;
}

/// A file system of its own in memory; taken away again when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path, mebibytes: u32) -> Option<Self> {
        let size = format!("size={mebibytes}m");
        let mounted = Process::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(dir.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Process::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A file system of its own, or one line that says why there is none.
fn small(dir: &Path) -> Option<Small> {
    let mounted = rustix::process::geteuid()
        .is_root()
        .then(|| Small::mount(dir, 48))
        .flatten();
    if mounted.is_none() {
        eprintln!("skipped: only root may mount the small disk this test fills");
    }
    mounted
}

/// Takes all the room there is.
fn take_all_room(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    for size in [1 << 20, 4 << 10] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    path
}

/// Whether the log waits for its disk.
fn is_stalled(node: &Handle) -> bool {
    matches!(
        node.status().health,
        Health::StorageFull | Health::LogStalled(_)
    )
}

async fn try_submit(node: &Handle, number: u64) -> Result<JobId, ProposeError> {
    let command = Command::SubmitJob {
        spec: Box::new(spec(number)),
    };
    match node.propose(command, Some(RequestId(wide(number)))).await? {
        Reply::JobSubmitted { job } => Ok(job),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_refuses_submissions_and_lets_ends_through() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_small) = small(dir.path()) else {
        return;
    };
    let world = Arc::new(World::default());
    let config = Config {
        disk_reserve_bytes: 16 << 20,
        ..config(&dir.path().join("data"))
    };
    let node = start(config, &world).await;
    let job = submit(&node, 1).await;
    let filler = dir.path().join("filler");
    fs::write(&filler, vec![7; 30 << 20]).unwrap();
    until("the notice", || node.status().health == Health::StorageFull).await;
    assert!(matches!(
        try_submit(&node, 2).await,
        Err(ProposeError::StorageFull)
    ));
    node.propose(Command::CancelJob { job }, None)
        .await
        .unwrap();
    fs::remove_file(filler).unwrap();
    until("the recovery", || node.status().health == Health::Serving).await;
    submit(&node, 2).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_acknowledges_nothing_loses_nothing_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_small) = small(dir.path()) else {
        return;
    };
    let world = Arc::new(World::default());
    // No reserve, so that the log itself meets the end of the disk.
    let config = Config {
        disk_reserve_bytes: 0,
        ..config(&dir.path().join("data"))
    };
    let node = start(config.clone(), &world).await;
    let mut jobs = fill(&node, 1..20).await;
    let filler = take_all_room(dir.path());
    // Some may still fit into what the log has set aside; then one meets the end. One that is only slow is asked again.
    let mut number = 20;
    let unknown = loop {
        let trying = tokio::time::timeout(Duration::from_millis(500), try_submit(&node, number));
        match trying.await {
            Ok(Ok(job)) => {
                jobs.push(job);
                number += 1;
            }
            Ok(Err(ProposeError::StorageFull | ProposeError::Stalled { .. })) => break number,
            Ok(Err(other)) => panic!("{other:?}"),
            Err(_) if is_stalled(&node) => break number,
            Err(_) => {}
        }
    };
    until("the stall", || is_stalled(&node)).await;
    let refused = try_submit(&node, 900).await;
    assert!(
        matches!(
            refused,
            Err(ProposeError::StorageFull | ProposeError::Stalled { .. })
        ),
        "{refused:?}"
    );
    assert_eq!(
        node.read(|state| state.jobs().count()).await.unwrap(),
        jobs.len(),
        "reads go on"
    );

    fs::remove_file(filler).unwrap();
    until("the recovery", || node.status().health == Health::Serving).await;
    // Whether or not the one in between was written, asking again with its request id settles it.
    jobs.push(submit(&node, unknown).await);
    node.shutdown().await;
    drop(node);
    let node = start(config, &world).await;
    assert_eq!(fill(&node, 1..unknown + 1).await, jobs);
    assert_eq!(
        node.read(|state| state.jobs().count()).await.unwrap(),
        jobs.len()
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_of_which_one_has_room_that_one_comes_to_lead() {
    let cluster = Cluster::tuned(3, |config| {
        if !config.data_dir.ends_with("node-1") {
            config.disk_reserve_bytes = u64::MAX;
        }
    })
    .await;
    cluster.level().await;
    let roomy = cluster.node(1).clone();
    if !roomy.status().leading {
        let leader = cluster.leader().await;
        leader.transfer_leadership(Some(1)).await.unwrap();
    }
    assert!(roomy.leading().await);
    roomy.transfer_leadership(Some(3)).await.unwrap();
    until("the full one's duties", || cluster.node(3).status().leading).await;
    let term = cluster.node(3).status().term;
    assert_eq!(cluster.node(3).status().health, Health::StorageFull);
    // Not by way of the other full one.
    until("another leader", || roomy.status().term > term).await;
    until("the duties of the one with room", || roomy.status().leading).await;
    assert_eq!(roomy.status().term, term + 1);
    submit(&roomy, 1).await;
    // What room the others have counts for nothing: they say who leads, and it is taken there.
    for full in [2, 3] {
        let full = cluster.node(full);
        until("the new leader", || full.status().leader == Some(1)).await;
        assert_eq!(full.status().health, Health::StorageFull);
        for refused in [
            full.takes_submissions(),
            try_submit(full, 2).await.map(drop),
        ] {
            assert!(
                matches!(refused, Err(ProposeError::NotLeader { leader: Some(1) })),
                "{refused:?}"
            );
        }
    }
    roomy.takes_submissions().unwrap();
    cluster.shutdown().await;
}
