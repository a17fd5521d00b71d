//! What a statement answers: columns, rows, and what it took to find them.

use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

/// The rows of a statement.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows, in the order of the statement.
    pub batches: Vec<RecordBatch>,
    /// Whether there would have been more rows.
    pub truncated: bool,
    /// Objects that were read, also in part.
    pub objects_read: usize,
    /// Objects that the tables have together.
    pub objects: usize,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// From the statement's arrival on its thread to its last row.
    pub elapsed: Duration,
}

impl Answer {
    /// Rows that came without reading anything.
    pub(super) fn of(batch: RecordBatch) -> Self {
        Self {
            schema: batch.schema(),
            batches: vec![batch],
            truncated: false,
            objects_read: 0,
            objects: 0,
            bytes_read: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The name and the type of each column, the type as Arrow writes it.
    #[must_use]
    pub fn columns(&self) -> Vec<(String, String)> {
        let fields = self.schema.fields().iter();
        fields
            .map(|field| (field.name().clone(), field.data_type().to_string()))
            .collect()
    }

    /// Every row as text, `None` for a null.
    #[must_use]
    pub fn cells(&self) -> Vec<Vec<Option<String>>> {
        let options = FormatOptions::default();
        let mut rows = Vec::with_capacity(self.rows());
        for batch in &self.batches {
            let columns: Vec<_> = batch
                .columns()
                .iter()
                .map(|column| (column, ArrayFormatter::try_new(column.as_ref(), &options)))
                .collect();
            for index in 0..batch.num_rows() {
                let cell = |(column, formatter): &(
                    &datafusion::arrow::array::ArrayRef,
                    Result<ArrayFormatter<'_>, _>,
                )| {
                    let formatter = formatter.as_ref().ok().filter(|_| !column.is_null(index))?;
                    formatter.value(index).try_to_string().ok()
                };
                rows.push(columns.iter().map(cell).collect());
            }
        }
        rows
    }
}
