//! When proposals and reads go to Raft: at once while few come, and many together while many do.
//!
//! Every append costs each node a message, a write and an answer, however little is in it. While few proposals come, that
//! buys the shortest answer. While many do, each waits for those that come in the same moment, and all nodes have time for
//! other things: the more come, the longer a moment is.

use std::time::{Duration, Instant};

/// A moment in which others come is this long for each that came in the one before.
const FOR_EACH: Duration = Duration::from_micros(100);

/// And so long at least: little beside the sync of a disk and the way to a follower and back.
const SHORTEST: Duration = Duration::from_millis(2);

/// And so long at most: little beside the time that somebody who asks takes to notice.
const LONGEST: Duration = Duration::from_millis(6);

/// Once nobody has come for so long, there is nothing to wait for.
const LULL: Duration = Duration::from_micros(500);

/// So many in one moment are many.
const MANY: usize = 4;

/// Counts what comes, moment by moment.
#[derive(Debug)]
pub(super) struct Gather {
    /// When this moment began.
    begun: Instant,
    /// How long it is.
    lasts: Duration,
    /// What has gone since then.
    gone: usize,
    /// There were many in the last moment.
    is_crowded: bool,
    /// How many waited when their number was last seen to change, and when.
    seen: (usize, Instant),
}

impl Gather {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            begun: now,
            lasts: SHORTEST,
            gone: 0,
            is_crowded: false,
            seen: (0, now),
        }
    }

    /// Whether those that wait go now; `complete` says that they are known to be all that come for now. If not, this is to
    /// be asked again once [`Self::left`] has passed.
    pub(super) fn lets_go(&mut self, waiting: usize, complete: bool, now: Instant) -> bool {
        if waiting == 0 {
            return false;
        }
        if self.seen.0 != waiting {
            self.seen = (waiting, now);
        }
        let is_over = now.saturating_duration_since(self.begun) >= self.lasts;
        let is_lull = now.saturating_duration_since(self.seen.1) >= LULL;
        if self.is_crowded && !complete && !is_over && !is_lull {
            return false;
        }
        self.gone += waiting;
        self.seen = (0, now);
        if is_over || self.is_crowded {
            self.is_crowded = self.gone >= MANY;
            let each = u32::try_from(self.gone).unwrap_or(u32::MAX);
            self.lasts = FOR_EACH.saturating_mul(each).clamp(SHORTEST, LONGEST);
            self.begun = now;
            self.gone = 0;
        }
        true
    }

    /// After how long to look again.
    pub(super) fn left(&self, now: Instant) -> Duration {
        let until = |since: Instant, long: Duration| {
            long.saturating_sub(now.saturating_duration_since(since))
        };
        until(self.begun, self.lasts).min(until(self.seen.1, LULL))
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
            assert!(gather.lets_go(1, false, begun + half * SHORTEST / 2));
        }
    }

    /// One that is in its second moment, with many in its first.
    fn crowded(many: usize) -> (Gather, Instant) {
        let begun = Instant::now();
        let mut gather = Gather::new(begun);
        let second = begun + SHORTEST;
        assert!(gather.lets_go(many, false, second));
        (gather, second)
    }

    #[test]
    fn many_wait_for_each_other_until_they_are_few_again() {
        let (mut gather, second) = crowded(MANY);
        let tenths = |tenths: u32| second + tenths * SHORTEST / 10;
        assert!(!gather.lets_go(1, false, tenths(3)));
        assert!(!gather.lets_go(1, false, tenths(5)));
        assert!(!gather.lets_go(2, false, tenths(8)));
        assert_eq!(gather.left(tenths(8)), SHORTEST * 2 / 10);
        assert!(gather.lets_go(2, false, tenths(10)));
        // Two were few, so the next goes at once.
        assert!(gather.lets_go(1, false, tenths(11)));
    }

    #[test]
    fn the_more_come_the_longer_is_a_moment_within_bounds() {
        let after = |many| crowded(many).0.lasts;
        assert_eq!(after(MANY), SHORTEST);
        assert_eq!(after(30), 30 * FOR_EACH);
        assert_eq!(after(1_000_000), LONGEST);
    }

    #[test]
    fn nobody_waits_for_those_who_do_not_come() {
        let (mut gather, second) = crowded(1_000);
        assert!(!gather.lets_go(3, false, second + LULL / 2));
        assert_eq!(gather.left(second + LULL / 2), LULL);
        assert!(
            !gather.lets_go(4, false, second + LULL),
            "another one has come"
        );
        assert!(!gather.lets_go(4, false, second + LULL * 3 / 2));
        assert!(gather.lets_go(4, false, second + 2 * LULL));
    }

    #[test]
    fn those_that_are_complete_wait_for_nobody() {
        let (mut gather, second) = crowded(MANY);
        assert!(!gather.lets_go(3, false, second + LULL / 5));
        assert!(gather.lets_go(4, true, second + LULL / 4));
        assert!(
            !gather.lets_go(1, false, second + LULL / 3),
            "crowded still"
        );
    }

    #[test]
    fn nothing_does_not_go() {
        let begun = Instant::now();
        assert!(!Gather::new(begun).lets_go(0, true, begun + SHORTEST));
    }
}
