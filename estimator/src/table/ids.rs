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
        let mut ids = Ids::new();
        let mut next = 0;
        if let Some(checkpoint) = self.last_checkpoint(version).await? {
            let path = Path::from(format!("{LOG}/{checkpoint:020}.checkpoint.parquet"));
            let bytes = get(self.log.object_store(None).as_ref(), &path).await?;
            let bytes = bytes.ok_or_else(|| self.foreign("its last checkpoint is missing"))?;
            let read = read_checkpoint(bytes, &mut ids);
            read.map_err(|error| self.foreign(format!("its checkpoint cannot be read: {error}")))?;
            next = checkpoint + 1;
        }
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

    /// The checkpoint to begin with to read up to this version.
    async fn last_checkpoint(&self, until: u64) -> Result<Option<u64>, Error> {
        // One that was written since is of no use for the version that is read.
        if let Some(hint) = self.hint().await?.filter(|hint| *hint <= until) {
            return Ok(Some(hint));
        }
        let found = self.listed(".checkpoint.parquet").await?.into_iter();
        Ok(found.filter(|version| *version <= until).max())
    }

    /// The version that `_last_checkpoint` names.
    async fn hint(&self) -> Result<Option<u64>, Error> {
        let store = self.log.object_store(None);
        let path = Path::from(format!("{LOG}/_last_checkpoint"));
        let Some(bytes) = get(store.as_ref(), &path).await? else {
            return Ok(None);
        };
        let last: LastCheckpoint = serde_json::from_slice(&bytes)
            .map_err(|_| self.foreign("its checkpoint pointer is not readable"))?;
        if last.parts.is_some_and(|parts| parts > 1) {
            return Err(self.foreign("its checkpoint has several parts"));
        }
        Ok(Some(last.version))
    }

    /// The newest version that the log has an entry of, if its `_last_checkpoint` names a later one: no writer leaves that
    /// behind, but who copies the log entry by entry while somebody writes.
    pub(super) async fn behind_hint(&self) -> Result<Option<u64>, Error> {
        let Some(hint) = self.hint().await? else {
            return Ok(None);
        };
        let newest = self.listed(".json").await?.into_iter().max();
        Ok(newest.filter(|newest| *newest < hint))
    }

    /// Deletes a hint like that, without which a log is read as well.
    pub(super) async fn drop_hint(&self) -> Result<(), Error> {
        if self.behind_hint().await?.is_none() {
            return Ok(());
        }
        let path = Path::from(format!("{LOG}/_last_checkpoint"));
        match self.log.object_store(None).delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::unreachable(error)),
        }
    }

    /// The versions of the log of which there is an object with this ending.
    async fn listed(&self, ending: &str) -> Result<Vec<u64>, Error> {
        let store = self.log.object_store(None);
        let log = store.list_with_delimiter(Some(&Path::from(LOG))).await;
        let objects = log.map_err(Error::unreachable)?.objects.into_iter();
        let version = |path: &Path| path.filename()?.strip_suffix(ending)?.parse().ok();
        Ok(objects
            .filter_map(|object| version(&object.location))
            .collect())
    }
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

fn read_checkpoint(bytes: Bytes, ids: &mut Ids) -> Result<(), Box<dyn std::error::Error>> {
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
    Ok(())
}
