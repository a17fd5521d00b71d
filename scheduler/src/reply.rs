//! What a caller is told when a command was taken.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, JobId, KeyId, OrgId, TeamId, TokenId, UserId, WorkerId};
use crate::model::JobState;
use crate::rejection::Dropped;

/// The answer to a command that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done, and there is nothing more to say.
    Done,
    /// The job is in the queue.
    JobSubmitted {
        /// Its id.
        job: JobId,
    },
    /// The job is cancelled, or will be when its worker confirms.
    JobCancelled {
        /// Where it stands now: `Cancelled` or `Cancelling`.
        state: JobState,
    },
    /// The token is valid.
    TokenCreated {
        /// Its id.
        token: TokenId,
    },
    /// The worker takes part.
    WorkerRegistered {
        /// Its id; the same as before if it came again.
        worker: WorkerId,
    },
    /// What became of each placement, in their order.
    Placed {
        /// The epoch of the attempt, or why there is none.
        outcomes: Vec<Result<Epoch, Dropped>>,
    },
    /// Leases were ended.
    Expired {
        /// How many; the others were over already.
        count: u32,
    },
    /// Old things were ended or forgotten.
    Swept {
        /// How many.
        count: u32,
    },
    /// The team has these rules.
    TeamSet {
        /// Its id.
        team: TeamId,
    },
    /// The array is in the queue.
    ArraySubmitted {
        /// Its first job, by which it is called; the others have the ids behind it.
        array: JobId,
        /// How many jobs it has.
        tasks: u32,
    },
    /// An array's jobs are cancelled, or will be when their workers confirm.
    ArrayCancelled {
        /// How many there were that were not over.
        count: u32,
    },
    /// What became of each preemption, in their order.
    Preempted {
        /// Whether its worker was told, or why it is left alone.
        outcomes: Vec<Result<(), Dropped>>,
    },
    /// The organisation is there.
    OrgCreated {
        /// Its id.
        org: OrgId,
    },
    /// Somebody is let in.
    UserCreated {
        /// Their id.
        user: UserId,
    },
    /// The token is good.
    KeyCreated {
        /// Its id.
        key: KeyId,
    },
}
