//! What a job would get, and gangs: GPUs on several hosts at once, or none.
//!
//! Of the hosts where enough is free a gang takes those that are best together: it is as slow as the slowest of them and
//! costs what all of them cost. Nobody is asked to yield for it, and it yields to nobody.

use std::collections::BTreeMap;

use stepcast_records::{GpuModel, UsdMicros};

use super::target::PASSED_LOOKED_AT;
use super::taste::{price_of, worth};
use super::{DEARER_LOOKED_AT, Look};
use crate::command::{Placement, PlacementNote, Seat};
use crate::model::{Job, Objective, Worker};
use crate::placement::feasible::{self, Needs, Purse};
use crate::placement::left::Left;
use crate::placement::pool::{Gpus, Slot, positions};
use crate::placement::reason::{Reason, Tier};

/// What a job would get.
#[derive(Clone)]
pub(super) struct Choice {
    pub(super) slot: usize,
    pub(super) gpus: Gpus,
    /// All of them are free now.
    pub(super) is_free: bool,
    /// What a gang would get on other hosts, by rank from 1.
    pub(super) others: Seats,
}

/// Where a gang would have GPUs: a worker's position and which of its GPUs, by rank.
pub(super) type Seats = Vec<(usize, Gpus)>;

/// How many hosts a gang needs at once, and how many of one model there are for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::placement) struct Hosts {
    pub(in crate::placement) needed: usize,
    /// Could hold a part of it, free or not.
    pub(in crate::placement) able: usize,
    /// Of these, are neither lost nor draining.
    pub(in crate::placement) staying: usize,
    /// Have enough free now.
    pub(in crate::placement) free: usize,
    /// Are kept from it by something that no end of other jobs changes, such as its team's budget, and what that is of the
    /// first of them.
    held: (usize, Option<Reason>),
}

impl Choice {
    /// All of it, by rank.
    pub(super) fn seats(&self) -> Seats {
        let first = std::iter::once((self.slot, self.gpus));
        first.chain(self.others.iter().copied()).collect()
    }
}

impl<'a> Look<'a> {
    /// The best hosts for a gang on one model, if enough is free on as many.
    pub(super) fn choose_gang(
        &mut self,
        job: &'a Job,
        model: GpuModel,
        left: &Left,
    ) -> Option<Choice> {
        let (count, hosts) = (job.spec.gpu_count, usize::from(job.spec.hosts()));
        let places = self.places(job);
        if self.pool.workers_with(&places, model, count) < hosts {
            return None;
        }
        let failed = self.failed(job);
        let most = hosts + DEARER_LOOKED_AT + failed.as_ref().map_or(0, |failed| failed.workers());
        let places = places
            .iter()
            .map(|place| &self.pool.places[*place as usize]);
        let mut rooms = Vec::new();
        for place in places.filter(|place| place.model == model) {
            // They come by price, and the fullest of equals first.
            let here = place.rooms().filter_map(|position| {
                let slot = &self.pool.slots[position];
                let free = slot.available(place.gpus);
                let enough = free.count_ones() >= u32::from(count);
                let fits = enough && self.may_have(job, (position, model), Some(left));
                let times = failed.as_ref().map_or(0, |failed| failed.times(slot.id));
                let rank = (
                    slot.price(model).unwrap_or(u64::MAX),
                    free.count_ones(),
                    position,
                );
                fits.then(|| Room {
                    failed: times,
                    rank,
                    gpus: first_of(free, count),
                    longer: self.drift(slot.id),
                    price: price_of(slot, model),
                })
            });
            rooms.extend(here.take(most));
        }
        rooms.sort_unstable_by_key(|room| (room.failed, room.rank));
        let chosen = best_of(&rooms, hosts, job.spec.objective)?;
        let mut seats = chosen.into_iter().map(|room| (room.rank.2, room.gpus));
        let (slot, gpus) = seats.next()?;
        Some(Choice {
            slot,
            gpus,
            is_free: true,
            others: seats.collect(),
        })
    }

    /// What a job gets, with what is expected of it there.
    pub(super) fn placement(&self, job: &Job, choice: &Choice, left: Left) -> Option<Placement> {
        let seats = choice.seats();
        let workers = self.workers_of(&seats);
        let price = self.price_of(&seats, job.spec.gpu_count);
        let note = left
            .forecast()
            .map_or_else(PlacementNote::default, |forecast| forecast.note(price));
        let mut seats = workers.iter().zip(&seats).map(|(worker, (_, gpus))| Seat {
            worker: worker.id,
            gpus: positions(*gpus).collect(),
        });
        let Seat { worker, gpus } = seats.next()?;
        Some(Placement {
            job: job.id,
            attempt: job.next_attempt(),
            worker,
            gpus,
            note,
            others: seats.collect(),
        })
    }

    /// Whether price, limits and where it failed to start let a job run on GPUs of a worker, busy or not; of a gang, as if all of its
    /// hosts cost as much, so that nobody has to look for hosts of which one is cheap enough to pay for another.
    pub(super) fn may_have(
        &self,
        job: &Job,
        (position, gpu): (usize, GpuModel),
        left: Option<&Left>,
    ) -> bool {
        let Some(worker) = self.worker(&self.pool.slots[position]) else {
            return false;
        };
        let price = worker.price_per_hour(gpu, job.spec.gpus().into());
        let forecast = left.and_then(|left| left.forecast());
        let run_ms_p90 = forecast.map(|left| left.run_ms_p90);
        let pays = Purse::of(job, self.now_ms).pays(price).is_ok();
        let may_start = pays && !self.is_kept_off(job, &self.pool.slots[position]);
        may_start && self.ledger.allows(job, [worker], price, run_ms_p90).is_ok()
    }

    /// The hosts that a gang would have soonest, all of one model, and when the last of them is free.
    pub(super) fn target_gang(
        &mut self,
        job: &'a Job,
        is_wanted: impl Fn(GpuModel) -> bool,
    ) -> Option<(Seats, u64)> {
        let places = self.places(job);
        self.pool.file(&places);
        let mut models: Vec<GpuModel> = places
            .iter()
            .map(|place| self.pool.places[*place as usize].model)
            .filter(|model| is_wanted(*model))
            .collect();
        models.sort_unstable();
        models.dedup();
        let targets = models
            .into_iter()
            .filter_map(|model| self.target_on(job, model));
        let best = targets.min_by_key(|(key, _)| *key);
        best.map(|((free_ms, ..), seats)| (seats, free_ms))
    }

    /// The same on one model, by when all of it is free, how many GPUs are missing now, and the worker of the last part.
    fn target_on(&mut self, job: &'a Job, model: GpuModel) -> Option<((u64, u32, usize), Seats)> {
        let (count, hosts) = (job.spec.gpu_count, usize::from(job.spec.hosts()));
        let places = self.places(job);
        let places = places
            .iter()
            .map(|place| &self.pool.places[*place as usize]);
        let mut found = Vec::new();
        for place in places.filter(|place| place.model == model) {
            let (mut here, mut passed) = (0, 0);
            for (free_ms, missing, position) in place.soonest(count) {
                let is_later = free_ms > self.now_ms;
                if passed > PASSED_LOOKED_AT || here >= hosts && (is_later || free_ms == 0) {
                    break;
                }
                passed += usize::from(free_ms > 0 && !is_later);
                if !self.may_have(job, (position, model), None) {
                    passed += 1;
                    continue;
                }
                let slot = &self.pool.slots[position];
                if let Some((_, gpus)) = slot.soonest(place.gpus, count, self.now_ms) {
                    found.push((free_ms.max(self.now_ms), missing, position, gpus));
                    here += 1;
                }
            }
        }
        found.sort_unstable();
        found.truncate(hosts);
        let (free_ms, _, last, _) = *found.last().filter(|_| found.len() == hosts)?;
        let missing = found
            .iter()
            .map(|(_, missing, ..)| u32::from(*missing))
            .sum();
        let seats = found
            .into_iter()
            .map(|(_, _, position, gpus)| (position, gpus));
        Some(((free_ms, missing, last), seats.collect()))
    }

    /// What is against a gang on each worker, in their order, where it would start, and how many hosts there are for it.
    ///
    /// Where it starts nothing is against it. If it starts nowhere, what would be free waits for the others; and if there
    /// are never as many hosts of one model, no worker could ever hold it.
    pub(in crate::placement) fn reasons(
        &self,
        job: &Job,
        placement: Option<&Placement>,
    ) -> (Vec<Reason>, Hosts) {
        let mut reasons: Vec<Reason> = self
            .pool
            .slots
            .iter()
            .map(|slot| match self.reason(job, slot) {
                // What is kept for it is kept from others.
                Reason::Reserved | Reason::TakenNow if slot.rivals.contains(&job.id) => {
                    Reason::Free
                }
                reason => reason,
            })
            .collect();
        let mut on_model: BTreeMap<GpuModel, Hosts> = BTreeMap::new();
        let needed = usize::from(job.spec.hosts());
        let none = Hosts {
            needed,
            able: 0,
            staying: 0,
            free: 0,
            held: (0, None),
        };
        for (slot, reason) in self.pool.slots.iter().zip(&reasons) {
            for model in self.models_for(job, slot, *reason) {
                let hosts = on_model.entry(model).or_insert(none);
                hosts.able += 1;
                hosts.staying += usize::from(!matches!(reason, Reason::Lost | Reason::Draining));
                hosts.free += usize::from(*reason == Reason::Free);
                if reason.tier() == Tier::Held {
                    hosts.held.0 += 1;
                    hosts.held.1.get_or_insert(*reason);
                }
            }
        }
        let starts = |slot: &Slot| {
            placement
                .is_some_and(|placement| placement.seats().any(|(worker, _)| worker == slot.id))
        };
        let is_held = self.ledger.held(job).is_some();
        for (slot, reason) in self.pool.slots.iter().zip(&mut reasons) {
            if starts(slot) {
                *reason = Reason::Free;
                continue;
            }
            let models = self.models_for(job, slot, *reason);
            let with = models.iter().filter_map(|model| on_model.get(model));
            let Some(most) = with.max_by_key(|hosts| (hosts.able, hosts.staying, hosts.free))
            else {
                continue;
            };
            *reason = match *reason {
                _ if most.able < needed => Reason::TooFewHosts,
                Reason::Free if placement.is_some() => Reason::Free,
                // Nothing is against it but what holds the job everywhere.
                Reason::Free if is_held && most.free >= needed => Reason::Free,
                Reason::Free if most.staying < needed => Reason::OthersAway,
                // There are too few others that only have to become free.
                Reason::Free => match most.held {
                    (held, Some(reason)) if most.staying - held < needed => reason,
                    _ => Reason::OthersBusy,
                },
                reason => reason,
            };
        }
        let most = on_model
            .into_values()
            .max_by_key(|hosts| (hosts.able, hosts.free));
        let hosts = most.unwrap_or(none);
        (reasons, hosts)
    }

    /// The models on which a worker could ever hold a part of a gang.
    fn models_for(&self, job: &Job, slot: &Slot, reason: Reason) -> Vec<GpuModel> {
        let worker = self.worker(slot).filter(|_| reason.tier() != Tier::Never);
        let models = worker.map(|worker| Needs::of(job).fit(worker).unwrap_or_default());
        models.unwrap_or_default()
    }

    /// What so many GPUs on each of these seats cost an hour together.
    pub(super) fn price_of(&self, seats: &[(usize, Gpus)], count: u8) -> Option<UsdMicros> {
        let workers = self.workers_of(seats);
        let (first, (_, gpus)) = (workers.first()?, seats.first()?);
        let at = usize::from(positions(*gpus).next()?);
        let model = *first.inventory.gpus.get(at)?;
        feasible::price_per_hour(workers.iter().copied(), model, count)
    }

    /// The workers of seats, by rank.
    pub(super) fn workers_of(&self, seats: &[(usize, Gpus)]) -> Vec<&'a Worker> {
        let slots = seats
            .iter()
            .map(|(position, _)| &self.pool.slots[*position]);
        slots.filter_map(|slot| self.worker(slot)).collect()
    }
}

/// The first `count` of GPUs.
fn first_of(gpus: Gpus, count: u8) -> Gpus {
    let first = positions(gpus).take(usize::from(count));
    first.fold(0, |gpus, position| gpus | 1 << position)
}

/// Enough free GPUs of a host for a part of a gang.
#[derive(Clone, Copy)]
struct Room {
    /// How often it was not started there.
    failed: u8,
    /// The price of a GPU, how many are free, and the worker's position: of hosts that are as fast the least is best.
    rank: (u64, u32, usize),
    gpus: Gpus,
    /// How much longer it takes than others with the same GPUs.
    longer: u32,
    price: f64,
}

/// The hosts that are best for a gang together, of those that there are by their ranks: the cheapest of those that are no
/// slower than some pace, at the pace that is best for the gang's owner; but before that those where it failed to start least
/// often.
fn best_of(rooms: &[Room], hosts: usize, objective: Objective) -> Option<Vec<Room>> {
    let mut paces: Vec<u32> = rooms.iter().map(|room| room.longer).collect();
    paces.sort_unstable();
    paces.dedup();
    let sets = paces.into_iter().filter_map(|pace| {
        let within = rooms.iter().filter(|room| room.longer <= pace);
        let set: Vec<Room> = within.take(hosts).copied().collect();
        let slowest = set.iter().map(|room| room.longer).max()?;
        let price = set.iter().map(|room| room.price).sum();
        let failed: u32 = set.iter().map(|room| u32::from(room.failed)).sum();
        (set.len() == hosts).then(|| (failed, worth(objective, slowest, price), set))
    });
    let best = sets.min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    best.map(|(_, _, set)| set)
}
