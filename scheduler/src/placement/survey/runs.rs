//! What running jobs still need, all of one width on one model together.

use std::collections::{BTreeMap, BTreeSet};

use stepcast_records::GpuModel;

use crate::ids::{Epoch, WorkerId};
use crate::model::{Attempt, Job};
use crate::placement::left::{GUESSED_MS, OVERDUE};
use crate::policy::balance::Work;
use crate::state::State;

/// The running attempts.
#[derive(Default)]
pub(in crate::placement) struct Runs {
    by_worker: BTreeMap<WorkerId, Vec<Run>>,
    /// By model, as its position, and width.
    sums: BTreeMap<(usize, u8), Sum>,
    /// By model and priority, those that have run longest first.
    by_priority: BTreeSet<(usize, i8, Epoch)>,
}

/// An attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Run {
    epoch: Epoch,
    model: usize,
    width: u8,
    priority: i8,
    /// When half of such attempts are over, by stamp.
    ends_ms: u64,
    /// How long they run.
    run_ms: u64,
}

/// Attempts of one width on one model.
#[derive(Default)]
struct Sum {
    /// Those that are expected to run on, by when they end, with how long they run.
    ahead: BTreeSet<(u64, Epoch, u64)>,
    /// The sum of when they end.
    ends_ms: u128,
    /// Those that run longer than was expected.
    overdue: BTreeMap<Epoch, u64>,
    /// The sum of how long those were expected to run.
    overdue_ms: u128,
}

impl Runs {
    /// The attempts of a state.
    pub(super) fn of(state: &State, models: &[GpuModel]) -> Self {
        let mut runs = Self::default();
        for worker in state.workers() {
            runs.refresh(state, models, worker.id);
        }
        runs
    }

    /// Has the attempts on a worker be what they are by now.
    pub(super) fn refresh(&mut self, state: &State, models: &[GpuModel], worker: WorkerId) {
        // A gang counts where its first part is.
        let live = state.live_attempts_on(worker);
        let live = live.filter(|(_, attempt)| attempt.worker == worker);
        let runs: Vec<Run> = live
            .filter_map(|(job, attempt)| Run::of(job, attempt, models))
            .collect();
        let before = self.by_worker.remove(&worker).unwrap_or_default();
        // Most of them run on: who is in both stays as it is.
        for run in before.iter().filter(|run| !runs.contains(run)) {
            self.remove(*run);
        }
        for run in runs.iter().filter(|run| !before.contains(run)) {
            self.add(*run);
        }
        if !runs.is_empty() {
            self.by_worker.insert(worker, runs);
        }
    }

    fn add(&mut self, run: Run) {
        self.by_priority
            .insert((run.model, run.priority, run.epoch));
        let sum = self.sums.entry((run.model, run.width));
        sum.or_default().add(run);
    }

    fn remove(&mut self, run: Run) {
        self.by_priority
            .remove(&(run.model, run.priority, run.epoch));
        let key = (run.model, run.width);
        if let Some(sum) = self.sums.get_mut(&key) {
            sum.remove(run);
            if sum.count() == 0 {
                self.sums.remove(&key);
            }
        }
    }

    /// The lowest priority of any of them.
    pub(in crate::placement) fn lowest_priority(&self) -> Option<i8> {
        let mut lowest: Option<i8> = None;
        let mut from = 0;
        while let Some((model, priority, _)) =
            self.by_priority.range((from, i8::MIN, Epoch(0))..).next()
        {
            lowest = Some(lowest.map_or(*priority, |lowest| lowest.min(*priority)));
            from = model + 1;
        }
        lowest
    }

    /// The priorities of those on a model that are below another, the lowest first.
    pub(in crate::placement) fn priorities_below(
        &self,
        model: usize,
        priority: i8,
    ) -> impl Iterator<Item = i8> {
        let next = move |from: i8| {
            let below = (model, from, Epoch(0))..(model, priority, Epoch(0));
            self.by_priority.range(below).next().map(|(_, of, _)| *of)
        };
        std::iter::successors(next(i8::MIN), move |last| next(last + 1))
    }

    /// Those on a model with a priority, those that have run longest first.
    pub(in crate::placement) fn of_priority(
        &self,
        model: usize,
        priority: i8,
    ) -> impl Iterator<Item = Epoch> {
        let all = (model, priority, Epoch(0))..=(model, priority, Epoch(u64::MAX));
        self.by_priority.range(all).map(|(_, _, epoch)| *epoch)
    }

    /// What they still need at `now_ms`: of each width and model the longest, and the rest together. Time goes on from one
    /// call to the next.
    pub(in crate::placement) fn work(&mut self, models: usize, now_ms: u64) -> Vec<Work> {
        let mut work = Vec::new();
        for ((model, width), sum) in &mut self.sums {
            let mut add = |count: u64, ms: f64| {
                let mut hours = vec![f64::INFINITY; models];
                hours[*model] = ms.max(1.0);
                work.push(Work {
                    width: f64::from(*width),
                    count: count as f64,
                    hours,
                });
            };
            let (count, whole_ms, longest_ms) = sum.left(now_ms);
            add(1, longest_ms);
            if count > 1 {
                add(
                    count - 1,
                    (whole_ms - longest_ms).max(0.0) / (count - 1) as f64,
                );
            }
        }
        work
    }
}

impl Run {
    /// As the planner said when it was placed.
    fn of(job: &Job, attempt: &Attempt, models: &[GpuModel]) -> Option<Self> {
        let model = models.binary_search(&attempt.gpu).ok()?;
        let run_ms = attempt.note.run_ms_p50.unwrap_or(GUESSED_MS as u64);
        Some(Self {
            epoch: attempt.epoch,
            model,
            priority: job.spec.priority,
            width: u8::try_from(attempt.gpu_count()).unwrap_or(u8::MAX),
            ends_ms: attempt.placed_ms.saturating_add(run_ms),
            run_ms,
        })
    }
}

impl Sum {
    fn count(&self) -> usize {
        self.ahead.len() + self.overdue.len()
    }

    fn add(&mut self, run: Run) {
        self.ahead.insert((run.ends_ms, run.epoch, run.run_ms));
        self.ends_ms += u128::from(run.ends_ms);
    }

    fn remove(&mut self, run: Run) {
        if self.ahead.remove(&(run.ends_ms, run.epoch, run.run_ms)) {
            self.ends_ms -= u128::from(run.ends_ms);
        } else if let Some(run_ms) = self.overdue.remove(&run.epoch) {
            self.overdue_ms -= u128::from(run_ms);
        }
    }

    /// How many there are, what they need together and the longest of them, in milliseconds.
    fn left(&mut self, now_ms: u64) -> (u64, f64, f64) {
        while let Some((ends_ms, epoch, run_ms)) = self.ahead.first().copied()
            && ends_ms <= now_ms
        {
            self.ahead.pop_first();
            self.ends_ms -= u128::from(ends_ms);
            self.overdue.insert(epoch, run_ms);
            self.overdue_ms += u128::from(run_ms);
        }
        let ahead_ms = self.ends_ms - u128::from(now_ms) * self.ahead.len() as u128;
        let longest_ms = self
            .ahead
            .last()
            .map_or(0, |(ends_ms, ..)| ends_ms - now_ms);
        let whole_ms = ahead_ms as f64 + self.overdue_ms as f64 * OVERDUE;
        (self.count() as u64, whole_ms, longest_ms as f64)
    }
}
