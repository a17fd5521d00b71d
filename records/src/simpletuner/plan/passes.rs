//! How the epochs of a run lie in its steps, and how often it validates.

#[cfg(test)]
mod tests;

use super::super::workload::Validation;

/// One pass through all data.
pub(super) struct Epoch {
    /// Micro-batches on one GPU, at least 1.
    pub(super) batches: u64,
    /// Micro-batches of one step, at least 1.
    pub(super) accumulation: u64,
}

impl Epoch {
    /// Whole steps in so many epochs.
    pub(super) fn steps_of(&self, epochs: u64) -> u64 {
        scaled(epochs, self.batches, self.accumulation)
    }

    /// Steps of so many epochs as SimpleTuner counts them beforehand: each as if it ended with a step, and as if steps were
    /// made of what is held out.
    pub(super) fn announced(&self, epochs: u64, held_out: u64) -> u64 {
        let batches = self.batches.saturating_add(held_out);
        epochs.saturating_mul(batches.div_ceil(self.accumulation))
    }

    /// Epochs that so many steps finish.
    pub(super) fn ends_by(&self, steps: u64) -> u64 {
        scaled(steps, self.accumulation, self.batches)
    }

    /// Epochs of which the end was met before the last micro-batch of so many steps.
    fn left_behind_by(&self, steps: u64) -> u64 {
        (steps.saturating_mul(self.accumulation).saturating_sub(1)) / self.batches
    }

    /// Steps of one epoch, where each ends with a step.
    fn steps(&self) -> Option<u64> {
        let divides = self.batches.is_multiple_of(self.accumulation);
        divides.then_some(self.batches / self.accumulation)
    }
}

/// How the epochs of a run lie in its steps.
pub(super) struct Epochs {
    /// `None` when it depends on sizes that are not known.
    pub(super) epoch: Option<Epoch>,
    pub(super) steps_total: u64,
    pub(super) steps_announced: u64,
    /// Epochs that the run finishes; `None` when that depends on sizes that are not known.
    pub(super) finished: Option<u64>,
}

impl Epochs {
    /// The first step of an epoch, counted from 1; `None` when that depends on sizes that are not known.
    fn first_step_of(&self, epoch: u32) -> Option<u64> {
        match epoch {
            0 | 1 => Some(0),
            epoch => Some(self.epoch.as_ref()?.steps_of(u64::from(epoch - 1)) + 1),
        }
    }

    /// The last step after which a validation by steps can run.
    ///
    /// SimpleTuner 4.10.1 validates after a micro-batch whose number divides by the accumulation, and its count of them is one
    /// ahead for every epoch's end that it has met. So a validation comes later within the next step, and that of the last
    /// step, after which the run ends at once, not at all (`should_perform_intermediary_validation`).
    pub(super) fn last_validated(&self) -> u64 {
        let ends_at_once = self.steps_announced == self.steps_total;
        let is_late = self.epoch.as_ref().is_some_and(|epoch| {
            !epoch
                .left_behind_by(self.steps_total)
                .is_multiple_of(epoch.accumulation)
        });
        self.steps_total - u64::from(ends_at_once && is_late)
    }

    /// The first epoch that may end once a step is reached; `None` when that depends on sizes that are not known.
    fn reached_by(&self, step: u64) -> Option<u64> {
        match step {
            0 => Some(0),
            step => Some(self.epoch.as_ref()?.ends_by(step - 1) + 1),
        }
    }
}

impl Validation {
    /// Passes of the whole run; the one that SimpleTuner calls final generates nothing of its own.
    pub(super) fn passes(&self, epochs: &Epochs) -> Option<u64> {
        let mut passes = u64::from(self.baseline) + u64::from(self.at_start);
        let by_steps = match self.every_steps {
            Some(every) => Some((
                every.max(1),
                self.after_step.max(epochs.first_step_of(self.after_epoch)?),
            )),
            None => None,
        };
        let by_epochs = match self.every_epochs {
            Some(every) => Some((
                u64::from(every.max(1)),
                epochs
                    .reached_by(self.after_step)?
                    .max(self.after_epoch.into()),
            )),
            None => None,
        };
        if let Some((every, after)) = by_steps {
            passes = passes.saturating_add(multiples(every, after, epochs.last_validated()));
        }
        if let Some((every, after)) = by_epochs {
            passes = passes.saturating_add(multiples(every, after, epochs.finished?));
        }
        // What is due for both reasons at one step is done once.
        if let (Some((steps, first)), Some((every, after)), Some(per_epoch)) = (
            by_steps,
            by_epochs,
            epochs.epoch.as_ref().and_then(Epoch::steps),
        ) {
            let every = every.saturating_mul(per_epoch);
            let first = first.max(after.saturating_mul(per_epoch));
            let last = epochs.last_validated();
            let both = multiples(common_multiple(steps, every), first, last);
            passes = passes.saturating_sub(both);
        }
        Some(passes)
    }
}

/// How many multiples of a number lie from `first` to `last`, 0 not counted.
fn multiples(number: u64, first: u64, last: u64) -> u64 {
    let number = number.max(1);
    (last / number).saturating_sub(first.saturating_sub(1) / number)
}

/// The least number that both divide, of two that are not 0.
pub(in crate::simpletuner) fn common_multiple(a: u64, b: u64) -> u64 {
    let (mut divisor, mut rest) = (a, b);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor.max(1)).saturating_mul(b)
}

/// `number * times / parts`, rounded down.
fn scaled(number: u64, times: u64, parts: u64) -> u64 {
    let product = u128::from(number) * u128::from(times);
    u64::try_from(product / u128::from(parts.max(1))).unwrap_or(u64::MAX)
}
