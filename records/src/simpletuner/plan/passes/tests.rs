//! Runs whose passes are counted one by one.

use proptest::prelude::*;

use super::super::super::workload::{Length, Workload};
use super::super::tests::{dataset, flux};

#[test]
fn passes_by_steps_and_by_epochs_add_up_and_may_start_late() {
    // 200 samples in batches of 4: 50 steps an epoch, three epochs in 150 steps.
    let mut workload = Workload {
        datasets: vec![dataset(Some(200), 0, 4)],
        ..flux()
    };
    let mut passes = |every_steps, every_epochs, after_step, after_epoch| {
        if let Some(validation) = &mut workload.validation {
            validation.baseline = false;
            validation.every_steps = every_steps;
            validation.every_epochs = every_epochs;
            validation.after_step = after_step;
            validation.after_epoch = after_epoch;
        }
        workload.plan(1).map(|plan| plan.validation_passes)
    };
    assert_eq!(passes(Some(25), None, 0, 0), Ok(6));
    // The end of an epoch is at a step where one is due anyway.
    assert_eq!(passes(Some(25), Some(1), 0, 0), Ok(6));
    assert_eq!(passes(Some(20), Some(1), 0, 0), Ok(9));
    assert_eq!(passes(Some(20), Some(1), 101, 0), Ok(3));
    assert_eq!(passes(Some(25), None, 75, 0), Ok(4));
    assert_eq!(passes(Some(25), None, 0, 2), Ok(4));
    assert_eq!(passes(Some(25), None, 0, 3), Ok(2));
    assert_eq!(passes(None, Some(1), 0, 2), Ok(2));
    assert_eq!(passes(None, Some(1), 60, 0), Ok(2));
    assert_eq!(passes(None, None, 0, 0), Ok(0));
}

proptest! {
    /// Against a run that is walked batch by batch, as SimpleTuner's loop does.
    #[test]
    fn a_run_has_the_steps_and_passes_of_its_batches(
        batches in 1u32..40,
        accumulation in 1u32..6,
        length in prop_oneof![(1u32..12).prop_map(Length::Epochs), (1u64..400).prop_map(Length::Steps)],
        every_steps in prop::option::of(1u64..30),
        every_epochs in prop::option::of(1u32..5),
        after_step in 0u64..60,
        after_epoch in 0u32..5,
    ) {
        let batches = if every_epochs.is_some() { batches * accumulation } else { batches + accumulation };
        let mut workload = Workload {
            datasets: vec![dataset(Some(batches.into()), 0, 1)],
            accumulation,
            length,
            ..flux()
        };
        let validation = workload.validation.as_mut().expect("the example validates");
        (validation.baseline, validation.at_start) = (false, false);
        (validation.every_steps, validation.every_epochs) = (every_steps, every_epochs);
        (validation.after_step, validation.after_epoch) = (after_step, after_epoch);
        let (mut step, mut passes, mut micro, mut epoch) = (0u64, 0u64, 0u32, 1u32);
        let goes_on = |step, epoch| match length {
            Length::Steps(steps) => step < steps,
            Length::Epochs(epochs) => epoch <= epochs,
        };
        while goes_on(step, epoch) {
            micro += 1;
            if micro.is_multiple_of(accumulation) {
                step += 1;
                // The run ends at once, and its own count of micro-batches is one ahead for every epoch behind it.
                let is_last = match length {
                    Length::Steps(steps) => step == steps,
                    Length::Epochs(epochs) => {
                        batches.is_multiple_of(accumulation) && micro == epochs * batches
                    }
                };
                let is_left_out = is_last && !((micro - 1) / batches).is_multiple_of(accumulation);
                let by_step = every_steps.is_some_and(|every| step.is_multiple_of(every)) && !is_left_out;
                let ends = micro.is_multiple_of(batches);
                let by_epoch = ends && every_epochs.is_some_and(|every| epoch.is_multiple_of(every));
                let is_reached = step >= after_step && epoch >= after_epoch;
                passes += u64::from(is_reached && (by_step || by_epoch));
            }
            epoch = micro / batches + 1;
        }
        let plan = workload.plan(1).expect("a plan");
        prop_assert_eq!((plan.steps_total, plan.validation_passes), (step, passes));
    }
}

#[test]
fn with_accumulation_the_last_step_is_not_validated_unless_the_ends_of_epochs_even_out() {
    // SimpleTuner 4.10.1 validated such runs at these steps: 3 alone, and six times up to step 12 itself.
    let passes = |accumulation, steps, every| {
        let mut workload = Workload {
            datasets: vec![dataset(Some(8), 0, 1)],
            accumulation,
            length: Length::Steps(steps),
            ..flux()
        };
        let validation = workload.validation.as_mut().expect("the example validates");
        (validation.baseline, validation.every_steps) = (false, Some(every));
        workload.plan(1).map(|plan| plan.validation_passes)
    };
    assert_eq!(passes(4, 6, 3), Ok(1));
    assert_eq!(passes(2, 12, 2), Ok(6));
    // The end of the first epoch is not met before the run's.
    assert_eq!(passes(4, 2, 2), Ok(1));
    assert_eq!(passes(4, 3, 3), Ok(0));
    assert_eq!(passes(1, 24, 24), Ok(1));
}
