//! A workload to the wire.

use stepcast_proto::v1;
use stepcast_records::simpletuner::{
    Dataset, HeldOut, Length, Sampling, Share, Sharing, Validation, Workload,
};

use super::quantity::closed_name;

/// What a configuration asks for.
pub(crate) fn workload(workload: &Workload) -> v1::Workload {
    v1::Workload {
        recipe: workload.recipe.name().to_owned(),
        precision: workload.precision.name().to_owned(),
        quantization: workload.quantization.name().to_owned(),
        gradient_accumulation_steps: workload.accumulation,
        context_parallel_size: workload.context_parallel,
        datasets: datasets(workload),
        length: Some(match workload.length {
            Length::Steps(steps) => v1::workload::Length::MaxTrainSteps(steps),
            Length::Epochs(epochs) => v1::workload::Length::NumTrainEpochs(epochs),
        }),
        checkpoint_step_interval: workload.checkpoint_every,
        validation: workload
            .validation
            .as_ref()
            .map(|passes| validation(passes, &workload.sharing)),
        off_record: workload.off_record.iter().map(closed_name).collect(),
        uniform_sampling: workload.sharing.sampling == Sampling::Uniform,
        held_out: workload.sharing.held_out.map(held_out),
    }
}

fn datasets(workload: &Workload) -> Vec<v1::Dataset> {
    let datasets = workload.datasets.iter().enumerate();
    datasets
        .map(|(position, set)| dataset(set, workload.sharing.of(position)))
        .collect()
}

fn held_out(held_out: HeldOut) -> v1::HeldOutDataset {
    v1::HeldOutDataset {
        batch_size: held_out.batch_size,
        samples: held_out.samples,
        repeats: held_out.repeats,
    }
}

fn dataset(dataset: &Dataset, share: Share) -> v1::Dataset {
    v1::Dataset {
        half_megapixels: dataset.resolution.get().into(),
        batch_size: dataset.batch_size,
        samples: dataset.samples,
        repeats: dataset.repeats,
        frames: dataset.frames.max_frames(),
        padded: dataset.padded,
        chance_millionths: (share.chance != Share::MOST).then_some(share.chance),
        undivided: share.is_undivided,
    }
}

fn validation(validation: &Validation, sharing: &Sharing) -> v1::Validation {
    v1::Validation {
        step_interval: validation.every_steps,
        epoch_interval: validation.every_epochs,
        at_start: validation.at_start,
        baseline: validation.baseline,
        generations: validation.generations,
        half_megapixels: validation
            .resolutions
            .iter()
            .map(|resolution| resolution.get().into())
            .collect(),
        inference_steps: validation.inference_steps,
        frames: validation.frames.max_frames(),
        after_step: validation.after_step,
        after_epoch: validation.after_epoch,
        prompts_dealt_out: sharing.validation_prompts,
    }
}
