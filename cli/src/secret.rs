//! A file for a secret that is told once: made before the secret is, so that none is made that cannot be kept.

use std::fs::{File, OpenOptions};
use std::io::{Error, Seek, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Room that is taken on the disk at once; secrets are shorter.
const ROOM: usize = 4096;

/// A new file that only its owner can read. It is removed again unless a secret comes into it.
#[derive(Debug)]
pub(crate) struct SecretFile {
    path: PathBuf,
    file: File,
    filled: bool,
}

impl SecretFile {
    /// Makes the file, with room for a secret. Nothing may be asked of a server before: what it tells once would be lost
    /// where the file is there already or cannot be written.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options
            .open(path)
            .map_err(|error| unwritten(path, &error))?;
        let mut made = Self {
            path: path.to_owned(),
            file,
            filled: false,
        };
        let roomy = made.file.write_all(&[b'\n'; ROOM]);
        roomy.map_err(|error| unwritten(path, &error))?;
        Ok(made)
    }

    /// The same where a file is wanted at all.
    pub(crate) fn create_if(path: Option<&Path>) -> Result<Option<Self>, Failure> {
        path.map(Self::create).transpose()
    }

    /// Puts the secret into it; it is on the disk when this returns.
    pub(crate) fn fill(mut self, secret: &str) -> Result<(), Failure> {
        let line = format!("{secret}\n");
        let written = self
            .file
            .rewind()
            .and_then(|()| self.file.write_all(line.as_bytes()))
            .and_then(|()| self.file.set_len(line.len() as u64))
            .and_then(|()| self.file.sync_all());
        written.map_err(|error| unwritten(&self.path, &error))?;
        self.filled = true;
        Ok(())
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        if !self.filled {
            // Nothing worth keeping is in it, and it would be in the way of the next try.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn unwritten(path: &Path, error: &Error) -> Failure {
    Failure::refused(format!("{} cannot be written", path.display()))
        .detail(error.to_string())
        .hint("name a file that is not there yet, in a folder that you may write to")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_its_secret_for_nobody_else_or_is_not_there() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        drop(SecretFile::create(&path).expect("made"));
        assert!(!path.exists(), "what was never filled stays");
        let file = SecretFile::create(&path).expect("made");
        file.fill("s3cret").expect("filled");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "s3cret\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).expect("file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_is_there_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "another").expect("write");
        let failure = SecretFile::create(&path).expect_err("refused");
        assert!(failure.primary.ends_with("token cannot be written"));
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "another");
    }
}
