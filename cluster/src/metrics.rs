//! Names of everything this crate measures, and the numbers behind them.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use stepcast_scheduler::Reply;

use crate::error::ProposeError;
use crate::status::NodeStatus;

/// Raft's term.
pub const RAFT_TERM: &str = "stepcast_raft_term";
/// Highest committed entry.
pub const RAFT_COMMIT_INDEX: &str = "stepcast_raft_commit_index";
/// Highest applied entry.
pub const RAFT_APPLIED_INDEX: &str = "stepcast_raft_applied_index";
/// 1 on the node that leads, 0 elsewhere.
pub const RAFT_LEADER: &str = "stepcast_raft_leader";
/// Proposals by result.
pub const PROPOSALS_TOTAL: &str = "stepcast_proposals_total";
/// Leases that ended without the worker's word.
pub const LEASE_EXPIRATIONS_TOTAL: &str = "stepcast_lease_expirations_total";
/// Time one round of planning takes, summed.
pub const PLAN_DURATION_SECONDS_SUM: &str = "stepcast_plan_duration_seconds_sum";
/// Rounds of planning.
pub const PLAN_DURATION_SECONDS_COUNT: &str = "stepcast_plan_duration_seconds_count";

/// How proposals end, as the label `result`.
const RESULTS: [&str; 5] = ["applied", "rejected", "unknown", "refused", "busy"];

/// Counters of one node.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    proposals: [AtomicU64; RESULTS.len()],
    lease_expirations: AtomicU64,
    plans: AtomicU64,
    plan_micros: AtomicU64,
}

impl Metrics {
    pub(crate) fn proposed(&self, outcome: &Result<Reply, ProposeError>) {
        let result = match outcome {
            Ok(_) => 0,
            Err(ProposeError::Rejected(_)) => 1,
            Err(ProposeError::OutcomeUnknown) => 2,
            Err(ProposeError::Busy { .. }) => 4,
            Err(_) => 3,
        };
        self.proposals[result].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leases_expired(&self, count: usize) {
        self.lease_expirations.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn planned(&self, took: std::time::Duration) {
        self.plans.fetch_add(1, Ordering::Relaxed);
        self.plan_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// All of it in the text format that Prometheus reads.
    pub(crate) fn text(&self, status: &NodeStatus) -> String {
        let mut text = String::new();
        let gauges = [
            (RAFT_TERM, status.term),
            (RAFT_COMMIT_INDEX, status.commit_index),
            (RAFT_APPLIED_INDEX, status.applied_index),
            (RAFT_LEADER, u64::from(status.leading)),
        ];
        for (name, value) in gauges {
            push(&mut text, format_args!("# TYPE {name} gauge\n{name} {value}\n"));
        }
        push(&mut text, format_args!("# TYPE {PROPOSALS_TOTAL} counter\n"));
        for (result, count) in RESULTS.iter().zip(&self.proposals) {
            let count = count.load(Ordering::Relaxed);
            push(&mut text, format_args!("{PROPOSALS_TOTAL}{{result=\"{result}\"}} {count}\n"));
        }
        let expired = self.lease_expirations.load(Ordering::Relaxed);
        push(&mut text, format_args!("# TYPE {LEASE_EXPIRATIONS_TOTAL} counter\n{LEASE_EXPIRATIONS_TOTAL} {expired}\n"));
        let plans = self.plans.load(Ordering::Relaxed);
        let seconds = self.plan_micros.load(Ordering::Relaxed) as f64 / 1e6;
        push(&mut text, format_args!("# TYPE stepcast_plan_duration_seconds summary\n"));
        push(&mut text, format_args!("{PLAN_DURATION_SECONDS_SUM} {seconds}\n{PLAN_DURATION_SECONDS_COUNT} {plans}\n"));
        text
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = text.write_fmt(line);
}
