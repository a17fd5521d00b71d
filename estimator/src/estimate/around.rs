//! What surrounds the steps: loading, caching and saving, and whether the model fits the memory. Both are rough.

use stepcast_records::simpletuner::{OffRecord, Plan, Workload};
use stepcast_records::{Checkpointing, Hardware, Method, Quantiles, Quantization, TrainingShape};

use super::{size, width, work};

/// Starting the trainer, its libraries and the GPU, before the first byte of a model is read.
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

/// Loading, caching and saving, in milliseconds.
pub(super) fn setup(workload: &Workload, plan: &Plan, hardware: Hardware) -> Quantiles {
    let billions = size::billions(workload.recipe);
    let load = (2.0 * billions + COMPANIONS_GB) / LOAD_GB_PER_S * 1_000.0;
    let quantize = match workload.quantization {
        Quantization::None => 0.0,
        Quantization::Int8 | Quantization::Nf4 => billions * QUANTIZE_MS_PER_BILLION,
    };
    let saved_gb = size::trained_billions(workload.recipe) * SAVED_BYTES;
    let save = SAVE_MS + saved_gb / SAVE_GB_PER_S * 1_000.0;
    let saves = plan.checkpoints as f64 + 1.0;
    let middle =
        START_MS + load + quantize + caching(workload) / f64::from(hardware.count) + save * saves;
    let (low, high) = width::factors(width::SETUP * width::SETUP);
    Quantiles {
        p10: (middle * low) as u64,
        p50: middle as u64,
        p90: (middle * high) as u64,
    }
}

/// Encoding every sample once; data sets of unknown size are left out.
fn caching(workload: &Workload) -> f64 {
    let datasets = workload.datasets.iter();
    let each = datasets.map(|dataset| {
        let frames = f64::from(dataset.frames.max_frames());
        let latents = 1.0 + (frames - 1.0) / FRAMES_PER_LATENT;
        let sample = CAPTION_MS + dataset.resolution.megapixels() * MEGAPIXEL_MS * latents;
        dataset.samples.unwrap_or(0) as f64 * sample
    });
    each.sum()
}

/// Whether the model may not fit the memory of one GPU.
pub(super) fn is_tight(workload: &Workload, plan: &Plan, hardware: Hardware) -> bool {
    let elsewhere = [OffRecord::Offload, OffRecord::Sharding];
    let memory_gib = f64::from(hardware.gpu.memory_gib());
    if memory_gib == 0.0
        || elsewhere
            .iter()
            .any(|reason| workload.off_record.contains(reason))
    {
        return false;
    }
    let shapes = plan.training.iter().map(|(shape, _)| need_gib(shape));
    shapes.fold(0.0, f64::max) > memory_gib * USABLE
}

/// Memory of one GPU that a step asks for, in GiB.
fn need_gib(shape: &TrainingShape) -> f64 {
    const GIB: f64 = 1.073_741_824;
    let recipe = shape.recipe;
    let billions = size::billions(recipe);
    let bytes = match (recipe.method(), shape.quantization) {
        (Method::Full, _) | (_, Quantization::None) => 2.0,
        (_, Quantization::Int8) => 1.1,
        (_, Quantization::Nf4) => 0.6,
    };
    let weights = billions * bytes;
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

#[cfg(test)]
mod tests {
    use stepcast_records::Recipe;

    use super::*;
    use crate::testing::training_key;

    /// Peaks that SimpleTuner's sweep published, in GiB, against the rough need.
    #[test]
    fn the_need_is_near_published_peaks() {
        let need = |recipe: &str, quantization| {
            let mut shape = training_key(recipe, "h100").shape();
            shape.batch_size = stepcast_records::BatchSize::new(1).expect("grid");
            shape.quantization = quantization;
            assert!(Recipe::parse(recipe).is_some());
            need_gib(&shape)
        };
        for (recipe, quantization, published) in [
            ("qwen_image.v1.0/lora+ckpt", Quantization::None, 41.0),
            ("qwen_image.v1.0/lora+ckpt", Quantization::Int8, 24.1),
            ("zlab_i1.3b/lora+ckpt", Quantization::None, 7.8),
            ("sdxl.base-1.0/lycoris+ckpt", Quantization::None, 6.5),
        ] {
            let ratio = need(recipe, quantization) / published;
            assert!(
                (0.6..1.6).contains(&ratio),
                "{recipe} {quantization}: {ratio}"
            );
        }
    }
}
