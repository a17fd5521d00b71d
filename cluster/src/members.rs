//! Who belongs to the cluster and where each node is: replicated beside the state, kept in every snapshot.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// One node, as every other knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node, never 0 and never given to another one later.
    pub id: u64,
    /// `HOST:PORT` where other nodes reach it; empty for a node alone that nobody has ever had to reach.
    pub peer_address: String,
    /// URL where people and workers reach it; empty as above.
    pub client_address: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER): a certificate of any other key is not this node's.
    pub key: [u8; 32],
}

/// Everybody who belongs to the cluster as of one entry of the log.
///
/// The four sets are Raft's: in a joint configuration `outgoing` are the voters of the one that is left, and
/// `learners_next` those of them who will only learn in the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Who votes.
    pub voters: BTreeSet<u64>,
    /// Who gets the log without a vote.
    pub learners: BTreeSet<u64>,
    /// Voters of the configuration that is being left; empty outside of a joint configuration.
    pub outgoing: BTreeSet<u64>,
    /// Of `outgoing`, who will learn.
    pub learners_next: BTreeSet<u64>,
    /// Whether a joint configuration is left by itself.
    pub auto_leave: bool,
    /// Where everybody is.
    pub nodes: BTreeMap<u64, Member>,
    /// The greatest id that was ever given, so that none is given twice.
    pub last_id: u64,
}

impl Members {
    /// A cluster of one, as its founder begins it: nobody knows an address yet.
    #[must_use]
    pub fn founder(id: u64) -> Self {
        Self {
            voters: BTreeSet::from([id]),
            last_id: id,
            ..Self::default()
        }
    }

    /// Whether this node votes or learns.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.voters.contains(&id)
            || self.learners.contains(&id)
            || self.outgoing.contains(&id)
            || self.learners_next.contains(&id)
    }

    /// Where a node is.
    #[must_use]
    pub fn node(&self, id: u64) -> Option<&Member> {
        self.nodes.get(&id)
    }

    /// Everybody, by id.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        let all: BTreeSet<u64> = [
            &self.voters,
            &self.learners,
            &self.outgoing,
            &self.learners_next,
        ]
        .into_iter()
        .flatten()
        .copied()
        .collect();
        all.into_iter()
    }
}
