//! The work of a step: arithmetic that the GPU is rated for, and launches that wait for the host.
//!
//! Two parts, because a rating predicts heavy models only: in the published figures an H100, rated 2.7 times an
//! L40S, is 2 to 3 times faster where the arithmetic fills it and no faster at all where a small batch of a
//! small model leaves it waiting. The model is coarse on purpose. It says how a *measured* time changes when
//! one thing about it changes; only where nothing was measured does it stand alone.

use stepcast_records::hardware::Rated;
use stepcast_records::{
    Checkpointing, HalfMegapixels, Hardware, Method, Modality, Quantization, Recipe, TrainingShape,
    ValidationShape,
};

use super::size;

/// Share of its rated arithmetic that a GPU reaches with heavy models: 0.35 to 0.58 in the published figures of
/// Krea 2, Qwen-Image and Wan.
const UTILISATION: f64 = 0.45;
/// How much of a GPU's speed is its arithmetic; the rest is the bandwidth of its memory.
const COMPUTE_SHARE: f64 = 0.85;
/// TFLOP/s per GB/s of the board that the utilisation was read from (H100 SXM).
const REFERENCE_INTENSITY: f64 = 989.0 / 3_360.0;
/// Host time of one micro-batch: what small models at batch 1 take whatever the GPU (published: 180 to 320 ms
/// for LoRA, 300 to 640 ms for LyCORIS).
const HOST_MS: f64 = 200.0;
const HOST_MS_LYCORIS: f64 = 400.0;
const HOST_MS_FULL: f64 = 260.0;
/// Recomputing activations launches the forward pass again (published host-bound pairs: 1.4 to 2.0).
const HOST_CHECKPOINTED: f64 = 1.7;
/// Quantised layers launch more kernels (published host-bound pairs, int8: 2.2 to 3.9).
const HOST_INT8: f64 = 2.6;
/// Published heavy pairs, int8: 1.04 to 1.34.
const COMPUTE_INT8: f64 = 1.15;
/// No pair of figures is published for nf4; unpacking lies between none and int8's extra kernels.
const HOST_NF4: f64 = 1.6;
const COMPUTE_NF4: f64 = 1.2;
/// However heavy a model looks, so much of what the model gives the host is the host's: the quickest published
/// steps take about this share of it. Without it a much faster GPU would seem to leave no time at all.
const HOST_LEAST: f64 = 0.4;
/// But never more than this share of a measured time.
const HOST_LEAST_SHARE: f64 = 0.7;
/// Text and conditioning tokens beside those of the pixels.
const TEXT_TOKENS: f64 = 400.0;
/// Forward passes of one denoising step: some families run guidance as a second pass, some do not.
const GUIDANCE_PASSES: f64 = 1.5;
/// Host share of a forward pass in that of a whole step.
const HOST_FORWARD: f64 = 0.35;
/// What a further GPU costs: gradients are averaged at every step. Assumed, not measured here: adapters lose
/// about 4 % for each doubling, whole models about 10 %.
const SYNC_ADAPTER: f64 = 0.04;
const SYNC_FULL: f64 = 0.10;

/// What a step or an image asks for, apart from the hardware.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Arithmetic of one repeat in TFLOP.
    tflop: f64,
    /// Host time of one repeat in milliseconds.
    host_ms: f64,
    /// Micro-batches of a step, denoising steps of an image.
    repeats: f64,
    /// What each doubling of the GPUs adds, as a share.
    sync: f64,
}

/// What a [`Work`] costs on a hardware.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    host_ms: f64,
    compute_ms: f64,
    repeats: f64,
}

/// How far a measured time may be divided otherwise than the model would.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    /// The GPU's part is at least this share of the measured time.
    pub(super) compute_min: f64,
    /// The host's part is at most this many times what the model says.
    pub(super) host_max: f64,
}

impl Work {
    /// The work of one optimizer step.
    pub(super) fn of_step(shape: &TrainingShape) -> Self {
        let recipe = shape.recipe;
        let (host, compute) = quantized(shape.quantization);
        let recomputed = recipe.checkpointing() == Checkpointing::On;
        let passes = flop_per_parameter(recipe.method()) + if recomputed { 2.0 } else { 0.0 };
        let samples = f64::from(shape.batch_size.get());
        let host_ms = host_ms(recipe.method()) * if recomputed { HOST_CHECKPOINTED } else { 1.0 };
        Self {
            tflop: passes * samples * forward_units(recipe, shape.resolution) * compute,
            host_ms: host_ms * host,
            repeats: f64::from(shape.accumulation.get()),
            sync: match recipe.method() {
                Method::Full => SYNC_FULL,
                _ => SYNC_ADAPTER,
            },
        }
    }

    /// The work of one validation image.
    pub(super) fn of_image(shape: &ValidationShape) -> Self {
        let (host, compute) = quantized(shape.quantization);
        let forward = 2.0 * GUIDANCE_PASSES;
        Self {
            tflop: forward * forward_units(shape.recipe, shape.resolution) * compute,
            host_ms: HOST_MS * HOST_FORWARD * GUIDANCE_PASSES * host,
            repeats: f64::from(shape.inference_steps.get()),
            sync: 0.0,
        }
    }

    /// What it costs on a hardware; `None` where the hardware has no rating.
    pub(super) fn on(&self, hardware: Hardware) -> Option<Cost> {
        let rated = hardware.gpu.rated()?;
        Some(self.at(speed(rated), hardware.count))
    }

    /// What it costs at a speed in TFLOP/s.
    pub(super) fn at(&self, tflop_per_s: f64, count: u8) -> Cost {
        let sync = 1.0 + self.sync * f64::from(count).log2();
        Cost {
            host_ms: self.host_ms * sync,
            compute_ms: self.tflop / tflop_per_s * 1_000.0 * sync,
            repeats: self.repeats,
        }
    }
}

impl Cost {
    /// Milliseconds. Host and GPU work side by side, so the longer of the two decides.
    pub(super) fn total_ms(&self) -> f64 {
        self.repeats * self.host_ms.hypot(self.compute_ms)
    }

    /// The same with so many times the arithmetic.
    pub(super) const fn with_compute(self, times: f64) -> Self {
        Self {
            compute_ms: self.compute_ms * times,
            ..self
        }
    }

    /// What a time measured at this cost becomes at another one.
    ///
    /// The measured time is divided into the host's part and the GPU's. The GPU's is what the model says, within
    /// what `split` allows, because the model may take a heavy network for a light one.
    pub(super) fn carry(&self, measured_ms: f64, to: &Self, split: Split) -> f64 {
        let measured = measured_ms / self.repeats;
        let rest = |part: f64| (measured * measured - part * part).max(0.0).sqrt();
        let host_max = (self.host_ms * split.host_max).min(measured);
        let host_min = (self.host_ms * HOST_LEAST).min(measured * HOST_LEAST_SHARE);
        let compute = self.compute_ms.min(measured);
        let compute = compute
            .max(rest(host_max))
            .max(measured * split.compute_min);
        let compute = compute.min(rest(host_min));
        let host = rest(compute);
        let host = host * to.host_ms / self.host_ms;
        let compute = compute * to.compute_ms / self.compute_ms;
        to.repeats * host.hypot(compute)
    }
}

/// TFLOP/s that a GPU reaches.
fn speed(rated: Rated) -> f64 {
    let bandwidth = rated.memory_gb_per_s * REFERENCE_INTENSITY;
    let mixed = rated.bf16_tflops.powf(COMPUTE_SHARE) * bandwidth.powf(1.0 - COMPUTE_SHARE);
    mixed * UTILISATION
}

/// How many times host work and arithmetic a quantisation takes.
const fn quantized(quantization: Quantization) -> (f64, f64) {
    match quantization {
        Quantization::None => (1.0, 1.0),
        Quantization::Int8 => (HOST_INT8, COMPUTE_INT8),
        Quantization::Nf4 => (HOST_NF4, COMPUTE_NF4),
    }
}

const fn host_ms(method: Method) -> f64 {
    match method {
        Method::Lora | Method::ControlNetLora => HOST_MS,
        Method::Lycoris => HOST_MS_LYCORIS,
        Method::Full | Method::ControlNet => HOST_MS_FULL,
    }
}

/// Floating point operations per parameter and token: two forward, two for the gradient of the activations,
/// two for that of the weights where they are trained. A ControlNet is another half of the network.
const fn flop_per_parameter(method: Method) -> f64 {
    match method {
        Method::Lora | Method::Lycoris => 4.0,
        Method::ControlNetLora => 5.0,
        Method::Full => 6.0,
        Method::ControlNet => 7.0,
    }
}

/// Parameters times tokens of one sample in 10^12, attention included.
fn forward_units(recipe: Recipe, resolution: HalfMegapixels) -> f64 {
    let billions = size::billions(recipe);
    let tokens = tokens(recipe, resolution);
    let attention = if has_linear_attention(recipe) {
        1.0
    } else {
        // Of a transformer of width d, attention over n tokens adds n / 6d to its matrix products.
        1.0 + tokens / (6.0 * width(billions))
    };
    billions * tokens * attention / 1_000.0
}

/// The width of a transformer of this size, by the proportions of a 12 billion one of width 3,072.
fn width(billions: f64) -> f64 {
    3_072.0 * (billions / 12.0).cbrt()
}

/// Channels of all layers together, of a transformer of this size: 12 d d parameters a layer of width d.
pub(super) fn channels_of_all_layers(billions: f64) -> f64 {
    billions * 1e9 / (12.0 * width(billions))
}

/// Tokens of one sample.
pub(super) fn tokens(recipe: Recipe, resolution: HalfMegapixels) -> f64 {
    let (pixels_per_token, frames_per_token) = match recipe.family().name() {
        "ltxvideo" | "ltxvideo2" => (1_024.0, 8.0),
        "sana" | "stable_cascade" => (1_024.0, 4.0),
        _ => (256.0, 4.0),
    };
    let frames = f64::from(recipe.frames().max_frames());
    let latent_frames = ((frames - 1.0) / frames_per_token).floor() + 1.0;
    TEXT_TOKENS + pixels(recipe.modality(), resolution) / pixels_per_token * latent_frames
}

/// The usual number of pixels in a bucket: squares of 512 and 1,024, and 832 x 480 for clips.
pub(super) fn pixels(modality: Modality, resolution: HalfMegapixels) -> f64 {
    match (resolution.get(), modality) {
        (1, Modality::Video) => 832.0 * 480.0,
        (1, _) => 512.0 * 512.0,
        (2, _) => 1_024.0 * 1_024.0,
        _ => resolution.megapixels() * 1e6,
    }
}

fn has_linear_attention(recipe: Recipe) -> bool {
    matches!(recipe.family().name(), "sana" | "sanavideo")
}
