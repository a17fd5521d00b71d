//! Steps, passes and prompts as SimpleTuner counts them.

use proptest::prelude::*;

use super::super::workload::Validation;
use super::*;
use crate::key::{Precision, Quantization};
use crate::resolution::HalfMegapixels;
use crate::simpletuner::{HeldOut, OffRecord, Preparation, Share, Sharing};

fn half_megapixels(number: u8) -> HalfMegapixels {
    HalfMegapixels::new(number).expect("a bucket")
}

pub(super) fn dataset(samples: Option<u64>, repeats: u32, batch_size: u32) -> Dataset {
    Dataset {
        resolution: half_megapixels(2),
        frames: FrameClass::Single,
        batch_size,
        samples,
        repeats,
        padded: false,
    }
}

fn one_after_another(all: u64) -> Images {
    let in_turn = all;
    Images { all, in_turn }
}

/// The policy's own example.
pub(super) fn flux() -> Workload {
    Workload {
        recipe: Recipe::parse("flux.dev/lora+ckpt").expect("a recipe"),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![dataset(None, 0, 4)],
        length: Length::Steps(150),
        checkpoint_every: Some(60),
        validation: Some(Validation {
            every_steps: Some(75),
            every_epochs: None,
            after_step: 0,
            after_epoch: 0,
            at_start: false,
            baseline: true,
            generations: 3,
            resolutions: vec![half_megapixels(2)],
            frames: FrameClass::Single,
            inference_steps: 20,
        }),
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing::default(),
    }
}

/// `flux()` in epochs over these data sets.
fn epochs(epochs: u32, datasets: Vec<Dataset>) -> Workload {
    let length = Length::Epochs(epochs);
    Workload {
        length,
        datasets,
        ..flux()
    }
}

fn steps(workload: &Workload, gpu_count: u8) -> u64 {
    workload.plan(gpu_count).expect("a plan").steps_total
}

#[test]
fn the_policys_example_has_150_steps_and_9_prompts() {
    let workload = flux();
    assert_eq!(workload.check(), Ok(()));
    assert!(workload.on_record());
    let plan = workload.plan(1).expect("a plan");
    let shape = TrainingShape {
        recipe: workload.recipe,
        resolution: half_megapixels(2),
        batch_size: BatchSize::new(4).expect("on the grid"),
        accumulation: Accumulation::new(1).expect("on the grid"),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
    };
    let prompt = ValidationShape {
        recipe: workload.recipe,
        resolution: half_megapixels(2),
        inference_steps: InferenceSteps::new(20).expect("on the grid"),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
    };
    assert_eq!(
        plan,
        Plan {
            steps_total: 150,
            steps_announced: 150,
            training: vec![(shape, 150)],
            validation: vec![(prompt, one_after_another(9))],
            validation_passes: 3,
            validated_until: 150,
            checkpoints: 2,
            samples: None,
            steps_assumed: false,
        }
    );
}

#[test]
fn epochs_count_as_simpletuner_counts_them() {
    // 25 images, one repeat, batch 4: 13 steps an epoch.
    assert_eq!(steps(&epochs(10, vec![dataset(Some(25), 1, 4)]), 1), 130);
    // Its documented example on 8 GPUs needs 32 samples, so one repeat.
    assert_eq!(steps(&epochs(1, vec![dataset(Some(25), 1, 4)]), 8), 2);
    let too_few = epochs(1, vec![dataset(Some(25), 0, 4)]).plan(8);
    let (available, needed) = (25, 32);
    assert_eq!(
        too_few,
        Err(Missing::TooFewSamples {
            dataset: 1,
            available,
            needed,
            gpu_count: 8
        })
    );
    let said = too_few.expect_err("too few").to_string();
    assert!(said.contains("one step on 8 GPUs takes 32"), "{said}");
    let padded = Dataset {
        padded: true,
        ..dataset(Some(25), 0, 4)
    };
    assert_eq!(steps(&epochs(1, vec![padded]), 8), 2);
    // 10 samples seen twice are 20; a step takes 16, and a second one is filled up.
    let padded = Dataset {
        padded: true,
        ..dataset(Some(10), 0, 4)
    };
    let workload = Workload {
        accumulation: 4,
        ..epochs(1, vec![padded])
    };
    assert_eq!(steps(&workload, 1), 2);
    // Batches are accumulated over the ends of epochs: three times 25 + 10 in steps of 4, where SimpleTuner announces 27.
    let two = vec![dataset(Some(100), 0, 4), dataset(Some(40), 0, 4)];
    let workload = Workload {
        accumulation: 4,
        ..epochs(3, two)
    };
    assert_eq!(steps(&workload, 1), 26);
    let plan = workload.plan(1).expect("a plan");
    assert_eq!(plan.steps_announced, 27);
}

#[test]
fn unknown_sizes_are_asked_for_only_where_they_matter() {
    let unknown = vec![dataset(Some(9), 0, 1), dataset(None, 0, 1)];
    let plan = epochs(1, unknown.clone()).plan(1);
    assert_eq!(plan, Err(Missing::Samples { dataset: 2 }));
    let plan = Workload {
        datasets: unknown,
        ..flux()
    }
    .plan(1)
    .expect("a plan");
    assert_eq!((plan.steps_assumed, plan.samples), (false, None));
    let mut workload = flux();
    if let Some(validation) = &mut workload.validation {
        validation.every_steps = None;
        validation.every_epochs = Some(1);
    }
    assert_eq!(workload.plan(1), Err(Missing::Samples { dataset: 1 }));
    workload.datasets[0].samples = Some(200);
    assert_eq!(workload.plan(1).map(|plan| plan.validation_passes), Ok(4));
}

#[test]
fn steps_are_shared_by_batches_or_evenly_when_sizes_are_unknown() {
    let large = |samples| Dataset {
        resolution: half_megapixels(8),
        ..dataset(samples, 0, 4)
    };
    let parts = |datasets| {
        let plan = Workload { datasets, ..flux() }.plan(1).expect("a plan");
        let parts: Vec<u64> = plan.training.iter().map(|part| part.1).collect();
        (parts, plan.steps_assumed)
    };
    let known = vec![
        dataset(Some(400), 0, 4),
        large(Some(100)),
        dataset(Some(100), 0, 4),
    ];
    assert_eq!(parts(known), (vec![125, 25], false));
    assert_eq!(
        parts(vec![dataset(None, 0, 4), large(None)]),
        (vec![75, 75], true)
    );
    assert_eq!(
        parts(vec![dataset(Some(400), 0, 4), large(None)]),
        (vec![75, 75], true)
    );
}

#[test]
fn gpus_that_share_a_sample_are_one_replica() {
    let workload = Workload {
        context_parallel: 2,
        off_record: vec![OffRecord::Sharding],
        ..epochs(1, vec![dataset(Some(64), 0, 4)])
    };
    assert_eq!(workload.check(), Ok(()));
    assert_eq!(steps(&workload, 8), 4);
    let (gpu_count, context_parallel) = (3, 2);
    assert_eq!(
        workload.plan(3),
        Err(Missing::Gpus {
            gpu_count,
            context_parallel
        })
    );
}

#[test]
fn every_resolution_and_clip_length_has_its_own_shape() {
    let mut workload = flux();
    workload.recipe = Recipe::parse("wan.t2v-480p-1.3b-2.1/lora+ckpt@81f").expect("a recipe");
    workload.datasets = vec![
        Dataset {
            frames: FrameClass::UpTo81,
            ..dataset(None, 0, 1)
        },
        dataset(None, 0, 1),
    ];
    if let Some(validation) = &mut workload.validation {
        validation.resolutions = vec![half_megapixels(1), half_megapixels(2), half_megapixels(1)];
    }
    assert_eq!(workload.check(), Ok(()));
    let plan = workload.plan(1).expect("a plan");
    let recipes: Vec<_> = plan
        .training
        .iter()
        .map(|(shape, _)| shape.recipe.name())
        .collect();
    assert_eq!(
        recipes,
        [
            "wan.t2v-480p-1.3b-2.1/lora+ckpt@81f",
            "wan.t2v-480p-1.3b-2.1/lora+ckpt"
        ]
    );
    let prompts: Vec<_> = plan
        .validation
        .iter()
        .map(|(shape, n)| (shape.resolution.get(), *n))
        .collect();
    assert_eq!(
        prompts,
        [(1, one_after_another(18)), (2, one_after_another(9))]
    );
}

#[test]
fn a_workload_says_of_itself_what_is_off_the_grid() {
    let mut workload = flux();
    workload.datasets[0].batch_size = 5;
    assert!(workload.check().is_err());
    assert!(!workload.training_on_record() && !workload.on_record());
    workload.off_record = vec![OffRecord::BatchSize];
    assert_eq!(workload.check(), Ok(()));
    let plan = workload.plan(1).expect("a plan");
    assert_eq!(plan.training[0].0.batch_size.get(), 6);
    workload.datasets[0].batch_size = 4;
    workload.off_record = vec![OffRecord::ValidationMethod];
    assert_eq!(workload.check(), Ok(()));
    assert!(workload.training_on_record() && !workload.on_record());
    assert!(!workload.measured_steps_on_record());
    for reason in [OffRecord::ValidationSetting, OffRecord::InferenceSteps] {
        workload.off_record = vec![reason];
        assert!(workload.training_on_record() && !workload.on_record());
        assert!(workload.measured_steps_on_record());
    }
    workload.off_record = vec![OffRecord::Offload, OffRecord::BatchSize];
    assert!(workload.check().is_err(), "unsorted");
}

#[test]
fn postcard_carries_a_workload_there_and_back() {
    let workload = flux();
    let bytes = postcard::to_allocvec(&workload).expect("bytes");
    assert!(bytes.len() < 64, "{} bytes", bytes.len());
    let back: Workload = postcard::from_bytes(&bytes).expect("a workload");
    assert_eq!(back, workload);
}

fn any_dataset() -> impl Strategy<Value = Dataset> {
    let frames = prop::sample::select(&FrameClass::ALL[..]);
    (
        1u8..=66,
        frames,
        any::<u32>(),
        any::<Option<u64>>(),
        any::<u32>(),
        any::<bool>(),
    )
        .prop_map(
            |(resolution, frames, batch_size, samples, repeats, padded)| Dataset {
                resolution: half_megapixels(resolution),
                frames,
                batch_size,
                samples,
                repeats,
                padded,
            },
        )
}

fn any_workload() -> impl Strategy<Value = Workload> {
    let recipes: Vec<Recipe> = Recipe::all().step_by(97).collect();
    let length = prop_oneof![
        any::<u64>().prop_map(Length::Steps),
        any::<u32>().prop_map(Length::Epochs)
    ];
    let schedule = any::<(Option<u64>, Option<u32>, u64, u32)>();
    let numbers = any::<(bool, bool, u32, u32)>();
    let validation = (schedule, numbers, prop::collection::vec(1u8..=66, 0..4));
    let validation = validation.prop_map(|(schedule, numbers, sizes)| Validation {
        every_steps: schedule.0,
        every_epochs: schedule.1,
        after_step: schedule.2,
        after_epoch: schedule.3,
        at_start: numbers.0,
        baseline: numbers.1,
        generations: numbers.2,
        resolutions: sizes.into_iter().map(half_megapixels).collect(),
        frames: FrameClass::Single,
        inference_steps: numbers.3,
    });
    let datasets = prop::collection::vec(any_dataset(), 0..5);
    let numbers = any::<(u32, u32, Option<u64>)>();
    (
        prop::sample::select(recipes),
        numbers,
        datasets,
        length,
        prop::option::of(validation),
        any_sharing(),
    )
        .prop_map(
            |(
                recipe,
                (accumulation, context_parallel, checkpoint_every),
                datasets,
                length,
                validation,
                sharing,
            )| Workload {
                recipe,
                precision: Precision::Bf16,
                quantization: Quantization::None,
                accumulation,
                context_parallel,
                datasets,
                length,
                checkpoint_every,
                validation,
                off_record: Vec::new(),
                preparation: Preparation::default(),
                sharing,
            },
        )
}

fn any_sharing() -> impl Strategy<Value = Sharing> {
    let sampling = prop::sample::select(vec![Sampling::ByBatches, Sampling::Uniform]);
    let share = any::<(u32, bool)>().prop_map(|(chance, is_undivided)| Share {
        chance,
        is_undivided,
    });
    let held_out = any::<(u32, u64, u32)>().prop_map(|(batch_size, samples, repeats)| HeldOut {
        batch_size,
        samples,
        repeats,
    });
    (
        any::<u32>(),
        sampling,
        prop::collection::vec(share, 0..5),
        prop::option::of(held_out),
    )
        .prop_map(
            |(validation_prompts, sampling, datasets, held_out)| Sharing {
                validation_prompts,
                sampling,
                datasets,
                held_out,
            },
        )
}

proptest! {
    #[test]
    fn no_workload_however_wild_makes_planning_panic(workload in any_workload(), gpu_count: u8) {
        let _ = workload.check();
        if let Ok(plan) = workload.plan(gpu_count) {
            let sum: u128 = plan.training.iter().map(|part| u128::from(part.1)).sum();
            prop_assert_eq!(sum, u128::from(plan.steps_total));
        }
    }

    #[test]
    fn parts_add_up_to_the_whole(total in 0u64..1 << 40, weights in prop::collection::vec(any::<u64>(), 1..20)) {
        let mut parts: Vec<((), u64)> = weights.into_iter().map(|weight| ((), weight)).collect();
        share(total, &mut parts);
        prop_assert_eq!(parts.iter().map(|part| part.1).sum::<u64>(), total);
    }
}
