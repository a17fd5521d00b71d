//! Snapshots on disk and on their way: whole, cut, damaged at every byte, older and newer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use stepcast_scheduler::ids::TokenHash;
use stepcast_scheduler::{Command, Envelope, State};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::format::Writing;
use super::{Error, Header, Restored, Snapshots, list, position_of};
use crate::consensus::log::Position;
use crate::members::Members;

fn at(index: u64) -> Position {
    Position { index, term: 3 }
}

fn header(index: u64) -> Header {
    Header {
        at: at(index),
        members: Members::founder(7),
    }
}

/// A state with so many tokens.
fn state(tokens: u32) -> State {
    let mut state = State::new();
    for number in 1..=tokens {
        let mut hash = [7; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        let name = format!("a-host-with-a-rather-long-name-{number}")
            .parse()
            .unwrap();
        let command = Command::CreateWorkerToken {
            name,
            hash: TokenHash(hash),
        };
        let applied = state.apply(u64::from(number), &Envelope::new(1, None, command));
        applied.reply.unwrap();
    }
    state
}

fn restored(index: u64, tokens: u32) -> Restored {
    Restored {
        header: header(index),
        state: state(tokens),
    }
}

fn open(dir: &Path) -> Snapshots {
    Snapshots::open(dir).unwrap()
}

/// Snapshots of these entries, and the path of the newest.
fn with(dir: &Path, indices: &[u64]) -> (Snapshots, PathBuf) {
    let snapshots = open(dir);
    for index in indices {
        snapshots.write(&header(*index), &state(1).view()).unwrap();
    }
    let path = snapshots.files_called("snapshot").unwrap().pop().unwrap();
    (snapshots, path)
}

fn indices(snapshots: &Snapshots) -> Vec<u64> {
    let files = snapshots.files_called("snapshot").unwrap();
    files
        .iter()
        .map(|f| position_of(f).unwrap().index)
        .collect()
}

#[test]
fn the_newest_of_two_is_read_and_the_log_is_kept_back_to_the_older() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    assert_eq!(snapshots.newest().unwrap(), None);
    let older = [9, 100, 1000].map(|index| {
        let view = state(index as u32 % 7).view();
        snapshots.write(&header(index), &view).unwrap().older
    });
    assert_eq!(older, [None, Some(9), Some(100)]);
    assert_eq!(indices(&snapshots), [100, 1000]);
    assert_eq!(snapshots.newest_at().unwrap(), Some(at(1000)));
    let newest = open(dir.path()).newest().unwrap();
    assert_eq!(newest, Some(restored(1000, 6)));
}

#[test]
fn every_flipped_byte_is_noticed_and_the_older_snapshot_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let (snapshots, path) = with(dir.path(), &[1, 2]);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        let newest = snapshots.newest().unwrap();
        assert_eq!(newest, Some(restored(1, 1)), "byte {at}");
    }
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let newest = snapshots.newest().unwrap();
        assert_eq!(newest, Some(restored(1, 1)), "cut to {length} bytes");
    }
    fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    assert_eq!(snapshots.newest().unwrap(), Some(restored(1, 1)));
    snapshots.write(&header(3), &state(1).view()).unwrap();
    assert_eq!(
        indices(&snapshots),
        [1, 3],
        "a damaged one is none of the two"
    );
    assert_eq!(
        list(dir.path()).unwrap().len(),
        2,
        "and goes with the next that is written"
    );
}

#[test]
fn damage_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    snapshots
        .write(&header(20_000), &state(9_000).view())
        .unwrap();
    let path = snapshots.files_called("snapshot").unwrap().pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    assert!(
        bytes.len() > 600 << 10,
        "{} bytes are one chunk",
        bytes.len()
    );
    let last = bytes.len() - 100;
    bytes[last] ^= 0x40;
    fs::write(&path, bytes).unwrap();
    let error = Snapshots::read_file(&path).unwrap_err().to_string();
    let place = "the checksum of a chunk is wrong (chunk 3, at byte 5";
    assert!(error.contains(place), "{error}");
}

#[test]
fn chunks_of_one_file_do_not_pass_in_another() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    let paths = [4_u64, 5].map(|index| {
        let view = state(index as u32).view();
        snapshots.write(&header(index), &view).unwrap();
        snapshots.path(at(index))
    });
    let [mut one, other] = paths.clone().map(|path| fs::read(path).unwrap());
    // The end of another file, whose own checksum is right.
    let end = one.len() - 36;
    one[end..].copy_from_slice(&other[other.len() - 36..]);
    fs::write(&paths[0], one).unwrap();
    let error = Snapshots::read_file(&paths[0]).unwrap_err().to_string();
    assert!(error.contains("its end belongs to another file"), "{error}");
}

#[test]
fn an_unfinished_write_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let unfinished = "00000000000000000007-00000000000000000001";
    for ending in ["tmp", "receiving-3.tmp"] {
        let name = format!("{unfinished}.{ending}");
        fs::write(dir.path().join(name), "half").unwrap();
    }
    let snapshots = open(dir.path());
    assert_eq!(list(dir.path()).unwrap(), [] as [PathBuf; 0]);
    assert_eq!(snapshots.newest().unwrap(), None);
}

#[test]
fn a_newer_format_asks_for_an_upgrade_wherever_it_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let (snapshots, path) = with(dir.path(), &[5]);
    let mut newer = fs::read(&path).unwrap();
    newer[7] = 3;
    let length = u32::from_le_bytes(newer[8..12].try_into().unwrap()) as usize;
    let mut sum = Xxh3Default::new();
    sum.update(&newer[..12]);
    sum.update(&newer[20..20 + length]);
    newer[12..20].copy_from_slice(&sum.digest().to_le_bytes());
    fs::write(&path, &newer).unwrap();
    let refused = |error| matches!(error, Error::UpgradeRequired { .. });
    assert!(refused(snapshots.newest().unwrap_err()));
    assert!(refused(open(dir.path()).open_at(at(5)).unwrap_err()));
    let mut incoming = snapshots.receive(at(5)).unwrap();
    assert!(refused(incoming.write(&newer).unwrap_err()));
    assert!(path.exists(), "it is left for the newer program");
}

#[test]
fn what_is_sent_is_received_in_pieces_of_any_size() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let view = state(5).view();
    open(from.path()).write(&header(40), &view).unwrap();
    let mut bytes = Vec::new();
    for (piece, sender) in [
        (1, open(from.path())),
        (7, open(from.path())),
        (1000, open(from.path())),
    ] {
        let mut outgoing = sender.open_at(at(40)).unwrap().unwrap();
        assert_eq!(outgoing.header, header(40));
        bytes.clear();
        outgoing.file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, outgoing.bytes);
        let receiver = open(to.path());
        let mut incoming = receiver.receive(at(40)).unwrap();
        for piece in bytes.chunks(piece) {
            incoming.write(piece).unwrap();
        }
        assert_eq!(incoming.finish().unwrap(), header(40));
        assert_eq!(receiver.newest().unwrap(), None, "it waits to be adopted");
        assert_eq!(receiver.adopt(at(40)).unwrap(), restored(40, 5));
        assert_eq!(receiver.newest().unwrap(), Some(restored(40, 5)));
        fs::remove_file(receiver.path(at(40))).unwrap();
    }
    assert_eq!(list(to.path()).unwrap(), [] as [PathBuf; 0]);
}

#[test]
fn what_is_not_whole_is_not_received() {
    let dir = tempfile::tempdir().unwrap();
    let (snapshots, path) = with(dir.path(), &[8]);
    let bytes = fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        let mut incoming = snapshots.receive(at(9)).unwrap();
        // Another entry than was promised is noticed at the head.
        let written = incoming.write(&bytes[..length]);
        assert!(written.is_err() || incoming.finish().is_err(), "{length}");
        let mut incoming = snapshots.receive(at(8)).unwrap();
        incoming.write(&bytes[..length]).unwrap();
        let error = incoming.finish().unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    let mut incoming = snapshots.receive(at(8)).unwrap();
    assert!(incoming.write(&damaged).is_err());
    drop(incoming);
    assert_eq!(list(dir.path()).unwrap(), [path], "nothing is left behind");
    assert!(matches!(
        snapshots.adopt(at(9)),
        Err(Error::NotReceived { index: 9 })
    ));
}

#[test]
fn a_crash_before_or_after_the_log_was_reset_leaves_a_whole_state() {
    let dir = tempfile::tempdir().unwrap();
    for (log_begins, expected) in [(at(3), 8), (at(50), 50)] {
        let (snapshots, path) = with(dir.path(), &[8]);
        let mut incoming = snapshots.receive(at(50)).unwrap();
        let received = tempfile::tempdir().unwrap();
        let (_, whole) = with(received.path(), &[50]);
        incoming.write(&fs::read(whole).unwrap()).unwrap();
        incoming.finish().unwrap();
        // The process ends here.
        let snapshots = open(dir.path());
        snapshots.settle(log_begins).unwrap();
        let newest = snapshots.newest().unwrap().unwrap();
        assert_eq!(newest, restored(expected, 1));
        assert_eq!(
            snapshots.files_called("received").unwrap(),
            [] as [PathBuf; 0]
        );
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_damaged_snapshot_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (_, path) = with(dir.path(), &[5]);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let snapshots = open(dir.path());
    assert!(snapshots.open_at(at(5)).unwrap().is_none());
    assert!(snapshots.open_at(at(6)).unwrap().is_none());
    assert_eq!(snapshots.newest_at().unwrap(), None, "it is set aside");
}

#[test]
fn a_snapshot_that_was_found_whole_is_looked_through_again_once_a_transfer_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    let path = snapshots.path(at(5));
    // What is sent is read a piece at a time, and nobody asks what it means.
    let mut bytes = Vec::new();
    let mut writing = Writing::begin(&mut bytes, &header(5), 3).unwrap();
    for _ in 0..3 {
        writing.chunk(&vec![0; super::READ_BYTES]).unwrap();
    }
    writing.end().unwrap();
    fs::write(&path, &bytes).unwrap();
    assert!(snapshots.open_at(at(5)).unwrap().is_some());
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(snapshots.open_at(at(5)).unwrap().is_some());
    snapshots.doubt(at(5));
    assert!(snapshots.open_at(at(5)).unwrap().is_none());
}

#[test]
fn what_came_and_is_of_no_use_is_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (snapshots, path) = with(dir.path(), &[5]);
    let mut incoming = snapshots.receive(at(5)).unwrap();
    incoming.write(&fs::read(&path).unwrap()).unwrap();
    incoming.finish().unwrap();
    snapshots.discard(at(5)).unwrap();
    snapshots.discard(at(5)).unwrap();
    assert_eq!(list(dir.path()).unwrap(), [path]);
}

/// A file as the first version of the program has written it.
fn first_version(index: u64, voters: &[u64], state: &[u8]) -> Vec<u8> {
    let mut body: Vec<u8> = voters.iter().flat_map(|v| v.to_le_bytes()).collect();
    let length = body.len() as u64;
    body.extend_from_slice(state);
    let mut file = b"stepsnp\x01".to_vec();
    let words = [index, 3, length, state.len() as u64, xxh3_64(&body)];
    file.extend(words.into_iter().flat_map(u64::to_le_bytes));
    file.extend_from_slice(&xxh3_64(&file).to_le_bytes());
    file.extend_from_slice(&body);
    file
}

#[test]
fn a_file_of_the_first_version_is_read_sent_and_received() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let snapshots = open(dir.path());
    let bytes = first_version(12, &[7], &state(3).snapshot());
    fs::write(snapshots.path(at(12)), &bytes).unwrap();
    assert_eq!(snapshots.newest().unwrap(), Some(restored(12, 3)));
    let outgoing = open(dir.path()).open_at(at(12)).unwrap().unwrap();
    assert_eq!(outgoing.header, header(12));
    let receiver = open(to.path());
    let mut incoming = receiver.receive(at(12)).unwrap();
    bytes
        .chunks(11)
        .for_each(|piece| incoming.write(piece).unwrap());
    incoming.finish().unwrap();
    assert_eq!(receiver.adopt(at(12)).unwrap(), restored(12, 3));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(snapshots.path(self::at(12)), damaged).unwrap();
        assert_eq!(snapshots.newest().unwrap(), None, "byte {at}");
    }
}
