//! Who belongs to the cluster and where each node is: replicated beside the state, kept in every snapshot.

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::ConfState;
use serde::{Deserialize, Serialize};

/// The format of encoded members.
const FORMAT: u8 = 1;

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
    /// Learners that are on their way out: they are not given a vote again.
    /// Learners that are on their way out: they are not given a vote again.
    pub leaving: BTreeSet<u64>,
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

    /// Whether this node was let in once and is no longer part of the cluster.
    #[must_use]
    pub fn removed(&self, id: u64) -> bool {
        id <= self.last_id && !self.contains(id)
    }

    /// The four sets as Raft keeps them.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        let list = |ids: &BTreeSet<u64>| ids.iter().copied().collect::<Vec<u64>>();
        ConfState {
            voters: list(&self.voters),
            learners: list(&self.learners),
            voters_outgoing: list(&self.outgoing),
            learners_next: list(&self.learners_next),
            auto_leave: self.auto_leave,
            ..ConfState::default()
        }
    }

    /// Takes the four sets from Raft.
    pub fn set_conf_state(&mut self, conf_state: &ConfState) {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        self.voters = set(&conf_state.voters);
        self.learners = set(&conf_state.learners);
        self.outgoing = set(&conf_state.voters_outgoing);
        self.learners_next = set(&conf_state.learners_next);
        self.auto_leave = conf_state.auto_leave;
    }

    /// These bytes mean these members: postcard behind a version.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match postcard::to_extend(self, vec![FORMAT]) {
            Ok(bytes) => bytes,
            // Memory grows as needed and every length is known beforehand, so there is nothing left that could fail.
            Err(error) => unreachable!("members are always encodable: {error}"),
        }
    }

    /// The members that [`Members::encode`] has written; nothing if the bytes are damaged or of a newer format.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&FORMAT, body) => match postcard::take_from_bytes(body).ok()? {
                (members, []) => Some(members),
                _ => None,
            },
            _ => None,
        }
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn members() -> Members {
        let member = Member {
            id: 3,
            peer_address: "10.0.0.3:7071".to_owned(),
            client_address: "https://10.0.0.3:7070".to_owned(),
            key: [9; 32],
        };
        Members {
            voters: BTreeSet::from([1, 2]),
            learners: BTreeSet::from([3]),
            outgoing: BTreeSet::from([1, 4]),
            learners_next: BTreeSet::from([4]),
            auto_leave: true,
            leaving: BTreeSet::from([3]),
            nodes: BTreeMap::from([(3, member)]),
            last_id: 5,
        }
    }

    #[test]
    fn members_survive_their_bytes_and_damage_is_no_member() {
        let bytes = members().encode();
        assert_eq!(Members::decode(&bytes).unwrap(), members());
        assert_eq!(Members::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Members::decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(Members::decode(&[]), None);
    }

    #[test]
    fn raft_and_members_say_the_same() {
        let mut taken = Members::default();
        taken.set_conf_state(&members().conf_state());
        assert_eq!(taken.conf_state(), members().conf_state());
        assert_eq!(taken.outgoing, members().outgoing);
    }

    #[test]
    fn who_was_let_in_and_is_gone_was_removed() {
        let members = members();
        assert!(members.removed(5));
        assert!(!members.removed(4), "still votes in what is being left");
        assert!(!members.removed(6), "was never let in");
    }
}
