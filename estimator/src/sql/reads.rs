//! The store as one statement sees it: read only, two folders deep, and every read counted.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::runtime::Handle;

/// A reading view of a store.
///
/// Reads run on the runtime of the server and not on that of the statement, since the store's connections belong to
/// the former and must outlive the latter.
pub(super) struct Reads {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    seen: Mutex<(HashSet<Path>, u64)>,
}

impl Reads {
    pub(super) fn new(store: &Arc<dyn ObjectStore>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            runtime,
            seen: Mutex::default(),
        })
    }

    /// How many objects were read, and how many bytes of them.
    pub(super) fn counted(&self) -> (usize, u64) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.0.len(), seen.1)
    }

    fn note(&self, path: &Path, bytes: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0.insert(path.clone());
        seen.1 += bytes;
    }
}

#[async_trait]
impl ObjectStore for Reads {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let (store, at) = (Arc::clone(&self.store), path.clone());
        let read = self.runtime.spawn(async move {
            let found = store.get_opts(&at, options).await?;
            let (meta, range, attributes) = (
                found.meta.clone(),
                found.range.clone(),
                found.attributes.clone(),
            );
            Ok::<_, Error>((found.bytes().await?, meta, range, attributes))
        });
        let (bytes, meta, range, attributes) = read
            .await
            .map_err(|error| Error::JoinError { source: error })??;
        self.note(path, bytes.len() as u64);
        let payload = GetResultPayload::Stream(Box::pin(stream::once(async { Ok(bytes) })));
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes,
        })
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // The store knows best whether pieces that lie near each other are read together.
        let (store, at, ranges) = (Arc::clone(&self.store), path.clone(), ranges.to_vec());
        let read = self
            .runtime
            .spawn(async move { store.get_ranges(&at, &ranges).await });
        let pieces = read
            .await
            .map_err(|error| Error::JoinError { source: error })??;
        self.note(path, pieces.iter().map(|piece| piece.len() as u64).sum());
        Ok(pieces)
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
