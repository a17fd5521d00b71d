//! Snapshots of the state as files: the newest two are kept, so that one damaged file does not cost the state.

mod first;
mod format;
mod incoming;
mod paced;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stepcast_scheduler::{Restoring, State, View};

use self::format::{Fault, Reading};
pub use self::incoming::Incoming;
use self::paced::Paced;
use crate::consensus::log::Position;
use crate::disk;
use crate::members::Members;

/// Snapshots kept. The log is kept back to the older one.
const KEPT: usize = 2;

/// Bytes read from a file at a time.
const READ_BYTES: usize = 1 << 20;

/// What a snapshot's file begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The last entry that is in it.
    pub at: Position,
    /// Who belonged to the cluster as of that entry.
    pub members: Members,
}

/// The state as of one entry, read back.
#[derive(Debug, PartialEq)]
pub struct Restored {
    /// Which entry, and who belonged to the cluster.
    pub header: Header,
    /// The state.
    pub state: State,
}

/// What writing a snapshot has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The file's size.
    pub bytes: u64,
    /// Up to which entry the log is no longer needed: that of the older of the two that are kept, so that either can be
    /// started from.
    pub older: Option<u64>,
}

/// A snapshot's file, to be sent. It can be read to its end even if it is deleted meanwhile.
#[derive(Debug)]
pub struct Outgoing {
    /// Which entry, and who belonged to the cluster.
    pub header: Header,
    /// The file, at its beginning.
    pub file: File,
    /// Its size.
    pub bytes: u64,
}

/// A directory of snapshots. Cheap to clone; every call blocks.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
    /// Files that this process has written or looked through: they are sent without another look.
    whole: Arc<Mutex<BTreeSet<Position>>>,
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
    #[error("the snapshot file {path} is damaged: {what}")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong, and where.
        what: String,
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
    /// Nothing is written any more.
    #[error("no snapshot is written, as the node is stopping")]
    Closed,
    /// The snapshot that was received is not there any more.
    #[error("no snapshot of entry {index} has been received")]
    NotReceived {
        /// Which.
        index: u64,
    },
}

impl Snapshots {
    /// No directory at all: for a node whose snapshots are kept by whoever moves it.
    pub(crate) fn unopened() -> Self {
        Self {
            dir: PathBuf::new(),
            whole: Arc::default(),
        }
    }

    /// The snapshots in `dir`, which is made if it is missing. Left-overs of an unfinished write are removed.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        disk::make_folder(dir).map_err(|source| io_error(dir, source))?;
        for file in list(dir)? {
            if file.extension().is_some_and(|e| e == "tmp") {
                remove(&file)?;
            }
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            whole: Arc::default(),
        })
    }

    /// Decides about snapshots that were received before the process ended, at a start and before [`Self::newest`]. The
    /// one that the log was reset to is adopted, as nothing else has what is in it; any other will be sent again.
    pub fn settle(&self, log_begins: Position) -> Result<(), Error> {
        for file in self.files_called("received")? {
            if position_of(&file) == Some(log_begins) {
                rename(&file, &file.with_extension("snapshot"))?;
            } else {
                remove(&file)?;
            }
        }
        Ok(())
    }

    /// The newest snapshot that can be read. A damaged one is passed over with a warning, as an older one and the log
    /// lead to the same state, and set aside, so that it does not count as one of the two that are kept; one from a newer
    /// program is neither. Where none can be read that is left to [`Self::set_aside_all`].
    pub fn newest(&self) -> Result<Option<Restored>, Error> {
        let mut damaged: Vec<PathBuf> = Vec::new();
        for path in self.files_called("snapshot")?.into_iter().rev() {
            match self.read(&path) {
                Ok(restored) => {
                    damaged.iter().try_for_each(|file| set_aside(file))?;
                    return Ok(Some(restored));
                }
                Err(error @ Error::Damaged { .. }) => {
                    tracing::warn!(%error, "a snapshot is passed over");
                    damaged.push(path);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Sets all of them aside, of which [`Self::newest`] could read none: for a node whose log begins where every log does, so
    /// that nothing but the log is needed.
    pub fn set_aside_all(&self) -> Result<(), Error> {
        let files = self.files_called("snapshot")?;
        files.iter().try_for_each(|file| set_aside(file))
    }

    /// The newest snapshot's entry, by the name of its file alone.
    pub fn newest_at(&self) -> Result<Option<Position>, Error> {
        let files = self.files_called("snapshot")?;
        Ok(files.iter().rev().find_map(|file| position_of(file)))
    }

    /// Size and age of the newest snapshot's file.
    pub fn newest_file(&self) -> Result<Option<(u64, Duration)>, Error> {
        let files = self.files_called("snapshot")?;
        let Some(path) = files.last() else {
            return Ok(None);
        };
        let of = |source| io_error(path, source);
        let about = fs::metadata(path).map_err(of)?;
        // A clock that was set back makes it new.
        let age = about.modified().map_err(of)?.elapsed().unwrap_or_default();
        Ok(Some((about.len(), age)))
    }

    /// Writes a snapshot, durably and all or nothing, and removes all but the newest two.
    pub fn write(&self, header: &Header, view: &View) -> Result<Written, Error> {
        let path = self.path(header.at);
        let unfinished = path.with_extension("tmp");
        let bytes = match write_synced(&unfinished, header, view) {
            Ok(bytes) => bytes,
            Err(source) => {
                let _ = fs::remove_file(&unfinished);
                return Err(io_error(&path, source));
            }
        };
        rename(&unfinished, &path)?;
        self.whole.lock().insert(header.at);
        let older = self.thin_out()?;
        Ok(Written { bytes, older })
    }

    /// The snapshot of one entry, to be sent; `None` if there is none any more, or it is damaged: another is to be taken.
    pub fn open_at(&self, at: Position) -> Result<Option<Outgoing>, Error> {
        let path = self.path(at);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(&path, source)),
        };
        let looked_through = self.whole.lock().contains(&at);
        let header = match read_header(&path, at, looked_through) {
            Ok(header) => header,
            Err(error @ Error::Damaged { .. }) => {
                tracing::warn!(%error, "the snapshot is not sent");
                set_aside(&path)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.whole.lock().insert(at);
        let bytes = file
            .metadata()
            .map_err(|source| io_error(&path, source))?
            .len();
        Ok(Some(Outgoing {
            header,
            file,
            bytes,
        }))
    }

    /// A transfer of this snapshot has failed: [`Self::open_at`] looks through it once more before it is sent again.
    pub fn doubt(&self, at: Position) {
        self.whole.lock().remove(&at);
    }

    /// Begins to receive the snapshot of one entry. A finished one waits for [`Self::adopt`] or [`Self::discard`].
    pub fn receive(&self, at: Position) -> Result<Incoming, Error> {
        Incoming::create(&self.dir, &name(at), at)
    }

    /// Makes a received snapshot one of this node's own and reads its state, once the log has been reset to its entry.
    /// Until then a crash leaves the old log and the old snapshots, from then on [`Self::settle`] does the same.
    pub fn adopt(&self, at: Position) -> Result<Restored, Error> {
        let path = self.path(at);
        let received = path.with_extension("received");
        if received.exists() {
            rename(&received, &path)?;
        } else if !path.exists() {
            return Err(Error::NotReceived { index: at.index });
        }
        let restored = self.read(&path)?;
        self.thin_out()?;
        Ok(restored)
    }

    /// Removes a received snapshot that the log is not reset to.
    pub fn discard(&self, at: Position) -> Result<(), Error> {
        remove(&self.path(at).with_extension("received"))
    }

    /// Reads a snapshot's file, wherever it is.
    pub fn read_file(path: &Path) -> Result<Restored, Error> {
        let at = position_of(path).unwrap_or_default();
        let mut reading = Reading::new(Restoring::default());
        let of = |fault| Error::of(fault, path, at);
        read_pieces(path, |piece| reading.push(piece).map_err(of).map(|()| true))?;
        reading.finish().map_err(of)
    }

    fn read(&self, path: &Path) -> Result<Restored, Error> {
        let restored = Self::read_file(path)?;
        self.whole.lock().insert(restored.header.at);
        Ok(restored)
    }

    /// Removes all but the newest two; says the entry of the older one.
    fn thin_out(&self) -> Result<Option<u64>, Error> {
        let files = self.files_called("snapshot")?;
        let keep_from = files.len().saturating_sub(KEPT);
        // A damaged one has served whoever wanted to look at it, and what is in it must not outlive its retention.
        for old in files[..keep_from]
            .iter()
            .chain(&self.files_called("damaged")?)
        {
            remove(old)?;
        }
        Ok((files.len() >= KEPT)
            .then(|| position_of(&files[keep_from]).map(|at| at.index))
            .flatten())
    }

    fn path(&self, at: Position) -> PathBuf {
        self.dir.join(name(at)).with_extension("snapshot")
    }

    /// Files with this ending, oldest first: their names sort by index.
    fn files_called(&self, ending: &str) -> Result<Vec<PathBuf>, Error> {
        let mut files = list(&self.dir)?;
        files.retain(|f| f.extension().is_some_and(|e| e == ending));
        files.sort();
        Ok(files)
    }
}

impl Error {
    fn of(fault: Fault, path: &Path, at: Position) -> Self {
        let path = path.display().to_string();
        match fault {
            Fault::Damaged(what) => Self::Damaged { path, what },
            Fault::UpgradeRequired => Self::UpgradeRequired { path },
            Fault::State(why) => Self::State {
                index: at.index,
                why: why.to_string(),
            },
        }
    }
}

fn set_aside(path: &Path) -> Result<(), Error> {
    rename(path, &path.with_extension("damaged"))
}

fn name(at: Position) -> String {
    format!("{:020}-{:020}", at.index, at.term)
}

fn position_of(path: &Path) -> Option<Position> {
    let (index, term) = path.file_stem()?.to_str()?.split_once('-')?;
    Some(Position {
        index: index.parse().ok()?,
        term: term.parse().ok()?,
    })
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

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to)
        .and_then(|()| sync_dir(to))
        .map_err(|source| io_error(to, source))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error(path, source)),
        _ => Ok(()),
    }
}

/// Makes the name of a file durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.display().to_string(),
        source,
    }
}

fn write_synced(path: &Path, header: &Header, view: &View) -> io::Result<u64> {
    let mut file = Paced::new(File::create(path)?);
    let bytes = format::write(&mut file, header, view)?;
    file.finish()?;
    Ok(bytes)
}

/// What a file begins with. Unless that is `enough`, all of it is looked through.
fn read_header(path: &Path, at: Position, enough: bool) -> Result<Header, Error> {
    let mut reading = Reading::new(());
    read_pieces(path, |piece| {
        let pushed = reading.push(piece);
        pushed.map_err(|fault| Error::of(fault, path, at))?;
        Ok(!enough || reading.header().is_none())
    })?;
    match reading.header() {
        Some(header) if enough => Ok(header.clone()),
        _ => reading.finish().map_err(|fault| Error::of(fault, path, at)),
    }
}

/// Reads a file to its end, or until `take` says that it is enough.
fn read_pieces(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<bool, Error>,
) -> Result<(), Error> {
    let mut file = File::open(path).map_err(|source| io_error(path, source))?;
    let mut piece = vec![0; READ_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(bytes) => {
                if !take(&piece[..bytes])? {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(io_error(path, source)),
        }
    }
}
