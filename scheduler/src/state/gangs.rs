//! Gangs: the parts of one attempt on several hosts, each started, ended and expired by itself.

use super::State;
use super::apply::Entry;
use super::settle::tail;
use crate::ids::{Epoch, JobId, WorkerId};
use crate::model::limits::EXPIRED_MAX;
use crate::model::{AttemptState, EventKind, Outcome, PartState, StopReason};
use crate::rejection::Rejection;
use crate::reply::Reply;

impl State {
    pub(super) fn start_part(
        &mut self,
        entry: &mut Entry,
        (job, epoch): (JobId, Epoch),
        worker: WorkerId,
    ) -> Result<Reply, Rejection> {
        let rank = self.part(job, epoch, worker)?;
        self.change(job, |job| {
            let Some(attempt) = job.attempts.last_mut() else {
                return;
            };
            let gang = attempt.gang.as_deref_mut();
            if let Some(part) = gang.and_then(|gang| gang.part_mut(rank))
                && *part == PartState::Placed
            {
                *part = PartState::Running;
            }
            let all = attempt.parts().all(|part| part.state == PartState::Running);
            if all && attempt.state == AttemptState::Placed {
                attempt.state = AttemptState::Running;
                attempt.started_ms = Some(entry.now_ms);
                let attempt = attempt.number;
                entry.event(job, EventKind::Started { attempt });
                // All of its workers have them by now, and nobody else needs them.
                entry.drop_credentials(job);
            }
        });
        Ok(Reply::Done)
    }

    pub(super) fn end_part(
        &mut self,
        entry: &mut Entry,
        (job, epoch): (JobId, Epoch),
        worker: WorkerId,
        outcome: Outcome,
        (step, detail): (u64, &str),
    ) -> Result<Reply, Rejection> {
        let rank = self.part(job, epoch, worker)?;
        let keep = self.detail_bytes_kept();
        let fate = self.change(job, |job| {
            let attempt = job.attempts.last_mut()?;
            let gang = attempt.gang.as_deref_mut()?;
            *gang.part_mut(rank)? = PartState::Ended;
            let decides = gang.decide(rank, outcome);
            let fate = gang.fate;
            if decides {
                tail(detail, keep).clone_into(&mut attempt.detail);
            }
            if rank == 0 {
                attempt.last_step = attempt.last_step.max(step);
            }
            if attempt.parts().all(|part| part.state == PartState::Ended) {
                return fate.map(|fate| (fate, std::mem::take(&mut attempt.detail)));
            }
            if fate.is_some() && attempt.stop.is_none() {
                entry.stop(job, StopReason::PartOver);
            }
            None
        });
        if let Some((fate, detail)) = fate.flatten() {
            self.settle(entry, job, fate, 0, &detail);
        }
        Ok(Reply::Done)
    }

    pub(super) fn expire_parts(
        &mut self,
        entry: &mut Entry,
        expired: &[(JobId, Epoch, WorkerId)],
    ) -> Result<Reply, Rejection> {
        if expired.len() > EXPIRED_MAX {
            return Err(Rejection::TooMany { what: "leases" });
        }
        let mut count = 0;
        for (job, epoch, worker) in expired {
            let ended = self.end_part(
                entry,
                (*job, *epoch),
                *worker,
                Outcome::LeaseExpired,
                (0, ""),
            );
            count += u32::from(ended.is_ok());
        }
        Ok(Reply::Expired { count })
    }

    /// The rank of the part of a gang that a worker has; refuses whoever does not hold its lease.
    fn part(&self, job: JobId, epoch: Epoch, worker: WorkerId) -> Result<usize, Rejection> {
        self.holder(job, epoch)?;
        let attempt = self.open_job(job).and_then(|job| job.live_attempt());
        let attempt = attempt.filter(|attempt| attempt.gang.is_some());
        match attempt.and_then(|attempt| attempt.part_on(worker)) {
            Some(part) if part.state != PartState::Ended => Ok(part.rank),
            Some(_) => Err(Rejection::AttemptOver { epoch }),
            None => Err(Rejection::NoSuchPart),
        }
    }
}
