//! Tests of `sql`: how answers are drawn and exported.

use super::*;
use datafusion::arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, IntervalMonthDayNanoArray, ListArray,
    NullArray, StringArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, IntervalMonthDayNano};
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
        summary(&answer.summary, None),
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

fn columns(columns: Vec<(&str, ArrayRef)>) -> Answer {
    let fields = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema: SchemaRef = Schema::new(fields.collect::<Vec<_>>()).into();
    let arrays = columns.into_iter().map(|(_, column)| column).collect();
    Answer {
        batches: vec![RecordBatch::try_new(schema.clone(), arrays).expect("batch")],
        schema,
        summary: QuerySummary::default(),
    }
}

#[test]
fn columns_of_one_name_are_refused_as_json_and_shown_as_a_table() {
    let one = || -> ArrayRef { Arc::new(Int64Array::from(vec![1])) };
    let answer = columns(vec![("n", one()), ("n", one())]);
    let failure = json_rows(&answer).expect_err("one of them would be lost");
    assert_eq!(failure.primary, "two columns of the answer are called n");
    assert!(failure.hint.expect("hint").contains("AS"));
    assert_eq!(table(&answer).expect("table").tabs(), "n\tn\n1\t1\n");
    assert_eq!(csv(&answer).expect("csv"), "n,n\n1,1\n");
}

#[test]
fn a_decimal_keeps_its_digits_in_json_and_so_does_an_integer() {
    let digits = 12_345_678_901_234_567_890_123_456_789_012_345_678;
    let decimals = Decimal128Array::from(vec![Some(digits), Some(-150), None]);
    let decimals = decimals.with_precision_and_scale(38, 2).expect("in range");
    let integers = Int64Array::from(vec![i64::MAX, i64::MIN, 9_007_199_254_740_993]);
    let answer = columns(vec![("d", Arc::new(decimals)), ("n", Arc::new(integers))]);
    assert_eq!(
        json_rows(&answer).expect("json")["rows"].to_string(),
        "[{\"d\":\"123456789012345678901234567890123456.78\",\"n\":9223372036854775807},\
         {\"d\":\"-1.50\",\"n\":-9223372036854775808},\
         {\"d\":null,\"n\":9007199254740993}]"
    );
}

#[test]
fn what_is_missing_and_what_is_no_number_is_told_in_json() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(Vec::new()),
    ]);
    let floats = Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    let answer = columns(vec![
        ("list", Arc::new(list)),
        ("float", Arc::new(floats)),
        ("untyped", Arc::new(NullArray::new(3))),
    ]);
    assert_eq!(
        json_rows(&answer).expect("json")["rows"],
        json!([
            { "list": "[1, null]", "float": "NaN", "untyped": null },
            { "list": null, "float": "inf", "untyped": null },
            { "list": "[]", "float": "-inf", "untyped": null },
        ])
    );
    let lines = csv(&answer).expect("csv");
    assert!(
        lines.lines().skip(1).all(|line| line.ends_with(',')),
        "{lines}"
    );
}

#[test]
fn a_parquet_file_that_is_there_stays_unless_the_answer_can_be_written() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("answer.parquet");
    std::fs::write(&path, "kept").expect("write");
    let span = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)]);
    // A kind of value that Parquet does not have.
    write_parquet(&path, &columns(vec![("span", Arc::new(span))])).expect_err("refused");
    assert_eq!(std::fs::read(&path).expect("read"), b"kept");
    write_parquet(&path, &answer()).expect("written");
    let left = std::fs::read_dir(dir.path()).expect("folder").count();
    assert_eq!(left, 1, "a part is left");
    assert_ne!(std::fs::read(&path).expect("read"), b"kept");
}

#[test]
fn who_cut_an_answer_is_told() {
    let told = |rows, truncated, limit| {
        let of = QuerySummary {
            rows,
            truncated,
            ..QuerySummary::default()
        };
        let told = summary(&of, limit);
        told.split(" in ").next().unwrap_or_default().to_owned()
    };
    assert_eq!(told(2, false, Some(2)), "2 rows");
    assert_eq!(told(2, true, Some(2)), "2 rows (there are more: --limit)");
    let of_the_server = "10,000 rows (there are more, and no answer has all: ask with a WHERE)";
    assert_eq!(told(10_000, true, None), of_the_server);
    assert_eq!(told(10_000, true, Some(20_000)), of_the_server);
}
