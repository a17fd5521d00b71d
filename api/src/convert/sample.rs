//! Samples from the wire. Only words of closed lists and bounded numbers come through.

use stepcast_proto::v1;
use stepcast_records::{
    Accumulation, BatchSize, HalfMegapixels, Hardware, Histogram, InferenceSteps, Key, Precision,
    Quantization, Recipe, Sample, TrainingKey, ValidationKey,
};
use tonic::Status;

use crate::status::bad_field;

/// Samples of one contribution: an attempt measures one key of training and one of validation, or none.
pub(crate) const SAMPLES_MAX: usize = 2;

/// The samples of a contribution.
pub(crate) fn samples(samples: Vec<v1::Sample>) -> Result<Vec<Sample>, Status> {
    if samples.len() > SAMPLES_MAX {
        return Err(bad_field(
            "samples",
            format!("a contribution has at most {SAMPLES_MAX}"),
        ));
    }
    samples
        .into_iter()
        .enumerate()
        .map(|(index, one)| sample(&format!("samples[{index}]"), one))
        .collect()
}

fn sample(field: &str, sample: v1::Sample) -> Result<Sample, Status> {
    let key = match sample.key {
        Some(v1::sample::Key::Training(key)) => {
            Key::Training(training(&format!("{field}.training"), &key)?)
        }
        Some(v1::sample::Key::Validation(key)) => {
            Key::Validation(validation(&format!("{field}.validation"), &key)?)
        }
        None => return Err(bad_field(&format!("{field}.key"), "a sample has a key")),
    };
    let histogram = Histogram::from_v2_bytes(&sample.histogram_v2)
        .map_err(|error| bad_field(&format!("{field}.histogram_v2"), error.to_string()))?;
    Ok(Sample { key, histogram })
}

fn training(field: &str, key: &v1::TrainingKey) -> Result<TrainingKey, Status> {
    let known = Known { field };
    Ok(TrainingKey {
        recipe: known.or("recipe", Recipe::parse(&key.recipe))?,
        hardware: known.or("hardware", key.hardware.parse().ok())?,
        resolution: known.or("half_megapixels", resolution(key.half_megapixels))?,
        batch_size: known.or("batch_size", BatchSize::new(key.batch_size))?,
        accumulation: known.or(
            "gradient_accumulation_steps",
            Accumulation::new(key.gradient_accumulation_steps),
        )?,
        precision: known.or("precision", Precision::parse(&key.precision))?,
        quantization: known.or("quantization", Quantization::parse(&key.quantization))?,
    })
}

fn validation(field: &str, key: &v1::ValidationKey) -> Result<ValidationKey, Status> {
    let known = Known { field };
    Ok(ValidationKey {
        recipe: known.or("recipe", Recipe::parse(&key.recipe))?,
        hardware: known.or("hardware", key.hardware.parse::<Hardware>().ok())?,
        resolution: known.or("half_megapixels", resolution(key.half_megapixels))?,
        inference_steps: known.or("inference_steps", InferenceSteps::new(key.inference_steps))?,
        precision: known.or("precision", Precision::parse(&key.precision))?,
        quantization: known.or("quantization", Quantization::parse(&key.quantization))?,
    })
}

fn resolution(half_megapixels: u32) -> Option<HalfMegapixels> {
    u8::try_from(half_megapixels)
        .ok()
        .and_then(HalfMegapixels::new)
}

/// Says which field holds something that the records have no word for. What it holds is not repeated.
struct Known<'a> {
    field: &'a str,
}

impl Known<'_> {
    fn or<T>(&self, name: &str, value: Option<T>) -> Result<T, Status> {
        value.ok_or_else(|| {
            bad_field(
                &format!("{}.{name}", self.field),
                "the records have no place for this value",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_registry_does_not_come_through() {
        let key = v1::TrainingKey {
            recipe: "ana's secret model".into(),
            ..v1::TrainingKey::default()
        };
        let sample = v1::Sample {
            key: Some(v1::sample::Key::Training(key)),
            histogram_v2: Vec::new(),
        };
        let refused = samples(vec![sample])
            .err()
            .map(|status| status.message().to_owned())
            .unwrap_or_default();
        assert_eq!(
            refused,
            "samples[0].training.recipe: the records have no place for this value"
        );
    }
}
