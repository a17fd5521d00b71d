//! The staging area: the files of submitted jobs, each submission by itself until its job is over.
//!
//! It is a folder or an object store, and every node of a cluster uses the same one: what one node has put, any other
//! reads and deletes. So it carries the id of its cluster, and a node that was given another place is told so.

mod bucket;
mod folder;
mod packed;
mod shares;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use object_store::ObjectStore;
use stepcast_cluster::session::Progress;
use stepcast_cluster::{PortError, Staging};
use stepcast_estimator::StoreConfig;
use stepcast_records::Quantiles;
use stepcast_scheduler::ids::{Epoch, JobId, StagingId};
use stepcast_scheduler::model::Owner;
use stepcast_scheduler::model::limits::Bounds;
use tonic::{Code, Status};

use self::bucket::Bucket;
use self::folder::Folder;
use self::shares::Shares;
use crate::lines::Lines;
use crate::status::{self, RETRY_FULL, Refusal};
use crate::submission::StagedFile;

/// Submissions in a folder at once: those of every job that is not over, and as many on their way in or out.
const SUBMISSIONS_MAX: usize = 2 * Bounds::NEWEST.unfinished_jobs;

/// Why nothing is put there or read at the moment.
const UNKNOWN: &str = "it is not known yet whether it is this cluster's";

/// The folder of what trainers print.
const LINES: &str = "lines";

/// Why files were not staged or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As many submissions as there may be are staged already.
    #[error("too many submissions are staged already")]
    Full,
    /// The files of one person's jobs that are not over have all of the room that one person's may have, in bytes.
    #[error(
        "the files of one person's jobs that are not over may take {} MiB, and with these yours would take more",
        .0 >> 20
    )]
    Yours(usize),
    /// There is no such submission, or not any more.
    #[error("the files of this submission are gone")]
    Missing,
    /// What is there is not what was put.
    #[error("the files of this submission are damaged")]
    Damaged,
    /// The disk refuses.
    #[error("the staging area cannot be used")]
    Io(#[from] io::Error),
    /// The object store does not answer or refuses; trying again later may help.
    #[error("the staging area does not answer")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The location or an option is wrong.
    #[error("the staging area's location is wrong: {0}")]
    Location(String),
    /// Another cluster uses the place.
    #[error(
        "the staging area {location} belongs to {owner} and not to cluster {cluster:016x}: give each cluster a place of its own"
    )]
    Foreign {
        /// Where.
        location: String,
        /// Whose it is.
        owner: String,
        /// Whose it was taken for.
        cluster: u64,
    },
    /// Jobs are not over whose files are somewhere else, all of them.
    #[error("the staging area {location} has none of the files of the jobs that are not over")]
    WithoutFiles {
        /// Where.
        location: String,
    },
    /// The place is not the one that the other nodes use.
    #[error(
        "the staging area {location} is not the one that cluster {cluster:016x} uses: give every node the same place, such as \
         s3://bucket/prefix or a shared folder"
    )]
    Elsewhere {
        /// Where.
        location: String,
        /// The cluster.
        cluster: u64,
    },
}

/// What is to be done once a submission is written. It is called on the thread that writes, so it must not wait.
pub(crate) type Written = Box<dyn FnOnce(Behind) + Send>;

/// What comes behind a submission that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Others that were written with it, at once.
    More,
    /// Nothing for now: it is the last of those that were written together.
    Nothing,
    /// Whatever others do at this moment.
    Unknown,
}

/// Whether a call has put a submission or found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It has put it.
    New,
    /// It was there, from the same request before. In a folder each process looks after what it has put itself, so it may
    /// be new where another node has put it too.
    There,
}

/// The place of all submissions. Several processes may have it open at once.
#[derive(Debug)]
pub struct StagingArea {
    location: String,
    place: Place,
    lines: Lines,
    /// What of it is whose, as far as this process has put it there.
    shares: Shares,
    /// Whether it is not known whose the place is.
    held: AtomicBool,
}

#[derive(Debug)]
enum Place {
    Folder(Folder),
    Bucket(Bucket),
}

impl StagingArea {
    /// Opens the area in this folder, new or old.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let place = Place::Folder(Folder::open(folder, SUBMISSIONS_MAX)?);
        let lines = folder.join(LINES);
        private_dir(true).create(&lines)?;
        Ok(Self {
            location: folder.display().to_string(),
            place,
            lines: Lines::in_folder(&lines).map_err(unopened)?,
            shares: Shares::of(shares::OF_ONE_BYTES),
            held: AtomicBool::new(false),
        })
    }

    /// Opens the area at a location: a folder, `file://...`, or `s3://bucket/prefix` with the usual `AWS_*` environment. A
    /// store is not asked yet whether it is there.
    ///
    /// # Errors
    /// When the location is wrong, or the folder cannot be made or read.
    pub fn at(location: &str) -> Result<Self, Error> {
        match location.split_once("://") {
            None => Self::open(location),
            Some(("file", path)) if path.starts_with('/') => Self::open(path),
            Some(("file", _)) => Err(Error::Location("write file:///folder".to_owned())),
            Some(_) => Self::in_store(&StoreConfig::at(location)),
        }
    }

    /// Opens the area in an object store.
    ///
    /// # Errors
    /// When the location or an option is wrong.
    pub fn in_store(config: &StoreConfig) -> Result<Self, Error> {
        let (store, prefix) = config
            .object_store()
            .map_err(|error| Error::Location(error.to_string()))?;
        Ok(Self::in_bucket(config.location.clone(), store, prefix))
    }

    fn in_bucket(
        location: String,
        store: Arc<dyn ObjectStore>,
        prefix: object_store::path::Path,
    ) -> Self {
        Self {
            location,
            lines: Lines::new(Arc::clone(&store), prefix.clone().join(LINES)),
            place: Place::Bucket(Bucket::new(store, prefix)),
            shares: Shares::of(shares::OF_ONE_BYTES),
            held: AtomicBool::new(false),
        }
    }

    /// Has the files of one person's jobs that are not over take so many bytes at most, in the place of 1 GiB.
    #[must_use]
    pub fn with_share(mut self, bytes: usize) -> Self {
        self.shares = Shares::of(bytes);
        self
    }

    /// While it is held it may be another place than the cluster's: nothing is put there, no job's files are missing in it,
    /// and none in it are taken for left behind.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// Makes sure that the place is this cluster's. A node that is alone in its cluster may take a place that is nobody's
    /// yet; with other nodes it must be the one that they use. No place is taken that has none of the files that are
    /// `expected`. What was moved here from a place of the other kind, a folder or a bucket, is kept as here from then on.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::WithoutFiles`] and [`Error::Elsewhere`] when the place is another; any other when it
    /// cannot be asked.
    pub async fn claim(
        &self,
        cluster: u64,
        alone: bool,
        expected: &[StagingId],
    ) -> Result<(), Error> {
        let mine = marker(cluster);
        let mut owner = self.marker().await?;
        let takes = owner.is_none() && alone;
        if (takes || owner.as_ref() == Some(&mine)) && self.has_none(expected).await? {
            let location = self.location.clone();
            return Err(Error::WithoutFiles { location });
        }
        if takes {
            match &self.place {
                Place::Folder(folder) => folder.mark(mine.clone()).await?,
                Place::Bucket(bucket) => bucket.mark(mine.clone()).await?,
            }
            // Of two that claim it at once only one has got it.
            owner = self.marker().await?;
        }
        let location = self.location.clone();
        match owner {
            Some(owner) if owner == mine => match &self.place {
                Place::Folder(folder) => folder.adopt().await,
                Place::Bucket(bucket) => bucket.adopt().await,
            },
            Some(owner) => Err(Error::Foreign {
                location,
                owner: words(&owner),
                cluster,
            }),
            None => Err(Error::Elsewhere { location, cluster }),
        }
    }

    /// Whether some submissions are expected and none of them is here.
    async fn has_none(&self, expected: &[StagingId]) -> Result<bool, Error> {
        for staging in expected {
            match self.find(*staging).await {
                Err(Error::Missing) => {}
                // What is damaged is here as well.
                Ok(_) | Err(Error::Damaged) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(!expected.is_empty())
    }

    /// Why nothing can be kept at the moment, in one sentence, as far as a folder can tell.
    pub(crate) async fn trouble(&self) -> Option<&'static str> {
        match &self.place {
            Place::Folder(folder) => folder.trouble().await,
            Place::Bucket(_) => None,
        }
    }

    /// What trainers have printed.
    pub(crate) const fn lines(&self) -> &Lines {
        &self.lines
    }

    async fn marker(&self) -> Result<Option<String>, Error> {
        match &self.place {
            Place::Folder(folder) => folder.marker().await,
            Place::Bucket(bucket) => bucket.marker().await,
        }
    }

    /// Takes room for these submissions in the share of whom they are, before they are put; for all of them or none. Gives back
    /// those that had none before. What is put for nobody needs none. Of a submission that comes to nothing it is given back
    /// by [`Self::give_back`], of all others when they are deleted.
    ///
    /// # Errors
    /// [`Error::Yours`] when the share is used up by what is put and `is_needed`.
    pub(crate) fn take_share(
        &self,
        whose: Option<Owner>,
        asked: &[(StagingId, &[StagedFile])],
        is_needed: &dyn Fn(&StagingId) -> bool,
    ) -> Result<Vec<StagingId>, Error> {
        let Some(whose) = whose else {
            return Ok(Vec::new());
        };
        let sizes = asked.iter().map(|(of, files)| (*of, shares::bytes(files)));
        let sizes: Vec<(StagingId, usize)> = sizes.collect();
        let taken = self.shares.take(whose.user, &sizes, is_needed);
        taken.map_err(|shares::Full(bytes)| Error::Yours(bytes))
    }

    /// Gives back the room of submissions that have come to nothing.
    pub(crate) fn give_back<'a>(&self, of: impl IntoIterator<Item = &'a StagingId>) {
        of.into_iter().for_each(|of| self.shares.give_back(*of));
    }

    /// Keeps the files of a submission. When it returns they are safe.
    pub(crate) async fn put(&self, staging: StagingId, files: &[StagedFile]) -> Result<Put, Error> {
        self.put_and(staging, files, Box::new(|_| {})).await
    }

    /// The same, and calls `written` as soon as every process finds the files, which is before they are safe: they are lost
    /// only with the whole machine. Not called when they cannot be written.
    pub(crate) async fn put_and(
        &self,
        staging: StagingId,
        files: &[StagedFile],
        written: Written,
    ) -> Result<Put, Error> {
        self.is_known()?;
        match &self.place {
            Place::Folder(folder) => folder.put(staging, files, written).await,
            Place::Bucket(bucket) => {
                let put = bucket.put(staging, files).await?;
                written(Behind::Unknown);
                Ok(put)
            }
        }
    }

    /// The files of a submission.
    pub(crate) async fn get(&self, staging: StagingId) -> Result<Vec<StagedFile>, Error> {
        self.is_known()?;
        self.find(staging).await
    }

    fn is_known(&self) -> Result<(), Error> {
        match self.held.load(Ordering::Relaxed) {
            true => Err(Error::Store(UNKNOWN.into())),
            false => Ok(()),
        }
    }

    async fn find(&self, staging: StagingId) -> Result<Vec<StagedFile>, Error> {
        match &self.place {
            Place::Folder(folder) => folder.get(staging).await,
            Place::Bucket(bucket) => bucket.get(staging).await,
        }
    }

    /// Deletes the files of a submission that came to nothing. In a folder only what this process has put: another node may
    /// have put the same, and have a job for it.
    pub(crate) async fn take_back(&self, staging: StagingId) -> Result<(), Error> {
        match &self.place {
            Place::Folder(folder) => folder.remove(staging, true).await,
            Place::Bucket(bucket) => bucket.remove(staging).await,
        }?;
        self.shares.give_back(staging);
        Ok(())
    }

    /// Deletes the files of a submission, if there are any.
    pub(crate) async fn remove(&self, staging: StagingId) -> Result<(), Error> {
        match &self.place {
            Place::Folder(folder) => folder.remove(staging, false).await,
            Place::Bucket(bucket) => bucket.remove(staging).await,
        }?;
        self.shares.give_back(staging);
        Ok(())
    }
}

impl Staging for StagingArea {
    fn delete(&self, staging: StagingId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { self.remove(staging).await.map_err(PortError::new) })
    }

    fn older_than(
        &self,
        age: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StagingId>, PortError>> {
        Box::pin(async move {
            if self.is_known().is_err() {
                return Ok(Vec::new());
            }
            let found = match &self.place {
                Place::Folder(folder) => folder.older_than(age, limit).await,
                Place::Bucket(bucket) => bucket.older_than(age, limit).await,
            };
            found.map_err(PortError::new)
        })
    }

    fn keep_lines(&self, job: JobId, epoch: Epoch, lines: &[String]) {
        self.lines.append(job, epoch, lines);
    }

    fn keep_progress(
        &self,
        job: JobId,
        epoch: Epoch,
        progress: &Progress,
        left: Option<Quantiles>,
    ) {
        self.lines.progress(job, epoch, progress, left);
    }

    fn lines_change_hands(&self) {
        self.lines.change_hands();
    }

    fn jobs_with_lines(&self, limit: usize) -> BoxFuture<'_, Result<Vec<JobId>, PortError>> {
        Box::pin(async move {
            if self.is_known().is_err() {
                return Ok(Vec::new());
            }
            self.lines.jobs(limit).await.map_err(PortError::new)
        })
    }

    fn forget_lines(&self, job: JobId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { self.lines.forget(job).await.map_err(PortError::new) })
    }
}

/// The place of lines cannot be opened.
fn unopened(error: object_store::Error) -> Error {
    Error::Store(Box::new(error))
}

/// A staging area that cannot be used, to a caller. What the disk says stays in the server's log.
pub(crate) fn unusable(error: &Error) -> Status {
    tracing::error!(error = ?error, "the staging area cannot be used");
    status::internal("STAGING_UNUSABLE", "the server cannot use its staging area")
}

/// No room in the staging area, which is not the disk of the data folder as a rule.
pub(crate) fn no_room() -> Status {
    let message = "the disk of the staging area is nearly full, so nothing new is taken";
    Refusal::new(Code::ResourceExhausted, "STAGING_DISK_FULL", message)
        .hint("make room on the disk of the folder that --staging names, without which it is in the data folder; running jobs go on")
        .quota("disk", message)
        .retry(RETRY_FULL)
        .into()
}

/// What the marker says.
fn marker(cluster: u64) -> String {
    format!("cluster {cluster:016x}\n")
}

/// A marker as a person reads it: what is no marker of ours is not repeated.
fn words(marker: &str) -> String {
    let id = marker.strip_prefix("cluster ").map(str::trim_end);
    let id = id.filter(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    id.map_or_else(|| "something else".to_owned(), |id| format!("cluster {id}"))
}

fn private_dir(recursive: bool) -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(recursive).mode(0o700);
    builder
}
