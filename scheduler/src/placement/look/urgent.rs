//! Running jobs make room for waiting ones of a higher priority that find no other place: the policy `for-priority`.
//!
//! Whose work is lost least yields, within what each job is left in peace for and how often it may be asked. What was freed
//! goes to whom it was freed for: [`promises`](super::promises).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Entry, LINE_LOOKED_AT};
use super::{Look, Yielding};
use crate::command::Preemption;
use crate::ids::{Epoch, JobId};
use crate::model::limits::GPUS_PER_WORKER_MAX;
use crate::model::{Attempt, Job};
use crate::placement::feasible::Needs;
use crate::placement::ledger::SetAside;
use crate::placement::left::{Left, lost_ms};
use crate::placement::pool::{Gpus, positions, used};
use crate::placement::reason::Reason;
use crate::placement::survey::Crowd;

/// Jobs that others make room for in one look: with eight GPUs each they ask as many to yield as one command may name.
const URGENT_MAX: usize = 32;

/// Lines of the highest priority in which they are looked for.
const LINES_LOOKED_AT: usize = 4 * URGENT_MAX;

/// Workers of one model that are looked at for one job: those with the lowest priority that has run longest.
const WORKERS_LOOKED_AT: usize = 64;

/// Running attempts of one model that are looked through for those workers.
const ATTEMPTS_LOOKED_AT: usize = 4_096;

/// How a job gets room.
struct Room<'a> {
    slot: usize,
    /// What is left of it there.
    left: Left,
    /// What it gets: free already, or taken back.
    gpus: Gpus,
    /// Who yields for it.
    yields: Vec<(&'a Job, &'a Attempt)>,
}

impl<'a> Look<'a> {
    pub(super) fn yields_to_priority(&self) -> bool {
        self.policy.preemption == Yielding::ForPriority && self.state.format() >= 3
    }

    /// Has running jobs yield to the first of those that still wait, where these have a higher priority.
    pub(super) fn make_room(&mut self) {
        if !self.yields_to_priority() || self.plan.placements.len() >= self.max {
            return;
        }
        let crowd = self.crowd.take();
        let mut asked = BTreeSet::new();
        // Who may yield to one priority is the same for all who have it.
        let mut below = BTreeMap::new();
        for job in self.urgent_jobs(crowd.as_ref()) {
            // What those before it will need may be all that was left.
            if self.ledger.held(job).is_some() {
                continue;
            }
            let entry = self.urgent(job);
            let models = 0..self.models.len();
            let finds = models.clone().any(|model| {
                let left = entry.left[model];
                left.is_some_and(|left| self.choose(job, self.models[model], &left).is_some())
            });
            // What it could have and did not take is not worth it to its owner now.
            if finds {
                continue;
            }
            let kept = self.kept_for.remove(&job.id);
            if let Some((slot, gpus)) = kept {
                self.pool.give_up(slot, gpus);
            }
            let mut least_room = |anew: bool| {
                let rooms = models.clone().filter_map(|model| {
                    let priority = job.spec.priority;
                    let hosts = below
                        .entry((model, priority))
                        .or_insert_with(|| self.hosts_below(crowd.as_ref(), model, priority));
                    self.room(&entry, (model, anew), hosts, &asked)
                });
                rooms.min_by(|(a, _), (b, _)| a.total_cmp(b))
            };
            // Nobody yields for what is done again, unless there is nothing else and it does not wait for its checkpoint.
            let least = least_room(false).or_else(|| {
                let may_begin_anew = self.has_home(job) && !self.has_waited(job);
                may_begin_anew.then(|| least_room(true)).flatten()
            });
            match (least, kept) {
                (Some((_, room)), _) => self.clear(job, &room, &mut asked),
                (None, Some((slot, gpus))) => self.pool.keep(slot, job.id, gpus),
                (None, None) => {}
            }
        }
        self.crowd = crowd;
    }

    /// The waiting jobs with a higher priority than something that runs, the highest first: of each line the first that
    /// has got nothing.
    fn urgent_jobs(&self, crowd: Option<&Crowd>) -> Vec<&'a Job> {
        let state = self.state;
        let lowest = match crowd {
            Some(crowd) => crowd.runs.lowest_priority(),
            None => {
                let live = state.leases().filter_map(|lease| state.open_job(lease.job));
                live.map(|job| job.spec.priority).min()
            }
        };
        let Some(lowest) = lowest else {
            return Vec::new();
        };
        let first = |jobs: &BTreeSet<(i64, JobId)>| {
            for (_, id) in jobs.iter().take(LINE_LOOKED_AT) {
                let job = state.open_job(*id)?;
                // A job on several hosts has nobody yield, nor has any other of its line.
                if job.spec.hosts() > 1 {
                    return None;
                }
                if self.settled.contains(id) {
                    continue;
                }
                match self.ledger.held(job) {
                    None => return Some(job).filter(|job| job.spec.priority > lowest),
                    // What holds one of a line for this holds all of it.
                    Some(Reason::ArrayFull | Reason::QuotaFull) => return None,
                    Some(_) => {}
                }
            }
            None
        };
        let mut jobs: Vec<&'a Job> = match crowd {
            Some(Crowd { queue, .. }) => {
                let lines = queue.in_order();
                let lines = lines.take_while(|(priority, _)| *priority > lowest);
                let lines = lines.take(LINES_LOOKED_AT);
                let lines = lines.filter_map(|(_, line)| state.line(queue.line(line).line));
                lines.filter_map(first).collect()
            }
            None => state.lines().filter_map(|(_, jobs)| first(jobs)).collect(),
        };
        jobs.sort_by_key(|job| urgency(job));
        jobs.truncate(URGENT_MAX);
        jobs
    }

    /// Workers on which something of a lower priority runs on a model, as positions in the pool: the lowest priority first,
    /// and of one what has run longest.
    fn hosts_below(&self, crowd: Option<&Crowd>, model: usize, priority: i8) -> Vec<usize> {
        let state = self.state;
        let below: Vec<Box<dyn Iterator<Item = Epoch> + '_>> = match crowd {
            Some(Crowd { runs, .. }) => {
                let priorities = runs.priorities_below(model, priority);
                let of = |of| Box::new(runs.of_priority(model, of)) as Box<dyn Iterator<Item = _>>;
                priorities.map(of).collect()
            }
            None => {
                let live = state
                    .leases()
                    .filter_map(|lease| state.live_attempt(lease.epoch));
                let below = live.filter(|(job, attempt)| {
                    job.spec.priority < priority && attempt.gpu == self.models[model]
                });
                let mut epochs: BTreeMap<i8, BTreeSet<Epoch>> = BTreeMap::new();
                for (job, attempt) in below {
                    let of = epochs.entry(job.spec.priority).or_default();
                    of.insert(attempt.epoch);
                }
                let of = |of: BTreeSet<_>| Box::new(of.into_iter()) as Box<dyn Iterator<Item = _>>;
                epochs.into_values().map(of).collect()
            }
        };
        let mut seen = BTreeSet::new();
        let mut hosts = Vec::new();
        let mut looked_at = 0;
        for epochs in below {
            for epoch in epochs {
                if looked_at == ATTEMPTS_LOOKED_AT || hosts.len() == WORKERS_LOOKED_AT {
                    return hosts;
                }
                looked_at += 1;
                let Some((job, attempt)) = state.live_attempt(epoch) else {
                    continue;
                };
                // It is left in peace yet, and so are those that came after it.
                let peace_ms = attempt.placed_ms.saturating_add(self.policy.min_run_ms);
                if peace_ms > self.now_ms {
                    break;
                }
                if self.may_yield_to(job, attempt, priority)
                    && seen.insert(attempt.worker)
                    && let Some(position) = self.pool.position(attempt.worker)
                {
                    hosts.push(position);
                }
            }
        }
        hosts
    }

    /// Whether an attempt may be asked to yield to something of this priority.
    fn may_yield_to(&self, job: &Job, attempt: &Attempt, priority: i8) -> bool {
        job.spec.priority < priority
            // What was placed a moment ago was placed for good reason.
            && attempt.placed_ms < self.now_ms
            && self.state.may_preempt(job.id, attempt.epoch, self.now_ms)
    }

    /// The room on some of these workers that costs the least work, and what it costs. Workers on which the job begins anew
    /// although it has a checkpoint are asked only where that is said.
    fn room(
        &self,
        entry: &Entry<'a>,
        (model, anew): (usize, bool),
        hosts: &[usize],
        asked: &BTreeSet<Epoch>,
    ) -> Option<(f64, Room<'a>)> {
        let job = entry.job;
        let left = entry.left[model]?;
        let places = self.places.get(&Needs::of(job))?;
        let count = usize::from(job.spec.gpu_count);
        let mut best: Option<(f64, Room<'a>)> = None;
        for position in hosts {
            let slot = &self.pool.slots[*position];
            if !anew && self.begins_anew(job, slot) {
                continue;
            }
            let gpus = places.iter().find_map(|place| {
                let is_model = self.pool.places[*place as usize].model == self.models[model];
                is_model.then(|| self.pool.gpus_at(*place, *position))?
            });
            let Some(gpus) =
                gpus.filter(|_| self.may_have(job, (*position, self.models[model]), Some(&left)))
            else {
                continue;
            };
            let free = slot.available(gpus);
            let missing = count.saturating_sub(free.count_ones() as usize);
            if missing == 0 {
                continue;
            }
            let attempts = self.state.live_attempts_on(slot.id);
            let may: Vec<(&'a Job, &'a Attempt)> = attempts
                .filter(|(other, attempt)| {
                    self.may_yield_to(other, attempt, job.spec.priority)
                        && used(attempt) & !(gpus & !slot.kept) == 0
                        && !asked.contains(&attempt.epoch)
                })
                .collect();
            let losses = may.iter().map(|(other, attempt)| {
                let width = attempt.gpus.len();
                let lost_ms = lost_ms(self.forecast, other, attempt, &self.policy, self.now_ms);
                (width, lost_ms * width as f64)
            });
            let Some((lost_ms, who)) = cheapest(losses, missing) else {
                continue;
            };
            if best.as_ref().is_some_and(|(least, _)| *least <= lost_ms) {
                continue;
            }
            let is_one = |(at, one)| (who >> at & 1 == 1).then_some(one);
            let yields: Vec<_> = may.into_iter().enumerate().filter_map(is_one).collect();
            let freed = yields.iter().fold(0, |gpus, (_, one)| gpus | used(one));
            if let Some(gpus) = chosen(freed, free, count) {
                let left = self.left_on(job, slot, self.models[model], left);
                let slot = *position;
                let room = Room {
                    slot,
                    left,
                    gpus,
                    yields,
                };
                best = Some((lost_ms, room));
            }
        }
        best
    }

    /// Asks those to yield who make room for a job, and keeps the room.
    fn clear(&mut self, job: &'a Job, room: &Room<'a>, asked: &mut BTreeSet<Epoch>) {
        for (yields, attempt) in &room.yields {
            self.plan.preemptions.push(Preemption {
                job: yields.id,
                epoch: attempt.epoch,
                for_job: Some(job.id),
            });
            asked.insert(attempt.epoch);
            self.wanted.push((room.slot, used(attempt), job.id));
        }
        let stop: Vec<&Job> = room.yields.iter().map(|(job, _)| *job).collect();
        self.has_room(job, (room.slot, room.gpus), room.left, &stop);
    }

    /// Keeps what a job gets as soon as some others have stopped, and what it will need of its team's and its array's
    /// limits: else others would stop for more than may start.
    pub(super) fn has_room(
        &mut self,
        job: &'a Job,
        (slot, gpus): (usize, Gpus),
        left: Left,
        stop: &[&Job],
    ) -> SetAside {
        self.pool.keep(slot, job.id, gpus);
        self.settled.insert(job.id);
        if self.until == Some(job.id) {
            self.kept_until_ms = Some(self.now_ms);
        }
        self.set_aside(job, (slot, gpus), left, stop)
    }

    /// Sets aside what a job needs on GPUs of a worker once some others have stopped.
    pub(super) fn set_aside(
        &mut self,
        job: &'a Job,
        (slot, gpus): (usize, Gpus),
        left: Left,
        stop: &[&Job],
    ) -> SetAside {
        let price = self.price_of(&[(slot, gpus)], job.spec.gpu_count);
        let slot = &self.pool.slots[slot];
        let run_ms_p90 = left.forecast().map(|left| left.run_ms_p90);
        self.ledger.set_aside(job, stop, slot.id, price, run_ms_p90)
    }

    pub(super) fn urgent(&mut self, job: &'a Job) -> Entry<'a> {
        let (left, price) = self.everywhere(job, |look, model| look.left_at_best(job, model));
        Entry {
            job,
            runs: None,
            work: 0,
            left,
            price,
        }
    }
}

/// Who has the first turn: the highest priority, and then the order of the queue.
pub(super) fn urgency(job: &Job) -> (Reverse<i8>, i64, JobId) {
    (Reverse(job.spec.priority), job.order(), job.id)
}

/// So many GPUs, of the first ones before the others.
pub(super) fn chosen(first: Gpus, others: Gpus, count: usize) -> Option<Gpus> {
    let all = positions(first).chain(positions(others & !first));
    let gpus = all.take(count).fold(0, |gpus: Gpus, at| gpus | 1 << at);
    (gpus.count_ones() as usize == count).then_some(gpus)
}

/// Of attempts with so many GPUs each that would lose so much, those who lose the least for so many GPUs that are missing:
/// how much that is, and who they are, a bit for each. `None` if all are too few.
fn cheapest(all: impl Iterator<Item = (usize, f64)>, missing: usize) -> Option<(f64, u16)> {
    // The same for every smaller number, by how many are found.
    let mut found = vec![None; missing + 1];
    found[0] = Some((0.0, 0));
    for (position, (width, lost)) in all.take(GPUS_PER_WORKER_MAX).enumerate() {
        for before in (0..missing).rev() {
            let Some((least, who)) = found[before] else {
                continue;
            };
            let after = missing.min(before + width);
            let with = least + lost;
            if found[after].is_none_or(|(known, _)| with < known) {
                found[after] = Some((with, who | 1 << position));
            }
        }
    }
    found[missing]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look like chance.
    fn dice(number: u64) -> u64 {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
    }

    #[test]
    fn nobody_else_would_lose_less() {
        for case in 0..500 {
            let count = dice(case) % 9;
            let one = |at: u64| {
                let dice = dice(case * 16 + at);
                ([1, 1, 2, 4][dice as usize % 4], (dice >> 4 & 255) as f64)
            };
            let all: Vec<(usize, f64)> = (1..=count).map(one).collect();
            let missing = 1 + dice(case + 7) as usize % 8;
            let of = |who: u16| {
                let chosen = all.iter().enumerate();
                let chosen = chosen.filter(|(at, _)| who >> at & 1 == 1);
                chosen.fold((0, 0.0), |(gpus, lost), (_, one)| {
                    (gpus + one.0, lost + one.1)
                })
            };
            let enough = (0..1_u16 << count).map(of);
            let enough = enough.filter(|(gpus, _)| *gpus >= missing);
            let least = enough.map(|(_, lost)| lost).min_by(f64::total_cmp);
            let found = cheapest(all.iter().copied(), missing);
            assert_eq!(found.map(|(lost, _)| lost), least, "{all:?} {missing}");
            if let Some((lost, who)) = found {
                let (gpus, told) = of(who);
                assert!(gpus >= missing && told == lost, "{all:?} {missing}");
            }
        }
    }

    #[test]
    fn gpus_are_chosen_of_the_first_before_the_others() {
        assert_eq!(chosen(0b1100, 0b0011, 3), Some(0b1101));
        assert_eq!(chosen(0b1100, 0b1110, 3), Some(0b1110));
        assert_eq!(chosen(0b1100, 0b0100, 3), None);
    }
}
