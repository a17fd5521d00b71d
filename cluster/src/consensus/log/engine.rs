//! The log on disk, kept by raft-engine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use raft::eraftpb::{Entry, HardState};
use raft_engine::internals::LogQueue;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};

use super::mark::Mark;
use super::{Batch, Error, Loaded, LogStore, ORIGIN, Position};
use crate::disk::free_bytes;

/// The engine holds many groups; this node has one.
const GROUP: u64 = 1;

/// Where the hard state is kept.
const HARD_STATE: &[u8] = b"hard_state";

/// Where the truncation point is kept. The engine's own compaction is not synced, so entries can come back after a
/// power loss; this key says which of them no longer count.
const TRUNCATED: &[u8] = b"truncated";

/// Small files, so that those with nothing but forgotten entries in them go soon where much is written.
const FILE_BYTES: u64 = 8 << 20;

/// Files beyond this total are looked through for forgotten entries: a few files, for the same reason.
const PURGE_BYTES: u64 = 48 << 20;

/// Where little is written a file is not full for years, so when something was forgotten, what still counts is written into
/// new files this long afterwards at the latest. It is seldom, since all of it is written once more.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(3600);

/// A log of more files than this is not written anew: the engine itself clears them away as they come, and the log thread
/// would be busy for long.
const RENEWED_FILES: u64 = PURGE_BYTES / FILE_BYTES;

/// The log is written anew only if so much room is left on the disk afterwards: the engine cannot bear a full one meanwhile.
const ROOM_BYTES: u64 = 64 << 20;

/// Entries read from disk in one call at start.
const READ_ENTRIES: u64 = 1024;

/// A log in a directory of its own.
pub struct EngineLog {
    dir: PathBuf,
    engine: Engine,
    mark: Mark,
    last: Position,
    /// Something was forgotten since the files were written anew.
    forgot: bool,
    /// When they were, or when the log was opened.
    pub(super) renewed: Instant,
}

/// Tells the engine where an entry keeps its index.
#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl EngineLog {
    /// Opens the log in `dir`, whose parent exists, or makes a new one. The engine locks the directory.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let config = Config {
            dir: dir.to_string_lossy().into_owned(),
            target_file_size: ReadableSize(FILE_BYTES),
            purge_threshold: ReadableSize(PURGE_BYTES),
            // Recycled files keep the bytes of forgotten entries, and with them the configurations of deleted jobs.
            enable_log_recycle: false,
            ..Config::default()
        };
        let engine = Engine::open(config).map_err(|source| {
            let dir = dir.to_string_lossy().into_owned();
            match source {
                // The engine has no other name for it than these words.
                raft_engine::Error::Other(why) if why.to_string().contains("Failed to lock") => {
                    Error::InUse { dir }
                }
                raft_engine::Error::Corruption(_)
                | raft_engine::Error::Codec(_)
                | raft_engine::Error::Protobuf(_) => Error::Damaged { dir, source },
                source => Error::Open { dir, source },
            }
        })?;
        let mark = Mark::open(&dir.with_extension("mark")).map_err(Error::Mark)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            engine,
            mark,
            last: ORIGIN,
            // What was before is not known.
            forgot: true,
            renewed: Instant::now(),
        })
    }

    /// Writes what still counts into new files and removes those there were, with every byte of what was forgotten.
    pub(super) fn renew(&mut self) -> Result<(), Error> {
        self.renewed = Instant::now();
        let files = |queue| {
            let (first, last) = self.engine.file_span(queue);
            last + 1 - first
        };
        let (appended, rewritten) = (files(LogQueue::Append), files(LogQueue::Rewrite));
        let room = ROOM_BYTES + (appended + rewritten) * FILE_BYTES;
        if free_bytes(&self.dir).map_err(|error| Error::Write(error.into()))? < room {
            return Err(Error::Full);
        }
        let engine = self.engine.purge_manager();
        // First, so that what is moved there next is moved once.
        if rewritten <= RENEWED_FILES {
            engine.must_rewrite_rewrite_queue();
        }
        if appended <= RENEWED_FILES {
            engine.must_rewrite_append_queue(None, None);
        }
        self.forgot = false;
        Ok(())
    }

    fn truncated(&self) -> Option<Position> {
        let bytes = self.engine.get(GROUP, TRUNCATED)?;
        let word = |at: usize| {
            bytes
                .get(at..at + 8)?
                .try_into()
                .map(u64::from_le_bytes)
                .ok()
        };
        Some(Position {
            index: word(0)?,
            term: word(8)?,
        })
    }

    fn put_truncated(&self, to: Position) -> Result<(), Error> {
        let mut batch = LogBatch::default();
        put_position(&mut batch, to)?;
        self.engine.write(&mut batch, true).map_err(refused)?;
        Ok(())
    }

    fn read_entries(&self, from: u64) -> Result<Vec<Entry>, Error> {
        let Some(last) = self.engine.last_index(GROUP).filter(|last| *last >= from) else {
            return Ok(Vec::new());
        };
        let first = self.engine.first_index(GROUP).unwrap_or(from);
        if first > from {
            return Err(Error::Gap {
                after: from - 1,
                found: first,
            });
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = from;
        while next <= last {
            let end = (last + 1).min(next + READ_ENTRIES);
            if let Err(source) =
                self.engine
                    .fetch_entries_to::<Entries>(GROUP, next, end, None, &mut entries)
            {
                return Err(Error::Unreadable {
                    index: entries.last().map_or(next, |e| e.index + 1),
                    source,
                });
            }
            next = end;
        }
        Ok(entries)
    }
}

impl LogStore for EngineLog {
    fn load(&mut self) -> Result<Loaded, Error> {
        let acknowledged = self.mark.acknowledged();
        let loaded = match self.truncated() {
            None if self.engine.last_index(GROUP).is_some()
                || acknowledged.last.index > ORIGIN.index =>
            {
                return Err(Error::Shortened {
                    last: 0,
                    known: acknowledged.last.index.max(ORIGIN.index),
                });
            }
            None => {
                let new = Loaded::new_cluster();
                self.write(
                    &Batch::new(None, Vec::new(), Some(new.hard_state.clone())),
                    false,
                )?;
                self.put_truncated(new.truncated)?;
                new
            }
            Some(truncated) => Loaded {
                hard_state: self
                    .engine
                    .get_message::<HardState>(GROUP, HARD_STATE)
                    .map_err(|source| Error::Unreadable { index: 0, source })?
                    .ok_or(Error::VoteLost {
                        term: 0,
                        known: acknowledged.term,
                    })?,
                truncated,
                entries: self.read_entries(truncated.index + 1)?,
            },
        };
        loaded.check()?;
        self.last = loaded.last();
        if self.last.index < acknowledged.last.index {
            return Err(Error::Shortened {
                last: self.last.index,
                known: acknowledged.last.index,
            });
        }
        let HardState { term, vote, .. } = loaded.hard_state;
        let same = term == acknowledged.term;
        if term < acknowledged.term || (same && ![0, vote].contains(&acknowledged.vote)) {
            return Err(Error::VoteLost {
                term,
                known: acknowledged.term,
            });
        }
        tracing::debug!(dir = %self.dir.display(), entries = loaded.entries.len(), last = self.last.index, "log read");
        Ok(loaded)
    }

    fn write(&mut self, batch: &Batch, sync: bool) -> Result<(), Error> {
        let mut write = LogBatch::with_capacity(2);
        if let Some(at) = batch.reset() {
            // First, and in the same write: the engine cannot bear a gap between what it has and what comes.
            write.add_command(GROUP, Command::Clean);
            put_position(&mut write, at)?;
            if at.index < self.last.index {
                self.mark.lower(at).map_err(Error::Mark)?;
            }
        }
        write
            .add_entries::<Entries>(GROUP, batch.entries())
            .map_err(refused)?;
        if let Some(hard_state) = batch.hard_state() {
            write
                .put_message(GROUP, HARD_STATE.to_vec(), hard_state)
                .map_err(refused)?;
        }
        if let Some(first) = batch
            .entries()
            .first()
            .filter(|first| batch.reset().is_none() && first.index <= self.last.index)
        {
            let before = Position {
                index: first.index - 1,
                term: 0,
            };
            self.mark.lower(before).map_err(Error::Mark)?;
        }
        self.engine.write(&mut write, sync).map_err(refused)?;
        if let Some(at) = batch.reset() {
            self.last = at;
            self.forgot = true;
        }
        if let Some(last) = batch.entries().last() {
            self.last = Position {
                index: last.index,
                term: last.term,
            };
        }
        if sync {
            self.mark.advance(self.last);
            if let Some(hard_state) = batch.hard_state() {
                self.mark.voted(hard_state.term, hard_state.vote);
            }
        }
        Ok(())
    }

    fn compact(&mut self, to: Position) -> Result<(), Error> {
        self.put_truncated(to)?;
        self.engine.compact_to(GROUP, to.index + 1);
        self.forgot = true;
        Ok(())
    }

    fn purge(&mut self) -> Result<(), Error> {
        self.engine.purge_expired_files().map_err(refused)?;
        if self.forgot && self.renewed.elapsed() >= RENEW_EVERY {
            self.renew()?;
        }
        Ok(())
    }
}

fn put_position(batch: &mut LogBatch, to: Position) -> Result<(), Error> {
    let mut bytes = to.index.to_le_bytes().to_vec();
    bytes.extend(to.term.to_le_bytes());
    batch.put(GROUP, TRUNCATED.to_vec(), bytes).map_err(refused)
}

/// Sorts a failed write: no room, or anything else.
fn refused(error: raft_engine::Error) -> Error {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let full = match &error {
        raft_engine::Error::Io(io) => {
            matches!(io.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        }
        _ => false,
    };
    // The engine puts its own word in the place of the system's error when a file cannot grow.
    if full || error.to_string().contains("nospace") {
        Error::Full
    } else {
        Error::Write(error)
    }
}
