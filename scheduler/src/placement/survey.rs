//! What is known of a cluster from one look to the next, so that an event costs what it has changed and not all there is.
//!
//! Nothing here is decided: everything follows from the state and the forecasts, and whoever begins anew with the same
//! ones and finds out everything plans the same. The state's journal says what has changed; when it does not reach back
//! far enough, or when policy or models are others, the survey is taken anew. Waiting jobs are found out about in portions
//! (`portion`).

mod classes;
mod due;
mod line;
mod portion;
mod queue;
mod runs;
mod saved;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use stepcast_records::{GpuModel, Hardware};

use super::forecast::ForecastSource;
use super::pool::Pool;
use crate::ids::{OutputsId, WorkerId};
use crate::model::JobSpec;
use crate::policy::{Aim, Policy, Preemption};
use crate::state::{Change, Line, Read, State};
pub(super) use classes::Group;
pub(super) use due::LinePlace;
pub(super) use line::{Known, number, ordered, turn, turn_at};
pub use portion::Portion;
pub(super) use queue::{LineId, Queue};
pub(super) use runs::Runs;

/// Lines of waiting jobs and running attempts that are looked at one by one. With more of them, alike work is taken
/// together to tell what the hardware is worth, and only what could start is looked at.
pub(super) const ONE_BY_ONE: usize = 512;

/// What is known.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) pool: Pool,
    /// The GPU models of the cluster, each once.
    pub(super) models: Vec<GpuModel>,
    /// What waits and runs, where it is too much to be looked at one by one.
    pub(super) crowd: Option<Crowd>,
    read: Read,
    policy: Policy,
    now_ms: u64,
}

/// What waits and runs in a large cluster.
pub(super) struct Crowd {
    pub(super) queue: Queue,
    pub(super) runs: Runs,
}

/// What a survey is taken of.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) state: &'a State,
    pub(super) forecast: &'a dyn ForecastSource,
    pub(super) now_ms: u64,
    /// Which forecasts these are, as they were asked before any other question.
    pub(super) version: Option<u64>,
    /// Up to so many lines and attempts are looked at one by one.
    pub(super) one_by_one: usize,
    /// Of more than that, so many lines are asked about in one look.
    pub(super) portion: Portion,
}

/// What may be asked about a job that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What it asks for.
    pub spec: JobSpec,
    /// Where it could run.
    pub hardware: Vec<Hardware>,
}

impl<'a> Scene<'a> {
    /// All of a state.
    pub(super) fn of(state: &'a State, forecast: &'a dyn ForecastSource, now_ms: u64) -> Self {
        Self {
            state,
            forecast,
            now_ms,
            version: forecast.version(),
            one_by_one: ONE_BY_ONE,
            portion: Portion::ALL,
        }
    }
}

impl Survey {
    /// Brings it up to what is so now.
    pub(super) fn follow(&mut self, scene: Scene<'_>) {
        let state = scene.state;
        let mut workers = BTreeSet::new();
        let mut lines = BTreeSet::new();
        let is_known = match state.read_on(&mut self.read) {
            Some(changes) => {
                for change in changes {
                    match change {
                        Change::Worker(worker) => _ = workers.insert(worker),
                        Change::Line(line) => _ = lines.insert(line),
                    }
                }
                true
            }
            None => false,
        };
        let before = self.folders_of(&workers);
        let stay = |pool: &mut Pool| workers.iter().all(|id| pool.refresh(state, *id).is_ok());
        if !is_known || !stay(&mut self.pool) {
            self.pool = Pool::of(state);
            self.crowd = None;
        }
        let now = self.folders_of(&workers);
        let turned = self.pool.turned();
        let models = self.pool.models();
        // Without a version nothing that was asked before is known to be so still.
        let is_same =
            models == self.models && *state.policy() == self.policy && scene.version.is_some();
        let goes_on = scene.now_ms >= self.now_ms;
        (self.models, self.policy, self.now_ms) = (models, *state.policy(), scene.now_ms);
        if !self.is_crowd(scene) {
            self.crowd = None;
            return;
        }
        let mut crowd = match self.crowd.take().filter(|_| is_same) {
            None => Crowd {
                queue: Queue::of(state),
                runs: Runs::of(state, &self.models),
            },
            Some(mut crowd) => {
                crowd.queue.admit(scene, &self.pool, &turned);
                for line in lines {
                    crowd.queue.update(scene, line);
                }
                if goes_on {
                    for worker in &workers {
                        crowd.runs.refresh(state, &self.models, *worker);
                    }
                } else {
                    crowd.runs = Runs::of(state, &self.models);
                }
                crowd
            }
        };
        let has_gone = |worker, folder| now.get(&worker) != Some(&folder);
        let before = before.into_iter();
        let before = before.map(|(worker, folder)| (folder, has_gone(worker, folder)));
        let after = now.values().map(|folder| (*folder, false));
        let changed: BTreeSet<_> = before.chain(after).collect();
        let folders = changed.iter().map(|(folder, _)| *folder);
        let found = (&self.pool, &self.models[..]);
        crowd
            .queue
            .follow_checkpoints(scene, found, &workers, folders);
        crowd.queue.follow_homes(scene, &self.pool, &changed);
        crowd.queue.find_out(scene, &self.pool, &self.models);
        self.crowd = Some(crowd);
    }

    /// The folders of some workers, as far as they are known.
    fn folders_of(&self, workers: &BTreeSet<WorkerId>) -> BTreeMap<WorkerId, OutputsId> {
        let known = workers.iter().filter_map(|id| {
            let slot = &self.pool.slots[self.pool.position(*id)?];
            Some((*id, slot.outputs?))
        });
        known.collect()
    }

    /// What a portion would ask: jobs, with the hardware that there is for them.
    pub(super) fn questions(&self, state: &State, portion: Portion) -> Vec<Question> {
        let crowd = self.crowd.as_ref();
        let lines = crowd.map_or_else(Vec::new, |crowd| crowd.queue.next_lines(state, portion));
        let question = |line: Line| {
            let (_, first) = state.line(line)?.first()?;
            let spec = state.open_job(*first)?.spec.clone();
            let models = self.models.iter();
            let models = models.filter(|model| spec.allow.is_empty() || spec.allow.contains(model));
            let hardware = models.filter_map(|model| Hardware::new(*model, spec.gpu_count));
            Some((hardware.collect(), spec))
        };
        let questions = lines.into_iter().filter_map(question);
        questions
            .map(|(hardware, spec)| Question { spec, hardware })
            .collect()
    }

    /// Whether there are lines that were not seen, or that may be known by older forecasts.
    pub(super) fn is_behind(&self) -> bool {
        let crowd = self.crowd.as_ref();
        crowd.is_some_and(|crowd| crowd.queue.is_behind())
    }

    /// Whether there is too much to be looked at one by one. Where running jobs yield to what is worth more, each of them
    /// is looked at in any case, and so is each job for a fair share.
    fn is_crowd(&self, scene: Scene<'_>) -> bool {
        let by_stages = matches!(
            self.policy.aim,
            Aim::Balanced | Aim::Makespan | Aim::ShortestRemaining | Aim::Cost
        );
        let state = scene.state;
        by_stages
            && self.policy.preemption != Preemption::Priced
            && state.lines().len() + state.leases().len() > scene.one_by_one
    }
}
