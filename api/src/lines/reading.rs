//! What is kept of a job's lines, read.

use futures::{StreamExt, TryStreamExt};
use object_store::{Error, ObjectMeta, ObjectStoreExt};
use stepcast_scheduler::ids::JobId;

use super::Lines;

/// Parts read at once for one answer.
const READS: usize = 8;

/// A list that was overtaken by a deletion is made anew so often.
const TRIES: usize = 3;

/// The parts of one job, in their order.
pub(super) struct Parts(pub(super) Vec<(u32, ObjectMeta)>);

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
}
