//! The files that one process has at hand in a staging folder: each holds nothing, or something without a name yet.
//!
//! Making and deleting a file for every submission is what costs most: ext4 looks through everything that was deleted in
//! the last minute whenever a file is made, half a millisecond of processor time with some thousand of them. So the file
//! of a submission that is over is wiped and used again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::super::private_dir;

/// How the name of a process's folder of spare files begins.
const PREFIX: &str = "spare-";

/// Files kept for later. A burst of deletions beyond it deletes files for good.
const KEPT_MAX: usize = 8_192;

/// A larger file is not kept: wiping it would take longer than making a new one.
const KEPT_BYTES_MAX: u64 = 16 << 10;

/// Spare files of a process that has not touched them for this long are deleted: it has ended without a chance to do so.
/// One that lives all the same makes itself a new folder.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// The spare files of one process.
#[derive(Debug)]
pub(super) struct Spares {
    folder: File,
    path: PathBuf,
    wiped: Vec<Spare>,
    made: u64,
}

/// One spare file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spare(u64);

impl Spares {
    /// A new folder of this process's own.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let path = root.join(format!("{PREFIX}{:016x}", rand::random::<u64>()));
        private_dir(false).create(&path)?;
        Ok(Self {
            folder: File::open(&path)?,
            path,
            wiped: Vec::new(),
            made: 0,
        })
    }

    /// Makes a new folder if the old one is gone, because this process was taken for one that has ended. True if it was.
    pub(super) fn renew(&mut self) -> bool {
        if self.path.exists() {
            return false;
        }
        let root = self.path.parent().unwrap_or(&self.path);
        match Self::open(root) {
            Ok(new) => {
                *self = new;
                true
            }
            Err(_) => false,
        }
    }

    /// A name for a file that holds nothing, or is not there yet.
    pub(super) fn take(&mut self) -> Spare {
        self.wiped.pop().unwrap_or_else(|| self.new_name())
    }

    /// A name that no file has.
    pub(super) fn new_name(&mut self) -> Spare {
        self.made += 1;
        Spare(self.made)
    }

    /// The file of this name, open for writing; made if it is not there.
    pub(super) fn file(&self, spare: Spare) -> Result<File, Errno> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        openat(&self.folder, spare.name(), flags, mode).map(File::from)
    }

    /// Gives a spare file a name in the folder of submissions.
    pub(super) fn name(&self, spare: Spare, root: &File, name: &str) -> Result<(), Errno> {
        renameat(&self.folder, spare.name(), root, name)
    }

    /// Takes a file's name in the folder of submissions away.
    pub(super) fn unname(&self, root: &File, name: &str, spare: Spare) -> Result<(), Errno> {
        renameat(root, name, &self.folder, spare.name())
    }

    /// Has a file hold nothing any more: the one it gives back may be kept once it is on disk, any other is gone.
    pub(super) fn wipe(&self, spare: Spare) -> Result<Option<File>, Errno> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = match openat(&self.folder, spare.name(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            // Version 0.1 kept a folder for each submission.
            Err(Errno::ISDIR) => {
                let removed = std::fs::remove_dir_all(self.path.join(spare.name()));
                return removed.map(|()| None).map_err(|error| errno(&error));
            }
            Err(other) => return Err(other),
        };
        let bytes = file.metadata().map_err(|error| errno(&error))?.len();
        if bytes > KEPT_BYTES_MAX || self.wiped.len() >= KEPT_MAX {
            self.delete(spare);
            return Ok(None);
        }
        let zeros = vec![0; usize::try_from(bytes).unwrap_or(0)];
        write_all(&file, &zeros)?;
        Ok(Some(file))
    }

    /// Keeps a file that was wiped, and is so on disk.
    pub(super) fn keep(&mut self, spare: Spare) {
        self.wiped.push(spare);
    }

    /// Deletes a file.
    pub(super) fn delete(&self, spare: Spare) {
        // What cannot be deleted goes with the folder.
        let _ = unlinkat(&self.folder, spare.name(), AtFlags::empty());
    }

    /// Removes everything, at the end of the process.
    pub(super) fn close(&self) {
        // What is left behind is removed by whoever opens the folder when it is old.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Spare {
    fn name(self) -> String {
        self.0.to_string()
    }
}

/// Deletes what processes have left behind that ended long before `now`.
pub(super) fn tidy(root: &Path, now: SystemTime) -> io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        // Version 0.1 called what was not finished otherwise.
        let spare = name
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX) || name.ends_with(".part"));
        let Some(metadata) = spare.then(|| entry.metadata().ok()).flatten() else {
            continue;
        };
        let abandoned = metadata
            .modified()
            .is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age >= ABANDONED));
        // Another process may be doing the same, so what is gone is fine.
        let _ = match (abandoned, metadata.is_dir()) {
            (false, _) => Ok(()),
            (true, true) => std::fs::remove_dir_all(entry.path()),
            (true, false) => std::fs::remove_file(entry.path()),
        };
    }
    Ok(())
}

/// Writes from the file's beginning.
pub(super) fn write_all(file: &File, bytes: &[u8]) -> Result<(), Errno> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(bytes, 0).map_err(|error| errno(&error))
}

/// What the operating system said.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
