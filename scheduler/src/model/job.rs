//! A job: what was asked for, where it stands, and its attempts.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use stepcast_records::UsdMicros;

use super::limits::{ATTEMPTS_MAX, PRIORITY_STEP_MS};
use super::{Attempt, AttemptState, FailureReason, JobEvent, JobSpec, Outcome, Standing};
use crate::ids::{AttemptNumber, Epoch, JobId, TeamId, WorkerId};
use crate::policy::Policy;

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What was asked for.
    pub spec: JobSpec,
    /// Where it stands.
    pub state: JobState,
    /// When it was submitted, by stamp.
    pub submitted_ms: u64,
    /// When it came into the queue the last time, by stamp.
    pub queued_ms: u64,
    /// When it may run at the earliest, by stamp; later than now while it waits for a retry.
    pub not_before_ms: u64,
    /// When it ended for good, by stamp.
    pub ended_ms: Option<u64>,
    /// Retries that counted against the job's own limit.
    pub retries: u8,
    /// Retries after losing a worker.
    pub lost_retries: u8,
    /// Its attempts, oldest first. Of many that were asked to stop the oldest are forgotten, see [`Standing::forgotten`].
    pub attempts: Vec<Attempt>,
    /// Its newest events, oldest first; their numbers have no gap.
    pub events: VecDeque<JobEvent>,
    /// What was decided about it, and what is promised to it. Written behind the job, from format 3 on.
    #[serde(skip)]
    pub standing: Standing,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Waiting for GPUs.
    Pending,
    /// An attempt holds a lease.
    Running,
    /// An attempt holds a lease and was told to end, since the job was cancelled.
    Cancelling,
    /// Done.
    Succeeded,
    /// Failed for good.
    Failed {
        /// Why.
        reason: FailureReason,
    },
    /// Cancelled.
    Cancelled,
}

impl JobState {
    /// Whether nothing changes it any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed { .. } | Self::Cancelled
        )
    }
}

impl Job {
    /// The attempt that holds a lease.
    #[must_use]
    pub fn live_attempt(&self) -> Option<&Attempt> {
        self.attempts.last().filter(|attempt| attempt.is_live())
    }

    /// The number its next attempt will have.
    #[must_use]
    pub fn next_attempt(&self) -> AttemptNumber {
        AttemptNumber(self.attempts.last().map_or(0, |attempt| attempt.number.0) + 1)
    }

    /// The number of its newest event.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.events.back().map_or(0, |event| event.seq)
    }

    /// Whether its last attempt ended because its worker was not heard of any more or was started anew.
    #[must_use]
    pub fn has_lost_its_worker(&self) -> bool {
        let last = self.attempts.last().map(|attempt| attempt.state);
        matches!(
            last,
            Some(AttemptState::Ended(
                Outcome::LeaseExpired | Outcome::Failed(FailureReason::WorkerRestarted)
            ))
        )
    }

    /// The workers on which attempts of it could not be started, as often as that was; of an attempt on several hosts all of
    /// them, since which one it was is not kept. But not where it runs by now.
    pub fn failed_to_start(&self) -> impl Iterator<Item = WorkerId> {
        let failed = self.attempts.iter().filter(|attempt| {
            attempt.outcome() == Some(Outcome::Failed(FailureReason::LaunchFailed))
        });
        let workers = failed.flat_map(Attempt::parts).map(|part| part.worker);
        let live = self.live_attempt();
        workers.filter(move |worker| live.is_none_or(|live| live.part_on(*worker).is_none()))
    }

    /// The step of its newest checkpoint, where the next attempt resumes; 0 for none.
    #[must_use]
    pub fn checkpoint_step(&self) -> u64 {
        self.step_kept(|_| true)
    }

    /// The step that an attempt of it goes on from: of the newest checkpoint of all the others; 0 for none.
    #[must_use]
    pub fn begun_step(&self, epoch: Epoch) -> u64 {
        self.step_kept(|attempt| attempt.epoch != epoch)
    }

    /// The step that an attempt has gone on from where that is none of the steps that those before it have saved.
    #[must_use]
    pub fn begun_elsewhere(&self, attempt: AttemptNumber) -> Option<u64> {
        let is_first = self.standing.counts_from == attempt;
        is_first.then_some(self.standing.began_at)
    }

    /// The worker whose results hold the checkpoint that its next attempt goes on from: that of the last attempt that has saved
    /// it or gone on from it. `None` without a checkpoint, where that attempt is forgotten, and of a gang, whose hosts share
    /// their results.
    #[must_use]
    pub fn checkpoint_on(&self) -> Option<WorkerId> {
        let newest = self.checkpoint_step();
        if newest == 0 || self.spec.hosts() > 1 {
            return None;
        }
        let has = |attempt: &&Attempt| {
            let begun = self.begun_elsewhere(attempt.number);
            attempt.number >= self.standing.counts_from
                && (attempt.checkpoint_step == newest || begun == Some(newest))
        };
        let attempt = self.attempts.iter().rev().find(has);
        attempt.map(|attempt| attempt.worker)
    }

    fn step_kept(&self, by: impl Fn(&Attempt) -> bool) -> u64 {
        let counts = |attempt: &&Attempt| attempt.number >= self.standing.counts_from;
        let by = self.attempts.iter().filter(counts).filter(|one| by(one));
        by.map(|attempt| attempt.checkpoint_step)
            .fold(self.standing.forgotten.checkpoint_step, u64::max)
    }

    /// Makes room for one more attempt: of those that were asked to stop the oldest is forgotten. False if there are as many
    /// as are kept and none of them was: then it has been tried as often as any job may be.
    pub(crate) fn make_room(&mut self) -> bool {
        let Some((last, earlier)) = self.attempts.split_last() else {
            return true;
        };
        if self.attempts.len() < ATTEMPTS_MAX {
            return true;
        }
        // The newest says which number the next one has, so an older one goes for it.
        let oldest = earlier.iter().position(Attempt::was_asked);
        let Some(oldest) = oldest.or(last.was_asked().then_some(0)) else {
            return false;
        };
        let attempt = self.attempts.remove(oldest);
        let counts = attempt.number >= self.standing.counts_from;
        self.standing.forgotten.add(&attempt, counts);
        true
    }

    /// Where it stands in the queue: lower goes first. Priority counts as time waited, so that a job with a higher one
    /// goes first for a while but nothing that comes much later does.
    #[must_use]
    pub fn order(&self) -> i64 {
        let submitted = i64::try_from(self.submitted_ms).unwrap_or(i64::MAX);
        submitted.saturating_sub(i64::from(self.spec.priority) * PRIORITY_STEP_MS as i64)
    }

    /// What is left of its money at `now_ms`; `None` without a limit.
    #[must_use]
    pub fn budget_left(&self, now_ms: u64) -> Option<UsdMicros> {
        let UsdMicros(max) = self.spec.max_cost?;
        Some(UsdMicros(max.saturating_sub(self.cost(now_ms).0)))
    }

    /// The teams whose limits hold for it: its own, and the one that it is a part of.
    pub fn teams(&self) -> impl Iterator<Item = TeamId> {
        std::iter::once(self.spec.terms.team).chain(self.standing.parent)
    }

    /// How long an attempt of it is left in peace before its GPUs may be taken back, in milliseconds: as long as the
    /// cluster says, and longer if the job does.
    #[must_use]
    pub fn min_run_ms(&self, policy: &Policy) -> u64 {
        let asked_ms = self.spec.terms.min_run_ms.unwrap_or(0);
        policy.min_run_ms.max(asked_ms)
    }

    /// How often its GPUs may be taken back: as often as the cluster says, and less if the job does.
    #[must_use]
    pub fn preemptions_max(&self, policy: &Policy) -> u8 {
        let asked = self.spec.terms.preemptions_max.unwrap_or(u8::MAX);
        policy.preemptions_max.min(asked)
    }

    /// What it has cost and what is set aside for it: what it may come to without another look.
    #[must_use]
    pub fn committed(&self) -> UsdMicros {
        let ended = self.attempts.iter().filter(|attempt| !attempt.is_live());
        let ended = ended.map(|attempt| attempt.cost(0).0);
        let before = self.standing.forgotten.cost.0;
        UsdMicros(ended.fold(
            self.standing.reserved.0.saturating_add(before),
            u64::saturating_add,
        ))
    }

    /// What all its attempts have cost by `now_ms`.
    #[must_use]
    pub fn cost(&self, now_ms: u64) -> UsdMicros {
        let costs = self.attempts.iter().map(|attempt| attempt.cost(now_ms).0);
        UsdMicros(costs.fold(self.standing.forgotten.cost.0, u64::saturating_add))
    }
}
