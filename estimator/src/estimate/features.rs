//! The points of the records' own keys.

use stepcast_records::{
    Checkpointing, Hardware, Key, Method, Recipe, TrainingShape, ValidationShape,
};

use super::model::{Point, SETTINGS, Traits};
use super::physics::{self, Asked};
use super::{size, work};

/// Guidance runs the network a second time in some families and not in others.
const GUIDANCE_PASSES: f64 = 1.5;

/// The point of a key, and what the ratings say of it in milliseconds.
pub(super) fn of_key(key: &Key) -> (Point, f64) {
    match key {
        Key::Training(key) => of_step(&key.shape(), key.hardware),
        Key::Validation(key) => of_image(&key.shape(), key.hardware),
    }
}

/// The point of a training step.
pub(super) fn of_step(shape: &TrainingShape, hardware: Hardware) -> (Point, f64) {
    let recipe = shape.recipe;
    let again = if recipe.checkpointing() == Checkpointing::On {
        2.0
    } else {
        0.0
    };
    let passes = again
        + match recipe.method() {
            Method::Lora | Method::Lycoris => 4.0,
            Method::ControlNetLora => 5.0,
            Method::Full => 6.0,
            Method::ControlNet => 7.0,
        };
    let asked = Asked {
        passes,
        samples: f64::from(shape.batch_size.get()),
        repeats: f64::from(shape.accumulation.get()),
        ..network(recipe, shape.resolution)
    };
    let checkpointing = match recipe.checkpointing() {
        Checkpointing::On => "recomputed",
        Checkpointing::Off => "none",
    };
    point(
        &asked,
        recipe,
        hardware,
        [recipe.method().slug(), checkpointing],
        [
            &shape.quantization.to_string(),
            &shape.precision.to_string(),
        ],
    )
}

/// The point of a validation image.
pub(super) fn of_image(shape: &ValidationShape, hardware: Hardware) -> (Point, f64) {
    let asked = Asked {
        passes: 2.0 * GUIDANCE_PASSES,
        samples: 1.0,
        repeats: f64::from(shape.inference_steps.get()),
        forward_only: true,
        ..network(shape.recipe, shape.resolution)
    };
    point(
        &asked,
        shape.recipe,
        hardware,
        ["image", "none"],
        [
            &shape.quantization.to_string(),
            &shape.precision.to_string(),
        ],
    )
}

fn network(recipe: Recipe, resolution: stepcast_records::HalfMegapixels) -> Asked<'static> {
    let family = recipe.family().name();
    Asked {
        family,
        billions: size::billions(recipe),
        layers: size::layers(family),
        pixels: work::pixels(recipe.modality(), resolution),
        frames: f64::from(recipe.frames().max_frames()),
        passes: 0.0,
        samples: 1.0,
        repeats: 1.0,
        forward_only: false,
    }
}

fn point(
    asked: &Asked<'_>,
    recipe: Recipe,
    hardware: Hardware,
    [method, checkpointing]: [&str; 2],
    [quantization, precision]: [&str; 2],
) -> (Point, f64) {
    let rated = hardware.gpu.rated();
    let (host_ms, compute_ms) = physics::times(asked, rated);
    let frames = recipe.frames().max_frames();
    let name = format!("{}.{}/{frames}", recipe.family().name(), recipe.flavour());
    let traits = Traits {
        family: asked.family,
        recipe: &name,
        method,
        gpu: hardware.gpu.slug(),
        gpus: f64::from(hardware.count),
        quantization: [quantization, ""],
        precision,
        checkpointing: [checkpointing, ""],
        offloaded: false,
        settings: [""; SETTINGS],
        batch: asked.samples,
        megapixels: asked.pixels / 1e6 * asked.frames,
        billions: asked.billions,
        host_ms,
        compute_ms,
    };
    (Point::of(&traits, rated), compute_ms)
}
