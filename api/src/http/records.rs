//! The benchmark tables in SQL.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stepcast_estimator::arrow::array::{Array, AsArray, PrimitiveArray};
use stepcast_estimator::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, FieldRef, Float32Type, Float64Type,
};
use stepcast_estimator::arrow::error::ArrowError;
use stepcast_estimator::arrow::json::writer::{
    Encoder, EncoderFactory, EncoderOptions, JsonArray, NullableEncoder, WriterBuilder,
};
use stepcast_estimator::sql::Answer;
use tonic::{Code, Status};

use super::api::{Api, Asked, Http};
use super::route::{Nothing, Route};
use crate::access::Permission;
use crate::service::Records;
use crate::status::{self, Refusal};

pub(super) fn routes(api: &mut Api) {
    let sql = "One reading statement over the benchmark tables.";
    let query_route = Route::post("/v1/sql", Permission::ReadRecords, sql);
    api.route(query_route.anywhere(), query);
    let tables = "The tables and what their columns mean.";
    api.route(
        Route::get("/v1/tables", Permission::ReadRecords, tables),
        list,
    );
}

/// A question.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// The statement.
    sql: String,
    /// Most rows; 0 for as many as there may be.
    #[serde(default)]
    max_rows: u32,
}

/// The answer to it.
#[derive(Debug, Serialize, JsonSchema)]
struct Rows {
    /// Names of the columns, in their order.
    columns: Vec<String>,
    /// One object a row; what is missing in one is not in it. A number that is none is the text `NaN`, `inf` or `-inf`, and
    /// a decimal the text of its digits.
    rows: Vec<Value>,
    /// Whether there would have been more.
    truncated: bool,
    /// How long it took, in milliseconds.
    elapsed_ms: u64,
}

/// What there is.
#[derive(Debug, Serialize, JsonSchema)]
struct Tables {
    tables: Vec<Table>,
}

/// One table.
#[derive(Debug, Serialize, JsonSchema)]
struct Table {
    name: String,
    /// What a row is.
    doc: String,
    columns: Vec<Column>,
}

/// One column.
#[derive(Debug, Serialize, JsonSchema)]
struct Column {
    name: String,
    r#type: String,
    /// What it means.
    doc: String,
}

async fn query(http: Http, asked: Asked<Nothing>, question: Question) -> Result<Rows, Status> {
    let reader = http.reader(&asked, Permission::ReadRecords);
    let records = Records(http.context);
    let answer = records
        .query(&reader, &question.sql, question.max_rows)
        .await?;
    Ok(Rows {
        columns: answer
            .schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect(),
        rows: rows(&answer)?,
        truncated: answer.truncated,
        elapsed_ms: u64::try_from(answer.elapsed.as_millis()).unwrap_or(u64::MAX),
    })
}

/// Rows as objects, in which two columns cannot have the same name.
fn rows(answer: &Answer) -> Result<Vec<Value>, Status> {
    let mut names = HashSet::new();
    let fields = answer.schema.fields().iter();
    if let Some(field) = fields.into_iter().find(|field| !names.insert(field.name())) {
        let message = format!("two columns of the answer are called {}", field.name());
        return Err(Refusal::new(Code::InvalidArgument, "SAME_COLUMNS", message)
            .hint("give each column a name of its own with AS: in JSON a row is an object")
            .into());
    }
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new()
        .with_encoder_factory(Arc::new(Numbers))
        .build::<_, JsonArray>(&mut bytes);
    let batches: Vec<_> = answer.batches.iter().collect();
    let written = writer
        .write_batches(&batches)
        .and_then(|()| writer.finish());
    let rows = written
        .map_err(|error| error.to_string())
        .and_then(|()| match bytes.as_slice() {
            b"" => Ok(Vec::new()),
            bytes => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        });
    rows.map_err(|error| {
        tracing::error!(error, "an answer cannot be written as JSON");
        status::internal("JSON", "the answer cannot be written as JSON")
    })
}

/// Writes numbers with a fraction as `stepcast sql --json` does. JSON has no infinities, and what is no number is not the
/// same as what is missing. A decimal is a text, since it was asked for to the last digit.
#[derive(Debug)]
struct Numbers;

impl EncoderFactory for Numbers {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float64 => Box::new(Float(array.as_primitive::<Float64Type>())),
            DataType::Float32 => Box::new(Float(array.as_primitive::<Float32Type>())),
            DataType::Decimal32(..) => Box::new(Decimal(array.as_primitive::<Decimal32Type>())),
            DataType::Decimal64(..) => Box::new(Decimal(array.as_primitive::<Decimal64Type>())),
            DataType::Decimal128(..) => Box::new(Decimal(array.as_primitive::<Decimal128Type>())),
            DataType::Decimal256(..) => Box::new(Decimal(array.as_primitive::<Decimal256Type>())),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Float<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: ArrowPrimitiveType> Encoder for Float<'_, T>
where
    T::Native: Serialize + Into<f64> + Display,
{
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        let number = self.0.value(index);
        if number.into().is_finite() {
            // A number is always written.
            let _ = serde_json::to_writer(out, &number);
        } else {
            out.extend_from_slice(format!("\"{number}\"").as_bytes());
        }
    }
}

struct Decimal<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: DecimalType> Encoder for Decimal<'_, T> {
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("\"{}\"", self.0.value_as_string(index)).as_bytes());
    }
}

async fn list(_: Http, _: Asked<Nothing>, _: Nothing) -> Result<Tables, Status> {
    let column = |column: stepcast_proto::v1::Column| Column {
        name: column.name,
        r#type: column.r#type,
        doc: column.doc,
    };
    let table = |table: stepcast_proto::v1::Table| Table {
        name: table.name,
        doc: table.doc,
        columns: table.columns.into_iter().map(column).collect(),
    };
    let tables = Records::tables().tables.into_iter().map(table).collect();
    Ok(Tables { tables })
}
