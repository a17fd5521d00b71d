//! One worker's GPUs, a bit for each.

use std::sync::Arc;

use stepcast_records::GpuModel;

use super::place::Seat;
use crate::ids::{JobId, OutputsId, WorkerId};
use crate::model::limits::GPUS_PER_WORKER_MAX;
use crate::model::{Attempt, Freed, Prices, Worker};
use crate::state::State;

/// GPUs of one worker, a bit for each position.
pub(in crate::placement) type Gpus = u16;

const _: () = assert!(Gpus::BITS as usize == GPUS_PER_WORKER_MAX);

/// One worker.
pub(in crate::placement) struct Slot {
    pub(in crate::placement) id: WorkerId,
    /// Its kind, if it takes new work.
    pub(super) kind: Option<usize>,
    /// The folder that it puts results into, if it has said so.
    pub(in crate::placement) outputs: Option<OutputsId>,
    /// What one of its GPUs costs an hour by its own word, in micro-dollars.
    own_price: Option<u64>,
    /// What counts where it has said nothing.
    book: Arc<Prices>,
    /// Its GPUs that nothing uses.
    pub(in crate::placement) free: Gpus,
    /// Those of them that jobs ahead take in this look.
    taken: Gpus,
    /// Its GPUs that are used by jobs which may yield them.
    pub(in crate::placement) yielding: Gpus,
    /// Those that are kept for jobs ahead, free or not.
    pub(in crate::placement) kept: Gpus,
    /// When each GPU is expected to be free, by stamp: 0 for what is, and `u64::MAX` for unknown.
    free_ms: [u64; GPUS_PER_WORKER_MAX],
    /// The same without what this look takes.
    state_ms: [u64; GPUS_PER_WORKER_MAX],
    /// Jobs ahead that take or keep GPUs here.
    pub(in crate::placement) rivals: Vec<JobId>,
    /// How it is found in each place of its kind.
    pub(super) seats: Vec<Seat>,
    /// A look has taken something here.
    pub(super) is_touched: bool,
}

impl Slot {
    /// A worker as its state says.
    pub(super) fn of(state: &State, worker: &Worker) -> Self {
        let mut slot = Self {
            id: worker.id,
            kind: None,
            outputs: worker.inventory.outputs,
            own_price: worker.inventory.price_per_gpu_hour.map(|price| price.0),
            book: Arc::clone(&worker.book),
            free: all(worker),
            taken: 0,
            yielding: 0,
            kept: 0,
            free_ms: [0; GPUS_PER_WORKER_MAX],
            state_ms: [0; GPUS_PER_WORKER_MAX],
            rivals: Vec::new(),
            seats: Vec::new(),
            is_touched: false,
        };
        for (_, attempt) in state.live_attempts_on(worker.id) {
            let used = Freed::on(attempt, worker.id).gpus;
            slot.free &= !used;
            for position in positions(used) {
                slot.state_ms[usize::from(position)] = expected_end_ms(attempt).max(1);
            }
        }
        slot.free_ms = slot.state_ms;
        slot
    }

    /// Has it be as its state says, of the kind that it is of.
    pub(super) fn refresh(&mut self, state: &State, worker: &Worker) {
        let seats = std::mem::take(&mut self.seats);
        *self = Self {
            kind: self.kind,
            seats,
            ..Self::of(state, worker)
        };
    }

    /// What one of its GPUs of a model costs an hour, in micro-dollars.
    pub(in crate::placement) fn price(&self, gpu: GpuModel) -> Option<u64> {
        let said = || self.book.of(gpu).map(|price| price.0);
        self.own_price.or_else(said)
    }

    /// Whether its GPUs cost what the worker says by now.
    pub(super) fn costs_as(&self, worker: &Worker) -> bool {
        let own = worker.inventory.price_per_gpu_hour.map(|price| price.0);
        let is_of_book = |gpu: &GpuModel| self.book.of(*gpu) == worker.book.of(*gpu);
        let is_same = own.is_some() || Arc::ptr_eq(&self.book, &worker.book);
        self.own_price == own && (is_same || worker.inventory.gpus.iter().all(is_of_book))
    }

    /// Those of `gpus` that a job may have now.
    pub(in crate::placement) const fn available(&self, gpus: Gpus) -> Gpus {
        gpus & self.free & !self.taken & !self.kept
    }

    /// Those of `gpus` that a job may have now or once those yield who hold them.
    pub(in crate::placement) const fn obtainable(&self, gpus: Gpus) -> Gpus {
        gpus & (self.free | self.yielding) & !self.taken & !self.kept
    }

    /// The `count` of `gpus` that are free soonest and not kept for another job, and when the last of them is: at `now_ms`
    /// if it is overdue.
    pub(in crate::placement) fn soonest(
        &self,
        gpus: Gpus,
        count: u8,
        now_ms: u64,
    ) -> Option<(u64, Gpus)> {
        let free_ms = |position: u8| self.free_ms[usize::from(position)].max(now_ms);
        let mut waited = [0; GPUS_PER_WORKER_MAX];
        let mut found = 0;
        for position in positions(gpus & !self.kept) {
            waited[found] = position;
            found += 1;
        }
        let waited = &mut waited[..found];
        // What is free goes before what is overdue, though both are expected now.
        waited.sort_by_key(|position| (free_ms(*position), self.available(1 << position) == 0));
        let chosen = waited.get(..usize::from(count))?;
        let last = chosen.last().copied().map_or(0, free_ms);
        Some((
            last,
            chosen.iter().fold(0, |gpus, position| gpus | 1 << position),
        ))
    }

    pub(super) fn take(&mut self, job: JobId, gpus: Gpus, free_ms: u64) {
        self.taken |= gpus;
        self.rivals.push(job);
        for position in positions(gpus) {
            self.free_ms[usize::from(position)] = free_ms;
        }
    }

    pub(super) fn keep(&mut self, job: JobId, gpus: Gpus) {
        self.kept |= gpus;
        self.rivals.push(job);
    }

    pub(super) fn give_back(&mut self) {
        (self.taken, self.yielding, self.kept) = (0, 0, 0);
        self.free_ms = self.state_ms;
        self.rivals.clear();
        self.is_touched = false;
    }
}

/// The GPUs of one model.
pub(in crate::placement) fn of_model(worker: &Worker, model: GpuModel) -> Gpus {
    let gpus = worker.inventory.gpus.iter().enumerate();
    gpus.filter(|(_, gpu)| **gpu == model)
        .fold(0, |gpus, (position, _)| gpus | 1 << position)
}

/// The positions of GPUs, ascending.
pub(in crate::placement) fn positions(gpus: Gpus) -> impl Iterator<Item = u8> {
    (0..GPUS_PER_WORKER_MAX as u8).filter(move |position| gpus & (1 << position) != 0)
}

/// The GPUs of an attempt on one host.
pub(in crate::placement) fn used(attempt: &Attempt) -> Gpus {
    Freed::of(attempt).gpus
}

/// When an attempt is over at the latest, as far as one can tell; `u64::MAX` for unknown.
fn expected_end_ms(attempt: &Attempt) -> u64 {
    let run_ms = attempt.note.run_ms_p90.unwrap_or(u64::MAX);
    let by_forecast = attempt.placed_ms.saturating_add(run_ms);
    attempt
        .deadline
        .map_or(by_forecast, |deadline| by_forecast.min(deadline.at_ms))
}

fn all(worker: &Worker) -> Gpus {
    let count = worker.inventory.gpus.len().min(GPUS_PER_WORKER_MAX);
    (0..count).fold(0, |gpus, position| gpus | 1 << position)
}
