//! What a cell says of its own key, and how wrong each rung is: the spread of the logarithm of truth over estimate, one
//! standard deviation each.
//!
//! The figures come from leaving one published figure out and estimating it from the others, and are set so that
//! about eight in ten truths fall between p10 and p90. Where no figure tells, the constant says so. Over the 159
//! figures of the public table that have a key, nearly all of them of two machines, an H100 and an L40S; the
//! constants of [`work`](super::work) were chosen with the same figures in view, and the [`model`](super::model) was
//! left out:
//!
//! | rung | figures | median error | p90 | inside p10-p90 |
//! |---|---|---|---|---|
//! | another batch | 10 | 4 % | 24 % | 90 % |
//! | another resolution | 12 | 13 % | 44 % | 92 % |
//! | another quantisation | 99 | 19 % | 64 % | 87 % |
//! | other checkpointing | 67 | 7 % | 52 % | 79 % |
//! | other hardware | 99 | 17 % | 48 % | 87 % |
//! | the nearest of all, the key left out | 158 | 15 % | 64 % | 87 % |
//! | the nearest on other hardware | 154 | 21 % | 66 % | 82 % |
//! | the ratings alone | 159 | 30 % | 85 % | 82 % |

use stepcast_records::{
    Cell, HalfMegapixels, Hardware, Method, Modality, Recipe, TrainingShape, ValidationShape,
};

use super::work;

/// Standard deviations from the middle to p10 and p90 of a normal distribution.
const Z: f64 = 1.281_6;
/// Runs of one key differ by this much, because of what the key does not hold (attention, optimizer, host).
const WITHIN_KEY: f64 = 0.15;
/// So many runs tell as much about a key's spread as the constant above.
const WITHIN_KEY_WEIGHT: f64 = 4.0;
/// A doubling of the batch.
const BATCH: f64 = 0.12;
/// A doubling of the pixels.
const RESOLUTION: f64 = 0.14;
/// A doubling of the accumulated batches. No figure tells; the work is exactly that many times over.
const ACCUMULATION: f64 = 0.04;
/// A doubling of the denoising steps. No figure tells; the work is that many times over, and a start.
const INFERENCE_STEPS: f64 = 0.08;
/// The other precision. No figure tells; both run on the same units.
const PRECISION: f64 = 0.08;
/// Another quantisation.
const QUANTIZATION: f64 = 0.40;
/// Checkpointing on instead of off.
const CHECKPOINTING: f64 = 0.27;
/// A low-rank adapter of another kind. No figure tells.
const ADAPTER: f64 = 0.25;
/// An adapter for a whole model or a ControlNet. No figure tells.
const METHOD: f64 = 0.45;
/// Another flavour of the same family and size, and a doubling of its size.
const FLAVOUR: f64 = 0.20;
const SIZE: f64 = 0.30;
/// A doubling of the frames.
const FRAMES: f64 = 0.20;
/// Another GPU.
const GPU: f64 = 0.30;
/// A doubling of the number of GPUs. No figure tells.
const GPU_COUNT: f64 = 0.10;
/// With fewer rows than this none of them is the odd one out.
const ROWS_WITH_A_MIDDLE: u32 = 3;
/// The logarithm by which a cell's mean is off its middle run when a few runs have carried it away: a factor of two, which
/// hosts and settings that share a key do not differ by in the mean.
const CARRIED_AWAY: f64 = std::f64::consts::LN_2;
/// A published figure instead of a record: other machines, other settings.
const PUBLISHED: f64 = 0.15;
/// The ratings alone.
pub(super) const RATED: f64 = 0.70;
/// An image whose time follows from that of a step.
pub(super) const DERIVED: f64 = 0.60;
/// A run with a setting that the records have no place for.
pub(super) const OFF_RECORD: f64 = 0.35;
/// Loading, caching and saving depend on disks and networks that nobody measured.
pub(super) const SETUP: f64 = 0.60;

/// Squares of these add up.
fn squared(deviation: f64, doublings: f64) -> f64 {
    (deviation * doublings).powi(2)
}

fn doublings(a: impl Into<f64>, b: impl Into<f64>) -> f64 {
    (a.into() / b.into()).log2().abs()
}

/// The time of a cell in milliseconds: the mean over all steps, or the middle run where a few have carried that away;
/// `None` without rows.
pub(super) fn typical_ms(cell: &Cell) -> Option<f64> {
    middle_of_carried_away(cell).or_else(|| cell.mean_ms())
}

/// The middle run of a cell whose mean says something quite different: a run that spilled out of memory or whose clock was
/// wrong takes many times as long as the others, and is not what the next one will take.
fn middle_of_carried_away(cell: &Cell) -> Option<f64> {
    if cell.rows() < ROWS_WITH_A_MIDDLE {
        return None;
    }
    let (mean, middle) = (cell.mean_ms()?.max(1.0), cell.quantile(0.5)?.max(1.0));
    ((mean / middle).ln().abs() > CARRIED_AWAY).then_some(middle)
}

/// How uncertain one more run of the cell's own key is, as a variance.
pub(super) fn within(cell: &Cell) -> f64 {
    let rows = f64::from(cell.rows());
    let middle = middle_of_carried_away(cell).map(f64::ln);
    let means = cell.means().map(|(ms, rows)| {
        let ln = f64::from(ms.max(1)).ln();
        let ln = middle.map_or(ln, |middle| ln.clamp(middle - 1.0, middle + 1.0));
        (ln, f64::from(rows))
    });
    let (sum, squares) = means.fold((0.0, 0.0), |(sum, squares), (log, rows)| {
        (sum + log * rows, squares + log * log * rows)
    });
    let mean = sum / rows.max(1.0);
    let around_mean = (squares - sum * mean).max(0.0);
    (around_mean + WITHIN_KEY_WEIGHT * WITHIN_KEY * WITHIN_KEY) / (rows + WITHIN_KEY_WEIGHT)
}

/// The variance that carrying a time from one resolution to another adds.
pub(super) fn of_resolution(from: HalfMegapixels, to: HalfMegapixels, modality: Modality) -> f64 {
    if from == to {
        return 0.0;
    }
    let pixels = |resolution| work::pixels(modality, resolution);
    squared(RESOLUTION, doublings(pixels(from), pixels(to)).max(0.5))
}

/// The variance that carrying a step time from one shape to another adds, their recipes and resolutions apart.
pub(super) fn of_step(from: &TrainingShape, to: &TrainingShape) -> f64 {
    let mut variance = 0.0;
    if from.batch_size != to.batch_size {
        let ratio = doublings(from.batch_size.get(), to.batch_size.get());
        variance += squared(BATCH, ratio.max(0.5));
    }
    if from.accumulation != to.accumulation {
        let ratio = doublings(from.accumulation.get(), to.accumulation.get());
        variance += squared(ACCUMULATION, ratio.max(0.5));
    }
    if from.precision != to.precision {
        variance += squared(PRECISION, 1.0);
    }
    if from.quantization != to.quantization {
        variance += squared(QUANTIZATION, 1.0);
    }
    variance
}

/// The variance that carrying the time of an image from one shape to another adds, their recipes and resolutions
/// apart.
pub(super) fn of_image(from: &ValidationShape, to: &ValidationShape) -> f64 {
    let mut variance = 0.0;
    if from.inference_steps != to.inference_steps {
        let ratio = doublings(from.inference_steps.get(), to.inference_steps.get());
        variance += squared(INFERENCE_STEPS, ratio.max(0.5));
    }
    if from.precision != to.precision {
        variance += squared(PRECISION, 1.0);
    }
    if from.quantization != to.quantization {
        variance += squared(QUANTIZATION, 1.0);
    }
    variance
}

/// The variance that carrying a time from one recipe of a family to another adds.
pub(super) fn of_recipe(from: Recipe, to: Recipe) -> f64 {
    if from == to {
        return 0.0;
    }
    let mut variance = 0.0;
    if from.checkpointing() != to.checkpointing() {
        variance += squared(CHECKPOINTING, 1.0);
    }
    if from.method() != to.method() {
        let is_adapter = |recipe: Recipe| matches!(recipe.method(), Method::Lora | Method::Lycoris);
        let adapters = is_adapter(from) && is_adapter(to);
        variance += squared(if adapters { ADAPTER } else { METHOD }, 1.0);
    }
    if from.flavour() != to.flavour() {
        let sizes = doublings(super::size::billions(from), super::size::billions(to));
        variance += squared(FLAVOUR, 1.0) + squared(SIZE, sizes);
    }
    if from.frames() != to.frames() {
        let frames = |recipe: Recipe| f64::from(recipe.frames().max_frames());
        variance += squared(FRAMES, doublings(frames(from), frames(to)).max(0.5));
    }
    variance
}

/// The variance that carrying a time from one hardware to another adds.
pub(super) fn of_hardware(from: Hardware, to: Hardware) -> f64 {
    let mut variance = 0.0;
    if from.gpu != to.gpu {
        variance += squared(GPU, 1.0);
    }
    if from.count != to.count {
        variance += squared(GPU_COUNT, doublings(from.count, to.count));
    }
    variance
}

/// The variance that a published figure has over a record.
pub(super) fn of_published() -> f64 {
    squared(PUBLISHED, 1.0)
}

/// p10, p50 and p90 as factors of the middle.
pub(super) fn factors(variance: f64) -> (f64, f64) {
    let reach = (Z * variance.max(0.0).sqrt()).exp();
    (1.0 / reach, reach)
}
