//! Puts commands into the log: stamped, encoded, within bounds, and with an honest answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use stepcast_scheduler::accounts::Actor;
use stepcast_scheduler::{Command, Envelope, Rejection, Reply, RequestId, codec};

use crate::consensus::{Handle, Ready, Refused, Stall, Waiting};
use crate::error::{ProposeError, ReadError};
use crate::metrics::Metrics;
use crate::replica::Replicated;
use crate::runtime::{Runtime, timeout};
use crate::stamp::Stamper;

/// What the log answers with.
pub type Outcome = Result<Reply, Rejection>;

/// Largest encoded command. A job's files are in the staging area, so commands are a few KiB.
pub const MAX_COMMAND_BYTES: usize = 1 << 20;

/// After this long a proposer is told that the outcome is unknown; clients give up at about the same time.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A read needs no disk, so it is confirmed within a tick or not at all.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// When there is no room, this is soon enough to try again.
const RETRY_MS: u64 = 100;

/// When the disk fails, more patience is due.
const RETRY_STALLED_MS: u64 = 2_000;

/// The way into the log.
pub(crate) struct Proposer {
    consensus: Handle<Outcome>,
    replicated: Arc<Replicated>,
    stamper: Stamper,
    disk_free: Arc<AtomicU64>,
    disk_reserve: u64,
    metrics: Arc<Metrics>,
    runtime: Arc<dyn Runtime>,
    closed: AtomicBool,
}

/// A command that is to go into the log at a moment of somebody's choice. One that is dropped never goes.
#[must_use = "it goes into the log with `go`"]
pub struct Proposal(Ready<Outcome>);

/// What becomes of a command once its [`Proposal`] has gone.
#[must_use = "nobody else hears what becomes of it"]
pub struct Proposed {
    waiting: Waiting<Outcome>,
    begun: Instant,
    proposer: Arc<Proposer>,
}

impl Proposer {
    pub(crate) fn new(
        consensus: Handle<Outcome>,
        replicated: Arc<Replicated>,
        stamper: Stamper,
        disk_free: Arc<AtomicU64>,
        disk_reserve: u64,
        metrics: Arc<Metrics>,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        Self {
            consensus,
            replicated,
            stamper,
            disk_free,
            disk_reserve,
            metrics,
            runtime,
            closed: AtomicBool::new(false),
        }
    }

    /// Proposes a command and waits until it is applied.
    pub(crate) async fn propose(
        self: &Arc<Self>,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<Reply, ProposeError> {
        self.propose_by(None, command, request_id).await
    }

    /// The same in somebody's name.
    pub(crate) async fn propose_by(
        self: &Arc<Self>,
        actor: Option<Actor>,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<Reply, ProposeError> {
        let (proposal, proposed) = self.prepare(actor, command, request_id)?;
        proposal.go();
        proposed.outcome().await
    }

    /// Checks a command and takes a place for it. It goes into the log when the proposal does.
    pub(crate) fn prepare(
        self: &Arc<Self>,
        actor: Option<Actor>,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<(Proposal, Proposed), ProposeError> {
        let begun = Instant::now();
        let ready = self.ready(actor, command, request_id);
        let (ready, waiting) = ready.inspect_err(|error| {
            self.metrics.proposed(Err(error), begun.elapsed());
        })?;
        let proposed = Proposed {
            waiting,
            begun,
            proposer: Arc::clone(self),
        };
        Ok((Proposal(ready), proposed))
    }

    /// Whether the log could hold this command, and what the state as it is here would refuse a submission for.
    pub(crate) fn check(
        &self,
        actor: Option<Actor>,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<(), ProposeError> {
        let (envelope, _) = self.encode(actor, command, request_id)?;
        let taken = self.replicated.read(|state| state.would_take(&envelope));
        taken.map_err(ProposeError::Rejected)
    }

    fn ready(
        &self,
        actor: Option<Actor>,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<(Ready<Outcome>, Waiting<Outcome>), ProposeError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ProposeError::Stopped("it is shutting down".to_owned()));
        }
        // First of all: of a node that does not lead neither room nor log is asked for.
        self.consensus.leads()?;
        if self.disk_is_low() && takes_room(&command) {
            return Err(ProposeError::StorageFull);
        }
        let (_, data) = self.encode(actor, command, request_id)?;
        Ok(self.consensus.prepare(data)?)
    }

    /// Waits until everything acknowledged before is applied here.
    pub(crate) async fn confirm_read(&self) -> Result<(), ReadError> {
        let confirmed = self.consensus.read();
        match timeout(self.runtime.as_ref(), READ_TIMEOUT, confirmed).await {
            None => Err(ReadError::Timeout),
            Some(confirmed) => confirmed.map_err(|refused| match refused {
                Refused::NotLeader { leader } => ReadError::NotLeader { leader },
                Refused::Stopped(why) => ReadError::Stopped(why),
                Refused::Busy | Refused::Stalled(_) | Refused::OutcomeUnknown => {
                    ReadError::Busy { retry_ms: RETRY_MS }
                }
            }),
        }
    }

    /// Now, as the log sees it: milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        let newest = self.replicated.newest_stamp_ms();
        match self.consensus.leads() {
            Ok(()) => self.stamper.stamp_ms(newest),
            Err(_) => self.stamper.followed_ms(newest),
        }
    }

    /// What the leader, another node, has said of its time a moment ago.
    pub(crate) fn heard(&self, leader_ms: u64) {
        self.stamper.heard(leader_ms);
    }

    /// Whether a leader has said its time, to this node or to another one that has passed it on.
    pub(crate) fn has_heard(&self) -> bool {
        self.stamper.has_heard()
    }

    /// What this node tells the others of the time: on one that follows, what it has from a leader.
    pub(crate) fn told_ms(&self, leads: bool) -> Option<u64> {
        (leads || self.stamper.has_heard()).then(|| self.now_ms())
    }

    /// By how many milliseconds this host's wall clock is ahead of the log's time, negative where it is behind; nothing before
    /// a leader has said its time.
    pub(crate) fn clock_ahead_ms(&self) -> Option<i64> {
        match self.consensus.leads() {
            Ok(()) => Some(self.stamper.ahead_ms(self.replicated.newest_stamp_ms())),
            Err(_) => self.stamper.followed_ahead_ms(),
        }
    }

    /// Random bytes that nobody can guess; nothing where the system has none.
    pub(crate) fn random(&self) -> Option<[u8; 32]> {
        self.runtime.random()
    }

    /// Whether submissions are refused for want of room.
    pub(crate) fn disk_is_low(&self) -> bool {
        self.disk_free.load(Ordering::Relaxed) < self.disk_reserve
    }

    /// Takes nothing more from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn encode(
        &self,
        actor: Option<Actor>,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<(Envelope, Bytes), ProposeError> {
        let format = self.replicated.format();
        // What an older node could not read must not stand in its log.
        let command = command.for_format(format);
        if command.needs() > format.max(codec::FIRST) {
            return Err(ProposeError::Rejected(Rejection::NotYet));
        }
        let envelope = Envelope::new(self.now_ms(), request_id, command)
            .by(actor)
            .in_format(format);
        let data = codec::encode(&envelope);
        if data.len() > MAX_COMMAND_BYTES {
            return Err(ProposeError::TooLarge {
                bytes: data.len(),
                limit: MAX_COMMAND_BYTES,
            });
        }
        Ok((envelope, data.into()))
    }
}

impl Proposal {
    /// Into the log with it, from any thread and without a wait.
    pub fn go(self) {
        self.0.go();
    }

    /// The same, for the last of several that come together: none of them waits for anybody else.
    pub fn go_now(self) {
        self.0.go_now();
    }
}

impl Proposed {
    /// Waits until the command is applied. Without an answer in ten seconds, or when its proposal was dropped, the outcome
    /// is unknown.
    ///
    /// # Errors
    /// As [`Handle::propose`](crate::Handle::propose).
    pub async fn outcome(self) -> Result<Reply, ProposeError> {
        let proposer = &*self.proposer;
        let answer = timeout(proposer.runtime.as_ref(), PROPOSE_TIMEOUT, self.waiting).await;
        let outcome = match answer {
            // It never went: there is nothing to count.
            Some(Err(_)) => return Err(ProposeError::OutcomeUnknown),
            None => Err(ProposeError::OutcomeUnknown),
            Some(Ok(Err(refused))) => Err(refused.into()),
            Some(Ok(Ok(outcome))) => outcome.map_err(ProposeError::Rejected),
        };
        let took = self.begun.elapsed();
        proposer
            .metrics
            .proposed(outcome.as_ref().map(|_| ()), took);
        outcome
    }
}

/// Commands that add to the state. Everything else ends or frees something, and must go through on a full disk as well.
fn takes_room(command: &Command) -> bool {
    matches!(
        command,
        Command::SubmitJob { .. }
            | Command::SubmitArray { .. }
            | Command::SetTeam { .. }
            | Command::SetTeamMembers { .. }
            | Command::Account { .. }
            | Command::CreateWorkerToken { .. }
            | Command::RegisterWorker { .. }
            | Command::Place { .. }
    )
}

impl From<Refused> for ProposeError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotLeader { leader } => Self::NotLeader { leader },
            Refused::Busy => Self::Busy { retry_ms: RETRY_MS },
            Refused::OutcomeUnknown => Self::OutcomeUnknown,
            Refused::Stalled(Stall::Full) => Self::StorageFull,
            Refused::Stalled(Stall::Failing(why)) => Self::Stalled {
                why,
                retry_ms: RETRY_STALLED_MS,
            },
            Refused::Stopped(why) => Self::Stopped(why),
        }
    }
}
