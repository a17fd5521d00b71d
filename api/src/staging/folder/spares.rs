//! The files of one process in a staging folder that have no name yet: what was not finished when the process ended is not
//! taken for a submission.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::super::private_dir;

/// How the name of a process's folder of unfinished files begins.
pub(in super::super) const SPARE: &str = "spare-";

/// Unfinished files of a process that has not touched them for this long are deleted: it has ended without a chance to do so.
/// One that lives all the same makes itself a new folder.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// The unfinished files of one process.
#[derive(Debug)]
pub(super) struct Spares {
    folder: File,
    path: PathBuf,
    made: u64,
}

/// One such file, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spare(u64);

impl Spares {
    /// A new folder of this process's own.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let path = root.join(format!("{SPARE}{:016x}", rand::random::<u64>()));
        private_dir(false).create(&path)?;
        Ok(Self {
            folder: File::open(&path)?,
            path,
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

    /// Gives a file a name in the folder of submissions.
    pub(super) fn name(&self, spare: Spare, root: &File, name: &str) -> Result<(), Errno> {
        renameat(&self.folder, spare.name(), root, name)
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
            .is_some_and(|name| name.starts_with(SPARE) || name.ends_with(".part"));
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
