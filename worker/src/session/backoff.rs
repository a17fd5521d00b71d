//! Waits between tries: they double to a bound, and are spread so that a fleet does not return all at once.

use std::time::Duration;

use crate::random;

/// The first wait.
const FIRST_MS: u64 = 250;

/// The longest wait: a lease term is longer, so one lost try does not cost a running attempt its lease.
const LONGEST_MS: u64 = 5_000;

/// The first wait of somebody who looks for the leader.
const SEARCH_FIRST_MS: u64 = 100;

/// The longest wait of the same: what runs should not wait longer for its lease to be renewed.
const SEARCH_LONGEST_MS: u64 = 1_000;

/// Waits of a length in that search: a new leader is known within a second, which four short waits and four of twice that
/// fill.
const SEARCH_TRIES: u32 = 4;

/// Counts failures in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    /// Waits before the next is twice as long.
    tries: u32,
    first_ms: u64,
    longest_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            failures: 0,
            tries: 1,
            first_ms: FIRST_MS,
            longest_ms: LONGEST_MS,
        }
    }
}

impl Backoff {
    /// Shorter waits, for finding the leader while attempts run.
    pub(crate) fn search() -> Self {
        Self {
            failures: 0,
            tries: SEARCH_TRIES,
            first_ms: SEARCH_FIRST_MS,
            longest_ms: SEARCH_LONGEST_MS,
        }
    }

    /// It worked: start over.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait before the next try: between half of the doubled time and all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = self
            .first_ms
            .saturating_mul(1 << (self.failures / self.tries).min(16))
            .min(self.longest_ms);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(whole / 2 + random::below(whole / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        for failures in 0..40 {
            let whole = (FIRST_MS << failures.min(10)).min(LONGEST_MS);
            let wait = u64::try_from(backoff.next().as_millis()).unwrap_or(u64::MAX);
            assert!((whole / 2..=whole).contains(&wait), "{failures}: {wait}");
        }
        let mut search = Backoff::search();
        let all: Duration = (0..8).map(|_| search.next()).sum();
        let bounds = Duration::from_millis(600)..=Duration::from_millis(1_200);
        assert!(bounds.contains(&all), "{all:?}");
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(FIRST_MS));
    }
}
