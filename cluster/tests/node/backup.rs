//! A backup is one file, taken while the node goes on, and makes a new cluster of one wherever it is restored.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use stepcast_cluster::session::Order;
use stepcast_cluster::{Handle, RestoreError, restore_into, snapshot};
use stepcast_scheduler::model::{Outcome, Secret};
use stepcast_scheduler::{Command, Reply, RequestId, State};

use crate::support::{
    Worker, World, assignment, config, ended, order, spec, start, submit, until, wide, within,
};

/// A backup of this node, as bytes.
async fn backup(node: &Handle) -> Vec<u8> {
    let mut outgoing = node.snapshot_now().await.unwrap();
    let mut bytes = Vec::new();
    outgoing.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, outgoing.bytes);
    bytes
}

/// What the nodes of its cluster share, once they do.
async fn secret(node: &Handle) -> Secret {
    within(node.has_secret()).await;
    let generation = node.read_stale(|state| state.nodes().generation().copied());
    generation.unwrap().secret
}

/// A node with a job that is over, one that runs and one that waits.
async fn busy(dir: &Path, world: &Arc<World>) -> Handle {
    let node = start(config(dir), world).await;
    let worker = Worker::join(&node, 1).await;
    let mut session = worker.attach(&node);
    for number in 1..=3 {
        submit(&node, number).await;
    }
    let first = assignment(&mut session).await;
    let end = ended(&first, Outcome::Succeeded);
    session.reports.report(end).await.unwrap();
    while !matches!(order(&mut session).await, Order::Assign(_)) {}
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_restored_is_a_new_cluster_with_everything_that_was_acknowledged() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let node = busy(&dir.path().join("old"), &world).await;
    let before: Vec<_> =
        node.read_stale(|state| state.jobs().map(|job| job.into_owned()).collect());
    let open = node.read_stale(State::unfinished_count);
    let file = dir.path().join("backup");
    fs::write(&file, backup(&node).await).unwrap();
    // Of what comes after it, nothing is there.
    let lost = submit(&node, 4).await;
    let old = node.status();
    let secret = secret(&node).await;
    node.shutdown().await;

    let data = dir.path().join("new");
    let restored = restore_into(&data, &file).unwrap();
    assert_eq!((restored.node_id, restored.jobs), (1, 3));
    assert_eq!(restored.unfinished, open);
    assert_ne!(restored.cluster_id, old.cluster_id);
    let node = start(config(&data), &world).await;
    let status = node.status();
    assert_eq!(status.cluster_id, restored.cluster_id);
    assert_eq!(status.members.voters.len(), 1);
    assert!(status.applied_index > restored.at.index);
    let after: Vec<_> = node.read_stale(|state| state.jobs().map(|job| job.into_owned()).collect());
    assert_eq!(after, before);
    // Nor has who has the backup anything of what the new cluster's nodes know.
    assert_ne!(self::secret(&node).await, secret);
    // A request that was answered before has the same answer, and a new one does not take an old id.
    assert_eq!(submit(&node, 3).await, before[2].id);
    assert!(submit(&node, 4).await > before[2].id);
    // Nor one that the old cluster has given since: a worker may have results by it. The same for epochs.
    assert!(submit(&node, 5).await.0 > lost.0 + 1_000_000);
    assert!(status.applied_index > old.last_index + 1_000_000_000);
    // The worker comes back with its token, and its lease ends if it does not.
    node.shutdown().await;
    let node = start(config(&data), &world).await;
    world.pass(config(&data).lease_term * 2);
    until("the end of the lease", || {
        node.read_stale(|state| state.leases().count()) == 0
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_refused_with_a_sentence_and_nothing_is_left_of_it() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let old = dir.path().join("old");
    let node = busy(&old, &world).await;
    let whole = backup(&node).await;
    node.shutdown().await;
    let (file, data) = (dir.path().join("backup"), dir.path().join("new"));
    let refused = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let error = restore_into(&data, &file).unwrap_err();
        assert!(!data.exists(), "{error}");
        error
    };
    for (bytes, says) in [
        (&whole[..whole.len() - 1], "it ends too early"),
        (&whole[1..], "it does not begin like a snapshot"),
        (&[], "it ends too early"),
    ] {
        let RestoreError::Backup(error) = refused(bytes) else {
            panic!("it is not the backup's fault")
        };
        assert!(error.to_string().contains(says), "{error}");
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    let RestoreError::Backup(snapshot::Error::Damaged { what, .. }) = refused(&flipped) else {
        panic!("it is not damaged")
    };
    assert!(
        what.contains("checksum") && what.contains("at byte"),
        "{what}"
    );
    fs::write(&file, &whole).unwrap();
    let error = restore_into(&old, &file).unwrap_err();
    assert!(matches!(error, RestoreError::NotEmpty { .. }), "{error}");
    // A directory that is there and empty is as good as none, and so are the left-overs of an attempt before.
    fs::create_dir(&data).unwrap();
    fs::create_dir(dir.path().join("new.restoring")).unwrap();
    fs::write(dir.path().join("new.restoring").join("log"), "half").unwrap();
    restore_into(&data, &file).unwrap();
    assert!(!dir.path().join("new.restoring").exists());
    let node = start(config(&data), &world).await;
    let again = Command::SubmitJob {
        spec: Box::new(spec(2)),
    };
    let reply = node.propose(again, Some(RequestId(wide(2)))).await;
    assert!(matches!(reply, Ok(Reply::JobSubmitted { .. })), "{reply:?}");
    node.shutdown().await;
}
