//! How many jobs wait, and for what.

use stepcast_scheduler::State;
use stepcast_scheduler::placement::{Ledger, Reason};

use super::{PENDING_JOBS, Text};

/// What jobs wait for, as the label `reason`, in the order of [`number_of`].
const REASONS: [&str; 8] = [
    "capacity",
    "retry",
    "not_before",
    "approval",
    "credentials",
    "array_full",
    "team_quota",
    "budget_spent",
];

impl Text {
    /// Waiting jobs by what holds them; those that nothing holds wait for GPUs.
    pub(super) fn pending(&mut self, state: &State, now_ms: u64) {
        let ledger = Ledger::new(state, now_ms);
        let mut counts = [0_u64; REASONS.len()];
        for job in state.pending() {
            counts[ledger.held(job).map_or(0, number_of)] += 1;
        }
        self.by(&PENDING_JOBS, "reason", REASONS.iter().zip(counts));
    }
}

const fn number_of(reason: Reason) -> usize {
    match reason {
        Reason::WaitsForRetry => 1,
        Reason::NotBefore => 2,
        Reason::AwaitingApproval => 3,
        Reason::AwaitingCredentials => 4,
        Reason::ArrayFull => 5,
        Reason::QuotaFull => 6,
        Reason::BudgetSpent | Reason::TeamBudget => 7,
        // What is against a worker and not against the job.
        _ => 0,
    }
}
