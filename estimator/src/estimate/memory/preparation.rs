//! Memory before the steps, while captions and samples are encoded and weights quantised.
//!
//! SimpleTuner 4.10.1 first has the autoencoder and all text encoders on the GPU and encodes captions and samples there; then
//! both go, and the weights come, in half precision, to be quantised where they are. A run whose steps would fit can end
//! there for want of memory.

use stepcast_records::simpletuner::{Dataset, OffRecord, Preparation, Workload};
use stepcast_records::{Basis, FrameClass, Method, PhaseKind, Quantization};

use super::companions::{self, SampleEncoder};
use super::{GIB, Need, WEIGHT_BYTES, quantized_bytes};
use crate::estimate::size;

/// What PyTorch and the GPU's libraries hold for themselves, in GiB.
const CONTEXT_GIB: f64 = 0.6;
/// Memory that is taken for encoding samples over what is alive at once: workspaces and what is left between allocations.
/// An H100, which has enough of it, took 1.7 times as much for four images (of SDXL and of FLUX, benches/README); a GPU that
/// has not makes do with less, and never with less than what is alive.
const TAKEN: f64 = 1.45;
/// How wrong that is: a standard deviation of the logarithm, so that nine in ten need more than what is alive.
const TAKEN_SPREAD: f64 = 0.30;
/// How wrong weights are: sizes are rounded.
const WEIGHTS_SPREAD: f64 = 0.02;
/// Of a GPU's memory, weights can have nearly all: they are taken in large pieces.
const USABLE_FOR_WEIGHTS: f64 = 0.98;

/// What a run needs before its steps.
pub(super) fn needs(workload: &Workload) -> impl Iterator<Item = Need> {
    let encoding = companions::of(workload.recipe).map(|companions| {
        let billions = companions.encoders_billions;
        let text = text(workload.preparation, billions, companions.samples);
        let samples = companions.samples;
        [
            Some(text),
            samples.and_then(|encoder| latents(workload, billions, encoder)),
        ]
    });
    let encoding = encoding.into_iter().flatten().flatten();
    encoding.chain(quantizing(workload))
}

/// All text encoders beside the autoencoder, as they are read.
fn text(preparation: Preparation, billions: f64, samples: Option<SampleEncoder>) -> Need {
    let bytes = match preparation.quantized_on_host {
        true => quantized_bytes(preparation.encoders),
        false => WEIGHT_BYTES,
    };
    let held_gib = CONTEXT_GIB + samples.map_or(0.0, |encoder| encoder.weights_gib);
    weights(held_gib, billions * bytes / GIB, PhaseKind::CacheText)
}

/// Samples that are encoded, beside the text encoders if these stay; `None` where that is left for the steps.
fn latents(workload: &Workload, billions: f64, encoder: SampleEncoder) -> Option<Need> {
    if workload.off_record.contains(&OffRecord::OnDemandCache) {
        return None;
    }
    let preparation = workload.preparation;
    let is_image = |dataset: &Dataset| dataset.frames == FrameClass::Single;
    let has_images = workload.datasets.iter().any(is_image);
    let alive = workload.datasets.iter().map(|dataset| {
        let frames = dataset.frames.max_frames();
        let given = preparation.encoded_at_once;
        let at_once = u64::from(match (is_image(dataset), has_images) {
            (true, _) => given.unwrap_or(Preparation::IMAGES_AT_ONCE),
            // The number is the largest of any data set, which is that of the images.
            (false, true) => 1,
            (false, false) => given.unwrap_or(1),
        });
        let at_once = at_once.min(dataset.samples.unwrap_or(at_once));
        encoder.alive_gib(
            dataset.resolution.megapixels(),
            f64::from(frames),
            at_once as f64,
            preparation.tiled,
        )
    });
    let alive = alive.fold(0.0, f64::max);
    let encoders = match preparation.encoders_offloaded {
        true => 0.0,
        false => billions * quantized_bytes(preparation.encoders) / GIB,
    };
    let held_gib = CONTEXT_GIB + encoder.weights_gib + encoders;
    let at = |reach: f64| held_gib + alive * TAKEN * (TAKEN_SPREAD * reach).exp();
    let phase = PhaseKind::CacheLatents;
    Some(Need::of(at, Basis::Rough, phase, super::USABLE))
}

/// Weights in half precision that are quantised on the GPU. What bitsandbytes quantises (nf4) it does as it reads.
fn quantizing(workload: &Workload) -> Option<Need> {
    let is_read_so = workload.quantization == Quantization::Nf4
        && !workload.off_record.contains(&OffRecord::Quantization);
    let is_whole = workload.quantization == Quantization::None
        || workload.recipe.method() == Method::Full
        || workload.preparation.quantized_on_host
        || is_read_so;
    let gib = size::billions(workload.recipe) * WEIGHT_BYTES / GIB;
    (!is_whole).then(|| weights(CONTEXT_GIB, gib, PhaseKind::Quantize))
}

/// The weights as they lie on the GPU for as long as it trains; `None` where they are of a form that is not known here.
pub(super) fn resident(workload: &Workload) -> Option<Need> {
    if workload.off_record.contains(&OffRecord::Quantization) {
        return None;
    }
    let bytes = match workload.recipe.method() {
        Method::Full => WEIGHT_BYTES,
        _ => quantized_bytes(workload.quantization),
    };
    let gib = size::billions(workload.recipe) * bytes / GIB;
    Some(weights(CONTEXT_GIB, gib, PhaseKind::Train))
}

/// Weights as they are, beside what is held.
fn weights(held_gib: f64, gib: f64, phase: PhaseKind) -> Need {
    let at = |reach: f64| held_gib + gib * (WEIGHTS_SPREAD * reach).exp();
    Need::of(at, Basis::Rough, phase, USABLE_FOR_WEIGHTS)
}

#[cfg(test)]
mod tests {
    use stepcast_records::simpletuner::{Length, Sharing};
    use stepcast_records::{Family, Fit, GpuModel, HalfMegapixels, Memory, Precision, Recipe};

    use super::super::Needs;
    use super::*;

    fn run(recipe: &str, quantization: Quantization, preparation: Preparation) -> Workload {
        Workload {
            recipe: Recipe::parse(recipe).expect("recipe"),
            precision: Precision::Bf16,
            quantization,
            accumulation: 1,
            context_parallel: 1,
            datasets: vec![Dataset {
                resolution: HalfMegapixels::new(2).expect("a bucket"),
                frames: FrameClass::Single,
                batch_size: 1,
                samples: Some(12),
                repeats: 0,
                padded: false,
            }],
            length: Length::Steps(100),
            checkpoint_every: None,
            validation: None,
            off_record: Vec::new(),
            preparation,
            sharing: Sharing::default(),
        }
    }

    fn on(workload: &Workload, gpu: &str) -> Memory {
        let plan = workload.plan(1).expect("a plan");
        let gpu: GpuModel = gpu.parse().expect("gpu");
        Needs::of(workload, &plan)
            .on(gpu, |_| false)
            .expect("it has memory")
    }

    fn sdxl(preparation: Preparation) -> Workload {
        run("sdxl.base-1.0/lora+ckpt", Quantization::None, preparation)
    }

    /// An H100 took 11.0 GiB while it encoded, and 7.0 in the steps (benches/README, "On a real GPU").
    #[test]
    fn encoding_four_images_takes_more_than_a_step_with_checkpointing() {
        let memory = on(&sdxl(Preparation::default()), "h100");
        assert_eq!(memory.phase, PhaseKind::CacheLatents);
        let measured = 11_225;
        assert!(
            (memory.need_mib_p10..=memory.need_mib_p90).contains(&measured),
            "{memory:?}"
        );
        assert_eq!(memory.fit, Fit::Fits);
    }

    #[test]
    fn who_encodes_one_by_one_or_in_tiles_needs_less() {
        let usual = sdxl(Preparation::default());
        let one = Preparation {
            encoded_at_once: Some(1),
            ..Preparation::default()
        };
        let by_one = on(&sdxl(one), "h100");
        assert_eq!(by_one.phase, PhaseKind::Train, "{by_one:?}");
        let mut few = usual.clone();
        few.datasets[0].samples = Some(1);
        assert_eq!(on(&few, "h100"), by_one, "there is only one");
        let large = |tiled| {
            let preparation = Preparation { tiled, ..one };
            let mut workload = sdxl(preparation);
            workload.datasets[0].resolution = HalfMegapixels::new(8).expect("a bucket");
            let needs = needs(&workload).find(|need| need.phase == PhaseKind::CacheLatents);
            needs.expect("samples are encoded").p50
        };
        assert!(large(true) < large(false) / 1.5);
    }

    /// How many images are encoded at once says nothing of the clips beside them.
    #[test]
    fn clips_are_encoded_one_by_one_beside_images() {
        let mut clips = run(
            "hunyuanvideo.t2v-480p/lora+ckpt@81f",
            Quantization::None,
            Preparation::default(),
        );
        clips.datasets[0].frames = FrameClass::from_frames(81).expect("a class");
        let alone = |workload: &Workload| {
            let found = needs(workload).find(|need| need.phase == PhaseKind::CacheLatents);
            found.expect("samples are encoded").p50
        };
        let mut mixed = clips.clone();
        mixed.preparation.encoded_at_once = Some(2);
        let twice = alone(&mixed);
        mixed.datasets.push(Dataset {
            frames: FrameClass::Single,
            ..mixed.datasets[0].clone()
        });
        assert!(
            alone(&mixed) < twice,
            "two clips at once only where there are no images"
        );
        assert!((alone(&mixed) - alone(&clips)).abs() < 1e-9);
    }

    /// Text encoders of billions stay where they are unless they are told to go.
    #[test]
    fn kolors_needs_room_for_its_language_model() {
        let kolors = |preparation| run("kolors.1.0/lora+ckpt", Quantization::Int8, preparation);
        let usual = on(&kolors(Preparation::default()), "rtx4080");
        assert_eq!(
            (usual.phase, usual.fit),
            (PhaseKind::CacheLatents, Fit::WillNot),
            "{usual:?}"
        );
        let offloaded = Preparation {
            encoders_offloaded: true,
            ..Preparation::default()
        };
        let offloaded = on(&kolors(offloaded), "rtx4080");
        assert_eq!(
            (offloaded.phase, offloaded.fit),
            (PhaseKind::CacheText, Fit::Fits),
            "{offloaded:?}"
        );
        let quantized = Preparation {
            encoders: Quantization::Int8,
            quantized_on_host: true,
            ..Preparation::default()
        };
        let quantized = on(&kolors(quantized), "rtx4080");
        assert!(
            quantized.need_mib_p50 < usual.need_mib_p50,
            "{quantized:?}, {usual:?}"
        );
    }

    /// As people found it (SimpleTuner's issue 1149): int8 of eight billion parameters ends at once on 16 GiB unless it is
    /// quantised by the host.
    #[test]
    fn weights_come_whole_to_the_gpu_that_quantises_them() {
        let large = |quantization, on_host| {
            let preparation = Preparation {
                encoded_at_once: Some(1),
                encoders_offloaded: true,
                quantized_on_host: on_host,
                ..Preparation::default()
            };
            let workload = run("sd3.large/lora+ckpt", quantization, preparation);
            on(&workload, "rtx4080")
        };
        let on_gpu = large(Quantization::Int8, false);
        assert_eq!(
            (on_gpu.phase, on_gpu.fit),
            (PhaseKind::Quantize, Fit::MayNot),
            "{on_gpu:?}"
        );
        assert_ne!(large(Quantization::Int8, true).phase, PhaseKind::Quantize);
        assert_ne!(large(Quantization::Nf4, false).phase, PhaseKind::Quantize);
    }

    /// A run that is not quantised holds all of its weights for as long as it trains, and quantising them needs no more.
    #[test]
    fn weights_that_do_not_fit_are_not_trained_on() {
        let mut seen = 0;
        for family in Family::all() {
            for flavour in family.flavours() {
                let recipe = format!("{family}.{flavour}/lora+ckpt");
                let plain = run(&recipe, Quantization::None, Preparation::default());
                let quantized = run(&recipe, Quantization::Int8, Preparation::default());
                let weights = size::billions(plain.recipe) * WEIGHT_BYTES / GIB;
                for gpu in ["v100-16", "rtx5090", "a100-40", "l40s", "h200"] {
                    let (plain, quantized) = (on(&plain, gpu), on(&quantized, gpu));
                    let least = weights * 0.96 * 1_024.0;
                    assert!(f64::from(plain.need_mib_p10) > least, "{recipe} {plain:?}");
                    if least > f64::from(plain.gpu_mib) {
                        assert_eq!(plain.fit, Fit::WillNot, "{recipe} on {gpu}: {plain:?}");
                    }
                    if quantized.phase == PhaseKind::Quantize && quantized.fit == Fit::WillNot {
                        assert_eq!(plain.fit, Fit::WillNot, "{recipe} on {gpu}: {plain:?}");
                    }
                    seen += 1;
                }
            }
        }
        assert!(seen > 300, "{seen}");
    }
}
