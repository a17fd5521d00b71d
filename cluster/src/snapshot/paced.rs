//! A file that is written to disk as it grows, so that whoever syncs another file does not wait for all of it at once.

use std::fs::File;
use std::io::{self, Write};

/// Bytes after which the disk is waited for: a few milliseconds of its time, during which the log's own writes go on.
const SYNC_EVERY: usize = 2 << 20;

/// A file under way.
pub(super) struct Paced {
    file: File,
    buffer: Vec<u8>,
}

impl Paced {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(SYNC_EVERY),
        }
    }

    /// Writes what is left and waits until everything is on disk.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write_out()?;
        self.file.sync_all()
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > SYNC_EVERY {
            self.write_out()?;
            self.file.sync_data()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
