//! A table's store without the object that names the newest checkpoint, for when what that names is not there.
//!
//! Readers of a log go by that object as long as it is there, and fail where what it names is not; without it they look for
//! the newest checkpoint themselves. A look is no reason to delete what somebody may still be copying.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use deltalake::logstore::{LogStore, LogStoreRef, StorageConfig, default_logstore};
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::ids::HINT;
use super::log::Table;

impl Table {
    /// The log without its hint. `None` only where the table's place is none.
    pub(super) fn without_hint(&self) -> Option<LogStoreRef> {
        let location = self.log.root_url();
        let prefix = Path::from_url_path(location.path()).ok()?;
        let store: Arc<dyn ObjectStore> = Arc::new(Unhinted(self.log.root_object_store(None)));
        let prefixed = Arc::new(PrefixStore::new(Arc::clone(&store), prefix));
        let options = StorageConfig::default();
        Some(default_logstore(prefixed, store, location, &options))
    }
}

#[derive(Debug)]
struct Unhinted(Arc<dyn ObjectStore>);

impl fmt::Display for Unhinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Unhinted {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.0.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if path.as_ref().ends_with(HINT) {
            return Err(Error::NotFound {
                path: path.to_string(),
                source: "it names what is not there".into(),
            });
        }
        self.0.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
