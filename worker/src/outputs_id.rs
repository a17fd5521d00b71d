//! What the folder for results is called: workers that share it find the same name in it, and tell the server so.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::random;

/// The file in the folder that says it, beside the folders of jobs.
const FILE: &str = ".stepcast-outputs-id";

/// 32 hexadecimal digits, drawn by whoever comes first. `None` where the folder does not take it: then nobody knows who shares
/// it.
pub(crate) fn of(folder: &Path) -> Option<String> {
    let id = known(folder).or_else(|_| {
        make(folder)?;
        known(folder)
    });
    match id {
        Ok(id) => Some(id),
        Err(error) => {
            tracing::warn!(
                %error,
                folder = %folder.display(),
                "the folder for results has no readable name of its own ({FILE}), so the server does not know which workers \
                 share it"
            );
            None
        }
    }
}

/// Bytes that are read of it: the name and the end of its line.
const MOST_BYTES: u64 = 64;

/// The name that is there, in a plain file: jobs that run as the worker may have put something else there, such as a pipe, which
/// is not waited for.
fn known(folder: &Path) -> io::Result<String> {
    let only = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(only.bits().cast_signed())
        .open(folder.join(FILE))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
    }
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text)?;
    let is_name = random::unhex(text.trim()).is_some_and(|bytes| bytes.len() == 16);
    is_name
        .then(|| text.trim().to_ascii_lowercase())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it holds something else"))
}

/// Draws one. Of several who do so at once one is the first, and all go by that: it is there whole or not at all.
fn make(folder: &Path) -> io::Result<()> {
    let id = random::token()?;
    let beside = folder.join(format!("{FILE}-{id}"));
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o644)
        .open(&beside)?;
    let written = file
        .write_all(id.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&beside, folder.join(FILE)));
    fs::remove_file(&beside)?;
    match written {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn who_shares_a_folder_says_the_same_and_nobody_else_does() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let begin = std::sync::Barrier::new(8);
        let say = || {
            begin.wait();
            of(one.path())
        };
        let said: Vec<Option<String>> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(say)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let id = said[0].clone().unwrap();
        assert_eq!(id.len(), 32);
        assert!(
            said.iter().all(|said| said.as_ref() == Some(&id)),
            "{said:?}"
        );
        assert_eq!(of(one.path()), Some(id.clone()), "at the next start too");
        assert_ne!(of(other.path()), Some(id));
        let there = fs::read_dir(one.path()).unwrap().count();
        assert_eq!(there, 1, "nothing else is left");
    }

    #[test]
    fn what_is_no_name_is_none_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "mine").unwrap();
        assert_eq!(of(folder.path()), None);
        assert_eq!(
            fs::read_to_string(folder.path().join(FILE)).unwrap(),
            "mine"
        );
        assert_eq!(of(&folder.path().join("missing")), None);
    }

    #[test]
    fn what_is_no_plain_file_is_not_waited_for_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let id = "0123456789abcdef0123456789abcdef";
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(made.unwrap().success());
        assert_eq!(of(folder.path()), None);
        // Nor is one that somebody writes to.
        let mut pipe = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&file)
            .unwrap();
        pipe.write_all(id.as_bytes()).unwrap();
        assert_eq!(of(folder.path()), None);
        fs::remove_file(&file).unwrap();
        fs::write(folder.path().join("other"), id).unwrap();
        std::os::unix::fs::symlink("other", &file).unwrap();
        assert_eq!(of(folder.path()), None);
        fs::remove_file(&file).unwrap();
        fs::write(&file, format!("{id}\n")).unwrap();
        assert_eq!(of(folder.path()).as_deref(), Some(id));
    }
}
