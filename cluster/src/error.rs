//! Why a node could not do what it was asked.

use stepcast_scheduler::Rejection;

/// Why a command has no reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// The state refuses the command: final for this command as it stands.
    #[error("the command was refused")]
    Rejected(#[source] Rejection),
    /// Another node leads, or none does: ask there.
    #[error("this node does not lead")]
    NotLeader {
        /// The leader's node id, if known.
        leader: Option<u64>,
    },
    /// The command may or may not take effect: ask again with the same request id.
    #[error("the command was sent, but whether it took effect is not known")]
    OutcomeUnknown,
    /// Too much is waiting: try again.
    #[error("too many commands are waiting")]
    Busy {
        /// A good moment to try again, in milliseconds from now.
        retry_ms: u64,
    },
    /// The disk is nearly full, so this command is refused until there is room.
    #[error("the disk of this node is nearly full")]
    StorageFull,
    /// The log cannot be written for now: try again. Nothing of this command was kept.
    #[error("the log of this node cannot be written at the moment: {why}")]
    Stalled {
        /// What the disk says.
        why: String,
        /// A good moment to try again, in milliseconds from now.
        retry_ms: u64,
    },
    /// The command is larger than one log entry may be.
    #[error("the command takes {bytes} bytes, more than the {limit} a log entry may hold")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The node is shutting down or has stopped; the sentence says why.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

/// Why a read that must see every acknowledged write was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads, or none does.
    #[error("this node does not lead")]
    NotLeader {
        /// The leader's node id, if known.
        leader: Option<u64>,
    },
    /// The answer did not come in time.
    #[error("the read was not confirmed in time")]
    Timeout,
    /// Too many reads are waiting: try again.
    #[error("too many reads are waiting")]
    Busy {
        /// A good moment to try again, in milliseconds from now.
        retry_ms: u64,
    },
    /// The node is shutting down or has stopped; the sentence says why.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

/// Why a worker got no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Another node leads, or none does.
    #[error("this node does not lead")]
    NotLeader {
        /// The leader's node id, if known.
        leader: Option<u64>,
    },
    /// The worker is not registered, or was removed.
    #[error("this worker is not registered")]
    UnknownWorker,
    /// The worker has been registered again since, by a later process.
    #[error("a later process of this worker has registered")]
    StaleInstance,
}

/// Why a report was not taken. Reports that matter are sent again in the next session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The session is over: this node no longer leads, or the worker has a newer session.
    #[error("the session is over")]
    SessionOver,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory's identity is unusable.
    #[error("the data directory cannot be used")]
    Identity(#[from] crate::identity::Error),
    /// The log cannot be opened or is damaged.
    #[error("the log cannot be used")]
    Log(#[from] crate::consensus::log::Error),
    /// No snapshot can be read, or one is damaged and the log does not reach back far enough.
    #[error("the snapshots cannot be used")]
    Snapshot(#[from] crate::snapshot::Error),
    /// The log goes on in a newer format than this node is to go along with.
    #[error(
        "the log is in format {format}, and this node is held at format {newest}: it can go on only without that"
    )]
    Held {
        /// The format of the log.
        format: u16,
        /// What the node goes along with.
        newest: u16,
    },
    /// The keys of the port for other nodes are unusable.
    #[error("the keys of this node cannot be used")]
    Credentials(#[from] crate::peers::CredentialsError),
    /// The port for other nodes cannot be opened.
    #[error("the port for other nodes cannot be opened")]
    Peers(#[from] crate::peers::Error),
    /// Raft refuses what log and snapshot say.
    #[error("consensus does not start")]
    Consensus(#[from] crate::consensus::Error),
    /// A thread could not be started.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
    /// The host gave no random number.
    #[error("the host gave no random number")]
    Random(#[source] std::io::Error),
    /// Called outside of a tokio runtime.
    #[error("a node needs a tokio runtime")]
    Runtime,
}
