//! What every duty of one leadership shares. It lives as long as the node leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use stepcast_records::Quantiles;
use stepcast_scheduler::ids::{Epoch, JobId, WorkerId};

use super::format::Format;
use super::leases::Leases;
use super::live::{Begun, LiveBoard};
use super::measured::{Measured, millis};
use super::orders::Sessions;
use super::signals::Signals;
use super::view;
use crate::config::Config;
use crate::consensus::{Handle, Transport};
use crate::jobs::JobHub;
use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::proposer::{Outcome, Proposer};
use crate::replica::Replicated;
use crate::runtime::Runtime;
use crate::session::{Parting, Progress};

/// One leadership.
pub(crate) struct Leader {
    pub(crate) config: Config,
    pub(crate) ports: Ports,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) replicated: Arc<Replicated>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) node_id: u64,
    pub(crate) consensus: Handle<Outcome>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) hub: Arc<JobHub>,
    pub(crate) live: Arc<LiveBoard>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) sessions: Sessions,
    pub(crate) leases: Mutex<Leases>,
    pub(crate) format: Format,
    /// When it began, by the monotonic clock.
    began: Duration,
    over: AtomicBool,
}

impl Leader {
    /// Begins now.
    pub(crate) fn new(parts: Parts) -> Self {
        let now = parts.ports.clock.monotonic();
        let live = parts.replicated.read(view::live_attempts);
        let leases = Leases::new(parts.config.lease_term, &live, now);
        Self {
            config: parts.config,
            ports: parts.ports,
            runtime: parts.runtime,
            replicated: parts.replicated,
            proposer: parts.proposer,
            node_id: parts.node_id,
            consensus: parts.consensus,
            transport: parts.transport,
            signals: parts.signals,
            hub: parts.hub,
            live: parts.live,
            metrics: parts.metrics,
            sessions: Sessions::default(),
            leases: Mutex::new(leases),
            format: Format::default(),
            began: now,
            over: AtomicBool::new(false),
        }
    }

    /// The leader's monotonic time.
    pub(crate) fn now(&self) -> Duration {
        self.ports.clock.monotonic()
    }

    /// For how long it has led.
    pub(crate) fn led_for(&self) -> Duration {
        self.now().saturating_sub(self.began)
    }

    /// What is expected and measured, as of now.
    pub(crate) fn measured(&self) -> Measured {
        let forecast = Arc::clone(&self.ports.forecast);
        let stamp_ms = self.proposer.now_ms();
        Measured::new(forecast, Arc::clone(&self.live), self.now(), stamp_ms)
    }

    /// Takes how far an attempt is; gives back how long it still takes.
    pub(crate) fn heard(&self, job: JobId, epoch: Epoch, progress: Progress) -> Option<Quantiles> {
        let now_ms = millis(self.now());
        if !self.live.is_timed(epoch)
            && let Some(begun) = self.begun(epoch, now_ms)
        {
            self.live.begin(job, epoch, begun);
        }
        self.live.progress(job, epoch, progress, now_ms)
    }

    /// What is known of an attempt before it has said anything.
    fn begun(&self, epoch: Epoch, now_ms: u64) -> Option<Begun> {
        let running = self.replicated.read(|state| view::running(state, epoch))?;
        let ran_ms = self.proposer.now_ms().saturating_sub(running.since_ms);
        Some(Begun {
            worker: running.worker,
            hardware: running.hardware,
            course: self.ports.forecast.course(&running.spec, running.hardware),
            at_ms: now_ms.saturating_sub(ran_ms),
            step: running.step,
        })
    }

    /// A lease's length as workers are told it.
    pub(crate) fn lease_term_ms(&self) -> u64 {
        u64::try_from(self.config.lease_term.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether this leadership has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends it: no lease is renewed and no order given from now on.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.sessions.close_all(Parting::NotLeader);
        self.live.clear();
        // The next leader has no way to them, and nobody asks this one any more.
        self.ports.credentials.forget_all();
    }

    /// Has the dispatcher look at everybody who is attached.
    pub(crate) fn look_at_all(&self) {
        self.sessions
            .attached()
            .into_iter()
            .for_each(|worker: WorkerId| self.signals.worker(worker));
    }
}

/// What a leadership is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) ports: Ports,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) replicated: Arc<Replicated>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) node_id: u64,
    pub(crate) consensus: Handle<Outcome>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) hub: Arc<JobHub>,
    pub(crate) live: Arc<LiveBoard>,
    pub(crate) metrics: Arc<Metrics>,
}
