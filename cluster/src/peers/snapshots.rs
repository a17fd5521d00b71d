//! The files of snapshots, as the way between nodes sees them.

use std::fs::File;
use std::io;

use crate::consensus::log::Position;

/// Where snapshots are read from and received into. Every call may block.
pub trait SnapshotFiles: Send + Sync + 'static {
    /// Opens the snapshot of this entry for reading. It stays readable until the file is closed.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    fn open(&self, at: Position) -> io::Result<File>;

    /// Begins to receive a snapshot of this entry. Dropped before [`Receiving::finish`], nothing is left of it.
    ///
    /// # Errors
    /// When nothing can be written.
    fn receive(&self, at: Position) -> io::Result<Box<dyn Receiving>>;
}

/// A snapshot that comes in, in order.
pub trait Receiving: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write(&mut self, piece: &[u8]) -> io::Result<()>;

    /// Checks that all of it is there as it was written, and puts it on disk, where the node behind will look for it.
    ///
    /// # Errors
    /// When it is not whole, not undamaged, or of another entry, or the disk refuses.
    fn finish(self: Box<Self>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}
