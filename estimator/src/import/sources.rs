//! The list of sources: for each imported file one object that says what it was, and some with the ids of those of its
//! lines that no earlier file had.
//!
//! An object's name follows from the file's content or from the ids, so importing a file again writes the same objects
//! again. The tables' logs forget ids after a month; these lists do not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::ready;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::Error;

/// The folder beside the tables.
const FOLDER: &str = "sources";
/// Files that are told of at most: more are no list for people.
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

/// Ids of every line that the source has brought before, however many files there were: one that was left out would be
/// stored twice. No more than a few objects are in memory at once.
pub(super) async fn known(
    store: &dyn ObjectStore,
    source: &str,
) -> Result<HashSet<[u8; ID_BYTES]>, Error> {
    let mut known = HashSet::new();
    let folder = Path::from(format!("{FOLDER}/{source}"));
    let mut objects = read(store, &folder, "ids", usize::MAX);
    while let Some((_, bytes)) = objects.try_next().await? {
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

/// Notes ids of lines that are stored now.
pub(super) async fn put_ids(
    store: &dyn ObjectStore,
    source: &str,
    ids: &[[u8; ID_BYTES]],
) -> Result<(), Error> {
    let bytes = ids.concat();
    let path = place(source, xxh3_128(&bytes), "ids");
    let put = store.put(&path, bytes.into()).await;
    put.map_err(Error::unreachable)?;
    Ok(())
}

/// Notes an imported file, by a hash of its content, once the ids of all of its lines are noted.
pub(super) async fn put(
    store: &dyn ObjectStore,
    source: &str,
    hash: u128,
    entry: &Entry,
) -> Result<(), Error> {
    let json = serde_json::to_vec(entry).map_err(Error::unreachable)?;
    let put = store.put(&place(source, hash, "json"), json.into()).await;
    put.map_err(Error::unreachable)?;
    Ok(())
}

fn place(source: &str, hash: u128, end: &str) -> Path {
    Path::from(format!("{FOLDER}/{source}/{hash:032x}.{end}"))
}

/// Every source, by name.
pub(super) async fn list(store: &dyn ObjectStore) -> Result<Vec<Source>, Error> {
    let mut sources: BTreeMap<String, Source> = BTreeMap::new();
    let folder = Path::from(FOLDER);
    let mut objects = read(store, &folder, "json", FILES_MAX);
    while let Some((path, bytes)) = objects.try_next().await? {
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

/// The objects under a folder whose names end so, at most so many, as they come.
fn read<'a>(
    store: &'a dyn ObjectStore,
    folder: &Path,
    end: &'static str,
    most: usize,
) -> BoxStream<'a, Result<(Path, Bytes), Error>> {
    let found = store.list(Some(folder)).map_ok(|object| object.location);
    let wanted = found.try_filter(move |path| ready(path.extension() == Some(end)));
    let reads = wanted.take(most).map_ok(move |path| async move {
        let bytes = store.get(&path).await?.bytes().await?;
        Ok::<_, object_store::Error>((path, bytes))
    });
    let reads = reads.try_buffer_unordered(READS_AT_ONCE);
    reads.map_err(Error::unreachable).boxed()
}
