//! Damage of every kind anywhere in the log: it is found and named, or nothing is missing. Never a panic.

use std::fs;
use std::path::{Path, PathBuf};

use raft::eraftpb::HardState;
use xxhash_rust::xxh3::xxh3_64;

use super::{Batch, EngineLog, Error, LogStore, batch, entry, fill, indices, open};

/// The files of a log, oldest first.
fn files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("log")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "raftlog"));
    files.sort();
    files
}

/// A copy of a data directory: opening a log may cut its files.
fn copy(dir: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    fs::create_dir(to.path().join("log")).unwrap();
    for file in files(dir) {
        let name = file.file_name().unwrap();
        fs::copy(&file, to.path().join("log").join(name)).unwrap();
    }
    fs::copy(dir.join("log.mark"), to.path().join("log.mark")).unwrap();
    to
}

/// Opens a damaged copy of a log whose last entry is known: refused, or whole. Says which.
fn refused(copy: &Path, last: u64, what: &str) -> bool {
    let first = match open(copy) {
        Ok((_, loaded)) => {
            assert_eq!(loaded.last().index, last, "{what}");
            let expected = (loaded.truncated.index + 1..=last).map(|index| entry(index, 1));
            assert!(loaded.entries.into_iter().eq(expected), "{what}");
            return false;
        }
        Err(error) => error,
    };
    // It stays so: nothing was "repaired" in silence.
    let again = open(copy).err();
    assert!(again.is_some(), "{what}: {first} and then nothing");
    let words = first.to_string();
    assert!(!words.contains("another process"), "{what}: {words}");
    true
}

/// A log of entries 2..=26 in several files: each write is of five entries and a MiB, in which nothing repeats.
fn fill_files(dir: &Path) -> Vec<PathBuf> {
    let (mut log, _) = open(dir).unwrap();
    for write in 0..25 {
        log.write(&batch_of_a_mib(2 + write), true).unwrap();
    }
    drop(log);
    let files = files(dir);
    assert!(files.len() >= 3, "{files:?}");
    files
}

fn batch_of_a_mib(index: u64) -> Batch {
    let mut entry = entry(index, 1);
    let words = (0..1 << 17).map(|word: u64| xxh3_64(&(index << 32 | word).to_le_bytes()));
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    entry.data = bytes.into();
    let hard_state = HardState {
        term: 1,
        commit: index - 1,
        ..HardState::default()
    };
    Batch::new(None, vec![entry], Some(hard_state))
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let [file] = &files(dir.path())[..] else {
        panic!("one file")
    };
    let whole = fs::read(file).unwrap();
    let mut found = 0;
    for at in (0..whole.len()).step_by(23) {
        let copy = copy(dir.path());
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&files(copy.path())[0], damaged).unwrap();
        found += usize::from(refused(copy.path(), 51, &format!("byte {at}")));
    }
    assert!(found > whole.len() / 23 / 2, "{found}");
}

#[test]
fn a_file_cut_anywhere_is_found() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let length = fs::metadata(&files(dir.path())[0]).unwrap().len();
    for length in (0..length).step_by(61) {
        let copy = copy(dir.path());
        let file = fs::OpenOptions::new()
            .write(true)
            .open(&files(copy.path())[0])
            .unwrap();
        file.set_len(length).unwrap();
        assert!(
            refused(copy.path(), 51, &format!("cut to {length} bytes")),
            "{length} bytes are enough"
        );
    }
}

#[test]
fn damage_in_one_of_several_files_is_found_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let files_there = fill_files(dir.path());
    for (number, file) in files_there.iter().enumerate() {
        let gone = copy(dir.path());
        fs::remove_file(&files(gone.path())[number]).unwrap();
        let error = open(gone.path()).err().unwrap();
        let again = open(gone.path()).err().unwrap();
        assert!(
            matches!(
                again,
                Error::Gap { .. } | Error::Shortened { .. } | Error::Damaged { .. }
            ),
            "file {number} deleted: {error}, then {again}"
        );
        let length = fs::metadata(file).unwrap().len();
        for eighth in 0..8 {
            let copy = copy(dir.path());
            let path = &files(copy.path())[number];
            let mut bytes = fs::read(path).unwrap();
            bytes[(length * eighth / 8 + 40) as usize] ^= 0x20;
            fs::write(path, bytes).unwrap();
            let opened = open(copy.path());
            assert!(opened.is_err(), "file {number}, {eighth} eighths");
        }
    }
}

#[test]
fn an_older_copy_of_the_log_is_found() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let older = copy(dir.path());
    let (mut log, _) = open(dir.path()).unwrap();
    log.write(&batch(52..54, 1, 51), true).unwrap();
    drop(log);
    fs::copy(dir.path().join("log.mark"), older.path().join("log.mark")).unwrap();
    assert!(matches!(
        open(older.path()),
        Err(Error::Shortened {
            last: 51,
            known: 53
        })
    ));
}

#[test]
fn a_vote_that_the_log_has_forgotten_is_found() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    for (term, vote) in [(4, 2), (4, 3), (5, 0)] {
        let older = copy(dir.path());
        let (mut log, _) = open(dir.path()).unwrap();
        let hard_state = HardState {
            term,
            vote,
            commit: 51,
            ..HardState::default()
        };
        let voted = Batch::new(None, Vec::new(), Some(hard_state));
        log.write(&voted, true).unwrap();
        // The process is killed: what it has noted of the vote is there all the same.
        let noted = fs::read(dir.path().join("log.mark")).unwrap();
        drop(log);
        fs::write(older.path().join("log.mark"), noted).unwrap();
        assert!(
            matches!(open(older.path()), Err(Error::VoteLost { known, .. }) if known == term),
            "term {term}, vote {vote}"
        );
    }
}

#[test]
fn a_log_without_its_hard_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let config = raft_engine::Config {
        dir: dir.path().join("log").to_string_lossy().into_owned(),
        ..raft_engine::Config::default()
    };
    let engine = raft_engine::Engine::open(config).unwrap();
    let mut delete = raft_engine::LogBatch::default();
    delete.delete(1, b"hard_state".to_vec());
    engine.write(&mut delete, true).unwrap();
    drop(engine);
    assert!(matches!(
        open(dir.path()),
        Err(Error::VoteLost { term: 0, known: 1 })
    ));
}

#[test]
fn a_damaged_mark_counts_as_none_and_an_old_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let mark = fs::read(dir.path().join("log.mark")).unwrap();
    for at in 0..mark.len() {
        let copy = copy(dir.path());
        let mut damaged = mark.clone();
        damaged[at] ^= 0x80;
        fs::write(copy.path().join("log.mark"), damaged).unwrap();
        let (_, loaded) = open(copy.path()).unwrap();
        assert_eq!(indices(&loaded), (2, 51, 50), "byte {at}");
    }
    // Index, term and checksum, as the first version wrote them.
    let mut old = [80_u64, 1].map(u64::to_le_bytes).concat();
    old.extend_from_slice(&xxh3_64(&old).to_le_bytes());
    fs::write(dir.path().join("log.mark"), old).unwrap();
    let mut log = EngineLog::open(&dir.path().join("log")).unwrap();
    assert!(matches!(
        log.load(),
        Err(Error::Shortened {
            last: 51,
            known: 80
        })
    ));
}
