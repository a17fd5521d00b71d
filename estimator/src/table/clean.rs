//! Deleting what no reader can need: files that no recent version names, and old log entries. What is not ours stays.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deltalake::protocol::checkpoints;
use futures::{TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use super::commit::is_ours;
use super::follow::News;
use super::log::{FILE_RETENTION_DAYS, Table};
use crate::error::Error;

/// So many objects are deleted in one go.
const DELETIONS: usize = 1_000;
const DAY: Duration = Duration::from_secs(86_400);

/// What a clean-up found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// Files and log entries that were deleted.
    pub(crate) deleted: usize,
    /// Objects in the table's folder that are neither its log nor files of ours. They are left alone.
    pub(crate) foreign: usize,
}

impl Table {
    /// Deletes files that every version of the last week does without, and log entries that are older than a month
    /// and in a checkpoint. A reader of any version of that time finds all of it.
    pub(crate) async fn clean(
        &self,
        now: SystemTime,
        learn: impl FnOnce(News) + Send,
    ) -> Result<Cleaned, Error> {
        // Listed before the log is read, so that a file that is committed meanwhile is in no list of unused ones.
        let store = self.log.object_store(None);
        let listed = store.list_with_delimiter(None).await;
        let listed = listed.map_err(Error::unreachable)?.objects;
        let (delta, read_only) = {
            let mut state = self.lock().await;
            learn(self.follow_in(&mut state).await?);
            (state.delta.clone(), state.read_only)
        };
        let Some(delta) = delta else {
            return Ok(Cleaned::default());
        };
        let foreign = listed.iter().filter(|object| !is_ours(&object.location));
        let foreign: Vec<&Path> = foreign.map(|object| &object.location).collect();
        if let Some(first) = foreign.first() {
            let (table, count) = (self.kind.name(), foreign.len());
            tracing::warn!(table, count, object = %first, "objects beside the table are not of it; they are left alone");
        }
        let mut cleaned = Cleaned {
            deleted: 0,
            foreign: foreign.len(),
        };
        if read_only {
            return Ok(cleaned);
        }
        let checkpointed = checkpoints::create_checkpoint(&delta, None).await;
        checkpointed.map_err(Error::unreachable)?;
        let entries = checkpoints::cleanup_metadata(&delta, None).await;
        cleaned.deleted += entries.map_err(Error::unreachable)?;

        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let log_data = snapshot.log_data();
        let named: HashSet<Path> = log_data
            .iter()
            .map(|file| file.object_store_path())
            .collect();
        let removed: Vec<_> = snapshot
            .all_tombstones(self.log.as_ref())
            .try_collect()
            .await
            .map_err(Error::unreachable)?;
        let removed: HashMap<Path, i64> = removed
            .iter()
            .map(|file| {
                let at = file.deletion_timestamp().unwrap_or(i64::MAX);
                (Path::from(file.path().as_ref()), at)
            })
            .collect();
        let oldest = now - DAY * FILE_RETENTION_DAYS;
        let oldest = oldest.duration_since(UNIX_EPOCH).unwrap_or_default();
        let oldest = i64::try_from(oldest.as_millis()).unwrap_or(i64::MAX);
        // A file that nothing names was left by a commit that did not come about, or is about to be committed.
        let unused = listed.into_iter().filter(|object| {
            let since = object.last_modified.timestamp_millis();
            let since = removed
                .get(&object.location)
                .map_or(since, |at| since.max(*at));
            is_ours(&object.location) && !named.contains(&object.location) && since < oldest
        });
        let unused: Vec<Path> = unused.map(|object| object.location).collect();
        for some in unused.chunks(DELETIONS) {
            let some: Vec<_> = some.iter().cloned().map(Ok).collect();
            let deleted = store.delete_stream(Box::pin(stream::iter(some)));
            let deleted: Vec<Path> = deleted.try_collect().await.map_err(Error::unreachable)?;
            cleaned.deleted += deleted.len();
        }
        Ok(cleaned)
    }
}
