//! What a folder has left in a staging area that was moved from one into a bucket: small submissions many in a segment, and
//! large ones beside them. Each becomes an object as any other, so that it can be deleted by itself.

use std::future::ready;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt};
use stepcast_scheduler::ids::StagingId;

use super::super::folder::{SEGMENT_BYTES_MAX, SEGMENTS, SPARE, in_segment};
use super::super::packed::PACKED_BYTES_MAX;
use super::{Bucket, Error, unanswered};

/// Submissions of a segment that are put at once, a quarter of all calls.
const PUTS: usize = 64;

impl Bucket {
    /// Gives every submission that lies here as in a folder an object of its own, once for each process. It may be ended at
    /// any moment and goes on with the next call, and several processes may do it at once.
    pub(in super::super) async fn adopt(&self) -> Result<(), Error> {
        let adopted = self.adopted.get_or_try_init(|| self.adopt_all()).await;
        adopted.copied()
    }

    async fn adopt_all(&self) -> Result<(), Error> {
        let mut adopted = 0;
        for segment in self.below(&self.prefix.clone().join(SEGMENTS)).await? {
            adopted += self.adopt_segment(&segment).await?;
        }
        let here = self.store.list_with_delimiter(Some(&self.prefix)).await;
        let here = here.map_err(unanswered)?;
        for file in &here.objects {
            adopted += self.adopt_file(file).await?;
        }
        // What was not finished when its node ended.
        let is_spare = |folder: &&Path| {
            folder
                .filename()
                .is_some_and(|name| name.starts_with(SPARE))
        };
        for folder in here.common_prefixes.iter().filter(is_spare) {
            for object in self.below(folder).await? {
                self.delete(&object.location).await?;
            }
        }
        if adopted > 0 {
            tracing::info!(
                submissions = adopted,
                "the staging area was moved here from a folder"
            );
        }
        Ok(())
    }

    /// All objects below a prefix: some thousands, where a folder has held a million submissions.
    async fn below(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, Error> {
        self.store
            .list(Some(prefix))
            .try_collect()
            .await
            .map_err(unanswered)
    }

    /// The submissions of a segment become objects, and it goes.
    async fn adopt_segment(&self, segment: &ObjectMeta) -> Result<usize, Error> {
        let Some(bytes) = self.whole(segment, SEGMENT_BYTES_MAX).await? else {
            return Ok(0);
        };
        let name = segment.location.filename().unwrap_or_default();
        let Some(submissions) = in_segment(name, &bytes) else {
            return Ok(0);
        };
        let objects: Vec<(Path, Vec<u8>)> = submissions
            .iter()
            .map(|(staging, packed)| (self.object(*staging), packed.to_vec()))
            .collect();
        let adopted = objects.len();
        futures::stream::iter(objects)
            .map(|(object, packed)| self.create(object, packed))
            .buffer_unordered(PUTS)
            .try_for_each(|_| ready(Ok(())))
            .await?;
        self.delete(&segment.location).await?;
        Ok(adopted)
    }

    /// A submission with a file of its own becomes an object.
    async fn adopt_file(&self, file: &ObjectMeta) -> Result<usize, Error> {
        let staging = file.location.filename().map(str::parse::<StagingId>);
        let Some(Ok(staging)) = staging else {
            return Ok(0);
        };
        let Some(packed) = self.whole(file, PACKED_BYTES_MAX as u64).await? else {
            return Ok(0);
        };
        self.create(self.object(staging), packed).await?;
        self.delete(&file.location).await?;
        Ok(1)
    }

    /// What is in an object; nothing where it is gone, as another node has adopted it, or too long for what it is called.
    async fn whole(&self, object: &ObjectMeta, most: u64) -> Result<Option<Vec<u8>>, Error> {
        if object.size > most {
            tracing::warn!(object = %object.location, bytes = object.size, "this is none of a staging area's");
            return Ok(None);
        }
        match self.store.get(&object.location).await {
            Err(StoreError::NotFound { .. }) => Ok(None),
            found => {
                let bytes = found.map_err(unanswered)?.bytes().await;
                Ok(Some(bytes.map_err(unanswered)?.into()))
            }
        }
    }
}
