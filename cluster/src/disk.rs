//! The data directory's disk: how much room it has, and folders whose names last.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Bytes an unprivileged process may still write on the disk that holds `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Makes a folder and those above it, as far as they are missing, and their names durable: that what is in a folder is on
/// disk does not say that its own name is.
///
/// # Errors
/// Why one cannot be made, or its name not be made durable.
pub fn make_folder(dir: &Path) -> io::Result<()> {
    let missing = missing(dir);
    fs::create_dir_all(dir)?;
    missing.into_iter().try_for_each(sync_name)
}

/// The folder and those above it that are not there, the lowest first.
fn missing(dir: &Path) -> Vec<&Path> {
    let above = dir.ancestors();
    let missing = |of: &&Path| !of.as_os_str().is_empty() && !of.exists();
    above.take_while(missing).collect()
}

fn sync_name(dir: &Path) -> io::Result<()> {
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    match File::open(above.unwrap_or(Path::new("."))) {
        Ok(above) => above.sync_all(),
        // One may make a folder where one may not look.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_written_to_has_room() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(dir.path()).unwrap() > 0);
        assert!(free_bytes(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn the_names_of_folders_that_are_made_are_synced_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let above = dir.path().join("data");
        let below = above.join("snapshots");
        assert_eq!(missing(&below), [below.as_path(), above.as_path()]);
        make_folder(&below).unwrap();
        assert!(below.is_dir() && missing(&below).is_empty());
        make_folder(&below).unwrap();
        let here = Path::new("a-folder-that-nobody-makes");
        assert_eq!(missing(here), [here]);
        sync_name(here).unwrap();
    }
}
