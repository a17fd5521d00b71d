//! An answer in each of its forms: a table, comma separated values, JSON, Parquet.

use std::collections::HashSet;
use std::path::Path;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::parquet::arrow::ArrowWriter;
use serde_json::{Map, Value, json};
use stepcast_proto::v1::QuerySummary;

use super::Answer;
use crate::failure::Failure;
use crate::output::money::{bytes, count, counted};
use crate::output::table::{Side, Table};
use crate::output::time;
use crate::part::Part;

impl Answer {
    /// Every cell as text, row by row, or nothing where there is no value; within a list or the like that is `missing`.
    fn cells(&self, missing: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let wrong = |error: ArrowError| {
            Failure::refused("a value cannot be shown").detail(error.to_string())
        };
        let options = FormatOptions::default().with_null(missing);
        let mut rows = Vec::new();
        for batch in &self.batches {
            let columns = batch.columns().iter().map(|column| {
                let text = ArrayFormatter::try_new(column.as_ref(), &options)?;
                // A column of nothing but NULL has no list of them.
                Ok((column.logical_nulls(), text))
            });
            let columns = columns
                .collect::<Result<Vec<_>, ArrowError>>()
                .map_err(wrong)?;
            rows.extend((0..batch.num_rows()).map(|row| {
                columns
                    .iter()
                    .map(|(nulls, text)| {
                        let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                        (!is_null).then(|| text.value(row).to_string())
                    })
                    .collect()
            }));
        }
        Ok(rows)
    }

    /// The same where what is missing is told by this text.
    fn rows(&self, missing: &str) -> Result<Vec<Vec<String>>, Failure> {
        let row = |row: Vec<Option<String>>| {
            row.into_iter()
                .map(|cell| cell.unwrap_or_else(|| missing.to_owned()))
                .collect()
        };
        Ok(self.cells(missing)?.into_iter().map(row).collect())
    }

    /// How many rows there are.
    pub(crate) fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// The answer as a table.
pub(crate) fn table(answer: &Answer) -> Result<Table, Failure> {
    let sides = answer.schema.fields().iter().map(|field| {
        if field.data_type().is_numeric() {
            Side::Right
        } else {
            Side::Left
        }
    });
    let names: Vec<String> = answer
        .schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    Ok(Table::owned(
        names.into_iter().zip(sides).collect(),
        answer.rows("-")?,
    ))
}

/// The answer for a program, each row as an object.
pub(super) fn json_rows(answer: &Answer) -> Result<Value, Failure> {
    let names: Vec<&String> = answer
        .schema
        .fields()
        .iter()
        .map(|field| field.name())
        .collect();
    if let Some(name) = twice(&names) {
        return Err(
            Failure::refused(format!("two columns of the answer are called {name}"))
                .hint("give each column a name of its own with AS: in JSON a row is an object"),
        );
    }
    let kinds: Vec<&DataType> = answer
        .schema
        .fields()
        .iter()
        .map(|field| field.data_type())
        .collect();
    let shown = |text: String, kind: &DataType| match kind {
        DataType::Boolean => Value::Bool(text == "true"),
        // It was asked for to the last digit, and who reads JSON takes a number with a fraction for a double.
        kind if kind.is_decimal() => Value::String(text),
        kind if kind.is_numeric() => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        _ => Value::String(text),
    };
    let value = |text: Option<String>, kind: &DataType| match (text, kind) {
        (None, _) => Value::Null,
        (Some(text), kind) => shown(text, kind),
    };
    let rows = answer.cells("null")?.into_iter().map(|row| {
        let cells = row.into_iter().zip(&names).zip(&kinds);
        Value::Object(
            cells
                .map(|((text, name), kind)| ((*name).clone(), value(text, kind)))
                .collect::<Map<_, _>>(),
        )
    });
    let rows: Vec<Value> = rows.collect();
    let summary = &answer.summary;
    Ok(json!({
        "columns": answer.schema.fields().iter().map(|field| json!({
            "name": field.name(), "type": field.data_type().to_string(),
        })).collect::<Vec<_>>(),
        "rows": rows,
        "truncated": summary.truncated,
        "elapsed_s": summary.elapsed.as_ref().map(time::seconds),
        "objects_read": summary.objects_read,
        "objects_total": summary.objects_total,
        "bytes_read": summary.bytes_read,
    }))
}

/// A name that two columns have.
fn twice<'name>(names: &[&'name String]) -> Option<&'name String> {
    let mut seen = HashSet::new();
    names.iter().copied().find(|name| !seen.insert(*name))
}

/// The answer as comma separated values.
pub(super) fn csv(answer: &Answer) -> Result<String, Failure> {
    let quoted = |text: &str| {
        if text.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    let line = |cells: &mut dyn Iterator<Item = String>| {
        cells
            .map(|cell| quoted(&cell))
            .collect::<Vec<_>>()
            .join(",")
    };
    let mut text = line(
        &mut answer
            .schema
            .fields()
            .iter()
            .map(|field| field.name().clone()),
    );
    text.push('\n');
    for row in answer.rows("")? {
        text.push_str(&line(&mut row.into_iter()));
        text.push('\n');
    }
    Ok(text)
}

/// Writes the answer to a Parquet file. One that is there stays as it is unless all of the answer can be written.
pub(super) fn write_parquet(path: &Path, answer: &Answer) -> Result<(), Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::refused(format!("{} cannot be written", path.display())).detail(error.to_string())
    };
    let mut writer = ArrowWriter::try_new(Vec::new(), answer.schema.clone(), None)
        .map_err(|error| wrong(&error))?;
    for batch in &answer.batches {
        writer.write(batch).map_err(|error| wrong(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| wrong(&error))?;
    // What is there under the name may be a link to a file, or no file at all but a pipe.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_none| path.to_owned());
    if path.exists() && !path.is_file() {
        return std::fs::write(path, bytes).map_err(|error| wrong(&error));
    }
    let mut part = Part::create(path)?;
    part.write(&bytes)?;
    part.finish(path)
}

/// What a query took, in one line.
pub(crate) fn summary(summary: &QuerySummary, limit: Option<u32>) -> String {
    let elapsed = summary
        .elapsed
        .as_ref()
        .map(time::seconds)
        .unwrap_or_default();
    let more = match limit {
        _ if !summary.truncated => "",
        Some(limit) if summary.rows >= limit.into() => " (there are more: --limit)",
        // No limit of ours is as high as the server's own.
        _ => " (there are more, and no answer has all: ask with a WHERE)",
    };
    let rows = counted(summary.rows, "row", "rows");
    let objects = counted(summary.objects_total, "object", "objects");
    let read = count(summary.objects_read);
    format!(
        "{rows}{more} in {:.0} ms; read {read} of {objects} ({})",
        elapsed * 1e3,
        bytes(summary.bytes_read)
    )
}

impl Answer {
    /// What it took.
    pub(crate) fn summary(&self) -> &QuerySummary {
        &self.summary
    }
}
