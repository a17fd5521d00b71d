//! What is left of a job: the whole run's forecast, less what its checkpoints keep or the time it has run.

use stepcast_records::simpletuner::Length;
use stepcast_records::{GpuModel, Hardware};

use super::forecast::{Forecast, ForecastSource};
use crate::model::{Attempt, Job};
use crate::policy::Policy;

/// What is left of a job on one hardware.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Left {
    /// Half of such runs take at most this much longer, in milliseconds.
    pub(crate) p50_ms: f64,
    /// Nine in ten such runs take at most this much longer, in milliseconds.
    pub(crate) p90_ms: f64,
    /// There is no history: the hardware's rating is all there is to go by.
    pub(crate) is_guess: bool,
}

/// What a run is taken to need where nothing is known of it, on hardware rated at [`GUESSED_TFLOPS`].
pub(crate) const GUESSED_MS: f64 = 3_600_000.0;

/// The rating that a guess is scaled from: a large consumer card's.
const GUESSED_TFLOPS: f64 = 165.0;

/// A processor's rating: slower than any GPU, so that it is never preferred to one on a guess.
const UNRATED_TFLOPS: f64 = 0.1;

/// What runs longer than forecast is taken to need this part of the whole run still.
pub(crate) const OVERDUE: f64 = 0.02;

impl Left {
    /// What is left of a job that waits, on so many GPUs of a model.
    pub(crate) fn of_waiting(
        source: &dyn ForecastSource,
        job: &Job,
        gpu: GpuModel,
        policy: &Policy,
    ) -> Option<Self> {
        let whole = Self::of_whole(source, job, gpu)?;
        let is_again = !job.attempts.is_empty();
        let restart_ms = if is_again { policy.restart_ms } else { 0 };
        Some(whole.without(kept(job)).after(restart_ms as f64))
    }

    /// All of a job that waits, where it begins anew although it has been tried.
    pub(crate) fn anew(
        source: &dyn ForecastSource,
        job: &Job,
        gpu: GpuModel,
        policy: &Policy,
    ) -> Option<Self> {
        let whole = Self::of_whole(source, job, gpu)?;
        Some(whole.after(policy.restart_ms as f64))
    }

    /// What is left of a job that runs in an attempt, were it to go on where it is.
    pub(crate) fn of_running(
        source: &dyn ForecastSource,
        job: &Job,
        attempt: &Attempt,
        policy: &Policy,
        now_ms: u64,
    ) -> Option<Self> {
        if let Some(left) = source.left(job, attempt, now_ms) {
            return Some(Self::known(left));
        }
        let whole = Self::of_whole(source, job, attempt.gpu)?;
        Some(whole.without(done(job, attempt, &whole, policy, now_ms)))
    }

    /// What is left of a job that runs, were it to go on elsewhere: what is done is kept, and a restart comes on top.
    pub(crate) fn of_moved(
        source: &dyn ForecastSource,
        job: &Job,
        attempt: &Attempt,
        gpu: GpuModel,
        policy: &Policy,
        now_ms: u64,
    ) -> Option<Self> {
        let here = Self::of_whole(source, job, attempt.gpu)?;
        let there = Self::of_whole(source, job, gpu)?;
        let stays = Self::of_running(source, job, attempt, policy, now_ms)?;
        let done = 1.0 - (stays.p50_ms / here.p50_ms.max(1.0)).clamp(0.0, 1.0);
        Some(there.without(done).after(policy.restart_ms as f64))
    }

    /// All of a job on hardware it has not begun on.
    pub(crate) fn of_whole(source: &dyn ForecastSource, job: &Job, gpu: GpuModel) -> Option<Self> {
        let hardware = Hardware::new(gpu, job.spec.gpu_count)?;
        let hosts = job.spec.hosts();
        // What is known is of one host: nobody knows what several do together.
        let forecast = (hosts == 1).then(|| source.forecast(&job.spec, hardware));
        Some(match forecast.flatten() {
            Some(forecast) => Self::known(forecast),
            None => Self::guessed(hardware, hosts),
        })
    }

    fn known(forecast: Forecast) -> Self {
        Self {
            p50_ms: forecast.run_ms_p50 as f64,
            p90_ms: forecast.run_ms_p90.max(forecast.run_ms_p50) as f64,
            is_guess: false,
        }
    }

    fn guessed(hardware: Hardware, hosts: u8) -> Self {
        let rated = hardware.gpu.rated();
        let tflops = rated.map_or(UNRATED_TFLOPS, |rated| rated.bf16_tflops);
        let gpus = f64::from(hardware.count) * f64::from(hosts);
        let ms = GUESSED_MS * GUESSED_TFLOPS / (tflops * gpus);
        Self {
            p50_ms: ms,
            p90_ms: f64::INFINITY,
            is_guess: true,
        }
    }

    fn without(self, done: f64) -> Self {
        let part = (1.0 - done).max(OVERDUE);
        Self {
            p50_ms: self.p50_ms * part,
            p90_ms: self.p90_ms * part,
            ..self
        }
    }

    fn after(self, ms: f64) -> Self {
        Self {
            p50_ms: self.p50_ms + ms,
            p90_ms: self.p90_ms + ms,
            ..self
        }
    }

    /// As a forecast of what runs from now on; `None` for a guess.
    pub(crate) fn forecast(self) -> Option<Forecast> {
        (!self.is_guess).then_some(Forecast {
            run_ms_p50: self.p50_ms as u64,
            run_ms_p90: self.p90_ms as u64,
        })
    }
}

/// The part of a job that its checkpoints keep.
pub(crate) fn kept(job: &Job) -> f64 {
    part_of(job, job.checkpoint_step())
}

/// What a job that runs would lose if it had to yield now, in milliseconds: what it did since its last checkpoint, and a
/// restart.
pub(crate) fn lost_ms(
    source: &dyn ForecastSource,
    job: &Job,
    attempt: &Attempt,
    policy: &Policy,
    now_ms: u64,
) -> f64 {
    let restart_ms = policy.restart_ms as f64;
    let Some(whole) = Left::of_whole(source, job, attempt.gpu) else {
        return restart_ms;
    };
    let done = done(job, attempt, &whole, policy, now_ms);
    let saved = match (job.spec.workload.checkpoint_every, steps(job)) {
        // Checkpoints are written every so many steps; the newest one may not have been reported yet.
        (Some(every), Some(steps)) => {
            let part = every.max(1) as f64 / steps as f64;
            (done / part).floor() * part
        }
        _ => 0.0,
    };
    (done - saved.max(kept(job))).max(0.0) * whole.p50_ms + restart_ms
}

/// The part of a job that is done, as far as time tells.
fn done(job: &Job, attempt: &Attempt, whole: &Left, policy: &Policy, now_ms: u64) -> f64 {
    let begun = begun(job, attempt);
    let restart_ms = if job.attempts.len() > 1 {
        policy.restart_ms
    } else {
        0
    };
    let since_ms = attempt.started_ms.unwrap_or(attempt.placed_ms);
    let ran_ms = now_ms.saturating_sub(since_ms.saturating_add(restart_ms));
    let by_time = begun + ran_ms as f64 / whole.p50_ms.max(1.0);
    by_time.max(kept(job)).clamp(0.0, 1.0)
}

/// The part of a job that was done when an attempt of it began.
pub(crate) fn begun(job: &Job, attempt: &Attempt) -> f64 {
    part_of(job, job.begun_step(attempt.epoch))
}

/// The part of a job that so many steps are.
pub(crate) fn part_of(job: &Job, step: u64) -> f64 {
    if step == 0 {
        return 0.0;
    }
    steps(job).map_or(0.0, |steps| (step as f64 / steps as f64).clamp(0.0, 1.0))
}

/// The steps of the whole run, if that is known before.
fn steps(job: &Job) -> Option<u64> {
    let steps = match job.spec.workload.length {
        Length::Steps(steps) => steps,
        Length::Epochs(_) => job.spec.workload.plan(job.spec.gpus()).ok()?.steps_total,
    };
    (steps > 0).then_some(steps)
}
