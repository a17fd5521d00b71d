//! Hands leadership over while this node's disk is nearly full: it refuses submissions, and another node may have room.

use std::sync::Arc;
use std::time::Duration;

use super::context::Leader;
use crate::consensus::ChangeError;

/// How often the disk's room is looked at; it is measured every second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A leader that came to lead without room has it handed on after this long only: if nobody has room, leadership does not
/// go round and round.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Looks at the disk until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    let low = || leader.proposer.disk_is_low();
    let (mut had_room, mut since) = (!low(), leader.now());
    loop {
        leader.runtime.sleep(LOOK_EVERY).await;
        let led = leader.now().saturating_sub(since);
        if !is_due(low(), had_room, led) {
            continue;
        }
        match leader.consensus.transfer(None).await {
            Ok(to) => tracing::info!(
                to,
                "leadership was handed over, as the disk here is nearly full"
            ),
            // Alone, or the others are away: it stays here, and what frees room still goes through.
            Err(ChangeError::NoSuccessor) => {}
            Err(error) => tracing::warn!(%error, "leadership was not handed over"),
        }
        (had_room, since) = (false, leader.now());
    }
}

/// Whether leadership is to go now: at once when room runs out here, and after a while where there never was any.
fn is_due(low: bool, had_room: bool, led: Duration) -> bool {
    low && (had_room || led >= AGAIN_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_goes_at_once_when_room_runs_out_and_slowly_where_there_is_none() {
        let soon = Duration::from_secs(1);
        assert!(!is_due(false, true, AGAIN_AFTER));
        assert!(is_due(true, true, soon));
        assert!(!is_due(true, false, soon), "nobody may have room");
        assert!(is_due(true, false, AGAIN_AFTER));
    }
}
