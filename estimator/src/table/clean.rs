//! Deleting what no reader can need: files that no recent version names, and old log entries. What is not ours stays.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deltalake::protocol::checkpoints;
use deltalake::{DeltaTable, DeltaTableError};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::commit::is_ours;
use super::follow::{News, named};
use super::log::{FILE_RETENTION_DAYS, Table};
use crate::error::Error;

/// So many objects are deleted in one go.
const DELETIONS: usize = 1_000;
const DAY: Duration = Duration::from_secs(86_400);
/// An empty object that is put to see what time it is for the store.
const CLOCK: &str = "_cells/clock";
/// Clocks that are further apart are no measure of what a week is.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(3_600);

/// What a clean-up found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// Files and log entries that were deleted.
    pub(crate) deleted: usize,
    /// Objects in the table's folder that are neither its log nor files of ours. They are left alone.
    pub(crate) foreign: usize,
    /// What time it is, if this process and the store agree on that and there was something to look at.
    pub(crate) now: Option<SystemTime>,
}

impl Table {
    /// Deletes files that every version of the last week does without, and log entries that are older than a month
    /// and in a checkpoint. A reader of any version of that time finds all of it. Where this process and the store do not
    /// agree on what time it is, nothing is deleted.
    pub(crate) async fn clean(
        &self,
        now: SystemTime,
        mut learn: impl FnMut(News) + Send,
    ) -> Result<Cleaned, Error> {
        // Listed before the log is read, so that a file that is put and committed meanwhile is in no list of unused ones.
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
            foreign: foreign.len(),
            ..Cleaned::default()
        };
        if read_only {
            return Ok(cleaned);
        }
        let clock = Path::from(CLOCK);
        let put = store.put(&clock, PutPayload::new()).await;
        put.map_err(Error::unreachable)?;
        let Some(now) = self.agreed(now, &clock).await? else {
            return Ok(cleaned);
        };
        cleaned.now = Some(now);
        self.write_sound_checkpoint(&delta).await?;
        let entries = checkpoints::cleanup_metadata(&delta, None).await;
        cleaned.deleted += match entries {
            // Another node has deleted the same at the same time, and does what is left of it.
            Err(DeltaTableError::ObjectStore {
                source: object_store::Error::NotFound { .. },
            }) => 0,
            entries => entries.map_err(Error::unreachable)?,
        };
        cleaned.deleted += self.thin(now).await?;

        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let log_data = snapshot.log_data();
        let still_named: HashSet<Path> = log_data
            .iter()
            .map(|file| file.object_store_path())
            .collect();
        let removed = match self.removed(&delta).await {
            Ok(removed) => removed,
            // The checkpoint that it was read by was damaged since; the one that was just written is whole.
            Err(error) => match self.whole(delta.version().unwrap_or_default()).await {
                Some(whole) => self.removed(&whole).await?,
                None => return Err(error),
            },
        };
        let oldest = now - DAY * FILE_RETENTION_DAYS;
        let oldest = oldest.duration_since(UNIX_EPOCH).unwrap_or_default();
        let oldest = i64::try_from(oldest.as_millis()).unwrap_or(i64::MAX);
        // A file that nothing names was left by a commit that did not come about, or is about to be committed.
        let unused = listed.into_iter().filter(|object| {
            let since = object.last_modified.timestamp_millis();
            let since = removed
                .get(&object.location)
                .map_or(since, |at| since.max(*at));
            is_ours(&object.location) && !still_named.contains(&object.location) && since < oldest
        });
        let unused: Vec<Path> = unused.map(|object| object.location).collect();
        for some in unused.chunks(DELETIONS) {
            // One that was put long ago may have been committed since the list was made, by a process that stood still.
            let named = {
                let mut state = self.lock().await;
                learn(self.follow_in(&mut state).await?);
                match &state.delta {
                    Some(delta) => named(delta)?,
                    None => return Ok(cleaned),
                }
            };
            let some = some.iter().filter(|path| !named.contains_key(*path));
            let some: Vec<_> = some.cloned().map(Ok).collect();
            let deleted = store.delete_stream(Box::pin(stream::iter(some)));
            let deleted: Vec<_> = deleted.collect().await;
            for one in deleted {
                match one {
                    Ok(_) => cleaned.deleted += 1,
                    // Another node was faster.
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(Error::unreachable(error)),
                }
            }
        }
        Ok(cleaned)
    }

    /// The files that were removed from a table, each with when, as far as its log still says so.
    async fn removed(&self, delta: &DeltaTable) -> Result<HashMap<Path, i64>, Error> {
        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let removed = snapshot.all_tombstones(self.log.as_ref());
        let removed: Vec<_> = removed.try_collect().await.map_err(Error::unreachable)?;
        let dated = removed.iter().map(|file| {
            let at = file.deletion_timestamp().unwrap_or(i64::MAX);
            (Path::from(file.path().as_ref()), at)
        });
        Ok(dated.collect())
    }

    /// What time it is, when this process has just put this object: by its own clock or the store's, whichever says
    /// less. `None`, and a word in the log, where they are too far apart for either to be believed.
    pub(super) async fn agreed(
        &self,
        now: SystemTime,
        just_put: &Path,
    ) -> Result<Option<SystemTime>, Error> {
        let stores = self.put_at(just_put).await?;
        let (earlier, later) = (now.min(stores), now.max(stores));
        let apart = later.duration_since(earlier).unwrap_or_default();
        if apart > CLOCKS_APART_MAX {
            let (table, seconds) = (self.kind.name(), apart.as_secs());
            tracing::warn!(
                table,
                seconds,
                "the clocks of this node and of the store are far apart; nothing old is deleted"
            );
            return Ok(None);
        }
        Ok(Some(earlier))
    }

    /// What time it is by the store's clock.
    pub(super) async fn store_time(&self) -> Result<SystemTime, Error> {
        let clock = Path::from(CLOCK);
        let store = self.log.object_store(None);
        let put = store.put(&clock, PutPayload::new()).await;
        put.map_err(Error::unreachable)?;
        self.put_at(&clock).await
    }

    /// When an object was put, by the store's clock.
    pub(super) async fn put_at(&self, object: &Path) -> Result<SystemTime, Error> {
        let head = self.log.object_store(None).head(object).await;
        Ok(head.map_err(Error::unreachable)?.last_modified.into())
    }
}
