//! Names of everything this crate measures, and the numbers behind them, in the text format that Prometheus reads.

mod durations;
mod nodes;
mod pending;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stepcast_scheduler::model::Outcome;
use stepcast_scheduler::{Command, State};

use self::durations::Durations;
pub(crate) use self::nodes::Moment;
use crate::error::ProposeError;

/// Raft's term.
pub const RAFT_TERM: &str = "stepcast_raft_term";
/// Highest committed entry.
pub const RAFT_COMMIT_INDEX: &str = "stepcast_raft_commit_index";
/// Highest applied entry.
pub const RAFT_APPLIED_INDEX: &str = "stepcast_raft_applied_index";
/// Highest entry in the log.
pub const RAFT_LAST_INDEX: &str = "stepcast_raft_last_index";
/// Entry of the newest snapshot on disk, 0 without one.
pub const RAFT_SNAPSHOT_INDEX: &str = "stepcast_raft_snapshot_index";
/// 1 on the node that leads, 0 elsewhere.
pub const RAFT_LEADER: &str = "stepcast_raft_leader";
/// Nodes that vote.
pub const RAFT_VOTERS: &str = "stepcast_raft_voters";
/// The format in which entries are written.
pub const LOG_FORMAT: &str = "stepcast_log_format";
/// Committed entries that a node does not have yet, as the leader knows; nothing on other nodes.
pub const PEER_BEHIND_ENTRIES: &str = "stepcast_peer_behind_entries";
/// Whether this node can talk with another one.
pub const PEER_REACHABLE: &str = "stepcast_peer_reachable";
/// How long a question to another node and its answer take.
pub const PEER_ROUND_TRIP_SECONDS: &str = "stepcast_peer_round_trip_seconds";
/// Messages to another node that were dropped, since it was away or its queue full. Raft sends what matters again.
pub const PEER_DROPPED_MESSAGES_TOTAL: &str = "stepcast_peer_dropped_messages_total";
/// Proposals that wait to be committed and applied.
pub const PROPOSALS_IN_FLIGHT: &str = "stepcast_proposals_in_flight";
/// Workers with an open session on this node.
pub const WORKER_SESSIONS: &str = "stepcast_worker_sessions";
/// Bytes free on the disk of the log.
pub const DISK_FREE_BYTES: &str = "stepcast_disk_free_bytes";
/// Which program this is; always 1.
pub const BUILD_INFO: &str = "stepcast_build_info";
/// Proposals by result.
pub const PROPOSALS_TOTAL: &str = "stepcast_proposals_total";
/// Time from a proposal to its reply, of those that have one.
pub const COMMIT_DURATION_SECONDS: &str = "stepcast_commit_duration_seconds";
/// Time one entry takes to apply, by command.
pub const APPLY_DURATION_SECONDS: &str = "stepcast_apply_duration_seconds";
/// Time one round of planning takes.
pub const PLAN_DURATION_SECONDS: &str = "stepcast_plan_duration_seconds";
/// Time from a job's coming into the queue to its placement.
pub const QUEUE_WAIT_SECONDS: &str = "stepcast_queue_wait_seconds";
/// How long attempts ran that succeeded, by what was expected of them when they were placed: 1 is what was expected.
pub const ESTIMATE_ERROR_RATIO: &str = "stepcast_estimate_error_ratio";
/// Jobs by state.
pub const JOBS: &str = "stepcast_jobs";
/// Waiting jobs, by what they wait for.
pub const PENDING_JOBS: &str = "stepcast_pending_jobs";
/// GPUs by model, and by whether they are in use.
pub const GPUS: &str = "stepcast_gpus";
/// Attempts that ended while this node led, by outcome.
pub const ATTEMPTS_TOTAL: &str = "stepcast_attempts_total";
/// Leases that ended without the worker's word.
pub const LEASE_EXPIRATIONS_TOTAL: &str = "stepcast_lease_expirations_total";

/// How proposals end, as the label `result`.
const RESULTS: [&str; 5] = ["applied", "rejected", "unknown", "refused", "busy"];

/// How attempts end, as the label `outcome`.
const OUTCOMES: [&str; 4] = ["succeeded", "failed", "cancelled", "lease_expired"];

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
const COMMANDS: [&str; 29] = [
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
            applies: Default::default(),
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
        let mut text = Text(String::with_capacity(16 << 10));
        text.moment(moment);
        text.counters(PROPOSALS_TOTAL, "result", &RESULTS, &self.proposals);
        text.counters(ATTEMPTS_TOTAL, "outcome", &OUTCOMES, &self.attempts);
        text.kind(LEASE_EXPIRATIONS_TOTAL, "counter");
        text.line(format_args!(
            "{LEASE_EXPIRATIONS_TOTAL} {}",
            self.lease_expirations.load(Ordering::Relaxed)
        ));
        text.kind(COMMIT_DURATION_SECONDS, "histogram");
        self.commits.write(&mut text, COMMIT_DURATION_SECONDS, "");
        text.kind(PLAN_DURATION_SECONDS, "histogram");
        self.plans.write(&mut text, PLAN_DURATION_SECONDS, "");
        text.kind(QUEUE_WAIT_SECONDS, "histogram");
        self.queue_waits.write(&mut text, QUEUE_WAIT_SECONDS, "");
        text.kind(ESTIMATE_ERROR_RATIO, "histogram");
        self.estimate_errors
            .write(&mut text, ESTIMATE_ERROR_RATIO, "");
        text.kind(APPLY_DURATION_SECONDS, "histogram");
        for (command, durations) in COMMANDS.iter().zip(&self.applies) {
            durations.write(
                &mut text,
                APPLY_DURATION_SECONDS,
                &format!("command=\"{command}\""),
            );
        }
        text.jobs(state);
        text.pending(state, moment.now_ms);
        text.gpus(state);
        text.0
    }
}

struct Text(String);

impl Text {
    fn kind(&mut self, name: &str, kind: &str) {
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn counters(&mut self, name: &str, label: &str, values: &[&str], counts: &[AtomicU64]) {
        self.kind(name, "counter");
        for (value, count) in values.iter().zip(counts) {
            let count = count.load(Ordering::Relaxed);
            self.line(format_args!("{name}{{{label}=\"{value}\"}} {count}"));
        }
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
        self.kind(JOBS, "gauge");
        for (name, count) in STATES.iter().zip(counts) {
            self.line(format_args!("{JOBS}{{state=\"{name}\"}} {count}"));
        }
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
        self.kind(GPUS, "gauge");
        for ((model, used), count) in counts {
            self.line(format_args!(
                "{GPUS}{{model=\"{model}\",state=\"{used}\"}} {count}"
            ));
        }
    }
}

fn outcome_number(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Succeeded => 0,
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
    }
}
