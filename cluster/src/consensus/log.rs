//! The durable log behind one trait: what must be on disk before anything is acknowledged.

mod batch;
mod engine;
mod mark;
mod memory;
#[cfg(test)]
mod tests;

use raft::eraftpb::{Entry, HardState};

pub use self::batch::Batch;
pub(super) use self::batch::entry_bytes;
pub use self::engine::EngineLog;
pub use self::memory::{MemLog, MemLogDisk};

/// A place in the log: an entry's index, and the term it was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The entry's index, from 1.
    pub index: u64,
    /// The term in which a leader wrote it.
    pub term: u64,
}

/// Where every new log begins: founders agree on one entry that nobody ever wrote, so that all start alike.
pub const ORIGIN: Position = Position { index: 1, term: 1 };

/// Everything a log holds, read whole at start.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Term, vote and commit index as last written.
    pub hard_state: HardState,
    /// The entry before the first one: everything up to it is in a snapshot.
    pub truncated: Position,
    /// The live entries, without a gap.
    pub entries: Vec<Entry>,
}

impl Loaded {
    /// A log in which nothing has happened yet.
    pub fn new_cluster() -> Self {
        let hard_state = HardState {
            term: ORIGIN.term,
            commit: ORIGIN.index,
            ..HardState::default()
        };
        Self {
            hard_state,
            truncated: ORIGIN,
            entries: Vec::new(),
        }
    }

    /// The last entry, or the truncation point in an empty log.
    pub fn last(&self) -> Position {
        self.entries.last().map_or(self.truncated, |e| Position {
            index: e.index,
            term: e.term,
        })
    }

    /// Refuses a log that contradicts itself: it has lost something it once acknowledged.
    fn check(&self) -> Result<(), Error> {
        let mut before = self.truncated;
        for entry in &self.entries {
            if entry.index != before.index + 1 {
                return Err(Error::Gap {
                    after: before.index,
                    found: entry.index,
                });
            }
            if entry.term < before.term {
                return Err(Error::TermFell { index: entry.index });
            }
            before = Position {
                index: entry.index,
                term: entry.term,
            };
        }
        if self.hard_state.commit > before.index {
            return Err(Error::Shortened {
                last: before.index,
                known: self.hard_state.commit,
            });
        }
        Ok(())
    }
}

/// A durable log. One thread owns it; no two calls overlap.
pub trait LogStore: Send + 'static {
    /// Reads everything, checks it, and refuses a log with anything missing or unreadable in it.
    fn load(&mut self) -> Result<Loaded, Error>;

    /// Writes a batch: a reset first forgets everything, so that the log begins behind that entry; the entries replace
    /// whatever was stored from the first one's index on. All of it counts or nothing does. With `sync` it is on disk
    /// when this returns. After an error nothing of it counts as written, and the same batch may be tried again.
    fn write(&mut self, batch: &Batch, sync: bool) -> Result<(), Error>;

    /// Forgets every entry up to and including `to`, which is now in a snapshot.
    fn compact(&mut self, to: Position) -> Result<(), Error>;

    /// Gives space of forgotten entries back. To be called every few seconds.
    fn purge(&mut self) -> Result<(), Error>;
}

/// Why a log cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("another process uses the log in {dir}")]
    InUse {
        /// Its directory.
        dir: String,
    },
    /// The store could not be opened.
    #[error("opening the log in {dir} failed")]
    Open {
        /// Its directory.
        dir: String,
        /// The store's own words.
        #[source]
        source: raft_engine::Error,
    },
    /// What the store finds at a start is not what it has written.
    #[error(
        "the log in {dir} is damaged; wipe this node and let it join under a new id, or restore the data directory"
    )]
    Damaged {
        /// Its directory.
        dir: String,
        /// The store's own words, with the file and the place.
        #[source]
        source: raft_engine::Error,
    },
    /// The node has voted, and the log does not say so any more.
    #[error(
        "the log says term {term} but this node has voted in term {known}: it has lost data; wipe this node and let it join under a new id, or restore the data directory"
    )]
    VoteLost {
        /// The log's term.
        term: u64,
        /// The term in which it has voted.
        known: u64,
    },
    /// Writing failed; nothing was acknowledged.
    #[error("writing the log failed: {0}")]
    Write(#[source] raft_engine::Error),
    /// The disk has no room. Nothing was acknowledged.
    #[error("the disk of the log is full")]
    Full,
    /// An entry is there but cannot be read back.
    #[error(
        "log entry {index} cannot be read: the log is damaged; wipe this node and let it join under a new id"
    )]
    Unreadable {
        /// Which one.
        index: u64,
        /// The store's own words.
        #[source]
        source: raft_engine::Error,
    },
    /// An entry is missing between others.
    #[error(
        "the log jumps from entry {after} to {found}: it is damaged; wipe this node and let it join under a new id"
    )]
    Gap {
        /// The last entry in order.
        after: u64,
        /// What follows it.
        found: u64,
    },
    /// An entry has an older term than the one before it.
    #[error("log entry {index} is older than the one before it: the log is damaged")]
    TermFell {
        /// Which one.
        index: u64,
    },
    /// The log ends before an entry that was acknowledged.
    #[error(
        "the log ends at entry {last} but entry {known} was acknowledged: it has lost data; wipe this node and let it \
         join under a new id, or restore the data directory"
    )]
    Shortened {
        /// Its last entry.
        last: u64,
        /// An entry it must have had.
        known: u64,
    },
    /// The small file beside the log could not be read or written.
    #[error("the log's mark file cannot be used")]
    Mark(#[source] std::io::Error),
    /// Injected by a simulated disk.
    #[error("the simulated disk refuses")]
    Simulated,
}
