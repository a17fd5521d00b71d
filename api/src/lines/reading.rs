//! What is kept of a job's lines, read and forgotten.

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStoreExt};
use stepcast_scheduler::ids::JobId;

use super::Lines;

/// Parts read at once for one answer.
const READS: usize = 8;

/// A list that was overtaken by a deletion is made anew so often.
const TRIES: usize = 3;

/// The parts of one job, in their order.
pub(super) struct Parts(Vec<(u32, ObjectMeta)>);

impl Parts {
    /// The number of the part that comes next.
    pub(super) fn next(&self) -> u32 {
        self.0.last().map_or(0, |(number, _)| number + 1)
    }

    /// Bytes of all parts.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, object)| object.size).sum()
    }
}

impl Lines {
    /// All lines of a job that are kept, each with its end.
    pub(crate) async fn read(&self, job: JobId) -> Result<String, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let Parts(parts) = self.parts(job).await?;
            let texts = futures::stream::iter(parts)
                .map(|(_, object)| async move {
                    let part = self.store.get(&object.location).await?;
                    part.bytes().await
                })
                .buffered(READS)
                .try_fold(String::new(), |mut text, part| async move {
                    text.push_str(&String::from_utf8_lossy(&part));
                    Ok(text)
                });
            match texts.await {
                Err(Error::NotFound { .. }) if tries < TRIES => {}
                read => return read,
            }
        }
    }

    /// Bytes of a job's lines that are kept.
    pub(crate) async fn bytes(&self, job: JobId) -> Result<u64, Error> {
        Ok(self.parts(job).await?.bytes())
    }

    pub(super) async fn parts(&self, job: JobId) -> Result<Parts, Error> {
        let folder = self.folder(job);
        let objects: Vec<ObjectMeta> = self.store.list(Some(&folder)).try_collect().await?;
        let number = |object: &ObjectMeta| {
            let (number, _) = object.location.filename()?.split_once('-')?;
            number.parse::<u32>().ok()
        };
        let mut parts: Vec<_> = objects
            .into_iter()
            .filter_map(|object| Some((number(&object)?, object)))
            .collect();
        parts.sort_by(|(a, one), (b, other)| (a, &one.location).cmp(&(b, &other.location)));
        Ok(Parts(parts))
    }

    /// Jobs that have lines, at most so many: those after the ones of the last call, so that calls in a row see all.
    pub(crate) async fn jobs(&self, limit: usize) -> Result<Vec<JobId>, Error> {
        let after = self.looked.lock().take();
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
                    *self.looked.lock() = last;
                    break;
                }
                jobs.push(job);
            }
            last = Some(object.location);
        }
        Ok(jobs)
    }

    /// Deletes what is kept of a job.
    pub(crate) async fn forget(&self, job: JobId) -> Result<(), Error> {
        self.books.lock().jobs.remove(&job);
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
