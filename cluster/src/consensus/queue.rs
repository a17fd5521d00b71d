//! A queue between two threads that is emptied in one go, so that work gathers into batches while the reader is busy.

use std::mem;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Many writers, one reader. It has no bound of its own: what enters is bounded by [`super::admission`] for proposals,
/// reads and messages, and by one event per turn of the writing thread for everything else.
#[derive(Debug)]
pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    items: Vec<T>,
    closed: bool,
    /// The reader has been called, or does not sleep.
    called: bool,
    /// The reader wakes up soon by itself, and need not be called for what can wait until then.
    patient: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                items: Vec::new(),
                closed: false,
                called: false,
                patient: false,
            }),
            filled: Condvar::new(),
        }
    }

    /// Adds one item and calls the reader; gives it back if the queue is closed.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        self.add(item, false)
    }

    /// Adds one item, for which a reader that is patient is not called.
    pub(super) fn push_patiently(&self, item: T) -> Result<(), T> {
        self.add(item, true)
    }

    fn add(&self, item: T, can_wait: bool) -> Result<(), T> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(item);
        }
        inner.items.push(item);
        if !(inner.called || can_wait && inner.patient) {
            inner.called = true;
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Moves everything into the empty `into`, waiting for the first item at most this long. False once the queue is
    /// closed and empty.
    pub(super) fn drain(&self, into: &mut Vec<T>, wait: Duration) -> bool {
        self.take(into, wait, false)
    }

    /// The same, but what was pushed patiently waits to the end.
    pub(super) fn drain_patiently(&self, into: &mut Vec<T>, wait: Duration) -> bool {
        self.take(into, wait, true)
    }

    fn take(&self, into: &mut Vec<T>, wait: Duration, patient: bool) -> bool {
        debug_assert!(into.is_empty());
        let mut inner = self.inner.lock();
        if inner.items.is_empty() && !inner.closed {
            (inner.called, inner.patient) = (false, patient);
            self.filled.wait_for(&mut inner, wait);
        }
        (inner.called, inner.patient) = (true, false);
        mem::swap(&mut inner.items, into);
        !(inner.closed && into.is_empty())
    }

    /// Whether nothing is inside.
    pub(super) fn is_empty(&self) -> bool {
        self.inner.lock().items.is_empty()
    }

    /// Lets nothing more in; what is inside can still be drained.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_all();
    }

    /// Closes the queue and drops what is inside: its reader is gone.
    pub(super) fn abandon(&self) {
        let dropped = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            mem::take(&mut inner.items)
        };
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_queue_gives_out_what_it_holds_and_takes_nothing() {
        let queue = Queue::new();
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Ok(()));
        queue.close();
        assert_eq!(queue.push(3), Err(3));
        let mut found = Vec::new();
        assert!(queue.drain(&mut found, Duration::ZERO));
        assert_eq!(found, [1, 2]);
        found.clear();
        assert!(!queue.drain(&mut found, Duration::ZERO));
    }

    #[test]
    fn a_patient_reader_is_called_only_for_what_cannot_wait() {
        let queue = Queue::new();
        let mut found = Vec::new();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let open = queue.drain_patiently(&mut found, Duration::from_secs(3_600));
                (open, found)
            });
            while !queue.inner.lock().patient {
                std::thread::yield_now();
            }
            assert_eq!(queue.push_patiently(1), Ok(()));
            assert!(!queue.inner.lock().called, "the reader is called for it");
            assert_eq!(queue.push(2), Ok(()));
            let (open, found) = reader.join().expect("the reader ends");
            assert!(open);
            assert_eq!(found, [1, 2]);
        });
    }
}
