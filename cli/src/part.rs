//! A file that is there whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A file that is being written, under another name until it is whole; it is removed if it never is.
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    whole: bool,
}

impl Part {
    /// Begins it.
    pub(crate) fn create(file: &Path) -> Result<Self, Failure> {
        Self::open(file, OpenOptions::new().write(true).create_new(true))
    }

    /// Begins one that only its owner may read.
    pub(crate) fn create_private(file: &Path) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Self::open(file, &options)
    }

    fn open(file: &Path, options: &OpenOptions) -> Result<Self, Failure> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = file.with_file_name(name);
        match options.open(&path) {
            Ok(file) => Ok(Self {
                path,
                file,
                whole: false,
            }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(unwritten(&path, &error).hint(
                    "it is of another call that writes the same, or of one that was cut off: remove it then",
                ))
            }
            Err(error) => Err(unwritten(&path, &error)),
        }
    }

    /// Puts more behind what is in it.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(data);
        written.map_err(|error| unwritten(&self.path, &error))
    }

    /// Everything is on disk under its own name when this returns.
    pub(crate) fn finish(mut self, file: &Path) -> Result<(), Failure> {
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let done = self
            .file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, file))
            .and_then(|()| File::open(folder)?.sync_all());
        done.map_err(|error| unwritten(file, &error))?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.whole {
            // What cannot be removed is still named as a part.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn unwritten(path: &Path, error: &Error) -> Failure {
    Failure::refused(format!("{} cannot be written", path.display())).detail(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_call_has_left_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("backup");
        std::fs::write(folder.path().join("backup.part"), "cut off").expect("written");
        let failure = Part::create(&file).err().expect("it is there");
        assert!(failure.primary.contains("backup.part"), "{failure:?}");
        let hint = failure.hint.expect("a hint");
        assert!(hint.contains("remove it"), "{hint}");
    }
}
