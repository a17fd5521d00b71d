//! What the end of an attempt means for its job: done, over, or tried again after a while.

use super::State;
use super::apply::Entry;
use super::money::Bill;
use crate::effect::Effect;
use crate::ids::{JobId, WorkerId};
use crate::model::attempt::Retry;
use crate::model::limits::{
    ATTEMPTS_MAX, BACKOFF_MAX_MS, BACKOFF_MS, BUDGET_MARGIN_MS, DETAIL_BYTES_MAX,
    DETAILS_BYTES_MAX, EARLIER_DETAIL_BYTES_MAX, LOST_RETRIES_MAX,
};
use crate::model::{
    Attempt, AttemptState, EventKind, FailureReason, Job, JobState, Outcome, StopReason,
};
use crate::placement::feasible;

impl State {
    /// Ends the job's live attempt and decides what follows.
    pub(super) fn settle(
        &mut self,
        entry: &mut Entry,
        id: JobId,
        outcome: Outcome,
        step: u64,
        detail: &str,
    ) {
        let keep = self.detail_bytes_kept();
        let ended = self.change(id, |job| {
            shorten_details(job);
            let attempt = job.attempts.last_mut()?;
            close(attempt, outcome, step, tail(detail, keep), entry.now_ms);
            let (number, step) = (attempt.number, attempt.last_step);
            // That a part has ended is why the others stopped, and not why it did.
            let stop = attempt.stop.filter(|why| *why != StopReason::PartOver);
            let workers: Vec<WorkerId> = attempt.parts().map(|part| part.worker).collect();
            entry.event(
                job,
                EventKind::AttemptEnded {
                    attempt: number,
                    outcome,
                    step,
                },
            );
            let changed = workers
                .iter()
                .map(|worker| Effect::WorkerChanged { worker: *worker });
            entry.effects.extend(changed);
            let reserved = std::mem::take(&mut job.standing.reserved);
            job.standing.yields_to = None;
            let bill = Bill::of(job, reserved, entry.now_ms);
            match verdict(job.state, stop, outcome) {
                Verdict::Over(state) => entry.finish(job, state),
                Verdict::Failed(reason) => entry.retry_or_fail(job, reason, stop),
            }
            Some((workers, bill))
        });
        if let Some((workers, bill)) = ended.flatten() {
            if let Some(bill) = bill {
                self.settle_bill(&bill, entry.now_ms);
            }
            for worker in workers {
                self.forget_if_revoked(worker);
            }
        }
    }
}

impl State {
    /// How much is kept of what a worker says about an end: little once there is much of it already.
    pub(super) fn detail_bytes_kept(&self) -> usize {
        let room = DETAILS_BYTES_MAX.saturating_sub(self.indexes.detail_bytes);
        if room < DETAIL_BYTES_MAX {
            EARLIER_DETAIL_BYTES_MAX
        } else {
            DETAIL_BYTES_MAX
        }
    }
}

enum Verdict {
    Over(JobState),
    Failed(FailureReason),
}

fn verdict(state: JobState, stop: Option<StopReason>, outcome: Outcome) -> Verdict {
    match (outcome, stop) {
        // Work that is complete is complete, whatever was asked for in the meantime.
        (Outcome::Succeeded, _) => Verdict::Over(JobState::Succeeded),
        _ if state == JobState::Cancelling => Verdict::Over(JobState::Cancelled),
        (_, Some(StopReason::MaxRuntime)) => Verdict::Failed(FailureReason::MaxRuntime),
        (_, Some(StopReason::BudgetSpent)) => Verdict::Failed(FailureReason::BudgetSpent),
        (_, Some(StopReason::TeamBudget)) => Verdict::Failed(FailureReason::TeamBudget),
        (Outcome::LeaseExpired, _) => Verdict::Failed(FailureReason::WorkerLost),
        // A trainer that is told to stop may end in any way.
        (_, Some(_)) | (Outcome::Cancelled, None) => Verdict::Failed(FailureReason::Preempted),
        (Outcome::Failed(reason), None) => Verdict::Failed(reason),
    }
}

impl Entry {
    fn retry_or_fail(&mut self, job: &mut Job, reason: FailureReason, stop: Option<StopReason>) {
        let tries = match reason.retry() {
            Retry::Never => None,
            Retry::Counted => count(&mut job.retries, job.spec.retry_limit),
            // To lose a worker is nobody's fault and rare: the first time costs no wait.
            Retry::Lost => count(&mut job.lost_retries, LOST_RETRIES_MAX)
                .map(|lost| if self.format < 2 { lost } else { lost - 1 }),
            // Nobody asked for it, so it may happen again at once: not every moment, please.
            Retry::Free => Some(u32::from(stop.is_none())),
        };
        // What is left must last at the price that was paid, or the job would wait for nothing.
        let price = job
            .attempts
            .last()
            .and_then(|attempt| attempt.price_per_hour);
        let lasts_ms = feasible::affordable_ms(job, price, self.now_ms);
        let money_left = lasts_ms.is_none_or(|ms| ms > BUDGET_MARGIN_MS);
        match tries {
            Some(_) if !money_left => {
                self.finish(
                    job,
                    JobState::Failed {
                        reason: FailureReason::BudgetSpent,
                    },
                );
            }
            Some(tries) if self.makes_room(job) => self.requeue(job, reason, tries),
            _ => self.finish(job, JobState::Failed { reason }),
        }
    }

    /// Whether the job may have another attempt. Before format 3 every attempt counted.
    fn makes_room(&self, job: &mut Job) -> bool {
        match self.format {
            0..3 => job.attempts.len() < ATTEMPTS_MAX,
            _ => job.make_room(),
        }
    }

    fn requeue(&mut self, job: &mut Job, reason: FailureReason, tries: u32) {
        job.state = JobState::Pending;
        job.queued_ms = self.now_ms;
        job.not_before_ms = self.now_ms.saturating_add(backoff_ms(tries));
        self.take_credentials_back(job);
        let not_before_ms = job.not_before_ms;
        self.event(
            job,
            EventKind::Requeued {
                reason,
                not_before_ms,
            },
        );
        self.effects.push(Effect::Plan);
    }
}

/// One more of so many; `None` if there were as many already.
fn count(retries: &mut u8, limit: u8) -> Option<u32> {
    (*retries < limit).then(|| {
        *retries += 1;
        u32::from(*retries)
    })
}

fn backoff_ms(tries: u32) -> u64 {
    match tries {
        0 => 0,
        tries => BACKOFF_MS
            .saturating_mul(1 << (tries - 1).min(16))
            .min(BACKOFF_MAX_MS),
    }
}

fn close(attempt: &mut Attempt, outcome: Outcome, step: u64, detail: &str, now_ms: u64) {
    attempt.state = AttemptState::Ended(outcome);
    attempt.ended_ms = Some(now_ms);
    attempt.last_step = attempt.last_step.max(step);
    attempt.detail = detail.to_owned();
}

fn shorten_details(job: &mut Job) {
    for attempt in &mut job.attempts {
        if attempt.detail.len() > EARLIER_DETAIL_BYTES_MAX {
            attempt.detail = tail(&attempt.detail, EARLIER_DETAIL_BYTES_MAX).to_owned();
        }
    }
}

/// The last bytes of a text, at a character's boundary: a trainer's last words say the most.
pub(super) fn tail(text: &str, bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes))..]
}
