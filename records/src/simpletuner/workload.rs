//! A workload: what a configuration asks for, in the records' words and numbers, with nothing of the person's in it.

use serde::{Deserialize, Serialize};

use super::{OffRecord, Preparation, Share, Sharing};
use crate::key::{Accumulation, BatchSize, InferenceSteps, Precision, Quantization};
use crate::recipe::{FrameClass, Recipe};
use crate::resolution::HalfMegapixels;

/// What one run asks for. It travels in the log and on the wire: [`Workload::check`] what came from outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// Model family, flavour and method, for the longest clips among the data sets.
    pub recipe: Recipe,
    /// The number format.
    pub precision: Precision,
    /// How the frozen weights are quantised.
    pub quantization: Quantization,
    /// Micro-batches in one optimizer step.
    pub accumulation: u32,
    /// GPUs that share one sample.
    pub context_parallel: u32,
    /// The data sets that are trained on, in the order of the data loader's file.
    pub datasets: Vec<Dataset>,
    /// How long the run is.
    pub length: Length,
    /// Optimizer steps between two checkpoints; `None` without any before the end.
    pub checkpoint_every: Option<u64>,
    /// What is generated during the run; `None` without validation.
    pub validation: Option<Validation>,
    /// Why times of the run are not recorded, sorted and each at most once; empty when all are.
    pub off_record: Vec<OffRecord>,
    /// What it needs of a GPU before its steps. In the log it stands behind everything else; a worker is not told.
    #[serde(skip)]
    pub preparation: Preparation,
    /// How its steps and images are shared out. In the log it stands behind that.
    #[serde(skip)]
    pub sharing: Sharing,
}

/// One data set that is trained on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dataset {
    /// Pixels of one sample or of one frame.
    pub resolution: HalfMegapixels,
    /// Frames of one sample.
    pub frames: FrameClass,
    /// Samples in one micro-batch on one GPU.
    pub batch_size: u32,
    /// Samples on disk; `None` when nobody said.
    pub samples: Option<u64>,
    /// How often each sample is seen again in one epoch.
    pub repeats: u32,
    /// Whether SimpleTuner repeats a data set that is too small for one step, instead of refusing it.
    pub padded: bool,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// So many optimizer steps.
    Steps(u64),
    /// So many times through all data.
    Epochs(u32),
}

/// What validation generates.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Validation {
    /// Optimizer steps between two passes; `None` without passes by steps.
    pub every_steps: Option<u64>,
    /// Epochs between two passes; `None` without passes by epochs. Both kinds of passes may run.
    pub every_epochs: Option<u32>,
    /// The first step that such a pass may run at.
    pub after_step: u64,
    /// The first epoch that such a pass may run in.
    pub after_epoch: u32,
    /// Whether one more pass runs before the first step.
    pub at_start: bool,
    /// Whether the untrained model is shown once before the first step.
    pub baseline: bool,
    /// Generations of one pass at one resolution.
    pub generations: u32,
    /// The resolutions that each pass goes through.
    pub resolutions: Vec<HalfMegapixels>,
    /// Frames of one generation.
    pub frames: FrameClass,
    /// Denoising steps of one generation.
    pub inference_steps: u32,
}

/// A number or a list of a workload is outside what any real run asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBounds {
    /// A number is 0 or too large.
    #[error("{field} must be within its bounds, at most {max}")]
    Number {
        /// The field's name.
        field: &'static str,
        /// The largest value allowed.
        max: u64,
    },
    /// A list is empty or too long.
    #[error("{field} must have 1 to {max} entries")]
    Entries {
        /// The field's name.
        field: &'static str,
        /// The most entries allowed.
        max: usize,
    },
    /// The reasons to stay off the record are not sorted, or one is there twice.
    #[error("off_record must be sorted and name each reason once")]
    UnsortedReasons,
    /// A value is off the records' grid, and the workload does not say so.
    #[error("off_record must name what is not on the records' grid: {0}")]
    UnsaidReason(OffRecord),
    /// There are shares, and not one for each data set.
    #[error("shares are given for all data sets or for none")]
    SharesOfOthers,
    /// The recipe is not that of the longest clips.
    #[error("the recipe must be that of the longest clips among the data sets")]
    RecipeOfOtherFrames,
}

impl Workload {
    /// Data sets at most. Real loaders have up to a few dozen; each costs some 20 bytes in the log.
    pub const MAX_DATASETS: usize = 256;
    /// Resolutions of validation at most. Real configurations have up to three.
    pub const MAX_RESOLUTIONS: usize = 32;
    /// Optimizer steps at most: a hundred million, three years at a second each.
    pub const MAX_STEPS: u64 = 100_000_000;
    /// Epochs at most; more would be a run of more steps than [`Self::MAX_STEPS`] or of no data.
    pub const MAX_EPOCHS: u32 = 1_000_000;
    /// Samples of one data set at most: a thousand million, more than any public set of images.
    pub const MAX_SAMPLES: u64 = 1_000_000_000;

    /// How many samples a data set can have.
    pub const SAMPLES: std::ops::RangeInclusive<u64> = 1..=Self::MAX_SAMPLES;
    /// Repeats of one data set at most.
    pub const MAX_REPEATS: u32 = 1_000_000;
    /// Micro-batch, accumulation and GPUs per sample at most.
    pub const MAX_BATCH: u32 = 65_536;
    /// Generations of one pass at one resolution at most.
    pub const MAX_GENERATIONS: u32 = 100_000;
    /// Denoising steps at most; schedulers have a thousand time steps.
    pub const MAX_INFERENCE_STEPS: u32 = 1_000;

    /// Whether everything is within its bounds and the workload says of itself what is off the grids.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let batch = u64::from(Self::MAX_BATCH);
        number("accumulation", self.accumulation, batch)?;
        number("context_parallel", self.context_parallel, batch)?;
        entries("datasets", self.datasets.len(), Self::MAX_DATASETS)?;
        self.datasets.iter().try_for_each(Dataset::check)?;
        match self.length {
            Length::Steps(steps) => number("length", steps, Self::MAX_STEPS)?,
            Length::Epochs(epochs) => number("length", epochs, u64::from(Self::MAX_EPOCHS))?,
        }
        if let Some(every) = self.checkpoint_every {
            number("checkpoint_every", every, Self::MAX_STEPS)?;
        }
        self.validation.iter().try_for_each(Validation::check)?;
        if let Some(samples) = self.preparation.encoded_at_once {
            number("encoded_at_once", samples, batch)?;
        }
        self.check_sharing()?;
        self.check_frames()?;
        self.check_reasons()
    }

    /// Whether all times of the run belong into the records.
    #[must_use]
    pub fn on_record(&self) -> bool {
        self.off_record.is_empty() && self.off_grid().next().is_none()
    }

    /// Whether the times of the run's training steps do, even where those of its validation do not.
    #[must_use]
    pub fn training_on_record(&self) -> bool {
        let said = self
            .off_record
            .iter()
            .any(|reason| reason.touches_training());
        let unsaid = self.off_grid().any(OffRecord::touches_training);
        !said && !unsaid
    }

    /// Whether what is measured of its training steps belongs into the records: only steps, without anything between them.
    #[must_use]
    pub fn measured_steps_on_record(&self) -> bool {
        let mut said = self.off_record.iter();
        self.training_on_record() && !said.any(|reason| reason.touches_measured_steps())
    }

    /// The same run, with clips in the classes and reasons in the words that there were first: what logs before format 3 can say
    /// of it. The same workload, where it is in these already.
    #[must_use]
    pub fn in_first_words(&self) -> Self {
        let mut same = self.clone();
        let reasons = self.off_record.iter().map(|reason| reason.in_first_words());
        same.off_record = reasons.collect();
        same.off_record.sort_unstable();
        same.off_record.dedup();
        let frames = self.recipe.frames().in_first_classes().max_frames();
        same.recipe = self.recipe.at_frames(frames).unwrap_or(self.recipe);
        for dataset in &mut same.datasets {
            dataset.frames = dataset.frames.in_first_classes();
        }
        if let Some(validation) = &mut same.validation {
            validation.frames = validation.frames.in_first_classes();
        }
        same
    }

    /// The reasons to stay off the record that the numbers themselves give.
    fn off_grid(&self) -> impl Iterator<Item = OffRecord> {
        let mut batches = self.datasets.iter().map(|dataset| dataset.batch_size);
        let inference = self
            .validation
            .as_ref()
            .map(|validation| validation.inference_steps);
        let reasons = [
            (
                OffRecord::BatchSize,
                batches.any(|size| BatchSize::new(size).is_none()),
            ),
            (
                OffRecord::Accumulation,
                Accumulation::new(self.accumulation).is_none(),
            ),
            (
                OffRecord::InferenceSteps,
                inference.is_some_and(|steps| InferenceSteps::new(steps).is_none()),
            ),
            (OffRecord::Sharding, self.context_parallel > 1),
        ];
        reasons
            .into_iter()
            .filter(|(_, applies)| *applies)
            .map(|(reason, _)| reason)
    }

    fn check_sharing(&self) -> Result<(), OutOfBounds> {
        let sharing = &self.sharing;
        let most = self.validation.as_ref().map_or(0, |v| v.generations);
        if sharing.validation_prompts > most {
            let (field, max) = ("validation_prompts", most.into());
            return Err(OutOfBounds::Number { field, max });
        }
        if !sharing.datasets.is_empty() && sharing.datasets.len() != self.datasets.len() {
            return Err(OutOfBounds::SharesOfOthers);
        }
        for share in &sharing.datasets {
            number("chance", share.chance, u64::from(Share::MOST))?;
        }
        if let Some(held_out) = sharing.held_out {
            let batch = u64::from(Self::MAX_BATCH);
            number("batch_size", held_out.batch_size, batch)?;
            number("samples", held_out.samples, Self::MAX_SAMPLES)?;
            let max = u64::from(Self::MAX_REPEATS);
            number("repeats", u64::from(held_out.repeats) + 1, max + 1)?;
        }
        Ok(())
    }

    fn check_frames(&self) -> Result<(), OutOfBounds> {
        let longest = self.datasets.iter().map(|dataset| dataset.frames).max();
        let fits =
            longest.is_none_or(|frames| !self.recipe.is_video() || self.recipe.frames() == frames);
        fits.then_some(()).ok_or(OutOfBounds::RecipeOfOtherFrames)
    }

    fn check_reasons(&self) -> Result<(), OutOfBounds> {
        if !self.off_record.is_sorted_by(|a, b| a < b) {
            return Err(OutOfBounds::UnsortedReasons);
        }
        match self
            .off_grid()
            .find(|reason| !self.off_record.contains(reason))
        {
            Some(reason) => Err(OutOfBounds::UnsaidReason(reason)),
            None => Ok(()),
        }
    }
}

impl Dataset {
    fn check(&self) -> Result<(), OutOfBounds> {
        number(
            "batch_size",
            self.batch_size,
            u64::from(Workload::MAX_BATCH),
        )?;
        if let Some(samples) = self.samples {
            number("samples", samples, Workload::MAX_SAMPLES)?;
        }
        let max = u64::from(Workload::MAX_REPEATS);
        number("repeats", u64::from(self.repeats) + 1, max + 1)
    }
}

impl Validation {
    fn check(&self) -> Result<(), OutOfBounds> {
        if let Some(steps) = self.every_steps {
            number("every_steps", steps, Workload::MAX_STEPS)?;
        }
        if let Some(epochs) = self.every_epochs {
            number("every_epochs", epochs, u64::from(Workload::MAX_EPOCHS))?;
        }
        if self.after_step > Workload::MAX_STEPS || self.after_epoch > Workload::MAX_EPOCHS {
            let max = Workload::MAX_STEPS;
            return Err(OutOfBounds::Number {
                field: "after_step",
                max,
            });
        }
        number(
            "generations",
            self.generations,
            u64::from(Workload::MAX_GENERATIONS),
        )?;
        entries(
            "resolutions",
            self.resolutions.len(),
            Workload::MAX_RESOLUTIONS,
        )?;
        let max = u64::from(Workload::MAX_INFERENCE_STEPS);
        number("inference_steps", self.inference_steps, max)
    }
}

fn number(field: &'static str, value: impl Into<u64>, max: u64) -> Result<(), OutOfBounds> {
    let inside = (1..=max).contains(&value.into());
    inside
        .then_some(())
        .ok_or(OutOfBounds::Number { field, max })
}

fn entries(field: &'static str, length: usize, max: usize) -> Result<(), OutOfBounds> {
    let inside = (1..=max).contains(&length);
    inside
        .then_some(())
        .ok_or(OutOfBounds::Entries { field, max })
}
