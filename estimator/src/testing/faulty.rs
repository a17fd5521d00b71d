//! A store that fails on command: before a write, or after it so that only the answer is lost.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never reaches the store.
    Fail,
    /// It is done, but the answer is lost.
    LoseAnswer,
    /// It is done, and from then on the store is gone: the process was killed right after.
    DieAfter,
    /// It never reaches the store and nothing after it does.
    DieBefore,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [
        Self::Fail,
        Self::LoseAnswer,
        Self::DieAfter,
        Self::DieBefore,
    ];
}

/// A store whose write number `at` meets a fault.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    fault: Option<(usize, Fault)>,
    writes: AtomicUsize,
    dead: AtomicBool,
    read: Mutex<Vec<Path>>,
}

impl Faulty {
    pub(crate) fn new(inner: &Arc<dyn ObjectStore>, fault: Option<(usize, Fault)>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            fault,
            writes: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            read: Mutex::default(),
        })
    }

    /// How many writes were tried.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// How many reads there were of files of rows.
    pub(crate) fn row_files_read(&self) -> usize {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = |path: &&Path| {
            path.as_ref().ends_with(".parquet") && !path.as_ref().contains("_delta_log")
        };
        read.iter().filter(rows).count()
    }

    /// From now on the store answers nothing, or answers again.
    pub(crate) fn set_dead(&self, dead: bool) {
        self.dead.store(dead, Ordering::SeqCst);
    }

    fn alive(&self) -> Result<()> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(lost());
        }
        Ok(())
    }
}

fn lost() -> Error {
    Error::Generic {
        store: "faulty",
        source: "the connection was lost".into(),
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.alive()?;
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        let fault = self
            .fault
            .filter(|(at, _)| *at == number)
            .map(|(_, fault)| fault);
        let dies = matches!(fault, Some(Fault::DieAfter | Fault::DieBefore));
        self.dead.fetch_or(dies, Ordering::SeqCst);
        if matches!(fault, Some(Fault::Fail | Fault::DieBefore)) {
            return Err(lost());
        }
        let result = self.inner.put_opts(path, payload, options).await;
        if fault.is_some() { Err(lost()) } else { result }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.alive()?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.alive()?;
        self.read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(path.clone());
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(error) = self.alive() {
            return Box::pin(futures::stream::once(async { Err(error) }));
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.alive()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.alive()?;
        self.inner.copy_opts(from, to, options).await
    }
}
