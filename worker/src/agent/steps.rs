//! How many steps a run makes of those that its trainer announces.

/// A run that makes fewer steps than its trainer announces: SimpleTuner counts a step for what each epoch leaves over,
/// and accumulates over the end of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FewerSteps {
    /// What the trainer says if its data are as the configuration says; another number is taken as it is.
    pub announced: u64,
    /// Steps it will have made at its end.
    pub made: u64,
}

/// A run whose length is in epochs. How many batches an epoch has rests on the shapes of its pictures, so only its trainer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epochs {
    /// How many.
    pub count: u64,
    /// Micro-batches of one step, at least 1.
    pub accumulation: u64,
    /// Micro-batches of an epoch that are announced and that no step is made of.
    pub held_out: u64,
}

impl Epochs {
    /// The steps of a trainer that has so many batches in an epoch and announces so many steps; `None` where it says no
    /// batches, or counts its steps in another way.
    pub(super) fn steps(self, batches: u64, announced: u64) -> Option<FewerSteps> {
        let accumulation = self.accumulation.max(1);
        let counted = self.count.checked_mul(batches.div_ceil(accumulation))?;
        if batches == 0 || counted != announced {
            return None;
        }
        let drawn = batches.saturating_sub(self.held_out);
        let made = self.count.checked_mul(drawn)? / accumulation;
        Some(FewerSteps { announced, made })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_made_of_all_batches_of_all_epochs() {
        let of = |count, accumulation, held_out, batches, announced| {
            let epochs = Epochs {
                count,
                accumulation,
                held_out,
            };
            epochs.steps(batches, announced).map(|steps| steps.made)
        };
        assert_eq!(of(4, 2, 0, 9, 20), Some(18));
        assert_eq!(of(100, 8, 0, 9, 200), Some(112));
        assert_eq!(of(3, 1, 0, 8, 24), Some(24));
        assert_eq!(of(3, 1, 2, 8, 24), Some(18));
        assert_eq!(of(4, 2, 0, 0, 20), None, "it does not say");
        assert_eq!(of(4, 2, 0, 9, 18), None, "it counts in another way");
        assert_eq!(of(u64::MAX, 1, 0, 9, 20), None);
    }
}
