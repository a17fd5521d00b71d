//! From a workload to its steps, passes and prompts on a number of GPUs.
//!
//! The counts follow SimpleTuner's own bookkeeping, for data sets whose aspect buckets are not known: an epoch
//! has `ceil(share * (repeats + 1) / batch)` batches per data set, where a GPU's share is `ceil(samples / GPUs)`,
//! and each aspect bucket beyond the first can add one more batch. Batches are accumulated over the end of an epoch: a
//! run of epochs ends with the last whole step of all its batches, which is fewer than SimpleTuner announces where an
//! epoch's batches do not divide by the accumulation. What a run announces says how many batches its buckets have.

mod passes;
#[cfg(test)]
mod tests;

pub(super) use passes::common_multiple;
use passes::{Epoch, Epochs};

use super::sharing::{Sampling, drawn};
use super::workload::{Dataset, Length, Workload};
use crate::key::{Accumulation, BatchSize, InferenceSteps, TrainingShape, ValidationShape};
use crate::recipe::{FrameClass, Recipe};

/// What a run consists of on a given number of GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Optimizer steps of the whole run.
    pub steps_total: u64,
    /// How many SimpleTuner announces: never fewer, and more where it counts a step for what an epoch leaves over.
    pub steps_announced: u64,
    /// The steps by shape, in the order of the data sets; they add up to `steps_total`.
    ///
    /// A batch size or accumulation off the grid stands here as its nearest neighbour on the grid.
    pub training: Vec<(TrainingShape, u64)>,
    /// The images by shape, over all passes.
    pub validation: Vec<(ValidationShape, Images)>,
    /// How often validation runs, the baseline included.
    pub validation_passes: u64,
    /// The last step after which validation by steps can run.
    pub validated_until: u64,
    /// Checkpoints saved before the end.
    pub checkpoints: u64,
    /// Samples of all data sets together; `None` when one is not known.
    pub samples: Option<u64>,
    /// Whether `steps_total` or the way it is shared among shapes rests on more than the configuration says:
    /// aspect buckets that are not known, or data sets of unknown size taken for equal.
    pub steps_assumed: bool,
}

/// Images that validation makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    /// All of them.
    pub all: u64,
    /// Those that the busiest GPU makes one after another while the others make the rest.
    pub in_turn: u64,
}

/// What keeps a workload from being planned; data sets are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The number of samples decides the number of steps, and nobody said it.
    #[error(
        "epochs decide how long the run is or when it validates: say how many samples data set {dataset} has"
    )]
    Samples {
        /// Position of the data set.
        dataset: usize,
    },
    /// The data set does not fill one optimizer step.
    #[error(
        "data set {dataset} yields {available} samples per epoch and one step{} takes {needed}: raise its repeats",
        on_several(*gpu_count)
    )]
    TooFewSamples {
        /// Position of the data set.
        dataset: usize,
        /// Samples of one epoch, repeats included.
        available: u64,
        /// Samples of one optimizer step on all GPUs.
        needed: u64,
        /// How many GPUs these are.
        gpu_count: u8,
    },
    /// The epochs have more steps than any real run.
    #[error(
        "so many epochs are {steps} steps, and a run has at most {}: train fewer",
        Workload::MAX_STEPS
    )]
    TooManySteps {
        /// Steps of all epochs.
        steps: u64,
    },
    /// The GPUs cannot be divided into groups that share a sample.
    #[error("{gpu_count} GPUs cannot be divided into groups of {context_parallel}")]
    Gpus {
        /// GPUs that were offered.
        gpu_count: u8,
        /// GPUs that share one sample.
        context_parallel: u32,
    },
    /// There is no data set to train on.
    #[error("no data set is trained on")]
    Datasets,
}

/// Where a step is made, if that is more than one GPU.
fn on_several(gpu_count: u8) -> String {
    match gpu_count {
        0 | 1 => String::new(),
        count => format!(" on {count} GPUs"),
    }
}

impl Workload {
    /// The steps, passes and prompts of this workload on so many GPUs.
    ///
    /// # Errors
    /// The fact that is missing, or why the GPUs and data do not fit together.
    pub fn plan(&self, gpu_count: u8) -> Result<Plan, Missing> {
        let replicas = self.replicas(gpu_count)?;
        let batches = self.batches(gpu_count, replicas)?;
        let known = sum_of_known(&batches);
        let epoch = known.map(|batches| Epoch {
            batches: batches.max(1),
            accumulation: self.accumulation.max(1).into(),
        });
        let (steps_total, finished) = match (self.length, &epoch) {
            (Length::Steps(steps), epoch) => {
                (steps, epoch.as_ref().map(|epoch| epoch.ends_by(steps)))
            }
            (Length::Epochs(epochs), Some(epoch)) => {
                let steps = epoch.steps_of(epochs.into());
                if steps > Self::MAX_STEPS {
                    return Err(Missing::TooManySteps { steps });
                }
                (steps, Some(epochs.into()))
            }
            (Length::Epochs(_), None) => return Err(first_unknown(&batches)),
        };
        let held_out = self.sharing.held_out;
        let held_out = held_out.map_or(0, |set| set.batches(replicas));
        let steps_announced = match (self.length, &epoch) {
            (Length::Epochs(count), Some(epoch)) => epoch.announced(count.into(), held_out),
            _ => steps_total,
        };
        let epochs = Epochs {
            epoch,
            steps_total,
            steps_announced,
            finished,
        };
        let passes = match &self.validation {
            Some(validation) => validation.passes(&epochs).ok_or(first_unknown(&batches))?,
            None => 0,
        };
        let training = self.training(steps_total, &batches);
        let split_assumed = known.is_none() && training.len() > 1;
        Ok(Plan {
            steps_total,
            steps_announced,
            validation: self.images(passes, gpu_count),
            validation_passes: passes,
            validated_until: epochs.last_validated(),
            checkpoints: steps_total
                .checked_div(self.checkpoint_every.unwrap_or(0))
                .unwrap_or(0),
            samples: self.samples(),
            steps_assumed: split_assumed || matches!(self.length, Length::Epochs(_)),
            training,
        })
    }

    /// GPUs or groups of GPUs that work on samples of their own.
    fn replicas(&self, gpu_count: u8) -> Result<u64, Missing> {
        let (gpus, group) = (u32::from(gpu_count.max(1)), self.context_parallel.max(1));
        if !gpus.is_multiple_of(group) {
            let context_parallel = group;
            return Err(Missing::Gpus {
                gpu_count,
                context_parallel,
            });
        }
        Ok(u64::from(gpus / group))
    }

    /// Micro-batches of one epoch on one GPU by data set; `None` for one of unknown size.
    fn batches(&self, gpu_count: u8, replicas: u64) -> Result<Vec<Option<u64>>, Missing> {
        if self.datasets.is_empty() {
            return Err(Missing::Datasets);
        }
        let accumulation = u64::from(self.accumulation.max(1));
        let batches = self.datasets.iter().enumerate();
        let batches = batches.map(|(index, dataset)| {
            let batches = match self.sharing.of(index).is_undivided {
                true => dataset.undivided(),
                false => dataset.batches(replicas, accumulation),
            };
            batches.map_err(|(available, needed)| Missing::TooFewSamples {
                dataset: index + 1,
                available,
                needed,
                gpu_count,
            })
        });
        batches.collect()
    }

    fn samples(&self) -> Option<u64> {
        let mut known = self.datasets.iter().map(|dataset| dataset.samples);
        known.try_fold(0u64, |sum, samples| Some(sum.saturating_add(samples?)))
    }

    /// Shares the steps among the data sets' shapes by the batches that are drawn from them, equal shapes together.
    fn training(&self, steps_total: u64, batches: &[Option<u64>]) -> Vec<(TrainingShape, u64)> {
        let mut weights: Vec<(TrainingShape, u64)> = Vec::new();
        let parts = self.parts(steps_total, batches);
        for (dataset, part) in self.datasets.iter().zip(parts) {
            add(&mut weights, self.training_shape(dataset), part);
        }
        share(steps_total, &mut weights);
        weights
    }

    /// What the data sets' parts of the steps are in proportion to. Where not all sizes are known they are taken for equal.
    fn parts(&self, steps_total: u64, batches: &[Option<u64>]) -> Vec<u64> {
        let positions = 0..self.datasets.len();
        let chances = positions.map(|position| self.sharing.of(position).chance);
        let Some(batches) = batches.iter().copied().collect::<Option<Vec<u64>>>() else {
            return chances.map(u64::from).collect();
        };
        if self.sharing.is_by_batches() {
            return batches;
        }
        let weights = chances.zip(&batches).map(|(chance, batches)| {
            let times = match self.sharing.sampling {
                Sampling::ByBatches => *batches,
                Sampling::Uniform => 1,
            };
            f64::from(chance) * times as f64
        });
        let weights: Vec<f64> = weights.collect();
        let count = steps_total.saturating_mul(self.accumulation.max(1).into());
        let drawn = drawn(count, &batches, &weights);
        // Thousandths, so that what is drawn least often is not lost.
        let thousandths = drawn.into_iter().map(|count| (count * 1_000.0) as u64);
        thousandths.collect()
    }

    /// The batch sizes as they are asked for, on the grid or not, of the data sets whose steps have this shape's resolution and
    /// batch.
    pub fn batches_of(&self, shape: TrainingShape) -> impl Iterator<Item = u32> {
        let alike = self.datasets.iter().filter(move |dataset| {
            dataset.resolution == shape.resolution
                && BatchSize::nearest(dataset.batch_size) == shape.batch_size
        });
        alike.map(|dataset| dataset.batch_size)
    }

    fn training_shape(&self, dataset: &Dataset) -> TrainingShape {
        TrainingShape {
            recipe: at_class(self.recipe, dataset.frames),
            resolution: dataset.resolution,
            batch_size: BatchSize::nearest(dataset.batch_size),
            accumulation: Accumulation::nearest(self.accumulation),
            precision: self.precision,
            quantization: self.quantization,
        }
    }

    fn images(&self, passes: u64, gpu_count: u8) -> Vec<(ValidationShape, Images)> {
        let (gpus, group) = (gpu_count.max(1), self.context_parallel);
        let mut counts = Vec::new();
        if let Some(validation) = &self.validation {
            for &resolution in &validation.resolutions {
                let shape = ValidationShape {
                    recipe: at_class(self.recipe, validation.frames),
                    resolution,
                    inference_steps: InferenceSteps::nearest(validation.inference_steps),
                    precision: self.precision,
                    quantization: self.quantization,
                };
                let images = passes.saturating_mul(validation.generations.into());
                add(&mut counts, shape, images);
            }
        }
        let counts = counts.into_iter().filter(|(_, all)| *all > 0);
        let images = counts.map(|(shape, all)| {
            let in_turn = self.sharing.images_in_turn(all, gpus.into(), group.into());
            (shape, Images { all, in_turn })
        });
        images.collect()
    }
}

impl Dataset {
    /// Micro-batches of one epoch on one GPU; `None` when the number of samples is not known. Else the samples of an epoch, and
    /// the larger number that one step takes.
    fn batches(&self, replicas: u64, accumulation: u64) -> Result<Option<u64>, (u64, u64)> {
        let Some(samples) = self.samples else {
            return Ok(None);
        };
        let batch = u64::from(self.batch_size.max(1));
        let needed = batch.saturating_mul(replicas).saturating_mul(accumulation);
        let times = u64::from(self.repeats) + 1;
        let available = samples.saturating_mul(times);
        if available >= needed {
            let share = samples.div_ceil(replicas).saturating_mul(times);
            return Ok(Some(share.div_ceil(batch)));
        }
        if !self.padded || samples == 0 {
            return Err((available, needed));
        }
        // Repeated as often as fills one step, and what that leaves over fills another one.
        let repeated = samples.saturating_mul(needed.div_ceil(samples));
        Ok(Some(repeated.div_ceil(needed).saturating_mul(accumulation)))
    }

    /// The same where each GPU goes through all samples: SimpleTuner asks for no whole step then, only for a micro-batch.
    fn undivided(&self) -> Result<Option<u64>, (u64, u64)> {
        self.batches(1, 1)
    }
}

fn sum_of_known(batches: &[Option<u64>]) -> Option<u64> {
    batches
        .iter()
        .try_fold(0u64, |sum, batches| Some(sum.saturating_add((*batches)?)))
}

fn first_unknown(batches: &[Option<u64>]) -> Missing {
    let unknown = batches.iter().position(Option::is_none);
    Missing::Samples {
        dataset: unknown.unwrap_or(0) + 1,
    }
}

fn add<S: PartialEq>(counts: &mut Vec<(S, u64)>, shape: S, count: u64) {
    match counts.iter_mut().find(|(known, _)| *known == shape) {
        Some((_, sum)) => *sum = sum.saturating_add(count),
        None => counts.push((shape, count)),
    }
}

/// Turns weights into parts of a total in proportion to them, or into equal parts where all are 0; what rounding
/// leaves goes to the first ones.
fn share<S>(total: u64, weights: &mut [(S, u64)]) {
    if weights.iter().all(|(_, weight)| *weight == 0) {
        weights.iter_mut().for_each(|(_, weight)| *weight = 1);
    }
    let sum: u128 = weights.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let mut left = total;
    for (_, weight) in weights.iter_mut() {
        let part = (u128::from(total) * u128::from(*weight))
            .checked_div(sum)
            .unwrap_or(0);
        *weight = u64::try_from(part).unwrap_or(u64::MAX);
        left = left.saturating_sub(*weight);
    }
    for (_, part) in weights
        .iter_mut()
        .take(usize::try_from(left).unwrap_or(usize::MAX))
    {
        *part += 1;
    }
}

fn at_class(recipe: Recipe, frames: FrameClass) -> Recipe {
    recipe.at_frames(frames.max_frames()).unwrap_or(recipe)
}
