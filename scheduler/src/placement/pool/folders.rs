//! Which workers of a pool put their results into which folder, of those that take new work.

use std::collections::{BTreeMap, BTreeSet};

use stepcast_records::GpuModel;

use crate::ids::OutputsId;

/// The workers by their folders; under `None` those of whom nobody knows where they put results.
#[derive(Default)]
pub(in crate::placement) struct Folders {
    all: BTreeMap<Option<OutputsId>, Folder>,
    /// Those with a worker that has a GPU for somebody.
    roomy: BTreeSet<OutputsId>,
}

/// The workers of one folder.
#[derive(Default)]
struct Folder {
    /// As positions in the pool.
    workers: BTreeSet<usize>,
    /// How many of them have GPUs of a model.
    models: BTreeMap<GpuModel, usize>,
    /// How many of them have a GPU that somebody may have.
    rooms: usize,
}

impl Folders {
    /// Counts a worker in.
    pub(super) fn join(
        &mut self,
        outputs: Option<OutputsId>,
        position: usize,
        models: impl Iterator<Item = GpuModel>,
    ) {
        let folder = self.all.entry(outputs).or_default();
        folder.workers.insert(position);
        models.for_each(|model| *folder.models.entry(model).or_default() += 1);
    }

    /// Counts it no longer.
    pub(super) fn leave(
        &mut self,
        outputs: Option<OutputsId>,
        position: usize,
        models: impl Iterator<Item = GpuModel>,
    ) {
        let Some(folder) = self.all.get_mut(&outputs) else {
            return;
        };
        folder.workers.remove(&position);
        if folder.workers.is_empty() {
            self.all.remove(&outputs);
            return;
        }
        for model in models {
            if let Some(count) = folder.models.get_mut(&model) {
                *count -= 1;
            }
        }
    }

    /// The workers of a folder, as positions in the pool.
    pub(in crate::placement) fn workers(
        &self,
        outputs: Option<OutputsId>,
    ) -> impl Iterator<Item = usize> {
        let folder = self.all.get(&outputs);
        folder
            .into_iter()
            .flat_map(|folder| folder.workers.iter().copied())
    }

    /// How many they are.
    pub(in crate::placement) fn count(&self, outputs: Option<OutputsId>) -> usize {
        self.all
            .get(&outputs)
            .map_or(0, |folder| folder.workers.len())
    }

    /// Whether it is known of all workers where they put results, and there are several folders.
    pub(in crate::placement) fn are_known_apart(&self) -> bool {
        self.all.len() > 1 && !self.all.contains_key(&None)
    }

    /// Says of a worker of a folder that it has a GPU for somebody, or no longer.
    pub(super) fn open(&mut self, outputs: Option<OutputsId>, is_open: bool) {
        let Some(folder) = self.all.get_mut(&outputs) else {
            return;
        };
        if is_open {
            folder.rooms += 1;
            self.roomy.extend(outputs);
            return;
        }
        folder.rooms -= 1;
        if let Some(outputs) = outputs.filter(|_| folder.rooms == 0) {
            self.roomy.remove(&outputs);
        }
    }

    /// Whether a worker of a folder has a GPU that somebody may have.
    pub(in crate::placement) fn has_room(&self, outputs: OutputsId) -> bool {
        self.roomy.contains(&outputs)
    }

    /// The folders of such workers, of those that are known.
    pub(in crate::placement) fn roomy(&self) -> impl ExactSizeIterator<Item = OutputsId> {
        self.roomy.iter().copied()
    }

    /// Whether one of them has GPUs of a model.
    pub(in crate::placement) fn has(&self, outputs: Option<OutputsId>, model: GpuModel) -> bool {
        let folder = self.all.get(&outputs);
        folder.is_some_and(|folder| folder.models.get(&model).is_some_and(|count| *count > 0))
    }
}
