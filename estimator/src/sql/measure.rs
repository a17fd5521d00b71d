//! What rows take in an answer, before they are put there.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;

/// The first rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fitting {
    /// How many.
    pub(super) rows: usize,
    /// Bytes that they take with their texts whole, as every reader of Arrow has them. As views of texts, which share what they
    /// are views of, thousands of long ones may take no more than one.
    pub(super) bytes: usize,
}

/// As many rows as may come, at most `rows` that take at most `bytes`.
pub(super) fn fitting(batch: &RecordBatch, rows: usize, bytes: usize) -> Result<Fitting> {
    let (mut texts, mut others) = (Vec::new(), 0);
    for column in batch.columns() {
        match column.data_type() {
            DataType::Utf8View => texts.push(column.as_string_view()),
            _ => others += used(column)?,
        }
    }
    let each = others.div_ceil(batch.num_rows().max(1)) + texts.len() * size_of::<i32>();
    let mut fitting = Fitting { rows: 0, bytes: 0 };
    for row in 0..batch.num_rows().min(rows) {
        let long = texts.iter().map(|texts| length(texts, row)).sum::<usize>();
        if fitting.bytes + each + long > bytes {
            break;
        }
        fitting.rows += 1;
        fitting.bytes += each + long;
    }
    Ok(fitting)
}

fn length(texts: &StringViewArray, row: usize) -> usize {
    match texts.is_valid(row) {
        true => texts.value(row).len(),
        false => 0,
    }
}

/// Bytes that the rows of a column take as they are: of what it may be a slice of, only its own.
pub(super) fn used(column: &ArrayRef) -> Result<usize> {
    let rows = column.to_data().get_slice_memory_size()?;
    Ok(match column.data_type() {
        DataType::Utf8View => rows + column.as_string_view().total_buffer_bytes_used(),
        _ => rows,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn rows_are_measured_with_their_texts_and_without_what_they_are_slices_of() {
        let texts = (0..1_000).map(|row| (row % 2 == 0).then(|| "a".repeat(row)));
        let schema = Schema::new(vec![
            Field::new("number", DataType::Int64, false),
            Field::new("text", DataType::Utf8View, true),
        ]);
        let whole = RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new((0..1_000).collect::<Int64Array>()),
                Arc::new(texts.collect::<StringViewArray>()),
            ],
        )
        .expect("a batch");
        let slice = whole.slice(100, 10);
        let every = slice.num_rows() * (8 + 4) + 100 + 102 + 104 + 106 + 108;
        let all = fitting(&slice, 10, usize::MAX).expect("measured");
        assert_eq!((all.rows, all.bytes), (10, every));
        let within = |bytes| fitting(&slice, 10, bytes).expect("measured").rows;
        assert_eq!((within(every), within(every - 1), within(0)), (10, 9, 0));
        assert_eq!(fitting(&slice, 3, every).expect("measured").rows, 3);
    }
}
