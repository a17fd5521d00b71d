//! The staging area: the files of submitted jobs, each in a folder of its own until its job is over.
//!
//! A folder `STAGING_ID` holds the files, each named `ROLE-NAME`. It is written under another name first, synced and
//! then renamed, so that a folder with its right name is always whole.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use stepcast_cluster::{PortError, Staging};
use stepcast_scheduler::ids::StagingId;
use tokio::task::spawn_blocking;

use crate::submission::{Role, StagedFile};

/// Submissions staged at once: at 3 MiB each this is 30 GiB, far above what a queue of real configurations takes.
const SUBMISSIONS_MAX: usize = 10_000;

/// How the name of an unfinished folder ends.
const UNFINISHED: &str = ".part";

/// Why files were not staged or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As many submissions as there may be are staged already.
    #[error("too many submissions are staged already")]
    Full,
    /// There is no such submission, or not any more.
    #[error("the files of this submission are gone")]
    Missing,
    /// The disk refuses.
    #[error("the staging area cannot be used")]
    Io(#[from] io::Error),
}

/// Whether a call has made a submission's folder or found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It made it.
    New,
    /// It was there, from the same request before.
    There,
}

/// The folder of all submissions. One process at a time may have it open.
#[derive(Debug)]
pub struct StagingArea {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    count: AtomicUsize,
}

impl StagingArea {
    /// Opens the area at this folder, new or old; what an earlier process left unfinished is deleted.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        private_dir(true).create(&root)?;
        let mut count = 0;
        for entry in std::fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                count += 1;
            }
        }
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                count: AtomicUsize::new(count),
            }),
        })
    }

    /// Keeps the files of a submission. When it returns they are on disk.
    pub(crate) async fn put(
        &self,
        staging: StagingId,
        files: Vec<StagedFile>,
    ) -> Result<Put, Error> {
        self.blocking(move |inner| inner.put(staging, &files)).await
    }

    /// The files of a submission.
    pub(crate) async fn get(&self, staging: StagingId) -> Result<Vec<StagedFile>, Error> {
        self.blocking(move |inner| inner.get(staging)).await
    }

    /// Deletes the files of a submission, if there are any.
    pub(crate) async fn remove(&self, staging: StagingId) -> Result<(), Error> {
        self.blocking(move |inner| inner.remove(staging)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        spawn_blocking(move || act(&inner))
            .await
            .map_err(|_| Error::Io(io::Error::other("the work was given up")))?
    }
}

impl Staging for StagingArea {
    fn delete(&self, staging: StagingId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { self.remove(staging).await.map_err(PortError::new) })
    }

    fn older_than(
        &self,
        age: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StagingId>, PortError>> {
        Box::pin(async move {
            let found = self
                .blocking(move |inner| inner.older_than(age, limit))
                .await;
            found.map_err(PortError::new)
        })
    }
}

impl Inner {
    fn folder(&self, staging: StagingId) -> PathBuf {
        self.root.join(staging.to_string())
    }

    fn put(&self, staging: StagingId, files: &[StagedFile]) -> Result<Put, Error> {
        let folder = self.folder(staging);
        if folder.is_dir() {
            return Ok(Put::There);
        }
        if self.count.load(Ordering::Acquire) >= SUBMISSIONS_MAX {
            return Err(Error::Full);
        }
        // Another call with the same id may be writing at the same moment, so the unfinished folder is this call's own.
        let unfinished = self.root.join(format!(
            "{staging}.{:016x}{UNFINISHED}",
            rand::random::<u64>()
        ));
        let written =
            write(&unfinished, files).and_then(|()| match std::fs::rename(&unfinished, &folder) {
                Ok(()) => sync_dir(&self.root).map(|()| Put::New),
                Err(_) if folder.is_dir() => Ok(Put::There),
                Err(error) => Err(error),
            });
        match written {
            Ok(Put::New) => {
                self.count.fetch_add(1, Ordering::AcqRel);
            }
            // What could not be finished takes no room, least of all on a full disk.
            Ok(Put::There) | Err(_) => {
                let _ = std::fs::remove_dir_all(&unfinished);
            }
        }
        Ok(written?)
    }

    fn get(&self, staging: StagingId) -> Result<Vec<StagedFile>, Error> {
        let entries = match std::fs::read_dir(self.folder(staging)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some((role, name)) = name.to_str().and_then(read_name) else {
                continue;
            };
            files.push(StagedFile {
                role,
                name: name.to_owned(),
                content: std::fs::read(entry.path())?,
            });
        }
        files.sort_by_key(|file| file.role);
        Ok(files)
    }

    fn remove(&self, staging: StagingId) -> Result<(), Error> {
        let folder = self.folder(staging);
        // Renamed first, so that a folder with its right name is whole until it is gone.
        let going = self.root.join(format!(
            "{staging}.{:016x}{UNFINISHED}",
            rand::random::<u64>()
        ));
        match std::fs::rename(&folder, &going) {
            Ok(()) => {
                self.count.fetch_sub(1, Ordering::AcqRel);
                std::fs::remove_dir_all(&going)?;
                sync_dir(&self.root)?;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn older_than(&self, age: Duration, limit: usize) -> Result<Vec<StagingId>, Error> {
        let now = SystemTime::now();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            let Some(staging) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            // A folder from the future is as old as nothing.
            if metadata
                .modified()
                .is_ok_and(|at| now.duration_since(at).is_ok_and(|passed| passed >= age))
            {
                found.push(staging);
            }
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }
}

fn write(folder: &Path, files: &[StagedFile]) -> io::Result<()> {
    private_dir(false).create(folder)?;
    for file in files {
        let path = folder.join(format!("{}-{}", file.role.slug(), file.name));
        let mut written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        written.write_all(&file.content)?;
        written.sync_all()?;
    }
    sync_dir(folder)
}

fn read_name(name: &str) -> Option<(Role, &str)> {
    Role::ALL.into_iter().find_map(|role| {
        let name = name.strip_prefix(role.slug())?.strip_prefix('-')?;
        Some((role, name))
    })
}

fn private_dir(recursive: bool) -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(recursive).mode(0o700);
    builder
}

fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ID: StagingId = StagingId([7; 16]);

    fn files() -> Vec<StagedFile> {
        let file = |role, name: &str, content: &[u8]| StagedFile {
            role,
            name: name.into(),
            content: content.into(),
        };
        vec![
            file(Role::Config, "config.json", b"{}"),
            file(Role::DataLoader, "my-data.json", b"[]"),
        ]
    }

    #[tokio::test]
    async fn files_come_back_as_they_were_until_they_are_deleted() {
        let root = tempfile::tempdir().unwrap();
        let area = StagingArea::open(root.path().join("staging")).unwrap();
        assert_eq!(area.put(ID, files()).await.unwrap(), Put::New);
        assert_eq!(area.put(ID, files()).await.unwrap(), Put::There);
        assert_eq!(area.get(ID).await.unwrap(), files());
        area.delete(ID).await.unwrap();
        area.delete(ID).await.unwrap();
        assert!(matches!(area.get(ID).await, Err(Error::Missing)));
        assert_eq!(
            std::fs::read_dir(root.path().join("staging"))
                .unwrap()
                .count(),
            0
        );
        assert_eq!(area.inner.count.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn folders_and_files_are_private_and_a_start_clears_what_is_unfinished() {
        let root = tempfile::tempdir().unwrap();
        let area = StagingArea::open(root.path()).unwrap();
        area.put(ID, files()).await.unwrap();
        let folder = root.path().join(ID.to_string());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&folder), mode(&folder.join("config-config.json"))),
            (0o700, 0o600)
        );
        std::fs::create_dir(root.path().join(format!("x{UNFINISHED}"))).unwrap();
        let again = StagingArea::open(root.path()).unwrap();
        assert_eq!(again.inner.count.load(Ordering::Acquire), 1);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn old_submissions_are_found_and_young_ones_are_not() {
        let area_root = tempfile::tempdir().unwrap();
        let area = StagingArea::open(area_root.path()).unwrap();
        area.put(ID, files()).await.unwrap();
        assert_eq!(area.older_than(Duration::ZERO, 10).await.unwrap(), [ID]);
        assert_eq!(
            area.older_than(Duration::from_secs(3600), 10)
                .await
                .unwrap(),
            []
        );
    }
}
