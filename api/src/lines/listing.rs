//! Which jobs have lines, so many at a time, and how all that is kept of one goes.

use std::io;
use std::path::PathBuf;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use parking_lot::Mutex;
use stepcast_scheduler::ids::JobId;
use tokio::task::spawn_blocking;

use super::Lines;
use super::reading::Parts;

/// How to go on where the last look for forgotten jobs ended.
pub(super) enum Listing {
    /// A store lists by name, after any name: the last one that was looked at.
    Store(Mutex<Option<Path>>),
    /// A folder lists in an order of its own, so it is read as a whole: the folder, and which of the jobs that it had then
    /// are still to be looked at.
    Folder(PathBuf, Mutex<Vec<JobId>>),
}

impl Lines {
    /// Jobs that have lines, at most so many: those after the ones of the last call, so that calls in a row see all.
    pub(crate) async fn jobs(&self, limit: usize) -> Result<Vec<JobId>, Error> {
        match &self.listing {
            Listing::Store(looked) => self.jobs_in_store(looked, limit).await,
            Listing::Folder(root, rest) => {
                if rest.lock().is_empty() {
                    let root = root.clone();
                    let found = blocking(move || jobs_in_folder(root)).await?;
                    *rest.lock() = found;
                }
                let mut rest = rest.lock();
                let from = rest.len().saturating_sub(limit);
                Ok(rest.split_off(from))
            }
        }
    }

    async fn jobs_in_store(
        &self,
        looked: &Mutex<Option<Path>>,
        limit: usize,
    ) -> Result<Vec<JobId>, Error> {
        let after = looked.lock().take();
        let mut objects = match &after {
            Some(after) => self.store.list_with_offset(Some(&self.prefix), after),
            None => self.store.list(Some(&self.prefix)),
        };
        let mut jobs: Vec<JobId> = Vec::new();
        let mut last = None;
        while let Some(object) = objects.try_next().await? {
            let Some(job) = self.job_of(&object.location) else {
                continue;
            };
            if jobs.last() != Some(&job) {
                if jobs.len() == limit {
                    *looked.lock() = last;
                    break;
                }
                jobs.push(job);
            }
            last = Some(object.location);
        }
        Ok(jobs)
    }

    /// Deletes what is kept of a job, and that anything was.
    pub(crate) async fn forget(&self, job: JobId) -> Result<(), Error> {
        {
            let mut books = self.books.lock();
            if let Some(book) = books.jobs.remove(&job) {
                let unkept = book.text.len().saturating_sub(book.kept);
                books.waiting = books.waiting.saturating_sub(unkept);
            }
        }
        if let Listing::Folder(root, _) = &self.listing {
            let folder = root.join(job.to_string());
            return blocking(move || match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            })
            .await;
        }
        let Parts(parts) = self.parts(job).await?;
        for (_, object) in parts {
            match self.store.delete(&object.location).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn job_of(&self, object: &Path) -> Option<JobId> {
        let mut rest = object.prefix_match(&self.prefix)?;
        rest.next()?.as_ref().parse().ok()
    }
}

/// The jobs that have a folder here, also one with nothing in it.
fn jobs_in_folder(root: PathBuf) -> io::Result<Vec<JobId>> {
    let mut jobs = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let job = entry.file_name().to_str().map(str::parse::<JobId>);
            jobs.extend(job.into_iter().flatten());
        }
    }
    Ok(jobs)
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = spawn_blocking(act).await;
    let done = done.unwrap_or_else(|_| Err(io::Error::other("the look at the folder has failed")));
    done.map_err(|error| Error::Generic {
        store: "folder",
        source: Box::new(error),
    })
}
