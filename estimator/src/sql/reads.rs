//! The store as one statement sees it: read only, two folders deep, and every read counted.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};
use tokio::runtime::Handle;

use super::table::View;

/// Who reads pieces of objects for a statement.
#[async_trait]
pub(super) trait Pieces: Send + Sync {
    /// The pieces, in the order of their ranges.
    async fn read(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>>;
}

/// The store itself. Reads run on the runtime of the server and not on that of the statement, since the store's
/// connections belong to the former and must outlive the latter.
pub(super) struct Direct {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) runtime: Handle,
}

#[async_trait]
impl Pieces for Direct {
    async fn read(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (store, path, ranges) = (Arc::clone(&self.store), path.clone(), ranges.to_vec());
        let read = self
            .runtime
            .spawn(async move { pieces(store.as_ref(), &path, &ranges).await });
        read.await
            .map_err(|error| Error::JoinError { source: error })?
    }
}

/// Pieces of an object. [`Error::NotFound`] where the store answers that it has no such object, or not all of it.
pub(super) async fn pieces(
    store: &dyn ObjectStore,
    path: &Path,
    ranges: &[Range<u64>],
) -> Result<Vec<Bytes>> {
    // The store knows best whether pieces that lie near each other are read together.
    let read = store.get_ranges(path, ranges).await;
    let is_whole = |pieces: &Vec<Bytes>| {
        let mut lengths = pieces.iter().zip(ranges);
        lengths.all(|(piece, range)| piece.len() as u64 == range.end - range.start)
    };
    let error = match read {
        Ok(pieces) if is_whole(&pieces) => return Ok(pieces),
        Err(error @ Error::NotFound { .. }) => return Err(error),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    // What a store says of a piece that is not there differs; how long the object is, all say alike.
    let size = store.head(path).await?.size;
    match error {
        Some(error) if ranges.iter().all(|range| range.end <= size) => Err(error),
        _ => Err(Error::NotFound {
            path: path.to_string(),
            source: format!("it has {size} bytes, which is not all of it").into(),
        }),
    }
}

/// A reading view of the objects of a statement's tables.
pub(super) struct Reads {
    pieces: Arc<dyn Pieces>,
    sizes: HashMap<Path, u64>,
    seen: Mutex<(HashSet<Path>, u64)>,
    failed: AtomicBool,
}

impl Reads {
    pub(super) fn new(pieces: Arc<dyn Pieces>, views: &[View]) -> Arc<Self> {
        Arc::new(Self {
            pieces,
            sizes: views.iter().flat_map(View::objects).collect(),
            seen: Mutex::default(),
            failed: AtomicBool::new(false),
        })
    }

    /// Whether the store did not answer. Otherwise what could not be read is damaged or lost.
    pub(super) fn have_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// How many objects were read, and how many bytes of them.
    pub(super) fn counted(&self) -> (usize, u64) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.0.len(), seen.1)
    }

    fn size(&self, path: &Path) -> Result<u64> {
        let size = self.sizes.get(path).copied();
        size.ok_or_else(|| Error::NotFound {
            path: path.to_string(),
            source: "it belongs to no table".into(),
        })
    }

    async fn read(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let size = self.size(path)?;
        let is_within = |range: &Range<u64>| range.start <= range.end && range.end <= size;
        if !ranges.iter().all(is_within) {
            return Err(Error::Generic {
                store: "objects",
                source: format!("{path} has no bytes where it says that there are some").into(),
            });
        }
        let pieces = self.pieces.read(path, ranges).await;
        let pieces = pieces.inspect_err(|error| {
            // An object that is not there, or not all of it, is the matter of the object.
            if !matches!(error, Error::NotFound { .. }) {
                self.failed.store(true, Ordering::Relaxed);
            }
        })?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0.insert(path.clone());
        seen.1 += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        Ok(pieces)
    }
}

#[async_trait]
impl ObjectStore for Reads {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let size = self.size(path)?;
        let range = match options.range {
            _ if options.head => 0..0,
            None => 0..size,
            Some(GetRange::Bounded(range)) => range,
            Some(GetRange::Offset(from)) => from.min(size)..size,
            Some(GetRange::Suffix(length)) => size.saturating_sub(length)..size,
        };
        let pieces = match range.is_empty() {
            true => Vec::new(),
            false => self.read(path, std::slice::from_ref(&range)).await?,
        };
        let pieces = stream::iter(pieces.into_iter().map(Ok));
        Ok(GetResult {
            payload: GetResultPayload::Stream(Box::pin(pieces)),
            meta: ObjectMeta {
                location: path.clone(),
                last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
                size,
                e_tag: None,
                version: None,
            },
            range,
            attributes: Attributes::new(),
        })
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read(path, ranges).await
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        Box::pin(stream::once(async { Err(read_only()) }))
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        Box::pin(stream::once(async { Err(read_only()) }))
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(read_only())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}

fn read_only() -> Error {
    Error::NotSupported {
        source: "a statement reads objects by name and does nothing else".into(),
    }
}

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reads")
    }
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reads")
    }
}
