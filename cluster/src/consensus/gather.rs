//! When proposals and reads go to Raft: at once while few come, and many together while many do.
//!
//! Every append costs each node a message, a write and an answer, however little is in it. While few proposals come, that
//! buys the shortest answer. While many do, each waits for those that come in the same moment, and all nodes have time for
//! other things.

use std::time::{Duration, Instant};

/// For so long proposals wait for each other: little beside the sync of a disk and the way to a follower and back.
const MOMENT: Duration = Duration::from_millis(2);

/// So many in one moment are many.
const MANY: usize = 4;

/// Counts what comes, moment by moment.
#[derive(Debug)]
pub(super) struct Gather {
    /// When this moment began.
    begun: Instant,
    /// What has gone since then.
    gone: usize,
    /// There were many in the last moment.
    is_crowded: bool,
}

impl Gather {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            begun: now,
            gone: 0,
            is_crowded: false,
        }
    }

    /// Whether those that wait go now. If not, they do once [`Self::left`] has passed.
    pub(super) fn lets_go(&mut self, waiting: usize, now: Instant) -> bool {
        if waiting == 0 {
            return false;
        }
        let is_over = self.left(now) == Duration::ZERO;
        if is_over {
            self.is_crowded = self.gone + waiting >= MANY;
            self.begun = now;
            self.gone = 0;
            return true;
        }
        if self.is_crowded {
            return false;
        }
        self.gone += waiting;
        true
    }

    /// What is left of this moment.
    pub(super) fn left(&self, now: Instant) -> Duration {
        MOMENT.saturating_sub(now.saturating_duration_since(self.begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_go_at_once() {
        let begun = Instant::now();
        let mut gather = Gather::new(begun);
        for half in 1..20 {
            assert!(gather.lets_go(1, begun + half * MOMENT / 2));
        }
    }

    #[test]
    fn many_wait_for_each_other_until_they_are_few_again() {
        let begun = Instant::now();
        let mut gather = Gather::new(begun);
        for tenth in 1..10 {
            assert!(gather.lets_go(1, begun + tenth * MOMENT / 10));
        }
        // The moment that has ended had many.
        let second = begun + MOMENT;
        assert!(gather.lets_go(1, second));
        let half = second + MOMENT / 2;
        assert!(!gather.lets_go(1, half));
        assert_eq!(gather.left(half), MOMENT / 2);
        assert!(!gather.lets_go(2, second + MOMENT * 3 / 4));
        assert!(gather.lets_go(2, second + MOMENT));
        // Two were few, so the next goes at once.
        assert!(gather.lets_go(1, second + MOMENT * 5 / 4));
    }

    #[test]
    fn nothing_does_not_go() {
        let begun = Instant::now();
        assert!(!Gather::new(begun).lets_go(0, begun + MOMENT));
    }
}
