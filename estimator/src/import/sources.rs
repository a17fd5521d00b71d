//! The list of sources: for each imported file one object that says what it was, and one with the ids of its lines.
//!
//! An object's name follows from the file's content, so importing a file again writes the same objects again. The
//! tables' logs forget ids after a month; these lists do not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The folder beside the tables.
const FOLDER: &str = "sources";
/// Files that are listed at most: more are no list for people.
const FILES_MAX: usize = 10_000;
/// So many objects are read at once.
const READS_AT_ONCE: usize = 16;
/// Bytes of an id.
const ID_BYTES: usize = 16;

/// What one source has brought so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Files that were imported under it.
    pub files: usize,
    /// Lines of these files that have rows. Lines that two of them share count in each.
    pub rows: usize,
    /// Lines that were refused.
    pub refused: usize,
    /// The day of the first import, such as `2026-11-26`.
    pub first_day: String,
    /// The day of the last one.
    pub last_day: String,
}

/// What is written of one imported file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) mapping: String,
    pub(super) day: String,
    pub(super) lines: usize,
    pub(super) rows: usize,
    pub(super) refused: usize,
}

/// Ids of every line that the source has brought before.
pub(super) async fn known(
    store: &dyn ObjectStore,
    source: &str,
) -> Result<HashSet<[u8; ID_BYTES]>, Error> {
    let mut known = HashSet::new();
    for (_, bytes) in read(store, &Path::from(format!("{FOLDER}/{source}")), "ids").await? {
        let (ids, _) = bytes.as_chunks::<ID_BYTES>();
        known.extend(ids);
    }
    Ok(known)
}

/// Which of these ids came from which source, of files that were imported since a moment.
pub(crate) async fn sources_of(
    store: &dyn ObjectStore,
    since: SystemTime,
    ids: &HashSet<[u8; ID_BYTES]>,
) -> Result<HashMap<[u8; ID_BYTES], String>, Error> {
    let found = store.list(Some(&Path::from(FOLDER))).take(2 * FILES_MAX);
    let found: Vec<ObjectMeta> = found.try_collect().await.map_err(Error::unreachable)?;
    let mut sources = HashMap::new();
    for object in found {
        let path = object.location;
        let is_new = SystemTime::from(object.last_modified) >= since;
        let name = path.parts().nth(1).map(|part| part.as_ref().to_owned());
        let Some(name) = name.filter(|_| is_new && path.extension() == Some("ids")) else {
            continue;
        };
        let read = async { store.get(&path).await?.bytes().await };
        let bytes = read.await.map_err(Error::unreachable)?;
        let (brought, _) = bytes.as_chunks::<ID_BYTES>();
        let wanted = brought.iter().filter(|id| ids.contains(*id));
        sources.extend(wanted.map(|id| (*id, name.clone())));
    }
    Ok(sources)
}

/// Notes an imported file. The ids go first: a list without its description is still a list.
pub(super) async fn put(
    store: &dyn ObjectStore,
    source: &str,
    hash: u128,
    entry: &Entry,
    ids: &[[u8; ID_BYTES]],
) -> Result<(), Error> {
    let place = |end: &str| Path::from(format!("{FOLDER}/{source}/{hash:032x}.{end}"));
    store
        .put(&place("ids"), ids.concat().into())
        .await
        .map_err(Error::unreachable)?;
    let json = serde_json::to_vec(entry).map_err(Error::unreachable)?;
    store
        .put(&place("json"), json.into())
        .await
        .map_err(Error::unreachable)?;
    Ok(())
}

/// Every source, by name.
pub(super) async fn list(store: &dyn ObjectStore) -> Result<Vec<Source>, Error> {
    let mut sources: BTreeMap<String, Source> = BTreeMap::new();
    for (path, bytes) in read(store, &Path::from(FOLDER), "json").await? {
        let name = path.parts().nth(1).map(|part| part.as_ref().to_owned());
        let entry = serde_json::from_slice::<Entry>(&bytes).ok();
        let (Some(name), Some(entry)) = (name, entry) else {
            tracing::warn!(%path, "this is no description of an imported file");
            continue;
        };
        let source = sources.entry(name.clone()).or_insert_with(|| Source {
            name,
            files: 0,
            rows: 0,
            refused: 0,
            first_day: entry.day.clone(),
            last_day: entry.day.clone(),
        });
        source.files += 1;
        source.rows += entry.rows;
        source.refused += entry.refused;
        source.first_day = source.first_day.clone().min(entry.day.clone());
        source.last_day = source.last_day.clone().max(entry.day);
    }
    Ok(sources.into_values().collect())
}

/// The objects under a folder whose names end so.
async fn read(
    store: &dyn ObjectStore,
    folder: &Path,
    end: &str,
) -> Result<Vec<(Path, bytes::Bytes)>, Error> {
    let found = store
        .list(Some(folder))
        .take(2 * FILES_MAX)
        .map_ok(|object| object.location);
    let found: Vec<Path> = found.try_collect().await.map_err(Error::unreachable)?;
    let wanted = found
        .into_iter()
        .filter(|path| path.extension() == Some(end));
    let reads = wanted.map(|path| async move {
        let bytes = store.get(&path).await?.bytes().await?;
        Ok::<_, object_store::Error>((path, bytes))
    });
    let reads = stream::iter(reads).buffered(READS_AT_ONCE).try_collect();
    reads.await.map_err(Error::unreachable)
}
