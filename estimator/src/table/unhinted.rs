//! A table's store without the object that names the newest checkpoint, for when what that names is not there, and without
//! checkpoints that cannot be read.
//!
//! Readers of a log go by that object as long as it is there, and fail where what it names is not; without it they look for
//! the newest checkpoint themselves. A look is no reason to delete what somebody may still be copying or put back.

use std::collections::BTreeSet;
use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use deltalake::logstore::{LogStore, LogStoreRef, StorageConfig, default_logstore};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::ids::{HINT, LOG};
use super::log::Table;

impl Table {
    /// The log without its hint and without these checkpoints. `None` only where the table's place is none.
    pub(super) fn past(&self, checkpoints: &BTreeSet<u64>) -> Option<LogStoreRef> {
        let location = self.log.root_url();
        let prefix = Path::from_url_path(location.path()).ok()?;
        let checkpoints = checkpoints.iter();
        let hidden = checkpoints.map(|version| format!("{LOG}/{version:020}.checkpoint.parquet"));
        let hidden = hidden.chain([HINT.to_owned()]).collect();
        let hidden = Hidden(Arc::new(Mutex::new(hidden)));
        let inner = self.log.root_object_store(None);
        let store: Arc<dyn ObjectStore> = Arc::new(Unhinted { inner, hidden });
        let prefixed = Arc::new(PrefixStore::new(Arc::clone(&store), prefix));
        let options = StorageConfig::default();
        Some(default_logstore(prefixed, store, location, &options))
    }
}

#[derive(Debug)]
struct Unhinted {
    inner: Arc<dyn ObjectStore>,
    hidden: Hidden,
}

/// How the places of objects end that are not shown, until they are written anew.
#[derive(Debug, Clone)]
struct Hidden(Arc<Mutex<Vec<String>>>);

impl Hidden {
    fn hides(&self, path: &Path) -> bool {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.iter().any(|end| path.as_ref().ends_with(end.as_str()))
    }

    fn show(&self, path: &Path) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|end| !path.as_ref().ends_with(end.as_str()));
    }
}

impl Unhinted {
    /// What is listed, without what is not shown.
    fn shown(
        &self,
        listed: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let hidden = self.hidden.clone();
        let is_shown = move |object: &ObjectMeta| ready(!hidden.hides(&object.location));
        listed.try_filter(is_shown).boxed()
    }
}

impl fmt::Display for Unhinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
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
        let put = self.inner.put_opts(path, payload, options).await?;
        self.hidden.show(path);
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        // There once all of its parts are; until then it is what it was.
        let upload = self.inner.put_multipart_opts(path, options).await?;
        self.hidden.show(path);
        Ok(upload)
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if self.hidden.hides(path) {
            return Err(Error::NotFound {
                path: path.to_string(),
                source: "it is passed over".into(),
            });
        }
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shown(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shown(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        listed
            .objects
            .retain(|object| !self.hidden.hides(&object.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
