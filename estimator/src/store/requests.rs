//! How many requests a process has sent to its stores, how they ended, and how long the last ones took.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use object_store::Error;
use stepcast_records::metrics::{Exposition, Metric};

const REQUESTS_TOTAL: Metric = Metric::counter(
    "stepcast_object_store_requests_total",
    "Requests to object stores, by what they do and how they end.",
);

/// Puts whose times are kept: some minutes of a busy cluster, and enough to tell a p95.
const RECENT: usize = 128;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    Head,
    Put,
    List,
    Delete,
    Copy,
}

/// Operations as the label `operation`, in their order.
const OPERATIONS: [&str; 6] = ["get", "head", "put", "list", "delete", "copy"];

/// How requests end, as the label `result`. What is not there, or there already, is an answer and no failure.
const RESULTS: [&str; 4] = ["ok", "not_found", "conflict", "failed"];

/// Counted requests. Each counts once, however often the store's client tries, and an object that goes in parts too.
#[derive(Debug)]
pub struct Requests {
    counts: [[AtomicU64; RESULTS.len()]; OPERATIONS.len()],
    /// How long the newest puts took that the store has answered, in microseconds.
    puts: Mutex<VecDeque<u64>>,
}

/// Those of every store that this process has opened.
static OF_PROCESS: Requests = Requests::new();

impl Requests {
    pub(super) const fn new() -> Self {
        Self {
            counts: [const { [const { AtomicU64::new(0) }; RESULTS.len()] }; OPERATIONS.len()],
            puts: Mutex::new(VecDeque::new()),
        }
    }

    /// Those of every store that this process has opened: tables, and what lies in a bucket beside them.
    #[must_use]
    pub fn of_process() -> &'static Self {
        &OF_PROCESS
    }

    pub(super) fn count(&self, operation: Operation, result: usize) {
        self.counts[operation as usize][result].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn put_took(&self, took: Duration) {
        let mut puts = self.puts.lock().unwrap_or_else(PoisonError::into_inner);
        if puts.len() == RECENT {
            puts.pop_front();
        }
        puts.push_back(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Of twenty puts nineteen were answered within this time, lately; `None` before the first.
    #[must_use]
    pub fn put_p95(&self) -> Option<Duration> {
        let puts = self.puts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut puts: Vec<u64> = puts.iter().copied().collect();
        puts.sort_unstable();
        let place = (puts.len() * 95).div_ceil(100).checked_sub(1)?;
        Some(Duration::from_micros(*puts.get(place)?))
    }

    /// The counters in the text format that Prometheus reads; what has not happened is left out.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let mut text = Exposition::default();
        text.begin(&REQUESTS_TOTAL);
        for (operation, counts) in OPERATIONS.iter().zip(&self.counts) {
            for (result, count) in RESULTS.iter().zip(counts) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = format!("operation=\"{operation}\",result=\"{result}\"");
                    text.value(&REQUESTS_TOTAL, &labels, count);
                }
            }
        }
        text.into_text()
    }
}

/// The place in [`RESULTS`] of how a request ended.
pub(super) fn result_of<T>(answer: &Result<T, Error>) -> usize {
    match answer {
        Ok(_) => 0,
        Err(Error::NotFound { .. }) => 1,
        Err(
            Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. },
        ) => 2,
        Err(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_puts_tell_how_long_one_takes() {
        let requests = Requests::new();
        assert_eq!(requests.put_p95(), None);
        requests.put_took(Duration::from_secs(9));
        assert_eq!(requests.put_p95(), Some(Duration::from_secs(9)));
        for ms in 1..=RECENT as u64 {
            requests.put_took(Duration::from_millis(ms));
        }
        assert_eq!(requests.put_p95(), Some(Duration::from_millis(122)));
    }

    #[test]
    fn what_has_happened_is_told_by_operation_and_result() {
        let requests = Requests::new();
        requests.count(Operation::Put, 2);
        requests.count(Operation::Copy, 3);
        let text = requests.metrics_text();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "stepcast_object_store_requests_total{operation=\"put\",result=\"conflict\"} 1",
                "stepcast_object_store_requests_total{operation=\"copy\",result=\"failed\"} 1"
            ]
        );
    }
}
