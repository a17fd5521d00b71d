//! A workload to the wire.

use stepcast_proto::v1;
use stepcast_records::simpletuner::{Dataset, Length, Validation, Workload};

use super::quantity::closed_name;

/// What a configuration asks for.
pub(crate) fn workload(workload: &Workload) -> v1::Workload {
    v1::Workload {
        recipe: workload.recipe.name().to_owned(),
        precision: workload.precision.name().to_owned(),
        quantization: workload.quantization.name().to_owned(),
        gradient_accumulation_steps: workload.accumulation,
        context_parallel_size: workload.context_parallel,
        datasets: workload.datasets.iter().map(dataset).collect(),
        length: Some(match workload.length {
            Length::Steps(steps) => v1::workload::Length::MaxTrainSteps(steps),
            Length::Epochs(epochs) => v1::workload::Length::NumTrainEpochs(epochs),
        }),
        checkpoint_step_interval: workload.checkpoint_every,
        validation: workload.validation.as_ref().map(validation),
        off_record: workload.off_record.iter().map(closed_name).collect(),
    }
}

fn dataset(dataset: &Dataset) -> v1::Dataset {
    v1::Dataset {
        half_megapixels: dataset.resolution.get().into(),
        batch_size: dataset.batch_size,
        samples: dataset.samples,
        repeats: dataset.repeats,
        frames: dataset.frames.max_frames(),
        padded: dataset.padded,
    }
}

fn validation(validation: &Validation) -> v1::Validation {
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
    }
}
