//! Where every job's times come together: from the moment it was meant to be sent to its answer and to its worker.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::processor::Spent;

/// Longest time that is told apart, in microseconds: a minute.
const LONGEST_US: u64 = 60_000_000;

/// Decimal digits that are told apart.
const DIGITS: u8 = 3;

/// The times of one run.
#[derive(Default)]
pub(crate) struct Board {
    inner: Mutex<Inner>,
    placed: Notify,
    answers_only: bool,
}

#[derive(Default)]
struct Inner {
    /// Jobs of which one of the two is known.
    half: HashMap<String, Half>,
    acked: Times,
    placed: Times,
    first: Option<Instant>,
    last_acked: Option<Instant>,
    last_placed: Option<Instant>,
    /// Jobs that were placed more often than once, after a worker came anew.
    again: u64,
}

enum Half {
    /// Answered; meant to be sent then.
    Acked(Option<Instant>),
    /// At its worker since then.
    Placed(Instant),
}

/// A number of times.
#[derive(Clone)]
pub(crate) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // These bounds are ones that the histogram takes.
        Self(
            Histogram::new_with_bounds(1, LONGEST_US, DIGITS)
                .unwrap_or_else(|error| unreachable!("{error}")),
        )
    }
}

impl Times {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0
            .saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).max(1));
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time in milliseconds that this share of them stays within.
    pub(crate) fn ms(&self, share: f64) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        self.0.value_at_quantile(share) as f64 / 1e3
    }
}

/// What one run came to.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// From the moment each was meant to be sent to its answer.
    pub(crate) acked: Times,
    /// From the same moment to the worker that is told to run it.
    pub(crate) placed: Times,
    /// From the first such moment to the last answer.
    pub(crate) acking: Duration,
    /// From the first such moment to the last worker told.
    pub(crate) placing: Duration,
    /// What it took of the processors, warm-up included.
    pub(crate) spent: Spent,
}

impl Tally {
    /// Several measurements as if they were one.
    pub(crate) fn together(all: &[Self]) -> Self {
        let mut together = Self::default();
        for one in all {
            together.acked.0 += &one.acked.0;
            together.placed.0 += &one.placed.0;
            together.acking += one.acking;
            together.placing += one.placing;
            together.spent += one.spent;
        }
        together
    }

    pub(crate) fn acked_per_second(&self) -> f64 {
        self.acked.count() as f64 / self.acking.as_secs_f64()
    }

    pub(crate) fn placed_per_second(&self) -> f64 {
        self.placed.count() as f64 / self.placing.as_secs_f64()
    }
}

impl Board {
    /// For writes that no worker ever hears of.
    pub(crate) fn of_answers() -> Self {
        Self {
            answers_only: true,
            ..Self::default()
        }
    }

    /// A job was answered. Warm-up counts for nothing and is marked by no time.
    pub(crate) fn acked(&self, job: &str, meant: Option<Instant>, now: Instant) {
        let mut inner = self.inner.lock();
        if let Some(meant) = meant {
            inner.acked.add(now - meant);
            inner.first = Some(inner.first.map_or(meant, |first| first.min(meant)));
            inner.last_acked = Some(now);
        }
        if self.answers_only {
            return;
        }
        match inner.half.remove(job) {
            Some(Half::Placed(at)) => inner.both(meant, at),
            _ => drop(inner.half.insert(job.to_owned(), Half::Acked(meant))),
        }
        self.tell(inner);
    }

    /// A job has come to a worker.
    pub(crate) fn placed(&self, job: &str, now: Instant) {
        let mut inner = self.inner.lock();
        match inner.half.remove(job) {
            Some(Half::Acked(meant)) => inner.both(meant, now),
            Some(Half::Placed(first)) => {
                inner.again += 1;
                inner.half.insert(job.to_owned(), Half::Placed(first));
            }
            None => drop(inner.half.insert(job.to_owned(), Half::Placed(now))),
        }
        self.tell(inner);
    }

    /// Waits until every job that was answered has come to a worker; how many had not in this time.
    pub(crate) async fn settled(&self, within: Duration) -> usize {
        let waiting = async {
            loop {
                let told = self.placed.notified();
                if self.inner.lock().half.is_empty() {
                    return;
                }
                told.await;
            }
        };
        let _late = tokio::time::timeout(within, waiting).await;
        self.inner.lock().half.len()
    }

    /// Forgets what was half known and gives what was measured.
    pub(crate) fn take(&self) -> Tally {
        let inner = std::mem::take(&mut *self.inner.lock());
        let since = |last: Option<Instant>| match (inner.first, last) {
            (Some(first), Some(last)) => last - first,
            _ => Duration::ZERO,
        };
        Tally {
            acking: since(inner.last_acked),
            placing: since(inner.last_placed),
            acked: inner.acked,
            placed: inner.placed,
            spent: Spent::default(),
        }
    }

    fn tell(&self, inner: parking_lot::MutexGuard<'_, Inner>) {
        let empty = inner.half.is_empty();
        drop(inner);
        if empty {
            self.placed.notify_waiters();
        }
    }
}

impl Inner {
    fn both(&mut self, meant: Option<Instant>, placed: Instant) {
        if let Some(meant) = meant {
            self.placed.add(placed - meant);
            self.last_placed = Some(placed);
        }
    }
}
