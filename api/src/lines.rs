//! What trainers print, kept for as long as their job is known: beside the staging area, where every node can read it.
//!
//! Lines come redacted. A job's lines are parts that only grow: the newest is written anew, longer, until it is full, and
//! no part ever changes what was in it, so whoever reads twice finds the first answer at the beginning of the second. Only
//! what is kept is shown, so that a restart takes nothing back.

mod listing;
mod progress;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use stepcast_cluster::session::Progress;
use stepcast_records::Quantiles;
use stepcast_scheduler::ids::{Epoch, JobId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use self::listing::Listing;
use self::progress::Pace;

/// A part is full with so many bytes. The newest part of every job that prints is in memory.
const PART_BYTES: usize = 32 << 10;

/// Bytes of one job's lines: sixteen attempts that each print as much as a worker sends of one.
const JOB_BYTES: u64 = 16 << 20;

/// Lines are kept this long after they came, so that many of them share a write.
const EVERY: Duration = Duration::from_secs(1);

/// Bytes that wait to be kept, of all jobs. Beyond it lines are dropped, and the log says so.
const WAITING_BYTES: usize = 64 << 20;

/// Writes to the store at once.
const WRITES: usize = 32;

/// A job that has printed nothing for so long is put out of memory; its next line goes on where the last one stands.
const QUIET: Duration = Duration::from_secs(60);

/// What stands before a line that is not the trainer's.
const OURS: &str = "[stepcast]";

/// Lines of every job, in one place.
pub(crate) struct Lines {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Tells this writer's parts from those of a node that led before.
    writer: u32,
    books: Mutex<Books>,
    wake: Notify,
    listing: Listing,
}

#[derive(Default)]
struct Books {
    jobs: BTreeMap<JobId, Book>,
    waiting: usize,
}

/// The newest part of one job.
struct Book {
    epoch: Epoch,
    pace: Pace,
    /// The number of the newest part, once it is known.
    part: Option<u32>,
    /// Bytes in the parts before it.
    before: u64,
    /// All of the newest part.
    text: String,
    /// How much of it is kept.
    kept: usize,
    /// How much of it is kept or on its way.
    sent: usize,
    /// Whether lines were dropped since the last write.
    dropped: bool,
    /// Whether the job has all the lines that it may have.
    full: bool,
    /// Whether the last part that is kept is gone on with, if it is this writer's. Not once it has changed hands.
    goes_on: bool,
    heard: Instant,
}

impl Lines {
    /// In this store below this prefix.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self::listed(store, prefix, Listing::Store(Mutex::default()))
    }

    /// In this folder, which is there.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn in_folder(root: &std::path::Path) -> Result<Self, object_store::Error> {
        let store = Arc::new(LocalFileSystem::new_with_prefix(root)?);
        let listing = Listing::Folder(root.to_owned(), Mutex::default());
        Ok(Self::listed(store, Path::default(), listing))
    }

    fn listed(store: Arc<dyn ObjectStore>, prefix: Path, listing: Listing) -> Self {
        Self {
            store,
            prefix,
            writer: rand::random(),
            books: Mutex::default(),
            wake: Notify::new(),
            listing,
        }
    }

    /// Takes lines that a job's trainer has printed; they are kept a moment later.
    pub(crate) fn append(&self, job: JobId, epoch: Epoch, lines: &[String]) {
        self.with(job, epoch, |book, waiting| {
            for line in lines {
                book.push(line, waiting);
            }
        });
    }

    /// Takes how far a job is and how long it still takes; says so now and then, where people look.
    pub(crate) fn progress(
        &self,
        job: JobId,
        epoch: Epoch,
        progress: &Progress,
        left: Option<Quantiles>,
    ) {
        self.with(job, epoch, |book, waiting| {
            if let Some(line) = book.pace.line(progress, left, Instant::now()) {
                book.push(&line, waiting);
            }
        });
    }

    fn with(&self, job: JobId, epoch: Epoch, change: impl FnOnce(&mut Book, &mut usize)) {
        let mut books = self.books.lock();
        let Books { jobs, waiting } = &mut *books;
        let book = jobs.entry(job).or_insert_with(|| Book::new(epoch));
        if book.epoch != epoch {
            book.epoch = epoch;
            book.pace = Pace::default();
            book.push(&format!("{OURS} another attempt"), waiting);
        }
        book.heard = Instant::now();
        change(book, waiting);
        self.wake.notify_one();
    }

    /// Begins a new part of each job: another node leads, whose parts come before it, or has led since the last one.
    pub(crate) fn change_hands(&self) {
        let mut books = self.books.lock();
        books.jobs.retain(|_, book| {
            book.text.drain(..book.kept);
            book.sent = book.sent.saturating_sub(book.kept);
            (book.part, book.kept) = (None, 0);
            book.goes_on = false;
            book.is_due()
        });
    }

    /// Keeps what comes, for as long as it runs.
    pub(crate) async fn keep(&self) {
        loop {
            self.wake.notified().await;
            sleep(EVERY).await;
            let due: Vec<JobId> = {
                let mut books = self.books.lock();
                books.jobs.retain(|_, book| !book.is_done());
                let due = books.jobs.iter().filter(|(_, book)| book.is_due());
                due.map(|(job, _)| *job).collect()
            };
            let writes = futures::stream::iter(due).map(|job| self.write(job));
            let failed: BTreeSet<bool> = writes.buffer_unordered(WRITES).collect().await;
            if failed.contains(&false) {
                self.wake.notify_one();
            }
        }
    }

    /// Writes the newest part of a job as it is now. Says whether it is kept.
    async fn write(&self, job: JobId) -> bool {
        if self.is_closed(job) {
            if let Err(error) = self.open(job).await {
                return unkept(job, &error);
            }
            // It has changed hands meanwhile.
            if self.is_closed(job) {
                return false;
            }
        }
        let Some((part, text)) = self.newest(job) else {
            return true;
        };
        let object = self.object(job, part);
        let length = text.len();
        if let Err(error) = self.store.put(&object, text.into()).await {
            return unkept(job, &error);
        }
        self.wrote(job, part, length);
        true
    }

    /// So many bytes of a job's part are kept now. It may have been forgotten since they were sent, or have changed hands: then
    /// they are in the part that was the newest, and in no later one.
    fn wrote(&self, job: JobId, part: u32, length: usize) {
        let mut books = self.books.lock();
        let Books { jobs, waiting } = &mut *books;
        let Some(book) = jobs.get_mut(&job) else {
            return;
        };
        if book.part == Some(part) {
            *waiting = waiting.saturating_sub(length.saturating_sub(book.kept));
            book.kept = length;
            book.turn();
        } else {
            *waiting = waiting.saturating_sub(book.sent);
            book.text.drain(..book.sent);
        }
        book.sent = 0;
    }

    /// Whether it is not known yet which part of it is the newest.
    fn is_closed(&self, job: JobId) -> bool {
        let books = self.books.lock();
        books.jobs.get(&job).is_some_and(|book| book.part.is_none())
    }

    /// Finds out which part is the newest: the last one, if it is this writer's and not full, or else the next.
    async fn open(&self, job: JobId) -> Result<(), object_store::Error> {
        let parts = self.parts(job).await?;
        let goes_on = self
            .books
            .lock()
            .jobs
            .get(&job)
            .is_some_and(|book| book.goes_on);
        let last = parts.0.last().filter(|(number, object)| {
            goes_on
                && object.size < PART_BYTES as u64
                && object.location == self.object(job, *number)
        });
        let (part, begun) = match last {
            Some((number, object)) => {
                let begun = self.store.get(&object.location).await?.bytes().await?;
                (*number, String::from_utf8_lossy(&begun).into_owned())
            }
            None => (parts.next(), String::new()),
        };
        let before = parts.bytes().saturating_sub(begun.len() as u64);
        let mut books = self.books.lock();
        let Books { jobs, waiting } = &mut *books;
        if let Some(book) = jobs.get_mut(&job)
            && book.goes_on == goes_on
        {
            book.begin(part, begun, before, waiting);
        }
        Ok(())
    }

    fn newest(&self, job: JobId) -> Option<(u32, Vec<u8>)> {
        let mut books = self.books.lock();
        let Books { jobs, waiting } = &mut *books;
        let book = jobs.get_mut(&job)?;
        if std::mem::take(&mut book.dropped) {
            let said = format!("{OURS} lines were left out here\n");
            book.text.push_str(&said);
            *waiting += said.len();
        }
        let part = book.part?;
        book.sent = book.text.len();
        Some((part, book.text.clone().into_bytes()))
    }

    fn folder(&self, job: JobId) -> Path {
        self.prefix.clone().join(job.to_string())
    }

    fn object(&self, job: JobId, part: u32) -> Path {
        self.folder(job)
            .join(format!("{part:08}-{:08x}", self.writer))
    }
}

impl Book {
    fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            pace: Pace::default(),
            part: None,
            before: 0,
            text: String::new(),
            kept: 0,
            sent: 0,
            dropped: false,
            full: false,
            goes_on: true,
            heard: Instant::now(),
        }
    }

    fn push(&mut self, line: &str, waiting: &mut usize) {
        let bytes = line.len() + 1;
        let all = self.before + self.text.len() as u64;
        if all + bytes as u64 > JOB_BYTES {
            // Said once.
            self.dropped |= !std::mem::replace(&mut self.full, true);
            return;
        }
        if *waiting + bytes > WAITING_BYTES {
            self.dropped = true;
            return;
        }
        self.text.push_str(line);
        self.text.push('\n');
        *waiting += bytes;
    }

    /// What came since is behind what is kept. As many lines are left out as the job may not have.
    fn begin(&mut self, part: u32, begun: String, before: u64, waiting: &mut usize) {
        (self.part, self.before, self.kept) = (Some(part), before, begun.len());
        let came = std::mem::replace(&mut self.text, begun);
        *waiting = waiting.saturating_sub(came.len());
        // It was said where the last one that it may have stands.
        self.full = before + self.text.len() as u64 >= JOB_BYTES;
        for line in came.split_terminator('\n') {
            self.push(line, waiting);
        }
        self.goes_on = true;
    }

    fn is_due(&self) -> bool {
        self.kept < self.text.len() || self.dropped
    }

    fn is_done(&self) -> bool {
        !self.is_due() && self.heard.elapsed() > QUIET
    }

    /// A full part stays as it is, and the next one begins.
    fn turn(&mut self) {
        if self.kept < PART_BYTES {
            return;
        }
        self.before += self.kept as u64;
        self.part = self.part.map(|part| part + 1);
        self.text.drain(..self.kept);
        self.kept = 0;
    }
}

fn unkept(job: JobId, error: &object_store::Error) -> bool {
    tracing::warn!(%job, %error, "lines of a trainer were not kept yet");
    false
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
