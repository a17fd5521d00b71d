//! What a node says about itself.

use std::time::Duration;

use crate::consensus::NodeProgress;
use crate::members::Members;

/// Where a node stands. Taken without waiting for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// This node.
    pub node_id: u64,
    /// The cluster it belongs to, drawn at random when the data directory was made.
    pub cluster_id: u64,
    /// Raft's term.
    pub term: u64,
    /// The leader of that term, if this node knows one.
    pub leader: Option<u64>,
    /// Whether this node leads and has applied an entry of its own term, so that it answers for the whole cluster.
    pub leading: bool,
    /// For how long it has; nothing on a node that does not.
    pub led_for: Option<Duration>,
    /// Nodes that vote.
    pub voters: Vec<u64>,
    /// Everybody who belongs to the cluster, and where they are, as of the newest applied entry.
    pub members: Members,
    /// How far everybody else is, on the leader.
    pub followers: Vec<NodeProgress>,
    /// The format that everybody who belongs to the cluster reads.
    pub log_format: u16,
    /// Highest entry known to be committed.
    pub commit_index: u64,
    /// What this node must have applied to be as far as its cluster is: the highest entry that its leader has said to be
    /// committed. A node that waits for a snapshot knows of little more than it has itself ([`Self::commit_index`]).
    /// Nothing without a leader, and until that has spoken.
    pub cluster_commit_index: Option<u64>,
    /// Highest entry applied to the state.
    pub applied_index: u64,
    /// Highest entry in the log.
    pub last_index: u64,
    /// Entry of the newest snapshot on disk, 0 without one.
    pub snapshot_index: u64,
    /// Workers with an open session.
    pub sessions: usize,
    /// Bytes free on the data directory's disk, as last looked at.
    pub disk_free_bytes: u64,
    /// What keeps this node from taking commands, if anything does.
    pub health: Health,
}

/// Whether a node takes commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// It has no leader yet.
    Electing,
    /// The disk is nearly or wholly full: submissions are refused, reads go on. Clears by itself when there is room.
    StorageFull,
    /// Writing the log fails for now, or its disk does not answer (the sentence says which); nothing is acknowledged here.
    /// Tried again until it works.
    LogStalled(String),
    /// The log or the state cannot go on; reads still answer with what was applied. Only a restart helps.
    Stopped(String),
}
