//! The points of the records' own keys.

use stepcast_records::{
    Checkpointing, Hardware, Key, Method, Recipe, TrainingShape, ValidationShape,
};

use super::model::{Board, Model, Point, Predicted, SETTINGS, Subject, Sums, Traits};
use super::physics::{self, Asked};
use super::{size, work};

/// Guidance runs the network a second time in some families and not in others.
const GUIDANCE_PASSES: f64 = 1.5;

/// A step or an image on no hardware yet.
#[derive(Debug)]
pub(super) struct About {
    subject: Subject,
    tflop: f64,
}

/// The point of a key on somebody else's host, and what the ratings say of it in milliseconds.
pub(super) fn of_key(key: &Key) -> (Point, f64) {
    let hardware = key.hardware();
    let about = match key {
        Key::Training(key) => About::of_step(&key.shape()),
        Key::Validation(key) => About::of_image(&key.shape()),
    };
    let board = board(about.tflop, hardware, false);
    (about.subject.on(&board), board.compute_ms)
}

/// The point of a training step, on a host of one's own or of somebody else.
pub(crate) fn of_step(shape: &TrainingShape, hardware: Hardware, own: bool) -> Point {
    let about = About::of_step(shape);
    about.subject.on(&board(about.tflop, hardware, own))
}

impl About {
    /// A training step.
    pub(super) fn of_step(shape: &TrainingShape) -> Self {
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
        Self::of(
            &asked,
            recipe,
            [recipe.method().slug(), checkpointing],
            [shape.quantization.name(), shape.precision.name()],
        )
    }

    /// A validation image.
    pub(super) fn of_image(shape: &ValidationShape) -> Self {
        let asked = Asked {
            passes: 2.0 * GUIDANCE_PASSES,
            samples: 1.0,
            repeats: f64::from(shape.inference_steps.get()),
            forward_only: true,
            ..network(shape.recipe, shape.resolution)
        };
        Self::of(
            &asked,
            shape.recipe,
            ["image", "none"],
            [shape.quantization.name(), shape.precision.name()],
        )
    }

    fn of(
        asked: &Asked<'_>,
        recipe: Recipe,
        [method, checkpointing]: [&str; 2],
        [quantization, precision]: [&str; 2],
    ) -> Self {
        let (host_ms, tflop) = physics::work(asked);
        let frames = recipe.frames().max_frames();
        let name = format!("{}.{}/{frames}", recipe.family().name(), recipe.flavour());
        let traits = Traits {
            family: asked.family,
            recipe: &name,
            method,
            quantization: [quantization, ""],
            precision,
            checkpointing: [checkpointing, ""],
            offloaded: false,
            settings: [""; SETTINGS],
            batch: asked.samples,
            megapixels: asked.pixels / 1e6 * asked.frames,
            billions: asked.billions,
            host_ms,
            processor: 0.0,
        };
        Self {
            subject: Subject::of(&traits),
            tflop,
        }
    }

    /// What a model thinks of it on any hardware.
    pub(super) fn begin(&self, model: &Model) -> Sums {
        model.begin(&self.subject)
    }

    /// What a model thinks of it on one, with a host of one's own.
    pub(super) fn predict(&self, model: &Model, begun: Sums, hardware: Hardware) -> Predicted {
        let board = board(self.tflop, hardware, true);
        model.predict_on(&self.subject, begun, &board)
    }
}

fn board(tflop: f64, hardware: Hardware, own: bool) -> Board<'static> {
    let rated = hardware.gpu.rated();
    Board {
        gpu: hardware.gpu.slug(),
        gpus: f64::from(hardware.count),
        rated,
        compute_ms: physics::compute_ms(tflop, rated),
        own,
    }
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
