//! What is to be done outside of the state, as data. Only a leader acts on it, and may find all of it in the state again.

use crate::ids::{Epoch, JobId, StagingId, WorkerId};
use crate::model::{JobEvent, StopReason};

/// What follows from a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Tell the worker to run the attempt.
    Dispatch {
        /// Whom.
        worker: WorkerId,
        /// Whose attempt.
        job: JobId,
        /// Which.
        epoch: Epoch,
    },
    /// Tell the worker to stop the attempt.
    Stop {
        /// Whom.
        worker: WorkerId,
        /// Whose attempt.
        job: JobId,
        /// Which.
        epoch: Epoch,
        /// Why.
        why: StopReason,
    },
    /// Something has happened to a job: tell those who watch it.
    JobChanged {
        /// Which.
        job: JobId,
        /// What.
        event: JobEvent,
    },
    /// Something about a worker has changed: look at its session.
    WorkerChanged {
        /// Which.
        worker: WorkerId,
    },
    /// A job or a GPU may be free to be paired: plan.
    Plan,
    /// The files of a job that is over can go.
    DropStaging {
        /// Which.
        staging: StagingId,
    },
    /// The credentials that came with these files can go: the attempt has them, or is over.
    DropCredentials {
        /// Whose.
        staging: StagingId,
    },
}
