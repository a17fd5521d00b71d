//! What the ladder asks of a key without its hardware, so that steps and images climb the same rungs.

use std::collections::BTreeMap;

use stepcast_records::{Cell, Checkpointing, Note, Recipe, TrainingShape, ValidationShape};

use super::features::About;
use super::width;
use super::work::Work;
use crate::index::Shelf;
use crate::table::Kind;

/// A training or a validation key without its hardware.
pub(super) trait Shape: Copy + Ord + 'static {
    /// The table that holds such keys.
    const KIND: Kind;
    /// The cells of this kind on a shelf.
    fn cells(shelf: &Shelf) -> &BTreeMap<Self, Cell>;
    /// Family, flavour and method.
    fn recipe(&self) -> Recipe;
    /// The same shape of another recipe.
    fn of(self, recipe: Recipe) -> Self;
    /// What one step or image asks for.
    fn work(&self) -> Work;
    /// What the model is asked; `None` for what it does not learn.
    fn about(&self) -> Option<About>;
    /// The variance that carrying a time from another resolution adds. Among keys in order it grows with the distance.
    fn resolution_variance(&self, from: &Self) -> f64;
    /// The variance that carrying a time from another shape adds, the recipe and the resolution apart.
    fn variance(&self, from: &Self) -> f64;
    /// The variance that carrying a time from another recipe adds.
    fn recipe_variance(&self, from: Recipe) -> f64;
    /// What was carried over, the recipe apart.
    fn notes(&self, from: &Self) -> Vec<Note>;
}

impl Shape for TrainingShape {
    const KIND: Kind = Kind::Training;

    fn cells(shelf: &Shelf) -> &BTreeMap<Self, Cell> {
        &shelf.training
    }

    fn recipe(&self) -> Recipe {
        self.recipe
    }

    fn of(self, recipe: Recipe) -> Self {
        Self { recipe, ..self }
    }

    fn work(&self) -> Work {
        Work::of_step(self)
    }

    fn about(&self) -> Option<About> {
        Some(About::of_step(self))
    }

    fn resolution_variance(&self, from: &Self) -> f64 {
        width::of_resolution(from.resolution, self.resolution, self.recipe.modality())
    }

    fn variance(&self, from: &Self) -> f64 {
        width::of_step(from, self)
    }

    fn recipe_variance(&self, from: Recipe) -> f64 {
        width::of_recipe(from, self.recipe)
    }

    fn notes(&self, from: &Self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.batch_size != from.batch_size {
            let from = from.batch_size;
            notes.push(Note::BatchScaled { from });
        }
        if self.resolution != from.resolution {
            let from = from.resolution;
            notes.push(Note::ResolutionScaled { from });
        }
        if self.accumulation != from.accumulation {
            notes.push(Note::AccumulationScaled);
        }
        if self.precision != from.precision {
            let from = from.precision;
            notes.push(Note::PrecisionBorrowed { from });
        }
        if self.quantization != from.quantization {
            let from = from.quantization;
            notes.push(Note::QuantizationBorrowed { from });
        }
        notes
    }
}

impl Shape for ValidationShape {
    const KIND: Kind = Kind::Validation;

    fn cells(shelf: &Shelf) -> &BTreeMap<Self, Cell> {
        &shelf.validation
    }

    fn recipe(&self) -> Recipe {
        self.recipe
    }

    fn of(self, recipe: Recipe) -> Self {
        Self { recipe, ..self }
    }

    fn work(&self) -> Work {
        Work::of_image(self)
    }

    fn about(&self) -> Option<About> {
        None
    }

    fn resolution_variance(&self, from: &Self) -> f64 {
        width::of_resolution(from.resolution, self.resolution, self.recipe.modality())
    }

    fn variance(&self, from: &Self) -> f64 {
        width::of_image(from, self)
    }

    fn recipe_variance(&self, from: Recipe) -> f64 {
        // Checkpointing does not touch a forward pass.
        let plain = |recipe: Recipe| recipe.with_checkpointing(Checkpointing::Off);
        width::of_recipe(plain(from), plain(self.recipe))
    }

    /// Other denoising steps leave no note of their own: the work is exactly that many times over.
    fn notes(&self, from: &Self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.resolution != from.resolution {
            let from = from.resolution;
            notes.push(Note::ResolutionScaled { from });
        }
        if self.precision != from.precision {
            let from = from.precision;
            notes.push(Note::PrecisionBorrowed { from });
        }
        if self.quantization != from.quantization {
            let from = from.quantization;
            notes.push(Note::QuantizationBorrowed { from });
        }
        notes
    }
}
