//! What came of a simulation: completion times, the bound, fairness, money and what was done again.

use std::collections::BTreeMap;

use stepcast_records::{GpuModel, UsdMicros};

use super::Scene;
use crate::ids::JobId;
use crate::model::JobState;
use crate::policy::balance::{Work, balance};
use crate::state::State;

/// What came of it. Times in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// From each job's arrival to its end, in the order of the trace.
    pub completion_s: Vec<f64>,
    /// From each job's arrival to its first start, in the order of the trace.
    pub wait_s: Vec<f64>,
    /// From the first arrival to the last end.
    pub makespan_s: f64,
    /// No scheduler ends earlier than this, by the linear program of [`balance`].
    pub makespan_bound_s: f64,
    /// How fair it was.
    pub fairness: Fairness,
    /// GPUs times hours that they were held.
    pub gpu_hours: f64,
    /// What they cost.
    pub cost: UsdMicros,
    /// The part of all GPU time up to the last end that was held.
    pub utilisation: f64,
    /// Starts of a job beyond its first.
    pub restarts_per_job: f64,
    /// Who held which GPUs when.
    pub spans: Vec<Span>,
}

/// Finish-time fairness (Themis): how long a job took beside what an equal part of the cluster would have taken it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Fairness {
    /// The largest ratio.
    pub worst: f64,
    /// The part of the jobs with a ratio over 1.05.
    pub share_over_1_05: f64,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The job's place in the trace.
    pub row: usize,
    /// The model of its GPUs.
    pub gpu: GpuModel,
    /// The name of the host.
    pub host: String,
    /// Their positions on the host.
    pub gpus: Vec<u8>,
    /// When it began, after the beginning.
    pub from_s: f64,
    /// When it ended, after the beginning.
    pub to_s: f64,
}

/// Arrivals that the bound is tried from at most: each is a linear program.
const BOUNDS_MAX: usize = 64;

impl Outcome {
    /// Reads what came of it from the state in which all jobs are over.
    pub(super) fn of(scene: &Scene, state: &State, jobs: &[JobId], begin_ms: u64) -> Self {
        let second = |ms: u64| ms.saturating_sub(begin_ms) as f64 / 1_000.0;
        let mut outcome = Self {
            completion_s: vec![f64::NAN; jobs.len()],
            wait_s: vec![f64::NAN; jobs.len()],
            makespan_s: 0.0,
            makespan_bound_s: 0.0,
            fairness: Fairness::default(),
            gpu_hours: 0.0,
            cost: UsdMicros(0),
            utilisation: 0.0,
            restarts_per_job: 0.0,
            spans: Vec::new(),
        };
        let mut last_s = 0.0_f64;
        let mut restarts = 0;
        for (row, id) in jobs.iter().enumerate() {
            let Some(job) = state.job(*id) else { continue };
            let arrival_s = scene.jobs()[row].arrival_s;
            if let (JobState::Succeeded, Some(ended_ms)) = (job.state, job.ended_ms) {
                outcome.completion_s[row] = second(ended_ms) - arrival_s;
                last_s = last_s.max(second(ended_ms));
            }
            if let Some(first) = job.attempts.first() {
                outcome.wait_s[row] = (second(first.placed_ms) - arrival_s).max(0.0);
            }
            restarts += job.attempts.len().saturating_sub(1);
            for attempt in &job.attempts {
                let ended_ms = attempt.ended_ms.unwrap_or(attempt.placed_ms);
                let span = Span {
                    row,
                    gpu: attempt.gpu,
                    host: state
                        .worker(attempt.worker)
                        .map_or_else(String::new, |worker| worker.name.to_string()),
                    gpus: attempt.gpus.clone(),
                    from_s: second(attempt.placed_ms),
                    to_s: second(ended_ms),
                };
                outcome.gpu_hours += span.gpus.len() as f64 * (span.to_s - span.from_s) / 3_600.0;
                outcome.spans.push(span);
            }
            outcome.cost.0 = outcome
                .cost
                .0
                .saturating_add(job.cost(state.newest_stamp_ms()).0);
        }
        let first_s = scene
            .jobs()
            .iter()
            .map(|job| job.arrival_s)
            .fold(f64::INFINITY, f64::min);
        outcome.makespan_s = last_s - first_s;
        outcome.makespan_bound_s = bound_s(scene) - first_s;
        outcome.restarts_per_job =
            f64::from(u32::try_from(restarts).unwrap_or(u32::MAX)) / jobs.len() as f64;
        let gpus: u32 = scene.cluster().iter().map(|group| group.count).sum();
        outcome.utilisation = outcome.gpu_hours / (f64::from(gpus) * outcome.makespan_s / 3_600.0);
        outcome.fairness = fairness(scene, &outcome);
        outcome
    }
}

/// When the last job can end at the earliest: whatever comes from some time on takes as long as it takes.
fn bound_s(scene: &Scene) -> f64 {
    let (models, capacity) = capacity(scene);
    let mut arrivals: Vec<f64> = scene.jobs().iter().map(|job| job.arrival_s).collect();
    arrivals.sort_by(f64::total_cmp);
    arrivals.dedup();
    let every = arrivals.len().div_ceil(BOUNDS_MAX);
    let from = arrivals.iter().step_by(every.max(1));
    from.map(|from_s| {
        let rows = (0..scene.jobs().len()).filter(|row| scene.jobs()[*row].arrival_s >= *from_s);
        let work: Vec<Work> = rows
            .map(|row| Work {
                width: f64::from(scene.jobs()[row].scale_factor),
                count: 1.0,
                hours: hours(scene, row, &models),
            })
            .collect();
        from_s + balance(&work, &capacity).horizon * 3_600.0
    })
    .fold(0.0, f64::max)
}

/// The models of a cluster and how many GPUs each has.
fn capacity(scene: &Scene) -> (Vec<GpuModel>, Vec<f64>) {
    let mut gpus: BTreeMap<GpuModel, f64> = BTreeMap::new();
    for group in scene.cluster() {
        *gpus.entry(group.gpu).or_default() += f64::from(group.count);
    }
    gpus.into_iter().unzip()
}

/// What all of a job takes on each model, in hours.
fn hours(scene: &Scene, row: usize, models: &[GpuModel]) -> Vec<f64> {
    let times = scene.times(row);
    let hours = models.iter().map(|gpu| {
        times
            .get(gpu)
            .map_or(f64::INFINITY, |ms| *ms as f64 / 3_600_000.0)
    });
    hours.collect()
}

/// How long jobs took beside an equal part of the cluster, counted by how many jobs were there on average meanwhile.
fn fairness(scene: &Scene, outcome: &Outcome) -> Fairness {
    let (models, capacity) = capacity(scene);
    let there: Vec<(f64, f64)> = (0..scene.jobs().len())
        .map(|row| {
            let from_s = scene.jobs()[row].arrival_s;
            (from_s, from_s + outcome.completion_s[row])
        })
        .collect();
    let counted = Crowd::of(&there);
    let ratios: Vec<f64> = (0..there.len())
        .filter(|row| outcome.completion_s[*row].is_finite())
        .map(|row| {
            let (from_s, to_s) = there[row];
            let jobs = (counted.until(to_s) - counted.until(from_s)) / (to_s - from_s).max(1e-9);
            let width = f64::from(scene.jobs()[row].scale_factor);
            let parts: Vec<f64> = capacity
                .iter()
                .map(|gpus| gpus / (jobs.max(1.0) * width))
                .collect();
            let whole: f64 = parts.iter().sum();
            let scale = if whole > 1.0 { 1.0 / whole } else { 1.0 };
            let speeds = hours(scene, row, &models);
            let speed: f64 = parts
                .iter()
                .zip(&speeds)
                .map(|(part, hours)| part * scale / hours)
                .sum();
            outcome.completion_s[row] / 3_600.0 * speed
        })
        .collect();
    let over = ratios.iter().filter(|ratio| **ratio > 1.05).count();
    Fairness {
        worst: ratios.iter().copied().fold(0.0, f64::max),
        share_over_1_05: over as f64 / ratios.len().max(1) as f64,
    }
}

/// How many jobs were there when, summed up over time.
struct Crowd {
    /// Times at which the number changes, with the sum up to there and the number from there on.
    steps: Vec<(f64, f64, f64)>,
}

impl Crowd {
    fn of(there: &[(f64, f64)]) -> Self {
        let mut changes: Vec<(f64, f64)> = there
            .iter()
            .filter(|(_, to_s)| to_s.is_finite())
            .flat_map(|(from_s, to_s)| [(*from_s, 1.0), (*to_s, -1.0)])
            .collect();
        changes.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut sum, mut count, mut last) = (0.0, 0.0, 0.0);
        let steps = changes.into_iter().map(|(at, change)| {
            sum += count * (at - last);
            count += change;
            last = at;
            (at, sum, count)
        });
        Self {
            steps: steps.collect(),
        }
    }

    fn until(&self, at: f64) -> f64 {
        let next = self.steps.partition_point(|(step, ..)| *step <= at);
        match next.checked_sub(1).map(|last| self.steps[last]) {
            Some((step, sum, count)) => sum + count * (at - step),
            None => 0.0,
        }
    }
}
