//! Snapshots arrive whole or not at all, whatever their size, and how it went is always said.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use raft::eraftpb::{Message, MessageType};
use stepcast_scheduler::State;
use tempfile::TempDir;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::support::{CLUSTER, Endpoint, Then, acquaint, append, cluster, credentials, indices};
use crate::consensus::log::Position;
use crate::consensus::{Delivery, Transport};
use crate::members::Members;
use crate::peers::authority::Authority;
use crate::peers::broken_off::{self, Beginning, Transfer};
use crate::peers::{Receiving, SnapshotFiles};
use crate::snapshot::{Error, Header, Snapshots};

/// Snapshots that end with their own checksum. Writing can be held up.
pub(super) struct Folder {
    dir: TempDir,
    gate: Arc<Gate>,
    /// The files that were opened for sending, at the sender's place in them.
    opened: Mutex<Vec<File>>,
    /// What is to be looked through.
    doubted: Mutex<Vec<Position>>,
}

#[derive(Default)]
struct Gate {
    /// What writing ends with.
    refuses: Mutex<Option<ErrorKind>>,
    shut: Mutex<bool>,
    opened: Condvar,
    waiting: tokio::sync::Notify,
}

struct Incoming {
    file: File,
    path: PathBuf,
    gate: Arc<Gate>,
    done: bool,
}

impl Folder {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            gate: Arc::default(),
            opened: Mutex::default(),
            doubted: Mutex::default(),
        }
    }

    fn put(&self, at: Position, bytes: &[u8]) {
        let mut whole = bytes.to_vec();
        whole.extend_from_slice(&xxh3_64(bytes).to_le_bytes());
        fs::write(self.path(at, "snapshot"), whole).unwrap();
    }

    fn path(&self, at: Position, ending: &str) -> PathBuf {
        let name = format!("{}-{}.{ending}", at.index, at.term);
        self.dir.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let files = fs::read_dir(self.dir.path()).unwrap();
        files
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl SnapshotFiles for Folder {
    fn open(&self, at: Position) -> Result<Option<File>, Error> {
        let Ok(file) = File::open(self.path(at, "snapshot")) else {
            return Ok(None);
        };
        self.opened.lock().push(file.try_clone().unwrap());
        Ok(Some(file))
    }

    fn doubt(&self, at: Position) {
        self.doubted.lock().push(at);
    }

    fn discard(&self, at: Position) -> Result<(), Error> {
        fs::remove_file(self.path(at, "received")).unwrap();
        Ok(())
    }

    fn receive(&self, at: Position) -> Result<Box<dyn Receiving>, Error> {
        let path = self.path(at, "tmp");
        Ok(Box::new(Incoming {
            file: File::create(&path).unwrap(),
            path,
            gate: Arc::clone(&self.gate),
            done: false,
        }))
    }
}

impl Receiving for Incoming {
    fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        let mut shut = self.gate.shut.lock();
        while *shut {
            self.gate.waiting.notify_one();
            self.gate.opened.wait(&mut shut);
        }
        drop(shut);
        if let Some(kind) = *self.gate.refuses.lock() {
            return Err(Error::Io {
                path: self.path.display().to_string(),
                source: io::Error::from(kind),
            });
        }
        self.file.write_all(piece).unwrap();
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        if !whole(&self.path) {
            return Err(Error::Damaged {
                path: self.path.display().to_string(),
                what: "its checksum".into(),
            });
        }
        fs::rename(&self.path, self.path.with_extension("received")).unwrap();
        self.done = true;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn whole(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap();
    let (body, sum) = bytes.split_at(bytes.len().saturating_sub(8));
    let mut hash = Xxh3::new();
    hash.update(body);
    sum == hash.digest().to_le_bytes()
}

const AT: Position = Position { index: 9, term: 4 };

const ARRIVED: Delivery = Delivery::Arrived;

const FAILED: Delivery = Delivery::Failed;

fn message(from: u64, to: u64) -> Message {
    let mut message = Message {
        from,
        to,
        term: 5,
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgSnapshot);
    let metadata = message.mut_snapshot().mut_metadata();
    metadata.index = AT.index;
    metadata.term = AT.term;
    message
}

fn noise(bytes: usize) -> Vec<u8> {
    let words = (0..bytes as u64 / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(u64::to_le_bytes).collect()
}

async fn pair() -> (Endpoint, Endpoint) {
    let (_, nodes) = cluster(2);
    let [first, second] = <[Endpoint; 2]>::try_from(nodes).ok().unwrap();
    first.sees(2, |seen| seen.reachable).await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_arrive_and_are_never_in_memory() {
    let (first, second) = pair().await;
    let bytes = noise(50 << 20);
    first.folder.put(AT, &bytes);
    *second.folder.gate.shut.lock() = true;
    first.peers.send(vec![message(1, 2)]);
    second.folder.gate.waiting.notified().await;
    // The receiver's disk hangs: the sender stops soon, with the rest still on its own disk.
    let read = || first.folder.opened.lock()[0].stream_position().unwrap();
    let mut before = u64::MAX;
    while before != read() {
        before = read();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before <= 24 << 20, "{before} bytes were read");
    assert!(second.ear.now().snapshots.is_empty());
    *second.folder.gate.shut.lock() = false;
    second.folder.gate.opened.notify_all();
    let told = second.ear.hears(|told| !told.snapshots.is_empty()).await;
    assert_eq!(told.snapshots, [message(1, 2)]);
    first.ear.hears(|told| told.sent == [(2, ARRIVED)]).await;
    assert_eq!(second.folder.names(), ["9-4.received"]);
    let received = fs::read(second.folder.path(AT, "received")).unwrap();
    assert!(received[..received.len() - 8] == bytes);
}

/// The path takes nothing any more after the first bytes, as one does that is slow beside what goes over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_of_a_snapshot_is_on_its_way_than_the_path_has_shown_to_carry() {
    let authority = Authority::found(CLUSTER).unwrap();
    let first = Endpoint::start(1, credentials(&authority, 1, CLUSTER));
    let two = credentials(&authority, 2, CLUSTER);
    let (second, proxy) = Endpoint::behind(2, two, u64::MAX, Then::Hang).await;
    acquaint([&first, &second]);
    first.sees(2, |seen| seen.reachable).await;
    first.folder.put(AT, &noise(20 << 20));
    let lost = first.ear.now().unreachable.len();
    proxy.may_pass(proxy.passed() + (8 << 10));
    first.peers.send(vec![message(1, 2)]);
    // The way of the messages is stuck as well, which shows after a while.
    first.ear.hears(|told| told.unreachable.len() > lost).await;
    let opened = first.folder.opened.lock();
    let read: Vec<u64> = opened
        .iter()
        .map(|mut file| file.stream_position().unwrap())
        .collect();
    assert!(read.iter().all(|read| *read <= 256 << 10), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_of_an_older_version_is_sent_a_snapshot_as_it_knows_it() {
    let (first, second) = pair().await;
    second.peers.shared.is_older.store(true, Ordering::Relaxed);
    first.folder.put(AT, &noise(3 << 20));
    first.peers.send(vec![message(1, 2)]);
    first.ear.hears(|told| told.sent == [(2, ARRIVED)]).await;
    assert_eq!(second.folder.names(), ["9-4.received"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_snapshot_at_a_time_goes_to_a_peer() {
    let (first, second) = pair().await;
    first.folder.put(AT, &noise(1 << 20));
    *second.folder.gate.shut.lock() = true;
    first.peers.send(vec![message(1, 2)]);
    second.folder.gate.waiting.notified().await;
    // It is asked for again, and then another one is, by this node in another term.
    first.peers.send(vec![message(1, 2)]);
    let mut later = message(1, 2);
    later.term += 1;
    first.peers.send(vec![later.clone()]);
    // What goes the same way behind them is there: they have been taken in.
    first.peers.send(vec![append(1, 2, 1, 10)]);
    second.ear.hears(|told| indices(told) == [1]).await;
    let meanwhile = first.ear.now().sent;
    *second.folder.gate.shut.lock() = false;
    second.folder.gate.opened.notify_all();
    assert_eq!(meanwhile, [], "one is still on its way");
    first.ear.hears(|told| told.sent == [(2, ARRIVED)]).await;
    assert_eq!(second.ear.now().snapshots, [message(1, 2), later.clone()]);
    first.peers.send(vec![later]);
    first.ear.hears(|told| told.sent == [(2, ARRIVED); 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_the_node_has_no_use_for_is_not_kept() {
    let (first, second) = pair().await;
    first.folder.put(AT, &noise(1 << 20));
    second.ear.ignores.store(true, Ordering::Relaxed);
    first.peers.send(vec![message(1, 2)]);
    first.ear.hears(|told| told.sent == [(2, ARRIVED)]).await;
    assert_eq!(second.ear.now().snapshots, [message(1, 2)]);
    assert!(second.folder.names().is_empty(), "nothing is left of it");
    second.ear.ignores.store(false, Ordering::Relaxed);
    first.peers.send(vec![message(1, 2)]);
    first.ear.hears(|told| told.sent.len() == 2).await;
    assert_eq!(second.folder.names(), ["9-4.received"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_damaged_short_or_missing_is_not_handed_on() {
    let (first, second) = pair().await;
    // Nobody to send to, and nothing to send.
    first.peers.send(vec![message(1, 7)]);
    first.ear.hears(|told| told.sent == [(7, FAILED)]).await;
    first.peers.send(vec![message(1, 2)]);
    first.ear.hears(|told| told.sent.len() == 2).await;
    // A flipped byte.
    first.folder.put(AT, &noise(3 << 20));
    let path = first.folder.path(AT, "snapshot");
    let mut bytes = fs::read(&path).unwrap();
    bytes[1 << 20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    first.peers.send(vec![message(1, 2)]);
    first.ear.hears(|told| told.sent.len() == 3).await;
    let missing = (2, Delivery::Unusable(AT));
    assert_eq!(first.ear.now().sent, [(7, FAILED), missing, (2, FAILED)]);
    assert_eq!(
        *first.folder.doubted.lock(),
        [AT],
        "it is looked through before it is sent again"
    );
    assert!(second.ear.now().snapshots.is_empty());
    assert!(second.folder.names().is_empty(), "nothing is left of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_why_it_cannot_keep_a_snapshot_until_it_has_kept_one() {
    let (first, second) = pair().await;
    first.folder.put(AT, &noise(1 << 20));
    let refusals = [
        Some(ErrorKind::StorageFull),
        Some(ErrorKind::StorageFull),
        Some(ErrorKind::PermissionDenied),
        None,
    ];
    for (before, refuses) in refusals.into_iter().enumerate() {
        *second.folder.gate.refuses.lock() = refuses;
        first.peers.send(vec![message(1, 2)]);
        first.ear.hears(|told| told.sent.len() > before).await;
        let told = second.peers.shared.unkept.told();
        assert_eq!(told, refuses.map(|kind| io::Error::from(kind).to_string()));
    }
    assert_eq!(second.folder.names(), ["9-4.received"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_cut_goes_on_where_it_has_broken_off() {
    let authority = Authority::found(CLUSTER).unwrap();
    let first = Endpoint::start(1, credentials(&authority, 1, CLUSTER));
    let (second, proxy) =
        Endpoint::behind(2, credentials(&authority, 2, CLUSTER), 5 << 20, Then::Cut).await;
    acquaint([&first, &second]);
    first.sees(2, |seen| seen.reachable).await;
    first.folder.put(AT, &noise(20 << 20));
    first.peers.send(vec![message(1, 2)]);
    first.ear.hears(|told| told.sent == [(2, FAILED)]).await;
    assert!(second.ear.now().snapshots.is_empty());
    let before = proxy.passed();
    proxy.may_pass(u64::MAX);
    // The next one may still meet the end of the connection that was cut; a leader tries again as well.
    for tries in 1..=10 {
        first.peers.send(vec![message(1, 2)]);
        let told = first.ear.hears(|told| told.sent.len() > tries).await;
        if told.sent.last() == Some(&(2, ARRIVED)) {
            break;
        }
        assert_eq!(told.sent.last(), Some(&(2, FAILED)));
    }
    assert_eq!(second.folder.names(), ["9-4.received"]);
    let again = proxy.passed() - before;
    assert!(again < 18 << 20, "{again} bytes of 20 MiB were sent again");
    let received = fs::read(second.folder.path(AT, "received")).unwrap();
    assert!(received[..received.len() - 8] == noise(20 << 20));
}

/// What was sent before is of no use to a sender that begins anew, or with another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_broken_off_is_removed_when_another_snapshot_comes() {
    let (first, second) = pair().await;
    let transfer = Transfer {
        from: 1,
        at: Position { index: 8, term: 4 },
        length: 7,
    };
    let beginning = || Beginning {
        transfer,
        taken: 3,
        receiving: second.folder.receive(transfer.at).unwrap(),
    };
    let kept = || {
        let shared = &second.peers.shared;
        broken_off::keep(shared, beginning());
        shared.broken_off.take(transfer)
    };
    assert!(kept().is_some_and(|kept| kept.taken == 3));
    broken_off::keep(&second.peers.shared, beginning());
    first.folder.put(AT, &noise(1 << 20));
    first.peers.send(vec![message(1, 2)]);
    first.ear.hears(|told| told.sent == [(2, ARRIVED)]).await;
    assert!(second.peers.shared.broken_off.take(transfer).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_s_own_snapshots_travel_and_a_flipped_bit_does_not() {
    let authority = Authority::found(CLUSTER).unwrap();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [ours, theirs] = dirs
        .each_ref()
        .map(|dir| Snapshots::open(dir.path()).unwrap());
    let files = |snapshots: &Snapshots| Arc::new(snapshots.clone());
    let first = Endpoint::with(1, credentials(&authority, 1, CLUSTER), files(&ours));
    let second = Endpoint::with(2, credentials(&authority, 2, CLUSTER), files(&theirs));
    acquaint([&first, &second]);
    let header = Header {
        at: AT,
        members: Members::founder(1),
    };
    ours.write(&header, &State::new().view()).unwrap();
    first.peers.send(vec![message(1, 2)]);
    first.ear.hears(|told| told.sent == [(2, ARRIVED)]).await;
    assert_eq!(second.ear.now().snapshots, [message(1, 2)]);
    assert_eq!(theirs.adopt(AT).unwrap().header, header);
    // Another process of the same node finds that its disk has forgotten a bit.
    let file = fs::read_dir(dirs[0].path()).unwrap().next().unwrap();
    let path = file.unwrap().path();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    first.peers.send(vec![message(1, 2)]);
    let unusable = (2, Delivery::Unusable(AT));
    first
        .ear
        .hears(|told| told.sent == [(2, ARRIVED), unusable])
        .await;
    assert_eq!(second.ear.now().snapshots.len(), 1);
}
