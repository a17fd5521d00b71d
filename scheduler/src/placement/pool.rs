//! The GPUs of every worker as one look at the queue sees them: free, taken by jobs ahead, or kept for one of them.

use std::collections::{BTreeMap, BTreeSet};

use stepcast_records::GpuModel;

use crate::ids::{JobId, WorkerId};
use crate::model::limits::GPUS_PER_WORKER_MAX;
use crate::model::{Attempt, Inventory, Worker};
use crate::state::State;

/// GPUs of one worker, a bit for each position.
pub(super) type Gpus = u16;

const _: () = assert!(Gpus::BITS as usize == GPUS_PER_WORKER_MAX);

/// One worker.
pub(super) struct Slot<'a> {
    pub(super) worker: &'a Worker,
    /// Its GPUs that nothing uses.
    pub(super) free: Gpus,
    /// Those of them that jobs ahead take in this look.
    taken: Gpus,
    /// Its GPUs that are used by jobs which may yield them.
    pub(super) yielding: Gpus,
    /// Those that are kept for jobs ahead, free or not.
    pub(super) kept: Gpus,
    /// When each GPU is expected to be free, by stamp; what is free or overdue is so now, and `u64::MAX` is unknown.
    free_ms: [u64; GPUS_PER_WORKER_MAX],
    /// Jobs ahead that take or keep GPUs here.
    pub(super) rivals: Vec<JobId>,
}

/// Every worker.
pub(super) struct Pool<'a> {
    /// By id.
    pub(super) slots: Vec<Slot<'a>>,
    /// The positions of those that take new work, equal ones together: what fits one fits all of its kind.
    pub(super) kinds: Vec<Vec<usize>>,
    /// Workers from the first on that have nothing left.
    spent: usize,
}

impl<'a> Pool<'a> {
    /// The workers of a state.
    pub(super) fn of(state: &'a State, now_ms: u64) -> Self {
        let slots: Vec<_> = state
            .workers()
            .map(|worker| Slot::of(worker, now_ms))
            .collect();
        let kinds = kinds(&slots);
        let mut pool = Self {
            slots,
            kinds,
            spent: 0,
        };
        for (_, attempt) in state
            .leases()
            .filter_map(|lease| state.live_attempt(lease.epoch))
        {
            if let Some(slot) = pool.find(attempt.worker) {
                slot.occupy(attempt, now_ms);
            }
        }
        pool
    }

    /// The workers of a kind, with their positions.
    pub(super) fn of_kind(&self, kind: usize) -> impl Iterator<Item = (usize, &Slot<'a>)> {
        self.kinds[kind]
            .iter()
            .map(|position| (*position, &self.slots[*position]))
    }

    /// Whether there is a GPU left for anybody. GPUs only become fewer during a look, so a worker that has none is not
    /// looked at again.
    pub(super) fn has_room(&mut self) -> bool {
        let has_room =
            |slot: &Slot<'_>| slot.worker.takes_work() && slot.obtainable(Gpus::MAX) != 0;
        while self
            .slots
            .get(self.spent)
            .is_some_and(|slot| !has_room(slot))
        {
            self.spent += 1;
        }
        self.spent < self.slots.len()
    }

    /// The GPU models of the workers that take new work, each once and in order.
    pub(super) fn models(&self) -> Vec<GpuModel> {
        let takes_work = self.slots.iter().filter(|slot| slot.worker.takes_work());
        let models = takes_work.flat_map(|slot| slot.worker.inventory.gpus.iter().copied());
        models.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How many GPUs of a model there are on workers that take new work.
    pub(super) fn count_of(&self, model: GpuModel) -> u32 {
        let takes_work = self.slots.iter().filter(|slot| slot.worker.takes_work());
        takes_work
            .map(|slot| slot.of_model(model).count_ones())
            .sum()
    }

    /// How many GPUs of a model a job may have now.
    pub(super) fn free_of(&self, model: GpuModel) -> u32 {
        let takes_work = self.slots.iter().filter(|slot| slot.worker.takes_work());
        takes_work
            .map(|slot| slot.available(slot.of_model(model)).count_ones())
            .sum()
    }

    /// How many GPUs there are that somebody may have, now or when another yields.
    pub(super) fn room(&self) -> u32 {
        let takes_work = self.slots.iter().filter(|slot| slot.worker.takes_work());
        takes_work
            .map(|slot| slot.obtainable(Gpus::MAX).count_ones())
            .sum()
    }

    /// Where an attempt is.
    pub(super) fn place_of(&self, attempt: &Attempt) -> Option<(usize, Gpus)> {
        let position = self.position(attempt.worker)?;
        let gpus = attempt.gpus.iter().fold(0, |gpus, gpu| gpus | 1 << *gpu);
        Some((position, gpus))
    }

    fn position(&self, worker: WorkerId) -> Option<usize> {
        self.slots
            .binary_search_by_key(&worker, |slot| slot.worker.id)
            .ok()
    }

    fn find(&mut self, worker: WorkerId) -> Option<&mut Slot<'a>> {
        let position = self.position(worker)?;
        self.slots.get_mut(position)
    }
}

impl<'a> Slot<'a> {
    fn of(worker: &'a Worker, now_ms: u64) -> Self {
        Self {
            worker,
            free: all(worker),
            taken: 0,
            yielding: 0,
            kept: 0,
            free_ms: [now_ms; GPUS_PER_WORKER_MAX],
            rivals: Vec::new(),
        }
    }

    /// The GPUs of one model.
    pub(super) fn of_model(&self, model: GpuModel) -> Gpus {
        let gpus = self.worker.inventory.gpus.iter().enumerate();
        gpus.filter(|(_, gpu)| **gpu == model)
            .fold(0, |gpus, (position, _)| gpus | 1 << position)
    }

    /// Those of `gpus` that a job may have now.
    pub(super) fn available(&self, gpus: Gpus) -> Gpus {
        gpus & self.free & !self.taken & !self.kept
    }

    /// Those of `gpus` that a job may have now or once those yield who hold them.
    pub(super) fn obtainable(&self, gpus: Gpus) -> Gpus {
        gpus & (self.free | self.yielding) & !self.taken & !self.kept
    }

    /// Gives GPUs to a job until `free_ms`.
    pub(super) fn take(&mut self, job: JobId, gpus: Gpus, free_ms: u64) {
        self.taken |= gpus;
        self.rivals.push(job);
        for position in positions(gpus) {
            self.free_ms[usize::from(position)] = free_ms;
        }
    }

    /// Keeps GPUs for a job: nothing behind it gets them.
    pub(super) fn keep(&mut self, job: JobId, gpus: Gpus) {
        self.kept |= gpus;
        self.rivals.push(job);
    }

    /// The `count` of `gpus` that are free soonest and not kept for another job, and when the last of them is.
    pub(super) fn soonest(&self, gpus: Gpus, count: u8) -> Option<(u64, Gpus)> {
        let free_ms = |position: u8| self.free_ms[usize::from(position)];
        let mut waited: Vec<u8> = positions(gpus & !self.kept).collect();
        // What is free goes before what is overdue, though both are expected now.
        waited.sort_by_key(|position| (free_ms(*position), self.available(1 << position) == 0));
        let chosen = waited.get(..usize::from(count))?;
        let last = chosen.last().copied().map_or(0, free_ms);
        Some((
            last,
            chosen.iter().fold(0, |gpus, position| gpus | 1 << position),
        ))
    }

    fn occupy(&mut self, attempt: &Attempt, now_ms: u64) {
        for gpu in &attempt.gpus {
            self.free &= !1_u16.checked_shl(u32::from(*gpu)).unwrap_or(0);
            if let Some(free_ms) = self.free_ms.get_mut(usize::from(*gpu)) {
                *free_ms = expected_end_ms(attempt).max(now_ms);
            }
        }
    }
}

fn kinds(slots: &[Slot<'_>]) -> Vec<Vec<usize>> {
    let mut kinds: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (position, slot) in slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| slot.worker.takes_work())
    {
        let Inventory {
            gpus,
            trainers,
            labels,
            price_per_gpu_hour: _,
        } = &slot.worker.inventory;
        kinds
            .entry((gpus, trainers, labels))
            .or_default()
            .push(position);
    }
    kinds.into_values().collect()
}

/// The positions of GPUs, ascending.
pub(super) fn positions(gpus: Gpus) -> impl Iterator<Item = u8> {
    (0..GPUS_PER_WORKER_MAX as u8).filter(move |position| gpus & (1 << position) != 0)
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
