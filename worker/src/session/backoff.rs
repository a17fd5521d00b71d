//! Waits between tries: they double to a bound, and are spread so that a fleet does not return all at once.

use std::time::Duration;

use crate::random;

/// The first wait. A leader change takes about a second.
const FIRST_MS: u64 = 250;

/// The longest wait: a lease term is longer, so one lost try does not cost a running attempt its lease.
const LONGEST_MS: u64 = 5_000;

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked: start over.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait before the next try: between half of the doubled time and all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = FIRST_MS
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST_MS);
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
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(FIRST_MS));
    }
}
