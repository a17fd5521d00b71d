//! The plain form of a file: the columns of a table by their names.

use stepcast_records::{
    Accumulation, BatchSize, HalfMegapixels, Hardware, InferenceSteps, Key, Precision,
    Quantization, Recipe, Row, TrainingKey, ValidationKey, sample,
};

use super::{Columns, Door, Line, Refused, milliseconds, step_times};
use crate::error::Error;
use crate::table::Kind;

/// The columns of a file of step times, in any order.
pub const TRAINING_HEADER: &str = "recipe,hardware,resolution_mp,batch_size,gradient_accumulation_steps,precision,\
                                   quantization,avg_step_ms,steps_observed";
/// The columns of a file of validation times, in any order.
pub const VALIDATION_HEADER: &str = "recipe,hardware,resolution_mp,inference_steps,precision,quantization,avg_prompt_ms,prompts_observed";

/// How lines under this header are read. Other columns may stand beside those of a table.
pub(super) fn door(columns: &Columns) -> Result<Door, Error> {
    let lacks = |kind: Kind| {
        let names = kind.fields().iter().map(|(name, _)| *name);
        names.filter(|name| !columns.has(name)).collect()
    };
    let (steps, images): (Vec<&str>, Vec<&str>) = (lacks(Kind::Training), lacks(Kind::Validation));
    match (&steps[..], &images[..]) {
        ([], [_, ..]) => Ok(training),
        ([_, ..], []) => Ok(validation),
        ([], []) => Err(Error::Config(
            "the header has the columns of step times and those of validation times: make two files of it".into(),
        )),
        _ if step_times::is_mapped(columns) => Err(Error::Config(
            "the header is that of a collection of step times: give the mapping training_step_times".into(),
        )),
        _ => {
            let (what, header, lacks) = if images.len() < steps.len() {
                ("validation times", VALIDATION_HEADER, images)
            } else {
                ("step times", TRAINING_HEADER, steps)
            };
            Err(Error::Config(format!(
                "the header is not that of {what} ({header}): it lacks {}",
                lacks.join(", ")
            )))
        }
    }
}

fn training(line: &Line<'_>) -> Result<Row, Refused> {
    let key = TrainingKey {
        recipe: recipe(line)?,
        hardware: hardware(line)?,
        resolution: resolution(line)?,
        batch_size: line.read(
            "batch_size",
            |cell| BatchSize::new(cell.parse::<u16>().ok()?),
            "the batch size is not on the grid",
        )?,
        accumulation: line.read(
            "gradient_accumulation_steps",
            |cell| Accumulation::new(cell.parse::<u16>().ok()?),
            "the accumulation is not on the grid",
        )?,
        precision: precision(line)?,
        quantization: quantization(line)?,
    };
    let count = count(
        line,
        "steps_observed",
        sample::TRAINING_COUNT_MIN,
        sample::TRAINING_COUNT_MAX,
    )?;
    row(line, key.into(), "avg_step_ms", count)
}

fn validation(line: &Line<'_>) -> Result<Row, Refused> {
    let key = ValidationKey {
        recipe: recipe(line)?,
        hardware: hardware(line)?,
        resolution: resolution(line)?,
        inference_steps: line.read(
            "inference_steps",
            |cell| InferenceSteps::new(cell.parse::<u8>().ok()?),
            "the inference steps are not on the grid",
        )?,
        precision: precision(line)?,
        quantization: quantization(line)?,
    };
    let count = count(
        line,
        "prompts_observed",
        sample::VALIDATION_COUNT_MIN,
        sample::VALIDATION_COUNT_MAX,
    )?;
    row(line, key.into(), "avg_prompt_ms", count)
}

fn recipe(line: &Line<'_>) -> Result<Recipe, Refused> {
    line.read("recipe", Recipe::parse, "the recipe is not in the registry")
}

fn hardware(line: &Line<'_>) -> Result<Hardware, Refused> {
    line.read(
        "hardware",
        |cell| cell.parse().ok(),
        "the hardware is not in the registry",
    )
}

fn resolution(line: &Line<'_>) -> Result<HalfMegapixels, Refused> {
    line.read(
        "resolution_mp",
        HalfMegapixels::from_megapixels_decimal,
        "the resolution is no number of megapixels up to 33",
    )
}

fn precision(line: &Line<'_>) -> Result<Precision, Refused> {
    line.read(
        "precision",
        Precision::parse,
        "the precision is not bf16 or fp16",
    )
}

fn quantization(line: &Line<'_>) -> Result<Quantization, Refused> {
    line.read(
        "quantization",
        Quantization::parse,
        "the quantisation is not none, int8 or nf4",
    )
}

/// A count, clipped as a worker's is.
fn count(line: &Line<'_>, name: &str, min: u32, max: u32) -> Result<u32, Refused> {
    let enough = |cell: &str| {
        cell.parse::<u64>()
            .ok()
            .filter(|count| *count >= u64::from(min))
    };
    let count = line.read(name, enough, "too few were observed, or it is no number")?;
    Ok(u32::try_from(count).unwrap_or(max).min(max))
}

fn row(line: &Line<'_>, key: Key, name: &str, count: u32) -> Result<Row, Refused> {
    let avg_ms = line.read(
        name,
        milliseconds,
        "the time is no number of milliseconds from 1 up to an hour",
    )?;
    Row::new(key, avg_ms, count)
        .map_err(|_| ("the numbers are outside what a row may hold", String::new()))
}
