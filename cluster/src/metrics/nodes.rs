//! What a node knows of its cluster, as gauges: its log, the others, and what waits.

use super::{
    BUILD_INFO, DISK_FREE_BYTES, LOG_FORMAT, PEER_BEHIND_ENTRIES, PEER_DROPPED_MESSAGES_TOTAL,
    PEER_REACHABLE, PEER_ROUND_TRIP_SECONDS, PROPOSALS_IN_FLIGHT, RAFT_APPLIED_INDEX,
    RAFT_COMMIT_INDEX, RAFT_LAST_INDEX, RAFT_LEADER, RAFT_SNAPSHOT_INDEX, RAFT_TERM, RAFT_VOTERS,
    Text, WORKER_SESSIONS,
};
use crate::peers::Seen;
use crate::status::NodeStatus;

/// The commit that the program was built from, if whoever built it has said so.
const COMMIT: Option<&str> = option_env!("STEPCAST_COMMIT");

/// The label that names a node.
const NODE: &str = "node";

/// What is known at one moment.
pub(crate) struct Moment<'node> {
    pub(crate) status: &'node NodeStatus,
    pub(crate) peers: &'node [Seen],
    /// Proposals that wait to be applied.
    pub(crate) in_flight: usize,
    /// Now, as the log sees it: milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl Text {
    pub(super) fn moment(&mut self, moment: &Moment<'_>) {
        let status = moment.status;
        let (version, commit) = (env!("CARGO_PKG_VERSION"), COMMIT.unwrap_or("unknown"));
        let program = format!("version=\"{version}\",commit=\"{commit}\"");
        self.0.begin(&BUILD_INFO);
        self.0.value(&BUILD_INFO, &program, 1);
        for (metric, value) in [
            (RAFT_TERM, status.term),
            (RAFT_COMMIT_INDEX, status.commit_index),
            (RAFT_APPLIED_INDEX, status.applied_index),
            (RAFT_LAST_INDEX, status.last_index),
            (RAFT_SNAPSHOT_INDEX, status.snapshot_index),
            (RAFT_LEADER, u64::from(status.leading)),
            (RAFT_VOTERS, status.voters.len() as u64),
            (LOG_FORMAT, u64::from(status.log_format)),
            (PROPOSALS_IN_FLIGHT, moment.in_flight as u64),
            (WORKER_SESSIONS, status.sessions as u64),
            (DISK_FREE_BYTES, status.disk_free_bytes),
        ] {
            self.0.one(&metric, value);
        }
        let behind = status.followers.iter().map(|follower| {
            let behind = status.commit_index.saturating_sub(follower.matched);
            (follower.id, behind)
        });
        self.by(&PEER_BEHIND_ENTRIES, NODE, behind);
        let (seen, trips) = (moment.peers.iter(), moment.peers.iter());
        let reachable = seen.map(|peer| (peer.id, u8::from(peer.reachable)));
        self.by(&PEER_REACHABLE, NODE, reachable);
        let trips = trips.filter_map(|peer| Some((peer.id, peer.round_trip?.as_secs_f64())));
        self.by(&PEER_ROUND_TRIP_SECONDS, NODE, trips);
        let dropped = moment.peers.iter().map(|peer| (peer.id, peer.dropped));
        self.by(&PEER_DROPPED_MESSAGES_TOTAL, NODE, dropped);
    }
}
