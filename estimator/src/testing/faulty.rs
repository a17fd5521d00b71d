//! A store that fails on command: before a write, or after it so that only the answer is lost.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use tokio::sync::Notify;

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
    /// It is done, and somebody deletes it right after. Not in [`Fault::ALL`]: only what nobody names may vanish.
    Vanish,
    /// It is done whatever its condition says. Not in [`Fault::ALL`]: a store like that loses records.
    Unasked,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [
        Self::Fail,
        Self::LoseAnswer,
        Self::DieAfter,
        Self::DieBefore,
    ];
}

/// A store whose write number `at` meets a fault, and whose clock may be ahead of everybody's.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    faults: Mutex<Vec<(usize, Fault)>>,
    ahead: Mutex<Duration>,
    put_ahead: Mutex<HashMap<Path, Duration>>,
    writes: AtomicUsize,
    dead: AtomicBool,
    deleted_by_others: AtomicBool,
    read: Mutex<Vec<Path>>,
    /// The read, from 0, that waits, and how many there were since that was said.
    stall: Mutex<Option<usize>>,
    /// The objects whose reads wait.
    stalled_objects: Mutex<Vec<Path>>,
    reads: AtomicUsize,
    stalled: Notify,
    go_on: Notify,
}

impl Faulty {
    pub(crate) fn new(inner: &Arc<dyn ObjectStore>, fault: Option<(usize, Fault)>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            faults: Mutex::new(fault.into_iter().collect()),
            ahead: Mutex::default(),
            put_ahead: Mutex::default(),
            writes: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            deleted_by_others: AtomicBool::new(false),
            read: Mutex::default(),
            stall: Mutex::default(),
            stalled_objects: Mutex::default(),
            reads: AtomicUsize::new(0),
            stalled: Notify::new(),
            go_on: Notify::new(),
        })
    }

    /// The read after so many more waits for [`Faulty::go_on`].
    pub(crate) fn stall_after(&self, reads: usize) {
        *lock(&self.stall) = Some(reads);
    }

    /// From now on reads of these objects of a table wait for [`Faulty::go_on`].
    pub(crate) fn stall_at(&self, objects: Vec<Path>) {
        *lock(&self.stalled_objects) = objects;
    }

    /// Waits until a read waits.
    pub(crate) async fn stalled(&self) {
        self.stalled.notified().await;
    }

    /// Lets a read that waits go on, and has no other wait.
    pub(crate) fn go_on(&self) {
        *lock(&self.stall) = None;
        lock(&self.stalled_objects).clear();
        self.go_on.notify_waiters();
    }

    /// How many writes were tried.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// How many reads there were, of whatever and however much.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// How many files of rows were read as a whole.
    pub(crate) fn row_files_read(&self) -> usize {
        let read = lock(&self.read);
        read.iter().filter(|path| has_rows(path)).count()
    }

    /// Another write meets a fault too.
    pub(crate) fn also(&self, at: usize, fault: Fault) {
        lock(&self.faults).push((at, fault));
    }

    /// From now on the store's clock is so much ahead; what lies there keeps its time.
    pub(crate) fn set_ahead(&self, ahead: Duration) {
        *lock(&self.ahead) = ahead;
    }

    /// From now on somebody else deletes first whatever is deleted.
    pub(crate) fn forget_before_delete(&self) {
        self.deleted_by_others.store(true, Ordering::SeqCst);
    }

    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if let Some(ahead) = lock(&self.put_ahead).get(&meta.location) {
            meta.last_modified += *ahead;
        }
        meta
    }

    /// From now on the store answers nothing, or answers again.
    pub(crate) fn set_dead(&self, dead: bool) {
        self.dead.store(dead, Ordering::SeqCst);
    }

    fn stalls_at(&self, path: &Path) -> bool {
        let stalled = lock(&self.stalled_objects);
        stalled
            .iter()
            .any(|object| path.as_ref().ends_with(object.as_ref()))
    }

    fn alive(&self) -> Result<()> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(lost());
        }
        Ok(())
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn has_rows(path: &Path) -> bool {
    path.as_ref().ends_with(".parquet") && !path.as_ref().contains("_delta_log")
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
        mut options: PutOptions,
    ) -> Result<PutResult> {
        self.alive()?;
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        let faults = lock(&self.faults).clone();
        let fault = faults.into_iter().find(|(at, _)| *at == number);
        let fault = fault.map(|(_, fault)| fault);
        let dies = matches!(fault, Some(Fault::DieAfter | Fault::DieBefore));
        self.dead.fetch_or(dies, Ordering::SeqCst);
        if matches!(fault, Some(Fault::Fail | Fault::DieBefore)) {
            return Err(lost());
        }
        if fault == Some(Fault::Unasked) {
            options.mode = PutMode::Overwrite;
        }
        let result = self.inner.put_opts(path, payload, options).await;
        let ahead = *lock(&self.ahead);
        lock(&self.put_ahead).insert(path.clone(), ahead);
        match fault {
            Some(Fault::Vanish) => {
                self.inner.delete(path).await?;
                result
            }
            None | Some(Fault::Unasked) => result,
            Some(_) => Err(lost()),
        }
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
        // From before it is told on, so that no word to go on is missed.
        let go_on = self.go_on.notified();
        let stalls = match &mut *lock(&self.stall) {
            Some(0) => true,
            Some(reads) => {
                *reads -= 1;
                false
            }
            None => false,
        };
        self.reads.fetch_add(1, Ordering::SeqCst);
        if stalls || self.stalls_at(path) {
            self.stalled.notify_one();
            go_on.await;
        }
        if options.range.is_none() && !options.head {
            lock(&self.read).push(path.clone());
        }
        let mut found = self.inner.get_opts(path, options).await?;
        found.meta = self.dated(found.meta);
        Ok(found)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        if !self.deleted_by_others.load(Ordering::SeqCst) {
            return self.inner.delete_stream(paths);
        }
        let inner = Arc::clone(&self.inner);
        let once = paths.then(move |path| {
            let inner = Arc::clone(&inner);
            async move {
                let path = path?;
                inner.delete(&path).await?;
                Ok(path)
            }
        });
        self.inner.delete_stream(once.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(error) = self.alive() {
            return Box::pin(futures::stream::once(async { Err(error) }));
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.alive()?;
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        let objects = found.objects.into_iter();
        found.objects = objects.map(|meta| self.dated(meta)).collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.alive()?;
        self.inner.copy_opts(from, to, options).await
    }
}
