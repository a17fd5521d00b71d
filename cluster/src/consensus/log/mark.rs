//! A few bytes beside the log that remember how far it was acknowledged.
//!
//! The log store takes damage at its end for a write that a crash tore, and drops it in silence. That is right for a
//! batch nobody was told of, and wrong for one that was acknowledged and rotted later. The mark tells the two apart: it
//! is written after entries are on disk, so it may lag behind the log but never runs ahead of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::Position;

/// The mark is rewritten at most this often; a finer one would cost a write per batch for little.
const EVERY: Duration = Duration::from_secs(1);

/// Index, term and a checksum over both.
const BYTES: usize = 24;

/// The mark's file. Dropping it writes the newest position.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    written: Position,
    newest: Position,
    at: Instant,
}

impl Mark {
    /// Opens the file, making it if needed. A torn mark counts as none: it is a lower bound, not a promise.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = [0; BYTES];
        let written = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Position::default(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            file,
            written,
            newest: written,
            at: Instant::now(),
        })
    }

    /// The newest entry known to have been acknowledged, as of the last process.
    pub(super) fn acknowledged(&self) -> Position {
        self.written
    }

    /// Takes note that everything up to `last` is on disk. A failing write is no harm: the old mark still holds.
    pub(super) fn advance(&mut self, last: Position) {
        self.newest = last;
        if self.at.elapsed() >= EVERY {
            self.flush();
        }
    }

    /// Before entries are replaced by a new leader's, the mark must not speak of them any more.
    pub(super) fn lower(&mut self, to: Position) -> io::Result<()> {
        self.newest = to;
        if self.written.index > to.index {
            self.file.write_all_at(&encode(to), 0)?;
            self.file.sync_data()?;
            self.written = to;
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

fn encode(position: Position) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&position.index.to_le_bytes());
    bytes[8..16].copy_from_slice(&position.term.to_le_bytes());
    let sum = xxh3_64(&bytes[..16]);
    bytes[16..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; BYTES]) -> Option<Position> {
    let word = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let position = Position {
        index: word(0)?,
        term: word(8)?,
    };
    (word(16)? == xxh3_64(&bytes[..16])).then_some(position)
}
