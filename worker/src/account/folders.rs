//! Gives folders to a trainer's account and takes them back. What a job has made in its folder is somebody else's: no name in
//! it is followed anywhere.

use std::cell::Cell;
use std::ffi::{CStr, OsStr};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::Ids;
use crate::state_dir::{ATTEMPT_OWN, Error, at, private_folder};

/// Where a trainer's home is in its attempt's folder.
pub(crate) const HOME: &str = "home";

/// Where its temporary files are.
pub(crate) const TEMPORARY: &str = "tmp";

/// Folders in folders at most: what trainers write has a handful, and each takes three open files while it is gone through.
const DEPTH_MAX: usize = 64;

/// Nothing is opened but the folder itself.
const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The worker's alone, or an account's alone, with the sign ([`was_given`]) that it is or was an account's. The sign is the bit that
/// has others move nothing in a folder, which changes nothing where there are no others.
const GIVEN: Mode = Mode::RWXU.union(Mode::SVTX);

/// Lets accounts go through a folder to what is theirs in it, and neither list it nor write to it more than before.
///
/// # Errors
/// When that cannot be set.
pub(crate) fn let_pass(folder: &Path) -> Result<(), Error> {
    let file = open(folder)?;
    let mode = file
        .metadata()
        .map_err(at("look at", folder))?
        .permissions()
        .mode()
        & 0o7777;
    if mode & 0o011 != 0o011 {
        let passed = std::fs::Permissions::from_mode(mode | 0o011);
        file.set_permissions(passed).map_err(at("change", folder))?;
    }
    Ok(())
}

/// Whether nobody but this worker can put another folder in the place of one in this one.
///
/// # Errors
/// When it cannot be looked at.
pub(crate) fn is_own(folder: &Path) -> Result<bool, Error> {
    let data = open(folder)?.metadata().map_err(at("look at", folder))?;
    Ok(data.uid() == rustix::process::geteuid().as_raw() && data.mode() & 0o022 == 0)
}

/// Gives what a trainer needs of its attempt's folder to its account, with a home and a place for temporary files. The folder
/// itself stays the worker's, and so does what is written down about the attempt.
///
/// # Errors
/// When something cannot be given.
pub(crate) fn give_attempt(folder: &Path, account: &Ids) -> Result<(), Error> {
    for own in [HOME, TEMPORARY] {
        private_folder(&folder.join(own))?;
    }
    let top = open(folder)?;
    let gift = Gift {
        own: true,
        ..Gift::new(account)
    };
    let is_own = |name: &CStr| {
        ATTEMPT_OWN
            .iter()
            .any(|own| name.to_bytes() == own.as_bytes())
    };
    let given = each(top.as_fd(), |name| match is_own(name) {
        true => Ok(()),
        false => entry(top.as_fd(), name, &gift, 0),
    });
    given.map_err(at("give away what is in", folder))?;
    gift.tell(folder);
    let_pass(folder)
}

/// Gives a folder to an account, which alone may enter it, with what is in it of all `trainers`, by their numbers, and the folder
/// in it that the worker has `made` for the account. What else is the worker's own in it goes with it where the folder was no
/// account's before: else a job can have moved it there, as it can what is somebody else's. That stays as it is, which is told;
/// and so do a link, and a file that has several names.
///
/// # Errors
/// When it is no folder, or something in it cannot be given.
pub(crate) fn give(
    folder: &Path,
    account: &Ids,
    trainers: &[u32],
    made: Option<&Path>,
) -> Result<(), Error> {
    let top = open(folder)?;
    let own = !was_given(&top).map_err(at("look at", folder))?;
    let gift = Gift {
        trainers,
        own,
        ..Gift::new(account)
    };
    let given = || {
        match rustix::fs::fstat(&top)?.st_uid == account.uid {
            // Another host of the job may have begun, and its trainer is in there.
            true => rustix::fs::fchmod(&top, GIVEN)?,
            false => shut_off(&top)?,
        }
        if let Some(name) = made.and_then(Path::file_name) {
            give_made(top.as_fd(), name, account)?;
        }
        contents(top.as_fd(), &gift, 0)?;
        rustix::fs::fchmod(&top, GIVEN)?;
        owned(top.as_fd(), account)
    };
    given().map_err(at("give away", folder))?;
    gift.tell(folder);
    Ok(())
}

/// Whether a folder is, or was, an account's. While it is its own, that may take the sign away, but not when it was taken back.
fn was_given(folder: &File) -> io::Result<bool> {
    let data = folder.metadata()?;
    let is_own = data.uid() == rustix::process::geteuid().as_raw();
    Ok(!is_own || data.mode() & Mode::SVTX.as_raw_mode() != 0)
}

/// Gives the account a folder that the worker has made in there. A job can move none there that is the worker's own, since whoever
/// moves a folder to another has to be able to write to it.
fn give_made(top: BorrowedFd<'_>, name: &OsStr, account: &Ids) -> io::Result<()> {
    let held = match rustix::fs::openat(top, name, OFlags::RDONLY | FOLDER, Mode::empty()) {
        // What a job has put in its place is its own.
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(()),
        held => held?,
    };
    let data = rustix::fs::fstat(&held)?;
    let is_own = data.st_uid == rustix::process::geteuid().as_raw() && data.st_mode & 0o022 == 0;
    match is_own {
        true => owned(held.as_fd(), account),
        false => Ok(()),
    }
}

/// Takes a folder back from whom it was given to, if it is there: nobody but the worker may enter it, so all that is in it is
/// shut off. What is no folder was given to nobody.
///
/// # Errors
/// When that cannot be done.
pub(crate) fn shut(folder: &Path) -> Result<(), Error> {
    let is_none = |kind: io::ErrorKind| {
        use io::ErrorKind::{NotADirectory, NotFound};
        matches!(kind, NotFound | NotADirectory)
    };
    let top = match open(folder) {
        Err(Error::Io { source, .. }) if is_none(source.kind()) => return Ok(()),
        opened => opened?,
    };
    shut_off(&top).map_err(at("take back", folder))
}

fn shut_off(folder: &File) -> io::Result<()> {
    let mode = match was_given(folder)? {
        true => GIVEN,
        false => Mode::RWXU,
    };
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    rustix::fs::fchown(folder, Some(uid), Some(gid))?;
    Ok(rustix::fs::fchmod(folder, mode)?)
}

/// The folder itself, not one that a symbolic link in its place leads to.
fn open(folder: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(FOLDER.bits().cast_signed());
    options.open(folder).map_err(at("open", folder))
}

/// Does this with each name in a folder, of which a job may have made millions.
fn each(folder: BorrowedFd<'_>, mut act: impl FnMut(&CStr) -> io::Result<()>) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            act(entry.file_name())?;
        }
    }
    Ok(())
}

fn contents(folder: BorrowedFd<'_>, gift: &Gift<'_>, depth: usize) -> io::Result<()> {
    if depth >= DEPTH_MAX {
        let why = format!("it has more than {DEPTH_MAX} folders in each other");
        return Err(io::Error::other(why));
    }
    each(folder, |name| entry(folder, name, gift, depth))
}

fn entry(folder: BorrowedFd<'_>, name: &CStr, gift: &Gift<'_>, depth: usize) -> io::Result<()> {
    let held = match rustix::fs::openat(
        folder,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        // Another host of the job, or the job itself, has removed it meanwhile.
        Err(Errno::NOENT) => return Ok(()),
        held => held?,
    };
    let data = rustix::fs::fstat(&held)?;
    if gift.is_others(&data) {
        gift.others.set(gift.others.get() + 1);
        return Ok(());
    }
    let (account, is_given) = (gift.to, data.st_uid == gift.to.uid);
    match FileType::from_raw_mode(data.st_mode) {
        FileType::Directory => {
            // By what is held and not by its name, in whose place something else may be by now.
            let inner = rustix::fs::openat(&held, c".", OFlags::RDONLY | FOLDER, Mode::empty());
            let inner = match inner {
                Err(Errno::NOENT) => return Ok(()),
                inner => inner?,
            };
            contents(inner.as_fd(), gift, depth + 1)?;
            if !is_given {
                owned(inner.as_fd(), account)?;
            }
            Ok(())
        }
        FileType::RegularFile if data.st_nlink == 1 && !is_given => file_owned(&held, account),
        _ => Ok(()),
    }
}

/// What goes to whom.
struct Gift<'a> {
    to: &'a Ids,
    /// The numbers of those whose files may go to another: nobody but jobs has them.
    trainers: &'a [u32],
    /// Whether the worker's own files go as well.
    own: bool,
    /// What is left as it is.
    others: Cell<usize>,
}

impl<'a> Gift<'a> {
    fn new(to: &'a Ids) -> Self {
        Self {
            to,
            trainers: &[],
            own: false,
            others: Cell::new(0),
        }
    }

    fn is_others(&self, data: &Stat) -> bool {
        let uid = data.st_uid;
        let is_own = self.own && uid == rustix::process::geteuid().as_raw();
        uid != self.to.uid && !is_own && !self.trainers.contains(&uid)
    }

    fn tell(&self, folder: &Path) {
        let others = self.others.get();
        if others > 0 {
            tracing::warn!(
                folder = %folder.display(),
                others,
                "what is somebody else's in a job's folder, or may have been moved there, is left as it is; chown what the job is to have"
            );
        }
    }
}

fn ids(account: &Ids) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(account.uid)),
        Some(Gid::from_raw(account.gid)),
    )
}

fn owned(folder: BorrowedFd<'_>, account: &Ids) -> io::Result<()> {
    let (uid, gid) = ids(account);
    Ok(rustix::fs::fchown(folder, uid, gid)?)
}

fn file_owned(held: &OwnedFd, account: &Ids) -> io::Result<()> {
    let (uid, gid) = ids(account);
    Ok(rustix::fs::chownat(
        held,
        c"",
        uid,
        gid,
        AtFlags::EMPTY_PATH,
    )?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn account(uid: u32) -> Ids {
        Ids {
            name: uid.to_string(),
            uid,
            gid: uid,
            groups: Vec::new(),
        }
    }

    #[test]
    fn what_is_the_worker_s_own_goes_only_where_no_job_was_before() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: to give something away needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("j1");
        let (weights, cache) = (folder.join("weights"), folder.join("cache-7"));
        let uid = |path: &Path| path.symlink_metadata().unwrap().uid();
        private_folder(&folder).unwrap();
        std::fs::write(&weights, "w").unwrap();
        let trainers = [1, 2];
        // An end before anything was given changes nothing.
        shut(&folder).unwrap();
        give(&folder, &account(1), &trainers, None).unwrap();
        assert_eq!((uid(&folder), uid(&weights)), (1, 1));
        // Which the account may take away.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
        shut(&folder).unwrap();
        // Moved there while it was the account's.
        let moved = folder.join("moved");
        std::fs::write(&moved, "m").unwrap();
        private_folder(&cache).unwrap();
        let planted = cache.join("planted");
        std::fs::write(&planted, "p").unwrap();
        give(&folder, &account(2), &trainers, Some(&cache)).unwrap();
        assert_eq!((uid(&folder), uid(&weights), uid(&cache)), (2, 2, 2));
        assert_eq!((uid(&moved), uid(&planted)), (0, 0));
        // Nor on another host, where it has not been taken back.
        give(&folder, &account(2), &trainers, Some(&cache)).unwrap();
        assert_eq!(uid(&moved), 0);
        // What others may write to may be anybody's to move.
        let other = folder.join("cache-8");
        private_folder(&other).unwrap();
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o777)).unwrap();
        give(&folder, &account(2), &trainers, Some(&other)).unwrap();
        assert_eq!(uid(&other), 0);
    }
}
