//! What surrounds the steps: loading, caching and saving. Rough, since nobody may record it.
//!
//! The policy names no time of these parts among what is recorded, so what they rest on is the size of the model, the number of
//! samples and usual speeds; an attempt that runs is timed by what it shows itself.

use stepcast_records::simpletuner::{Plan, Workload};
use stepcast_records::{Basis, Phase, PhaseKind, Quantiles, Quantization};

use super::{size, width};

/// Starting the trainer, its libraries and the GPU, before the first byte of a model is read, and what the first step
/// takes longer than others: kernels are compiled and chosen, memory is taken. Records have no place for it, since they
/// hold a mean of steps behind the first and their number. A run on an H100 in a slow virtual host took 63 s until its
/// first step was done, 20 s of it in that step (SDXL, 2.6 billion parameters, 12 samples, everything on a local disk),
/// where this and loading and caching say 77 s.
const START_MS: f64 = 60_000.0;
/// Text encoders and decoders that come with every model, in GB.
const COMPANIONS_GB: f64 = 8.0;
/// From a local disk to the GPU. A first download is another matter and is not included.
const LOAD_GB_PER_S: f64 = 1.0;
/// Quantising passes over every weight once, at a few GB/s on the host.
const QUANTIZE_MS_PER_BILLION: f64 = 1_500.0;
/// Encoding one caption, and one megapixel of one sample.
const CAPTION_MS: f64 = 60.0;
const MEGAPIXEL_MS: f64 = 250.0;
/// A video's frames are encoded in groups of four.
const FRAMES_PER_LATENT: f64 = 4.0;
/// Saving: the weights that are trained with the optimizer's two moments, in bytes a parameter, and the files around.
const SAVED_BYTES: f64 = 6.0;
const SAVE_GB_PER_S: f64 = 0.5;
const SAVE_MS: f64 = 3_000.0;

/// Loading, caching and saving on so many GPUs by what happens, in the order of the run.
pub(super) fn set_up(workload: &Workload, plan: &Plan, gpus: u8) -> Vec<Phase> {
    let billions = size::billions(workload.recipe);
    let load = (2.0 * billions + COMPANIONS_GB) / LOAD_GB_PER_S * 1_000.0;
    let mut phases = vec![
        once(PhaseKind::Start, START_MS),
        once(PhaseKind::Load, load),
    ];
    if workload.quantization != Quantization::None {
        let quantize = billions * QUANTIZE_MS_PER_BILLION;
        phases.push(once(PhaseKind::Quantize, quantize));
    }
    phases.extend(caching(workload, f64::from(gpus)));
    let saved_gb = size::trained_billions(workload.recipe) * SAVED_BYTES;
    let save = SAVE_MS + saved_gb / SAVE_GB_PER_S * 1_000.0;
    if plan.checkpoints > 0 {
        phases.push(many(PhaseKind::Checkpoint, plan.checkpoints, save));
    }
    phases.push(once(PhaseKind::Save, save));
    phases
}

/// Encoding every sample once, shared among the GPUs. Data sets of unknown size stand apart, without a time.
fn caching(workload: &Workload, gpus: f64) -> impl Iterator<Item = Phase> {
    let known = || {
        workload
            .datasets
            .iter()
            .filter_map(|dataset| Some((dataset, dataset.samples?)))
    };
    let samples: u64 = known().fold(0, |sum, (_, samples)| sum.saturating_add(samples));
    let latents = known().map(|(dataset, samples)| {
        let frames = f64::from(dataset.frames.max_frames());
        let latents = 1.0 + (frames - 1.0) / FRAMES_PER_LATENT;
        samples as f64 * dataset.resolution.megapixels() * MEGAPIXEL_MS * latents
    });
    let latents: f64 = latents.sum();
    let timed = [
        (PhaseKind::CacheText, samples as f64 * CAPTION_MS),
        (PhaseKind::CacheLatents, latents),
    ];
    let is_partly_unknown = workload
        .datasets
        .iter()
        .any(|dataset| dataset.samples.is_none());
    timed.into_iter().flat_map(move |(kind, ms)| {
        let known = (samples > 0).then(|| all(kind, samples, ms / gpus));
        let unknown = is_partly_unknown.then(|| unknown(kind));
        known.into_iter().chain(unknown)
    })
}

fn once(kind: PhaseKind, ms: f64) -> Phase {
    all(kind, 1, ms)
}

fn many(kind: PhaseKind, count: u64, each_ms: f64) -> Phase {
    all(kind, count, each_ms * count as f64)
}

/// A part of so many, with the time of all of them.
fn all(kind: PhaseKind, count: u64, ms: f64) -> Phase {
    let (low, high) = width::factors(width::SETUP * width::SETUP);
    let ms = Quantiles {
        p10: (ms * low) as u64,
        p50: ms as u64,
        p90: (ms * high) as u64,
    };
    Phase {
        count,
        ms: Some(ms),
        basis: Basis::Rough,
        ..unknown(kind)
    }
}

fn unknown(kind: PhaseKind) -> Phase {
    Phase {
        kind,
        resolution: None,
        count: 0,
        ms: None,
        basis: Basis::None,
        rows: 0,
        observed: 0,
    }
}
