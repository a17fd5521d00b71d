//! Memory: what a run needs on each GPU, from published peaks where there are some, and whether it fits.
//!
//! A formula of weights, what is trained and activations says how a need changes from one shape to another; the nearest
//! published peak says where it stands. Nothing is recorded of runs: the policy has no such field.

mod published;
#[cfg(test)]
mod tests;

use stepcast_records::simpletuner::{OffRecord, Plan, Workload};
use stepcast_records::{
    Basis, Checkpointing, Fit, GpuModel, Memory, Method, Quantization, Recipe, TrainingShape,
};

use super::{size, work};
use published::Published;

/// The GPU's own share of its memory, and what fragmentation takes.
const USABLE: f64 = 0.95;
/// Kernels, caches and the companions that stay, in GB.
const RESIDENT_GB: f64 = 2.0;
/// Gradient and optimizer state of a trained parameter in bytes: bf16 gradient, two moments in bf16.
const TRAINED_BYTES: f64 = 6.0;
/// Bytes that one token leaves in one layer for each of its channels, when activations are kept. Published peaks
/// of Chroma, SD3 and Wan lie between 20 and 28.
const ACTIVATION_BYTES: f64 = 20.0;
/// With checkpointing only a layer's input is kept; measured peaks ask for about this share of the rest.
const CHECKPOINTED_SHARE: f64 = 0.08;

/// Standard deviations from the middle to p10 and p90, and to one in four.
const Z_TENTH: f64 = 1.281_6;
const Z_QUARTER: f64 = 0.674_5;

/// How wrong the ways are: the spread of the logarithm of truth over need, one standard deviation each. They come from
/// leaving each of the 87 published peaks out and telling it from the others, which errs by 9 % in the middle and by 25 %
/// in one of ten; what no peak tells is said.
mod spread {
    /// The same configuration again: another version, another rank of the adapter.
    pub(super) const AGAIN: f64 = 0.06;
    /// The formula alone.
    pub(super) const FORMULA: f64 = 0.55;
    /// Checkpointing on instead of off, or the other way.
    pub(super) const CHECKPOINTING: f64 = 0.38;
    /// Another quantisation.
    pub(super) const QUANTIZATION: f64 = 0.18;
    /// A doubling of the batch, of the pixels or of the frames.
    pub(super) const DOUBLING: f64 = 0.15;
    /// Another kind of adapter, and an adapter for a whole model or a ControlNet. No peak tells.
    pub(super) const ADAPTER: f64 = 0.10;
    pub(super) const METHOD: f64 = 0.45;
    /// A LyCORIS adapter beside a published one: its algorithm, targets and factor are in a file of its own, and no peak
    /// names them. The one that was measured on an H100 took 17.2 GiB where 13.0 were published (benches/README).
    pub(super) const LYCORIS: f64 = 0.22;
    /// Another flavour of the family. No peak tells.
    pub(super) const FLAVOUR: f64 = 0.30;
}

/// A need in GiB.
#[derive(Debug, Clone, Copy)]
struct Need {
    gib: f64,
    /// Standard deviation of the logarithm of the truth around it.
    deviation: f64,
    basis: Basis,
}

/// What a run asks for, whatever the GPU.
pub(super) struct Needs {
    /// Of each kind of step.
    each: Vec<(TrainingShape, Need)>,
}

impl Needs {
    /// Nothing for a run that keeps its weights elsewhere.
    pub(super) fn of(workload: &Workload, plan: &Plan) -> Self {
        let elsewhere = [OffRecord::Offload, OffRecord::Sharding];
        let is_elsewhere = |reason| workload.off_record.contains(reason);
        let shapes = if elsewhere.iter().any(is_elsewhere) {
            &[]
        } else {
            plan.training.as_slice()
        };
        let each = shapes.iter().map(|(shape, _)| {
            let known = published::of(shape.recipe.family());
            (*shape, need(shape, known))
        });
        Self {
            each: each.collect(),
        }
    }

    /// What it is on each GPU of a model; `None` for one without memory of its own and where nothing is asked for.
    pub(super) fn on(&self, gpu: GpuModel) -> Option<Memory> {
        if gpu.memory_gib() == 0 {
            return None;
        }
        let each = self
            .each
            .iter()
            .map(|(shape, need)| found(shape, *need, gpu));
        each.max_by_key(|memory| (memory.fit, memory.need_mib_p50))
    }
}

fn found(shape: &TrainingShape, need: Need, gpu: GpuModel) -> Memory {
    let known = published::of(shape.recipe.family());
    let deviation = match shape.recipe.method() {
        Method::Lycoris => need.deviation.hypot(spread::LYCORIS),
        _ => need.deviation,
    };
    let at = |reach: f64| need.gib * (deviation * reach).exp();
    let usable = f64::from(gpu.memory_gib()) * USABLE;
    let is_more = |reach| at(reach) > usable;
    let fit = match said(shape, gpu, usable, known) {
        Some(fit) => fit,
        None if is_more(-Z_TENTH) => Fit::WillNot,
        None if is_more(Z_QUARTER) => Fit::MayNot,
        None => Fit::Fits,
    };
    // A float too large for the integer becomes the largest one.
    let mib = |gib: f64| (gib * 1_024.0).round() as u32;
    Memory {
        need_mib_p10: mib(at(-Z_TENTH)),
        need_mib_p50: mib(need.gib),
        need_mib_p90: mib(at(Z_TENTH)),
        gpu_mib: u32::from(gpu.memory_gib()) * 1_024,
        basis: need.basis,
        fit,
    }
}

/// What published runs alone say: one that asks for as much was too large for as much memory, or one that asks for no
/// less has fitted.
fn said(shape: &TrainingShape, gpu: GpuModel, usable: f64, known: &[Published]) -> Option<Fit> {
    let too_large = |other: &&Published| {
        let small = other
            .too_small
            .is_some_and(|tried| gpu.memory_gib() <= tried.memory_gib());
        small && asks_as_much(shape, &other.shape)
    };
    if known.iter().any(|other| too_large(&other)) {
        return Some(Fit::WillNot);
    }
    // That one LyCORIS adapter has fitted says little of another.
    let is_alike = shape.recipe.method() != Method::Lycoris;
    let fits = |other: &Published| {
        let peak = other.peak_gib.is_some_and(|peak| peak <= usable);
        peak && asks_as_much(&other.shape, shape)
    };
    (is_alike && known.iter().any(fits)).then_some(Fit::Fits)
}

/// Whether the first of two shapes of one model asks for as much memory as the second, or more, in every respect.
fn asks_as_much(more: &TrainingShape, less: &TrainingShape) -> bool {
    let (a, b) = (more.recipe, less.recipe);
    let saves = |recipe: Recipe| recipe.checkpointing() == Checkpointing::On;
    a.family() == b.family()
        && a.flavour() == b.flavour()
        && a.method() == b.method()
        && (saves(b) || !saves(a))
        && a.frames() >= b.frames()
        && more.resolution >= less.resolution
        && more.batch_size >= less.batch_size
        && bytes(more) >= bytes(less)
}

/// The need by the nearest published peak of the family, or by the formula alone.
fn need(shape: &TrainingShape, known: &[Published]) -> Need {
    let formula = formula_gib(shape);
    let alone = Need {
        gib: formula,
        deviation: spread::FORMULA,
        basis: Basis::Rough,
    };
    let by_peak = known.iter().filter_map(|other| {
        let carried = other.peak_gib? / formula_gib(&other.shape);
        let same = other.shape.recipe.flavour() == shape.recipe.flavour();
        Some(Need {
            gib: formula * carried,
            deviation: variance(&other.shape, shape).sqrt(),
            basis: match (other.shape == *shape, same) {
                (true, _) => Basis::Exact,
                (false, true) => Basis::Near,
                (false, false) => Basis::Rough,
            },
        })
    });
    let all = by_peak.chain([alone]);
    let nearest = all.min_by(|a, b| a.deviation.total_cmp(&b.deviation));
    nearest.unwrap_or(alone)
}

/// The variance of a need that is carried from one shape to another.
fn variance(from: &TrainingShape, to: &TrainingShape) -> f64 {
    let (a, b) = (from.recipe, to.recipe);
    let mut variance = spread::AGAIN * spread::AGAIN;
    let mut add = |deviation: f64, times: f64| variance += (deviation * times).powi(2);
    if a.checkpointing() != b.checkpointing() {
        add(spread::CHECKPOINTING, 1.0);
    }
    if from.quantization != to.quantization {
        add(spread::QUANTIZATION, 1.0);
    }
    let doublings = |a: f64, b: f64| (a / b).log2().abs();
    let batch = |shape: &TrainingShape| f64::from(shape.batch_size.get());
    let frames = |recipe: Recipe| f64::from(recipe.frames().max_frames());
    let pixels = |shape: &TrainingShape| shape.resolution.megapixels();
    add(spread::DOUBLING, doublings(batch(from), batch(to)));
    add(spread::DOUBLING, doublings(pixels(from), pixels(to)));
    add(spread::DOUBLING, doublings(frames(a), frames(b)));
    if a.method() != b.method() {
        let is_adapter = |method| matches!(method, Method::Lora | Method::Lycoris);
        let adapters = is_adapter(a.method()) && is_adapter(b.method());
        add(
            if adapters {
                spread::ADAPTER
            } else {
                spread::METHOD
            },
            1.0,
        );
    }
    if a.flavour() != b.flavour() {
        let apart = doublings(size::billions(a), size::billions(b));
        add(spread::FLAVOUR, 1.0 + apart);
    }
    variance
}

/// Bytes of one frozen weight.
fn bytes(shape: &TrainingShape) -> f64 {
    match (shape.recipe.method(), shape.quantization) {
        (Method::Full, _) | (_, Quantization::None) => 2.0,
        (_, Quantization::Int8) => 1.1,
        (_, Quantization::Nf4) => 0.6,
    }
}

/// Memory of one GPU that a step asks for by the size of the model, in GiB.
fn formula_gib(shape: &TrainingShape) -> f64 {
    const GIB: f64 = 1.073_741_824;
    let recipe = shape.recipe;
    let billions = size::billions(recipe);
    let weights = billions * bytes(shape);
    let trained = size::trained_billions(recipe) * TRAINED_BYTES;
    let kept = match recipe.checkpointing() {
        Checkpointing::Off => 1.0,
        Checkpointing::On => CHECKPOINTED_SHARE,
    };
    let samples = f64::from(shape.batch_size.get());
    let activations = ACTIVATION_BYTES
        * work::channels_of_all_layers(billions)
        * work::tokens(recipe, shape.resolution)
        * samples
        * kept
        / 1e9;
    (weights + trained + activations + RESIDENT_GB) / GIB
}
