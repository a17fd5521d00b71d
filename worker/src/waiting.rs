//! What still has to be said to the leader: bounded, and each kind kept by its own rule. Pure: time comes in.
//!
//! A renewal, a start, a checkpoint or a progress is worth only its latest value. An end is kept until it is acknowledged and
//! said again on each new connection, behind the attempt's last checkpoint: what was said to the last leader may be lost, and
//! after the end no checkpoint counts. Log lines come last, and go first when there is no room.
//! That the worker leaves is said once on each connection, before anything else.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::{Epoch, MAX_ATTEMPTS, Progress};
use crate::capture::left_out;
use crate::order::{Ended, Report};

/// Log bytes that wait for a connection. The attempt's own log has a budget; this bounds all of them together.
pub(crate) const MAX_LOG_BYTES: usize = 4 * 1024 * 1024;

/// An end that is not acknowledged by then is said again on the same connection.
pub(crate) const REPEAT_END: Duration = Duration::from_secs(10);

/// The reports that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    renewal: Option<Report>,
    /// Starts that wait, by attempt.
    starts: BTreeMap<Epoch, Report>,
    /// The newest checkpoint of each attempt, with the connection on which it was said.
    saved: BTreeMap<Epoch, (Report, Option<u64>)>,
    /// Each with the time at which it was last said on the present connection.
    ends: BTreeMap<Epoch, (Ended, Option<Instant>)>,
    progress: BTreeMap<Epoch, Progress>,
    logs: VecDeque<(Epoch, Vec<String>)>,
    /// Lines of an attempt that there was no room for, since its last ones that were said.
    left_out: BTreeMap<Epoch, usize>,
    pub(crate) log_bytes: usize,
    connected: bool,
    /// Connections so far.
    connections: u64,
    leaving: bool,
    /// Whether the present connection has been told that the worker leaves.
    told_leaving: bool,
}

impl Waiting {
    /// Adds a report by the rule of its kind. Renewals are dropped while there is no connection: they would be stale.
    pub fn push(&mut self, report: Report) {
        match report {
            Report::Renew { .. } if !self.connected => {}
            Report::Renew { .. } => self.renewal = Some(report),
            Report::Started { epoch, .. } => {
                self.starts.insert(epoch, report);
            }
            Report::Checkpointed { epoch, .. } => {
                self.saved.insert(epoch, (report, None));
            }
            Report::Progress(epoch, progress) => {
                self.progress.insert(epoch, progress);
            }
            Report::Ended(ended) => {
                self.progress.remove(&ended.epoch);
                self.ends.insert(ended.epoch, (ended, None));
            }
            Report::Logs(epoch, lines) => self.add_logs(epoch, lines),
            Report::Leaving => self.leaving = true,
        }
    }

    /// The end of this epoch needs no more saying, nor does anything else of it.
    pub fn acknowledged(&mut self, epoch: Epoch) {
        self.ends.remove(&epoch);
        self.progress.remove(&epoch);
        self.left_out.remove(&epoch);
        self.starts.remove(&epoch);
        self.saved.remove(&epoch);
    }

    /// A new connection: every end is said again, and before it what its attempt has saved. Of those that run the agent says it
    /// again. False: there is none, and renewals are not collected.
    pub fn connected(&mut self, connected: bool) {
        self.connected = connected;
        self.connections += u64::from(connected);
        self.told_leaving = false;
        self.renewal = None;
        for (_, said) in self.ends.values_mut() {
            *said = None;
        }
    }

    /// True when nothing but logs waits.
    pub fn is_empty(&self) -> bool {
        self.facts() == 0
    }

    /// How many facts wait that must not get lost: ends, starts and checkpoints.
    pub fn facts(&self) -> usize {
        let unsaid = self.saved.values().filter(|(_, said)| said.is_none());
        self.ends.len() + self.starts.len() + unsaid.count()
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether the worker was asked to stop.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// When an end that was said is to be said again, if nothing is added before.
    pub fn repeat_at(&self) -> Option<Instant> {
        let said = self.ends.values().filter_map(|(_, said)| *said).min();
        said.map(|said| said + REPEAT_END)
    }

    /// The next report to send at this moment, if there is one.
    ///
    /// That it leaves first, since a job may be given to it at any moment; then leases: everything else can wait, they cannot.
    /// Log lines before ends, so that they are there at the end.
    pub fn take(&mut self, now: Instant) -> Option<Report> {
        if self.leaving && !self.told_leaving {
            self.told_leaving = true;
            return Some(Report::Leaving);
        }
        if let Some(renewal) = self.renewal.take() {
            return Some(renewal);
        }
        if let Some((_, started)) = self.starts.pop_first() {
            return Some(started);
        }
        if let Some(checkpointed) = self.take_saved() {
            return Some(checkpointed);
        }
        if let Some((epoch, progress)) = self.progress.pop_first() {
            return Some(Report::Progress(epoch, progress));
        }
        if let Some(logs) = self.take_logs() {
            return Some(logs);
        }
        let due = |said: &Option<Instant>| said.is_none_or(|said| now >= said + REPEAT_END);
        let (ended, said) = self.ends.values_mut().find(|(_, said)| due(said))?;
        *said = Some(now);
        Some(Report::Ended(ended.clone()))
    }

    fn take_saved(&mut self) -> Option<Report> {
        let (now, ends) = (self.connections, &self.ends);
        let lost = |epoch: &Epoch, on: u64| on != now && ends.contains_key(epoch);
        let mut saved = self.saved.iter_mut();
        let due = saved.find(|(epoch, (_, said))| said.is_none_or(|on| lost(epoch, on)));
        let (_, (report, said)) = due?;
        *said = Some(now);
        Some(report.clone())
    }

    fn add_logs(&mut self, epoch: Epoch, lines: Vec<String>) {
        self.log_bytes += size(&lines);
        self.logs.push_back((epoch, lines));
        while self.log_bytes > MAX_LOG_BYTES {
            let Some((of, oldest)) = self.logs.pop_front() else {
                return;
            };
            self.log_bytes -= size(&oldest);
            *self.left_out.entry(of).or_default() += oldest.len();
            if self.left_out.len() > MAX_ATTEMPTS {
                self.left_out.pop_first();
            }
        }
    }

    /// The oldest lines that wait, and before them how many older ones of their attempt are missing.
    fn take_logs(&mut self) -> Option<Report> {
        let next = self.logs.front().map(|(epoch, _)| *epoch);
        let gap = match next {
            Some(epoch) => self.left_out.remove_entry(&epoch),
            None => self.left_out.pop_first(),
        };
        if let Some((epoch, lines)) = gap {
            return Some(Report::Logs(epoch, vec![left_out(lines)]));
        }
        let (epoch, lines) = self.logs.pop_front()?;
        self.log_bytes -= size(&lines);
        Some(Report::Logs(epoch, lines))
    }
}

fn size(lines: &[String]) -> usize {
    lines.iter().map(|line| line.len() + 1).sum()
}
