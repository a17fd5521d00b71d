//! A store that counts what is asked of it; nothing else about it changes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::requests::{Operation, Requests, result_of};

/// A store and where its requests are counted.
pub(super) struct Counted {
    store: Arc<dyn ObjectStore>,
    requests: &'static Requests,
}

impl Counted {
    pub(super) fn new(store: Arc<dyn ObjectStore>, requests: &'static Requests) -> Arc<Self> {
        Arc::new(Self { store, requests })
    }

    fn told<T>(&self, operation: Operation, answer: Result<T>) -> Result<T> {
        self.requests.count(operation, result_of(&answer));
        answer
    }

    /// A list is one request. It counts when it is left, by whether anything of it has failed.
    fn list_told(
        &self,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let mut listing = Listing {
            requests: self.requests,
            result: 0,
        };
        list.inspect(move |item| listing.see(item)).boxed()
    }
}

struct Listing {
    requests: &'static Requests,
    result: usize,
}

impl Listing {
    fn see(&mut self, item: &Result<ObjectMeta>) {
        self.result = self.result.max(result_of(item));
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.requests.count(Operation::List, self.result);
    }
}

#[async_trait]
impl ObjectStore for Counted {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let begun = Instant::now();
        let answer = self.store.put_opts(path, payload, options).await;
        if answer.is_ok() {
            self.requests.put_took(begun.elapsed());
        }
        self.told(Operation::Put, answer)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let answer = self.store.put_multipart_opts(path, options).await;
        self.told(Operation::Put, answer)
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head {
            Operation::Head
        } else {
            Operation::Get
        };
        let answer = self.store.get_opts(path, options).await;
        self.told(operation, answer)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let answer = self.store.get_ranges(path, ranges).await;
        self.told(Operation::Get, answer)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let requests = self.requests;
        let deleted = self.store.delete_stream(paths);
        deleted
            .inspect(move |answer| requests.count(Operation::Delete, result_of(answer)))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_told(self.store.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_told(self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let answer = self.store.list_with_delimiter(prefix).await;
        self.told(Operation::List, answer)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let answer = self.store.copy_opts(from, to, options).await;
        self.told(Operation::Copy, answer)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let answer = self.store.rename_opts(from, to, options).await;
        self.told(Operation::Copy, answer)
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counted").field(&self.store).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutMode};

    use super::*;

    #[tokio::test]
    async fn every_request_counts_once_by_how_it_ended() {
        let requests: &'static Requests = Box::leak(Box::new(Requests::new()));
        let store = Counted::new(Arc::new(InMemory::new()), requests);
        let at = Path::from("a/b");
        store.put(&at, "x".into()).await.expect("stored");
        let again = PutOptions::from(PutMode::Create);
        let again = store.put_opts(&at, "y".into(), again).await;
        assert!(again.is_err());
        store.get(&at).await.expect("read");
        store.head(&at).await.expect("there");
        assert!(store.get(&Path::from("c")).await.is_err());
        let listed: Vec<_> = store.list(None).try_collect().await.expect("listed");
        assert_eq!(listed.len(), 1);
        store.delete(&at).await.expect("deleted");
        let text = requests.metrics_text();
        for (operation, result) in [
            ("put", "ok"),
            ("put", "conflict"),
            ("get", "ok"),
            ("get", "not_found"),
            ("head", "ok"),
            ("list", "ok"),
            ("delete", "ok"),
        ] {
            let line = format!("{{operation=\"{operation}\",result=\"{result}\"}} 1\n");
            assert_eq!(text.matches(&line).count(), 1, "{text}");
        }
        assert_eq!(text.lines().count(), 9, "{text}");
        assert!(requests.put_p95().is_some());
    }
}
