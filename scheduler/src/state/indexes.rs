//! What is looked up often: made from the jobs (and one thing from the workers) alone, kept beside them, and compared with them by the invariants.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use stepcast_records::UsdMicros;

use super::counts::JobCounts;
use super::journal::{Change, Journal};
use super::lines::{Lines, line};
use super::money::rating;
use super::outputs::Folders;
use crate::ids::{Epoch, JobId, StagingId, TeamId, UserId, WorkerId};
use crate::model::{Job, JobState, Label, Lease};

/// Ways to find jobs and leases.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Indexes {
    /// Waiting jobs, in the order of the queue.
    pub(crate) pending: BTreeSet<(i64, JobId)>,
    /// The same in lines of jobs that ask for the same.
    pub(crate) lines: Lines,
    /// Waiting jobs, by when they came into the queue.
    pub(crate) queued: BTreeSet<(u64, JobId)>,
    /// Jobs that are not over, by their files.
    pub(crate) staged: BTreeMap<StagingId, JobId>,
    /// Jobs that are over, by when they ended.
    pub(crate) ended: BTreeSet<(u64, JobId)>,
    /// Attempts that hold a lease.
    pub(crate) leases: BTreeMap<Epoch, Lease>,
    /// The same by worker, each part of a gang by its own.
    pub(crate) on_worker: BTreeSet<(WorkerId, Epoch)>,
    /// GPUs in use.
    pub(crate) busy: BTreeMap<(WorkerId, u8), Epoch>,
    /// Attempts that are to be asked to stop at a time, and were not yet.
    pub(crate) deadlines: BTreeSet<(u64, Epoch)>,
    /// How many jobs stand where.
    pub(crate) counts: JobCounts,
    /// Bytes of what workers said about ends.
    pub(crate) detail_bytes: usize,
    /// What teams and their parts have in use.
    pub(crate) teams: BTreeMap<TeamId, InUse>,
    /// How many jobs of whom are not over.
    pub(crate) people: BTreeMap<UserId, usize>,
    /// The tasks of arrays that are not over.
    pub(crate) arrays: BTreeMap<JobId, Tasks>,
    /// Waiting jobs that need credentials and do not wait for them.
    pub(crate) credentials: BTreeSet<JobId>,
    /// Waiting jobs for whom GPUs were taken back.
    pub(crate) promised: BTreeSet<JobId>,
    /// Keys of live attempts that keep others of the same key away from their worker.
    pub(crate) keys: BTreeSet<(WorkerId, Label)>,
    /// Where workers put results, as far as it is asked for.
    pub(crate) folders: Folders,
    /// What of this has changed lately.
    pub(crate) journal: Journal,
}

/// What a team and its parts have in use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct InUse {
    /// Jobs that are not over.
    pub(crate) unfinished: usize,
    /// GPUs under a lease.
    pub(crate) gpus: u32,
    /// Money that is set aside, in millionths of a dollar. Of several at any price, so it is counted in more bits.
    reserved: u128,
    /// What the attempts cost an hour, in millionths of a dollar.
    pub(crate) price: Growing,
    /// What their GPUs are rated at, in TFLOPS.
    pub(crate) rating: Growing,
}

/// A sum of rates, each from its own time on.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Growing {
    rate: u128,
    /// The rates times when each began.
    begun: u128,
}

/// The tasks of one array.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tasks {
    /// Those that hold GPUs.
    pub(crate) live: u32,
    /// Those that are not over.
    pub(crate) unfinished: u32,
}

impl Indexes {
    /// The indexes of these jobs.
    pub(crate) fn of<J: Borrow<Job>>(jobs: impl Iterator<Item = J>) -> Self {
        let mut indexes = Self::default();
        jobs.for_each(|job| indexes.add(job.borrow()));
        indexes
    }

    /// Takes a job in.
    pub(crate) fn add(&mut self, job: &Job) {
        if job.state == JobState::Pending {
            self.pending.insert((job.order(), job.id));
            let line = line(job);
            self.lines
                .entry(line)
                .or_default()
                .insert((job.order(), job.id));
            self.journal.note(Change::Line(line));
            self.queued.insert((job.queued_ms, job.id));
            if holds_credentials(job) {
                self.credentials.insert(job.id);
            }
            if job.standing.freed.is_some() {
                self.promised.insert(job.id);
            }
        }
        match job.ended_ms {
            Some(ended_ms) => _ = self.ended.insert((ended_ms, job.id)),
            None => _ = self.staged.insert(job.spec.staging, job.id),
        }
        if let Some(attempt) = job.live_attempt() {
            let (epoch, worker) = (attempt.epoch, attempt.worker);
            self.leases.insert(
                epoch,
                Lease {
                    epoch,
                    job: job.id,
                    attempt: attempt.number,
                    worker,
                },
            );
            for part in attempt.parts() {
                self.journal.note(Change::Worker(part.worker));
                self.on_worker.insert((part.worker, epoch));
                let gpus = part.gpus.iter();
                self.busy
                    .extend(gpus.map(|gpu| ((part.worker, *gpu), epoch)));
            }
            if let (Some(deadline), None) = (attempt.deadline, attempt.stop) {
                self.deadlines.insert((deadline.at_ms, epoch));
            }
        }
        *self.counts.of_mut(job.state) += 1;
        self.detail_bytes += detail_bytes(job);
        if job.ended_ms.is_none() {
            self.use_of(job, true);
        }
    }

    /// Takes a job out, as it is now.
    pub(crate) fn remove(&mut self, job: &Job) {
        if job.state == JobState::Pending {
            self.pending.remove(&(job.order(), job.id));
            let line = line(job);
            self.journal.note(Change::Line(line));
            if let Some(jobs) = self.lines.get_mut(&line) {
                jobs.remove(&(job.order(), job.id));
                if jobs.is_empty() {
                    self.lines.remove(&line);
                }
            }
            self.queued.remove(&(job.queued_ms, job.id));
            if holds_credentials(job) {
                self.credentials.remove(&job.id);
            }
            self.promised.remove(&job.id);
        }
        match job.ended_ms {
            Some(ended_ms) => _ = self.ended.remove(&(ended_ms, job.id)),
            None => _ = self.staged.remove(&job.spec.staging),
        }
        if let Some(attempt) = job.live_attempt() {
            let epoch = attempt.epoch;
            self.leases.remove(&epoch);
            for part in attempt.parts() {
                self.journal.note(Change::Worker(part.worker));
                self.on_worker.remove(&(part.worker, epoch));
                for gpu in part.gpus {
                    self.busy.remove(&(part.worker, *gpu));
                }
            }
            if let Some(deadline) = attempt.deadline {
                self.deadlines.remove(&(deadline.at_ms, epoch));
            }
        }
        *self.counts.of_mut(job.state) -= 1;
        self.detail_bytes -= detail_bytes(job);
        if job.ended_ms.is_none() {
            self.use_of(job, false);
        }
    }

    /// What a team and its parts have in use.
    pub(crate) fn in_use(&self, team: TeamId) -> InUse {
        self.teams.get(&team).copied().unwrap_or_default()
    }

    /// Counts what a job that is not over has in use, or no longer.
    fn use_of(&mut self, job: &Job, adds: bool) {
        let live = job.live_attempt();
        for team in job.teams() {
            let team = self.teams.entry(team).or_default();
            count(&mut team.unfinished, 1, adds);
            count(&mut team.reserved, job.standing.reserved.0.into(), adds);
            if let Some(attempt) = live {
                let (from_ms, price) = (attempt.placed_ms, attempt.price_per_hour);
                count(&mut team.gpus, attempt.gpu_count() as u32, adds);
                team.price
                    .count(price.map_or(0, |price| price.0), from_ms, adds);
                team.rating.count(rating(attempt), from_ms, adds);
            }
        }
        if !adds {
            for team in job.teams() {
                if self.teams.get(&team) == Some(&InUse::default()) {
                    self.teams.remove(&team);
                }
            }
        }
        if let Some(owner) = job.spec.terms.owner {
            let unfinished = self.people.entry(owner.user).or_default();
            count(unfinished, 1, adds);
            if *unfinished == 0 {
                self.people.remove(&owner.user);
            }
        }
        if let Some(part) = job.spec.terms.array {
            let tasks = self.arrays.entry(part.array).or_default();
            count(&mut tasks.unfinished, 1, adds);
            count(&mut tasks.live, u32::from(live.is_some()), adds);
            if *tasks == Tasks::default() {
                self.arrays.remove(&part.array);
            }
        }
        if let (Some(key), Some(attempt)) = (&job.spec.terms.spread, live) {
            for part in attempt.parts() {
                let key = (part.worker, key.clone());
                _ = if adds {
                    self.keys.insert(key)
                } else {
                    self.keys.remove(&key)
                };
            }
        }
    }
}

impl InUse {
    /// The money that is set aside, or as much as there can be.
    pub(crate) fn reserved(&self) -> UsdMicros {
        UsdMicros(u64::try_from(self.reserved).unwrap_or(u64::MAX))
    }
}

impl Growing {
    /// The rate at which it grows.
    pub(crate) fn rate(&self) -> u64 {
        u64::try_from(self.rate).unwrap_or(u64::MAX)
    }

    /// What has come together by then, in units of the rate and milliseconds.
    pub(crate) fn by(&self, now_ms: u64) -> u64 {
        let whole = self.rate.saturating_mul(u128::from(now_ms));
        u64::try_from(whole.saturating_sub(self.begun)).unwrap_or(u64::MAX)
    }

    fn count(&mut self, rate: u64, from_ms: u64, adds: bool) {
        let rate = u128::from(rate);
        let begun = rate * u128::from(from_ms);
        (self.rate, self.begun) = if adds {
            (self.rate.wrapping_add(rate), self.begun.wrapping_add(begun))
        } else {
            (self.rate.wrapping_sub(rate), self.begun.wrapping_sub(begun))
        };
    }
}

/// Counts up or down. What does not fit comes out right again on the way back.
fn count<T: WrappingCount>(number: &mut T, by: T, adds: bool) {
    *number = if adds {
        number.plus(by)
    } else {
        number.minus(by)
    };
}

trait WrappingCount: Copy {
    fn plus(self, by: Self) -> Self;
    fn minus(self, by: Self) -> Self;
}

macro_rules! wrapping_count {
    ($($number:ty),*) => {
        $(impl WrappingCount for $number {
            fn plus(self, by: Self) -> Self {
                self.wrapping_add(by)
            }

            fn minus(self, by: Self) -> Self {
                self.wrapping_sub(by)
            }
        })*
    };
}

wrapping_count!(u32, u128, usize);

/// Whether the leader is believed to hold what a waiting job needs.
fn holds_credentials(job: &Job) -> bool {
    !job.spec.terms.credentials.is_empty() && !job.standing.awaits_credentials
}

fn detail_bytes(job: &Job) -> usize {
    job.attempts
        .iter()
        .map(|attempt| attempt.detail.len())
        .sum()
}
