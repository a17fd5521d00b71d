//! The workload of an assignment: from the wire's words to the records', checked before anything believes it.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as NoName, StrDeserializer};
use stepcast_proto::v1;
use stepcast_records::simpletuner::{
    Dataset, HeldOut, Length, OffRecord, OutOfBounds, Preparation, Sampling, Share, Sharing,
    Validation, Workload,
};
use stepcast_records::{FrameClass, HalfMegapixels, Precision, Quantization, Recipe};

/// Why a workload cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Error {
    /// A field is missing or holds a word that this version does not know.
    #[error("its {field} is {value:?}, which this version does not know")]
    Unknown {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
    },
    /// The numbers are impossible.
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
}

/// Reads and checks a workload.
pub(super) fn read(wire: v1::Workload) -> Result<Workload, Error> {
    let length = match wire.length {
        Some(v1::workload::Length::MaxTrainSteps(steps)) => Length::Steps(steps),
        Some(v1::workload::Length::NumTrainEpochs(epochs)) => Length::Epochs(epochs),
        None => return Err(unknown("length", "nothing")),
    };
    let mut off_record: Vec<OffRecord> = wire.off_record.iter().map(|name| reason(name)).collect();
    off_record.sort_unstable();
    off_record.dedup();
    let sharing = sharing(&wire);
    let workload = Workload {
        recipe: Recipe::parse(&wire.recipe)
            .ok_or_else(|| unknown("recipe", wire.recipe.as_str()))?,
        precision: Precision::parse(&wire.precision)
            .ok_or_else(|| unknown("precision", wire.precision.as_str()))?,
        quantization: Quantization::parse(&wire.quantization)
            .ok_or_else(|| unknown("quantization", wire.quantization.as_str()))?,
        accumulation: wire.gradient_accumulation_steps,
        context_parallel: wire.context_parallel_size,
        datasets: wire
            .datasets
            .into_iter()
            .map(dataset)
            .collect::<Result<_, _>>()?,
        length,
        checkpoint_every: wire.checkpoint_step_interval,
        validation: wire.validation.map(validation).transpose()?,
        off_record,
        preparation: Preparation::default(),
        sharing,
    };
    workload.check()?;
    Ok(workload)
}

/// How its steps and images are shared out. Of what a worker does only the numbers of steps and what it records
/// of images rest on it.
fn sharing(wire: &v1::Workload) -> Sharing {
    let shares = wire.datasets.iter().map(|set| Share {
        chance: set.chance_millionths.unwrap_or(Share::MOST),
        is_undivided: set.undivided,
    });
    let is_usual = shares.clone().all(|share| share == Share::WHOLE);
    let validation = wire.validation.as_ref();
    Sharing {
        validation_prompts: validation.map_or(0, |passes| passes.prompts_dealt_out),
        sampling: match wire.uniform_sampling {
            true => Sampling::Uniform,
            false => Sampling::ByBatches,
        },
        datasets: if is_usual {
            Vec::new()
        } else {
            shares.collect()
        },
        held_out: wire.held_out.map(|held_out| HeldOut {
            batch_size: held_out.batch_size,
            samples: held_out.samples,
            repeats: held_out.repeats,
        }),
    }
}

fn dataset(wire: v1::Dataset) -> Result<Dataset, Error> {
    Ok(Dataset {
        resolution: resolution(wire.half_megapixels)?,
        frames: frames(wire.frames)?,
        batch_size: wire.batch_size,
        samples: wire.samples,
        repeats: wire.repeats,
        padded: wire.padded,
    })
}

fn validation(wire: v1::Validation) -> Result<Validation, Error> {
    Ok(Validation {
        every_steps: wire.step_interval,
        every_epochs: wire.epoch_interval,
        after_step: wire.after_step,
        after_epoch: wire.after_epoch,
        at_start: wire.at_start,
        baseline: wire.baseline,
        generations: wire.generations,
        resolutions: wire
            .half_megapixels
            .into_iter()
            .map(resolution)
            .collect::<Result<_, _>>()?,
        frames: frames(wire.frames)?,
        inference_steps: wire.inference_steps,
    })
}

fn resolution(half_megapixels: u32) -> Result<HalfMegapixels, Error> {
    let resolution = u8::try_from(half_megapixels)
        .ok()
        .and_then(HalfMegapixels::new);
    resolution.ok_or_else(|| unknown("half_megapixels", half_megapixels.to_string()))
}

fn frames(most: u32) -> Result<FrameClass, Error> {
    let class = FrameClass::from_frames(most).filter(|class| class.max_frames() == most);
    class.ok_or_else(|| unknown("frames", most.to_string()))
}

/// A newer server's reason is still a reason: what matters here is only that nothing is recorded.
fn reason(name: &str) -> OffRecord {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let known: StrDeserializer<'_, NoName> = name.as_str().into_deserializer();
    OffRecord::deserialize(known).unwrap_or(OffRecord::ModelSetting)
}

fn unknown(field: &'static str, value: impl Into<String>) -> Error {
    let mut value = value.into();
    crate::capture::cut(&mut value, 64);
    Error::Unknown { field, value }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn wire() -> v1::Workload {
        v1::Workload {
            recipe: "flux.dev/lora".to_owned(),
            precision: "bf16".to_owned(),
            quantization: "none".to_owned(),
            gradient_accumulation_steps: 1,
            context_parallel_size: 1,
            datasets: vec![v1::Dataset {
                half_megapixels: 2,
                batch_size: 4,
                samples: Some(20),
                frames: 1,
                ..Default::default()
            }],
            length: Some(v1::workload::Length::MaxTrainSteps(100)),
            validation: Some(v1::Validation {
                step_interval: Some(50),
                generations: 2,
                half_megapixels: vec![2],
                inference_steps: 20,
                frames: 1,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_workload_is_read_whole() {
        let workload = read(wire()).unwrap();
        assert_eq!(workload.length, Length::Steps(100));
        assert_eq!(workload.datasets[0].samples, Some(20));
        assert_eq!(workload.validation.as_ref().unwrap().every_steps, Some(50));
        assert!(workload.on_record());
    }

    #[test]
    fn what_is_held_out_is_counted_in_the_steps_that_are_announced() {
        let mut wire = wire();
        wire.length = Some(v1::workload::Length::NumTrainEpochs(2));
        wire.datasets[0].undivided = true;
        wire.datasets[0].batch_size = 1;
        wire.datasets[0].samples = Some(8);
        wire.held_out = Some(v1::HeldOutDataset {
            batch_size: 1,
            samples: 8,
            repeats: 0,
        });
        let plan = read(wire).unwrap().plan(2).unwrap();
        assert_eq!((plan.steps_total, plan.steps_announced), (16, 24));
    }

    #[test]
    fn unknown_words_and_impossible_numbers_are_named() {
        let error = |change: fn(&mut v1::Workload)| {
            let mut wire = wire();
            change(&mut wire);
            read(wire).unwrap_err().to_string()
        };
        assert!(
            error(|w| w.recipe = "flux.dev/telepathy".to_owned())
                .contains("recipe is \"flux.dev/telepathy\"")
        );
        assert!(error(|w| w.length = None).contains("length"));
        assert!(error(|w| w.datasets[0].half_megapixels = 0).contains("half_megapixels"));
        assert!(error(|w| w.datasets[0].frames = 16).contains("frames"));
        assert!(error(|w| w.datasets.clear()).contains("datasets"));
        assert!(error(|w| w.datasets[0].batch_size = 3_000_000).contains("batch_size"));
        assert!(error(|w| w.datasets[0].chance_millionths = Some(0)).contains("chance"));
        assert!(error(|w| w.held_out = Some(v1::HeldOutDataset::default())).contains("batch_size"));
    }

    #[test]
    fn a_reason_of_a_newer_server_keeps_the_run_off_the_record() {
        let mut wire = wire();
        wire.off_record = vec![
            "something-new".to_owned(),
            "BATCH_SIZE".to_owned(),
            "batch-size".to_owned(),
        ];
        let workload = read(wire).unwrap();
        assert_eq!(
            workload.off_record,
            [OffRecord::BatchSize, OffRecord::ModelSetting]
        );
        assert!(!workload.on_record());
    }
}
