//! Keeps the members in order while this node leads: it says where it is itself, lets those vote who have caught up, ends
//! removals that were left half done, and raises the log's format once everybody reads it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stepcast_scheduler::Command;

use super::context::Leader;
use crate::consensus::{Change, ChangeError, NodeProgress};
use crate::members::{Member, Members};

/// How often the members are looked at: a new node waits this much longer for its vote at most.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A node that lost its vote is given this many looks to learn of it before it is let go: what is gone is not told
/// anything any more.
const PATIENCE_LOOKS: u32 = 25;

/// Looks after the members until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    let mut looks = 0;
    loop {
        leader.runtime.sleep(LOOK_EVERY).await;
        let members = leader.replicated.members();
        looks = if members.leaving.is_empty() {
            0
        } else {
            looks + 1
        };
        let followers = leader.consensus.followers();
        let committed = leader.consensus.progress().committed;
        let change = match moved(&leader, &members) {
            Some(node) => Some(Change::Admit(node)),
            None => next(&members, &followers, committed, looks),
        };
        if let Some(change) = change {
            tell(&change, leader.consensus.change(change.clone()).await);
        }
        raise_format(&leader, &members).await;
    }
}

/// A node that says that it is somewhere else than the log does: this one, or one that has proved with its own key who it
/// is.
fn moved(leader: &Leader, members: &Members) -> Option<Member> {
    let me = leader.transport.me();
    let others = members.nodes.values().filter_map(|known| {
        let said = leader.transport.said(known.id)?;
        (said.key == known.key && !said.peer_address.is_empty()).then_some(said)
    });
    me.into_iter()
        .chain(others)
        .find(|node| members.node(node.id) != Some(node))
}

/// What is to be changed now, if anything. Pure.
fn next(
    members: &Members,
    followers: &[NodeProgress],
    committed: u64,
    looks: u32,
) -> Option<Change> {
    if !members.outgoing.is_empty() {
        return None;
    }
    let near = |node: &NodeProgress| node.is_near(committed);
    let learners = followers
        .iter()
        .filter(|f| members.learners.contains(&f.id));
    let mut caught_up = BTreeSet::new();
    for learner in learners {
        if !members.leaving.contains(&learner.id) {
            if near(learner) {
                caught_up.insert(learner.id);
            }
        } else if looks > PATIENCE_LOOKS || (near(learner) && looks > 1) {
            return Some(Change::Remove(learner.id));
        }
    }
    (!caught_up.is_empty()).then_some(Change::Promote(caught_up))
}

fn tell(change: &Change, outcome: Result<Members, ChangeError>) {
    match outcome {
        Ok(members) => {
            let voters: Vec<u64> = members.voters.iter().copied().collect();
            tracing::info!(?change, ?voters, "the members have changed");
        }
        // The next look finds what is left to do.
        Err(ChangeError::UnderWay | ChangeError::NotLeader { .. }) => {}
        Err(error) => tracing::warn!(?change, %error, "the members were not changed"),
    }
}

/// Once every member goes along with the newest format that this node does, nobody who does not may join or come back.
async fn raise_format(leader: &Leader, members: &Members) {
    let format = leader.replicated.read(stepcast_scheduler::State::format);
    let (me, version) = (leader.node_id, leader.config.log_format);
    let reads = |node| {
        node == me
            || leader
                .transport
                .log_format(node)
                .is_some_and(|known| known >= u32::from(version))
    };
    if format >= version || !members.ids().all(reads) {
        return;
    }
    match leader
        .proposer
        .propose(Command::Barrier { version }, None)
        .await
    {
        Ok(_) => tracing::info!(version, "the log goes on in a newer format"),
        Err(error) => tracing::warn!(%error, "the log's format was not raised"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Sending;

    fn members(voters: &[u64], learners: &[u64], leaving: &[u64]) -> Members {
        Members {
            voters: voters.iter().copied().collect(),
            learners: learners.iter().copied().collect(),
            leaving: leaving.iter().copied().collect(),
            ..Members::default()
        }
    }

    fn at(id: u64, matched: u64, sending: Sending) -> NodeProgress {
        NodeProgress {
            id,
            matched,
            sending,
            active: true,
        }
    }

    #[test]
    fn those_who_have_caught_up_are_given_a_vote_together() {
        let members = members(&[1], &[2, 3, 4, 5], &[]);
        let away = NodeProgress {
            active: false,
            ..at(5, 9_000, Sending::Log)
        };
        let mut followers = [
            at(2, 9_000, Sending::Log),
            at(3, 8_500, Sending::Log),
            at(4, 8_900, Sending::Snapshot),
            away,
        ];
        let two = Some(Change::Promote(BTreeSet::from([2, 3])));
        assert_eq!(next(&members, &followers, 10_000, 0), two);
        followers[2] = at(4, 9_999, Sending::Probe);
        assert_eq!(next(&members, &followers, 10_000, 0), two);
        // A snapshot has brought it all that there is.
        followers[2] = at(4, 10_000, Sending::Probe);
        let three = Some(Change::Promote(BTreeSet::from([2, 3, 4])));
        assert_eq!(next(&members, &followers, 10_000, 0), three);
        assert_eq!(next(&members, &followers, 20_000, 0), None);
    }

    #[test]
    fn who_leaves_gets_no_vote_and_goes_once_it_knows_or_does_not_answer() {
        let members = members(&[1, 2], &[3], &[3]);
        let knows = [at(3, 10_000, Sending::Log)];
        let silent = [at(3, 0, Sending::Probe)];
        assert_eq!(next(&members, &knows, 10_000, 1), None);
        assert_eq!(next(&members, &knows, 10_000, 2), Some(Change::Remove(3)));
        assert_eq!(next(&members, &silent, 10_000, 2), None);
        let tired = PATIENCE_LOOKS + 1;
        assert_eq!(
            next(&members, &silent, 10_000, tired),
            Some(Change::Remove(3))
        );
    }

    #[test]
    fn nothing_is_begun_in_a_joint_configuration() {
        let mut members = members(&[1, 2], &[3], &[]);
        members.outgoing = BTreeSet::from([1]);
        assert_eq!(next(&members, &[at(3, 5, Sending::Log)], 5, 0), None);
    }
}
