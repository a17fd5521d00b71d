//! A store that waits longer for large objects to be put: how long that takes is up to the line, not to the store's health.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// Objects of more bytes are large: what the usual wait is long enough for at two megabits a second.
pub(super) const LARGE_BYTES: usize = 4 << 20;

/// One store by way of two clients, of which one waits longer.
#[derive(Debug)]
pub(super) struct Patient {
    usual: Arc<dyn ObjectStore>,
    patient: Arc<dyn ObjectStore>,
}

impl Patient {
    /// Large objects are put and read as a whole by `patient`, and all else is done by `usual`.
    pub(super) fn new(usual: Arc<dyn ObjectStore>, patient: Arc<dyn ObjectStore>) -> Self {
        Self { usual, patient }
    }
}

#[async_trait]
impl ObjectStore for Patient {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let store = match payload.content_length() > LARGE_BYTES {
            true => &self.patient,
            false => &self.usual,
        };
        store.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.usual.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let is_part = options.range.is_some() || options.head;
        let found = self.usual.get_opts(path, options.clone()).await?;
        // How large it is says the answer, whose bytes have not been waited for yet.
        if is_part || found.meta.size <= LARGE_BYTES as u64 {
            return Ok(found);
        }
        drop(found);
        self.patient.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.usual.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.usual.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.usual.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.usual.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.usual.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.usual.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.usual.rename_opts(from, to, options).await
    }
}

impl fmt::Display for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.usual.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_large_object_is_put_by_who_waits_longer_and_all_else_by_the_other() {
        let [usual, patient] = [(); 2].map(|()| Arc::new(InMemory::new()));
        let store = Patient::new(usual.clone(), patient.clone());
        let (small, large) = (Path::from("small"), Path::from("large"));
        let bytes = vec![0u8; LARGE_BYTES];
        store.put(&small, bytes.into()).await.expect("put");
        let bytes = vec![0u8; LARGE_BYTES + 1];
        store.put(&large, bytes.into()).await.expect("put");
        assert!(usual.head(&small).await.is_ok() && usual.head(&large).await.is_err());
        assert!(patient.head(&large).await.is_ok() && patient.head(&small).await.is_err());
        assert!(store.head(&small).await.is_ok() && store.head(&large).await.is_err());
    }

    #[tokio::test]
    async fn a_large_object_is_read_by_who_waits_longer() {
        let [usual, patient] = [(); 2].map(|()| Arc::new(InMemory::new()));
        let store = Patient::new(usual.clone(), patient.clone());
        let path = Path::from("it");
        for (bytes, by) in [(LARGE_BYTES, 1), (LARGE_BYTES + 1, 2)] {
            usual
                .put(&path, vec![1u8; bytes].into())
                .await
                .expect("put");
            patient
                .put(&path, vec![2u8; bytes].into())
                .await
                .expect("put");
            let found = store.get(&path).await.expect("there").bytes().await;
            let found = found.expect("bytes");
            assert_eq!((found.len(), found[0]), (bytes, by));
            let part = store.get_range(&path, 0..9).await.expect("a part");
            assert_eq!(part[0], 1, "a part is asked for by its length");
        }
    }
}
