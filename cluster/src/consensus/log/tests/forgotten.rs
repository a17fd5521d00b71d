//! What was forgotten is in no file of the log any more, however little is written.

use std::time::Instant;

use super::super::engine::RENEW_EVERY;
use super::*;

/// An entry that says so in clear text.
fn said(index: u64, words: &str) -> Entry {
    Entry {
        index,
        term: 1,
        data: format!("{words} of entry {index}").into_bytes().into(),
        ..Entry::default()
    }
}

fn write(log: &mut EngineLog, entries: std::ops::Range<u64>, words: &str) {
    let commit = entries.start - 1;
    let entries = entries.map(|index| said(index, words)).collect();
    log.write(&Batch::new(None, entries, hard_state(1, commit)), true)
        .unwrap();
}

/// How many files of the log hold these words.
fn files_with(dir: &Path, words: &str) -> usize {
    let files = fs::read_dir(dir.join("log")).unwrap();
    let bytes = files.map(|file| fs::read(file.unwrap().path()).unwrap_or_default());
    bytes
        .filter(|bytes| {
            bytes
                .windows(words.len())
                .any(|some| some == words.as_bytes())
        })
        .count()
}

#[test]
fn no_byte_of_what_was_forgotten_is_left_once_the_log_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    write(&mut log, 2..20, "canary-one");
    write(&mut log, 20..40, "canary-two");
    log.compact(Position { index: 30, term: 1 }).unwrap();
    log.purge().unwrap();
    assert_eq!(
        files_with(dir.path(), "canary-one"),
        1,
        "one file, for years"
    );
    log.renew().unwrap();
    assert_eq!(files_with(dir.path(), "canary-one"), 0);
    assert!(files_with(dir.path(), "canary-two of entry 31") > 0);
    assert_eq!(files_with(dir.path(), "canary-two of entry 30"), 0);
    // What was moved once goes as well when its time comes, and the log goes on behind it.
    write(&mut log, 40..60, "canary-three");
    log.compact(Position { index: 45, term: 1 }).unwrap();
    log.renew().unwrap();
    assert_eq!(files_with(dir.path(), "canary-two"), 0);
    for _ in 0..3 {
        write(&mut log, 60..62, "canary-four");
        log.renew().unwrap();
    }
    drop(log);
    let (mut log, loaded) = open(dir.path()).unwrap();
    assert_eq!(indices(&loaded), (46, 61, 16));
    assert_eq!(loaded.truncated, Position { index: 45, term: 1 });
    assert_eq!(loaded.hard_state.commit, 59);
    for entry in &loaded.entries {
        let words = if entry.index < 60 {
            "canary-three"
        } else {
            "canary-four"
        };
        assert_eq!(*entry, said(entry.index, words));
    }
    assert_eq!(
        files_with(dir.path(), "canary-two"),
        0,
        "nor does it come back"
    );
    // A snapshot from another node takes the place of everything.
    let reset = Batch::new(
        Some(Position { index: 90, term: 2 }),
        Vec::new(),
        hard_state(2, 90),
    );
    log.write(&reset, true).unwrap();
    log.renew().unwrap();
    assert_eq!(files_with(dir.path(), "canary"), 0);
    drop(log);
    let (_, loaded) = open(dir.path()).unwrap();
    assert_eq!(loaded.last(), Position { index: 90, term: 2 });
}

/// Everything forgotten counts, also what a process before this one forgot; and where nothing was, nothing is written.
#[test]
fn a_log_is_written_anew_only_when_something_was_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    write(&mut log, 2..20, "canary-one");
    log.compact(Position { index: 10, term: 1 }).unwrap();
    drop(log);
    let (mut log, _) = open(dir.path()).unwrap();
    log.renewed = Instant::now().checked_sub(RENEW_EVERY).unwrap();
    log.purge().unwrap();
    assert_eq!(files_with(dir.path(), "canary-one of entry 10"), 0);
    let files = || {
        let files = fs::read_dir(dir.path().join("log")).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    log.renewed = Instant::now().checked_sub(RENEW_EVERY).unwrap();
    log.purge().unwrap();
    assert_eq!(files(), before);
}

/// More than the engine moves at once, some of it compressed: nothing of it is lost, and nothing comes back.
#[test]
fn a_long_log_is_the_same_in_its_new_files() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    for first in (2..6_002).step_by(100) {
        let write = batch(first..first + 100, 1, first - 1);
        log.write(&write, true).unwrap();
        if first % 2_000 == 2 {
            let to = Position {
                index: first / 2,
                term: 1,
            };
            log.compact(to).unwrap();
            log.renew().unwrap();
        }
    }
    log.renew().unwrap();
    log.renew().unwrap();
    drop(log);
    let (_, loaded) = open(dir.path()).unwrap();
    assert_eq!(indices(&loaded), (2_002, 6_001, 4_000));
    assert!(loaded.entries.iter().all(|one| *one == entry(one.index, 1)));
    assert_eq!(loaded.hard_state.commit, 5_901);
}

#[test]
fn a_crash_at_any_byte_of_the_new_files_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    write(&mut log, 2..20, "canary-one");
    log.compact(Position { index: 10, term: 1 }).unwrap();
    let old: Vec<(PathBuf, Vec<u8>)> = contents(&dir.path().join("log"));
    log.renew().unwrap();
    drop(log);
    // The old files are there until the new ones are whole: as if it had died just before it removed them.
    let new = contents(&dir.path().join("log"));
    let mut tried = 0;
    for (path, bytes) in new
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|kind| kind == "rewrite"))
    {
        for length in (0..bytes.len()).step_by(7) {
            let copy = tempfile::tempdir().unwrap();
            let folder = copy.path().join("log");
            fs::create_dir(&folder).unwrap();
            for (path, bytes) in old
                .iter()
                .filter(|(path, _)| path.extension().is_some_and(|kind| kind == "raftlog"))
            {
                fs::write(folder.join(path.file_name().unwrap()), bytes).unwrap();
            }
            fs::write(folder.join(path.file_name().unwrap()), &bytes[..length]).unwrap();
            fs::copy(dir.path().join("log.mark"), copy.path().join("log.mark")).unwrap();
            let (_, loaded) = open(copy.path()).unwrap();
            assert_eq!(
                indices(&loaded),
                (11, 19, 9),
                "{length} bytes of {}",
                path.display()
            );
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}

fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    files
        .filter_map(|path| Some((path.clone(), fs::read(path).ok()?)))
        .collect()
}
