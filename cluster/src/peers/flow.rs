//! How much of a snapshot may be on its way: as much as the path carries in half a second or so, whatever the path. What is
//! beyond that waits in somebody's buffer, and what keeps the nodes together, which goes the same way, waits behind it.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes in one piece, and the least that is on its way: on a path of 25 kB/s a piece takes little more than a second.
pub(super) const PIECE_BYTES: usize = 32 << 10;

/// The most that is on its way: what fills a fast path to another continent.
const MOST_BYTES: u64 = super::dial::WINDOW_BYTES as u64;

/// While pieces take no longer than the first from the sender to the receiver's word that it has them, more are sent at
/// once; when they take longer than the second, fewer.
const BRISK_SLOW: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(1));

/// What of a snapshot is on its way.
#[derive(Debug)]
pub(super) struct Flow {
    way: Mutex<Way>,
    /// There is more room.
    freed: Notify,
}

#[derive(Debug)]
struct Way {
    sent: u64,
    taken: u64,
    /// Bytes that may be on their way.
    allowed: u64,
    /// What was sent before the last time that less was allowed says nothing of what is allowed since.
    slowed_at: u64,
    /// Where each piece that is on its way ends, and when it was sent; never more than fit into what is allowed.
    pieces: VecDeque<(u64, Instant)>,
}

impl Flow {
    /// One that begins with a piece and finds out what the path carries.
    pub(super) fn new() -> Self {
        Self::of(PIECE_BYTES as u64)
    }

    /// One without a bound of its own, to a receiver that does not say how far it is: what HTTP/2 lets through.
    pub(super) fn unbounded() -> Self {
        Self::of(u64::MAX)
    }

    fn of(allowed: u64) -> Self {
        Self {
            way: Mutex::new(Way {
                sent: 0,
                taken: 0,
                allowed,
                slowed_at: 0,
                pieces: VecDeque::new(),
            }),
            freed: Notify::new(),
        }
    }

    /// So many bytes are there already, and what is sent goes on from them. Before anything is sent.
    pub(super) fn goes_on_from(&self, taken: u64) {
        let mut way = self.way.lock();
        (way.sent, way.taken) = (taken, taken);
    }

    /// Waits until this many bytes may be sent, and counts them as sent.
    pub(super) async fn send(&self, bytes: usize) {
        while !self.way.lock().send(bytes as u64, Instant::now()) {
            self.freed.notified().await;
        }
    }

    /// The receiver says that it has taken so many of all bytes.
    pub(super) fn took(&self, taken: u64) {
        self.way.lock().took(taken, Instant::now());
        self.freed.notify_one();
    }

    /// Bytes that were sent, or were there before.
    pub(super) fn sent(&self) -> u64 {
        self.way.lock().sent
    }
}

impl Way {
    /// Sends as many bytes, unless too many are on their way.
    fn send(&mut self, bytes: u64, now: Instant) -> bool {
        let under_way = self.sent - self.taken;
        let may = under_way == 0 || under_way.saturating_add(bytes) <= self.allowed;
        if may {
            self.sent += bytes;
            // Without a bound nobody says when they arrive.
            if self.allowed < u64::MAX {
                self.pieces.push_back((self.sent, now));
            }
        }
        may
    }

    fn took(&mut self, taken: u64, now: Instant) {
        // Never more than there was, whatever it says.
        let taken = taken.clamp(self.taken, self.sent);
        let mut newest = None;
        while let Some(piece) = self.pieces.pop_front_if(|(end, _)| *end <= taken) {
            newest = Some(piece);
        }
        let more = taken - std::mem::replace(&mut self.taken, taken);
        let Some((end, sent_at)) = newest else { return };
        let took = now.saturating_duration_since(sent_at);
        if took <= BRISK_SLOW.0 {
            self.allowed = self.allowed.saturating_add(more).min(MOST_BYTES);
        } else if took > BRISK_SLOW.1 && end > self.slowed_at {
            self.allowed = (self.allowed / 2).max(PIECE_BYTES as u64);
            self.slowed_at = self.sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that carries so many bytes a second, behind a buffer without a bound, and is so long both ways together.
    struct Path {
        rate: u64,
        trip: Duration,
        way: Way,
        now: Instant,
        /// When the newest piece leaves the buffer.
        free_at: Instant,
        /// The receiver's words on their way back: when each comes, and what it says.
        words: VecDeque<(Instant, u64)>,
    }

    impl Path {
        fn new(rate: u64, trip: Duration) -> Self {
            let now = Instant::now();
            Self {
                rate,
                trip,
                way: Flow::new().way.into_inner(),
                now,
                free_at: now,
                words: VecDeque::new(),
            }
        }

        /// Carries as many bytes. Gives how long that takes, and what a ping behind all that was sent waits for at most.
        fn carry(&mut self, bytes: u64) -> (Duration, Duration) {
            let (begun, mut longest) = (self.now, Duration::ZERO);
            let until = self.way.taken + bytes;
            while self.way.taken < until {
                while self.way.sent < until && self.way.send(PIECE_BYTES as u64, self.now) {
                    let takes = Duration::from_secs_f64(PIECE_BYTES as f64 / self.rate as f64);
                    self.free_at = self.free_at.max(self.now) + takes;
                    let word = (self.free_at + self.trip, self.way.sent);
                    self.words.push_back(word);
                }
                longest = longest.max(self.free_at.saturating_duration_since(self.now));
                let (at, taken) = self.words.pop_front().expect("something is on its way");
                self.now = at;
                self.way.took(taken, self.now);
            }
            (self.now - begun, longest)
        }
    }

    #[test]
    fn on_a_slow_path_no_more_waits_than_a_ping_can_wait_behind() {
        for rate in [15_000, 25_000, 100_000, 400_000, 1_400_000] {
            let mut path = Path::new(rate, Duration::from_millis(30));
            let bytes = rate * 60;
            let (took, longest) = path.carry(bytes);
            assert!(
                longest < Duration::from_millis(2_300),
                "{rate}: {longest:?}"
            );
            assert!(
                took < Duration::from_secs(75),
                "it is used: {rate}: {took:?}"
            );
        }
    }

    #[test]
    fn a_path_that_becomes_slow_is_relieved_and_one_that_becomes_fast_is_used() {
        let mut path = Path::new(2_000_000, Duration::from_millis(30));
        path.carry(20 << 20);
        assert!(path.way.allowed > 500_000);
        path.rate = 25_000;
        path.carry(4 << 20);
        assert_eq!(path.way.allowed, PIECE_BYTES as u64);
        path.rate = 200_000_000;
        path.carry(64 << 20);
        assert_eq!(path.way.allowed, MOST_BYTES);
    }

    #[test]
    fn on_a_fast_path_the_beginning_costs_little() {
        let near = Path::new(1_000_000_000, Duration::from_micros(200)).carry(100 << 20);
        assert!(near.0 < Duration::from_millis(120), "{near:?}");
        // To another continent: a few trips, and then what four mebibytes a trip are.
        let far = Path::new(1_000_000_000, Duration::from_millis(150)).carry(100 << 20);
        assert!(far.0 < Duration::from_secs(6), "{far:?}");
    }

    #[test]
    fn a_receiver_that_says_too_much_or_too_little_changes_nothing() {
        let now = Instant::now();
        let mut way = Flow::new().way.into_inner();
        assert!(way.send(PIECE_BYTES as u64, now) && !way.send(1, now));
        way.took(u64::MAX, now);
        assert_eq!((way.sent, way.taken), (way.sent, PIECE_BYTES as u64));
        way.took(0, now);
        assert_eq!(way.taken, PIECE_BYTES as u64);
        assert_eq!(way.allowed, 2 * PIECE_BYTES as u64);
    }
}
