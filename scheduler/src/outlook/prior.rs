//! What runs tell of each other: a forecast far from what the others suggest is likelier wrong than right.
//!
//! Work goes first, and there, where its forecast is lowest, which is more often than not where it is too low. So every
//! forecast is drawn to what is common: how long jobs are, and how much longer they take on one model than on another
//! (shrinkage of two effects, with variances by the method of moments; Efron and Morris, 1973). The wider a forecast, the
//! further it is drawn; one that is certain stays.

use std::collections::BTreeMap;

use stepcast_records::{GpuModel, Hardware};

use super::normal::NINTH_DECILE;
use crate::model::{Job, JobSpec, JobState};
use crate::placement::{Forecast, ForecastSource};
use crate::state::State;

/// Jobs that are looked at: more say nothing new.
const JOBS_MAX: usize = 1_000;

/// Jobs below which nothing is common.
const JOBS_MIN: usize = 8;

/// What is common to runs. Everything is in logarithms of milliseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Prior {
    /// The models of the cluster, with how much longer runs take on each than on all of them on average.
    models: BTreeMap<GpuModel, f64>,
    /// How long jobs are.
    mean: f64,
    /// How far jobs are from that, squared.
    lengths: f64,
    /// How far a job on one model is from what is common to the two, squared.
    tastes: f64,
    /// There are too few jobs to tell.
    is_unknown: bool,
}

/// What is believed of a run: the logarithm of its time is normal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Belief {
    /// The mean of the logarithm.
    pub(super) mean: f64,
    /// Its standard deviation.
    pub(super) deviation: f64,
}

impl Belief {
    /// What a forecast says.
    pub(super) fn of(forecast: Forecast) -> Self {
        let p50_ms = forecast.run_ms_p50.max(1) as f64;
        let spread = (forecast.run_ms_p90 as f64 / p50_ms).ln().max(0.0);
        Self {
            mean: p50_ms.ln(),
            deviation: spread / NINTH_DECILE,
        }
    }
}

impl Prior {
    /// What is common to the jobs that are not over.
    pub(super) fn of(state: &State, forecast: &dyn ForecastSource) -> Self {
        let present = state.present_workers();
        let models = present.flat_map(|worker| worker.inventory.gpus.iter().copied());
        let mut prior = Self {
            models: models.map(|model| (model, 0.0)).collect(),
            is_unknown: true,
            ..Self::default()
        };
        let jobs = state.pending().chain(running(state)).take(JOBS_MAX);
        let known: Vec<Vec<(GpuModel, Belief)>> = jobs
            .map(|job| prior.known(&job.spec, forecast))
            .filter(|known| !known.is_empty())
            .collect();
        if known.len() < JOBS_MIN {
            return prior;
        }
        prior.is_unknown = false;
        prior.compare_models(&known);
        prior.compare_jobs(&known);
        prior
    }

    /// What is believed of a run, beside what its own forecast says.
    pub(super) fn believed(
        &self,
        spec: &JobSpec,
        hardware: Hardware,
        forecast: &dyn ForecastSource,
    ) -> Option<Belief> {
        let own = Belief::of(forecast.forecast(spec, hardware)?);
        let on_model = self.models.get(&hardware.gpu);
        let (Some(on_model), true) = (on_model, own.deviation > 0.0 && !self.is_unknown) else {
            return Some(own);
        };
        let known = self.known(spec, forecast);
        let count = known.len().max(1) as f64;
        let length = self.length(&known);
        let noise = own.deviation.powi(2);
        let of_length = part(self.lengths, (noise + self.tastes) / count);
        let of_taste = part(self.tastes, noise);
        let kept = of_length / count + of_taste * (1.0 - 1.0 / count);
        Some(Belief {
            mean: self.mean
                + of_length * (length - self.mean)
                + of_taste * (own.mean - on_model - length)
                + on_model,
            deviation: own.deviation * kept.sqrt(),
        })
    }

    /// What is forecast of a job on each model of the cluster.
    fn known(&self, spec: &JobSpec, forecast: &dyn ForecastSource) -> Vec<(GpuModel, Belief)> {
        // What is known is of one host.
        let models = self.models.keys().filter(|_| spec.hosts() == 1);
        let models = models.filter_map(|model| {
            let hardware = Hardware::new(*model, spec.gpu_count)?;
            Some((*model, Belief::of(forecast.forecast(spec, hardware)?)))
        });
        models.collect()
    }

    /// How long a job is, whatever the model.
    fn length(&self, known: &[(GpuModel, Belief)]) -> f64 {
        let of = |(model, belief): &(GpuModel, Belief)| {
            belief.mean - self.models.get(model).copied().unwrap_or(0.0)
        };
        mean(known.iter().map(of))
    }

    fn compare_models(&mut self, known: &[Vec<(GpuModel, Belief)>]) {
        let mut beside: BTreeMap<GpuModel, Vec<f64>> = BTreeMap::new();
        for job in known.iter().filter(|job| job.len() > 1) {
            let length = mean(job.iter().map(|(_, belief)| belief.mean));
            for (model, belief) in job {
                beside.entry(*model).or_default().push(belief.mean - length);
            }
        }
        for (model, on_model) in &mut self.models {
            let all = beside.remove(model).unwrap_or_default();
            *on_model = mean(all.into_iter());
        }
    }

    fn compare_jobs(&mut self, known: &[Vec<(GpuModel, Belief)>]) {
        let noise = mean(
            known
                .iter()
                .flatten()
                .map(|(_, belief)| belief.deviation.powi(2)),
        );
        let several = known.iter().filter(|job| job.len() > 1);
        let prior = &*self;
        let tastes = several.flat_map(|job| {
            let (length, count) = (prior.length(job), job.len() as f64);
            job.iter().map(move |(model, belief)| {
                let on_model = prior.models.get(model).copied().unwrap_or(0.0);
                (belief.mean - on_model - length).powi(2) * count / (count - 1.0)
            })
        });
        let tastes = (mean(tastes) - noise).max(0.0);
        let lengths: Vec<f64> = known.iter().map(|job| self.length(job)).collect();
        self.mean = mean(lengths.iter().copied());
        let apart = mean(lengths.iter().map(|length| (length - self.mean).powi(2)));
        let by_chance = mean(known.iter().map(|job| (noise + tastes) / job.len() as f64));
        self.tastes = tastes;
        self.lengths = (apart - by_chance).max(0.0);
    }
}

/// The jobs that run and may come to an end of their own: what is being cancelled says nothing of what is to come.
pub(super) fn running(state: &State) -> impl Iterator<Item = &Job> {
    let leased = state.leases().filter_map(|lease| state.open_job(lease.job));
    leased.filter(|job| job.state == JobState::Running)
}

/// The part of what is seen that is not chance.
fn part(real: f64, chance: f64) -> f64 {
    real / (real + chance).max(f64::MIN_POSITIVE)
}

/// The mean of numbers; 0 of none.
fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = numbers.fold((0.0, 0.0), |(sum, count), number| {
        (sum + number, count + 1.0)
    });
    if count > 0.0 { sum / count } else { 0.0 }
}
