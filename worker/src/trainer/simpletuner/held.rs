//! Files in a folder that a job's programs have made: no link that one of them has put there is followed, so that nothing of
//! the worker's is read into it or written over.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::account::Ids;

/// A folder that was opened by its name, and is the same whatever happens to that.
pub(super) struct Held<'a> {
    folder: OwnedFd,
    /// Whom the job's programs run as, if that is not the worker's own account.
    account: Option<&'a Ids>,
}

/// Only what is there itself is opened, and nothing is waited for, as a pipe would be.
const ITSELF: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

impl<'a> Held<'a> {
    /// The folder at the end of this path; none where that is something else. It may lie behind a link, since an operator may have
    /// moved it to another disk, but not where programs of jobs run as an `account`: that could learn by one what the worker
    /// finds where it may not look itself.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(folder: &Path, account: Option<&'a Ids>) -> io::Result<Option<Self>> {
        let itself = match account {
            Some(_) => ITSELF,
            None => ITSELF.difference(OFlags::NOFOLLOW),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | itself;
        match rustix::fs::open(folder, flags, Mode::empty()) {
            Err(Errno::LOOP | Errno::NOTDIR) => Ok(None),
            opened => {
                let folder = opened?;
                Ok(Some(Self { folder, account }))
            }
        }
    }

    /// What is `wanted` of what lies in it.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub(super) fn names(&self, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_str();
            names.extend(name.ok().filter(|name| wanted(name)).map(str::to_owned));
        }
        Ok(names)
    }

    /// Whether a file of this name lies in it, and no link to one.
    pub(super) fn has(&self, name: &str) -> bool {
        let data = rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW);
        data.is_ok_and(|data| FileType::from_raw_mode(data.st_mode) == FileType::RegularFile)
    }

    /// A file of it that is no larger than this. None where it is something else, or has another owner than the folder: then a
    /// job may have moved somebody else's file there. Where jobs have no account of their own, only one that has another name
    /// too may be somebody else's.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn file(&self, name: &str, most: u64) -> io::Result<Option<File>> {
        let file =
            match rustix::fs::openat(&self.folder, name, OFlags::RDONLY | ITSELF, Mode::empty()) {
                // A link, or a socket.
                Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
                file => file?,
            };
        let (data, own) = (rustix::fs::fstat(&file)?, rustix::fs::fstat(&self.folder)?);
        let is_file = FileType::from_raw_mode(data.st_mode) == FileType::RegularFile;
        let is_single = self.account.is_none() && data.st_nlink == 1;
        let is_own = is_single || data.st_uid == own.st_uid;
        let fits = u64::try_from(data.st_size).is_ok_and(|length| length <= most);
        Ok((is_file && is_own && fits).then(|| File::from(file)))
    }

    /// Puts a file in the place of one, whole or not at all, also after a power cut, with what is written to it. It is the account's, if there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> io::Result<()> {
        let beside = format!("{name}.tmp");
        match rustix::fs::unlinkat(&self.folder, &beside, AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            removed => removed?,
        }
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | ITSELF;
        let file = rustix::fs::openat(&self.folder, &beside, new, Mode::RUSR | Mode::WUSR)?;
        let file = File::from(file);
        let mut buffered = BufWriter::new(&file);
        let written = write(&mut buffered).and_then(|()| buffered.flush());
        drop(buffered);
        let given = |file: &File| match self.account {
            Some(ids) => std::os::unix::fs::fchown(file, Some(ids.uid), Some(ids.gid)),
            None => Ok(()),
        };
        let written = written.and_then(|()| given(&file));
        let written = written.and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _gone = rustix::fs::unlinkat(&self.folder, &beside, AtFlags::empty());
            return Err(error);
        }
        rustix::fs::renameat(&self.folder, &beside, &self.folder, name)?;
        Ok(rustix::fs::fsync(&self.folder)?)
    }
}
