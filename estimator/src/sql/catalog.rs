//! The two tables and their columns in words: what `\d`, `DESCRIBE` and docs/sql.md show.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::answer::Answer;
use super::words;
use crate::error::Error;
use crate::table::Kind;

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDoc {
    /// The name in SQL.
    pub name: &'static str,
    /// What a row is.
    pub description: &'static str,
    /// The columns, in their order.
    pub columns: Vec<ColumnDoc>,
    /// The same as Arrow has them.
    pub schema: SchemaRef,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDoc {
    /// The name in SQL.
    pub name: &'static str,
    /// The type in SQL.
    pub sql_type: &'static str,
    /// What it holds, with its unit.
    pub description: &'static str,
}

/// Both tables.
#[must_use]
pub fn tables() -> Vec<TableDoc> {
    Kind::ALL.into_iter().map(table).collect()
}

fn table(kind: Kind) -> TableDoc {
    let schema = kind.arrow_schema();
    let columns = kind
        .fields()
        .iter()
        .zip(schema.fields())
        .map(|(&(name, _), field)| ColumnDoc {
            name,
            sql_type: match field.data_type() {
                DataType::Utf8 => "text",
                DataType::Float64 => "double",
                _ => "integer",
            },
            description: column(name),
        });
    TableDoc {
        name: kind.name(),
        description: match kind {
            Kind::Training => {
                "step times: one row per run and kind of step, without any trace of who ran it"
            }
            Kind::Validation => "times of validation prompts: one row per run and kind of prompt",
        },
        columns: columns.collect(),
        schema,
    }
}

fn column(name: &str) -> &'static str {
    match name {
        "recipe" => {
            "model family, flavour and method, such as flux.dev/lora; +ckpt with gradient checkpointing, @81f for clips of up to 81 frames"
        }
        "hardware" => {
            "GPU model and count, such as h100x2; replayx1 marks times of the pretend device"
        }
        "resolution_mp" => "megapixels of one sample or image, rounded to the nearest half",
        "batch_size" => "samples in one micro-batch on one GPU",
        "gradient_accumulation_steps" => "micro-batches in one optimizer step",
        "inference_steps" => "denoising steps of one image",
        "precision" => "number format: bf16 or fp16",
        "quantization" => "how the frozen weights are quantised: none, int8 or nf4",
        "avg_step_ms" => {
            "mean time of one optimizer step in milliseconds, three significant digits"
        }
        "steps_observed" => "clean steps the mean is over, 20 to 1000",
        "avg_prompt_ms" => {
            "mean time of one validation prompt in milliseconds, three significant digits"
        }
        "prompts_observed" => "prompts the mean is over, 2 to 64",
        _ => "",
    }
}

/// Other names of the tables: what people write before they look.
pub(super) const ALSO: [(&str, Kind); 1] = [("validation", Kind::Validation)];

/// The table with this name, in any letter case.
pub(super) fn find(name: &str) -> Option<Kind> {
    let own = Kind::ALL.map(|kind| (kind.name(), kind));
    let mut names = own.into_iter().chain(ALSO);
    let found = names.find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, kind)| kind)
}

/// What `SHOW TABLES` answers.
pub(super) fn list_tables() -> Answer {
    let tables = tables();
    rows(&[
        ("table", tables.iter().map(|table| table.name).collect()),
        (
            "description",
            tables.iter().map(|table| table.description).collect(),
        ),
    ])
}

/// What `DESCRIBE` answers.
pub(super) fn list_columns(name: &str) -> Result<Answer, Error> {
    let kind = find(name).ok_or_else(|| words::no_table(name))?;
    let columns = table(kind).columns;
    Ok(rows(&[
        ("column", columns.iter().map(|column| column.name).collect()),
        (
            "type",
            columns.iter().map(|column| column.sql_type).collect(),
        ),
        (
            "description",
            columns.iter().map(|column| column.description).collect(),
        ),
    ]))
}

fn rows(columns: &[(&str, Vec<&str>)]) -> Answer {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, _)| Field::new(*name, DataType::Utf8, false))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns
        .iter()
        .map(|(_, texts)| Arc::new(StringArray::from(texts.clone())) as ArrayRef);
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays.collect());
    // The columns are equally long and all text; there is no other way for this to fail.
    Answer::of(batch.unwrap_or_else(|_| RecordBatch::new_empty(schema)))
}
