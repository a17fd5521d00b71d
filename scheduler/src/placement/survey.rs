//! What is known of a cluster from one look to the next, so that an event costs what it has changed and not all there is.
//!
//! Nothing here is decided: everything follows from the state and the forecasts, and whoever begins anew with the same
//! ones plans the same. The state's journal says what has changed; when it does not reach back far enough, when forecasts
//! or policy are others, or when time runs backwards, the survey is taken anew.

mod classes;
mod line;
mod queue;
mod runs;

use std::collections::BTreeSet;

use stepcast_records::GpuModel;

use super::forecast::ForecastSource;
use super::pool::Pool;
use crate::policy::{Aim, Policy, Preemption};
use crate::state::{Change, Read, State};
pub(super) use classes::Group;
pub(super) use line::{Known, ordered, turn, turn_at};
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
    forecasts: Option<u64>,
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
    /// Up to so many lines and attempts are looked at one by one.
    pub(super) one_by_one: usize,
}

impl Survey {
    /// Brings it up to what is so now.
    pub(super) fn follow(&mut self, scene: Scene<'_>) {
        let Scene {
            state, forecast, ..
        } = scene;
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
        let stay = |pool: &mut Pool| workers.iter().all(|id| pool.refresh(state, *id).is_ok());
        if !is_known || !stay(&mut self.pool) {
            self.pool = Pool::of(state);
            self.crowd = None;
        }
        let turned = self.pool.turned();
        let models = self.pool.models();
        let forecasts = forecast.version();
        let is_same = models == self.models
            && *state.policy() == self.policy
            && forecasts.is_some()
            && forecasts == self.forecasts
            && scene.now_ms >= self.now_ms;
        (self.models, self.policy, self.forecasts) = (models, *state.policy(), forecasts);
        self.now_ms = scene.now_ms;
        if !self.is_crowd(scene) {
            self.crowd = None;
            return;
        }
        match self.crowd.take().filter(|_| is_same) {
            None => {
                self.crowd = Some(Crowd {
                    queue: Queue::of(scene, &self.pool, &self.models),
                    runs: Runs::of(state, &self.models),
                });
            }
            Some(mut crowd) => {
                crowd.queue.admit(scene, &self.pool, &self.models, &turned);
                for line in lines {
                    crowd.queue.update(scene, &self.pool, &self.models, line);
                }
                for worker in workers {
                    crowd.runs.refresh(state, &self.models, worker);
                }
                self.crowd = Some(crowd);
            }
        }
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
