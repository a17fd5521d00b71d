//! The same for programs: `stepcast cluster status --json`.

use serde_json::{Value, json};

use super::{Node, View};

impl View {
    pub(super) fn json(&self) -> Value {
        let whole = &self.whole;
        let nodes: Vec<Value> = self.nodes.iter().map(|node| self.node_json(node)).collect();
        json!({
            "node_id": whole.node_id,
            "cluster_id": format!("{:016x}", whole.cluster_id),
            "term": whole.term,
            "leader_id": whole.leader_id,
            "leading": whole.leading,
            "leading_seconds": whole.leading_seconds,
            "voters": whole.voters,
            "commit_index": whole.commit_index,
            "applied_index": whole.applied_index,
            "snapshot_index": whole.snapshot_index,
            "snapshot_bytes": whole.snapshot_bytes,
            "snapshot_age_seconds": whole.snapshot_age_seconds,
            "sessions": whole.sessions,
            "disk_free_bytes": whole.disk_free_bytes,
            "health": whole.health,
            "detail": whole.detail,
            "version": whole.version,
            "log_format": whole.log_format,
            "newest_log_format": (whole.newest_log_format > 0).then_some(whole.newest_log_format),
            "privacy_mode": whole.privacy_mode,
            "store_trouble": whole.store_trouble,
            "store_put_p95_us": whole.store_put_p95_us,
            "staging_trouble": whole.staging_trouble,
            "jobs_pending": whole.jobs_pending,
            "jobs_running": whole.jobs_running,
            "jobs_ended": whole.jobs_ended,
            "can_lose": self.spare(),
            "nodes": nodes,
        })
    }

    fn node_json(&self, node: &Node) -> Value {
        let (known, own) = (&node.known, node.own.as_ref());
        json!({
            "node_id": known.node_id,
            "role": self.role(node).to_uppercase(),
            "votes": node.votes(),
            "peer_address": known.peer_address,
            "client_address": known.client_address,
            "reachable": self.takes_part(node),
            "commit_index": own.map(|own| own.commit_index),
            "applied_index": own.map(|own| own.applied_index),
            "behind": self.behind(node),
            "caught_up": self.takes_part(node) && !self.is_far(node),
            "round_trip_us": (known.round_trip_us > 0).then_some(known.round_trip_us),
            "version": node.version(),
            "log_format": (known.log_format > 0).then_some(known.log_format),
            "health": own.map(|own| own.health.clone()),
            "up_seconds": own.map(|own| own.up_seconds),
            "clock_ahead_ms": own.and_then(|own| own.clock_ahead_ms),
            "certificate_end_seconds": own.and_then(|own| own.certificate_end_seconds),
        })
    }
}
