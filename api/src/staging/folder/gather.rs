//! Which submissions share their syncs: one that comes alone waits for nobody, and many that come together wait for each
//! other, since a sync costs the same however little is in it.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Submissions that share their syncs at most, so that the first does not wait long for the last.
const BATCH: usize = 512;

/// So many tasks in one batch are many: while they are, each batch waits for what comes in the same moment.
const MANY: usize = 4;

/// How long such a moment is at most.
const MOMENT: Duration = Duration::from_millis(6);

/// Once nothing has come for so long, it is over.
const LULL: Duration = Duration::from_micros(500);

/// How often somebody looks. Being called for each that comes would cost all of them more.
const LOOK: Duration = Duration::from_micros(150);

/// A batch after a larger one is expected to be smaller by this part of it.
const SHRINKS: usize = 8;

/// Puts tasks together, batch after batch.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// How many come together, by what the batches before had. Callers that wait for their answers come again as many as
    /// there were in a batch, so that with the last of them there is nobody to wait for.
    expected: usize,
}

impl Gather {
    /// A task and what waits behind it; where many come, what comes in this moment too.
    pub(super) fn all<T>(&mut self, first: T, waiting: &Receiver<T>) -> Vec<T> {
        let begun = Instant::now();
        let mut came = begun;
        let mut tasks = vec![first];
        tasks.extend(waiting.try_iter().take(BATCH - 1));
        while self.waits_behind(tasks.len()) {
            std::thread::sleep(LOOK);
            let (known, now) = (tasks.len(), Instant::now());
            tasks.extend(waiting.try_iter().take(BATCH - known));
            if tasks.len() > known {
                came = now;
            }
            if now.duration_since(came) >= LULL || now.duration_since(begun) >= MOMENT {
                break;
            }
        }
        let fewer = self.expected - self.expected.div_ceil(SHRINKS);
        self.expected = tasks.len().max(fewer);
        tasks
    }

    /// Whether more are expected than so many.
    const fn waits_behind(&self, known: usize) -> bool {
        self.expected >= MANY && known < self.expected && known < BATCH
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_waits_goes_together_and_no_more_than_a_batch() {
        let (sender, waiting) = channel();
        let send = |numbers: std::ops::Range<usize>| numbers.for_each(|n| sender.send(n).unwrap());
        for mut gather in [Gather::default(), Gather { expected: BATCH }] {
            assert_eq!(gather.all(0, &waiting), [0], "nobody comes");
            send(1..4);
            assert_eq!(gather.all(0, &waiting), [0, 1, 2, 3]);
            send(1..BATCH + 3);
            assert_eq!(gather.all(0, &waiting).len(), BATCH);
            assert_eq!(
                gather.all(BATCH, &waiting),
                [BATCH, BATCH, BATCH + 1, BATCH + 2]
            );
        }
    }

    #[test]
    fn as_many_as_came_before_are_waited_for_and_fewer_each_time() {
        let (sender, waiting) = channel();
        let mut gather = Gather::default();
        assert!(!gather.waits_behind(1), "the first waits for nobody");
        (1..64).for_each(|n| sender.send(n).unwrap());
        gather.all(0, &waiting);
        assert!(gather.waits_behind(63));
        assert!(!gather.waits_behind(64), "these are all");
        gather.all(0, &waiting);
        assert!(gather.waits_behind(55));
        assert!(!gather.waits_behind(56));
        for _ in 0..20 {
            gather.all(0, &waiting);
        }
        assert!(!gather.waits_behind(1), "they have gone");
    }
}
