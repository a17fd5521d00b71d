//! Whether what jobs were told came true: outlooks that are asked for on the way, held against what came.

use std::collections::BTreeMap;

use super::{BEGIN_MS, Outcome, Scene};
use crate::forward::Forward;
use crate::ids::JobId;
use crate::outlook::{Expected, Whom, outlook};

/// What jobs were told when they came.
#[derive(Debug, Clone)]
pub struct Promises {
    /// Every so many moments at which jobs come, the jobs of it ask.
    every: usize,
    moments: usize,
    newest: JobId,
    /// By place in the trace.
    told: BTreeMap<usize, Expected>,
}

/// The parts of the jobs that asked for which a time held: they started, or were done, no later.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Kept {
    /// Jobs that asked.
    pub jobs: usize,
    /// Started no later than in half of the worlds.
    pub start_p50: f64,
    /// Started no later than in nine of ten worlds.
    pub start_p90: f64,
    /// Done no later than in half of the worlds.
    pub finish_p50: f64,
    /// Done no later than in nine of ten worlds.
    pub finish_p90: f64,
}

impl Promises {
    /// Has the jobs ask that come at every so many moments, from the first on.
    #[must_use]
    pub const fn new(every: usize) -> Self {
        Self {
            every: if every == 0 { 1 } else { every },
            moments: 0,
            newest: JobId(0),
            told: BTreeMap::new(),
        }
    }

    /// Has the jobs ask that have come since this was called last, before anybody has looked at them.
    pub fn ask(&mut self, forward: &Forward<'_>, scene: &Scene) {
        let state = forward.state();
        let come: Vec<JobId> = state.jobs_after(self.newest).map(|job| job.id).collect();
        let Some(newest) = come.last() else {
            return;
        };
        self.newest = *newest;
        self.moments += 1;
        if !(self.moments - 1).is_multiple_of(self.every) {
            return;
        }
        let found = outlook(state, scene, forward.now_ms(), Whom::These(&come), &|| 0.0);
        for (job, expected) in found.jobs {
            if let Some(job) = state.open_job(job) {
                self.told.insert(Scene::row(&job.spec), expected);
            }
        }
    }

    /// How much of it came true.
    #[must_use]
    pub fn kept(&self, scene: &Scene, outcome: &Outcome) -> Kept {
        let part = |holds: &dyn Fn(usize, &Expected) -> bool| {
            let held = self.told.iter().filter(|(row, told)| holds(**row, told));
            held.count() as f64 / self.told.len().max(1) as f64
        };
        // Seconds of an outcome are rounded to the millisecond that they were.
        let by = |row: usize, after_s: f64, told_ms: Option<u64>| {
            let arrival_ms = BEGIN_MS + scene.jobs()[row].arrival_ms();
            let came_ms = arrival_ms as f64 + after_s * 1_000.0;
            told_ms.is_some_and(|ms| came_ms <= ms as f64 + 1.0)
        };
        let started = |row: usize| outcome.wait_s[row];
        let done = |row: usize| outcome.completion_s[row];
        Kept {
            jobs: self.told.len(),
            start_p50: part(&|row, told| by(row, started(row), told.start.p50_ms)),
            start_p90: part(&|row, told| by(row, started(row), told.start.p90_ms)),
            finish_p50: part(&|row, told| by(row, done(row), told.finish.p50_ms)),
            finish_p90: part(&|row, told| by(row, done(row), told.finish.p90_ms)),
        }
    }
}
