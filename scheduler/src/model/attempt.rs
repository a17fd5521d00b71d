//! One try of a job on one worker or several, the lease it runs under, and how it can end.

use serde::{Deserialize, Serialize};
use stepcast_records::{GpuModel, UsdMicros};

use super::{Gang, gpu_numbers};
use crate::command::PlacementNote;
use crate::ids::{AttemptNumber, Epoch, JobId, WorkerId};

/// One try of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which try, from 1.
    pub number: AttemptNumber,
    /// Its fencing token.
    pub epoch: Epoch,
    /// Where it runs: of several hosts, that of rank 0.
    pub worker: WorkerId,
    /// The model of its GPUs.
    #[serde(with = "gpu_numbers::one")]
    pub gpu: GpuModel,
    /// The positions of its GPUs in that worker's inventory, ascending.
    pub gpus: Vec<u8>,
    /// What all its GPUs together cost an hour, if the worker has a price.
    pub price_per_hour: Option<UsdMicros>,
    /// What was expected of it when it was placed.
    pub note: PlacementNote,
    /// Where it stands.
    pub state: AttemptState,
    /// That it was asked to stop, and why.
    pub stop: Option<StopReason>,
    /// When it was placed, by stamp.
    pub placed_ms: u64,
    /// When its trainer started, by stamp.
    pub started_ms: Option<u64>,
    /// When it ended, by stamp.
    pub ended_ms: Option<u64>,
    /// When it is asked to stop at the latest.
    pub deadline: Option<Deadline>,
    /// Step of its newest checkpoint, 0 for none.
    pub checkpoint_step: u64,
    /// Last step it is known to have done.
    pub last_step: u64,
    /// The worker's words about the end, redacted and cut: troubleshooting data, deleted with the job.
    pub detail: String,
    /// Its other parts, if it runs on several hosts. Written behind the job, from format 3 on.
    #[serde(skip)]
    pub gang: Option<Box<Gang>>,
}

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptState {
    /// The lease is granted; the worker has not said that it started.
    Placed,
    /// The trainer runs.
    Running,
    /// Over, and the GPUs are free.
    Ended(Outcome),
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The training is complete.
    Succeeded,
    /// It is not.
    Failed(FailureReason),
    /// The worker stopped it because it was asked to.
    Cancelled,
    /// The worker was not heard of for a whole lease.
    LeaseExpired,
}

/// Why an attempt, or a job, failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FailureReason {
    /// The trainer refuses the configuration.
    ConfigInvalid,
    /// GPU or host memory ran out.
    OutOfMemory,
    /// The trainer failed in its own way.
    TrainerError,
    /// The trainer gave no sign of life for too long.
    Stuck,
    /// The worker was not heard of for a whole lease.
    WorkerLost,
    /// The worker's process was started anew while the attempt ran.
    WorkerRestarted,
    /// The limit on the time of an attempt was reached.
    MaxRuntime,
    /// The limit on the money of all attempts was reached.
    BudgetSpent,
    /// The GPUs were taken back, or the worker drains.
    Preempted,
    /// The trainer could not be started.
    LaunchFailed,
    /// The job's files are gone from the staging area.
    StagingMissing,
    /// It waited longer than any job may.
    QueuedTooLong,
    /// The money that its team had set aside for it was used up, and there was no more: of the team's budget, or of what
    /// the team lets a job cost that nobody has approved.
    TeamBudget,
    /// Its worker ended it, since nobody had renewed its lease, and came back before the leader could say that it was lost.
    LeaseLost,
    /// Nobody held its credentials any more when its worker asked for them, since another server leads or it was started
    /// anew.
    CredentialsGone,
}

/// What a failure means for the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Trying again would change nothing.
    Never,
    /// Tried again as often as the job's own limit says.
    Counted,
    /// Tried again up to a limit of its own: the job was not at fault.
    Lost,
    /// Tried again at once: as often as it is asked to stop, and within the bound on attempts if it is not asked.
    Free,
}

/// Why an attempt was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// Its job was cancelled.
    Cancelled,
    /// Its GPUs are taken back.
    Preempted,
    /// Its worker drains and does not wait.
    Draining,
    /// It has run as long as it may.
    MaxRuntime,
    /// The job has cost as much as it may.
    BudgetSpent,
    /// Its worker may no longer take part.
    Revoked,
    /// The money that its team has set aside for it is used up, and there is no more: of the team's budget, or of what the
    /// team lets a job cost that nobody has approved.
    TeamBudget,
    /// Another part of it has ended.
    PartOver,
}

/// When an attempt is asked to stop, since it has run or cost as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// When, by stamp.
    pub at_ms: u64,
    /// Which limit it is.
    pub why: StopReason,
}

/// The right to run one attempt: held by a worker from the placement until the attempt's end is in the log. Of several
/// hosts every worker holds it, each for its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The fencing token.
    pub epoch: Epoch,
    /// The job.
    pub job: JobId,
    /// Which try of it.
    pub attempt: AttemptNumber,
    /// Who holds it: of several, the worker of rank 0.
    pub worker: WorkerId,
}

impl Attempt {
    /// Whether it holds a lease.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        !matches!(self.state, AttemptState::Ended(_))
    }

    /// Whether it was asked to stop, for whatever reason. That another part of it has ended is none: it stopped by itself.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.stop.is_some_and(|why| why != StopReason::PartOver)
    }

    /// How it ended.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        match self.state {
            AttemptState::Ended(outcome) => Some(outcome),
            AttemptState::Placed | AttemptState::Running => None,
        }
    }

    /// What it has cost by `now_ms`, from its placement on.
    #[must_use]
    pub fn cost(&self, now_ms: u64) -> UsdMicros {
        let held_ms = self
            .ended_ms
            .unwrap_or(now_ms)
            .saturating_sub(self.placed_ms);
        let price = self.price_per_hour.unwrap_or_default();
        stepcast_records::units::cost(held_ms, price)
    }
}

impl FailureReason {
    /// What the failure means for the job.
    #[must_use]
    pub const fn retry(self) -> Retry {
        match self {
            Self::TrainerError | Self::Stuck | Self::LaunchFailed => Retry::Counted,
            Self::WorkerLost | Self::WorkerRestarted => Retry::Lost,
            Self::Preempted | Self::TeamBudget | Self::LeaseLost | Self::CredentialsGone => {
                Retry::Free
            }
            Self::ConfigInvalid
            | Self::OutOfMemory
            | Self::MaxRuntime
            | Self::BudgetSpent
            | Self::StagingMissing
            | Self::QueuedTooLong => Retry::Never,
        }
    }

    /// Whether trying again may help.
    #[must_use]
    pub const fn retryable(self) -> bool {
        !matches!(self.retry(), Retry::Never)
    }

    /// Its stable name, such as `OUT_OF_MEMORY`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ConfigInvalid => "CONFIG_INVALID",
            Self::OutOfMemory => "OUT_OF_MEMORY",
            Self::TrainerError => "TRAINER_ERROR",
            Self::Stuck => "STUCK",
            Self::WorkerLost => "WORKER_LOST",
            Self::WorkerRestarted => "WORKER_RESTARTED",
            Self::MaxRuntime => "MAX_RUNTIME",
            Self::BudgetSpent => "BUDGET_SPENT",
            Self::Preempted => "PREEMPTED",
            Self::LaunchFailed => "LAUNCH_FAILED",
            Self::StagingMissing => "STAGING_MISSING",
            Self::QueuedTooLong => "QUEUED_TOO_LONG",
            Self::TeamBudget => "TEAM_BUDGET",
            Self::LeaseLost => "LEASE_LOST",
            Self::CredentialsGone => "CREDENTIALS_GONE",
        }
    }
}
