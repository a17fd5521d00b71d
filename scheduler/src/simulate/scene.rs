//! The cluster and the jobs of a simulation, as the engine's own workers and submissions.

use std::collections::BTreeMap;

use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sharing, Workload};
use stepcast_records::{
    FrameClass, GpuModel, HalfMegapixels, Hardware, Precision, Quantization, Recipe, UsdMicros,
};

use super::Noise;
use super::rows::{ARRIVAL_MAX_S, Speeds, Trace, TraceJob};
use crate::Command;
use crate::forward::Truth;
use crate::ids::{InstanceId, StagingId, TokenHash};
use crate::model::limits::GPUS_PER_WORKER_MAX;
use crate::model::{Inventory, Job, JobSpec, Objective, TrainerKind};
use crate::placement::{Forecast, ForecastSource};

/// GPUs of one model, and what one of them costs an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The model.
    pub gpu: GpuModel,
    /// How many.
    pub count: u32,
    /// The price of one.
    pub price_per_hour: Option<UsdMicros>,
}

/// What a simulation plays.
#[derive(Debug, Clone)]
pub struct Scene {
    cluster: Vec<Group>,
    jobs: Vec<TraceJob>,
    /// What all of each job really takes, in milliseconds, by model.
    times: Vec<BTreeMap<GpuModel, u64>>,
    noise: Noise,
    restart_ms: u64,
    workload: Workload,
}

/// Why there is nothing to play.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SceneError {
    /// No speed is known of what a job trains.
    #[error("job {job}: no speed is known of {model} with batch {batch:?} on {gpus} GPUs")]
    Unknown {
        /// Its id in the trace.
        job: u64,
        /// What it trains.
        model: String,
        /// Its batch size.
        batch: String,
        /// Its GPUs.
        gpus: u8,
    },
    /// No group of the cluster can hold a job.
    #[error(
        "job {job} fits nowhere: it needs {gpus} GPUs of one model it runs on, and no group has them"
    )]
    Nowhere {
        /// Its id in the trace.
        job: u64,
        /// Its GPUs.
        gpus: u8,
    },
    /// A job takes longer than anything here is counted.
    #[error("job {job} takes more than a hundred years wherever it runs")]
    TooLong {
        /// Its id in the trace.
        job: u64,
    },
    /// The cluster has no GPU.
    #[error("the cluster has no GPU")]
    Empty,
}

/// Steps that every simulated job has at least: progress is kept to a millionth of a run. Each row of a trace has one step
/// more than the one before, so that no two are taken for equal.
const STEPS: u64 = 1_000_000;

impl Scene {
    /// A cluster with these groups, and jobs with these speeds. Each group is hosts of up to 16 GPUs.
    ///
    /// # Errors
    /// The first job that could never run.
    pub fn new(
        cluster: Vec<Group>,
        trace: Trace,
        speeds: &Speeds,
        noise: Noise,
        restart_ms: u64,
    ) -> Result<Self, SceneError> {
        if cluster.iter().all(|group| group.count == 0) {
            return Err(SceneError::Empty);
        }
        let mut times = Vec::with_capacity(trace.0.len());
        for job in &trace.0 {
            if !speeds.knows(job) {
                return Err(SceneError::Unknown {
                    job: job.id,
                    model: job.model.clone(),
                    batch: job.batch.clone(),
                    gpus: job.scale_factor,
                });
            }
            let wide = cluster
                .iter()
                .filter(|group| group.count >= job.scale_factor.into());
            let all: BTreeMap<GpuModel, f64> = wide
                .filter_map(|group| {
                    let speed = speeds.steps_per_s(job, group.gpu)?;
                    Some((group.gpu, job.total_steps / speed))
                })
                .collect();
            let some = all.iter().filter(|(_, s)| **s <= ARRIVAL_MAX_S);
            let known: BTreeMap<GpuModel, u64> = some
                .map(|(gpu, s)| (*gpu, (s * 1_000.0).ceil().max(1.0) as u64))
                .collect();
            if known.is_empty() && !all.is_empty() {
                return Err(SceneError::TooLong { job: job.id });
            }
            if known.is_empty() {
                return Err(SceneError::Nowhere {
                    job: job.id,
                    gpus: job.scale_factor,
                });
            }
            times.push(known);
        }
        Ok(Self {
            cluster,
            jobs: trace.0,
            times,
            noise,
            restart_ms,
            workload: workload(),
        })
    }

    /// The jobs, in the order of the trace.
    #[must_use]
    pub fn jobs(&self) -> &[TraceJob] {
        &self.jobs
    }

    /// The groups of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &[Group] {
        &self.cluster
    }

    /// What all of a job really takes on each model it can run on, in milliseconds.
    #[must_use]
    pub fn times(&self, row: usize) -> &BTreeMap<GpuModel, u64> {
        &self.times[row]
    }

    /// The commands that bring the workers in.
    pub fn joins(&self) -> impl Iterator<Item = Command> {
        let hosts = self.cluster.iter().flat_map(|group| {
            let most = GPUS_PER_WORKER_MAX as u32;
            (0..group.count.div_ceil(most)).map(move |host| {
                let gpus = (group.count - host * most).min(most);
                (group, host, gpus as usize)
            })
        });
        (0_u64..)
            .zip(hosts)
            .flat_map(|(number, (group, host, gpus))| {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&number.to_le_bytes());
                let hash = TokenHash(hash);
                let name = format!("{}-{host}", group.gpu.slug()).parse();
                let inventory = Inventory {
                    gpus: vec![group.gpu; gpus],
                    trainers: [TrainerKind::SimpleTuner].into(),
                    labels: BTreeMap::new(),
                    price_per_gpu_hour: group.price_per_hour,
                    address: None,
                    outputs: None,
                };
                let token = name
                    .ok()
                    .map(|name| Command::CreateWorkerToken { name, hash });
                let register = Command::RegisterWorker {
                    token_hash: hash,
                    instance: InstanceId([1; 16]),
                    inventory,
                };
                token.into_iter().chain([register])
            })
    }

    /// A job as it is submitted: as fast as can be, on any model that it has a speed on.
    #[must_use]
    pub fn spec(&self, row: usize) -> JobSpec {
        let mut spec = JobSpec::new(
            self.workload.clone(),
            StagingId((row as u128).to_le_bytes()),
        );
        spec.workload.length = Length::Steps(STEPS + row as u64);
        spec.gpu_count = self.jobs[row].scale_factor;
        spec.allow = self.times[row].keys().copied().collect();
        spec.objective = Objective::Fastest;
        spec
    }

    /// The place in the trace of a job.
    pub(super) fn row(spec: &JobSpec) -> usize {
        usize::try_from(u128::from_le_bytes(spec.staging.0)).unwrap_or(usize::MAX)
    }

    fn true_ms(&self, spec: &JobSpec, hardware: Hardware) -> Option<u64> {
        let times = self.times.get(Self::row(spec))?;
        (hardware.count == spec.gpu_count).then(|| times.get(&hardware.gpu).copied())?
    }
}

impl Truth for Scene {
    fn run_ms(&self, job: &Job, hardware: Hardware) -> Option<u64> {
        self.true_ms(&job.spec, hardware)
    }

    fn restart_ms(&self) -> u64 {
        self.restart_ms
    }
}

impl ForecastSource for Scene {
    fn version(&self) -> Option<u64> {
        Some(0)
    }

    fn forecast(&self, spec: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        let truth = self.true_ms(spec, hardware)? as f64;
        let factor = self
            .noise
            .factor(Self::row(spec) as u64, hardware.gpu.number().into());
        let run_ms = (truth * factor).max(1.0);
        Some(Forecast {
            run_ms_p50: run_ms as u64,
            run_ms_p90: (run_ms * self.noise.p90()) as u64,
        })
    }
}

/// Something to train: what it is plays no part, the speeds of the trace say how long it takes.
fn workload() -> Workload {
    let recipe = Recipe::all().next();
    Workload {
        recipe: recipe.unwrap_or_else(|| unreachable!("the registry has a recipe")),
        precision: Precision::Bf16,
        quantization: Quantization::None,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: HalfMegapixels::new(2).unwrap_or_else(|| unreachable!("a bucket")),
            frames: FrameClass::Single,
            batch_size: 1,
            samples: None,
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(STEPS),
        checkpoint_every: Some(1),
        validation: None,
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing::default(),
    }
}
