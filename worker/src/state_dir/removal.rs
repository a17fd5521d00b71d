//! Removes folders with all that is in them. Jobs make them, and can make them deeper than a stack is and than there are open
//! files to be had, so this goes down by a few open folders only.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::{Error, at};

/// Folders that are open at once. What lies deeper is moved up before it is gone through.
const HELD_MAX: usize = 32;

/// The folder itself, not one that a symbolic link in its place leads to.
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A folder that is being emptied, and its name in the one above.
struct Held {
    folder: OwnedFd,
    name: CString,
}

/// Removes what is there under this path, a folder with all that is in it, if there is anything. Symbolic links are removed and
/// not followed.
///
/// # Errors
/// The first thing that cannot be removed; what was found before it is gone.
pub(crate) fn remove_all(path: &Path) -> Result<(), Error> {
    remove(path).map_err(at("remove", path))
}

fn remove(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let Some(folder) = open_or_remove(CWD, &name)? else {
        return Ok(());
    };
    let mut above = vec![];
    let mut held = Held { folder, name };
    let mut moved = 0_u64;
    loop {
        match next(held.folder.as_fd())? {
            Some(inner) if above.len() + 1 < HELD_MAX => {
                above.push(std::mem::replace(&mut held, inner));
            }
            Some(inner) => {
                let top = above.first().unwrap_or(&held);
                move_up(&held, &inner.name, top, &mut moved)?;
            }
            None => {
                let next = above.pop();
                let parent = next.as_ref().map_or(CWD, |next| next.folder.as_fd());
                missing_is_fine(unlinkat(parent, &held.name, AtFlags::REMOVEDIR))?;
                match next {
                    Some(next) => held = next,
                    None => return Ok(()),
                }
            }
        }
    }
}

/// The first folder in one that is not empty. What comes before it is removed.
fn next(folder: BorrowedFd<'_>) -> io::Result<Option<Held>> {
    let entries = match Dir::read_from(folder) {
        Err(Errno::NOENT) => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        if let Some(inner) = open_or_remove(folder, name)? {
            return Ok(Some(Held {
                folder: inner,
                name: name.to_owned(),
            }));
        }
    }
    Ok(None)
}

/// Removes what is no folder, or an empty one; another is opened.
fn open_or_remove(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let refused = match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        // What systems say of folders.
        Err(refused @ (Errno::ISDIR | Errno::PERM)) => refused,
        Err(error) => return Err(error.into()),
    };
    if unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok() {
        return Ok(None);
    }
    match openat(parent, name, FOLDER, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(refused.into()),
        Err(error) => Err(error.into()),
    }
}

/// Moves a folder to the top of what is being removed, under a name that nothing has there.
fn move_up(from: &Held, name: &CStr, top: &Held, moved: &mut u64) -> io::Result<()> {
    loop {
        let to = format!(".moved-{moved}");
        *moved += 1;
        match renameat(&from.folder, name, &top.folder, to) {
            // Something has that name.
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            done => return missing_is_fine(done),
        }
    }
}

fn missing_is_fine(done: rustix::io::Result<()>) -> io::Result<()> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => Ok(done?),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Makes folders in each other, with a file in every one.
    fn deep(top: &Path, depth: usize) {
        let mut folder = fs::File::open(top).map(OwnedFd::from).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&folder, "a", Mode::RWXU).unwrap();
            folder = openat(&folder, "a", FOLDER, Mode::empty()).unwrap();
            let flags = OFlags::CREATE | OFlags::WRONLY;
            openat(&folder, "file", flags, Mode::RUSR).unwrap();
        }
    }

    #[test]
    fn folders_that_are_deeper_than_there_are_open_files_go() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("top");
        fs::create_dir(&top).unwrap();
        deep(&top, 3_000);
        // Names that it would take itself are no matter.
        fs::write(top.join(".moved-0"), "f").unwrap();
        fs::create_dir_all(top.join(".moved-1/full")).unwrap();
        remove_all(&top).unwrap();
        assert!(!top.exists());
        remove_all(&top).unwrap();
        remove_all(&top.join("below")).unwrap();
    }

    #[test]
    fn links_are_removed_and_what_they_lead_to_stays() {
        let root = tempfile::tempdir().unwrap();
        let others = root.path().join("others");
        fs::create_dir(&others).unwrap();
        fs::write(others.join("precious"), "p").unwrap();
        let top = root.path().join("top");
        fs::create_dir_all(top.join("full")).unwrap();
        for link in ["link", "full/link"] {
            symlink(&others, top.join(link)).unwrap();
        }
        remove_all(&top).unwrap();
        let link = root.path().join("link");
        symlink(&others, &link).unwrap();
        remove_all(&link).unwrap();
        assert!(!top.exists() && fs::symlink_metadata(&link).is_err());
        assert!(others.join("precious").exists());
    }
}
