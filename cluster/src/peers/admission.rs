//! A new node asks to be let in: what it says of itself, and what the leader decides.

use futures::future::BoxFuture;
use stepcast_scheduler::model::Generation;

use crate::members::Members;

/// Longest address or place that is taken: a host's name has at most 253 bytes.
pub(super) const TEXT_BYTES_MAX: usize = 1024;

/// Lets new nodes in. Only the leader can.
pub trait Admission: Send + Sync + 'static {
    /// Gives the node an id and has it learn, and answers once that is applied. A key that is known already gets the
    /// same id as before. The token has been checked by
    /// the [newest generation](Self::newest_generation).
    fn admit(&self, applicant: Applicant) -> BoxFuture<'_, Result<Admitted, NotAdmitted>>;

    /// The generations of the cluster that this node knows, oldest first: by the secret of the last one tokens are made.
    fn generations(&self) -> Vec<Generation>;

    /// The last of them with everything in it that was acknowledged anywhere before this call: never one whose secret somebody
    /// knows who was removed.
    fn newest_generation(&self) -> BoxFuture<'_, Result<Option<Generation>, NotAdmitted>>;
}

/// A node that wants to take part, as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicant {
    /// SHA-256 of its public key, for [`Member::key`](crate::members::Member::key).
    pub key: [u8; 32],
    /// `HOST:PORT` where other nodes reach it.
    pub peer_address: String,
    /// URL where people and workers reach it.
    pub client_address: String,
    /// The newest log format that it reads.
    pub log_format: u32,
    /// Where it keeps the benchmark tables.
    pub store: String,
    /// Where it keeps submitted files.
    pub staging: String,
}

/// The node belongs to the cluster now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its id from now on.
    pub node_id: u64,
    /// Everybody, the new node included.
    pub members: Members,
}

/// The node was not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Another node leads, or none does.
    #[error("this node does not lead")]
    NotLeader {
        /// `HOST:PORT` where other nodes reach the leader, if that is known.
        peer_address: Option<String>,
    },
    /// Not now: asking again may help.
    #[error("{0}")]
    Later(String),
    /// Not like this: the sentence says what to change.
    #[error("{0}")]
    Refused(String),
}
