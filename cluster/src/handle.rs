//! The front door of a running node.

mod cluster;
pub(crate) mod secret;

pub use self::secret::NewToken;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stepcast_scheduler::accounts::Actor;
use stepcast_scheduler::ids::{Epoch, InstanceId, JobId, WorkerId};
use stepcast_scheduler::placement::ForecastSource;
use stepcast_scheduler::{Command, Reply, RequestId, State};
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::consensus::{self, Role, Stall, Word};
use crate::credentials::Keeper;
use crate::error::{AttachError, ProposeError, ReadError};
use crate::identity::Identity;
use crate::jobs::{JobHub, JobWatch};
use crate::leader::view;
use crate::leader::{ContributeError, Live, LiveBoard, Measured, Recorder, Session, Slot, millis};
use crate::metrics::{Metrics, Moment};
use crate::network::Way;
use crate::ports::Contribution;
use crate::proposer::{Outcome, Proposal, Proposed, Proposer};
use crate::replica::Replicated;
use crate::snapshot::{self, Outgoing};
use crate::snapshotter::{Gate, Snapshotter};
use crate::status::{Health, NodeStatus};
use crate::tasks::{Ended, Tasks};
use crate::watch::WatchError;

/// At a shutdown, what is under way may finish for this long.
const DRAIN: Duration = Duration::from_secs(5);

/// The log's disk has this long to write what is still to be written, and a snapshot to end. One that hangs would keep the
/// process, which a supervisor then has to kill; nothing that is not on it was acknowledged.
const CLOSE: Duration = Duration::from_secs(20);

/// A disk that has not said by then how a file is, is not waited for.
const SAID_WITHIN: Duration = Duration::from_millis(200);

/// A running node. Cheap to clone.
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) identity: Identity,
    pub(crate) config: Config,
    pub(crate) consensus: consensus::Handle<Outcome>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) replicated: Arc<Replicated>,
    pub(crate) hub: Arc<JobHub>,
    pub(crate) live: Arc<LiveBoard>,
    pub(crate) slot: Slot,
    pub(crate) credentials: Arc<dyn Keeper>,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) disk_free: Arc<AtomicU64>,
    pub(crate) snapshot_index: Arc<AtomicU64>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) way: Way,
    pub(crate) snapshotter: Arc<Snapshotter<Outcome>>,
    pub(crate) tasks: Tasks,
}

impl Handle {
    /// Puts a command into the log and waits until it is applied. With a request id, asking again gives the first
    /// answer; after [`ProposeError::OutcomeUnknown`] that is what to do.
    pub async fn propose(
        &self,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<Reply, ProposeError> {
        self.0.proposer.propose(command, request_id).await
    }

    /// The same in somebody's name: what is taken stands in the audit trail.
    pub async fn propose_by(
        &self,
        actor: Option<Actor>,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<Reply, ProposeError> {
        let proposer = &self.0.proposer;
        proposer.propose_by(actor, command, request_id).await
    }

    /// Checks a command and takes a place for it, for a caller who has something else to do before it goes into the log:
    /// it goes when [`Proposal::go`] is called. As [`Self::propose_by`] otherwise.
    ///
    /// # Errors
    /// What is known before it goes: too much is on its way, the disk is full, or the command is too large or too new.
    pub fn prepare(
        &self,
        actor: Option<Actor>,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<(Proposal, Proposed), ProposeError> {
        self.0.proposer.prepare(actor, command, request_id)
    }

    /// Whether a submission would be taken as things are on this node: nothing goes into the log.
    ///
    /// # Errors
    /// It is too large, too new for the format that everybody who belongs to the cluster reads, or what it would be
    /// refused for.
    pub fn check(
        &self,
        actor: Option<Actor>,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<(), ProposeError> {
        self.0.proposer.check(actor, command, request_id)
    }

    /// Reads the state with everything in it that was acknowledged before this call. The log waits while `read` runs,
    /// so it must be quick.
    pub async fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, ReadError> {
        self.0.proposer.confirm_read().await?;
        Ok(self.0.replicated.read(read))
    }

    /// Reads the state as this node has it now, which may be a moment old, and works on a node that cannot write.
    pub fn read_stale<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        self.0.replicated.read(read)
    }

    /// Watches a job: its value now, then every event, with live progress in between.
    pub fn watch(&self, job: JobId) -> Result<JobWatch, WatchError> {
        // Under the state's lock, so that no event falls between the value and the watch.
        self.0.replicated.read(|state| {
            let current = state.job(job).ok_or(WatchError::NoSuchJob)?;
            let (seq, is_over) = (current.seq(), current.state.is_terminal());
            self.0.hub.open(job, seq, current.into_owned(), is_over)
        })
    }

    /// What an attempt has said of itself lately. `None` on a node that does not lead, and for an attempt long over.
    pub fn live(&self, epoch: Epoch) -> Option<Live> {
        let now = self.0.slot.borrow().as_ref().map(|leader| leader.now())?;
        self.0.live.get(epoch, millis(now))
    }

    /// What is expected of jobs, and of those that run also what their own steps have shown as far as this node knows: what
    /// the planner goes by, where this node leads.
    pub fn measured(&self, forecast: Arc<dyn ForecastSource + Send + Sync>) -> Measured {
        let now = self.0.slot.borrow().as_ref().map(|leader| leader.now());
        // Without a leader's clock the board is empty.
        let now = now.unwrap_or_default();
        Measured::new(forecast, Arc::clone(&self.0.live), now, self.now_ms())
    }

    /// Opens a session for a registered worker, on the leader only. An earlier session of the worker is closed.
    ///
    /// # Errors
    /// The node does not lead, or the worker is not registered, or another process of it is.
    pub fn attach(&self, worker: WorkerId, instance: InstanceId) -> Result<Session, AttachError> {
        self.open_session(worker, instance, false)
    }

    /// The same for a worker that was asked to stop before it attached: it is given nothing new, see [`Report::Leaving`].
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_leaving(
        &self,
        worker: WorkerId,
        instance: InstanceId,
    ) -> Result<Session, AttachError> {
        self.open_session(worker, instance, true)
    }

    fn open_session(
        &self,
        worker: WorkerId,
        instance: InstanceId,
        is_leaving: bool,
    ) -> Result<Session, AttachError> {
        let leader = self.0.slot.borrow().clone();
        let Some(leader) = leader else {
            return Err(AttachError::NotLeader {
                leader: self.0.consensus.role().borrow().leader,
            });
        };
        match self
            .0
            .replicated
            .read(|state| view::instance(state, worker))
        {
            None => Err(AttachError::UnknownWorker),
            Some(registered) if registered != instance => Err(AttachError::StaleInstance),
            // Should it change between the look and the opening, the dispatcher's first look closes the session again.
            Some(_) => Ok(Session::open(leader, worker, instance, is_leaving)),
        }
    }

    /// Workers with an open session, on the leader; nobody elsewhere.
    pub fn attached(&self) -> Vec<WorkerId> {
        self.0
            .slot
            .borrow()
            .as_ref()
            .map_or_else(Vec::new, |leader| leader.sessions.attached())
    }

    /// Stores a worker's samples, exactly once by their id. After `Ok` they are durable.
    pub async fn contribute(&self, contribution: Contribution) -> Result<(), ContributeError> {
        self.0.recorder.contribute(contribution).await
    }

    /// Where the credentials of jobs are held: of use on the leader only, which hands them to workers.
    pub fn credentials(&self) -> &dyn Keeper {
        self.0.credentials.as_ref()
    }

    /// Milliseconds since 1970 as the log sees them.
    pub fn now_ms(&self) -> u64 {
        self.0.proposer.now_ms()
    }

    /// Where the node stands.
    pub fn status(&self) -> NodeStatus {
        let inner = &*self.0;
        let role = *inner.consensus.role().borrow();
        let progress = inner.consensus.progress();
        let leader = inner.slot.borrow().clone();
        let members = inner.replicated.members();
        NodeStatus {
            node_id: inner.identity.node_id,
            cluster_id: inner.identity.cluster_id,
            term: role.term,
            leader: role.leader,
            leading: leader.is_some(),
            led_for: leader.as_ref().map(|leader| leader.led_for()),
            voters: members.voters.iter().copied().collect(),
            members,
            followers: inner.consensus.followers(),
            log_format: inner.replicated.read(State::format),
            commit_index: progress.committed,
            cluster_commit_index: self.cluster_commit(role, progress.committed),
            applied_index: progress.applied,
            last_index: progress.last,
            snapshot_index: inner.snapshot_index.load(Ordering::Acquire),
            sessions: leader.map_or(0, |leader| leader.sessions.count()),
            disk_free_bytes: inner.disk_free.load(Ordering::Relaxed),
            health: self.health(role.leader),
        }
    }

    /// A snapshot with everything in it that this node has applied, as a file: a backup, for
    /// [`restore_into`](crate::restore_into). Whoever needs what was acknowledged elsewhere a moment ago reads first.
    pub async fn snapshot_now(&self) -> Result<Outgoing, snapshot::Error> {
        let snapshotter = Arc::clone(&self.0.snapshotter);
        let taken = spawn_blocking(move || snapshotter.take_to_send()).await;
        taken.unwrap_or(Err(snapshot::Error::Closed))
    }

    /// Bytes of the newest snapshot on disk and how old it is; nothing without one, or when the disk does not say so soon.
    pub async fn newest_snapshot(&self) -> Option<(u64, Duration)> {
        let snapshotter = Arc::clone(&self.0.snapshotter);
        let found = spawn_blocking(move || snapshotter.snapshots.newest_file());
        let found = tokio::time::timeout(SAID_WITHIN, found).await;
        found.ok()?.ok()?.ok()?
    }

    /// Everything measured, in the text format that Prometheus reads.
    pub fn metrics_text(&self) -> String {
        let (status, peers) = (self.status(), self.peers());
        let moment = Moment {
            status: &status,
            peers: &peers,
            in_flight: self.0.consensus.in_flight(),
            now_ms: self.0.proposer.now_ms(),
        };
        // A view of its own: to count a long queue must not hold up the log.
        let state = self.0.replicated.read(Clone::clone);
        self.0.metrics.text(&moment, &state)
    }

    /// Whether this node leads and its duties have begun.
    pub fn leads(&self) -> bool {
        self.0.slot.borrow().is_some()
    }

    /// Waits until this node does not lead any more; not at all on one that does not.
    pub async fn deposed(&self) {
        // Without its sender the node has stopped, and leads no more either.
        let _ = self.0.consensus.role().wait_for(|role| !role.leads).await;
    }

    /// Waits until this node leads and its duties have begun, or cannot any more.
    pub async fn leading(&self) -> bool {
        let mut role = self.0.consensus.role();
        loop {
            if self.0.slot.borrow().is_some() {
                return true;
            }
            if matches!(self.0.consensus.state(), consensus::State::Stopped(_)) {
                return false;
            }
            // Duties begin shortly after the role changes, so both are looked at again and again.
            let _ = tokio::time::timeout(Duration::from_millis(5), role.changed()).await;
        }
    }

    /// Waits until consensus or one of the node's own tasks has ended by itself, and says which and why: for ever if none
    /// does. What is left is half a node, so whoever runs it calls [`Self::shutdown`] and starts it anew, unless the node
    /// was removed from the cluster or waits for a newer program ([`Ended::again`]).
    pub async fn ended(&self) -> Ended {
        tokio::select! {
            ended = self.0.consensus.failed() => ended,
            ended = self.0.tasks.ended() => ended,
            ended = self.0.way.ended() => ended,
        }
    }

    /// The newest format of the log that this node goes along with.
    pub fn newest_log_format(&self) -> u16 {
        self.0.config.log_format
    }

    /// Where the data is.
    pub fn data_dir(&self) -> &PathBuf {
        &self.0.config.data_dir
    }

    /// Stops the node: nothing new is taken, what is under way finishes if it can, another node is handed leadership if
    /// this one has it, and the log is closed.
    pub async fn shutdown(&self) {
        self.0.proposer.close();
        let begun = tokio::time::Instant::now();
        while self.0.consensus.in_flight() > 0 && begun.elapsed() < DRAIN {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.0.consensus.role().borrow().leads && !self.0.consensus.followers().is_empty() {
            match self.0.consensus.transfer(None).await {
                Ok(to) => tracing::info!(to, "leadership was handed over"),
                // They find out by themselves, one election timeout later.
                Err(error) => tracing::warn!(%error, "leadership was not handed over"),
            }
        }
        self.0.tasks.shutdown().await;
        let (consensus, gate) = (self.0.consensus.clone(), Arc::clone(&self.0.gate));
        // Joins threads, which are on their way out, and a snapshot that is being written.
        let closing = move || {
            gate.close();
            consensus.shutdown();
        };
        if !done_within(CLOSE, closing).await {
            tracing::error!("the disk does not answer, so the log is left as it is");
        }
        self.0.way.close().await;
    }

    /// What every submission is told before anything is done about it.
    ///
    /// # Errors
    /// This node does not lead, or it does and its disk has no room: what it has while another leads counts for nothing.
    pub fn takes_submissions(&self) -> Result<(), ProposeError> {
        self.0.consensus.leads()?;
        match self.health(None) {
            Health::StorageFull => Err(ProposeError::StorageFull),
            _ => Ok(()),
        }
    }

    /// Highest entry that is committed, as far as the leader has told this node, which knows of `own`.
    fn cluster_commit(&self, role: Role, own: u64) -> Option<u64> {
        if role.leads {
            return Some(own);
        }
        match self.0.way.transport.standing(role.leader?) {
            Word::Awaited => None,
            // All that there is to go by.
            Word::Never => Some(own),
            Word::Said(leader) => Some(own.max(leader.committed)),
        }
    }

    fn health(&self, leader: Option<u64>) -> Health {
        match self.0.consensus.state() {
            consensus::State::Stopped(why) => Health::Stopped(why),
            consensus::State::Stalled(Stall::Full) => Health::StorageFull,
            consensus::State::Stalled(Stall::Failing(why)) => Health::LogStalled(why),
            consensus::State::Running => match self.0.consensus.disk_hangs() {
                Some(silent) => Health::LogStalled(format!(
                    "its disk has not answered for {} seconds",
                    silent.as_secs()
                )),
                None if self.0.proposer.disk_is_low() => Health::StorageFull,
                None if leader.is_none() => Health::Electing,
                None => Health::Serving,
            },
        }
    }
}

/// Does what may block. Whether it is done by then; if not, it goes on.
async fn done_within(wait: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    tokio::time::timeout(wait, spawn_blocking(work))
        .await
        .is_ok()
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a shutdown the threads still end; nobody waits for them.
        self.consensus.stop();
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("node_id", &self.0.identity.node_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_at_the_end_is_not_waited_for() {
        let (answer, disk) = std::sync::mpsc::channel::<()>();
        let hangs = move || {
            let _ = disk.recv();
        };
        assert!(!done_within(Duration::ZERO, hangs).await);
        drop(answer);
        assert!(done_within(Duration::from_secs(60), || ()).await);
    }
}
