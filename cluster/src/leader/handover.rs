//! Hands leadership over while this node's disk is nearly full, to a node that has room: without any, submissions are
//! refused.

use std::sync::Arc;
use std::time::Duration;

use super::context::Leader;
use crate::consensus::{ChangeError, NodeProgress, Sending, Word};
use crate::members::Members;

/// How often the disk's room is looked at; it is measured every second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A leader that came to lead without room hands it on to a node that says that it has some after this long: who was named
/// a moment ago, and has none after all, does not have leadership fly between the two.
const ON_AFTER: Duration = Duration::from_secs(5);

/// The same to a node that does not say, as older versions do not: if nobody has room, leadership does not go round and
/// round.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Who is to lead next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heir {
    node: u64,
    /// Whether it says that it has room; it may have some otherwise.
    has_room: bool,
}

/// Looks at the disk until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    let low = || leader.proposer.disk_is_low();
    let (mut had_room, mut since) = (!low(), leader.now());
    loop {
        leader.runtime.sleep(LOOK_EVERY).await;
        let led = leader.now().saturating_sub(since);
        // Nobody is known to be better off: it stays here, and what frees room still goes through.
        let Some(heir) = next(&leader) else { continue };
        if !is_due(low(), had_room, heir, led) {
            continue;
        }
        let to = heir.node;
        match leader.consensus.transfer(Some(to)).await {
            Ok(to) => tracing::info!(
                to,
                "leadership was handed over, as the disk here is nearly full"
            ),
            // It leads no more already.
            Err(ChangeError::NotLeader { .. }) => {}
            Err(error) => tracing::warn!(%error, "leadership was not handed over"),
        }
        (had_room, since) = (false, leader.now());
    }
}

fn next(leader: &Leader) -> Option<Heir> {
    let (members, followers) = (leader.replicated.members(), leader.consensus.followers());
    let committed = leader.consensus.progress().committed;
    let has_room = |node| match leader.transport.standing(node) {
        Word::Said(standing) => Some(standing.has_room),
        Word::Awaited | Word::Never => None,
    };
    heir(&members, &followers, committed, has_room)
}

/// Of the voters that have caught up the one that is furthest, first among those that say that they have room, then among
/// those that do not say. Pure.
fn heir(
    members: &Members,
    followers: &[NodeProgress],
    committed: u64,
    has_room: impl Fn(u64) -> Option<bool>,
) -> Option<Heir> {
    let able = followers.iter().filter(|follower| {
        members.voters.contains(&follower.id)
            && follower.sending == Sending::Log
            && follower.is_near(committed)
    });
    let able = able.filter_map(|follower| match has_room(follower.id) {
        Some(false) => None,
        said => Some((said.is_some(), follower.matched, follower.id)),
    });
    let (has_room, _, node) = able.max()?;
    Some(Heir { node, has_room })
}

/// Whether leadership is to go now: at once when room runs out here, and after a while where there never was any.
fn is_due(low: bool, had_room: bool, heir: Heir, led: Duration) -> bool {
    let after = if heir.has_room { ON_AFTER } else { AGAIN_AFTER };
    low && (had_room || led >= after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Heir = Heir {
        node: 2,
        has_room: true,
    };

    const SILENT: Heir = Heir {
        node: 2,
        has_room: false,
    };

    #[test]
    fn leadership_goes_at_once_when_room_runs_out_and_slowly_where_there_is_none() {
        let soon = Duration::from_secs(1);
        assert!(!is_due(false, true, ROOMY, AGAIN_AFTER));
        assert!(is_due(true, true, ROOMY, soon));
        assert!(is_due(true, true, SILENT, soon));
        assert!(!is_due(true, false, ROOMY, soon));
        assert!(is_due(true, false, ROOMY, ON_AFTER));
        assert!(
            !is_due(true, false, SILENT, ON_AFTER),
            "nobody may have room"
        );
        assert!(is_due(true, false, SILENT, AGAIN_AFTER));
    }

    #[test]
    fn who_is_full_as_well_is_no_heir_and_who_says_that_it_has_room_comes_first() {
        let members = Members {
            voters: [1, 2, 3, 4].into(),
            learners: [5].into(),
            ..Members::default()
        };
        let at = |id: u64, matched: u64| NodeProgress {
            id,
            matched,
            sending: Sending::Log,
            active: true,
        };
        let mut followers = [at(2, 9_000), at(3, 9_001), at(4, 8_999), at(5, 9_001)];
        let heir = |followers: &[NodeProgress], said: [Option<bool>; 3]| {
            let has_room = |node: u64| said.get(node as usize - 2).copied().flatten();
            let heir = heir(&members, followers, 9_001, has_room);
            heir.map(|heir| (heir.node, heir.has_room))
        };
        let (full, roomy) = (Some(false), Some(true));
        assert_eq!(heir(&followers, [full, full, full]), None);
        assert_eq!(heir(&followers, [roomy, full, full]), Some((2, true)));
        assert_eq!(heir(&followers, [None, None, roomy]), Some((4, true)));
        assert_eq!(heir(&followers, [None, None, full]), Some((3, false)));
        followers[1].sending = Sending::Snapshot;
        assert_eq!(heir(&followers, [full, roomy, full]), None);
    }
}
