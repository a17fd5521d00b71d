//! Why a command was refused: data with a stable name, since a refusal changes nothing and breaks nothing.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, InstanceId, TokenId, WorkerId};
use crate::model::spec::SpecError;
use crate::model::{JobState, Label};

/// A command was refused, and nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such job, or it has been forgotten.
    #[error("there is no such job")]
    NoSuchJob,
    /// There is no such worker.
    #[error("there is no such worker")]
    NoSuchWorker,
    /// There is no such token.
    #[error("there is no such token")]
    NoSuchToken,
    /// The job as it was submitted is outside its bounds.
    #[error("the job cannot be taken: {0}")]
    InvalidSpec(SpecError),
    /// What a worker offers is outside its bounds.
    #[error("the worker cannot be taken: {why}")]
    InvalidInventory {
        /// What is wrong.
        why: &'static str,
    },
    /// The request id was used for another command.
    #[error("this request id was used for something else")]
    RequestIdReused,
    /// Another unfinished job has these files.
    #[error("the uploaded files belong to another job")]
    StagingInUse,
    /// The job is over, and not because it was cancelled.
    #[error("the job is over already")]
    JobOver {
        /// How.
        state: JobState,
    },
    /// The epoch is not that of the job's newest attempt: the caller speaks of the past.
    #[error("epoch {given} is out of date")]
    StaleEpoch {
        /// The epoch that was named.
        given: Epoch,
        /// That of the newest attempt, if there is any.
        newest: Option<Epoch>,
    },
    /// The attempt is over.
    #[error("the attempt with epoch {epoch} is over")]
    AttemptOver {
        /// Which.
        epoch: Epoch,
    },
    /// Nobody may come with this token.
    #[error("the token is not valid")]
    InvalidToken,
    /// A second worker came with the token of one that takes part.
    #[error("the token belongs to worker {name}, which runs elsewhere")]
    TokenInUse {
        /// The worker that has it.
        worker: WorkerId,
        /// Its name.
        name: Label,
        /// The state folder it runs on.
        instance: InstanceId,
    },
    /// There is a token with this name already.
    #[error("there is a worker token named {name} already")]
    NameTaken {
        /// The name.
        name: Label,
        /// The token that has it.
        token: TokenId,
    },
    /// There is a token with this hash already.
    #[error("the token exists already")]
    TokenExists,
    /// GPUs that run something are missing or other ones than before.
    #[error("GPUs that are in use have changed: wait until what runs there is over")]
    GpusInUse,
    /// Another instance has taken the worker's place, or it was removed.
    #[error("another process has taken the worker's place")]
    StaleInstance,
    /// A bound is reached.
    #[error("there are too many {what} already")]
    Full {
        /// Of what.
        what: &'static str,
    },
    /// Too many requests of the last day are remembered to take another: try later.
    #[error("too many requests were made within a day")]
    Busy,
    /// More in one command than fits.
    #[error("the command holds too many {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// The command is not newer than what was applied.
    #[error("the entry is not newer than what was applied")]
    OutOfOrder,
}

/// Why one placement of many was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dropped {
    /// The job is not waiting any more, or its attempt has another number.
    JobMoved,
    /// The job waits for a retry, or its budget is spent.
    JobHeld,
    /// The worker is gone, lost or draining.
    WorkerGone,
    /// A GPU is in use.
    GpuBusy,
    /// The GPUs are not what the job asks for.
    Unfit,
}

impl Rejection {
    /// Its stable name, such as `STALE_EPOCH`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSuchJob => "NO_SUCH_JOB",
            Self::NoSuchWorker => "NO_SUCH_WORKER",
            Self::NoSuchToken => "NO_SUCH_TOKEN",
            Self::InvalidSpec(_) => "INVALID_SPEC",
            Self::InvalidInventory { .. } => "INVALID_INVENTORY",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::StagingInUse => "STAGING_IN_USE",
            Self::JobOver { .. } => "JOB_OVER",
            Self::StaleEpoch { .. } => "STALE_EPOCH",
            Self::AttemptOver { .. } => "ATTEMPT_OVER",
            Self::InvalidToken => "INVALID_TOKEN",
            Self::TokenInUse { .. } => "TOKEN_IN_USE",
            Self::NameTaken { .. } => "NAME_TAKEN",
            Self::TokenExists => "TOKEN_EXISTS",
            Self::GpusInUse => "GPUS_IN_USE",
            Self::StaleInstance => "STALE_INSTANCE",
            Self::Full { .. } => "FULL",
            Self::Busy => "BUSY",
            Self::TooMany { .. } => "TOO_MANY",
            Self::OutOfOrder => "OUT_OF_ORDER",
        }
    }
}
