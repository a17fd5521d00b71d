//! A few bytes beside the log that remember how far it was acknowledged.
//!
//! The log store takes damage at its end for a write that a crash tore, and drops it in silence. That is right for a
//! batch nobody was told of, and wrong for one that was acknowledged and rotted later. The mark tells the two apart: it
//! is written after entries are on disk, so it may lag behind the log but never runs ahead of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::Position;

/// The mark is rewritten at most this often; a finer one would cost a write per batch for little.
const EVERY: Duration = Duration::from_secs(1);

/// Index and term of the last entry, term and vote of the node, and a checksum over them.
const BYTES: usize = 40;

/// The same without term and vote, as the first version wrote it.
const BYTES_FIRST: usize = 24;

/// What is known to have been on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The last entry.
    pub(super) last: Position,
    /// The node's term.
    pub(super) term: u64,
    /// For whom it has voted in that term, 0 for nobody.
    pub(super) vote: u64,
}

/// The mark's file. Dropping it writes the newest position.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    written: Known,
    newest: Known,
    at: Instant,
}

impl Mark {
    /// Opens the file, making it if needed. A torn mark counts as none: it is a lower bound, not a promise.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = Vec::with_capacity(BYTES);
        file.by_ref().take(BYTES as u64).read_to_end(&mut bytes)?;
        let written = decode(&bytes).unwrap_or_default();
        Ok(Self {
            file,
            written,
            newest: written,
            at: Instant::now(),
        })
    }

    /// What is known to have been acknowledged, as of the last process.
    pub(super) fn acknowledged(&self) -> Known {
        self.written
    }

    /// Takes note that everything up to `last` is on disk. A failing write is no harm: the old mark still holds.
    pub(super) fn advance(&mut self, last: Position) {
        self.newest.last = last;
        if self.at.elapsed() >= EVERY {
            self.flush();
        }
    }

    /// Takes note that a term and a vote are on disk. They change seldom, and a forgotten vote is two leaders.
    pub(super) fn voted(&mut self, term: u64, vote: u64) {
        if (self.newest.term, self.newest.vote) != (term, vote) {
            (self.newest.term, self.newest.vote) = (term, vote);
            self.flush();
        }
    }

    /// Before entries are replaced by a new leader's, the mark must not speak of them any more.
    pub(super) fn lower(&mut self, to: Position) -> io::Result<()> {
        self.newest.last = to;
        if self.written.last.index > to.index {
            let lower = Known {
                last: to,
                ..self.written
            };
            self.file.write_all_at(&encode(lower), 0)?;
            self.file.sync_data()?;
            self.written = lower;
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.at = Instant::now();
        if self.newest == self.written {
            return;
        }
        match self.file.write_all_at(&encode(self.newest), 0) {
            Ok(()) => self.written = self.newest,
            Err(error) => tracing::warn!(%error, "the log's mark could not be written"),
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.flush();
    }
}

fn encode(known: Known) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let words = [known.last.index, known.last.term, known.term, known.vote];
    for (at, word) in words.into_iter().enumerate() {
        bytes[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
    let sum = xxh3_64(&bytes[..BYTES - 8]);
    bytes[BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Known> {
    let word = |at: usize| {
        bytes
            .get(at..at + 8)?
            .try_into()
            .map(u64::from_le_bytes)
            .ok()
    };
    let length = match bytes.len() {
        BYTES | BYTES_FIRST => bytes.len(),
        _ => return None,
    };
    if word(length - 8)? != xxh3_64(&bytes[..length - 8]) {
        return None;
    }
    let later = |at| if length == BYTES { word(at) } else { Some(0) };
    Some(Known {
        last: Position {
            index: word(0)?,
            term: word(8)?,
        },
        term: later(16)?,
        vote: later(24)?,
    })
}
