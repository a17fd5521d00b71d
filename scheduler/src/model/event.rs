//! What has happened to a job, one numbered line each.

use serde::{Deserialize, Serialize};

use super::{FailureReason, Outcome};
use crate::ids::{AttemptNumber, Epoch, JobId, WorkerId};

/// One thing that has happened to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEvent {
    /// Its number: from 1, and one more than that of the job's event before.
    pub seq: u64,
    /// When, by stamp.
    pub stamp_ms: u64,
    /// What.
    pub kind: EventKind,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// The job is in the queue.
    Submitted,
    /// An attempt was given a worker's GPUs.
    Placed {
        /// Which try.
        attempt: AttemptNumber,
        /// Its fencing token.
        epoch: Epoch,
        /// Whose GPUs.
        worker: WorkerId,
    },
    /// The trainer runs.
    Started {
        /// Which try.
        attempt: AttemptNumber,
    },
    /// A checkpoint is complete.
    Checkpointed {
        /// Which try.
        attempt: AttemptNumber,
        /// The checkpoint's step.
        step: u64,
    },
    /// A person wants the job to end; the worker was told.
    CancelRequested,
    /// An attempt is over and its GPUs are free.
    AttemptEnded {
        /// Which try.
        attempt: AttemptNumber,
        /// How.
        outcome: Outcome,
        /// The last step it is known to have done.
        step: u64,
    },
    /// The job is back in the queue.
    Requeued {
        /// Why the attempt before did not do it.
        reason: FailureReason,
        /// When it may run again, by stamp.
        not_before_ms: u64,
    },
    /// The job is done.
    Succeeded,
    /// The job has failed for good.
    Failed {
        /// Why.
        reason: FailureReason,
    },
    /// The job was cancelled.
    Cancelled,
    /// The job's retention is over; nothing of it is kept.
    Forgotten,
    /// Somebody has approved what it costs.
    Approved,
    /// What is asked for has changed.
    Changed,
    /// Its GPUs are taken back: the worker was told.
    PreemptRequested {
        /// Which try.
        attempt: AttemptNumber,
        /// For which job; itself, to go on where it fares better.
        for_job: Option<JobId>,
    },
    /// The credentials that its configuration needs were given again.
    CredentialsGiven,
    /// Nobody holds them any more: it waits until they are given again.
    CredentialsMissing,
    /// An attempt goes on from another step than that of the newest checkpoint: its host has no newer one.
    GoesOn {
        /// Which try.
        attempt: AttemptNumber,
        /// The step; 0 where it begins anew.
        step: u64,
    },
}

impl EventKind {
    /// Whether nothing but [`EventKind::Forgotten`] can follow.
    #[must_use]
    pub const fn is_last(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed { .. } | Self::Cancelled | Self::Forgotten
        )
    }
}
