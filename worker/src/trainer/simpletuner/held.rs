//! Files in a folder that a job's programs have made: no link that one of them has put there is followed, so that nothing of
//! the worker's is read into it or written over.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// A folder that was opened by its name, and is the same whatever happens to that.
pub(super) struct Held(OwnedFd);

/// Only what is there itself is opened, and nothing is waited for, as a pipe would be.
const ITSELF: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Whether a folder may lie behind a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// A job's programs run as the worker does: by a link they get at nothing else, and an operator may have moved a checkpoint
    /// to another disk.
    Followed,
    /// They run as an account of their own, which could learn by one what the worker finds where it may not look itself.
    Refused,
}

impl Held {
    /// The folder at the end of this path; none where that is something else, or a link that is not to be followed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(folder: &Path, links: Links) -> io::Result<Option<Self>> {
        let itself = match links {
            Links::Followed => ITSELF.difference(OFlags::NOFOLLOW),
            Links::Refused => ITSELF,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | itself;
        match rustix::fs::open(folder, flags, Mode::empty()) {
            Err(Errno::LOOP | Errno::NOTDIR) => Ok(None),
            opened => Ok(Some(Self(opened?))),
        }
    }

    /// What lies in it.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_bytes().to_owned();
            names.extend(OsStr::from_bytes(&name).to_str().map(str::to_owned));
        }
        Ok(names)
    }

    /// Whether a file of this name lies in it, and no link to one.
    pub(super) fn has(&self, name: &str) -> bool {
        let data = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        data.is_ok_and(|data| FileType::from_raw_mode(data.st_mode) == FileType::RegularFile)
    }

    /// A file of it that is no larger than this. None where it is something else, or has another name too and another owner than
    /// the folder: then it may be somebody else's file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read(&self, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match rustix::fs::openat(&self.0, name, OFlags::RDONLY | ITSELF, Mode::empty()) {
            // A link, or a socket.
            Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
            file => file?,
        };
        let (data, own) = (rustix::fs::fstat(&file)?, rustix::fs::fstat(&self.0)?);
        let is_file = FileType::from_raw_mode(data.st_mode) == FileType::RegularFile;
        let is_own = data.st_nlink == 1 || data.st_uid == own.st_uid;
        if !is_file || !is_own {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::from(file).take(most + 1).read_to_end(&mut bytes)?;
        let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= most);
        Ok(fits.then_some(bytes))
    }

    /// Puts a file in the place of one, whole or not at all, also after a power cut.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = format!("{name}.tmp");
        match rustix::fs::unlinkat(&self.0, &beside, AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            removed => removed?,
        }
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | ITSELF;
        let file = rustix::fs::openat(&self.0, &beside, new, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _gone = rustix::fs::unlinkat(&self.0, &beside, AtFlags::empty());
            return Err(error);
        }
        rustix::fs::renameat(&self.0, &beside, &self.0, name)?;
        Ok(rustix::fs::fsync(&self.0)?)
    }
}
