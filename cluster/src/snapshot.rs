//! Snapshots of the state as files: the newest two are kept, so that one damaged file does not cost the state.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::consensus::log::Position;
use crate::members::Members;

/// First bytes of every snapshot file; the last of them is the format's version.
const MAGIC: [u8; 8] = *b"stepsnp\x02";

/// Magic, index, term, length of the members, length of the state, checksum of what follows and of these.
const HEADER: usize = 8 + 8 + 8 + 8 + 8 + 8 + 8;

/// Snapshots kept. The log is kept back to the older one.
const KEPT: usize = 2;

/// Largest state that is read back; a length beyond it is damage, not a state.
const MAX_BYTES: u64 = 8 << 30;

/// The state as of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that is in it.
    pub at: Position,
    /// Who belonged to the cluster as of that entry.
    pub members: Members,
    /// The state's own bytes.
    pub state: Vec<u8>,
}

/// A directory of snapshots.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
}

/// Why a snapshot cannot be written or none can be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("the snapshot file {path} cannot be used")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("the snapshot file {path} is damaged")]
    Damaged {
        /// Which file.
        path: String,
    },
    /// A newer program wrote it.
    #[error(
        "the snapshot file {path} has a format that this version does not know; upgrade this node"
    )]
    UpgradeRequired {
        /// Which file.
        path: String,
    },
    /// The state in it cannot be restored.
    #[error("the state in the snapshot of entry {index} cannot be restored: {why}")]
    State {
        /// The snapshot's entry.
        index: u64,
        /// The state's own words.
        why: String,
    },
    /// No snapshot reaches as far as the log begins.
    #[error(
        "the log begins behind entry {log}, but the newest readable snapshot is of entry {snapshot}: data is missing; \
         wipe this node and let it join under a new id, or restore the data directory"
    )]
    Missing {
        /// The entry before the log's first.
        log: u64,
        /// The newest snapshot's entry, 1 if there is none.
        snapshot: u64,
    },
    /// A snapshot holds entries that the log has lost.
    #[error(
        "the snapshot is of entry {snapshot}, but the log ends at entry {log}: the log has lost data; wipe this node \
         and let it join under a new id, or restore the data directory"
    )]
    Ahead {
        /// The snapshot's entry.
        snapshot: u64,
        /// The log's last entry.
        log: u64,
    },
}

impl Snapshots {
    /// The snapshots in `dir`, which is made if it is missing. Left-overs of an unfinished write are removed.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|source| io_error(dir, source))?;
        for file in list(dir)? {
            if file.extension().is_some_and(|e| e == "tmp") {
                fs::remove_file(&file).map_err(|source| io_error(&file, source))?;
            }
        }
        Ok(Self {
            dir: dir.to_path_buf(),
        })
    }

    /// The newest snapshot that can be read. A damaged one is passed over with a warning, as an older one and the log
    /// lead to the same state, and set aside, so that it does not count as one of the two that are kept; one from a newer
    /// program is neither.
    pub fn newest(&self) -> Result<Option<Snapshot>, Error> {
        let mut damaged: Vec<PathBuf> = Vec::new();
        for path in self.files_called("snapshot")?.into_iter().rev() {
            match read(&path) {
                Ok(snapshot) => {
                    damaged.iter().try_for_each(|file| set_aside(file))?;
                    return Ok(Some(snapshot));
                }
                Err(error @ Error::Damaged { .. }) => {
                    tracing::warn!(%error, "an older snapshot is used");
                    damaged.push(path);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Writes a snapshot, durably and all or nothing, and removes all but the newest two. Says up to which entry
    /// the log is no longer needed: the older of the two, so that either can be started from.
    pub fn write(&self, snapshot: &Snapshot) -> Result<Option<u64>, Error> {
        let path = self.dir.join(name(snapshot.at));
        let unfinished = path.with_extension("tmp");
        let written =
            write_synced(&unfinished, snapshot).and_then(|()| fs::rename(&unfinished, &path));
        if let Err(source) = written.and_then(|()| File::open(&self.dir)?.sync_all()) {
            let _ = fs::remove_file(&unfinished);
            return Err(io_error(&path, source));
        }
        let files = self.files_called("snapshot")?;
        let keep_from = files.len().saturating_sub(KEPT);
        // A damaged one has served whoever wanted to look at it, and what is in it must not outlive its retention.
        for old in files[..keep_from]
            .iter()
            .chain(&self.files_called("damaged")?)
        {
            fs::remove_file(old).map_err(|source| io_error(old, source))?;
        }
        Ok((files.len() >= KEPT)
            .then(|| files[keep_from].file_stem().and_then(index_of))
            .flatten())
    }

    /// Files with this ending, oldest first: their names sort by index.
    fn files_called(&self, ending: &str) -> Result<Vec<PathBuf>, Error> {
        let mut files = list(&self.dir)?;
        files.retain(|f| f.extension().is_some_and(|e| e == ending));
        files.sort();
        Ok(files)
    }
}

fn set_aside(path: &Path) -> Result<(), Error> {
    fs::rename(path, path.with_extension("damaged")).map_err(|source| io_error(path, source))
}

fn name(at: Position) -> String {
    format!("{:020}-{:020}.snapshot", at.index, at.term)
}

fn index_of(stem: &std::ffi::OsStr) -> Option<u64> {
    stem.to_str()?.split('-').next()?.parse().ok()
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(dir).map_err(|source| io_error(dir, source))?;
    entries
        .map(|entry| {
            entry
                .map(|e| e.path())
                .map_err(|source| io_error(dir, source))
        })
        .collect()
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.display().to_string(),
        source,
    }
}

fn write_synced(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let mut body = snapshot.members.encode();
    let members = body.len() as u64;
    body.extend_from_slice(&snapshot.state);
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&MAGIC);
    for word in [
        snapshot.at.index,
        snapshot.at.term,
        members,
        snapshot.state.len() as u64,
        xxh3_64(&body),
    ] {
        header.extend_from_slice(&word.to_le_bytes());
    }
    header.extend_from_slice(&xxh3_64(&header).to_le_bytes());
    let mut file = File::create(path)?;
    file.write_all(&header)?;
    file.write_all(&body)?;
    file.sync_all()
}

fn read(path: &Path) -> Result<Snapshot, Error> {
    let damaged = || Error::Damaged {
        path: path.display().to_string(),
    };
    let mut file = File::open(path).map_err(|source| io_error(path, source))?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(|_| damaged())?;
    let word = |n: usize| {
        header[8 + n * 8..16 + n * 8]
            .try_into()
            .map_or(0, u64::from_le_bytes)
    };
    if word(5) != xxh3_64(&header[..HEADER - 8]) {
        return Err(damaged());
    }
    if header[..8] != MAGIC {
        return Err(Error::UpgradeRequired {
            path: path.display().to_string(),
        });
    }
    let (members, state) = (word(2), word(3));
    if members.saturating_add(state) > MAX_BYTES {
        return Err(damaged());
    }
    let mut body = Vec::new();
    file.read_to_end(&mut body)
        .map_err(|source| io_error(path, source))?;
    if body.len() as u64 != members + state || xxh3_64(&body) != word(4) {
        return Err(damaged());
    }
    let state = body.split_off(usize::try_from(members).map_err(|_| damaged())?);
    let members = Members::decode(&body).ok_or_else(damaged)?;
    Ok(Snapshot {
        at: Position {
            index: word(0),
            term: word(1),
        },
        members,
        state,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn snapshot(index: u64) -> Snapshot {
        Snapshot {
            at: Position { index, term: 3 },
            members: Members::founder(7),
            state: vec![index as u8; 1000],
        }
    }

    fn indices(snapshots: &Snapshots) -> Vec<u64> {
        snapshots
            .files_called("snapshot")
            .unwrap()
            .iter()
            .filter_map(|f| index_of(f.file_stem()?))
            .collect()
    }

    #[test]
    fn the_newest_of_two_is_read_and_the_log_is_kept_back_to_the_older() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        assert_eq!(snapshots.newest().unwrap(), None);
        assert_eq!(snapshots.write(&snapshot(9)).unwrap(), None);
        assert_eq!(snapshots.write(&snapshot(100)).unwrap(), Some(9));
        assert_eq!(snapshots.write(&snapshot(1000)).unwrap(), Some(100));
        assert_eq!(indices(&snapshots), [100, 1000]);
        assert_eq!(
            Snapshots::open(dir.path()).unwrap().newest().unwrap(),
            Some(snapshot(1000))
        );
    }

    #[test]
    fn every_flipped_byte_is_noticed_and_the_older_snapshot_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        snapshots.write(&snapshot(1)).unwrap();
        snapshots.write(&snapshot(2)).unwrap();
        let path = snapshots.files_called("snapshot").unwrap().pop().unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(snapshots.newest().unwrap(), Some(snapshot(1)), "byte {at}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(snapshots.newest().unwrap(), Some(snapshot(1)));
        snapshots.write(&snapshot(3)).unwrap();
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
    fn an_unfinished_write_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path()
                .join("00000000000000000007-00000000000000000001.tmp"),
            "half",
        )
        .unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        assert_eq!(list(dir.path()).unwrap(), [] as [PathBuf; 0]);
        assert_eq!(snapshots.newest().unwrap(), None);
    }

    #[test]
    fn a_newer_format_asks_for_an_upgrade() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(dir.path()).unwrap();
        snapshots.write(&snapshot(5)).unwrap();
        let path = snapshots.files_called("snapshot").unwrap().pop().unwrap();
        let mut newer = fs::read(&path).unwrap();
        newer[7] = 9;
        let sum = xxh3_64(&newer[..HEADER - 8]);
        newer[HEADER - 8..HEADER].copy_from_slice(&sum.to_le_bytes());
        fs::write(&path, newer).unwrap();
        assert!(matches!(
            snapshots.newest(),
            Err(Error::UpgradeRequired { .. })
        ));
    }
}
