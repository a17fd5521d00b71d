//! The time a leader puts on commands: it never goes back nor stands still, and a wall clock that leaps does not take it along.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::consensus::Standing;
use crate::ports::Clock;

/// A wall clock that moved this much further than time has passed on this host, suspended or not, is not believed: what runs
/// would be over its time and be charged for the leap, and retention and the memory of request ids would end early for
/// everybody. Clocks are put right by hours where they were set by another zone or stood still, minutes after a start; a
/// virtual machine that was paused is behind by seconds as a rule, and is charged for no more than this. Nor is it believed
/// after it has stood there for long: a stamp never goes back, so that a clock that is wrong could not be put right any more.
/// An operator who knows that it is right restarts the node.
const MAX_LEAP_MS: u64 = 600_000;

/// A leap that is followed is told from here on: nobody is charged for more without a word about it.
const TOLD_LEAP_MS: u64 = 60_000;

/// A wall clock that is so much behind the log's time is told: clocks of hosts that are kept right differ by less.
const BEHIND_MS: u64 = 60_000;

/// What a leader has said of its time is no older than this, unless the way was slow: pings are a part of a second apart, and
/// it is looked at once a second.
const WORD_AGE_MS: u64 = 10_000;

/// What a node that follows goes by, if it is said: the leader's time. Before it has `heard` any, what the others go by, who
/// have it from a leader that may be gone by now: so a node that comes to lead right after its start brings no time of its own.
/// Of these the newest, since the log's time never goes back.
pub(crate) fn word(
    leader: Option<Standing>,
    others: impl Iterator<Item = Standing>,
    heard: bool,
) -> Option<u64> {
    let said = leader.and_then(|leader| leader.time_ms);
    said.or_else(|| {
        let hearsay = others.filter_map(|other| other.followed_ms);
        hearsay.max().filter(|_| !heard)
    })
}

/// Hands out stamps.
pub(crate) struct Stamper {
    clock: Arc<dyn Clock>,
    last: Mutex<Last>,
}

struct Last {
    stamp_ms: u64,
    at: Duration,
    /// The wall clock leapt ahead and is not followed.
    doubting: bool,
    /// The wall clock is far behind the log's time, and that was told.
    behind: bool,
    /// What a leader has said last, of another node; 0 if none ever did.
    heard_ms: u64,
    /// By how much the wall clock was ahead of that when it was heard.
    ahead_ms: i64,
}

impl Last {
    /// The time by what was last known and what has passed since, never before `newest_ms`.
    fn expected(&mut self, now: Duration, newest_ms: u64) -> u64 {
        let passed = now.saturating_sub(self.at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let expected = self.stamp_ms.saturating_add(passed);
        // One that is older than that says nothing: it may have been applied long ago.
        if newest_ms > expected {
            (self.stamp_ms, self.at) = (newest_ms, now);
        }
        newest_ms.max(expected)
    }
}

impl Stamper {
    /// Continues after `newest_ms`, the newest stamp in the state. The first stamp after a start takes the wall clock
    /// as it is, since nobody can say how long the node was down.
    pub(crate) fn new(clock: Arc<dyn Clock>, newest_ms: u64) -> Self {
        let stamp_ms = clock.wall_ms().max(newest_ms);
        let last = Last {
            stamp_ms,
            at: clock.passed(),
            doubting: false,
            behind: false,
            heard_ms: 0,
            ahead_ms: 0,
        };
        Self {
            clock,
            last: Mutex::new(last),
        }
    }

    /// What the leader, another node, has said its time is, a moment ago: from then on a node that follows goes by that, and
    /// whatever its own wall clock was like when it was started, it has not come into the log.
    pub(crate) fn heard(&self, leader_ms: u64) {
        let (wall, now) = (self.clock.wall_ms(), self.clock.passed());
        let mut last = self.last.lock();
        // The same word again is older by now.
        if std::mem::replace(&mut last.heard_ms, leader_ms) == leader_ms {
            return;
        }
        last.ahead_ms = difference(wall, leader_ms);
        let expected = last.expected(now, 0);
        if !(leader_ms..=leader_ms.saturating_add(WORD_AGE_MS)).contains(&expected) {
            (last.stamp_ms, last.at) = (leader_ms, now);
        }
    }

    /// Whether a leader's time was heard.
    pub(crate) fn has_heard(&self) -> bool {
        self.last.lock().heard_ms > 0
    }

    /// Now, as the log sees it on a node that follows. Until a leader has said its time, that is what it would be if this node
    /// led.
    pub(crate) fn followed_ms(&self, newest_ms: u64) -> u64 {
        let mut last = self.last.lock();
        if last.heard_ms > 0 {
            return last.expected(self.clock.passed(), newest_ms);
        }
        drop(last);
        self.stamp_ms(newest_ms)
    }

    /// By how many milliseconds the wall clock is ahead of the log's time on a node that leads; negative where it is behind.
    pub(crate) fn ahead_ms(&self, newest_ms: u64) -> i64 {
        let stamp_ms = self.stamp_ms(newest_ms);
        difference(self.clock.wall_ms(), stamp_ms)
    }

    /// The same on a node that follows, as of its leader's last word, which was a second old at most when it was heard: so much
    /// too large this may be. Nothing before the first.
    pub(crate) fn followed_ahead_ms(&self) -> Option<i64> {
        let last = self.last.lock();
        (last.heard_ms > 0).then_some(last.ahead_ms)
    }

    /// Now, as the log shall see it: milliseconds since 1970, never before `newest_ms`, the newest stamp that is applied here.
    /// Where the wall clock is behind that, as on a node that leads after one whose clock was ahead, time goes on from there
    /// by the steady clock: if it stood still, what runs would cost nothing and what waits for a time would not come.
    pub(crate) fn stamp_ms(&self, newest_ms: u64) -> u64 {
        let (wall, now) = (self.clock.wall_ms(), self.clock.passed());
        let mut last = self.last.lock();
        let expected = last.expected(now, newest_ms);
        let leapt = wall > expected.saturating_add(MAX_LEAP_MS);
        if leapt && !last.doubting {
            tracing::warn!(
                wall_ms = wall,
                expected_ms = expected,
                "the wall clock leapt ahead and is not followed: if it is right now, restart this node when nothing runs"
            );
        }
        last.doubting = leapt;
        let behind = expected > wall.saturating_add(BEHIND_MS);
        if behind && !last.behind {
            tracing::warn!(
                wall_ms = wall,
                log_ms = expected,
                "the wall clock is behind the log's time, which goes on by the steady clock: was another node's ahead?"
            );
        }
        last.behind = behind;
        let next = if leapt { expected } else { wall.max(expected) };
        if next > expected.saturating_add(TOLD_LEAP_MS) {
            tracing::warn!(
                wall_ms = wall,
                expected_ms = expected,
                "the wall clock leapt ahead and is followed: what runs is charged for it"
            );
        }
        if next > expected {
            (last.stamp_ms, last.at) = (next, now);
        } else if next > last.stamp_ms {
            // Whole milliseconds only, so that the rest of each is not lost where there are many calls.
            let step = Duration::from_millis(next - last.stamp_ms);
            last.at += step;
            last.stamp_ms = next;
        }
        last.stamp_ms
    }
}

fn difference(wall_ms: u64, log_ms: u64) -> i64 {
    let apart = i64::try_from(wall_ms.abs_diff(log_ms)).unwrap_or(i64::MAX);
    if wall_ms < log_ms { -apart } else { apart }
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
        assert_eq!(stamper.stamp_ms(0), 1_000);
        *hands.0.lock() = (1_500, 500);
        assert_eq!(stamper.stamp_ms(0), 1_500);
        *hands.0.lock() = (200, 600);
        assert_eq!(stamper.stamp_ms(0), 1_600);
    }

    /// As after a leader whose clock was twenty minutes ahead, and after a start with a clock that was put right.
    #[test]
    fn time_does_not_stand_still_where_the_wall_clock_is_behind_the_log() {
        let ahead = 1_200_000;
        let (hands, stamper) = stamper(1_000, 0);
        *hands.0.lock() = (61_000, 60_000);
        assert_eq!(stamper.stamp_ms(ahead), ahead, "what the other has written");
        *hands.0.lock() = (101_000, 100_000);
        assert_eq!(stamper.stamp_ms(ahead), ahead + 40_000);
        *hands.0.lock() = (101_000, 100_700);
        assert_eq!(stamper.stamp_ms(ahead + 40_000), ahead + 40_700);
        *hands.0.lock() = (ahead + 60_000, 101_000);
        assert_eq!(stamper.stamp_ms(0), ahead + 60_000, "it has caught up");

        let (hands, stamper) = self::stamper(1_000, ahead);
        *hands.0.lock() = (31_000, 30_000);
        assert_eq!(stamper.stamp_ms(ahead), ahead + 30_000);
    }

    #[test]
    fn a_step_of_less_than_a_millisecond_is_not_lost() {
        let hands = Arc::new(Micros(Mutex::new(0)));
        let stamper = Stamper::new(Arc::clone(&hands) as Arc<dyn Clock>, 5_000);
        for micros in (0..10_000).step_by(300) {
            *hands.0.lock() = micros;
            stamper.stamp_ms(0);
        }
        *hands.0.lock() = 10_000;
        assert_eq!(stamper.stamp_ms(0), 5_010);
    }

    /// A steady clock of microseconds beside a wall clock that stands.
    struct Micros(Mutex<u64>);

    impl Clock for Micros {
        fn wall_ms(&self) -> u64 {
            0
        }

        fn monotonic(&self) -> Duration {
            Duration::from_micros(*self.0.lock())
        }
    }

    #[test]
    fn it_begins_after_the_newest_stamp_of_the_state() {
        assert_eq!(stamper(1_000, 7_000).1.stamp_ms(0), 7_000);
    }

    /// As where a clock was set by another zone until it was put right, and where it is put wrong.
    #[test]
    fn a_clock_that_is_put_right_by_hours_takes_nobody_along() {
        let hours = 23 * 3_600_000;
        let (hands, stamper) = stamper(1_000, 0);
        *hands.0.lock() = (6_000 + hours, 5_000);
        assert_eq!(stamper.stamp_ms(1_000), 6_000);
        *hands.0.lock() = (66_000 + hours, 65_000);
        assert_eq!(stamper.stamp_ms(6_000), 66_000);
        // Less than that is taken for a pause.
        *hands.0.lock() = (156_000, 66_000);
        assert_eq!(stamper.stamp_ms(66_000), 156_000);
    }

    /// It was started while its clock was eight hours ahead, which was put right before it came to lead.
    #[test]
    fn who_follows_goes_by_its_leader_and_brings_no_time_of_its_own() {
        let ahead = 8 * 3_600_000;
        let (hands, stamper) = stamper(100_000 + ahead, 90_000);
        assert_eq!(stamper.followed_ms(90_000), 100_000 + ahead, "nobody said");
        *hands.0.lock() = (103_000, 3_000);
        stamper.heard(102_500);
        assert_eq!(stamper.followed_ms(90_000), 102_500);
        *hands.0.lock() = (110_000, 10_000);
        stamper.heard(102_500);
        assert_eq!(stamper.followed_ms(90_000), 109_500, "an old word");
        assert_eq!(stamper.stamp_ms(109_600), 110_000, "it leads");
        // Right after a start by the wrong clock, and with a clock that is still wrong.
        let (hands, stamper) = self::stamper(100_000 + ahead, 90_000);
        stamper.heard(102_500);
        *hands.0.lock() = (101_000 + ahead, 1_000);
        assert_eq!(stamper.stamp_ms(90_000), 103_500);
    }

    /// Its leader is gone before it has said a word, and the others have heard it.
    #[test]
    fn who_has_heard_no_leader_goes_by_what_the_others_have_heard() {
        let said = |time_ms, followed_ms| Standing {
            committed: 7,
            has_room: true,
            time_ms,
            followed_ms,
        };
        let silent = said(None, None);
        let others = || [silent, said(None, Some(102_500)), said(None, Some(102_400))].into_iter();
        assert_eq!(word(None, others(), false), Some(102_500));
        assert_eq!(word(Some(silent), others(), false), Some(102_500));
        assert_eq!(word(Some(said(Some(99), None)), others(), false), Some(99));
        assert_eq!(word(None, others(), true), None, "it knows by itself");
        assert_eq!(word(None, [silent].into_iter(), false), None);
        // It leads right after its start by a clock that is eight hours ahead.
        let ahead = 8 * 3_600_000;
        let (hands, stamper) = stamper(100_000 + ahead, 90_000);
        assert!(!stamper.has_heard());
        stamper.heard(102_500);
        assert!(stamper.has_heard());
        *hands.0.lock() = (100_700 + ahead, 700);
        assert_eq!(stamper.stamp_ms(90_000), 103_200);
    }

    #[test]
    fn who_follows_keeps_its_leader_s_time_where_its_own_clock_differs() {
        let (hands, stamper) = stamper(400_000, 0);
        for second in 1..100 {
            *hands.0.lock() = (400_000 + second * 1_000, second * 1_000);
            stamper.heard(100_000 + second * 1_000 - 400);
            let now = stamper.followed_ms(0);
            let (from, to) = (99_600 + second * 1_000, 100_000 + second * 1_000);
            assert!((from..=to).contains(&now), "{now} in second {second}");
        }
    }

    #[test]
    fn how_far_its_clock_is_off_is_known_on_a_node_that_follows_and_on_one_that_leads() {
        let (hands, stamper) = stamper(100_000, 0);
        assert_eq!(stamper.followed_ahead_ms(), None, "nobody said");
        stamper.heard(135_000);
        assert_eq!(stamper.followed_ahead_ms(), Some(-35_000));
        // An old word says nothing.
        *hands.0.lock() = (160_000, 60_000);
        stamper.heard(135_000);
        assert_eq!(stamper.followed_ahead_ms(), Some(-35_000));
        stamper.heard(150_000);
        assert_eq!(stamper.followed_ahead_ms(), Some(10_000));
        // It leads, and its clock is put an hour ahead, which is not followed.
        *hands.0.lock() = (161_000 + 3_600_000, 61_000);
        assert_eq!(stamper.ahead_ms(0), 3_610_000);
        *hands.0.lock() = (61_000, 62_000);
        assert_eq!(stamper.ahead_ms(0), -91_000);
    }

    /// A host that was suspended for the night: its steady clock stood.
    struct Woken(Mutex<u64>);

    impl Clock for Woken {
        fn wall_ms(&self) -> u64 {
            1_000 + *self.0.lock()
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        fn passed(&self) -> Duration {
            Duration::from_millis(*self.0.lock())
        }
    }

    #[test]
    fn a_suspended_host_goes_by_its_wall_clock_when_it_wakes() {
        let night = 9 * 3_600_000;
        let woken = Arc::new(Woken(Mutex::new(0)));
        let stamper = Stamper::new(Arc::clone(&woken) as Arc<dyn Clock>, 0);
        assert_eq!(stamper.stamp_ms(0), 1_000);
        *woken.0.lock() = night;
        assert_eq!(stamper.stamp_ms(1_000), 1_000 + night);
    }

    /// It leads for the first time, hours after the newest command that it has applied.
    #[test]
    fn an_old_stamp_does_not_make_a_right_clock_doubtful() {
        let hour = 3_600_000;
        let (hands, stamper) = stamper(1_000, 0);
        *hands.0.lock() = (1_000 + 10 * hour, 10 * hour);
        assert_eq!(stamper.stamp_ms(7 * hour), 1_000 + 10 * hour);
    }

    #[test]
    fn the_host_s_time_goes_on() {
        let clock = crate::ports::HostClock::new();
        let before = clock.passed();
        assert!(clock.passed() >= before && before > Duration::ZERO);
    }

    #[test]
    fn a_leap_ahead_is_not_followed_but_time_goes_on() {
        let (hands, stamper) = stamper(1_000, 0);
        *hands.0.lock() = (2 * MAX_LEAP_MS, 400);
        assert_eq!(stamper.stamp_ms(0), 1_400);
        *hands.0.lock() = (2 * MAX_LEAP_MS, 900);
        assert_eq!(stamper.stamp_ms(0), 1_900);
        *hands.0.lock() = (2_000, 1_000);
        assert_eq!(stamper.stamp_ms(0), 2_000);
    }
}
