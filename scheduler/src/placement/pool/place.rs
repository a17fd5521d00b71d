//! Equal GPUs of the workers of one kind, and the workers in the orders in which they are chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::zip;

use stepcast_records::{GpuModel, Hardware};

use super::slot::{Gpus, Slot};
use crate::model::limits::GPUS_PER_WORKER_MAX;

/// Where in the pool a place is.
pub(in crate::placement) type PlaceId = u32;

/// Equal GPUs of each worker of one kind.
pub(in crate::placement) struct Place {
    /// The kind of its workers.
    pub(super) kind: usize,
    pub(in crate::placement) model: GpuModel,
    /// Which GPUs of each worker they are.
    pub(in crate::placement) gpus: Gpus,
    /// How many of its workers have no price for them.
    unpriced: usize,
    /// How many have which price for one of them.
    prices: BTreeMap<u64, usize>,
    /// GPUs that jobs may have now.
    pub(super) available: u32,
    /// How many workers have so many GPUs that somebody may have.
    widths: [u32; GPUS_PER_WORKER_MAX + 1],
    /// Workers with a GPU that somebody may have: by price, and the fullest of equals first.
    rooms: BTreeSet<(u64, u8, usize)>,
    /// For every number of GPUs that a job takes: workers by when so many are free there, and by how many are missing now.
    /// Few looks ask for it, so it is brought up to date when one does.
    soonest: [BTreeSet<(u64, u8, usize)>; COUNTS],
    /// As what each worker stands there.
    filed: BTreeMap<usize, Filed>,
    /// Workers that may have to stand there otherwise by now.
    unfiled: BTreeSet<usize>,
}

const COUNTS: usize = Hardware::COUNTS.len();

/// When so many GPUs of a worker are free, for each number of them, and how many of them are missing now.
type Filed = [Option<(u64, u8)>; COUNTS];

/// How a worker is found in a place.
#[derive(Clone, Copy)]
pub(super) struct Seat {
    available: u8,
    pub(super) obtainable: u8,
}

impl Place {
    pub(super) const fn new(kind: usize, model: GpuModel, gpus: Gpus) -> Self {
        Self {
            kind,
            model,
            gpus,
            unpriced: 0,
            prices: BTreeMap::new(),
            available: 0,
            widths: [0; GPUS_PER_WORKER_MAX + 1],
            rooms: BTreeSet::new(),
            soonest: [const { BTreeSet::new() }; COUNTS],
            filed: BTreeMap::new(),
            unfiled: BTreeSet::new(),
        }
    }

    /// Whether a worker has its GPUs here.
    pub(in crate::placement) fn is_of(&self, slot: &Slot) -> bool {
        slot.kind == Some(self.kind)
    }

    /// Whether there is a GPU that somebody may have.
    pub(in crate::placement) fn has_room(&self) -> bool {
        !self.rooms.is_empty()
    }

    /// The most GPUs that somebody may have on one worker.
    pub(in crate::placement) fn widest(&self) -> u8 {
        let widest = self.widths.iter().rposition(|workers| *workers > 0);
        widest.unwrap_or(0) as u8
    }

    /// How many workers have at least so many GPUs that somebody may have.
    pub(in crate::placement) fn workers_with(&self, count: u8) -> usize {
        self.widths[usize::from(count).min(GPUS_PER_WORKER_MAX)..]
            .iter()
            .map(|workers| *workers as usize)
            .sum()
    }

    /// The workers that have a GPU for somebody: by price, and the fullest of equals first.
    pub(in crate::placement) fn rooms(&self) -> impl Iterator<Item = usize> {
        self.rooms.iter().map(|(_, _, position)| *position)
    }

    /// Brings [`Self::soonest`] up to date, with all workers of the pool.
    pub(super) fn file(&mut self, slots: &[Slot]) {
        for position in std::mem::take(&mut self.unfiled) {
            if let Some(filed) = self.filed.remove(&position) {
                for (workers, found) in zip(&mut self.soonest, filed) {
                    if let Some((free_ms, missing)) = found {
                        workers.remove(&(free_ms, missing, position));
                    }
                }
            }
            let Some(slot) = slots
                .get(position)
                .filter(|slot| slot.kind == Some(self.kind))
            else {
                continue;
            };
            let filed = Hardware::COUNTS.map(|count| {
                let (free_ms, gpus) = slot.soonest(self.gpus, count, 0)?;
                let missing = count - slot.available(gpus).count_ones() as u8;
                Some((free_ms, missing))
            });
            for (workers, found) in zip(&mut self.soonest, filed) {
                if let Some((free_ms, missing)) = found {
                    workers.insert((free_ms, missing, position));
                }
            }
            self.filed.insert(position, filed);
        }
    }

    /// Workers by when so many GPUs are free there, as the time (0 for now), how many are missing now, and the worker. As
    /// of when [`Pool::file`](super::Pool::file) was called last.
    pub(in crate::placement) fn soonest(
        &self,
        count: u8,
    ) -> impl Iterator<Item = (u64, u8, usize)> {
        let at = Hardware::COUNTS.iter().position(|known| *known == count);
        at.into_iter()
            .flat_map(|at| self.soonest[at].iter().copied())
    }

    /// Counts a worker's price, which takes new work from now on.
    pub(super) fn join(&mut self, slot: &Slot) {
        match slot.price(self.model) {
            None => self.unpriced += 1,
            Some(price) => *self.prices.entry(price).or_default() += 1,
        }
    }

    /// Counts it no longer.
    pub(super) fn leave(&mut self, slot: &Slot) {
        match slot.price(self.model) {
            None => self.unpriced -= 1,
            Some(price) => {
                if let Some(count) = self.prices.get_mut(&price) {
                    *count -= 1;
                    if *count == 0 {
                        self.prices.remove(&price);
                    }
                }
            }
        }
    }

    /// Whether one of its workers has no price for them.
    pub(super) const fn has_unpriced(&self) -> bool {
        self.unpriced > 0
    }

    /// The least price of one of them, in micro-dollars an hour.
    pub(super) fn least_price(&self) -> Option<u64> {
        self.prices.keys().next().copied()
    }

    /// Makes a worker be found here.
    pub(super) fn show(&mut self, position: usize, slot: &Slot) -> Seat {
        let available = slot.available(self.gpus).count_ones() as u8;
        let obtainable = slot.obtainable(self.gpus).count_ones() as u8;
        self.available += u32::from(available);
        self.widths[usize::from(obtainable)] += 1;
        if obtainable > 0 {
            self.rooms
                .insert(room(slot.price(self.model), available, position));
        }
        self.unfiled.insert(position);
        Seat {
            available,
            obtainable,
        }
    }

    /// Makes a worker be found here no longer.
    pub(super) fn hide(&mut self, position: usize, slot: &Slot, seat: Seat) {
        self.available -= u32::from(seat.available);
        self.widths[usize::from(seat.obtainable)] -= 1;
        if seat.obtainable > 0 {
            let price = slot.price(self.model);
            self.rooms.remove(&room(price, seat.available, position));
        }
        self.unfiled.insert(position);
    }
}

/// What has no price is chosen last: nobody knows what it costs.
fn room(price: Option<u64>, available: u8, position: usize) -> (u64, u8, usize) {
    (price.unwrap_or(u64::MAX), available, position)
}
