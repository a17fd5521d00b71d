//! How a run's micro-batches are drawn from its data sets, and its samples and images are dealt out to several GPUs.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// How SimpleTuner shares out a run's work, as far as its data sets and passes do not say it. The default is that of
/// SimpleTuner 4.10.1 with one GPU making all images, which is what was said before there was this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sharing {
    /// Prompts of one validation pass that are dealt out to the GPUs (`validation_multigpu`); 0 where the first one makes all
    /// images.
    pub validation_prompts: u32,
    /// What the data sets' chances of being drawn from are multiplied by (`data_backend_sampling`).
    pub sampling: Sampling,
    /// Each data set's share, in their order; empty where all are [`Share::WHOLE`].
    pub datasets: Vec<Share>,
    /// What `eval_dataset_id` names of that which would be trained on.
    pub held_out: Option<HeldOut>,
}

/// What the data sets' chances of being drawn from are multiplied by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sampling {
    /// The number of their micro-batches (`auto-weighting`, the default).
    #[default]
    ByBatches,
    /// Nothing (`uniform`).
    Uniform,
}

/// One data set's part in the drawing and the dealing out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Share {
    /// Its `probability` in millionths of the largest one.
    pub chance: u32,
    /// Whether every GPU goes through all of its samples: 4.10.1 divides only what `eval_dataset_id` names, where that is set.
    pub is_undivided: bool,
}

/// A data set that no step is made of, and that SimpleTuner 4.10.1 counts in the steps that it announces for epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeldOut {
    /// Samples in one micro-batch on one GPU.
    pub batch_size: u32,
    /// Samples on disk.
    pub samples: u64,
    /// How often each would be seen again in one epoch.
    pub repeats: u32,
}

impl Share {
    /// The chance of the data set that is drawn from most readily.
    pub const MOST: u32 = 1_000_000;
    /// As likely as any other, and divided among the GPUs.
    pub const WHOLE: Self = Self {
        chance: Self::MOST,
        is_undivided: false,
    };
}

impl Sharing {
    /// The shares of data sets with these probabilities, all above 0; none where nothing is out of the ordinary.
    pub(super) fn shares(sets: impl Iterator<Item = (f64, bool)> + Clone) -> Vec<Share> {
        let most = sets.clone().map(|set| set.0).fold(0.0, f64::max);
        let share = |(probability, is_undivided): (f64, bool)| {
            let chance = (probability / most * f64::from(Share::MOST)).round();
            Share {
                // Within bounds, so nothing is cut off.
                chance: chance.clamp(1.0, f64::from(Share::MOST)) as u32,
                is_undivided,
            }
        };
        let shares: Vec<Share> = sets.map(share).collect();
        if shares.iter().all(|share| *share == Share::WHOLE) {
            return Vec::new();
        }
        shares
    }

    /// The share of the data set at a position, counted from 0.
    #[must_use]
    pub fn of(&self, dataset: usize) -> Share {
        self.datasets.get(dataset).copied().unwrap_or(Share::WHOLE)
    }

    /// Whether micro-batches are drawn by how many there are, so that every part of an epoch is like the whole.
    pub(super) fn is_by_batches(&self) -> bool {
        let mut chances = self.datasets.iter().map(|share| share.chance);
        let first = chances.next();
        self.sampling == Sampling::ByBatches && chances.all(|chance| Some(chance) == first)
    }

    /// Images that the busiest GPU makes of a pass of so many, on so many GPUs in groups of `group` that share an image.
    ///
    /// A prompt's images stay together. 4.10.1 deals prompts out where each process gets one, and to groups in any case
    /// (`_split_validation_work_items` in `helpers/training/validation.py`).
    pub(super) fn images_in_turn(&self, images: u64, gpus: u64, group: u64) -> u64 {
        let prompts = u64::from(self.validation_prompts);
        let shared_by = gpus / group.max(1);
        if prompts == 0 || (group <= 1 && prompts < gpus) {
            return images;
        }
        let in_turn = prompts.div_ceil(shared_by.max(1));
        images.div_ceil(prompts).saturating_mul(in_turn).min(images)
    }
}

impl HeldOut {
    /// Micro-batches of an epoch that SimpleTuner counts for it on one of so many GPUs. It is always divided.
    #[must_use]
    pub fn batches(self, replicas: u64) -> u64 {
        let times = u64::from(self.repeats) + 1;
        let share = self.samples.div_ceil(replicas).saturating_mul(times);
        share.div_ceil(self.batch_size.max(1).into())
    }
}

/// The micro-batches that are drawn from each data set when so many were drawn of an epoch: each as likely as its weight
/// says until nothing of it is left, then the others alone, as `random_dataloader_iterator` of 4.10.1 does it; and of whole
/// epochs all.
pub(super) fn drawn(count: u64, batches: &[u64], weights: &[f64]) -> Vec<f64> {
    let all: u64 = batches.iter().fold(0, |sum, n| sum.saturating_add(*n));
    let (epochs, mut rest) = (count / all.max(1), (count % all.max(1)) as f64);
    let mut drawn: Vec<f64> = batches
        .iter()
        .map(|batches| *batches as f64 * epochs as f64)
        .collect();
    // Those that run dry first come first, so each one's part is known when it is its turn.
    let mut order: Vec<usize> = (0..batches.len()).collect();
    let dry_at = |index: &usize| batches[*index] as f64 / weights[*index];
    order.sort_by(|a, b| dry_at(a).total_cmp(&dry_at(b)));
    // The weights of each and of all that run dry later.
    let mut later: Vec<f64> = Vec::with_capacity(order.len());
    for index in order.iter().rev() {
        later.push(later.last().unwrap_or(&0.0) + weights[*index]);
    }
    for (index, weight) in order.into_iter().zip(later.into_iter().rev()) {
        let part = (rest * weights[index] / weight).min(batches[index] as f64);
        drawn[index] += part;
        rest -= part;
    }
    drawn
}
