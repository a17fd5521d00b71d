//! A new cluster of one from a snapshot's file: what a backup is for.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::consensus::log::{self, Batch, EngineLog, LogStore, Position};
use crate::identity::{self, Identity};
use crate::members::Members;
use crate::snapshot::{self, Header, Snapshots};
use raft::eraftpb::HardState;

/// Entries that the old cluster may have written after the backup, as far as its age does not say: a day and more of the most
/// that a cluster takes. No entry of the new log has the number of one of them, and so no attempt the epoch.
const SKIPPED_ENTRIES: u64 = 10_000_000_000;

/// And those for each millisecond since then.
const ENTRIES_PER_MS: u64 = 10;

/// Jobs that it may have taken since, likewise: as many as a cluster knows at once,
const SKIPPED_JOBS: u64 = 2_000_000;

/// and one for so many milliseconds. No id is given to another job: workers keep results and checkpoints by it.
const MS_PER_JOB: u64 = 100;

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restoration {
    /// The new node, alone in its cluster.
    pub node_id: u64,
    /// The new cluster: no node of the old one takes part in it.
    pub cluster_id: u64,
    /// The last entry of the old log that is in it.
    pub at: Position,
    /// How many jobs there are.
    pub jobs: usize,
    /// How many of them are not over, and need their files.
    pub unfinished: usize,
    /// The newest time that the state has seen, in milliseconds since 1970.
    pub newest_stamp_ms: u64,
}

/// Why nothing was restored. The data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory has something in it.
    #[error(
        "the data directory {dir} is not empty: a backup is restored into a new directory, never over another node"
    )]
    NotEmpty {
        /// Which.
        dir: String,
    },
    /// The backup cannot be used.
    #[error("the backup cannot be used")]
    Backup(#[source] snapshot::Error),
    /// The snapshot could not be written.
    #[error("the snapshot of the new node could not be written")]
    Snapshot(#[source] snapshot::Error),
    /// The log could not be written.
    #[error("the log of the new node could not be written")]
    Log(#[from] log::Error),
    /// The identity could not be written.
    #[error("the identity of the new node could not be written")]
    Identity(#[from] identity::Error),
    /// The file system refused.
    #[error("the directory {dir} cannot be used")]
    Io {
        /// Which.
        dir: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes a data directory of a snapshot's file, which is left as it is: the first node of a new cluster, whose log
/// goes on far behind the file's last entry, as do the ids of jobs: what the old cluster did after the backup is not known,
/// and nothing new is taken for it. It gets a secret of its own. Workers come back with their tokens; the nodes of the old cluster must not run
/// any more, or jobs run twice. Everything is made beside the directory and put in its place at the end, so that a
/// crash leaves either nothing or all of it. Blocks.
///
/// # Errors
/// When the directory is not empty, or the file is damaged, newer than this program or no snapshot.
pub fn restore_into(data_dir: &Path, file: &Path) -> Result<Restoration, Error> {
    check_empty(data_dir)?;
    let mut restored = Snapshots::read_file(file).map_err(Error::Backup)?;
    let beside = beside(data_dir);
    // Of an attempt that was broken off.
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(|source| io_error(&beside, source))?;
    }
    let identity = Identity::open(&beside, None)?;
    let at = restored.header.at;
    let age_ms = age_ms(restored.state.newest_stamp_ms());
    let entries = SKIPPED_ENTRIES.saturating_add(age_ms.saturating_mul(ENTRIES_PER_MS));
    let jobs = SKIPPED_JOBS.saturating_add(age_ms / MS_PER_JOB);
    restored.state.skip_jobs(jobs);
    restored.state.leave_nodes();
    let begin = Position {
        index: at.index.saturating_add(entries),
        ..at
    };
    let header = Header {
        at: begin,
        members: Members::founder(identity.node_id),
    };
    Snapshots::open(&identity::snapshot_dir(&beside))
        .and_then(|snapshots| snapshots.write(&header, &restored.state.view()))
        .map_err(Error::Snapshot)?;
    begin_log(&identity::log_dir(&beside), begin)?;
    put_in_place(&beside, data_dir).map_err(|source| io_error(data_dir, source))?;
    Ok(Restoration {
        node_id: identity.node_id,
        cluster_id: identity.cluster_id,
        at,
        jobs: restored.state.job_count(),
        unfinished: restored.state.unfinished_count(),
        newest_stamp_ms: restored.state.newest_stamp_ms(),
    })
}

/// How long ago this time was; 0 where it is still to come.
fn age_ms(stamp_ms: u64) -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    now_ms.saturating_sub(stamp_ms)
}

/// A log without entries that goes on behind `at`.
fn begin_log(dir: &Path, at: Position) -> Result<(), log::Error> {
    let mut log = EngineLog::open(dir)?;
    log.load()?;
    let hard_state = HardState {
        term: at.term,
        commit: at.index,
        ..HardState::default()
    };
    log.write(&Batch::new(Some(at), Vec::new(), Some(hard_state)), true)
}

fn check_empty(dir: &Path) -> Result<(), Error> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error(dir, source)),
    };
    match entries.next() {
        Some(_) => Err(Error::NotEmpty {
            dir: dir.display().to_string(),
        }),
        None => Ok(()),
    }
}

/// Where it is made: on the same file system, so that it can be renamed.
fn beside(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    data_dir.with_file_name(name)
}

fn put_in_place(beside: &Path, data_dir: &Path) -> io::Result<()> {
    File::open(beside)?.sync_all()?;
    // An empty directory gives way; one that has been filled in the meantime does not.
    fs::rename(beside, data_dir)?;
    match data_dir.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn io_error(dir: &Path, source: io::Error) -> Error {
    Error::Io {
        dir: dir.display().to_string(),
        source,
    }
}
