//! One Parquet file of rows: the same rows give the same bytes, and nothing but the columns is in it.

use bytes::Bytes;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;
use stepcast_records::Row;

use super::columns;
use super::schema::Kind;

/// Says nothing about who wrote the file and when.
const CREATED_BY: &str = "stepcast";
/// Rows of a row group. One group holds any batch of contributions, so a group says nothing about one.
const ROW_GROUP_ROWS: usize = 1 << 17;
/// Rows of a page. Rows lie in the order of their keys, so that a query for one key reads a page of each column.
const PAGE_ROWS: usize = 4_096;

/// Files of more rows are none of ours, twice what a compaction moves into one: equal rows take next to no bytes, and all of
/// them would be in memory.
const ROWS_MAX: i64 = 8_000_000;

/// The bytes of a file that holds the rows of one table, sorted by key.
pub(super) fn write(kind: Kind, rows: &mut [Row]) -> Result<Bytes, ParquetError> {
    rows.sort_unstable();
    let properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        // Rows are looked at for whether a page is full after each so many, hence not more than a page has.
        .set_write_batch_size(PAGE_ROWS)
        .build();
    // The Arrow schema would be written beside the columns; plain types need none.
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, kind.arrow_schema(), options)?;
    writer.write(&columns::encode(kind, rows)?)?;
    writer.close()?;
    Ok(bytes.into())
}

/// The rows of a file, and how many of its rows were none.
pub(super) fn read(kind: Kind, bytes: Bytes) -> Result<(Vec<Row>, usize), ParquetError> {
    read_at_most(kind, bytes, ROWS_MAX)
}

fn read_at_most(kind: Kind, bytes: Bytes, most: i64) -> Result<(Vec<Row>, usize), ParquetError> {
    let mut rows = Vec::new();
    let mut refused = 0;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let count = reader.metadata().file_metadata().num_rows();
    if count > most {
        return Err(ParquetError::General(format!("it has {count} rows")));
    }
    for batch in reader.build()? {
        refused += columns::decode(kind, &batch?, &mut rows)?;
    }
    Ok((rows, refused))
}

#[cfg(test)]
mod tests {
    use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::testing::{row, training_key, validation_key};

    fn rows() -> Vec<Row> {
        let mut rows = Vec::new();
        for hardware in ["rtx4090", "h100", "h100x2"] {
            rows.push(row(training_key("flux.dev/lora", hardware), 14_000, 150));
            rows.push(row(validation_key("sdxl.base-1.0/full", hardware), 900, 12));
        }
        rows
    }

    #[test]
    fn the_same_rows_in_any_order_give_the_same_bytes() {
        for kind in Kind::ALL {
            let bytes = write(kind, &mut rows()).expect("file");
            let mut turned = rows();
            turned.reverse();
            assert_eq!(write(kind, &mut turned).expect("file"), bytes);
            let (read, refused) = read(kind, bytes).expect("rows");
            assert_eq!((read.len(), refused), (3, 0));
            assert!(read.is_sorted(), "rows lie in the order of their keys");
        }
    }

    #[test]
    fn nothing_but_the_columns_is_in_the_file() {
        for kind in Kind::ALL {
            let bytes = write(kind, &mut rows()).expect("file");
            let reader = SerializedFileReader::new(bytes).expect("file");
            let file = reader.metadata().file_metadata();
            assert_eq!(file.created_by(), Some("stepcast"));
            assert_eq!(file.key_value_metadata(), None);
            let columns = file.schema_descr().columns().iter();
            let columns: Vec<&str> = columns.map(|column| column.name()).collect();
            let fields: Vec<&str> = kind.fields().iter().map(|(name, _)| *name).collect();
            assert_eq!(columns, fields);
            assert_eq!(reader.metadata().num_row_groups(), 1);
        }
    }

    #[test]
    fn a_file_of_too_many_rows_is_not_read() {
        let bytes = write(Kind::Training, &mut rows()).expect("file");
        assert!(read_at_most(Kind::Training, bytes.clone(), 3).is_ok());
        let refused = read_at_most(Kind::Training, bytes, 2).expect_err("too many");
        assert!(refused.to_string().contains("it has 3 rows"), "{refused}");
    }

    #[test]
    fn a_broken_file_is_an_error_and_no_panic() {
        let bytes = write(Kind::Training, &mut rows()).expect("file");
        for cut in [0, 4, bytes.len() / 2, bytes.len() - 1] {
            assert!(
                read(Kind::Training, bytes.slice(..cut)).is_err(),
                "{cut} bytes"
            );
        }
    }
}
