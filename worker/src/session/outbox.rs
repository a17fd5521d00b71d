//! The reports that wait for the connection, shared by the loop that makes them and the session that sends them.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::agent::Epoch;
use crate::order::Report;
use crate::waiting::Waiting;

/// The reports that wait, shared by the loop that makes them and the session that sends them.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

impl Outbox {
    /// Adds a report by the rule of its kind.
    pub(crate) fn push(&self, report: Report) {
        self.lock().push(report);
        self.wake.notify_one();
    }

    /// The end of this epoch needs no more saying, nor does anything else of it.
    pub(crate) fn acknowledged(&self, epoch: Epoch) {
        self.lock().acknowledged(epoch);
    }

    /// A new connection, or none any more.
    pub(crate) fn connected(&self, connected: bool) {
        self.lock().connected(connected);
        self.wake.notify_one();
    }

    /// True when nothing but logs waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether there is a connection, and how many facts wait.
    pub(crate) fn stands(&self) -> (bool, usize) {
        let waiting = self.lock();
        (waiting.is_connected(), waiting.facts())
    }

    /// Whether the worker was asked to stop.
    pub(crate) fn is_leaving(&self) -> bool {
        self.lock().is_leaving()
    }

    /// What waits now and can be said at once, if there is anything.
    pub(crate) fn take(&self) -> Option<Report> {
        self.lock().take(Instant::now())
    }

    /// The next report to send; waits until there is one. Cancel-safe.
    pub(crate) async fn next(&self) -> Report {
        loop {
            let repeat_at = {
                let mut waiting = self.lock();
                if let Some(report) = waiting.take(Instant::now()) {
                    return report;
                }
                waiting.repeat_at()
            };
            match repeat_at {
                Some(at) => {
                    let _due = tokio::time::timeout_at(at, self.wake.notified()).await;
                }
                None => self.wake.notified().await,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // The data is whole after any panic: no step in here leaves it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Outcome, Phase, Progress};
    use crate::capture::left_out;
    use crate::order::Ended;
    use crate::waiting::{MAX_LOG_BYTES, REPEAT_END};

    fn ended(epoch: Epoch) -> Report {
        Report::Ended(Ended {
            epoch,
            job: "j".to_owned(),
            outcome: Outcome::Succeeded,
            detail: String::new(),
            step: 9,
        })
    }

    fn started() -> Report {
        Report::Started {
            epoch: 1,
            job: "j".to_owned(),
            from: 0,
        }
    }

    fn progress(step: u64) -> Report {
        Report::Progress(
            1,
            Progress {
                step,
                total: 9,
                step_ms: None,
                phase: Phase::Training,
            },
        )
    }

    fn take(outbox: &Outbox, now: Instant) -> Option<Report> {
        outbox.lock().take(now)
    }

    #[test]
    fn an_end_is_said_on_every_connection_and_repeated_until_acknowledged() {
        let (outbox, start) = (Outbox::default(), Instant::now());
        outbox.connected(true);
        outbox.push(ended(3));
        assert_eq!(take(&outbox, start), Some(ended(3)));
        assert_eq!(take(&outbox, start), None);
        assert_eq!(take(&outbox, start + REPEAT_END), Some(ended(3)));
        outbox.connected(true);
        assert_eq!(take(&outbox, start + REPEAT_END), Some(ended(3)));
        assert!(!outbox.is_empty());
        outbox.acknowledged(3);
        assert_eq!(take(&outbox, start + 9 * REPEAT_END), None);
        assert!(outbox.is_empty());
    }

    #[test]
    fn of_an_end_that_may_be_lost_the_last_checkpoint_is_said_again_before_it() {
        let saved = |epoch, step| Report::Checkpointed {
            epoch,
            job: "j".to_owned(),
            step,
        };
        let (outbox, now) = (Outbox::default(), Instant::now());
        let all = || -> Vec<Report> { std::iter::from_fn(|| take(&outbox, now)).collect() };
        outbox.connected(true);
        for step in [10, 20] {
            outbox.push(saved(1, step));
        }
        assert_eq!(all(), [saved(1, 20)], "the newest alone");
        outbox.push(saved(2, 7));
        outbox.push(started());
        assert_eq!(all(), [started(), saved(2, 7)]);
        // The leader goes with what it was told, and the one that follows hears it before the end.
        outbox.connected(false);
        outbox.connected(true);
        outbox.push(ended(1));
        assert_eq!(all(), [saved(1, 20), ended(1)], "the other one runs");
        outbox.connected(true);
        assert_eq!(all(), [saved(1, 20), ended(1)]);
        outbox.acknowledged(1);
        assert!(outbox.is_empty());
        outbox.connected(true);
        assert_eq!(all(), []);
    }

    #[test]
    fn leases_go_first_and_only_the_latest_values_are_said() {
        let (outbox, now) = (Outbox::default(), Instant::now());
        let renew = |renewal| Report::Renew {
            renewal,
            epochs: vec![1],
        };
        let logs = || Report::Logs(1, vec!["a".to_owned()]);
        outbox.push(renew(0));
        outbox.connected(true);
        for report in [
            progress(1),
            logs(),
            started(),
            renew(1),
            renew(2),
            progress(2),
            started(),
        ] {
            outbox.push(report);
        }
        let said: Vec<Report> = std::iter::from_fn(|| take(&outbox, now)).collect();
        assert_eq!(said, [renew(2), started(), progress(2), logs()]);
    }

    #[test]
    fn without_a_connection_logs_are_bounded_the_oldest_go_and_how_many_is_said() {
        let outbox = Outbox::default();
        for number in 0..600 {
            outbox.push(Report::Logs(
                1,
                vec![format!("{number} {}", "x".repeat(8_000))],
            ));
        }
        assert!(outbox.lock().log_bytes <= MAX_LOG_BYTES);
        let next = || match take(&outbox, Instant::now()) {
            Some(Report::Logs(1, mut lines)) => lines.remove(0),
            other => panic!("no logs: {other:?}"),
        };
        let (said, first) = (next(), next());
        let (first, _) = first.split_once(' ').unwrap_or_default();
        assert!(first != "0");
        assert_eq!(said, left_out(first.parse().unwrap_or_default()));
    }

    #[tokio::test]
    async fn a_waiting_sender_is_woken() {
        let outbox = std::sync::Arc::new(Outbox::default());
        let sender = tokio::spawn({
            let outbox = std::sync::Arc::clone(&outbox);
            async move { outbox.next().await }
        });
        tokio::task::yield_now().await;
        outbox.push(started());
        assert_eq!(sender.await.ok(), Some(started()));
    }
}
