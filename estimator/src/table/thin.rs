//! Checkpoints that nobody needs any more. Each holds all ids of a month and one is written every few entries, so kept for
//! as long as the entries they would outgrow the rows a thousandfold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::ids::LOG;
use super::log::Table;
use crate::error::Error;

/// How a checkpoint's name ends behind its version.
const CHECKPOINT: &str = ".checkpoint.parquet";
/// Who has begun to read one is done by then.
const IN_USE: Duration = Duration::from_secs(3_600);
/// The newest ones stay however old they are.
const NEWEST: usize = 2;
/// So many are deleted side by side.
const AT_ONCE: usize = 16;

impl Table {
    /// Deletes the checkpoints of former hours but for the last one of each day. The log keeps its entries, so that every
    /// version can be read as before, from the checkpoint of the day before it.
    pub(super) async fn thin(&self, now: SystemTime) -> Result<usize, Error> {
        let store = self.log.object_store(None);
        let log = store.list_with_delimiter(Some(&Path::from(LOG))).await;
        let objects = log.map_err(Error::unreachable)?.objects;
        let gone = needless(&objects, now);
        let deleted = stream::iter(gone).map(|path| {
            let store = Arc::clone(&store);
            async move {
                match store.delete(&path).await {
                    Ok(()) => Ok(1),
                    // Another node was faster.
                    Err(object_store::Error::NotFound { .. }) => Ok(0),
                    Err(error) => Err(Error::unreachable(error)),
                }
            }
        });
        let deleted: Vec<Result<usize, Error>> = deleted.buffer_unordered(AT_ONCE).collect().await;
        deleted.into_iter().sum()
    }
}

/// The checkpoints among the objects of a log that may go. The first one stays, since older entries may be gone: it is what
/// those after it are read from.
fn needless(objects: &[ObjectMeta], now: SystemTime) -> Vec<Path> {
    let mut checkpoints: Vec<(u64, &ObjectMeta)> = objects
        .iter()
        .filter_map(|object| {
            let version = object.location.filename()?.strip_suffix(CHECKPOINT)?;
            Some((version.parse().ok()?, object))
        })
        .collect();
    checkpoints.sort_by_key(|(version, _)| *version);
    let day = |object: &ObjectMeta| object.last_modified.timestamp().div_euclid(86_400);
    let last_of_day: HashMap<i64, u64> = checkpoints
        .iter()
        .map(|(version, object)| (day(object), *version))
        .collect();
    let old = now - IN_USE;
    let until = checkpoints.len().saturating_sub(NEWEST);
    let between = checkpoints.iter().take(until).skip(1);
    between
        .filter(|(version, object)| {
            let is_last = last_of_day.get(&day(object)) == Some(version);
            !is_last && SystemTime::from(object.last_modified) < old
        })
        .map(|(_, object)| object.location.clone())
        .collect()
}
