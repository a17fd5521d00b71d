//! One table: its log, the version it was followed to, and the contribution ids it holds.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

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

use super::commit::Put;
use super::compact::Moved;
use super::schema::Kind;
use crate::error::Error;

/// For so many days the log remembers a contribution id. A worker's spool drops what is older, so an id that is
/// forgotten can no longer arrive.
pub(super) const ID_RETENTION_DAYS: i64 = 30;

/// A file that no version names any more is kept for so many days, for readers of the versions that did.
pub(super) const FILE_RETENTION_DAYS: u32 = 7;

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
    /// The files that can be read.
    pub(crate) files: Vec<DataFile>,
    /// Files of that version that are missing or no Parquet of ours, whether their rows are known or not.
    pub(crate) unreadable: Vec<Path>,
    /// Whether a newer version has added columns: what this one knows is read, and nothing is written.
    pub(crate) read_only: bool,
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
    /// The version at which that was read as a whole.
    pub(super) whole: u64,
    /// Every contribution id in the log, with the day it was written, in milliseconds since 1970.
    pub(super) ids: HashMap<[u8; 16], i64>,
    /// Files that could never be read: their rows are not in the index.
    pub(super) unread: BTreeSet<Path>,
    /// Files that were read and cannot be now: their rows are in the index, and must not go into it once more.
    pub(super) away: BTreeSet<Path>,
    /// How often a statement could not read one of the objects.
    pub(super) suspected: u64,
    /// How often by the time that they were last all read.
    pub(super) cleared: u64,
    /// The version at which the last look for objects that are lost or cut has found none, and when.
    pub(super) fruitless: Option<(u64, Instant)>,
    /// The last file that a commit has put, for as long as it is not certain that it is there and in the log.
    pub(super) last_put: Option<Put>,
    /// The same of a compaction, and of what was taken back.
    pub(super) last_moved: Vec<Moved>,
    /// Files that a compaction has left as they are, since this version does not know all of their rows.
    pub(super) left: HashSet<Path>,
    /// How often the bounds of a round of compaction are halved.
    pub(super) halved: u32,
    /// As in [`Listing`].
    pub(super) read_only: bool,
    /// Whether the log was read without its hint, since that names a checkpoint that is not there.
    pub(super) is_cut: bool,
}

impl State {
    /// Whether a file cannot be read as far as is known.
    pub(super) fn is_left_out(&self, path: &Path) -> bool {
        self.unread.contains(path) || self.away.contains(path)
    }
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
    pub(super) fn publish(&self, delta: &DeltaTable, state: &State) -> Result<(), Error> {
        let version = delta.version();
        let shown = self.listing.load();
        let same = shown.version == version && shown.read_only == state.read_only;
        let left_out = |path: &Path| state.is_left_out(path);
        if same
            && shown.unreadable.len() == state.unread.len() + state.away.len()
            && shown.unreadable.iter().all(left_out)
        {
            return Ok(());
        }
        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let log_data = snapshot.log_data();
        let (mut files, mut unreadable) = (Vec::new(), Vec::new());
        for file in log_data.iter() {
            let path = file.object_store_path();
            if left_out(&path) {
                unreadable.push(path);
            } else {
                let bytes = u64::try_from(file.size()).unwrap_or(0);
                files.push(DataFile { path, bytes });
            }
        }
        self.listing.store(Arc::new(Listing {
            seen: true,
            version,
            files,
            unreadable,
            read_only: state.read_only,
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

    /// Checks that the table has our columns. Others after them are a newer version's: then it is only read, which is
    /// what `true` says.
    pub(super) fn check(&self, delta: &DeltaTable) -> Result<bool, Error> {
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
        if !found.starts_with(&wanted) {
            let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
            return Err(self.foreign(format!("its columns are {}", names.join(", "))));
        }
        let more: Vec<&str> = found[wanted.len()..]
            .iter()
            .map(|(name, _)| *name)
            .collect();
        if !more.is_empty() {
            tracing::warn!(
                table = self.kind.name(),
                columns = more.join(", "),
                "a newer version has added columns: the table is read, and not written"
            );
        }
        Ok(!more.is_empty())
    }

    /// Refuses to write to a table that a newer version has changed.
    pub(super) fn writable(&self, state: &State) -> Result<(), Error> {
        if state.read_only {
            return Err(self.foreign("a newer version has added columns to it"));
        }
        Ok(())
    }

    /// What it means that the log cannot be opened.
    pub(super) fn unopened(&self, error: DeltaTableError) -> Error {
        let text = error.to_string();
        let words = [
            "Unsupported",
            "unsupported",
            "not supported",
            "reader version",
            "feature",
        ];
        if words.iter().any(|word| text.contains(word)) {
            return self.foreign("its format is newer than this version reads");
        }
        Error::unreachable(error)
    }
}
