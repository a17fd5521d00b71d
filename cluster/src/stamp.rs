//! The time a leader puts on commands: it never goes back, and a wall clock that leaps does not take it along.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::ports::Clock;

/// A wall clock that moved this much further than the monotonic one is not believed: retention and the memory of
/// request ids would end early for everybody. A suspended laptop stays well below it. Nor is it believed after it has stood
/// there for long: what runs would be over its time and charged for the leap, and a stamp never goes back, so that a clock
/// that is wrong could not be put right any more. An operator who knows that it is right restarts the node.
const MAX_LEAP_MS: u64 = 24 * 3600 * 1000;

/// Hands out stamps.
pub(crate) struct Stamper {
    clock: Arc<dyn Clock>,
    last: Mutex<Last>,
}

struct Last {
    stamp_ms: u64,
    at: Duration,
    doubting: bool,
}

impl Stamper {
    /// Continues after `newest_ms`, the newest stamp in the state. The first stamp after a start takes the wall clock
    /// as it is, since nobody can say how long the node was down.
    pub(crate) fn new(clock: Arc<dyn Clock>, newest_ms: u64) -> Self {
        let stamp_ms = clock.wall_ms().max(newest_ms);
        let last = Last {
            stamp_ms,
            at: clock.monotonic(),
            doubting: false,
        };
        Self {
            clock,
            last: Mutex::new(last),
        }
    }

    /// Now, as the log shall see it: milliseconds since 1970.
    pub(crate) fn stamp_ms(&self) -> u64 {
        let (wall, now) = (self.clock.wall_ms(), self.clock.monotonic());
        let mut last = self.last.lock();
        let passed = now.saturating_sub(last.at);
        let expected = last
            .stamp_ms
            .saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        let leapt = wall > expected.saturating_add(MAX_LEAP_MS);
        if leapt && !last.doubting {
            tracing::warn!(
                wall_ms = wall,
                expected_ms = expected,
                "the wall clock leapt ahead and is not followed: if it is right now, restart this node when nothing runs"
            );
        }
        last.doubting = leapt;
        let next = if leapt {
            expected
        } else {
            wall.max(last.stamp_ms)
        };
        if next > last.stamp_ms {
            last.stamp_ms = next;
            last.at = now;
        }
        last.stamp_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hands(Mutex<(u64, u64)>);

    impl Clock for Hands {
        fn wall_ms(&self) -> u64 {
            self.0.lock().0
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.lock().1)
        }
    }

    fn stamper(wall: u64, newest: u64) -> (Arc<Hands>, Stamper) {
        let hands = Arc::new(Hands(Mutex::new((wall, 0))));
        let stamper = Stamper::new(Arc::clone(&hands) as Arc<dyn Clock>, newest);
        (hands, stamper)
    }

    #[test]
    fn it_follows_the_wall_clock_but_never_back() {
        let (hands, stamper) = stamper(1_000, 0);
        assert_eq!(stamper.stamp_ms(), 1_000);
        *hands.0.lock() = (1_500, 500);
        assert_eq!(stamper.stamp_ms(), 1_500);
        *hands.0.lock() = (200, 600);
        assert_eq!(stamper.stamp_ms(), 1_500);
    }

    #[test]
    fn it_begins_after_the_newest_stamp_of_the_state() {
        assert_eq!(stamper(1_000, 7_000).1.stamp_ms(), 7_000);
    }

    #[test]
    fn a_leap_ahead_is_not_followed_but_time_goes_on() {
        let (hands, stamper) = stamper(1_000, 0);
        *hands.0.lock() = (2 * MAX_LEAP_MS, 400);
        assert_eq!(stamper.stamp_ms(), 1_400);
        *hands.0.lock() = (2 * MAX_LEAP_MS, 900);
        assert_eq!(stamper.stamp_ms(), 1_900);
        *hands.0.lock() = (2_000, 1_000);
        assert_eq!(stamper.stamp_ms(), 2_000);
    }
}
