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
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                items: Vec::new(),
                closed: false,
            }),
            filled: Condvar::new(),
        }
    }

    /// Adds one item; gives it back if the queue is closed.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(item);
        }
        inner.items.push(item);
        if inner.items.len() == 1 {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Moves everything into the empty `into`, waiting for the first item at most this long. False once the queue is
    /// closed and empty.
    pub(super) fn drain(&self, into: &mut Vec<T>, wait: Duration) -> bool {
        debug_assert!(into.is_empty());
        let mut inner = self.inner.lock();
        if inner.items.is_empty() && !inner.closed {
            self.filled.wait_for(&mut inner, wait);
        }
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
}
