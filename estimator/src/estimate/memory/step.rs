//! What a step needs: a formula, and what published peaks say of it.

use stepcast_records::simpletuner::Workload;
use stepcast_records::{
    Basis, Checkpointing, Fit, GpuModel, Method, PhaseKind, Recipe, TrainingShape,
};

use super::published::{self, Published};
use super::{GIB, Need, USABLE, WEIGHT_BYTES, quantized_bytes};
use crate::estimate::{size, work};

/// Kernels, caches and the companions that stay, in GB.
const RESIDENT_GB: f64 = 2.0;
/// Gradient and optimizer state of a trained parameter in bytes: bf16 gradient, two moments in bf16.
const TRAINED_BYTES: f64 = 6.0;
/// Bytes that one token leaves in one layer for each of its channels, when activations are kept. Published peaks
/// of Chroma, SD3 and Wan lie between 20 and 28.
const ACTIVATION_BYTES: f64 = 20.0;
/// With checkpointing only a layer's input is kept; measured peaks ask for about this share of the rest.
const CHECKPOINTED_SHARE: f64 = 0.08;

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

/// A step as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::estimate) struct Step {
    pub(in crate::estimate) shape: TrainingShape,
    /// Its batch, which may lie off the grid of shapes.
    pub(super) samples: f64,
}

impl Step {
    /// The largest of a workload that has this shape.
    pub(super) fn of(workload: &Workload, shape: TrainingShape) -> Self {
        let samples = workload.batches_of(shape).max();
        Self {
            shape,
            samples: samples.map_or_else(|| Self::from(shape).samples, f64::from),
        }
    }

    /// What published runs alone say: one that asks for as much was too large for as much memory, or one that asks for no
    /// less has fitted.
    pub(super) fn said(&self, gpu: GpuModel, usable: f64) -> Option<Fit> {
        let known = published::of(self.shape.recipe.family());
        let too_large = |other: &&Published| {
            let small = other
                .too_small
                .is_some_and(|tried| gpu.memory_gib() <= tried.memory_gib());
            small && self.asks_as_much_as(&other.shape.into())
        };
        if known.iter().any(|other| too_large(&other)) {
            return Some(Fit::WillNot);
        }
        // That one LyCORIS adapter has fitted says little of another.
        let is_alike = self.shape.recipe.method() != Method::Lycoris;
        let fits = |other: &Published| {
            let peak = other.peak_gib.is_some_and(|peak| peak <= usable);
            peak && Self::from(other.shape).asks_as_much_as(self)
        };
        (is_alike && known.iter().any(fits)).then_some(Fit::Fits)
    }

    /// Whether it asks for as much memory as another step of the same model, or more, in every respect.
    pub(in crate::estimate) fn asks_as_much_as(&self, less: &Self) -> bool {
        let (a, b) = (self.shape.recipe, less.shape.recipe);
        let saves = |recipe: Recipe| recipe.checkpointing() == Checkpointing::On;
        a.family() == b.family()
            && a.flavour() == b.flavour()
            && a.method() == b.method()
            && (saves(b) || !saves(a))
            && a.frames() >= b.frames()
            && self.shape.resolution >= less.shape.resolution
            && self.samples >= less.samples
            && bytes(&self.shape) >= bytes(&less.shape)
    }

    /// What it needs, as far as is published.
    pub(super) fn need(&self) -> Need {
        let more = match self.shape.recipe.method() {
            Method::Lycoris => spread::LYCORIS,
            _ => 0.0,
        };
        self.by(published::of(self.shape.recipe.family()), more)
    }

    /// The need by the nearest published peak of the family, however far that is, or by the formula where there is none: what
    /// a peak says of the formula holds for more samples as well, and a need must not fall where it would be given up. `doubt`
    /// is one more standard deviation of the logarithm.
    pub(super) fn by(&self, known: &[Published], doubt: f64) -> Need {
        let peaks = known.iter().filter_map(|other| {
            let (peak, from) = (other.peak_gib?, Self::from(other.shape));
            Some((variance(&from, self), from, peak / from.formula_gib()))
        });
        let Some((variance, from, times)) = peaks.min_by(|a, b| a.0.total_cmp(&b.0)) else {
            let deviation = spread::FORMULA.hypot(doubt);
            let at = |reach: f64| self.formula_gib() * (deviation * reach).exp();
            return Need::of(at, Basis::Rough, PhaseKind::Train, USABLE);
        };
        let is_near = self.shape.recipe.flavour() == from.shape.recipe.flavour()
            && variance.sqrt() < spread::FORMULA;
        let basis = match (*self == from, is_near) {
            (true, _) => Basis::Exact,
            (false, true) => Basis::Near,
            (false, false) => Basis::Rough,
        };
        let at = |reach| self.carried(&from, times, doubt, reach);
        Need::of(at, basis, PhaseKind::Train, USABLE)
    }

    /// What so many standard deviations of such steps need less than, in GiB, by a step that needs `times` what the formula
    /// says. The further away the less certain, but a larger step surely needs what a smaller one does, and a smaller one
    /// no more than a larger one.
    fn carried(&self, from: &Self, times: f64, doubt: f64, reach: f64) -> f64 {
        let at = |step: &Self| {
            let deviation = variance(from, step).sqrt().min(spread::FORMULA);
            step.formula_gib() * times * (deviation.hypot(doubt) * reach).exp()
        };
        let between = self.towards(from, if reach < 0.0 { f64::gt } else { f64::lt });
        let own = at(self);
        if reach < 0.0 {
            between.fold(own, |most, step| at(&step).max(most))
        } else {
            between.fold(own, |least, step| at(&step).min(least))
        }
    }

    /// This step with the samples, the pixels or the frames of another, or several of these, where its own are beyond.
    fn towards(
        &self,
        other: &Self,
        is_beyond: impl Fn(&f64, &f64) -> bool,
    ) -> impl Iterator<Item = Self> {
        let (own, there) = (self.sizes(), other.sizes());
        let beyond = [0, 1, 2].map(|size| is_beyond(&own[size], &there[size]));
        let (step, other) = (*self, *other);
        let choices = (1_u8..8).filter(move |choice| {
            let is_chosen = |size: &usize| choice >> size & 1 == 1;
            (0..3).filter(is_chosen).all(|size| beyond[size])
        });
        choices.map(move |choice| {
            let mut step = step;
            if choice & 1 == 1 {
                step.samples = other.samples;
            }
            if choice & 2 == 2 {
                step.shape.resolution = other.shape.resolution;
            }
            if choice & 4 == 4 {
                let frames = other.shape.recipe.frames().max_frames();
                let recipe = step.shape.recipe;
                step.shape.recipe = recipe.at_frames(frames).unwrap_or(recipe);
            }
            step
        })
    }

    /// Samples, megapixels and frames.
    fn sizes(&self) -> [f64; 3] {
        let frames = self.shape.recipe.frames().max_frames();
        let megapixels = self.shape.resolution.megapixels();
        [self.samples, megapixels, f64::from(frames)]
    }

    /// Memory of one GPU that it asks for by the size of the model, in GiB.
    pub(super) fn formula_gib(&self) -> f64 {
        let recipe = self.shape.recipe;
        let billions = size::billions(recipe);
        let weights = billions * bytes(&self.shape);
        let trained = size::trained_billions(recipe) * TRAINED_BYTES;
        let kept = match recipe.checkpointing() {
            Checkpointing::Off => 1.0,
            Checkpointing::On => CHECKPOINTED_SHARE,
        };
        let activations = ACTIVATION_BYTES
            * work::channels_of_all_layers(billions)
            * work::tokens(recipe, self.shape.resolution)
            * self.samples
            * kept
            / 1e9;
        (weights + trained + activations + RESIDENT_GB) / GIB
    }
}

impl From<TrainingShape> for Step {
    fn from(shape: TrainingShape) -> Self {
        let samples = f64::from(shape.batch_size.get());
        Self { shape, samples }
    }
}

/// The variance of a need that is carried from one shape to another.
fn variance(from: &Step, to: &Step) -> f64 {
    let (a, b) = (from.shape.recipe, to.shape.recipe);
    let mut variance = spread::AGAIN * spread::AGAIN;
    let mut add = |deviation: f64, times: f64| variance += (deviation * times).powi(2);
    if a.checkpointing() != b.checkpointing() {
        add(spread::CHECKPOINTING, 1.0);
    }
    if from.shape.quantization != to.shape.quantization {
        add(spread::QUANTIZATION, 1.0);
    }
    let doublings = |a: f64, b: f64| (a / b).log2().abs();
    for (from, to) in from.sizes().into_iter().zip(to.sizes()) {
        add(spread::DOUBLING, doublings(from, to));
    }
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
