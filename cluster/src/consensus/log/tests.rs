//! The log on disk against crashes and damage: a torn end is dropped, anything else stops the node with a sentence.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod forgotten;

use std::fs;
use std::path::{Path, PathBuf};

use raft::eraftpb::{Entry, HardState};

use super::{Batch, EngineLog, Error, Loaded, LogStore, ORIGIN, Position};

fn entry(index: u64, term: u64) -> Entry {
    // Not compressible, so that damage meets the entry's own bytes.
    let data: Vec<u8> = (0..256u64)
        .map(|i| (i * i * 31 + index * 7 + i) as u8)
        .collect();
    Entry {
        index,
        term,
        data: data.into(),
        ..Entry::default()
    }
}

fn hard_state(term: u64, commit: u64) -> Option<HardState> {
    Some(HardState {
        term,
        commit,
        ..HardState::default()
    })
}

fn batch(indices: std::ops::Range<u64>, term: u64, commit: u64) -> Batch {
    Batch::new(
        None,
        indices.map(|i| entry(i, term)).collect(),
        hard_state(term, commit),
    )
}

/// Opens the log in `dir` and reads it.
fn open(dir: &Path) -> Result<(EngineLog, Loaded), Error> {
    let mut log = EngineLog::open(&dir.join("log"))?;
    let loaded = log.load()?;
    Ok((log, loaded))
}

/// A log of entries 2..=51 in ten synced writes, closed.
fn fill(dir: &Path) {
    let (mut log, _) = open(dir).unwrap();
    for write in 0..10 {
        let first = 2 + write * 5;
        log.write(&batch(first..first + 5, 1, first - 1), true)
            .unwrap();
    }
}

fn newest_file(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|f| f.unwrap().path());
    files
        .filter(|f| f.extension().is_some_and(|e| e == "raftlog"))
        .max()
        .unwrap()
}

fn indices(loaded: &Loaded) -> (u64, u64, usize) {
    let first = loaded.entries.first().map_or(0, |e| e.index);
    (first, loaded.last().index, loaded.entries.len())
}

#[test]
fn a_new_log_begins_at_the_origin_and_reopens_there() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(open(dir.path()).unwrap().1, Loaded::new_cluster());
    assert_eq!(open(dir.path()).unwrap().1, Loaded::new_cluster());
}

#[test]
fn what_was_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (_, loaded) = open(dir.path()).unwrap();
    assert_eq!(indices(&loaded), (2, 51, 50));
    assert_eq!(loaded.hard_state.commit, 46);
    assert_eq!(loaded.entries[7], entry(9, 1));
    assert_eq!(loaded.truncated, ORIGIN);
}

#[test]
fn a_new_leaders_entries_replace_the_old_tail() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (mut log, _) = open(dir.path()).unwrap();
    log.write(&batch(48..50, 2, 46), true).unwrap();
    drop(log);
    let (_, loaded) = open(dir.path()).unwrap();
    assert_eq!(loaded.last(), Position { index: 49, term: 2 });
    assert_eq!(loaded.entries[45], entry(47, 1));
}

#[test]
fn a_compacted_log_begins_behind_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (mut log, _) = open(dir.path()).unwrap();
    log.compact(Position { index: 30, term: 1 }).unwrap();
    log.purge().unwrap();
    log.write(&batch(52..53, 1, 51), true).unwrap();
    drop(log);
    let (_, loaded) = open(dir.path()).unwrap();
    assert_eq!(indices(&loaded), (31, 52, 22));
    assert_eq!(loaded.truncated, Position { index: 30, term: 1 });
}

#[test]
fn a_reset_forgets_everything_and_the_log_goes_on_behind_it() {
    // A snapshot from another node may be far ahead of the log, or fall into the midst of it.
    for at in [1000, 30] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let (mut log, _) = open(dir.path()).unwrap();
        let position = Position { index: at, term: 3 };
        let entries = vec![entry(at + 1, 3)];
        let reset = Batch::new(Some(position), entries, hard_state(3, at));
        log.write(&reset, true).unwrap();
        log.write(&batch(at + 2..at + 4, 3, at + 1), true).unwrap();
        log.purge().unwrap();
        drop(log);
        let (mut log, loaded) = open(dir.path()).unwrap();
        assert_eq!(indices(&loaded), (at + 1, at + 3, 3));
        assert_eq!(
            (loaded.truncated, loaded.hard_state.commit),
            (position, at + 1)
        );
        log.compact(Position {
            index: at + 2,
            term: 3,
        })
        .unwrap();
        drop(log);
        assert_eq!(indices(&open(dir.path()).unwrap().1), (at + 3, at + 3, 1));
    }
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::InUse { .. })));
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn a_write_torn_by_a_crash_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    // The mark of a process that died in that write: it knows of the entries before it only.
    fs::remove_file(dir.path().join("log.mark")).unwrap();
    let file = newest_file(dir.path());
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 17]).unwrap();
    let (_, loaded) = open(dir.path()).unwrap();
    assert_eq!(indices(&loaded), (2, 46, 45));
}

#[test]
fn an_acknowledged_end_that_is_gone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let file = newest_file(dir.path());
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 17]).unwrap();
    assert!(matches!(
        open(dir.path()),
        Err(Error::Shortened {
            last: 46,
            known: 51
        })
    ));
}

#[test]
fn damage_anywhere_in_the_log_never_loses_an_entry_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let file = newest_file(dir.path());
    let whole = fs::read(&file).unwrap();
    let (mut refused, mut unharmed) = (0, 0);
    for at in (0..whole.len()).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        // A fresh copy each time: opening may cut the file.
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("log")).unwrap();
        fs::write(
            copy.path().join("log").join(file.file_name().unwrap()),
            &damaged,
        )
        .unwrap();
        fs::copy(dir.path().join("log.mark"), copy.path().join("log.mark")).unwrap();
        match open(copy.path()) {
            Err(_) => refused += 1,
            Ok((_, loaded)) => {
                assert_eq!(indices(&loaded), (2, 51, 50), "byte {at}");
                assert!(
                    loaded.entries.iter().all(|e| *e == entry(e.index, 1)),
                    "byte {at}"
                );
                unharmed += 1;
            }
        }
    }
    assert!(refused > 100, "{refused} refused, {unharmed} unharmed");
}

#[test]
fn a_log_whose_files_are_gone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    fs::remove_file(newest_file(dir.path())).unwrap();
    assert!(matches!(
        open(dir.path()),
        Err(Error::Shortened { known: 51, .. })
    ));
}

#[test]
fn a_commit_index_beyond_the_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    log.write(&batch(2..5, 1, 9), true).unwrap();
    drop(log);
    assert!(matches!(
        open(dir.path()),
        Err(Error::Shortened { last: 4, known: 9 })
    ));
}
