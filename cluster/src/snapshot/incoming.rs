//! A snapshot that another node sends: written piece by piece, looked at as it comes, and kept only if it is whole.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use stepcast_scheduler::Restoring;

use super::format::Reading;
use super::{Error, Header, io_error, sync_dir};
use crate::consensus::log::Position;

/// Tells files that are being received from one another.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A file that is being received. Dropped before it is finished, it leaves nothing behind.
pub struct Incoming {
    at: Position,
    /// Where it is written.
    unfinished: PathBuf,
    /// What it is called once it is whole.
    received: PathBuf,
    file: Option<File>,
    reading: Reading<Restoring>,
}

impl Incoming {
    pub(super) fn create(dir: &Path, name: &str, at: Position) -> Result<Self, Error> {
        let received = dir.join(name).with_extension("received");
        // A second one of the same entry, from a sender that has given the first up, has a file of its own.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unfinished = dir
            .join(name)
            .with_extension(format!("receiving-{number}.tmp"));
        let file = File::create(&unfinished).map_err(|source| io_error(&unfinished, source))?;
        Ok(Self {
            at,
            unfinished,
            received,
            file: Some(file),
            reading: Reading::new(Restoring::default()),
        })
    }

    /// Takes the next piece of the file, of any size. Blocks.
    ///
    /// # Errors
    /// When the disk refuses, or the bytes are no snapshot of the entry that was promised.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.reading
            .push(piece)
            .map_err(|fault| Error::of(fault, &self.unfinished, self.at))?;
        if let Some(header) = self.reading.header()
            && header.at != self.at
        {
            return Err(self.of_another_entry(header.at));
        }
        if let Some(file) = &mut self.file {
            file.write_all(piece)
                .map_err(|source| io_error(&self.unfinished, source))?;
        }
        Ok(())
    }

    /// Ends the file: it is looked through, on disk, and waits under its own name to be adopted. Blocks.
    ///
    /// # Errors
    /// When the disk refuses, or the file is not whole.
    pub fn finish(mut self) -> Result<Header, Error> {
        let reading = std::mem::replace(&mut self.reading, Reading::new(Restoring::default()));
        let header = reading
            .finish()
            .map_err(|fault| Error::of(fault, &self.unfinished, self.at))?
            .header;
        if header.at != self.at {
            return Err(self.of_another_entry(header.at));
        }
        if let Some(file) = self.file.take() {
            file.sync_all()
                .and_then(|()| fs::rename(&self.unfinished, &self.received))
                .and_then(|()| sync_dir(&self.received))
                .map_err(|source| io_error(&self.received, source))?;
        }
        Ok(header)
    }

    fn of_another_entry(&self, found: Position) -> Error {
        Error::Damaged {
            path: self.unfinished.display().to_string(),
            what: format!(
                "it is of entry {}, not of entry {}",
                found.index, self.at.index
            ),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // What was finished has another name by now.
        let _ = fs::remove_file(&self.unfinished);
    }
}
