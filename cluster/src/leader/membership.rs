//! Keeps the members in order while this node leads: it says where it is itself, lets those vote who have caught up, ends
//! removals that were left half done, raises the log's format once everybody reads it, and tells the state who belongs to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use stepcast_scheduler::{Command, State};

use super::context::Leader;
use super::nodes;
use crate::consensus::{Change, ChangeError, NodeProgress};
use crate::error::ProposeError;
use crate::members::{Member, Members};

/// How often the members are looked at: a new node waits this much longer for its vote at most.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A node that learns has kept up when it has what was committed at the beginning of a round within this time, the longest
/// election timeout: until it does, its vote would have every write wait for it, however little it is behind (Ongaro's thesis, 4.2.1).
const ROUND_WITHIN: Duration = Duration::from_secs(1);

/// A node that lost its vote is given this many looks to learn of it before it is let go: what is gone is not told
/// anything any more.
const PATIENCE_LOOKS: u32 = 25;

/// Looks after the members until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    let mut looks = 0;
    let mut rounds = Rounds::default();
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
            None => {
                let kept_up = rounds.look(&members, &followers, committed, leader.now());
                next(&members, &followers, &kept_up, committed, looks)
            }
        };
        if let Some(change) = change {
            tell(&change, leader.consensus.change(change.clone()).await);
        }
        raise_format(&leader, &members).await;
        // What is not taken now is found by the next look.
        let _ = nodes::tell(&leader.replicated, &leader.proposer).await;
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

/// The present round of each node that learns.
#[derive(Debug, Default)]
struct Rounds(BTreeMap<u64, Round>);

/// What was committed when it began is to be had.
#[derive(Debug)]
struct Round {
    goal: u64,
    begun: Duration,
}

impl Rounds {
    /// Who of those that learn has ended a round in time by this look. One that has ended it late begins another, in which it
    /// needs no more than what came meanwhile: who is fast enough ends one in time at some point.
    fn look(
        &mut self,
        members: &Members,
        followers: &[NodeProgress],
        committed: u64,
        now: Duration,
    ) -> BTreeSet<u64> {
        self.0.retain(|id, _| members.learners.contains(id));
        let learners = followers
            .iter()
            .filter(|f| members.learners.contains(&f.id));
        let mut kept_up = BTreeSet::new();
        for learner in learners {
            let begins = || Round {
                goal: committed,
                begun: now,
            };
            let round = self.0.entry(learner.id).or_insert_with(begins);
            if !learner.active {
                *round = begins();
            } else if learner.matched >= round.goal {
                if now.saturating_sub(round.begun) <= ROUND_WITHIN {
                    kept_up.insert(learner.id);
                }
                *round = begins();
            }
        }
        kept_up
    }
}

/// What is to be changed now, if anything, where these have kept up. Pure.
fn next(
    members: &Members,
    followers: &[NodeProgress],
    kept_up: &BTreeSet<u64>,
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
            if near(learner) && kept_up.contains(&learner.id) {
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
    let format = leader.replicated.read(State::format);
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
    let barrier = Command::Barrier { version };
    let raised = leader.proposer.propose(barrier, None);
    // A leader's own entry is applied, or its leadership ends, and this duty with it.
    let applied = async {
        while leader.replicated.read(State::format) < version {
            leader.runtime.sleep(LOOK_EVERY).await;
        }
    };
    match leader.format.raised(raised, applied).await {
        Ok(_) | Err(ProposeError::OutcomeUnknown) => {
            tracing::info!(version, "the log goes on in a newer format");
        }
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
        let all = BTreeSet::from([2, 3, 4, 5]);
        let two = Some(Change::Promote(BTreeSet::from([2, 3])));
        assert_eq!(next(&members, &followers, &all, 10_000, 0), two);
        followers[2] = at(4, 9_999, Sending::Probe);
        assert_eq!(next(&members, &followers, &all, 10_000, 0), two);
        // A snapshot has brought it all that there is.
        followers[2] = at(4, 10_000, Sending::Probe);
        let three = Some(Change::Promote(BTreeSet::from([2, 3, 4])));
        assert_eq!(next(&members, &followers, &all, 10_000, 0), three);
        assert_eq!(next(&members, &followers, &all, 20_000, 0), None);
    }

    /// A young log is short enough for everybody to be near its end, on however slow a path.
    #[test]
    fn who_does_not_keep_up_with_what_is_written_gets_no_vote_however_near_it_is() {
        let members = members(&[1], &[2], &[]);
        let mut rounds = Rounds::default();
        let mut at_second = |seconds: u64, matched| {
            let (committed, now) = (1_000 + 100 * seconds, Duration::from_secs(seconds));
            let follower = [at(2, matched, Sending::Log)];
            let kept_up = rounds.look(&members, &follower, committed, now);
            next(&members, &follower, &kept_up, committed, 0)
        };
        // The first round goes to 1,000 and takes five seconds, the second to 1,500 and takes three.
        for (seconds, matched) in [
            (0, 1),
            (1, 300),
            (4, 900),
            (5, 1_000),
            (7, 1_400),
            (8, 1_600),
        ] {
            assert_eq!(at_second(seconds, matched), None, "{seconds} s");
        }
        // It has become faster: the third, to 1,800, takes one.
        let voter = Some(Change::Promote(BTreeSet::from([2])));
        assert_eq!(at_second(9, 1_850), voter);
    }

    #[test]
    fn a_round_does_not_go_on_while_nobody_is_heard() {
        let members = members(&[1], &[2], &[]);
        let mut rounds = Rounds::default();
        let mut look = |seconds, active, matched| {
            let follower = NodeProgress {
                active,
                ..at(2, matched, Sending::Log)
            };
            let now = Duration::from_secs(seconds);
            !rounds.look(&members, &[follower], 100, now).is_empty()
        };
        assert!(!look(0, true, 1));
        assert!(!look(1, false, 1));
        assert!(look(2, true, 100), "a second after it was last away");
        assert!(look(3, true, 100), "nothing is written, and it has all");
    }

    #[test]
    fn who_leaves_gets_no_vote_and_goes_once_it_knows_or_does_not_answer() {
        let members = members(&[1, 2], &[3], &[3]);
        let knows = [at(3, 10_000, Sending::Log)];
        let silent = [at(3, 0, Sending::Probe)];
        let nobody = BTreeSet::new();
        assert_eq!(next(&members, &knows, &nobody, 10_000, 1), None);
        assert_eq!(
            next(&members, &knows, &nobody, 10_000, 2),
            Some(Change::Remove(3))
        );
        assert_eq!(next(&members, &silent, &nobody, 10_000, 2), None);
        let tired = PATIENCE_LOOKS + 1;
        assert_eq!(
            next(&members, &silent, &nobody, 10_000, tired),
            Some(Change::Remove(3))
        );
    }

    #[test]
    fn nothing_is_begun_in_a_joint_configuration() {
        let mut members = members(&[1, 2], &[3], &[]);
        members.outgoing = BTreeSet::from([1]);
        let near = [at(3, 5, Sending::Log)];
        assert_eq!(next(&members, &near, &BTreeSet::from([3]), 5, 0), None);
    }
}
