//! Tests of `sql`: how answers are drawn and exported.

use super::*;
use datafusion::arrow::array::{Float64Array, StringArray};
use datafusion::arrow::datatypes::Field;
use std::sync::Arc;

fn answer() -> Answer {
    let schema = Schema::new(vec![
        Field::new("hardware", DataType::Utf8, true),
        Field::new("p50_s", DataType::Float64, true),
    ]);
    let schema: SchemaRef = schema.into();
    let names = StringArray::from(vec![Some("H100, x2"), None]);
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(names),
            Arc::new(Float64Array::from(vec![0.79, 1.5])),
        ],
    );
    Answer {
        schema,
        batches: vec![batch.expect("batch")],
        summary: QuerySummary {
            rows: 2,
            ..QuerySummary::default()
        },
    }
}

#[test]
fn an_answer_comes_in_every_form() {
    let answer = answer();
    assert_eq!(
        csv(&answer).expect("csv"),
        "hardware,p50_s\n\"H100, x2\",0.79\n,1.5\n"
    );
    let json = json_rows(&answer).expect("json");
    assert_eq!(
        json["rows"],
        json!([{ "hardware": "H100, x2", "p50_s": 0.79 }, { "hardware": null, "p50_s": 1.5 }])
    );
    assert_eq!(
        table(&answer).expect("table").tabs(),
        "hardware\tp50_s\nH100, x2\t0.79\n-\t1.5\n"
    );
    assert_eq!(
        summary(&answer.summary),
        "2 rows in 0 ms; read 0 of 0 objects (0 B)"
    );
}

#[test]
fn a_parquet_file_holds_the_rows() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("answer.parquet");
    write_parquet(&path, &answer()).expect("written");
    let file = std::fs::File::open(&path).expect("open");
    let reader =
        datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
            .expect("parquet");
    let rows: usize = reader
        .build()
        .expect("reader")
        .map(|batch| batch.expect("batch").num_rows())
        .sum();
    assert_eq!(rows, 2);
}
