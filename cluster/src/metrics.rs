//! Names of everything this crate measures, and the numbers behind them, in the text format that Prometheus reads.

mod durations;
mod nodes;
mod pending;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stepcast_records::metrics::{Exposition, Metric};
use stepcast_scheduler::model::{FailureReason, Outcome};
use stepcast_scheduler::{Command, State};

use self::durations::Durations;
pub(crate) use self::nodes::Moment;
use crate::error::ProposeError;

const RAFT_TERM: Metric = Metric::gauge("stepcast_raft_term", "Raft's term.");
const RAFT_COMMIT_INDEX: Metric =
    Metric::gauge("stepcast_raft_commit_index", "Highest committed entry.");
const RAFT_APPLIED_INDEX: Metric =
    Metric::gauge("stepcast_raft_applied_index", "Highest applied entry.");
const RAFT_LAST_INDEX: Metric =
    Metric::gauge("stepcast_raft_last_index", "Highest entry in the log.");
const RAFT_SNAPSHOT_INDEX: Metric = Metric::gauge(
    "stepcast_raft_snapshot_index",
    "Entry of the newest snapshot on disk, 0 without one.",
);
const RAFT_LEADER: Metric = Metric::gauge(
    "stepcast_raft_leader",
    "1 on the node that leads, 0 elsewhere.",
);
const RAFT_VOTERS: Metric = Metric::gauge("stepcast_raft_voters", "Nodes that vote.");
const LOG_FORMAT: Metric = Metric::gauge(
    "stepcast_log_format",
    "The format in which entries are written.",
);
const PEER_BEHIND_ENTRIES: Metric = Metric::gauge(
    "stepcast_peer_behind_entries",
    "Committed entries that a node does not have yet, as the leader knows; nothing on other nodes.",
);
const PEER_REACHABLE: Metric = Metric::gauge(
    "stepcast_peer_reachable",
    "Whether this node can talk with another one.",
);
const PEER_ROUND_TRIP_SECONDS: Metric = Metric::gauge(
    "stepcast_peer_round_trip_seconds",
    "How long a question to another node and its answer take.",
);
const PEER_DROPPED_MESSAGES_TOTAL: Metric = Metric::counter(
    "stepcast_peer_dropped_messages_total",
    "Messages to another node that were dropped, since it was away or its queue full. Raft sends what matters again.",
);
const PROPOSALS_IN_FLIGHT: Metric = Metric::gauge(
    "stepcast_proposals_in_flight",
    "Proposals that wait to be committed and applied.",
);
const WORKER_SESSIONS: Metric = Metric::gauge(
    "stepcast_worker_sessions",
    "Workers with an open session on this node.",
);
const DISK_FREE_BYTES: Metric = Metric::gauge(
    "stepcast_disk_free_bytes",
    "Bytes free on the disk of the log.",
);
const BUILD_INFO: Metric = Metric::gauge("stepcast_build_info", "Which program this is; always 1.");
const PROPOSALS_TOTAL: Metric = Metric::counter("stepcast_proposals_total", "Proposals by result.");
const COMMIT_DURATION_SECONDS: Metric = Metric::histogram(
    "stepcast_commit_duration_seconds",
    "Time from a proposal to its reply, of those that have one.",
);
const APPLY_DURATION_SECONDS: Metric = Metric::histogram(
    "stepcast_apply_duration_seconds",
    "Time one entry takes to apply, by command.",
);
const PLAN_DURATION_SECONDS: Metric = Metric::histogram(
    "stepcast_plan_duration_seconds",
    "Time one round of planning takes.",
);
const QUEUE_WAIT_SECONDS: Metric = Metric::histogram(
    "stepcast_queue_wait_seconds",
    "Time from a job's coming into the queue to its placement.",
);
const ESTIMATE_ERROR_RATIO: Metric = Metric::histogram(
    "stepcast_estimate_error_ratio",
    "How long attempts ran that succeeded, by what was expected of them when they were placed: 1 is what was expected.",
);
const JOBS: Metric = Metric::gauge("stepcast_jobs", "Jobs by state.");
const PENDING_JOBS: Metric = Metric::gauge(
    "stepcast_pending_jobs",
    "Waiting jobs, by what they wait for.",
);
const GPUS: Metric = Metric::gauge(
    "stepcast_gpus",
    "GPUs by model, and by whether they are in use.",
);
const ATTEMPTS_TOTAL: Metric = Metric::counter(
    "stepcast_attempts_total",
    "Attempts that ended while this node led, by outcome.",
);
const LEASE_EXPIRATIONS_TOTAL: Metric = Metric::counter(
    "stepcast_lease_expirations_total",
    "Leases that ended without the worker's word.",
);

/// How proposals end, as the label `result`.
const RESULTS: [&str; 5] = ["applied", "rejected", "unknown", "refused", "busy"];

/// How attempts end, as the label `outcome`.
const OUTCOMES: [&str; 5] = [
    "succeeded",
    "failed",
    "cancelled",
    "lease_expired",
    "preempted",
];

/// Where jobs stand, as the label `state`.
const STATES: [&str; 6] = [
    "pending",
    "running",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
];

/// Commands, as the label `command`, in the order of [`number_of`].
const COMMANDS: [&str; 35] = [
    "submit_job",
    "cancel_job",
    "create_worker_token",
    "revoke_worker_token",
    "register_worker",
    "drain_worker",
    "resume_worker",
    "lose_worker",
    "place",
    "start_attempt",
    "checkpoint",
    "end_attempt",
    "expire_leases",
    "sweep",
    "barrier",
    "set_team",
    "remove_team",
    "approve_job",
    "update_job",
    "submit_array",
    "cancel_array",
    "preempt",
    "set_policy",
    "account",
    "give_credentials",
    "miss_credentials",
    "start_part",
    "end_part",
    "expire_parts",
    "revise_job",
    "set_team_members",
    "set_prices",
    "go_on_from",
    "note_nodes",
    "renew_secret",
];

/// Counters of one node.
#[derive(Debug)]
pub(crate) struct Metrics {
    proposals: [AtomicU64; RESULTS.len()],
    attempts: [AtomicU64; OUTCOMES.len()],
    lease_expirations: AtomicU64,
    commits: Durations,
    applies: [Durations; COMMANDS.len()],
    plans: Durations,
    queue_waits: Durations,
    estimate_errors: Durations,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            proposals: Default::default(),
            attempts: Default::default(),
            lease_expirations: AtomicU64::new(0),
            commits: Durations::default(),
            applies: std::array::from_fn(|_| Durations::default()),
            plans: Durations::default(),
            queue_waits: Durations::waits(),
            estimate_errors: Durations::ratios(),
        }
    }
}

impl Metrics {
    pub(crate) fn proposed(&self, outcome: Result<(), &ProposeError>, took: Duration) {
        let result = match outcome {
            Ok(()) => 0,
            Err(ProposeError::Rejected(_)) => 1,
            Err(ProposeError::OutcomeUnknown) => 2,
            Err(ProposeError::Busy { .. }) => 4,
            Err(_) => 3,
        };
        self.proposals[result].fetch_add(1, Ordering::Relaxed);
        if result < 2 {
            self.commits.add(took);
        }
    }

    pub(crate) fn applied(&self, command: &Command, took: Duration) {
        self.applies[number_of(command)].add(took);
    }

    pub(crate) fn attempt_ended(&self, outcome: Outcome) {
        self.attempts[outcome_number(outcome)].fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn attempts_ended(&self, outcome: Outcome) -> u64 {
        self.attempts[outcome_number(outcome)].load(Ordering::Relaxed)
    }

    pub(crate) fn leases_expired(&self, count: usize) {
        self.lease_expirations
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn planned(&self, took: Duration) {
        self.plans.add(took);
    }

    pub(crate) fn waited(&self, waited: Duration) {
        self.queue_waits.add(waited);
    }

    /// An attempt has succeeded that was expected to take this long.
    pub(crate) fn ran(&self, took: Duration, expected: Duration) {
        if !expected.is_zero() {
            let ratio = took.as_secs_f64() / expected.as_secs_f64();
            // A second stands for 1, and beyond a million times nothing is told apart.
            self.estimate_errors
                .add(Duration::from_secs_f64(ratio.min(1e6)));
        }
    }

    /// All of it in the text format that Prometheus reads.
    pub(crate) fn text(&self, moment: &Moment<'_>, state: &State) -> String {
        let mut text = Text::default();
        text.moment(moment);
        text.counters(&PROPOSALS_TOTAL, "result", &RESULTS, &self.proposals);
        text.counters(&ATTEMPTS_TOTAL, "outcome", &OUTCOMES, &self.attempts);
        let expirations = self.lease_expirations.load(Ordering::Relaxed);
        text.0.one(&LEASE_EXPIRATIONS_TOTAL, expirations);
        for (metric, durations) in [
            (COMMIT_DURATION_SECONDS, &self.commits),
            (PLAN_DURATION_SECONDS, &self.plans),
            (QUEUE_WAIT_SECONDS, &self.queue_waits),
            (ESTIMATE_ERROR_RATIO, &self.estimate_errors),
        ] {
            text.0.begin(&metric);
            durations.write(&mut text.0, &metric, "");
        }
        text.0.begin(&APPLY_DURATION_SECONDS);
        for (command, durations) in COMMANDS.iter().zip(&self.applies) {
            let command = format!("command=\"{command}\"");
            durations.write(&mut text.0, &APPLY_DURATION_SECONDS, &command);
        }
        text.jobs(state);
        text.pending(state, moment.now_ms);
        text.gpus(state);
        text.0.into_text()
    }
}

#[derive(Default)]
struct Text(Exposition);

impl Text {
    /// The values of a metric by one label.
    fn by<L: Display, V: Display>(
        &mut self,
        metric: &Metric,
        label: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) {
        self.0.begin(metric);
        for (of, value) in values {
            self.0.value(metric, &format!("{label}=\"{of}\""), value);
        }
    }

    fn counters(&mut self, metric: &Metric, label: &str, values: &[&str], counts: &[AtomicU64]) {
        let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
        self.by(metric, label, values.iter().zip(counts));
    }

    fn jobs(&mut self, state: &State) {
        let counts = state.job_counts();
        // In the order of the names.
        let counts = [
            counts.pending,
            counts.running,
            counts.cancelling,
            counts.succeeded,
            counts.failed,
            counts.cancelled,
        ];
        self.by(&JOBS, "state", STATES.iter().zip(counts));
    }

    fn gpus(&mut self, state: &State) {
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for worker in state.workers() {
            for (position, gpu) in (0..).zip(&worker.inventory.gpus) {
                let used = match state.user_of(worker.id, position) {
                    Some(_) => "busy",
                    None if worker.takes_work() => "free",
                    None => "withheld",
                };
                *counts.entry((gpu.slug(), used)).or_default() += 1;
            }
        }
        self.0.begin(&GPUS);
        for ((model, used), count) in counts {
            let labels = format!("model=\"{model}\",state=\"{used}\"");
            self.0.value(&GPUS, &labels, count);
        }
    }
}

fn outcome_number(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Succeeded => 0,
        // Nothing is wrong with it: its GPUs were wanted elsewhere, or its worker drains.
        Outcome::Failed(FailureReason::Preempted) => 4,
        Outcome::Failed(FailureReason::LeaseLost) => 3,
        Outcome::Failed(_) => 1,
        Outcome::Cancelled => 2,
        Outcome::LeaseExpired => 3,
    }
}

fn number_of(command: &Command) -> usize {
    match command {
        Command::SubmitJob { .. } => 0,
        Command::CancelJob { .. } => 1,
        Command::CreateWorkerToken { .. } => 2,
        Command::RevokeWorkerToken { .. } => 3,
        Command::RegisterWorker { .. } => 4,
        Command::DrainWorker { .. } => 5,
        Command::ResumeWorker { .. } => 6,
        Command::LoseWorker { .. } => 7,
        Command::Place { .. } => 8,
        Command::StartAttempt { .. } => 9,
        Command::Checkpoint { .. } => 10,
        Command::EndAttempt { .. } => 11,
        Command::ExpireLeases { .. } => 12,
        Command::Sweep => 13,
        Command::Barrier { .. } => 14,
        Command::SetTeam { .. } => 15,
        Command::RemoveTeam { .. } => 16,
        Command::ApproveJob { .. } => 17,
        Command::UpdateJob { .. } => 18,
        Command::SubmitArray { .. } => 19,
        Command::CancelArray { .. } => 20,
        Command::Preempt { .. } => 21,
        Command::SetPolicy { .. } => 22,
        Command::Account { .. } => 23,
        Command::GiveCredentials { .. } => 24,
        Command::MissCredentials { .. } => 25,
        Command::StartPart { .. } => 26,
        Command::EndPart { .. } => 27,
        Command::ExpireParts { .. } => 28,
        Command::ReviseJob { .. } => 29,
        Command::SetTeamMembers { .. } => 30,
        Command::SetPrices { .. } => 31,
        Command::GoOnFrom { .. } => 32,
        Command::NoteNodes { .. } => 33,
        Command::RenewSecret { .. } => 34,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_made_room_for_others_has_not_failed() {
        let called = |outcome| OUTCOMES[outcome_number(outcome)];
        let failed = |reason| called(Outcome::Failed(reason));
        assert_eq!(failed(FailureReason::Preempted), "preempted");
        assert_eq!(failed(FailureReason::TrainerError), "failed");
        assert_eq!(failed(FailureReason::LeaseLost), "lease_expired");
        assert_eq!(failed(FailureReason::MaxRuntime), "failed");
        assert_eq!(called(Outcome::Succeeded), "succeeded");
        assert_eq!(called(Outcome::Cancelled), "cancelled");
        assert_eq!(called(Outcome::LeaseExpired), "lease_expired");
    }
}
