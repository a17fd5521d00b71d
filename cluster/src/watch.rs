//! Streams of what happens to one job: without a gap, in order, and never kept back by a slow reader.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use futures::Stream;
use parking_lot::Mutex;
use stepcast_records::Quantiles;
use stepcast_scheduler::ids::{Epoch, JobId};
use tokio::sync::mpsc;

use crate::session::Progress;

/// Updates on their way to one watcher. A job has a few dozen events in its life; what fills this is live progress,
/// which is left out for a reader that is behind.
const BUFFER: usize = 256;

/// Open watches on one node: each costs a few KiB.
const WATCHES: usize = 20_000;

/// One thing a watcher is told. `V` is the job's value, `E` an event of its history.
#[derive(Debug, Clone, PartialEq)]
pub enum Update<V, E> {
    /// The job as it is now: always the first update. Every later event has a higher number than `seq`.
    Current {
        /// Number of the newest event that is in the value.
        seq: u64,
        /// The job.
        job: Box<V>,
    },
    /// The next event of the job's history.
    Event {
        /// Its number: one more than that of the event before.
        seq: u64,
        /// What happened.
        event: E,
    },
    /// How far an attempt is. From memory only: some may be left out, and a new leader starts without any.
    Progress {
        /// Which attempt.
        epoch: Epoch,
        /// How far.
        progress: Progress,
        /// How long it still takes, in milliseconds; `None` while nothing says.
        left: Option<Quantiles>,
    },
    /// Lines that an attempt's trainer printed. From memory only, like progress.
    Log {
        /// Which attempt.
        epoch: Epoch,
        /// The lines, oldest first.
        lines: Vec<String>,
    },
    /// The reader was too slow, or a snapshot took this node over them: events after `seq` were not kept for it: watch again. Always the last update.
    Behind {
        /// Number of the last event it was given.
        seq: u64,
    },
}

/// Why a watch was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// There is no such job, or it has been deleted.
    #[error("there is no such job")]
    NoSuchJob,
    /// Too many watches are open on this node.
    #[error("too many watches are open")]
    Busy,
}

/// The watchers of each job.
type Watchers<V, E> = Mutex<BTreeMap<JobId, Vec<Watcher<V, E>>>>;

/// Everybody who watches.
#[derive(Debug)]
pub(crate) struct Hub<V, E> {
    watchers: Arc<Watchers<V, E>>,
    open: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Watcher<V, E> {
    updates: mpsc::Sender<Update<V, E>>,
    /// Number of the newest event that is in the queue.
    seq: u64,
    behind: Arc<AtomicBool>,
}

/// An open watch: a stream of updates. It ends after the event that ends the job, or after [`Update::Behind`].
#[derive(Debug)]
pub struct Watch<V, E> {
    updates: mpsc::Receiver<Update<V, E>>,
    seq: u64,
    behind: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    job: JobId,
    /// Where its other half is, for as long as there is anybody to tell it something.
    watchers: Weak<Watchers<V, E>>,
}

impl<V, E> Default for Hub<V, E> {
    fn default() -> Self {
        Self {
            watchers: Arc::default(),
            open: Arc::new(AtomicUsize::new(0)),
        }
    }
}

impl<V, E> Hub<V, E> {
    /// Opens a watch that starts with `current`, in which every event up to `seq` is contained. To be called while no
    /// entry can be applied; an event that is published later and is older is left out. A job that is `over` has no
    /// later events.
    pub(crate) fn open(
        &self,
        job: JobId,
        seq: u64,
        current: V,
        over: bool,
    ) -> Result<Watch<V, E>, WatchError> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= WATCHES {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(WatchError::Busy);
        }
        let (updates, received) = mpsc::channel(BUFFER);
        let behind = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            updates: received,
            seq,
            behind: Arc::clone(&behind),
            open: Arc::clone(&self.open),
            job,
            watchers: Arc::downgrade(&self.watchers),
        };
        // The queue is empty, so this fits.
        let _ = updates.try_send(Update::Current {
            seq,
            job: Box::new(current),
        });
        if !over {
            let mut all = self.watchers.lock();
            all.entry(job).or_default().push(Watcher {
                updates,
                seq,
                behind,
            });
        }
        Ok(watch)
    }

    /// Tells the job's watchers of an event; with `last`, the streams end after it.
    pub(crate) fn event(&self, job: JobId, seq: u64, event: &E, last: bool)
    where
        E: Clone,
    {
        if self.open.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut all = self.watchers.lock();
        let Some(watchers) = all.get_mut(&job) else {
            return;
        };
        watchers.retain_mut(|watcher| watcher.event(seq, event));
        if last || watchers.is_empty() {
            all.remove(&job);
        }
    }

    /// Ends every watch with [`Update::Behind`]: events were passed over, and whoever wants the rest has to watch again.
    pub(crate) fn restart(&self) {
        for watcher in std::mem::take(&mut *self.watchers.lock())
            .into_values()
            .flatten()
        {
            watcher.behind.store(true, Ordering::Release);
        }
    }

    /// Tells the job's watchers something that may be left out.
    pub(crate) fn live(&self, job: JobId, update: &Update<V, E>)
    where
        V: Clone,
        E: Clone,
    {
        if self.open.load(Ordering::Acquire) == 0 {
            return;
        }
        let all = self.watchers.lock();
        for watcher in all.get(&job).into_iter().flatten() {
            // Half of the queue is for events alone.
            if watcher.updates.capacity() > BUFFER / 2 {
                let _ = watcher.updates.try_send(update.clone());
            }
        }
    }
}

impl<V, E: Clone> Watcher<V, E> {
    /// False once there is nobody to tell, or no room.
    fn event(&mut self, seq: u64, event: &E) -> bool {
        if seq <= self.seq {
            return true;
        }
        self.seq = seq;
        match self.updates.try_send(Update::Event {
            seq,
            event: event.clone(),
        }) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.behind.store(true, Ordering::Release);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

impl<V, E> Watch<V, E> {
    /// The next update; `None` at the end.
    pub async fn next(&mut self) -> Option<Update<V, E>>
    where
        V: Unpin,
        E: Unpin,
    {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<V: Unpin, E: Unpin> Stream for Watch<V, E> {
    type Item = Update<V, E>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Update<V, E>>> {
        let update = ready!(self.updates.poll_recv(context));
        if let Some(Update::Event { seq, .. }) = &update {
            self.seq = *seq;
        }
        let at_end = || {
            self.behind
                .swap(false, Ordering::AcqRel)
                .then_some(Update::Behind { seq: self.seq })
        };
        Poll::Ready(update.or_else(at_end))
    }
}

impl<V, E> Drop for Watch<V, E> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        // The job may have no event for days, and what waits for the next one costs as much as an open watch.
        let Some(watchers) = self.watchers.upgrade() else {
            return;
        };
        let mut all = watchers.lock();
        if let Some(of_job) = all.get_mut(&self.job) {
            of_job.retain(|watcher| !Arc::ptr_eq(&watcher.behind, &self.behind));
            if of_job.is_empty() {
                all.remove(&self.job);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::session::Phase;

    const JOB: JobId = JobId(3);

    type Told = Update<&'static str, u32>;

    fn hub() -> Hub<&'static str, u32> {
        Hub::default()
    }

    fn drain(watch: Watch<&'static str, u32>) -> Vec<Told> {
        let mut watch = Box::pin(watch);
        let mut told = Vec::new();
        while let Some(update) = StreamExt::next(&mut watch).now_or_never().flatten() {
            told.push(update);
        }
        told
    }

    fn progress(step: u64) -> Told {
        let progress = Progress {
            step,
            steps_total: 10,
            step_ms: None,
            phase: Phase::Training,
        };
        Update::Progress {
            epoch: Epoch(1),
            progress,
            left: None,
        }
    }

    #[test]
    fn a_watch_starts_with_the_value_and_goes_on_without_gap_or_repeat() {
        let hub = hub();
        let watch = hub.open(JOB, 5, "five", false).unwrap();
        // Applied before the watch was opened, published after.
        hub.event(JOB, 5, &50, false);
        hub.event(JOB, 6, &60, false);
        hub.live(JOB, &progress(1));
        hub.event(JobId(4), 1, &10, false);
        hub.event(JOB, 7, &70, true);
        let expected = [
            Update::Current {
                seq: 5,
                job: Box::new("five"),
            },
            Update::Event { seq: 6, event: 60 },
            progress(1),
            Update::Event { seq: 7, event: 70 },
        ];
        assert_eq!(drain(watch), expected);
        assert!(hub.watchers.lock().is_empty());
    }

    #[test]
    fn a_slow_reader_is_told_where_to_resume_and_holds_nobody_up() {
        let hub = hub();
        let watch = hub.open(JOB, 0, "new", false).unwrap();
        for seq in 1..=1000 {
            hub.event(JOB, seq, &0, false);
        }
        let told = drain(watch);
        assert_eq!(told.len(), BUFFER + 1);
        assert_eq!(
            told.last(),
            Some(&Update::Behind {
                seq: BUFFER as u64 - 1
            })
        );
    }

    #[test]
    fn watchers_who_left_are_forgotten_however_quiet_their_job_is() {
        let hub = hub();
        for job in 0..3 {
            drop(hub.open(JobId(job), 0, "new", false).unwrap());
        }
        assert!(hub.watchers.lock().is_empty());
        let gone = hub.open(JOB, 0, "new", false).unwrap();
        let watch = hub.open(JOB, 0, "new", false).unwrap();
        drop(gone);
        assert_eq!(hub.watchers.lock()[&JOB].len(), 1);
        hub.event(JOB, 1, &10, true);
        assert_eq!(drain(watch).len(), 2);
        // One that is still read when nobody is left to tell it anything ends.
        let last = hub.open(JOB, 0, "new", false).unwrap();
        drop(hub);
        assert_eq!(drain(last).len(), 1);
    }

    #[test]
    fn progress_never_takes_the_room_of_events() {
        let hub = hub();
        let watch = hub.open(JOB, 0, "new", false).unwrap();
        (0..1000).for_each(|step| hub.live(JOB, &progress(step)));
        (1..=100).for_each(|seq| hub.event(JOB, seq, &0, false));
        let told = drain(watch);
        assert_eq!(
            told.iter()
                .filter(|u| matches!(u, Update::Event { .. }))
                .count(),
            100
        );
        assert!(!told.iter().any(|u| matches!(u, Update::Behind { .. })));
    }

    #[test]
    fn a_job_that_is_over_gives_its_value_and_ends() {
        let hub = hub();
        let watch = hub.open(JOB, 9, "done", true).unwrap();
        assert_eq!(
            drain(watch),
            [Update::Current {
                seq: 9,
                job: Box::new("done")
            }]
        );
        assert_eq!(hub.open.load(Ordering::Relaxed), 0);
    }
}
