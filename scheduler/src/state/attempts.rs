//! Attempts: placed under a lease, started, checkpointed and ended by whoever holds its epoch, or expired by the leader.

use stepcast_records::{GpuModel, UsdMicros};

use super::State;
use super::apply::Entry;
use super::money::{deadline, wanted};
use crate::command::Placement;
use crate::effect::Effect;
use crate::ids::{Epoch, JobId};
use crate::model::limits::EXPIRED_MAX;
use crate::model::{Attempt, AttemptState, EventKind, Gang, JobState, Outcome, Part, PartState};
use crate::placement::ledger::Ledger;
use crate::placement::{Reason, feasible};
use crate::rejection::{Dropped, Rejection};
use crate::reply::Reply;

impl State {
    pub(super) fn place(
        &mut self,
        entry: &mut Entry,
        placements: &[Placement],
    ) -> Result<Reply, Rejection> {
        if placements.len() as u64 > Epoch::PLACEMENTS_MAX {
            return Err(Rejection::TooMany { what: "placements" });
        }
        let outcomes = (0..=u8::MAX).zip(placements).map(|(position, placement)| {
            let epoch = Epoch::new(entry.index, position);
            self.place_one(entry, epoch, placement)
        });
        Ok(Reply::Placed {
            outcomes: outcomes.collect(),
        })
    }

    /// What was true when it was planned may not be true any more: everything is looked at again.
    fn place_one(
        &mut self,
        entry: &mut Entry,
        epoch: Epoch,
        placement: &Placement,
    ) -> Result<Epoch, Dropped> {
        let job = self.open_job(placement.job).ok_or(Dropped::JobMoved)?;
        if job.state != JobState::Pending || job.next_attempt() != placement.attempt {
            return Err(Dropped::JobMoved);
        }
        let mut seats = Vec::with_capacity(1 + placement.others.len());
        for (worker, gpus) in placement.seats() {
            let worker = self
                .worker(worker)
                .filter(|worker| worker.takes_work())
                .ok_or(Dropped::WorkerGone)?;
            if gpus
                .iter()
                .any(|gpu| self.user_of(worker.id, *gpu).is_some())
            {
                return Err(Dropped::GpuBusy);
            }
            seats.push((worker, gpus));
        }
        let ledger = Ledger::new(self, entry.now_ms);
        match ledger.held(job) {
            None => {}
            Some(Reason::BudgetSpent | Reason::WaitsForRetry | Reason::AwaitingCredentials) => {
                return Err(Dropped::JobHeld);
            }
            Some(_) => return Err(Dropped::Limited),
        }
        let gpu = feasible::admits(job, &seats, entry.now_ms).map_err(|_| Dropped::Unfit)?;
        let workers = || seats.iter().map(|(worker, _)| *worker);
        let price = feasible::price_per_hour(workers(), gpu, job.spec.gpu_count);
        let run_ms_p90 = placement.note.run_ms_p90;
        ledger
            .allows(job, workers(), price, run_ms_p90)
            .map_err(|_| Dropped::Limited)?;
        let reserved = if entry.format >= 3 {
            wanted(job, price, run_ms_p90, entry.now_ms)
        } else {
            UsdMicros(0)
        };
        let mut attempt = granted(entry, epoch, placement, (gpu, price));
        attempt.deadline = deadline(self, job, price, reserved, entry.now_ms);
        self.change(placement.job, |job| {
            job.state = JobState::Running;
            job.standing.reserved = reserved;
            job.standing.yields_to = None;
            job.standing.freed = None;
            entry.event(
                job,
                EventKind::Placed {
                    attempt: attempt.number,
                    epoch,
                    worker: attempt.worker,
                },
            );
            let id = job.id;
            let told = attempt.parts().map(|part| Effect::Dispatch {
                worker: part.worker,
                job: id,
                epoch,
            });
            entry.effects.extend(told);
            job.attempts.push(attempt);
        });
        Ok(epoch)
    }

    pub(super) fn start(
        &mut self,
        entry: &mut Entry,
        job: JobId,
        epoch: Epoch,
    ) -> Result<Reply, Rejection> {
        self.sole_holder(job, epoch)?;
        self.change(job, |job| {
            let Some(attempt) = job.attempts.last_mut() else {
                return;
            };
            // A worker says so again after every reconnect.
            if attempt.state == AttemptState::Placed {
                attempt.state = AttemptState::Running;
                attempt.started_ms = Some(entry.now_ms);
                let attempt = attempt.number;
                entry.event(job, EventKind::Started { attempt });
                // Its worker has them by now, and nobody else needs them.
                entry.drop_credentials(job);
            }
        });
        Ok(Reply::Done)
    }

    pub(super) fn checkpoint(
        &mut self,
        entry: &mut Entry,
        job: JobId,
        epoch: Epoch,
        step: u64,
    ) -> Result<Reply, Rejection> {
        self.holder(job, epoch)?;
        self.change(job, |job| {
            let Some(attempt) = job.attempts.last_mut() else {
                return;
            };
            if step > attempt.checkpoint_step {
                attempt.checkpoint_step = step;
                attempt.last_step = attempt.last_step.max(step);
                let attempt = attempt.number;
                entry.event(job, EventKind::Checkpointed { attempt, step });
            }
        });
        Ok(Reply::Done)
    }

    /// From here on no checkpoint of an earlier attempt counts: whoever goes on does so where this one is, or says otherwise.
    pub(super) fn go_on_from(
        &mut self,
        entry: &mut Entry,
        job: JobId,
        epoch: Epoch,
        step: u64,
    ) -> Result<Reply, Rejection> {
        self.holder(job, epoch)?;
        self.change(job, |job| {
            // A worker says so again after every reconnect.
            if job.begun_step(epoch) == step {
                return;
            }
            let Some(attempt) = job.attempts.last().map(|attempt| attempt.number) else {
                return;
            };
            job.standing.counts_from = attempt;
            job.standing.began_at = step;
            job.standing.forgotten.checkpoint_step = step;
            entry.event(job, EventKind::GoesOn { attempt, step });
        });
        Ok(Reply::Done)
    }

    pub(super) fn end(
        &mut self,
        entry: &mut Entry,
        (job, epoch): (JobId, Epoch),
        outcome: Outcome,
        step: u64,
        detail: &str,
    ) -> Result<Reply, Rejection> {
        self.sole_holder(job, epoch)?;
        self.settle(entry, job, outcome, step, detail);
        Ok(Reply::Done)
    }

    pub(super) fn expire(
        &mut self,
        entry: &mut Entry,
        expired: &[(JobId, Epoch)],
    ) -> Result<Reply, Rejection> {
        if expired.len() > EXPIRED_MAX {
            return Err(Rejection::TooMany { what: "leases" });
        }
        let mut count = 0;
        for (job, epoch) in expired {
            if self.sole_holder(*job, *epoch).is_ok() {
                self.settle(entry, *job, Outcome::LeaseExpired, 0, "");
                count += 1;
            }
        }
        Ok(Reply::Expired { count })
    }

    /// The same of an attempt on one host. One on several is over when all of its parts are, so that no GPU is free before
    /// its trainer is gone.
    fn sole_holder(&self, job: JobId, epoch: Epoch) -> Result<(), Rejection> {
        self.holder(job, epoch)?;
        let attempt = self.open_job(job).and_then(|job| job.live_attempt());
        if attempt.is_some_and(|attempt| attempt.gang.is_some()) {
            return Err(Rejection::NoSuchPart);
        }
        Ok(())
    }

    /// Refuses whoever does not hold the lease: every report goes through here.
    pub(super) fn holder(&self, job: JobId, epoch: Epoch) -> Result<(), Rejection> {
        let job = self.job(job).ok_or(Rejection::NoSuchJob)?;
        match job.attempts.last() {
            Some(attempt) if attempt.epoch == epoch && attempt.is_live() => Ok(()),
            Some(attempt) if attempt.epoch == epoch => Err(Rejection::AttemptOver { epoch }),
            newest => Err(Rejection::StaleEpoch {
                given: epoch,
                newest: newest.map(|attempt| attempt.epoch),
            }),
        }
    }
}

/// The attempt a placement makes, with the model of its GPUs and what they cost an hour.
fn granted(
    entry: &Entry,
    epoch: Epoch,
    placement: &Placement,
    (gpu, price_per_hour): (GpuModel, Option<UsdMicros>),
) -> Attempt {
    let others = placement.others.iter().map(|seat| Part {
        worker: seat.worker,
        gpus: seat.gpus.clone(),
        state: PartState::Placed,
    });
    let gang = placement.is_gang().then(|| {
        Box::new(Gang {
            first: PartState::Placed,
            others: others.collect(),
            fate: None,
        })
    });
    Attempt {
        number: placement.attempt,
        epoch,
        worker: placement.worker,
        gpu,
        gpus: placement.gpus.clone(),
        price_per_hour,
        note: placement.note,
        state: AttemptState::Placed,
        stop: None,
        placed_ms: entry.now_ms,
        started_ms: None,
        ended_ms: None,
        deadline: None,
        checkpoint_step: 0,
        last_step: 0,
        detail: String::new(),
        gang,
    }
}
