//! The benchmark tables in SQL.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stepcast_estimator::arrow::json::ArrayWriter;
use stepcast_estimator::sql::Answer;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::route::{Nothing, Route};
use crate::access::Permission;
use crate::service::Records;
use crate::status;

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
    /// One object a row; what is missing in one is null.
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

async fn query(http: Http, _: Asked<Nothing>, question: Question) -> Result<Rows, Status> {
    let records = Records(http.context);
    let answer = records.query(&question.sql, question.max_rows).await?;
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

fn rows(answer: &Answer) -> Result<Vec<Value>, Status> {
    let mut bytes = Vec::new();
    let mut writer = ArrayWriter::new(&mut bytes);
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
