//! Memory: what a run needs on each GPU, from published peaks where there are some, and whether it fits.
//!
//! A formula of weights, what is trained and activations says how a need changes from one shape to another; the nearest
//! published peak says where it stands. Published peaks are of steps; what a run needs before them is reckoned beside them,
//! and the larger counts. What images to look at need is left out: SimpleTuner 4.10.1 reports one that finds no memory, and
//! goes on training. Nothing is recorded of runs: the policy has no such field.

mod companions;
mod preparation;
mod published;
#[cfg(test)]
mod tests;

use stepcast_records::simpletuner::{OffRecord, Plan, Workload};
use stepcast_records::{
    Basis, Checkpointing, Fit, GpuModel, Memory, Method, PhaseKind, Quantization, Recipe,
    TrainingShape,
};

use super::{size, work};
use published::Published;

/// The GPU's own share of its memory, and what fragmentation takes.
const USABLE: f64 = 0.95;
/// Thousand million bytes in a GiB.
const GIB: f64 = 1.073_741_824;
/// A weight in half precision, as it is read.
const WEIGHT_BYTES: f64 = 2.0;
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
    /// The part that is known.
    held_gib: f64,
    /// Half need less than this beside it.
    gib: f64,
    /// Standard deviation of the logarithm of the truth around it.
    deviation: f64,
    basis: Basis,
    phase: PhaseKind,
    /// How much of a GPU's memory it can have.
    usable: f64,
}

/// What a run asks for, whatever the GPU.
pub(super) struct Needs {
    /// Of each kind of step, with its shape, and of what comes before them.
    each: Vec<(Option<TrainingShape>, Need)>,
}

impl Needs {
    /// Nothing for a run that keeps its weights elsewhere.
    pub(super) fn of(workload: &Workload, plan: &Plan) -> Self {
        let elsewhere = [OffRecord::Offload, OffRecord::Sharding];
        let is_elsewhere = |reason| workload.off_record.contains(reason);
        if elsewhere.iter().any(is_elsewhere) {
            return Self { each: Vec::new() };
        }
        let steps = plan.training.iter();
        let steps = steps.map(|(shape, _)| (Some(*shape), step(shape)));
        let before = preparation::needs(workload).map(|need| (None, need));
        Self {
            each: steps.chain(before).collect(),
        }
    }

    /// What it is on each GPU of a model; `None` for one without memory of its own and where nothing is asked for.
    pub(super) fn on(&self, gpu: GpuModel) -> Option<Memory> {
        if gpu.memory_gib() == 0 {
            return None;
        }
        let each = self.each.iter().map(|(shape, need)| {
            let usable = f64::from(gpu.memory_gib()) * need.usable;
            let said = shape.and_then(|shape| said(&shape, gpu, usable));
            need.on(gpu, usable, said)
        });
        each.max_by_key(|memory| (memory.fit, memory.need_mib_p50))
    }
}

impl Need {
    /// What so many standard deviations of such runs need less than, in GiB.
    fn at(&self, reach: f64) -> f64 {
        self.held_gib + self.gib * (self.deviation * reach).exp()
    }

    /// Whether it fits a GPU, by what was said of it or by what is usable.
    fn on(&self, gpu: GpuModel, usable: f64, said: Option<Fit>) -> Memory {
        let is_more = |reach| self.at(reach) > usable;
        let fit = match said {
            Some(fit) => fit,
            None if is_more(-Z_TENTH) => Fit::WillNot,
            None if is_more(Z_QUARTER) => Fit::MayNot,
            None => Fit::Fits,
        };
        // A float too large for the integer becomes the largest one.
        let mib = |gib: f64| (gib * 1_024.0).round() as u32;
        Memory {
            need_mib_p10: mib(self.at(-Z_TENTH)),
            need_mib_p50: mib(self.at(0.0)),
            need_mib_p90: mib(self.at(Z_TENTH)),
            gpu_mib: u32::from(gpu.memory_gib()) * 1_024,
            basis: self.basis,
            fit,
            phase: self.phase,
        }
    }
}

/// What published runs alone say: one that asks for as much was too large for as much memory, or one that asks for no
/// less has fitted.
fn said(shape: &TrainingShape, gpu: GpuModel, usable: f64) -> Option<Fit> {
    let known = published::of(shape.recipe.family());
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

/// The need of a step.
fn step(shape: &TrainingShape) -> Need {
    let mut need = need(shape, published::of(shape.recipe.family()));
    if shape.recipe.method() == Method::Lycoris {
        need.deviation = need.deviation.hypot(spread::LYCORIS);
    }
    need
}

/// The need of a step by the nearest published peak of the family, or by the formula alone.
fn need(shape: &TrainingShape, known: &[Published]) -> Need {
    let formula = formula_gib(shape);
    let alone = Need {
        held_gib: 0.0,
        gib: formula,
        deviation: spread::FORMULA,
        basis: Basis::Rough,
        phase: PhaseKind::Train,
        usable: USABLE,
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
            ..alone
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
    match shape.recipe.method() {
        Method::Full => WEIGHT_BYTES,
        _ => quantized_bytes(shape.quantization),
    }
}

/// Bytes of one weight that is quantised so.
fn quantized_bytes(quantization: Quantization) -> f64 {
    match quantization {
        Quantization::None => WEIGHT_BYTES,
        Quantization::Int8 => 1.1,
        Quantization::Nf4 => 0.6,
    }
}

/// Memory of one GPU that a step asks for by the size of the model, in GiB.
fn formula_gib(shape: &TrainingShape) -> f64 {
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
