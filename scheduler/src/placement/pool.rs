//! The GPUs of every worker as one look at the queue sees them: free, taken by jobs ahead, or kept for one of them.
//!
//! It is kept from one look to the next and told which workers have changed. Equal GPUs of workers of one kind are a place,
//! and each place knows its workers in the order in which they are chosen, so that nothing has to go through all of them.
//! What a look takes is given back at its end.

mod folders;
mod place;
mod slot;

use std::collections::{BTreeMap, BTreeSet};

use stepcast_records::GpuModel;

use super::feasible::{Needs, Purse};
use crate::ids::{JobId, WorkerId};
use crate::model::limits::GPUS_PER_WORKER_MAX;
use crate::model::{Attempt, Inventory, Worker};
use crate::state::State;
use folders::Folders;
pub(super) use place::{Place, PlaceId};
pub(super) use slot::{Gpus, Slot, of_model, positions, used};

/// Every worker.
#[derive(Default)]
pub(super) struct Pool {
    /// By id.
    pub(super) slots: Vec<Slot>,
    /// Workers that offer the same: what fits one fits all of its kind.
    kinds: Vec<Kind>,
    by_inventory: BTreeMap<u128, usize>,
    pub(super) places: Vec<Place>,
    /// Where there is a GPU that somebody may have.
    roomy: BTreeSet<PlaceId>,
    /// How many GPUs there are that somebody may have, now or when another yields.
    room: u32,
    /// Workers that are not as their state says, since a look takes something there.
    touched: Vec<usize>,
    /// Kinds that somebody has joined or left since it was asked, and whether there was anybody before.
    turned: BTreeMap<usize, bool>,
    /// Which workers share their results.
    pub(super) folders: Folders,
}

/// Workers that take new work and offer the same, whatever they cost and wherever they put results.
#[derive(Default)]
struct Kind {
    /// What each of them offers, without a price and a folder.
    offered: Option<Inventory>,
    /// Where in [`Pool::places`] the GPUs of each model are.
    places: Vec<PlaceId>,
    members: BTreeSet<usize>,
}

/// The workers are no longer those that there were: who has kept a pool begins anew.
pub(super) struct Gone;

impl Pool {
    /// The workers of a state.
    pub(super) fn of(state: &State) -> Self {
        let mut pool = Self::default();
        for worker in state.workers() {
            pool.admit(state, worker);
        }
        pool
    }

    /// Has a worker be what the state says of it by now.
    ///
    /// # Errors
    /// It is gone, and others are no longer where they were.
    pub(super) fn refresh(&mut self, state: &State, id: WorkerId) -> Result<(), Gone> {
        let known = self.position(id);
        match (state.worker(id), known) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(Gone),
            (Some(worker), Some(position)) => {
                if !self.stays(position, worker) {
                    self.leave(position);
                    self.slots[position] = Slot::of(state, worker);
                    self.join(position, worker);
                    return Ok(());
                }
                self.hide(position);
                self.slots[position].refresh(state, worker);
                self.show(position);
                Ok(())
            }
            (Some(_), None) if self.slots.last().is_some_and(|last| last.id > id) => Err(Gone),
            (Some(worker), None) => {
                self.admit(state, worker);
                Ok(())
            }
        }
    }

    /// The kinds that have got their first worker or lost their last since this was asked before.
    pub(super) fn turned(&mut self) -> Vec<usize> {
        let turned = std::mem::take(&mut self.turned).into_iter();
        let turned = turned.filter(|(kind, was)| self.kinds[*kind].members.is_empty() == *was);
        turned.map(|(kind, _)| kind).collect()
    }

    /// The places of a kind.
    pub(super) fn places_of(&self, kind: usize) -> &[PlaceId] {
        &self.kinds[kind].places
    }

    /// The workers of a place that take new work, by position.
    pub(super) fn members_at(&self, place: PlaceId) -> impl Iterator<Item = usize> {
        let kind = self.places[place as usize].kind;
        self.kinds[kind].members.iter().copied()
    }

    /// The places where jobs with these needs may run, busy or not.
    pub(super) fn places_for(&self, state: &State, needs: Needs<'_>) -> Vec<PlaceId> {
        let kinds = 0..self.kinds.len();
        kinds
            .flat_map(|kind| self.places_in(kind, state, needs))
            .collect()
    }

    /// Those of one kind.
    pub(super) fn places_in(&self, kind: usize, state: &State, needs: Needs<'_>) -> Vec<PlaceId> {
        let kind = &self.kinds[kind];
        // The first of a kind speaks for all; a kind that everybody has left is none.
        let first = kind
            .members
            .first()
            .map(|position| self.slots[*position].id);
        let worker = first.and_then(|id| state.worker(id));
        let models = worker
            .and_then(|worker| needs.fit(worker).ok())
            .unwrap_or_default();
        let fits = |place: &&PlaceId| models.contains(&self.places[**place as usize].model);
        kind.places.iter().filter(fits).copied().collect()
    }

    /// What one GPU of a place costs at least an hour, in micro-dollars, of what a purse pays for so many; 1 without a
    /// price, so that such places are told apart by time alone.
    pub(super) fn least_price(&self, place: PlaceId, purse: Purse, count: u8) -> Option<f64> {
        let place = &self.places[place as usize];
        if place.has_unpriced() && purse.pays(None).is_ok() {
            return Some(1.0);
        }
        let one = place.least_price()?;
        let whole = one.saturating_mul(u64::from(count));
        purse.pays(Some(stepcast_records::UsdMicros(whole))).ok()?;
        Some((one as f64).max(1.0))
    }

    /// Whether there is a GPU left for anybody.
    pub(super) const fn has_room(&self) -> bool {
        self.room > 0
    }

    /// How many GPUs there are that somebody may have, now or when another yields.
    pub(super) const fn room(&self) -> u32 {
        self.room
    }

    /// The places with a GPU that somebody may have.
    pub(super) fn roomy(&self) -> impl ExactSizeIterator<Item = PlaceId> {
        self.roomy.iter().copied()
    }

    /// The GPU models of the workers that take new work, each once and in order.
    pub(super) fn models(&self) -> Vec<GpuModel> {
        let there = self
            .places
            .iter()
            .filter(|place| !self.kinds[place.kind].members.is_empty());
        there
            .map(|place| place.model)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// How many GPUs of a model there are on workers that take new work.
    pub(super) fn count_of(&self, model: GpuModel) -> u32 {
        let places = self.places.iter().filter(|place| place.model == model);
        places
            .map(|place| place.gpus.count_ones() * self.kinds[place.kind].members.len() as u32)
            .sum()
    }

    /// How many GPUs of a model a job may have now.
    pub(super) fn free_of(&self, model: GpuModel) -> u32 {
        let places = self.places.iter().filter(|place| place.model == model);
        places.map(|place| place.available).sum()
    }

    /// On how many workers a job may have so many GPUs of a model, in some places, now or when others yield.
    pub(super) fn workers_with(&self, places: &[PlaceId], model: GpuModel, count: u8) -> usize {
        let places = places.iter().map(|place| &self.places[*place as usize]);
        let on_model = places.filter(|place| place.model == model);
        on_model.map(|place| place.workers_with(count)).sum()
    }

    /// Has places say when GPUs are free there, as it is now.
    pub(super) fn file(&mut self, places: &[PlaceId]) {
        for place in places {
            self.places[*place as usize].file(&self.slots);
        }
    }

    /// Where an attempt on one host is.
    pub(super) fn place_of(&self, attempt: &Attempt) -> Option<(usize, Gpus)> {
        let position = self.position(attempt.worker)?;
        Some((position, slot::used(attempt)))
    }

    /// Gives GPUs to a job until `free_ms`.
    pub(super) fn take(&mut self, position: usize, job: JobId, gpus: Gpus, free_ms: u64) {
        self.change(position, |slot| slot.take(job, gpus, free_ms));
    }

    /// Keeps GPUs for a job: nothing behind it gets them.
    pub(super) fn keep(&mut self, position: usize, job: JobId, gpus: Gpus) {
        self.change(position, |slot| slot.keep(job, gpus));
    }

    /// Keeps them no longer.
    pub(super) fn give_up(&mut self, position: usize, gpus: Gpus) {
        self.change(position, |slot| slot.kept &= !gpus);
    }

    /// Says of GPUs in use whether they may be had, by who may make their users yield.
    pub(super) fn yields(&mut self, position: usize, gpus: Gpus, yields: bool) {
        self.change(position, |slot| {
            if yields {
                slot.yielding |= gpus;
            } else {
                slot.yielding &= !gpus;
            }
        });
    }

    /// Has everything be as the state says again.
    pub(super) fn give_back(&mut self) {
        for position in std::mem::take(&mut self.touched) {
            self.hide(position);
            self.slots[position].give_back();
            self.show(position);
        }
    }

    fn change(&mut self, position: usize, change: impl FnOnce(&mut Slot)) {
        self.hide(position);
        let slot = &mut self.slots[position];
        if !std::mem::replace(&mut slot.is_touched, true) {
            self.touched.push(position);
        }
        change(slot);
        self.show(position);
    }

    /// Whether a worker is of the kind it was of, at the price and with the folder that it had.
    fn stays(&self, position: usize, worker: &Worker) -> bool {
        let slot = &self.slots[position];
        let inventory = &worker.inventory;
        let is_of_kind = |kind: usize| {
            let offered = &self.kinds[kind].offered;
            offered.as_ref().is_some_and(|offered| {
                offered.gpus == inventory.gpus
                    && offered.trainers == inventory.trainers
                    && offered.labels == inventory.labels
                    && offered.address.is_some() == inventory.address.is_some()
            })
        };
        let is_same = slot.costs_as(worker) && slot.outputs == inventory.outputs;
        worker.takes_work() && is_same && slot.kind.is_some_and(is_of_kind)
    }

    fn admit(&mut self, state: &State, worker: &Worker) {
        let position = self.slots.len();
        self.slots.push(Slot::of(state, worker));
        self.join(position, worker);
    }

    /// Counts a worker among those of its kind, if it takes new work.
    fn join(&mut self, position: usize, worker: &Worker) {
        if !worker.takes_work() {
            return;
        }
        let kind = self.kind_of(worker);
        let known = &mut self.kinds[kind];
        self.turned.entry(kind).or_insert(!known.members.is_empty());
        known.members.insert(position);
        for place in &known.places {
            self.places[*place as usize].join(&self.slots[position]);
        }
        let models = models_in(known, &self.places);
        let slot = &mut self.slots[position];
        self.folders.join(slot.outputs, position, models);
        slot.kind = Some(kind);
        self.show(position);
    }

    /// No longer counts a worker among those of its kind.
    fn leave(&mut self, position: usize) {
        self.hide(position);
        let slot = &mut self.slots[position];
        let Some(kind) = slot.kind.take() else {
            return;
        };
        let known = &mut self.kinds[kind];
        self.turned.entry(kind).or_insert(!known.members.is_empty());
        known.members.remove(&position);
        for place in &known.places {
            self.places[*place as usize].leave(&self.slots[position]);
        }
        let models = models_in(known, &self.places);
        let outputs = self.slots[position].outputs;
        self.folders.leave(outputs, position, models);
    }

    fn kind_of(&mut self, worker: &Worker) -> usize {
        let offered = Inventory {
            price_per_gpu_hour: None,
            outputs: None,
            ..worker.inventory.clone()
        };
        // Where a worker is reached does not matter, but that it is.
        let is_reached = offered.address.is_some();
        let hash = match postcard::to_extend(&(&offered, is_reached), Vec::with_capacity(128)) {
            Ok(bytes) => xxhash_rust::xxh3::xxh3_128(&bytes),
            // Memory grows as needed and every length is known beforehand, so there is nothing left that could fail.
            Err(error) => unreachable!("an inventory is always encodable: {error}"),
        };
        if let Some(kind) = self.by_inventory.get(&hash) {
            return *kind;
        }
        let kind = self.kinds.len();
        self.by_inventory.insert(hash, kind);
        let mut models: BTreeMap<GpuModel, Gpus> = BTreeMap::new();
        for (position, gpu) in worker
            .inventory
            .gpus
            .iter()
            .take(GPUS_PER_WORKER_MAX)
            .enumerate()
        {
            *models.entry(*gpu).or_default() |= 1 << position;
        }
        let first = self.places.len() as PlaceId;
        let last = first + models.len() as PlaceId;
        let places = models
            .into_iter()
            .map(|(model, gpus)| Place::new(kind, model, gpus));
        self.places.extend(places);
        self.kinds.push(Kind {
            offered: Some(offered),
            places: (first..last).collect(),
            ..Kind::default()
        });
        kind
    }

    /// Makes a worker be found by what it has.
    fn show(&mut self, position: usize) {
        let slot = &mut self.slots[position];
        let Some(kind) = slot.kind else {
            return;
        };
        let mut seats = std::mem::take(&mut slot.seats);
        let slot = &self.slots[position];
        for place in &self.kinds[kind].places {
            let known = &mut self.places[*place as usize];
            let seat = known.show(position, slot);
            self.room += u32::from(seat.obtainable);
            if known.has_room() {
                self.roomy.insert(*place);
            }
            seats.push(seat);
        }
        if seats.iter().any(|seat| seat.obtainable > 0) {
            self.folders.open(slot.outputs, true);
        }
        self.slots[position].seats = seats;
    }

    /// Makes a worker be found no longer.
    fn hide(&mut self, position: usize) {
        let slot = &mut self.slots[position];
        let Some(kind) = slot.kind else {
            return;
        };
        let mut seats = std::mem::take(&mut slot.seats);
        let slot = &self.slots[position];
        if seats.iter().any(|seat| seat.obtainable > 0) {
            self.folders.open(slot.outputs, false);
        }
        for (place, seat) in self.kinds[kind].places.iter().zip(seats.drain(..)) {
            let known = &mut self.places[*place as usize];
            known.hide(position, slot, seat);
            self.room -= u32::from(seat.obtainable);
            if !known.has_room() {
                self.roomy.remove(place);
            }
        }
        // Empty, and with its room kept for what comes next.
        self.slots[position].seats = seats;
    }

    /// The GPUs of a worker that are in a place; `None` if it has none there.
    pub(super) fn gpus_at(&self, place: PlaceId, position: usize) -> Option<Gpus> {
        let place = &self.places[place as usize];
        (self.slots[position].kind == Some(place.kind)).then_some(place.gpus)
    }

    /// Where a worker is, if it is there.
    pub(super) fn position(&self, worker: WorkerId) -> Option<usize> {
        self.slots
            .binary_search_by_key(&worker, |slot| slot.id)
            .ok()
    }
}

/// The models of a kind.
fn models_in<'a>(kind: &'a Kind, places: &'a [Place]) -> impl Iterator<Item = GpuModel> + 'a {
    let places = kind.places.iter().map(|place| &places[*place as usize]);
    places.map(|place| place.model)
}
