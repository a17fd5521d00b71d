//! What is to be done of jobs that have a checkpoint: what is left of them where some worker has it, and all of them on models
//! where nobody does. When they are due follows from that.
//!
//! A worker that comes, goes, drains or has another folder touches no line, so those with checkpoints are known by the workers
//! that have them and by their folders.

use std::collections::BTreeSet;
use std::sync::Arc;

use stepcast_records::GpuModel;

use super::Scene;
use super::line::Known;
use super::queue::{LineId, Queue};
use crate::ids::{OutputsId, WorkerId};
use crate::model::Job;
use crate::placement::left::Left;
use crate::placement::look::due_ms;
use crate::placement::pool::Pool;
use crate::state::State;

/// The checkpoint of the jobs of a line.
pub(in crate::placement) struct Saved {
    /// The worker that they were saved on.
    on: WorkerId,
    /// Where that puts results, if it is known.
    pub(super) folder: Option<OutputsId>,
    /// On which models some worker may have it, by position.
    there: Vec<bool>,
    /// All of a job on each model.
    pub(super) anew: Arc<[Option<Left>]>,
    /// What is to be done of it on each.
    pub(super) to_do: Arc<[Option<Left>]>,
}

impl Saved {
    /// The checkpoint of a job of which so much is left where that is; `None` without one.
    pub(super) fn of(
        scene: Scene<'_>,
        pool: &Pool,
        models: &[GpuModel],
        (job, left): (&Job, &Arc<[Option<Left>]>),
    ) -> Option<Self> {
        let on = job.checkpoint_on()?;
        let anew = models.iter().zip(left.iter()).map(|(model, left)| {
            left.and_then(|_| Left::anew(scene.forecast, job, *model, scene.state.policy()))
        });
        let mut saved = Self {
            on,
            folder: None,
            there: Vec::new(),
            anew: anew.collect(),
            to_do: Arc::clone(left),
        };
        saved.find(scene.state, pool, models, left);
        Some(saved)
    }

    /// Finds out where it is by now.
    fn find(
        &mut self,
        state: &State,
        pool: &Pool,
        models: &[GpuModel],
        left: &Arc<[Option<Left>]>,
    ) {
        self.folder = folder_of(state, self.on);
        self.there = there(pool, models, self.folder);
        self.to_do = if self.there.iter().all(|is_there| *is_there) {
            Arc::clone(left)
        } else {
            let each = left.iter().zip(self.anew.iter()).zip(&self.there);
            let each = each.map(|((left, anew), is_there)| if *is_there { *left } else { *anew });
            each.collect()
        };
    }
}

/// Where a worker puts results.
fn folder_of(state: &State, worker: WorkerId) -> Option<OutputsId> {
    state.worker(worker)?.inventory.outputs
}

/// On which models a worker may have what is in a folder: one of whom nothing is known may.
fn there(pool: &Pool, models: &[GpuModel], folder: Option<OutputsId>) -> Vec<bool> {
    let may_have = |model: &GpuModel| {
        folder.is_none() || pool.folders.has(folder, *model) || pool.folders.has(None, *model)
    };
    models.iter().map(may_have).collect()
}

/// The lines with checkpoints.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// By the workers that have them.
    on: BTreeSet<(WorkerId, LineId)>,
    /// By their folders.
    within: BTreeSet<(OutputsId, LineId)>,
    /// Models of workers of whom nobody knows where they put results, by position.
    unknown: Vec<bool>,
}

impl Checkpoints {
    pub(super) fn add(&mut self, id: LineId, known: &Known) {
        if let Some(saved) = &known.saved {
            self.on.insert((saved.on, id));
            self.within.extend(saved.folder.map(|folder| (folder, id)));
        }
    }

    pub(super) fn remove(&mut self, id: LineId, known: &Known) {
        if let Some(saved) = &known.saved {
            self.on.remove(&(saved.on, id));
            if let Some(folder) = saved.folder {
                self.within.remove(&(folder, id));
            }
        }
    }

    fn on(&self, worker: WorkerId) -> impl Iterator<Item = LineId> {
        let lines = self.on.range((worker, 0)..=(worker, LineId::MAX));
        lines.map(|(_, id)| *id)
    }

    fn within(&self, folder: OutputsId) -> impl Iterator<Item = LineId> {
        let lines = self.within.range((folder, 0)..=(folder, LineId::MAX));
        lines.map(|(_, id)| *id)
    }
}

impl Queue {
    /// Has lines be due by where their checkpoints are now that these workers, and workers of these folders, have changed.
    pub(super) fn follow_checkpoints(
        &mut self,
        scene: Scene<'_>,
        (pool, models): (&Pool, &[GpuModel]),
        workers: &BTreeSet<WorkerId>,
        folders: impl Iterator<Item = OutputsId>,
    ) {
        let state = scene.state;
        let unknown = models.iter().map(|model| pool.folders.has(None, *model));
        let unknown: Vec<bool> = unknown.collect();
        let mut again = BTreeSet::new();
        if unknown != self.checkpoints.unknown {
            again.extend(self.checkpoints.within.iter().map(|(_, id)| *id));
            self.checkpoints.unknown = unknown;
        }
        let saved = |id: LineId| self.line(id).saved.as_ref();
        // Lines of one worker or folder are alike in this, so that the first of them tells.
        for worker in workers {
            let first = self.checkpoints.on(*worker).next().and_then(saved);
            if first.is_some_and(|first| first.folder != folder_of(state, *worker)) {
                again.extend(self.checkpoints.on(*worker));
            }
        }
        for folder in folders {
            let first = self.checkpoints.within(folder).next().and_then(saved);
            if first.is_some_and(|first| first.there != there(pool, models, Some(folder))) {
                again.extend(self.checkpoints.within(folder));
            }
        }
        for id in again {
            let Some(mut known) = self.known[id as usize].take() else {
                continue;
            };
            self.leave(id, &known);
            if let Some(saved) = &mut known.saved {
                saved.find(state, pool, models, &known.left);
            }
            if let Some(first) = state.open_job(known.head.1) {
                known.due_ms = due_ms(first, known.to_do());
            }
            self.enter(id, &known);
            self.known[id as usize] = Some(known);
        }
    }
}
