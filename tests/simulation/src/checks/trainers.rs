//! Trainers as they really run, against what the log says of them.

use std::collections::BTreeMap;

use stepcast_scheduler::ids::{Epoch, JobId};
use stepcast_scheduler::model::{EventKind, Job, JobEvent, Outcome};

use super::Check;
use crate::kernel::Micros;

/// How a trainer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// It said that it was complete, when all of it was saved, and ended after that.
    Complete,
    /// In any other way.
    Otherwise,
}

/// One trainer that is started: of a gang, that of one part.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub(crate) epoch: Epoch,
    pub(crate) job: JobId,
    pub(crate) worker: u64,
    pub(crate) gpus: Vec<u8>,
    /// Whether it speaks for its attempt.
    pub(crate) is_first: bool,
}

/// One trainer that was started.
#[derive(Debug, Clone)]
struct Trainer {
    what: Begun,
    begun: Micros,
    ended: Option<(Micros, Finish)>,
}

/// All trainers, and each job's history as the log made it.
#[derive(Default)]
pub(crate) struct Trainers {
    trainers: BTreeMap<(Epoch, u64), Trainer>,
    jobs: BTreeMap<JobId, Vec<JobEvent>>,
}

type Found = Option<(Check, String)>;

impl Trainers {
    /// A trainer begins.
    pub(crate) fn begin(&mut self, what: Begun, now: Micros) -> Found {
        let (epoch, job, worker, gpus) = (what.epoch, what.job, what.worker, &what.gpus);
        let live = self.trainers.values().filter(|t| t.ended.is_none());
        for trainer in live.map(|trainer| &trainer.what) {
            let other = trainer.epoch;
            // The parts of a gang train together.
            if trainer.job == job && other != epoch {
                let detail = format!(
                    "job {job} is trained under epoch {epoch} on host {worker} while epoch {other} still trains it on \
                     host {}",
                    trainer.worker
                );
                return Some((Check::OneTrainerAJob, detail));
            }
            if trainer.worker == worker && trainer.gpus.iter().any(|gpu| gpus.contains(gpu)) {
                let detail = format!(
                    "epoch {epoch} begins on GPUs {gpus:?} of host {worker} that epoch {other} still uses"
                );
                return Some((Check::OneTrainerAGpu, detail));
            }
        }
        let trainer = Trainer {
            what,
            begun: now,
            ended: None,
        };
        self.trainers.insert((epoch, worker), trainer).map(|_| {
            let detail = format!("epoch {epoch} of job {job} is begun a second time");
            (Check::AttemptsStartOnce, detail)
        })
    }

    /// It has ended.
    pub(crate) fn end(&mut self, epoch: Epoch, worker: u64, finish: Finish, now: Micros) {
        if let Some(trainer) = self.trainers.get_mut(&(epoch, worker)) {
            trainer.ended.get_or_insert((now, finish));
        }
    }

    /// How long they ran together.
    pub(crate) fn ran(&self, now: Micros) -> Micros {
        let ran = |t: &Trainer| t.ended.map_or(now, |(at, _)| at) - t.begun;
        self.trainers.values().map(ran).sum()
    }

    /// The log ends one part of a gang while others go on: since its lease is over, or since its host says so.
    pub(crate) fn part_ended(&self, job: JobId, epoch: Epoch, host: u64, expired: bool) -> Found {
        let trainer = self.trainers.get(&(epoch, host))?;
        let check = match expired {
            true => Check::LeasesOutliveTrainers,
            false => Check::OldEpochsAreRefused,
        };
        trainer.ended.is_none().then(|| {
            let detail = format!(
                "the log ends the part of epoch {epoch} of job {job} on host {host} while its trainer runs"
            );
            (check, detail)
        })
    }

    /// A job's history as the log has made it so far.
    pub(crate) fn events(&self, job: JobId) -> &[JobEvent] {
        self.jobs.get(&job).map_or(&[], Vec::as_slice)
    }

    /// A job as it is after one more entry: what is new in its history must be possible and true.
    pub(crate) fn follow(&mut self, job: &Job) -> Found {
        let known = self.jobs.entry(job.id).or_default();
        let newest = known.last().map_or(0, |event| event.seq);
        let new: Vec<JobEvent> = job
            .events
            .iter()
            .filter(|event| event.seq > newest)
            .copied()
            .collect();
        let mut before = known.clone();
        known.extend(&new);
        for event in new {
            if let Some(found) = self.judge(job, &before, event) {
                return Some(found);
            }
            before.push(event);
        }
        None
    }

    fn judge(&self, job: &Job, before: &[JobEvent], event: JobEvent) -> Found {
        let id = job.id;
        if before.iter().any(|earlier| earlier.kind.is_last()) {
            let detail = format!("job {id} was over, and then: {:?}", event.kind);
            return Some((Check::TerminalIsFinal, detail));
        }
        let placed = |events: &[JobEvent]| {
            events.iter().rev().find_map(|event| match event.kind {
                EventKind::Placed { attempt, epoch, .. } => Some((attempt, epoch)),
                _ => None,
            })
        };
        match event.kind {
            EventKind::Placed { attempt, epoch, .. } => {
                let (last, newest) = placed(before)?;
                (attempt <= last || epoch <= newest).then(|| {
                    let detail = format!(
                        "job {id}: attempt {attempt} with epoch {epoch} comes after attempt {last} with epoch {newest}"
                    );
                    (Check::TerminalIsFinal, detail)
                })
            }
            EventKind::AttemptEnded { outcome, .. } => {
                let (_, epoch) = placed(before)?;
                self.ended(id, epoch, outcome)
            }
            _ => None,
        }
    }

    fn ended(&self, job: JobId, epoch: Epoch, outcome: Outcome) -> Found {
        let all = self.trainers.range((epoch, 0)..=(epoch, u64::MAX));
        let mut all = all.map(|(_, trainer)| trainer);
        if all.clone().any(|trainer| trainer.ended.is_none()) {
            let check = match outcome {
                Outcome::LeaseExpired => Check::LeasesOutliveTrainers,
                _ => Check::OldEpochsAreRefused,
            };
            let detail = format!(
                "the log ends epoch {epoch} of job {job} ({outcome:?}) while its trainer runs"
            );
            return Some((check, detail));
        }
        // The first part of a gang says when its work is complete.
        let is_complete = |ended: Option<(Micros, Finish)>| {
            ended.is_some_and(|(_, finish)| finish == Finish::Complete)
        };
        let complete = all.any(|trainer| trainer.what.is_first && is_complete(trainer.ended));
        (outcome == Outcome::Succeeded && !complete).then(|| {
            let detail = format!(
                "the log says that epoch {epoch} of job {job} succeeded, and its trainer did not"
            );
            (Check::OldEpochsAreRefused, detail)
        })
    }
}
