//! Changes of who belongs to the cluster: what may be asked, and how it stands in the log.

use std::collections::BTreeSet;

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use serde::{Deserialize, Serialize};

use super::UNREADABLE;
use crate::members::{Member, Members};

/// The format of a note.
const FORMAT: u8 = 1;

/// One change of the members. Only one is under way at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Lets a new node in, as one that learns; of a node that is in already, only its addresses and key change.
    Admit(Member),
    /// Gives these learners a vote: several at once through a joint configuration.
    Promote(BTreeSet<u64>),
    /// Takes a voter's vote, as the first of the two steps in which a voter leaves.
    Demote(u64),
    /// Lets a learner go.
    Remove(u64),
}

/// Why the members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Another node leads, or none does: ask there.
    #[error("this node does not lead")]
    NotLeader {
        /// The leader's node id, if known.
        leader: Option<u64>,
    },
    /// Members change one step at a time.
    #[error("another change of the members is under way: try again in a moment")]
    UnderWay,
    /// No such node belongs to the cluster.
    #[error("node {0} does not belong to the cluster")]
    Unknown(u64),
    /// The id is not the next one.
    #[error("node id {0} is not the next free one: ask for a new id and try again")]
    Taken(u64),
    /// Only a learner can be given a vote or be removed.
    #[error("node {0} votes already")]
    Votes(u64),
    /// Only a voter can lose its vote or lead.
    #[error("node {0} has no vote")]
    Learns(u64),
    /// A cluster needs somebody who votes.
    #[error("node {0} is the only one that votes: let another one in first")]
    LastVoter(u64),
    /// Without it nothing could be written any more, not even that another node is let in.
    #[error(
        "without node {0}, too few of the nodes that vote are here and have caught up: nothing could be written any more"
    )]
    TooFewHere(u64),
    /// A leader must not take its own vote.
    #[error("node {0} leads: transfer leadership first")]
    Leads(u64),
    /// Nobody can take over.
    #[error("no other node is ready to lead: all of them are away or too far behind")]
    NoSuccessor,
    /// The other node did not take over in time.
    #[error("node {0} did not take over in time; the present leader goes on")]
    NotTaken(u64),
    /// The log takes nothing at the moment.
    #[error("too much is waiting: try again in a moment")]
    Busy,
    /// The change may or may not come into effect: look at the members.
    #[error("the change was sent, but whether it took effect is not known: look at the members")]
    OutcomeUnknown,
    /// The log cannot be written for now.
    #[error("the log of this node cannot be written at the moment: {0}")]
    Stalled(String),
    /// The node has stopped, and why.
    #[error("the node has stopped: {0}")]
    Stopped(String),
}

/// What a change says beyond Raft's own part of it: kept in the entry's context.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    nodes: Vec<Member>,
    leaving: BTreeSet<u64>,
}

impl Change {
    /// Whether this may be proposed by the leader `me` when these are the members.
    pub(super) fn check(&self, members: &Members, me: u64) -> Result<(), ChangeError> {
        match self {
            Self::Admit(member) => {
                if members.contains(member.id) || member.id == members.last_id + 1 {
                    return Ok(());
                }
                Err(ChangeError::Taken(member.id))
            }
            Self::Promote(ids) => ids.iter().try_for_each(|id| learner(members, *id)),
            Self::Demote(id) if !members.contains(*id) => Err(ChangeError::Unknown(*id)),
            Self::Demote(id) if !members.voters.contains(id) => Err(ChangeError::Learns(*id)),
            Self::Demote(id) if members.voters.len() == 1 => Err(ChangeError::LastVoter(*id)),
            Self::Demote(id) if *id == me => Err(ChangeError::Leads(*id)),
            Self::Demote(_) => Ok(()),
            Self::Remove(id) => learner(members, *id),
        }
    }

    /// Whether enough of those that vote afterwards can write at once, if the change takes a vote: who is heard and still
    /// waits for most of the log cannot.
    pub(super) fn leaves_enough(
        &self,
        members: &Members,
        can_write: impl Fn(u64) -> bool,
    ) -> Result<(), ChangeError> {
        let Self::Demote(id) = self else {
            return Ok(());
        };
        let left = members.voters.iter().filter(|voter| *voter != id);
        let (all, able) = left.fold((0, 0), |(all, able), voter| {
            (all + 1, able + usize::from(can_write(*voter)))
        });
        // Without any it is the last voter, which is told in other words.
        (all == 0 || able > all / 2)
            .then_some(())
            .ok_or(ChangeError::TooFewHere(*id))
    }

    /// Raft's part of the change, and the bytes of the note beside it.
    pub(super) fn entry(&self, members: &Members) -> (ConfChangeV2, Vec<u8>) {
        let mut note = Note::default();
        let singles = match self {
            Self::Admit(member) => {
                note.nodes.push(member.clone());
                let kind = if members.voters.contains(&member.id) {
                    ConfChangeType::AddNode
                } else {
                    ConfChangeType::AddLearnerNode
                };
                vec![single(kind, member.id)]
            }
            Self::Promote(ids) => ids
                .iter()
                .map(|id| single(ConfChangeType::AddNode, *id))
                .collect(),
            Self::Demote(id) => {
                note.leaving.insert(*id);
                vec![single(ConfChangeType::AddLearnerNode, *id)]
            }
            Self::Remove(id) => vec![single(ConfChangeType::RemoveNode, *id)],
        };
        let mut change = ConfChangeV2::default();
        change.set_changes(singles.into());
        let context = match postcard::to_extend(&note, vec![FORMAT]) {
            Ok(bytes) => bytes,
            // Memory grows as needed and every length is known beforehand, so there is nothing left that could fail.
            Err(error) => unreachable!("a note is always encodable: {error}"),
        };
        (change, context)
    }
}

impl Members {
    /// These members after a change: `conf_state` is Raft's word, `context` the entry's. An error is one sentence; this
    /// node must not go on, as it would forget what the others know.
    pub(super) fn changed(&self, conf_state: &ConfState, context: &[u8]) -> Result<Self, String> {
        let note = match context.split_first() {
            // Raft's library itself proposes the end of a joint configuration.
            None => Note::default(),
            Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(|error| {
                format!("a change of members cannot be read: {error}: {UNREADABLE}")
            })?,
            Some((format, _)) => {
                return Err(format!(
                    "a change of members is written in format {format}, and this version reads up to {FORMAT}: upgrade \
                     this node"
                ));
            }
        };
        let mut after = self.clone();
        after.set_conf_state(conf_state);
        for node in note.nodes {
            after.last_id = after.last_id.max(node.id);
            after.nodes.insert(node.id, node);
        }
        after.leaving.extend(note.leaving);
        let gone: BTreeSet<u64> = self.ids().filter(|id| !after.contains(*id)).collect();
        after.nodes.retain(|id, _| !gone.contains(id));
        after.leaving.retain(|id| !gone.contains(id));
        Ok(after)
    }
}

fn learner(members: &Members, id: u64) -> Result<(), ChangeError> {
    if !members.contains(id) {
        Err(ChangeError::Unknown(id))
    } else if members.learners.contains(&id) {
        Ok(())
    } else {
        Err(ChangeError::Votes(id))
    }
}

fn single(kind: ConfChangeType, node: u64) -> ConfChangeSingle {
    let mut single = ConfChangeSingle::default();
    single.set_change_type(kind);
    single.node_id = node;
    single
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member {
            id,
            peer_address: format!("host-{id}:7071"),
            client_address: format!("https://host-{id}:7070"),
            key: [id as u8; 32],
        }
    }

    fn three() -> Members {
        Members {
            voters: BTreeSet::from([1, 2]),
            learners: BTreeSet::from([3]),
            last_id: 3,
            nodes: (1..=3).map(|id| (id, member(id))).collect(),
            ..Members::default()
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_reason() {
        let members = three();
        let check = |change: Change| change.check(&members, 1);
        assert_eq!(check(Change::Admit(member(4))), Ok(()));
        assert_eq!(check(Change::Admit(member(2))), Ok(()), "a new address");
        assert_eq!(
            check(Change::Admit(member(5))),
            Err(ChangeError::Taken(5)),
            "not the next id"
        );
        assert_eq!(
            check(Change::Promote(BTreeSet::from([3, 2]))),
            Err(ChangeError::Votes(2))
        );
        assert_eq!(check(Change::Demote(1)), Err(ChangeError::Leads(1)));
        assert_eq!(check(Change::Demote(3)), Err(ChangeError::Learns(3)));
        assert_eq!(check(Change::Remove(2)), Err(ChangeError::Votes(2)));
        assert_eq!(check(Change::Remove(9)), Err(ChangeError::Unknown(9)));
        assert_eq!(
            Change::Demote(1).check(&Members::founder(1), 2),
            Err(ChangeError::LastVoter(1))
        );
    }

    #[test]
    fn a_vote_is_not_taken_where_too_few_would_be_left_that_can_write() {
        let members = Members {
            voters: BTreeSet::from([1, 2, 3]),
            ..three()
        };
        let here = |nodes: &[u64], id| {
            Change::Demote(id).leaves_enough(&members, |node| nodes.contains(&node))
        };
        assert_eq!(here(&[1, 2, 3], 2), Ok(()));
        assert_eq!(here(&[1, 3], 2), Ok(()), "it is the one that is away");
        assert_eq!(here(&[1, 3], 3), Err(ChangeError::TooFewHere(3)));
        let admit = Change::Admit(member(4));
        assert_eq!(admit.leaves_enough(&members, |_| false), Ok(()));
    }

    #[test]
    fn a_node_comes_and_goes_and_its_id_is_never_given_again() {
        let mut members = Members::founder(1);
        let mut after = |change: &Change, voters: &[u64], learners: &[u64]| {
            let (_, context) = change.entry(&members);
            let conf_state = ConfState {
                voters: voters.to_vec(),
                learners: learners.to_vec(),
                ..ConfState::default()
            };
            members = members.changed(&conf_state, &context).unwrap();
            members.clone()
        };
        let admitted = after(&Change::Admit(member(2)), &[1], &[2]);
        assert_eq!(admitted.node(2), Some(&member(2)));
        after(&Change::Promote(BTreeSet::from([2])), &[1, 2], &[]);
        let leaving = after(&Change::Demote(2), &[1], &[2]);
        assert_eq!(leaving.leaving, BTreeSet::from([2]));
        let gone = after(&Change::Remove(2), &[1], &[]);
        assert_eq!((gone.node(2), gone.removed(2)), (None, true));
        assert!(gone.leaving.is_empty());
        assert_eq!(
            Change::Admit(member(2)).check(&gone, 1),
            Err(ChangeError::Taken(2))
        );
    }

    #[test]
    fn addresses_that_a_joiner_was_told_stay_until_their_node_goes() {
        // It begins with the founder's voters and everybody's addresses, and hears how they came in one by one.
        let told = Members {
            nodes: (1..=3).map(|id| (id, member(id))).collect(),
            ..Members::founder(1)
        };
        let conf_state = ConfState {
            voters: vec![1],
            learners: vec![2],
            ..ConfState::default()
        };
        let (_, context) = Change::Admit(member(2)).entry(&told);
        let after = told.changed(&conf_state, &context).unwrap();
        assert_eq!(after.nodes.len(), 3);
    }

    #[test]
    fn a_note_of_a_newer_format_stops_with_a_sentence() {
        let refused = three().changed(&three().conf_state(), &[FORMAT + 1]);
        assert!(refused.unwrap_err().contains("upgrade this node"));
    }
}
