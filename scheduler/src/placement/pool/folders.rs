//! Which workers of a pool put their results into which folder, of those that take new work.

use std::collections::{BTreeMap, BTreeSet};

use stepcast_records::GpuModel;

use crate::ids::OutputsId;

/// The workers by their folders; under `None` those of whom nobody knows where they put results.
#[derive(Default)]
pub(in crate::placement) struct Folders(BTreeMap<Option<OutputsId>, Folder>);

/// The workers of one folder.
#[derive(Default)]
struct Folder {
    /// As positions in the pool.
    workers: BTreeSet<usize>,
    /// How many of them have GPUs of a model.
    models: BTreeMap<GpuModel, usize>,
}

impl Folders {
    /// Counts a worker in.
    pub(super) fn join(
        &mut self,
        outputs: Option<OutputsId>,
        position: usize,
        models: impl Iterator<Item = GpuModel>,
    ) {
        let folder = self.0.entry(outputs).or_default();
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
        let Some(folder) = self.0.get_mut(&outputs) else {
            return;
        };
        folder.workers.remove(&position);
        if folder.workers.is_empty() {
            self.0.remove(&outputs);
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
        let folder = self.0.get(&outputs);
        folder
            .into_iter()
            .flat_map(|folder| folder.workers.iter().copied())
    }

    /// How many they are.
    pub(in crate::placement) fn count(&self, outputs: Option<OutputsId>) -> usize {
        self.0
            .get(&outputs)
            .map_or(0, |folder| folder.workers.len())
    }

    /// Whether one of them has GPUs of a model.
    pub(in crate::placement) fn has(&self, outputs: Option<OutputsId>, model: GpuModel) -> bool {
        let folder = self.0.get(&outputs);
        folder.is_some_and(|folder| folder.models.get(&model).is_some_and(|count| *count > 0))
    }
}
