//! Rows to columns and back. What does not come back as a valid row is counted, never guessed.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int32Type};
use datafusion::arrow::error::ArrowError;
use stepcast_records::schema::FieldType;
use stepcast_records::{
    Accumulation, BatchSize, HalfMegapixels, Hardware, InferenceSteps, Key, Precision,
    Quantization, Recipe, Row, TrainingKey, ValidationKey,
};

use super::schema::Kind;

/// The rows of one table as columns, in the order they have. Rows of the other table are left out.
pub(super) fn encode(kind: Kind, rows: &[Row]) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| Kind::of(&row.key) == kind)
        .collect();
    let columns = (0..kind.fields().len()).map(|index| column(kind, index, &rows));
    RecordBatch::try_new(kind.arrow_schema(), columns.collect())
}

fn column(kind: Kind, index: usize, rows: &[&Row]) -> ArrayRef {
    let (name, field) = kind.fields()[index];
    match field {
        FieldType::Name => Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| text(&row.key, name)),
        )),
        FieldType::Megapixels => Arc::new(Float64Array::from_iter_values(
            rows.iter().map(|row| row.key.resolution().megapixels()),
        )),
        FieldType::Grid | FieldType::Milliseconds | FieldType::Count => Arc::new(
            Int32Array::from_iter_values(rows.iter().map(|row| number(row, field, name))),
        ),
    }
}

fn text(key: &Key, name: &str) -> String {
    let (precision, quantization) = match key {
        Key::Training(key) => (key.precision, key.quantization),
        Key::Validation(key) => (key.precision, key.quantization),
    };
    match name {
        "recipe" => key.recipe().name().to_owned(),
        "hardware" => key.hardware().slug(),
        "precision" => precision.name().to_owned(),
        _ => quantization.name().to_owned(),
    }
}

fn number(row: &Row, field: FieldType, name: &str) -> i32 {
    let grid = |key: &Key| match key {
        Key::Training(key) if name == "batch_size" => u32::from(key.batch_size),
        Key::Training(key) => u32::from(key.accumulation),
        Key::Validation(key) => u32::from(key.inference_steps),
    };
    let number = match field {
        FieldType::Milliseconds => row.avg_ms,
        FieldType::Count => row.count,
        _ => grid(&row.key),
    };
    // Every bound of a row is far below two thousand million.
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Reads the rows of a batch of columns into `rows`; returns how many were none.
pub(super) fn decode(
    kind: Kind,
    batch: &RecordBatch,
    rows: &mut Vec<Row>,
) -> Result<usize, ArrowError> {
    let columns = Columns::of(kind, batch)?;
    let (mut recipe, mut hardware) = (Memo::default(), Memo::default());
    let mut refused = 0;
    for index in 0..batch.num_rows() {
        match columns.row(kind, index, &mut recipe, &mut hardware) {
            Some(row) => rows.push(row),
            None => refused += 1,
        }
    }
    Ok(refused)
}

/// The columns in the order of the policy, in the types they were written with.
struct Columns {
    columns: Vec<ArrayRef>,
}

impl Columns {
    fn of(kind: Kind, batch: &RecordBatch) -> Result<Self, ArrowError> {
        let schema = kind.arrow_schema();
        let fields = schema.fields().iter();
        let column = |name: &str, wanted: &DataType| {
            let column = batch.column_by_name(name);
            let column =
                column.ok_or_else(|| ArrowError::SchemaError(format!("no column {name}")))?;
            cast(column, wanted)
        };
        let columns = fields.map(|field| column(field.name(), field.data_type()));
        Ok(Self {
            columns: columns.collect::<Result<_, _>>()?,
        })
    }

    fn row(
        &self,
        kind: Kind,
        index: usize,
        recipe: &mut Memo<Recipe>,
        hardware: &mut Memo<Hardware>,
    ) -> Option<Row> {
        if self.columns.iter().any(|column| column.is_null(index)) {
            return None;
        }
        let text = |column: usize| self.columns[column].as_string::<i32>().value(index);
        let number = |column: usize| {
            let value = self.columns[column]
                .as_primitive::<Int32Type>()
                .value(index);
            u32::try_from(value).ok()
        };
        let recipe = recipe.of(text(0), Recipe::parse)?;
        let hardware = hardware.of(text(1), |text| text.parse().ok())?;
        let resolution = self.columns[2].as_primitive::<Float64Type>().value(index);
        let resolution = half_megapixels(resolution)?;
        let key = match kind {
            Kind::Training => Key::Training(TrainingKey {
                recipe,
                hardware,
                resolution,
                batch_size: BatchSize::new(number(3)?)?,
                accumulation: Accumulation::new(number(4)?)?,
                precision: Precision::parse(text(5))?,
                quantization: Quantization::parse(text(6))?,
            }),
            Kind::Validation => Key::Validation(ValidationKey {
                recipe,
                hardware,
                resolution,
                inference_steps: InferenceSteps::new(number(3)?)?,
                precision: Precision::parse(text(4))?,
                quantization: Quantization::parse(text(5))?,
            }),
        };
        let last = self.columns.len() - 1;
        Row::new(key, number(last - 1)?, number(last)?).ok()
    }
}

/// What the last name meant. Rows lie in the order of their keys, so that the next one mostly has the same.
struct Memo<T> {
    name: String,
    meaning: Option<T>,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self {
            name: String::new(),
            meaning: None,
        }
    }
}

impl<T: Copy> Memo<T> {
    fn of(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        if self.name != name {
            self.meaning = parse(name);
            name.clone_into(&mut self.name);
        }
        self.meaning
    }
}

/// The bucket of a stored number of megapixels; only exact halves are buckets.
fn half_megapixels(megapixels: f64) -> Option<HalfMegapixels> {
    let halves = megapixels * 2.0;
    let whole = halves.fract() == 0.0 && (1.0..=66.0).contains(&halves);
    whole.then(|| HalfMegapixels::new(halves as u8))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_row, row, training_key, validation_key};

    fn round_trip(kind: Kind, rows: &[Row]) -> Vec<Row> {
        let batch = encode(kind, rows).expect("columns");
        let mut back = Vec::new();
        assert_eq!(decode(kind, &batch, &mut back).expect("rows"), 0);
        back
    }

    proptest! {
        #[test]
        fn every_row_comes_back_as_it_was(rows in prop::collection::vec(any_row(), 0..40)) {
            for kind in Kind::ALL {
                let own: Vec<Row> = rows.iter().filter(|row| Kind::of(&row.key) == kind).copied().collect();
                prop_assert_eq!(round_trip(kind, &rows), own);
            }
        }
    }

    #[test]
    fn columns_read_as_people_write_them() {
        let rows = [
            row(training_key("flux.dev/lora+ckpt", "rtx4090"), 14_000, 150),
            row(validation_key("flux.dev/lora+ckpt", "h100x2"), 20_000, 9),
        ];
        let cells = |kind| {
            let batch = encode(kind, &rows).expect("columns");
            let texts = batch.columns().iter().map(|column| {
                let text = cast(column, &DataType::Utf8).expect("text");
                text.as_string::<i32>().value(0).to_owned()
            });
            texts.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            cells(Kind::Training),
            "flux.dev/lora+ckpt rtx4090x1 1.0 4 1 bf16 int8 14000 150"
        );
        assert_eq!(
            cells(Kind::Validation),
            "flux.dev/lora+ckpt h100x2 1.0 20 bf16 int8 20000 9"
        );
    }

    #[test]
    fn what_is_no_row_is_counted_and_left_out() {
        let good = row(training_key("flux.dev/lora", "rtx4090"), 14_000, 150);
        let batch = encode(Kind::Training, &[good, good, good]).expect("columns");
        let mut columns = batch.columns().to_vec();
        columns[0] = Arc::new(StringArray::from(vec![
            "flux.dev/lora",
            "my/own",
            "flux.dev/lora",
        ]));
        columns[3] = Arc::new(Int32Array::from(vec![4, 4, 37]));
        let batch = RecordBatch::try_new(batch.schema(), columns).expect("columns");
        let mut rows = Vec::new();
        assert_eq!(decode(Kind::Training, &batch, &mut rows).expect("read"), 2);
        assert_eq!(rows, [good]);
        assert!(
            decode(Kind::Validation, &batch, &mut rows).is_err(),
            "other columns"
        );
    }
}
