//! What still has to be said to the leader: bounded, and each kind kept by its own rule.
//!
//! A renewal or a progress is worth only its latest value. An end is kept until it is acknowledged and said again on
//! each new connection. Started and checkpointed are kept in order. Log lines come last, and go first when there is no room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::agent::{Epoch, MAX_ATTEMPTS, Progress};
use crate::order::{Ended, Report};

/// Started and checkpointed reports that wait. Four an attempt is more than a minute of any connection loss makes.
const MAX_FACTS: usize = 4 * MAX_ATTEMPTS;

/// Log bytes that wait for a connection. The attempt's own log has a budget; this bounds all of them together.
const MAX_LOG_BYTES: usize = 4 * 1024 * 1024;

/// An end that is not acknowledged by then is said again on the same connection.
const REPEAT_END: Duration = Duration::from_secs(10);

/// The reports that wait, shared by the loop that makes them and the session that sends them.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    renewal: Option<Report>,
    facts: VecDeque<Report>,
    /// Each with the time at which it was last said on the present connection.
    ends: BTreeMap<Epoch, (Ended, Option<Instant>)>,
    progress: BTreeMap<Epoch, Progress>,
    logs: VecDeque<(Epoch, Vec<String>)>,
    log_bytes: usize,
    connected: bool,
}

impl Outbox {
    /// Adds a report by the rule of its kind. Renewals are dropped while there is no connection: they would be stale.
    pub(crate) fn push(&self, report: Report) {
        let mut waiting = self.lock();
        match report {
            Report::Renew { .. } if !waiting.connected => return,
            Report::Renew { .. } => waiting.renewal = Some(report),
            Report::Started { .. } | Report::Checkpointed { .. } => {
                if waiting.facts.len() == MAX_FACTS {
                    waiting.facts.pop_front();
                }
                if !waiting.facts.contains(&report) {
                    waiting.facts.push_back(report);
                }
            }
            Report::Progress(epoch, progress) => {
                waiting.progress.insert(epoch, progress);
            }
            Report::Ended(ended) => {
                waiting.progress.remove(&ended.epoch);
                waiting.ends.insert(ended.epoch, (ended, None));
            }
            Report::Logs(epoch, lines) => waiting.add_logs(epoch, lines),
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// The end of this epoch needs no more saying, nor does anything else of it.
    pub(crate) fn acknowledged(&self, epoch: Epoch) {
        let mut waiting = self.lock();
        waiting.ends.remove(&epoch);
        waiting.progress.remove(&epoch);
        waiting.facts.retain(|fact| !matches!(fact, Report::Started { epoch: e, .. } | Report::Checkpointed { epoch: e, .. } if *e == epoch));
    }

    /// A new connection: every end is said again. False: there is none, and renewals are not collected.
    pub(crate) fn connected(&self, connected: bool) {
        let mut waiting = self.lock();
        waiting.connected = connected;
        waiting.renewal = None;
        for (_, said) in waiting.ends.values_mut() {
            *said = None;
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// True when nothing but logs waits.
    pub(crate) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.ends.is_empty() && waiting.facts.is_empty()
    }

    /// The next report to send; waits until there is one. Cancel-safe.
    pub(crate) async fn next(&self) -> Report {
        loop {
            let repeat_at = {
                let mut waiting = self.lock();
                let now = Instant::now();
                if let Some(report) = waiting.take(now) {
                    return report;
                }
                waiting
                    .ends
                    .values()
                    .filter_map(|(_, said)| *said)
                    .min()
                    .map(|said| said + REPEAT_END)
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

impl Waiting {
    /// Leases first: everything else can wait, they cannot. Log lines before ends, so that they are there at the end.
    fn take(&mut self, now: Instant) -> Option<Report> {
        if let Some(renewal) = self.renewal.take() {
            return Some(renewal);
        }
        if let Some(fact) = self.facts.pop_front() {
            return Some(fact);
        }
        if let Some((epoch, progress)) = self.progress.pop_first() {
            return Some(Report::Progress(epoch, progress));
        }
        if let Some((epoch, lines)) = self.logs.pop_front() {
            self.log_bytes -= size(&lines);
            return Some(Report::Logs(epoch, lines));
        }
        let due = |said: &Option<Instant>| said.is_none_or(|said| now >= said + REPEAT_END);
        let (ended, said) = self.ends.values_mut().find(|(_, said)| due(said))?;
        *said = Some(now);
        Some(Report::Ended(ended.clone()))
    }

    fn add_logs(&mut self, epoch: Epoch, lines: Vec<String>) {
        self.log_bytes += size(&lines);
        self.logs.push_back((epoch, lines));
        while self.log_bytes > MAX_LOG_BYTES {
            let Some((_, oldest)) = self.logs.pop_front() else {
                return;
            };
            self.log_bytes -= size(&oldest);
        }
    }
}

fn size(lines: &[String]) -> usize {
    lines.iter().map(|line| line.len() + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Outcome, Phase};

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
    fn without_a_connection_logs_are_bounded_and_the_oldest_go() {
        let outbox = Outbox::default();
        for number in 0..600 {
            outbox.push(Report::Logs(
                1,
                vec![format!("{number} {}", "x".repeat(8_000))],
            ));
        }
        let Some(Report::Logs(_, first)) = take(&outbox, Instant::now()) else {
            panic!("logs were expected")
        };
        assert!(!first[0].starts_with("0 "));
        assert!(outbox.lock().log_bytes <= MAX_LOG_BYTES);
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
