//! How attempts have ended, on the way to the disk and then to the leader: one after the other, beside the loop that renews
//! leases.

use std::collections::VecDeque;
use std::sync::Arc;

use stepcast_records::Sample;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::agent::Epoch;
use crate::chain::chain;
use crate::disk::fail_with;
use crate::host::Host;
use crate::order::{Ended, Report};
use crate::spool;
use crate::state_dir::OutcomeRecord;

/// Ends that are not reported yet, in their order: no more than attempts that the agent holds.
pub(crate) struct Ends {
    host: Arc<Host>,
    spooled: Arc<Notify>,
    waiting: VecDeque<(OutcomeRecord, Vec<Sample>)>,
    writing: Option<(Epoch, JoinHandle<()>)>,
}

impl Ends {
    /// None yet. `spooled` is told of samples that are there to be sent.
    pub(crate) fn new(host: Arc<Host>, spooled: Arc<Notify>) -> Self {
        Self {
            host,
            spooled,
            waiting: VecDeque::new(),
            writing: None,
        }
    }

    /// Whether all of them are reported.
    pub(crate) fn is_empty(&self) -> bool {
        self.writing.is_none()
    }

    /// Has an end written down and then reported, and what the attempt has measured before that.
    pub(crate) fn add(&mut self, outcome: OutcomeRecord, samples: Vec<Sample>) {
        self.waiting.push_back((outcome, samples));
        self.go_on();
    }

    /// Waits for the next one that is on the disk and reported: for ever, if there is none. Cancel-safe.
    pub(crate) async fn reported(&mut self) -> Epoch {
        let Some((epoch, writing)) = &mut self.writing else {
            return std::future::pending().await;
        };
        let epoch = *epoch;
        let written = writing.await;
        self.writing = None;
        if let Err(error) = written {
            fail_with(error);
        }
        self.go_on();
        epoch
    }

    fn go_on(&mut self) {
        if self.writing.is_none()
            && let Some((outcome, samples)) = self.waiting.pop_front()
        {
            let (host, spooled) = (Arc::clone(&self.host), Arc::clone(&self.spooled));
            let epoch = outcome.epoch;
            let write = move || write(&host, &spooled, outcome, samples);
            self.writing = Some((epoch, tokio::task::spawn_blocking(write)));
        }
    }
}

/// First the samples, then the outcome, then the word to the leader: a crash between any two loses nothing that was
/// promised. (Samples without an outcome are kept, though the attempt may be told as restarted.)
fn write(host: &Host, spooled: &Notify, outcome: OutcomeRecord, samples: Vec<Sample>) {
    if !samples.is_empty() {
        spool::keep(host, outcome.epoch, samples);
        spooled.notify_one();
    }
    if let Err(error) = host.state.end_attempt(&outcome) {
        tracing::error!(
            epoch = outcome.epoch,
            error = chain(&error),
            "the outcome cannot be kept; it is reported all the same"
        );
    }
    host.outbox.push(report(outcome));
}

/// What the leader is told.
pub(crate) fn report(outcome: OutcomeRecord) -> Report {
    let OutcomeRecord {
        epoch,
        job,
        outcome,
        detail,
        step,
    } = outcome;
    Report::Ended(Ended {
        epoch,
        job,
        outcome,
        detail,
        step,
    })
}
