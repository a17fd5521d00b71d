//! How one direction between two parties is, and when bytes that enter it come out.

use std::time::Duration;

use tokio::time::Instant;

use crate::random::SharedRandom;

/// How late a lost piece comes: the least time after which Linux sends again.
const SENT_AGAIN: Duration = Duration::from_millis(200);

/// One direction. The default is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    /// How long bytes take.
    pub(crate) delay: Duration,
    /// How much longer they may take, evenly spread.
    pub(crate) jitter: Duration,
    /// Of a thousand pieces so many are lost and sent again.
    pub(crate) lost_per_mille: u64,
    /// Bytes a second at most.
    pub(crate) bytes_per_second: Option<u64>,
    /// Whether nothing comes through.
    pub(crate) cut: bool,
}

impl Link {
    /// A cut direction.
    pub(crate) fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }
}

/// When bytes come out; they never overtake each other.
#[derive(Debug)]
pub(super) struct Clock {
    last_due: Instant,
    wire_free: Instant,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_due: now,
            wire_free: now,
        }
    }

    /// When a piece of so many bytes that enters now comes out.
    pub(super) fn due(
        &mut self,
        link: &Link,
        bytes: usize,
        now: Instant,
        random: &SharedRandom,
    ) -> Instant {
        let mut due = now + link.delay;
        if let jitter @ 1.. = u64::try_from(link.jitter.as_micros()).unwrap() {
            due += Duration::from_micros(random.within(0..jitter));
        }
        if random.within(0..1_000) < link.lost_per_mille {
            due += SENT_AGAIN;
        }
        if let Some(rate) = link.bytes_per_second {
            let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
            self.wire_free = self.wire_free.max(now) + takes;
            due = due.max(self.wire_free + link.delay);
        }
        self.last_due = self.last_due.max(due);
        self.last_due
    }
}
