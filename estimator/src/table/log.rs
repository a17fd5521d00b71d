//! One table: its log, the version it was followed to, and the contribution ids it holds.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use deltalake::kernel::transaction::TransactionError;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::SaveMode;
use deltalake::{DeltaTable, DeltaTableError};
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use tokio::sync::{Mutex, MutexGuard};
use url::Url;

use super::schema::Kind;
use crate::error::Error;

/// For so many days the log remembers a contribution id. A worker's spool drops what is older, so an id that is
/// forgotten can no longer arrive.
pub(super) const ID_RETENTION_DAYS: i64 = 30;

/// What the table says about itself in its first log entry.
const PROPERTIES: [(&str, &str); 3] = [
    ("delta.setTransactionRetentionDuration", "interval 30 days"),
    ("delta.logRetentionDuration", "interval 30 days"),
    ("delta.deletedFileRetentionDuration", "interval 7 days"),
];

/// One table. Clones share it.
#[derive(Clone)]
pub(crate) struct Table {
    pub(super) kind: Kind,
    pub(super) log: LogStoreRef,
    state: Arc<Mutex<State>>,
    listing: Arc<ArcSwap<Listing>>,
}

/// The files of the version that the table was last followed to: what a reader needs, without the table's lock.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Whether the store has been looked at: before that, no files means that nothing is known of them.
    pub(crate) seen: bool,
    /// The version; `None` while there is no table or none was read yet.
    pub(crate) version: Option<u64>,
    /// The files.
    pub(crate) files: Vec<DataFile>,
}

/// One Parquet file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// Its place under the table's folder.
    pub(crate) path: Path,
    /// Its size.
    pub(crate) bytes: u64,
}

/// What is known of the table's log.
#[derive(Default)]
pub(super) struct State {
    /// The table at the version it was followed to; `None` before it was opened, or while there is none.
    pub(super) delta: Option<DeltaTable>,
    /// Every contribution id in the log, with the day it was written, in milliseconds since 1970.
    pub(super) ids: HashMap<[u8; 16], i64>,
}

impl Table {
    /// The table under the prefix `base` of a store that is rooted where the address is.
    pub(crate) fn new(kind: Kind, store: &Arc<dyn ObjectStore>, base: &Url) -> Result<Self, Error> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::Config(format!("the store's location is wrong: {error}"))
        };
        let location = base
            .join(&format!("{}/", kind.name()))
            .map_err(|error| wrong(&error))?;
        let path = Path::from_url_path(location.path());
        let prefix = path.map_err(|error| wrong(&error))?;
        let prefixed = Arc::new(PrefixStore::new(Arc::clone(store), prefix));
        Ok(Self {
            kind,
            log: default_logstore(
                prefixed,
                Arc::clone(store),
                &location,
                &StorageConfig::default(),
            ),
            state: Arc::default(),
            listing: Arc::default(),
        })
    }

    /// Which of the two it is.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// The files of the version that the table was last followed to. Never waits for the store.
    pub(crate) fn listing(&self) -> Arc<Listing> {
        self.listing.load_full()
    }

    /// Shows readers the version that was just followed to.
    pub(super) fn publish(&self, delta: &DeltaTable) -> Result<(), Error> {
        let version = delta.version();
        if self.listing.load().version == version {
            return Ok(());
        }
        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let log_data = snapshot.log_data();
        let files = log_data.iter().map(|file| DataFile {
            path: file.object_store_path(),
            bytes: u64::try_from(file.size()).unwrap_or(0),
        });
        let files = files.collect();
        self.listing.store(Arc::new(Listing {
            seen: true,
            version,
            files,
        }));
        Ok(())
    }

    /// Shows readers that there is no table.
    pub(super) fn publish_nothing(&self) {
        self.listing.store(Arc::new(Listing {
            seen: true,
            ..Listing::default()
        }));
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }

    pub(super) fn foreign(&self, detail: impl Into<String>) -> Error {
        Error::Foreign {
            table: self.kind.name(),
            detail: detail.into(),
        }
    }

    /// Writes the first log entry. Somebody else's first entry is as good as ours.
    pub(super) async fn create(&self) -> Result<(), Error> {
        let properties = PROPERTIES.map(|(name, value)| (name, Some(value)));
        let create = CreateBuilder::new()
            .with_log_store(Arc::clone(&self.log))
            .with_columns(self.kind.delta_fields())
            .with_configuration(properties)
            .with_save_mode(SaveMode::Ignore);
        match create.await {
            Ok(_) | Err(DeltaTableError::VersionAlreadyExists(_)) => Ok(()),
            Err(DeltaTableError::Transaction {
                source:
                    TransactionError::VersionAlreadyExists(_) | TransactionError::CommitConflict(_),
            }) => Ok(()),
            Err(error) => Err(Error::unreachable(error)),
        }
    }

    /// Checks that the table has our columns and no others.
    pub(super) fn check(&self, delta: &DeltaTable) -> Result<(), Error> {
        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let found = snapshot.schema();
        let found: Vec<_> = found
            .fields()
            .map(|field| (field.name().as_str(), field.data_type()))
            .collect();
        let wanted: Vec<_> = self.kind.delta_fields().collect();
        let wanted: Vec<_> = wanted
            .iter()
            .map(|field| (field.name().as_str(), field.data_type()))
            .collect();
        if found != wanted {
            let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
            return Err(self.foreign(format!("its columns are {}", names.join(", "))));
        }
        Ok(())
    }
}
