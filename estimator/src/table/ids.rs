//! The contribution ids that a table's log holds, read from its last checkpoint and the entries after it.

use std::collections::HashMap;

use bytes::Bytes;
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake::kernel::{Action, Transaction};
use deltalake::logstore::{LogStore, get_actions};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;

use super::log::Table;
use crate::contribution::parse_id;
use crate::error::Error;

/// The folder of the log.
pub(super) const LOG: &str = "_delta_log";
/// What says which its newest checkpoint is.
pub(super) const HINT: &str = "_delta_log/_last_checkpoint";

/// What `_last_checkpoint` says. A checkpoint of parts is none of ours.
#[derive(Deserialize)]
struct LastCheckpoint {
    version: u64,
    parts: Option<u64>,
}

/// Ids, each with the day it was written.
pub(super) type Ids = HashMap<[u8; 16], i64>;

impl Table {
    /// Every id in the log up to a version.
    pub(super) async fn load_ids(&self, version: u64) -> Result<Ids, Error> {
        let (mut ids, next) = self.checkpointed(version).await?;
        for version in next..=version {
            let actions = self.actions(version).await?;
            let actions = actions.ok_or_else(|| self.foreign("its log has a gap"))?;
            collect(&actions, &mut ids);
        }
        Ok(ids)
    }

    /// What one log entry did; `None` when there is no such entry.
    pub(super) async fn actions(&self, version: u64) -> Result<Option<Vec<Action>>, Error> {
        let entry = self.log.read_commit_entry(version).await;
        let Some(bytes) = entry.map_err(Error::unreachable)? else {
            return Ok(None);
        };
        let actions = get_actions(version, &bytes);
        let actions = actions
            .map_err(|_| self.foreign(format!("its log entry {version} is not readable")))?;
        Ok(Some(actions))
    }

    /// The ids in the last checkpoint up to this version that can be read, and the entry to go on with.
    async fn checkpointed(&self, until: u64) -> Result<(Ids, u64), Error> {
        // One that was written since is of no use for the version that is read, and one that a hint names may be gone.
        if let Some(hint) = self.hint().await?.filter(|hint| *hint <= until)
            && let Some(bytes) = self.get_checkpoint(hint).await?
            && let Some(ids) = self.ids_of(hint, bytes).await
        {
            return Ok((ids, hint + 1));
        }
        let found = self.listed().await?.checkpoints.into_iter();
        let mut found: Vec<u64> = found.filter(|version| *version <= until).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        for version in found {
            let bytes = self.get_checkpoint(version).await?;
            let bytes =
                bytes.ok_or_else(|| Error::unreachable("a checkpoint was deleted meanwhile"))?;
            if let Some(ids) = self.ids_of(version, bytes).await {
                return Ok((ids, version + 1));
            }
        }
        Ok((Ids::new(), 0))
    }

    /// The ids in a checkpoint; `None`, and a word in the log, when it cannot be read.
    async fn ids_of(&self, version: u64, bytes: Bytes) -> Option<Ids> {
        // A reader that panics ends nothing but itself.
        let read = tokio::task::spawn_blocking(move || {
            let read = read_checkpoint(bytes);
            read.map_err(|error| error.to_string())
        });
        let read = read.await.map_err(|error| error.to_string());
        let read = read.and_then(|read| read);
        read.inspect_err(|error| {
            tracing::warn!(table = self.kind.name(), version, %error, "a checkpoint of the log cannot be read; the ids are read from the one before it");
        })
        .ok()
    }

    pub(super) async fn get_checkpoint(&self, version: u64) -> Result<Option<Bytes>, Error> {
        let path = Path::from(format!("{LOG}/{version:020}.checkpoint.parquet"));
        get(self.log.object_store(None).as_ref(), &path).await
    }

    /// The version that `_last_checkpoint` names; none where that is cut, which is as good as not there.
    async fn hint(&self) -> Result<Option<u64>, Error> {
        let store = self.log.object_store(None);
        let Some(bytes) = get(store.as_ref(), &Path::from(HINT)).await? else {
            return Ok(None);
        };
        let Ok(last) = serde_json::from_slice::<LastCheckpoint>(&bytes) else {
            return Ok(None);
        };
        if last.parts.is_some_and(|parts| parts > 1) {
            return Err(self.foreign("its checkpoint has several parts"));
        }
        Ok(Some(last.version))
    }

    /// The newest version that the log has an entry of, if its `_last_checkpoint` names a later one, or a checkpoint that is
    /// not there: no writer leaves that behind, but who copies the log object by object while somebody writes.
    pub(super) async fn behind_hint(&self) -> Result<Option<u64>, Error> {
        let Some(hint) = self.hint().await? else {
            return Ok(None);
        };
        let listed = self.listed().await?;
        let is_lost = listed.checkpoints.iter().all(|there| *there < hint);
        let newest = listed.entries.into_iter().max();
        Ok(newest.filter(|newest| *newest < hint || is_lost))
    }

    /// Deletes a hint like that, without which a log is read as well.
    pub(super) async fn drop_hint(&self) -> Result<(), Error> {
        if self.behind_hint().await?.is_none() {
            return Ok(());
        }
        match self.log.object_store(None).delete(&Path::from(HINT)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::unreachable(error)),
        }
    }

    /// The versions of which the log has an entry or a checkpoint.
    pub(super) async fn listed(&self) -> Result<Listed, Error> {
        let store = self.log.object_store(None);
        let log = store.list_with_delimiter(Some(&Path::from(LOG))).await;
        let objects = log.map_err(Error::unreachable)?.objects;
        let versions = |ending: &str| {
            let version = |path: &Path| path.filename()?.strip_suffix(ending)?.parse().ok();
            let found = objects.iter().map(|object| version(&object.location));
            found.flatten().collect()
        };
        Ok(Listed {
            entries: versions(".json"),
            checkpoints: versions(".checkpoint.parquet"),
        })
    }
}

/// What a log consists of.
pub(super) struct Listed {
    pub(super) entries: Vec<u64>,
    pub(super) checkpoints: Vec<u64>,
}

/// Adds the ids of one log entry.
pub(super) fn collect(actions: &[Action], ids: &mut Ids) {
    for action in actions {
        if let Action::Txn(Transaction {
            app_id,
            last_updated,
            ..
        }) = action
            && let Some(id) = parse_id(app_id)
        {
            ids.insert(id, last_updated.unwrap_or(i64::MAX));
        }
    }
}

async fn get(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>, Error> {
    let read = async { store.get(path).await?.bytes().await };
    match read.await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(Error::unreachable(error)),
    }
}

fn read_checkpoint(bytes: Bytes) -> Result<Ids, Box<dyn std::error::Error>> {
    let mut ids = Ids::new();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let mask = ProjectionMask::columns(reader.parquet_schema(), ["txn.appId", "txn.lastUpdated"]);
    for batch in reader.with_projection(mask).build()? {
        let batch = batch?;
        let Some(txn) = batch
            .column_by_name("txn")
            .and_then(|column| column.as_struct_opt())
        else {
            continue;
        };
        let app_ids = txn
            .column_by_name("appId")
            .and_then(|column| column.as_string_opt::<i32>());
        let days = txn.column_by_name("lastUpdated");
        let days = days.and_then(|column| column.as_primitive_opt::<Int64Type>());
        let app_ids = app_ids.ok_or("it has no application ids")?;
        for index in (0..txn.len()).filter(|&index| txn.is_valid(index) && app_ids.is_valid(index))
        {
            if let Some(id) = parse_id(app_ids.value(index)) {
                let day = days
                    .filter(|days| days.is_valid(index))
                    .map(|days| days.value(index));
                ids.insert(id, day.unwrap_or(i64::MAX));
            }
        }
    }
    Ok(ids)
}
