//! Where the model starts from: what a step asks of the host and of the GPU, before anything was measured.
//!
//! The arithmetic follows from parameters and tokens (Kaplan et al. 2020, section 2.1: two operations a parameter and
//! token forward, as many again for each gradient), the launches from the layers. Both are coarse: the model corrects
//! them by what it sees.

use stepcast_records::hardware::Rated;

/// Host time of one micro-batch of a network of [`LAYERS_USUAL`] layers: what small models at batch 1 take whatever
/// the GPU (published: 180 to 320 ms for LoRA).
const HOST_MS: f64 = 200.0;
const LAYERS_USUAL: f64 = 36.0;
/// Host time grows less than the layers do, because a part of it is spent once a step.
const HOST_BY_LAYERS: f64 = 0.7;
/// Share of a step's host time that one forward pass takes.
const HOST_FORWARD: f64 = 0.25;
/// Share of its rated arithmetic that a GPU reaches with heavy models: 0.35 to 0.58 in the published figures of
/// Krea 2, Qwen-Image and Wan.
const UTILISATION: f64 = 0.45;
/// How much of a GPU's speed is its arithmetic; the rest is the bandwidth of its memory.
const COMPUTE_SHARE: f64 = 0.85;
/// TFLOP/s per GB/s of the board that the utilisation was read from (H100 SXM).
const REFERENCE_INTENSITY: f64 = 989.0 / 3_360.0;
/// TFLOP/s that stand for a device without a rating; its own effect is then free.
const SPEED_UNRATED: f64 = 30.0;
/// Text and conditioning tokens beside those of the pixels.
const TEXT_TOKENS: f64 = 400.0;

/// A network and what is put through it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The family's name in the registry; another name is a usual transformer.
    pub(super) family: &'a str,
    pub(super) billions: f64,
    pub(super) layers: f64,
    /// Pixels of a frame, and frames.
    pub(super) pixels: f64,
    pub(super) frames: f64,
    /// Floating point operations per parameter and token.
    pub(super) passes: f64,
    pub(super) samples: f64,
    /// Micro-batches of a step, denoising steps of an image.
    pub(super) repeats: f64,
    /// An image instead of a step: forward passes only.
    pub(super) forward_only: bool,
}

/// What is asked for, whatever the GPU: the host's milliseconds, then the arithmetic in TFLOP.
pub(super) fn work(asked: &Asked<'_>) -> (f64, f64) {
    let host = HOST_MS * (asked.layers / LAYERS_USUAL).powf(HOST_BY_LAYERS);
    let host = host
        * if asked.forward_only {
            HOST_FORWARD
        } else {
            1.0
        };
    let tokens = tokens(asked);
    let linear = asked.family.starts_with("sana");
    // Of a transformer of width d, attention over n tokens adds n / 6d to its matrix products.
    let attention = if linear {
        1.0
    } else {
        1.0 + tokens / (6.0 * width(asked.billions))
    };
    let tflop = asked.passes * asked.samples * asked.billions * tokens * attention / 1_000.0;
    (host * asked.repeats, tflop * asked.repeats)
}

/// Milliseconds that so much arithmetic takes on a GPU.
pub(super) fn compute_ms(tflop: f64, rated: Option<Rated>) -> f64 {
    tflop / speed(rated) * 1_000.0
}

/// TFLOP/s that a GPU reaches.
fn speed(rated: Option<Rated>) -> f64 {
    let mixed = |rated: Rated| {
        let bandwidth = rated.memory_gb_per_s * REFERENCE_INTENSITY;
        rated.bf16_tflops.powf(COMPUTE_SHARE) * bandwidth.powf(1.0 - COMPUTE_SHARE)
    };
    UTILISATION * rated.map_or(SPEED_UNRATED, mixed)
}

/// The width of a transformer of this size, by the proportions of a 12 billion one of width 3,072.
fn width(billions: f64) -> f64 {
    3_072.0 * (billions / 12.0).cbrt()
}

/// Tokens of one sample.
fn tokens(asked: &Asked<'_>) -> f64 {
    let (pixels_per_token, frames_per_token) = match asked.family {
        "ltxvideo" | "ltxvideo2" => (1_024.0, 8.0),
        "sana" | "sanavideo" | "stable_cascade" => (1_024.0, 4.0),
        _ => (256.0, 4.0),
    };
    let latent_frames = ((asked.frames - 1.0) / frames_per_token).floor() + 1.0;
    TEXT_TOKENS + asked.pixels / pixels_per_token * latent_frames
}
