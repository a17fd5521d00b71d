//! An object store as the staging area: an object for each submission, put only where there is none.

mod moved;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use stepcast_scheduler::ids::StagingId;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::packed::{PACKED_BYTES_MAX, pack, unpack};
use super::{Error, Put};
use crate::submission::StagedFile;

/// Calls to the store at once. Each takes some ten milliseconds, so this is some ten thousand a second.
const CALLS: usize = 256;

/// The folder of the submissions below the prefix, so that a list of them shows nothing else.
pub(super) const SUBMISSIONS: &str = "submissions";

/// The object that says whose prefix it is.
const MARKER: &str = "cluster";

/// Objects below a prefix. How many there are is bounded by the queue: a store has no count that is quick to ask.
#[derive(Debug)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    calls: Semaphore,
    /// Where the last look for old submissions ended.
    looked: Mutex<Option<Path>>,
    /// Set once nothing lies here any more as in a folder.
    adopted: OnceCell<()>,
}

impl Bucket {
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self {
            store,
            prefix,
            calls: Semaphore::new(CALLS),
            looked: Mutex::default(),
            adopted: OnceCell::new(),
        }
    }

    pub(super) async fn put(&self, staging: StagingId, files: &[StagedFile]) -> Result<Put, Error> {
        let packed = pack(staging, files);
        let _call = self.call().await?;
        self.create(self.object(staging), packed).await
    }

    pub(super) async fn get(&self, staging: StagingId) -> Result<Vec<StagedFile>, Error> {
        let may_be_moved = !self.adopted.initialized();
        match self.read(staging).await {
            // It may lie here as a folder had it.
            Err(Error::Missing) if may_be_moved => {
                self.adopt().await?;
                self.read(staging).await
            }
            files => files,
        }
    }

    async fn read(&self, staging: StagingId) -> Result<Vec<StagedFile>, Error> {
        let _call = self.call().await?;
        let object = match self.store.get(&self.object(staging)).await {
            Err(object_store::Error::NotFound { .. }) => return Err(Error::Missing),
            object => object.map_err(unanswered)?,
        };
        if object.meta.size > PACKED_BYTES_MAX as u64 {
            return Err(Error::Damaged);
        }
        let packed = object.bytes().await.map_err(unanswered)?;
        unpack(staging, &packed).ok_or(Error::Damaged)
    }

    pub(super) async fn remove(&self, staging: StagingId) -> Result<(), Error> {
        let _call = self.call().await?;
        self.delete(&self.object(staging)).await
    }

    async fn delete(&self, object: &Path) -> Result<(), Error> {
        match self.store.delete(object).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unanswered(error)),
        }
    }

    /// Submissions older than `age`, in the order of their ids and going on where the last call has ended.
    pub(super) async fn older_than(
        &self,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<StagingId>, Error> {
        let _call = self.call().await?;
        let after = self
            .looked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let below = self.prefix.clone().join(SUBMISSIONS);
        let mut objects = match &after {
            Some(after) => self.store.list_with_offset(Some(&below), after),
            None => self.store.list(Some(&below)),
        };
        let now = SystemTime::now();
        let mut found = Vec::new();
        while let Some(object) = objects.try_next().await.map_err(unanswered)? {
            let Some(staging) = old(&object, now, age) else {
                continue;
            };
            found.push((staging, object.location));
            if found.len() >= limit {
                break;
            }
        }
        let next = found.last().filter(|_| found.len() >= limit);
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) =
            next.map(|(_, location)| location.clone());
        Ok(found.into_iter().map(|(staging, _)| staging).collect())
    }

    /// Whose prefix it is; `None` while nobody has claimed it.
    pub(super) async fn marker(&self) -> Result<Option<String>, Error> {
        let marker = match self.store.get(&self.prefix.clone().join(MARKER)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            marker => marker.map_err(unanswered)?,
        };
        let text = marker.bytes().await.map_err(unanswered)?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Claims the prefix, unless it is somebody's already.
    pub(super) async fn mark(&self, text: String) -> Result<(), Error> {
        self.create(self.prefix.clone().join(MARKER), text.into_bytes())
            .await
            .map(drop)
    }

    async fn create(&self, location: Path, content: Vec<u8>) -> Result<Put, Error> {
        let mode = PutMode::Create.into();
        match self.store.put_opts(&location, content.into(), mode).await {
            Ok(_) => Ok(Put::New),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::There),
            Err(error) => Err(unanswered(error)),
        }
    }

    fn object(&self, staging: StagingId) -> Path {
        self.prefix
            .clone()
            .join(SUBMISSIONS)
            .join(staging.to_string())
    }

    async fn call(&self) -> Result<SemaphorePermit<'_>, Error> {
        // It is never closed.
        self.calls.acquire().await.map_err(|_| Error::Missing)
    }
}

fn old(object: &ObjectMeta, now: SystemTime, age: Duration) -> Option<StagingId> {
    let passed = now.duration_since(object.last_modified.into()).ok();
    let staging = object.location.filename()?.parse().ok()?;
    passed.filter(|passed| *passed >= age).map(|_| staging)
}

fn unanswered(error: object_store::Error) -> Error {
    Error::Store(Box::new(error))
}
