//! One bound for everything proposed and not yet answered, so that no queue behind it needs its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Proposals between their entry and their answer. At 50,000 a second this is a third of a second of work: a longer
/// queue would only make everybody wait.
pub const MAX_IN_FLIGHT: usize = 16_384;

/// Bytes of the same. Submissions are a few KiB; this holds ten thousand of them.
pub const MAX_IN_FLIGHT_BYTES: usize = 64 << 20;

/// Counts what is in flight.
#[derive(Debug)]
pub(super) struct Admission {
    count: AtomicUsize,
    bytes: AtomicUsize,
    max_count: usize,
    max_bytes: usize,
}

/// A place among what is in flight; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// Places for so many, and so many bytes.
    pub(super) fn new(max_count: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_count,
            max_bytes,
        })
    }

    /// A place for something of this size, or nothing if there is none.
    pub(super) fn enter(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        // Taken first and given back by the permit if it was too much, so that no two callers share a place.
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let permit = Permit {
            admission: Arc::clone(self),
            bytes,
        };
        (count <= self.max_count && total <= self.max_bytes).then_some(permit)
    }

    /// How many there are.
    pub(super) fn in_flight(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.count.fetch_sub(1, Ordering::Relaxed);
        self.admission
            .bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_run_out_by_count_and_by_bytes_and_come_back() {
        let admission = Admission::new(MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES);
        let held: Vec<_> = (0..MAX_IN_FLIGHT)
            .map_while(|_| admission.enter(0))
            .collect();
        assert_eq!(held.len(), MAX_IN_FLIGHT);
        assert!(admission.enter(0).is_none());
        drop(held);
        let large = admission.enter(MAX_IN_FLIGHT_BYTES);
        assert!(large.is_some());
        assert!(admission.enter(1).is_none());
        drop(large);
        assert!(admission.enter(1).is_some());
        assert_eq!(admission.in_flight(), 0);
    }
}
