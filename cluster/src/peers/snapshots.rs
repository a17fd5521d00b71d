//! The files of snapshots, as the way between nodes sees them.

use std::fs::File;

use crate::consensus::log::Position;
use crate::snapshot::{Error, Incoming, Snapshots};

/// Where snapshots are read from and received into. Every call may block.
pub trait SnapshotFiles: Send + Sync + 'static {
    /// Opens the snapshot of this entry for reading, if there is a whole one. It stays readable until the file is closed.
    ///
    /// # Errors
    /// When it cannot be read.
    fn open(&self, at: Position) -> Result<Option<File>, Error>;

    /// A transfer of this snapshot has failed: it is looked through before it is opened again.
    fn doubt(&self, at: Position);

    /// Removes a snapshot that has come in and is of no use.
    ///
    /// # Errors
    /// When the disk refuses.
    fn discard(&self, at: Position) -> Result<(), Error>;

    /// Begins to receive a snapshot of this entry. Dropped before [`Receiving::finish`], nothing is left of it.
    ///
    /// # Errors
    /// When nothing can be written.
    fn receive(&self, at: Position) -> Result<Box<dyn Receiving>, Error>;
}

/// A snapshot that comes in, in order.
pub trait Receiving: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they are damaged or cannot be written.
    fn write(&mut self, piece: &[u8]) -> Result<(), Error>;

    /// Checks that all of it is there as it was written, and puts it on disk, where the node behind will look for it.
    ///
    /// # Errors
    /// When it is not whole, not undamaged, or of another entry, or the disk refuses.
    fn finish(self: Box<Self>) -> Result<(), Error>;
}

impl SnapshotFiles for Snapshots {
    fn open(&self, at: Position) -> Result<Option<File>, Error> {
        Ok(self.open_at(at)?.map(|outgoing| outgoing.file))
    }

    fn doubt(&self, at: Position) {
        Snapshots::doubt(self, at);
    }

    fn discard(&self, at: Position) -> Result<(), Error> {
        Snapshots::discard(self, at)
    }

    fn receive(&self, at: Position) -> Result<Box<dyn Receiving>, Error> {
        Ok(Box::new(Snapshots::receive(self, at)?))
    }
}

impl Receiving for Incoming {
    fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        Incoming::write(self, piece)
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        Incoming::finish(*self).map(drop)
    }
}
