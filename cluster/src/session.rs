//! What passes between the leader and one attached worker.

use stepcast_scheduler::ids::{AttemptNumber, Epoch, JobId};
use stepcast_scheduler::model::{self, JobSpec, Outcome};

/// What the leader tells a worker. A worker that drains is not told: it is given nothing new, and what is not to finish
/// there gets its own [`Order::Stop`], so that it can be given work again at any time.
#[derive(Debug, Clone)]
pub enum Order {
    /// Run this attempt. May come again after a reconnect: a worker that has the epoch ignores it.
    Assign(Box<Assignment>),
    /// End this attempt.
    Stop {
        /// The attempt's job, when the leader knows it.
        job: Option<JobId>,
        /// Which attempt.
        epoch: Epoch,
        /// Why.
        why: StopReason,
        /// How long the trainer may take to save a checkpoint first, in milliseconds; 0 for none.
        grace_ms: u64,
    },
    /// The answer to one renewal.
    Renewed {
        /// The renewal's own number, given back.
        renewal: u64,
        /// The epochs that hold their lease; an asked-for epoch that is missing here has lost it.
        epochs: Vec<Epoch>,
        /// How long each lease runs, counted by the worker from when it sent the renewal.
        lease_term_ms: u64,
    },
    /// The end of this attempt is in the log, or belongs to nobody any more: the worker may forget it.
    Acknowledged {
        /// Which attempt.
        epoch: Epoch,
    },
    /// This session is over; the reason says whether to attach again.
    Shutdown(Parting),
}

/// What a worker needs to run one attempt.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The job.
    pub job: JobId,
    /// Which try of it this is, from 1.
    pub attempt: AttemptNumber,
    /// The attempt's fencing token; every report names it.
    pub epoch: Epoch,
    /// What was asked for.
    pub spec: JobSpec,
    /// The GPUs to use, by position in the worker's inventory.
    pub gpus: Vec<u8>,
    /// The step of the job's newest checkpoint, 0 for none.
    pub resume_step: u64,
    /// Its place among the hosts of the job, if there are several.
    pub gang: Option<GangPlace>,
    /// How long the first lease runs, counted by the worker from when this arrives.
    pub lease_term_ms: u64,
}

/// The place of one host among those that train a job together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GangPlace {
    /// Its number, from 0: that one writes checkpoints and says when the work is complete.
    pub rank: u8,
    /// How many hosts there are.
    pub hosts: u8,
    /// Where rank 0 waits for the others: a name or an address.
    pub main_host: String,
    /// And its port.
    pub main_port: u16,
    /// The step of the checkpoint that all of them go on from, 0 for none.
    pub resume_step: u64,
}

/// Why an attempt is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// A person cancelled the job.
    Cancelled,
    /// The scheduler wants the GPUs for something else.
    Preempted,
    /// The worker is drained.
    Draining,
    /// The job's limit on running time was reached.
    MaxRuntime,
    /// The job has cost as much as it may.
    BudgetSpent,
    /// The worker may no longer take part.
    Revoked,
    /// Another part of it has ended.
    PartOver,
    /// The attempt does not hold a lease any more.
    LeaseLost,
}

impl From<model::StopReason> for StopReason {
    fn from(why: model::StopReason) -> Self {
        match why {
            model::StopReason::Cancelled => Self::Cancelled,
            model::StopReason::Preempted => Self::Preempted,
            model::StopReason::Draining => Self::Draining,
            model::StopReason::MaxRuntime => Self::MaxRuntime,
            // To the worker it is the same: the money is used up, and a checkpoint is worth saving.
            model::StopReason::BudgetSpent | model::StopReason::TeamBudget => Self::BudgetSpent,
            model::StopReason::Revoked => Self::Revoked,
            model::StopReason::PartOver => Self::PartOver,
        }
    }
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// Another session of the same worker has taken its place: do not attach again.
    Replaced,
    /// This node no longer leads: attach to the leader.
    NotLeader,
    /// The worker was removed or its token revoked: do not attach again.
    Revoked,
    /// The worker read its orders too slowly, or did not renew its leases in time: attach again, everything that matters
    /// is sent anew.
    TooSlow,
}

/// What a worker tells the leader. Each names the epoch it speaks of.
#[derive(Debug, Clone)]
pub enum Report {
    /// Keep these leases.
    Renew {
        /// The worker's own number for this renewal.
        renewal: u64,
        /// The epochs.
        epochs: Vec<Epoch>,
    },
    /// The trainer runs.
    Started {
        /// The job.
        job: JobId,
        /// Which attempt.
        epoch: Epoch,
        /// The step of the checkpoint that it goes on from, 0 for none. Older workers do not say.
        from: Option<u64>,
    },
    /// How far the attempt is; kept in memory only.
    Progress {
        /// Which attempt.
        epoch: Epoch,
        /// How far.
        progress: Progress,
    },
    /// A checkpoint is complete.
    Checkpointed {
        /// The job.
        job: JobId,
        /// Which attempt.
        epoch: Epoch,
        /// The checkpoint's step.
        step: u64,
    },
    /// The attempt is over.
    Ended {
        /// The job.
        job: JobId,
        /// Which attempt.
        epoch: Epoch,
        /// How.
        outcome: Outcome,
        /// The last step that was done.
        step: u64,
        /// Redacted words for the job's owner, empty after a success.
        detail: String,
    },
    /// It was asked to stop: it is given nothing new, and ends what it runs by itself.
    Leaving,
    /// Lines the trainer printed, redacted; kept in memory only.
    LogLines {
        /// Which attempt.
        epoch: Epoch,
        /// The lines, oldest first.
        lines: Vec<String>,
    },
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps there will be, 0 when not known yet.
    pub steps_total: u64,
    /// The last step's time in milliseconds.
    pub step_ms: Option<f64>,
    /// What the trainer is doing.
    pub phase: Phase,
}

/// What a trainer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Started, nothing heard yet.
    Starting,
    /// Filling its caches.
    Caching,
    /// Loading the model.
    Loading,
    /// Stepping.
    Training,
    /// Rendering validation prompts.
    Validating,
    /// Saving a checkpoint or the final model.
    Saving,
    /// Done; only the exit is missing.
    Complete,
}
