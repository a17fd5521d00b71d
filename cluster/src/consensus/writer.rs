//! The thread that owns the log: it merges every write that is waiting into one, with one sync.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft::eraftpb::Message;

use super::event::Event;
use super::handle::{Shared, Stall, State};
use super::log::{Batch, Error, LogStore, Position};
use super::peer::Write;
use super::queue::Queue;
use super::transport::Transport;

/// A merged write ends at this size, so that the first waiter in it does not wait for the last byte of a long queue.
const MERGE_BYTES: usize = 8 << 20;

/// Space of forgotten entries is given back this often.
const PURGE_EVERY: Duration = Duration::from_secs(10);

/// A failed write is tried again after this long at first,
const RETRY_FIRST: Duration = Duration::from_millis(250);

/// and after twice as long each time up to this: on a full disk every try may leave another empty file.
const RETRY_AT_MOST: Duration = Duration::from_secs(4);

/// A write that takes longer than this is told: an election takes about as long, and everything that is acknowledged waits
/// for two of them.
const SLOW: Duration = Duration::from_millis(500);

/// It is told again after this long at the soonest, for as long as it is so.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// How often a pause looks whether the node is to stop.
const PAUSE: Duration = Duration::from_millis(50);

/// What the log thread is told.
pub(super) enum Job {
    /// One turn's write.
    Write(Write),
    /// Everything up to here is in a snapshot.
    Compact(Position),
}

pub(super) struct Writer<L, R> {
    log: L,
    jobs: Arc<Queue<Job>>,
    shared: Arc<Shared<R>>,
    transport: Arc<dyn Transport>,
    purged: Instant,
    /// When a slow write was told last.
    told_slow: Option<Instant>,
}

/// Several turns as one write.
#[derive(Default)]
struct Merged {
    batch: Batch,
    number: u64,
    sync: bool,
    then_send: Vec<Message>,
}

impl Merged {
    fn add(&mut self, write: Write) {
        self.batch.merge(write.batch);
        self.number = write.number;
        self.sync |= write.sync;
        self.then_send.extend(write.then_send);
    }
}

impl<L: LogStore, R: Send + 'static> Writer<L, R> {
    pub(super) fn new(
        log: L,
        jobs: Arc<Queue<Job>>,
        shared: Arc<Shared<R>>,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self {
            log,
            jobs,
            shared,
            transport,
            purged: Instant::now(),
            told_slow: None,
        }
    }

    pub(super) fn run(self) {
        // A store that panics (a failed fsync does that) is left as it is: closing it would sync again.
        let mut kept = ManuallyDrop::new(self);
        kept.write_all();
        drop(ManuallyDrop::into_inner(kept));
    }

    fn write_all(&mut self) {
        let mut jobs = Vec::new();
        while self.jobs.drain(&mut jobs, PURGE_EVERY) {
            if !self.work(&mut jobs) {
                return;
            }
            if self.purged.elapsed() >= PURGE_EVERY {
                self.purge();
            }
        }
    }

    /// Does the jobs in order; false if the log failed for good.
    fn work(&mut self, jobs: &mut Vec<Job>) -> bool {
        let mut merged = Merged::default();
        for job in jobs.drain(..) {
            match job {
                Job::Write(write) => {
                    merged.add(write);
                    if merged.batch.bytes() >= MERGE_BYTES
                        && !self.write(std::mem::take(&mut merged))
                    {
                        return false;
                    }
                }
                Job::Compact(to) => {
                    if !self.write(std::mem::take(&mut merged)) {
                        return false;
                    }
                    // A log that is not compacted is only longer than it need be.
                    if let Err(error) = self.log.compact(to) {
                        tracing::warn!(%error, index = to.index, "the log could not be compacted");
                    }
                }
            }
        }
        self.write(merged)
    }

    /// Writes until it works: nothing after it may count before it is on disk. False if consensus stops meanwhile.
    fn write(&mut self, merged: Merged) -> bool {
        if merged.number == 0 {
            return true;
        }
        let mut stalled = false;
        let mut pause = RETRY_FIRST;
        while !merged.batch.is_empty() {
            let begun = Instant::now();
            let written = self.log.write(&merged.batch, merged.sync);
            self.note_slow(begun.elapsed());
            match written {
                Ok(()) => break,
                Err(error) => {
                    // Whoever sees what comes of it also sees why.
                    self.shared.stalled(Some(stall(&error)));
                    if !stalled {
                        tracing::error!(%error, "the log cannot be written; nothing is acknowledged until it can");
                        let _ = self.shared.tell(Event::Stalled(true));
                    }
                    stalled = true;
                }
            }
            if !self.pause(pause) {
                return false;
            }
            pause = (pause * 2).min(RETRY_AT_MOST);
        }
        if stalled {
            tracing::info!("the log can be written again");
            self.shared.stalled(None);
            let _ = self.shared.tell(Event::Stalled(false));
        }
        if !merged.then_send.is_empty() {
            self.transport.send(merged.then_send);
        }
        let _ = self.shared.tell(Event::Persisted(merged.number));
        true
    }

    fn note_slow(&mut self, took: Duration) {
        let told = |told: Instant| told.elapsed() < TOLD_AGAIN;
        if took >= SLOW && !self.told_slow.is_some_and(told) {
            self.told_slow = Some(Instant::now());
            let ms = took.as_millis();
            tracing::warn!(ms, "the disk under the log is slow");
        }
    }

    /// Waits; false if the node stops meanwhile.
    fn pause(&self, pause: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < pause {
            if matches!(&*self.shared.state.read(), State::Stopped(_)) {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    }

    fn purge(&mut self) {
        self.purged = Instant::now();
        if let Err(error) = self.log.purge() {
            tracing::warn!(%error, "the log's space could not be given back");
        }
    }
}

fn stall(error: &Error) -> Stall {
    match error {
        Error::Full => Stall::Full,
        other => Stall::Failing(other.to_string()),
    }
}
