//! The objects of cells beside a table: writing one now and then, and finding the newest on a start.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use xxhash_rust::xxh3::xxh3_128;

use super::cells::{self, Header, Read};
use super::follow::{News, read_file};
use super::log::Table;
use crate::error::Error;
use crate::index::Index;

/// The folder in the table's folder. Names that begin so are none of a Delta table's.
const FOLDER: &str = "_cells";
/// So many objects are kept: the newest, and the one before it for who is just reading it.
const KEPT: usize = 2;

impl Table {
    /// Writes the cells of the version that was followed to, if there are none of it yet that know as much. `index` must give the index
    /// that has learnt what `learn` heard. Returns whether something was written.
    pub(crate) async fn write_cells(
        &self,
        learn: impl FnOnce(News) + Send,
        index: impl FnOnce() -> (Arc<Index>, u64) + Send,
    ) -> Result<bool, Error> {
        // Nobody else follows meanwhile, so that the index is exactly at this version.
        let mut state = self.lock().await;
        learn(self.follow_in(&mut state).await?);
        let Some(version) = state
            .delta
            .as_ref()
            .and_then(deltalake::DeltaTable::version)
        else {
            return Ok(false);
        };
        let (index, refused_rows) = index();
        let names = |paths: &BTreeSet<Path>| paths.iter().map(Path::to_string).collect();
        let (unread, away) = (names(&state.unread), names(&state.away));
        drop(state);
        let written = self.versions().await?;
        let entry = self.entry_hash(version).await?.unwrap_or_default();
        if written.contains(&version) && !self.knows_less(version, refused_rows, &entry).await? {
            return Ok(false);
        }
        let kind = self.kind;
        let header = Header {
            version,
            entry,
            rows: index.rows(kind),
            refused_rows,
            vocabulary: cells::vocabulary().to_owned(),
            unread,
            away,
            ..Header::default()
        };
        let bytes = tokio::task::spawn_blocking(move || cells::write(kind, &index, header)).await;
        let bytes = bytes.map_err(Error::unreachable)?;
        let bytes = bytes.map_err(Error::unreachable)?;
        let store = self.log.object_store(None);
        let put = store.put(&path(version), bytes.into()).await;
        put.map_err(Error::unreachable)?;
        let others = written.into_iter().filter(|other| *other != version);
        let (beyond, before): (Vec<_>, Vec<_>) = others.partition(|other| *other > version);
        let mut unused: Vec<u64> = before.into_iter().skip(KEPT - 1).collect();
        for later in beyond {
            // Somebody has gone on meanwhile, or what is there is of another log: this one's copy, made entry by entry.
            if self.actions(later).await?.is_none() {
                unused.push(later);
            }
        }
        for old in unused {
            match store.delete(&path(old)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(Error::unreachable(error)),
            }
        }
        Ok(true)
    }

    /// Whether the cells of this version are of another log, or of somebody to whom more of its rows were none, or who did
    /// not say by what.
    async fn knows_less(
        &self,
        version: u64,
        refused_rows: u64,
        entry: &str,
    ) -> Result<bool, Error> {
        let Some(read) = self.cells_of(version).await? else {
            return Ok(false);
        };
        if !read.header.entry.is_empty() && read.header.entry != entry {
            return Ok(true);
        }
        let unsaid = read.header.vocabulary.is_empty();
        Ok(!read.is_whole() && (unsaid || read.header.refused_rows > refused_rows))
    }

    /// The newest cells of a version up to this one that can be read and are of this log. Any trouble with them is no
    /// trouble: the rows are there too.
    pub(super) async fn newest_cells(&self, until: u64) -> Result<Option<Read>, Error> {
        for version in self.versions().await? {
            if version <= until
                && let Some(read) = self.cells_of(version).await?
                && self.is_of_this_log(&read.header).await?
            {
                return Ok(Some(read));
            }
        }
        Ok(None)
    }

    /// Whether cells are of this log and not of another one that had come to the same version, whose cells came along when
    /// the tables were put back from a copy.
    async fn is_of_this_log(&self, header: &Header) -> Result<bool, Error> {
        if header.entry.is_empty() {
            return Ok(true);
        }
        let entry = self.entry_hash(header.version).await?;
        let is_of_it = entry.as_deref() == Some(header.entry.as_str());
        if !is_of_it {
            let (table, version) = (self.kind.name(), header.version);
            tracing::info!(
                table,
                version,
                "the cells are of another log, or this one is cut; they are passed over"
            );
        }
        Ok(is_of_it)
    }

    /// What the log's entry of a version hashes to; `None` when there is none any more.
    async fn entry_hash(&self, version: u64) -> Result<Option<String>, Error> {
        let bytes = self.log.read_commit_entry(version).await;
        let bytes = bytes.map_err(Error::unreachable)?;
        Ok(bytes.map(|bytes| format!("{:032x}", xxh3_128(&bytes))))
    }

    /// The cells of one version, if they are there and can be read.
    async fn cells_of(&self, version: u64) -> Result<Option<Read>, Error> {
        let store = self.log.object_store(None);
        let (_, bytes) = read_file(store.as_ref(), path(version)).await?;
        let Some(bytes) = bytes else { return Ok(None) };
        let kind = self.kind;
        let read = tokio::task::spawn_blocking(move || cells::read(kind, &bytes)).await;
        let read = read.ok().flatten();
        let read = read.filter(|read| read.header.version == version);
        if read.is_none() {
            let table = kind.name();
            tracing::warn!(table, version, "the cells cannot be read; the rows are");
        }
        Ok(read)
    }

    /// The versions that cells lie there of, the newest first.
    async fn versions(&self) -> Result<Vec<u64>, Error> {
        let store: Arc<dyn ObjectStore> = self.log.object_store(None);
        let listed: Vec<Path> = store
            .list(Some(&Path::from(FOLDER)))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(Error::unreachable)?;
        let version = |path: &Path| path.filename()?.strip_suffix(".cells")?.parse().ok();
        let mut versions: Vec<u64> = listed.iter().filter_map(version).collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        Ok(versions)
    }
}

fn path(version: u64) -> Path {
    Path::from(format!("{FOLDER}/{version:020}.cells"))
}
