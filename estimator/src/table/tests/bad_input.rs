//! Tests of what is broken or not ours under the prefix: it is told, left out, and ends nothing.

use std::time::SystemTime;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use deltalake::kernel::{Action, Add, StructField};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::{DeltaOperation, SaveMode};

use super::*;
use crate::table::columns;

/// The data files of the table.
pub(super) async fn files(store: &Arc<dyn ObjectStore>) -> Vec<Path> {
    let prefix = Path::from("bench/training_steps");
    let listed = store.list_with_delimiter(Some(&prefix)).await;
    let objects = listed.expect("files").objects;
    objects.into_iter().map(|object| object.location).collect()
}

/// Puts a file beside the log and lets a log entry name it, as another program would.
async fn add_file(own: &Table, name: &str, bytes: Vec<u8>, rows: usize) {
    let size = i64::try_from(bytes.len()).expect("small");
    let store = own.log.object_store(None);
    store
        .put(&Path::from(name), bytes.into())
        .await
        .expect("put");
    let mut state = own.lock().await;
    own.follow_in(&mut state).await.expect("followed");
    let add = Add {
        path: name.to_owned(),
        size,
        data_change: true,
        stats: Some(format!(r#"{{"numRecords":{rows}}}"#)),
        ..Add::default()
    };
    let operation = DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: None,
        predicate: None,
    };
    own.write_entry(
        &mut state,
        vec![Action::Add(add)],
        Vec::new(),
        operation,
        std::collections::HashMap::new(),
    )
    .await
    .expect("entry");
}

fn parquet_of(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("writer");
    writer.write(batch).expect("written");
    writer.close().expect("closed");
    bytes
}

/// Good rows with one column in the place of another, perhaps of another type.
fn with_column(rows: &[Row], name: &str, column: ArrayRef) -> RecordBatch {
    let batch = columns::encode(Kind::Training, rows).expect("columns");
    let schema = batch.schema();
    let at = schema.index_of(name).expect("column");
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields[at] = Field::new(name, column.data_type().clone(), true);
    let mut arrays = batch.columns().to_vec();
    arrays[at] = column;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("batch")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_broken_is_told_and_left_out_until_it_is_whole() {
    let store = memory();
    let own = table(&store);
    for id in 0..9 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let broken = files(&store).await[0].clone();
    let whole = store.get(&broken).await.expect("file").bytes().await;
    let whole = whole.expect("bytes");
    let middle = whole.len() / 2;
    let cuts = [&b"no parquet"[..], &[], &whole[..middle], &whole[middle..]];
    for damage in cuts {
        let damage = damage.to_vec();
        store.put(&broken, damage.into()).await.expect("damaged");
        let reader = table(&store);
        let news = reader.follow().await.expect("the rest");
        assert_eq!((found(&news), reader.listing().unreadable.len()), (16, 1));
        assert_eq!(reader.listing().files.len(), 8, "a query reads these");
    }
    store.delete(&broken).await.expect("lost");
    let keeper = table(&store);
    let news = keeper.follow().await.expect("the rest");
    assert_eq!((found(&news), keeper.listing().unreadable.len()), (16, 1));

    let done = keeper.compact(drop).await.expect("compacted");
    assert_eq!((done.files, done.rows), (8, 16), "the broken one stays");
    assert_eq!(keeper.listing().unreadable.len(), 1);
    let more = keeper.commit(&batch(20..21), drop).await.expect("stored");
    assert_eq!(more.rows, 2, "and nothing is held up");

    store.put(&broken, whole.into()).await.expect("mended");
    let mut learnt = 0;
    let learn = |news: News| learnt += found(&news);
    keeper.compact(learn).await.expect("looked again");
    assert_eq!((learnt, keeper.listing().unreadable.len()), (2, 0));
    let mut all = expected(&batch(0..9));
    all.extend(expected(&batch(20..21)));
    all.sort_unstable();
    assert_eq!(stored(&store).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_none_are_counted_and_the_others_are_read() {
    let good = expected(&batch(0..2));
    let floats = |values: [f64; 4]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    let ints = |values: [i32; 4]| Arc::new(Int32Array::from(values.to_vec())) as ArrayRef;
    let store = memory();
    let own = table(&store);
    own.commit(&batch(9..10), drop).await.expect("stored");
    let cases = [
        (
            "avg_step_ms",
            floats([f64::NAN, f64::INFINITY, -5.0, 100.0]),
            1,
        ),
        ("avg_step_ms", ints([-1, 0, i32::MIN, 100]), 1),
        ("steps_observed", ints([-20, 0, 19, 150]), 1),
        ("resolution_mp", floats([f64::NAN, -1.0, 0.3, 1e300]), 0),
        ("batch_size", ints([37, -4, 0, 4]), 1),
    ];
    let mut refused = 0;
    let mut read = 2;
    for (number, (name, column, right)) in cases.into_iter().enumerate() {
        let file = parquet_of(&with_column(&good, name, column));
        add_file(&own, &format!("{number}.parquet"), file, 4).await;
        refused += 4 - right;
        read += right;
        let news = table(&store).follow().await.expect("read");
        assert_eq!(
            (found(&news), news.refused_rows),
            (read as usize, refused),
            "{name}"
        );
    }
    for id in 10..18 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let done = own.compact(drop).await.expect("compacted");
    assert_eq!(
        done.files, 9,
        "files with rows that are none are not rewritten"
    );
    let news = table(&store).follow().await.expect("read");
    assert_eq!(news.refused_rows, refused);
}

/// Such files may be all that one round can hold.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_may_not_move_hold_up_no_others_and_are_read_once() {
    let disk = memory();
    let counted = Faulty::new(&disk, None);
    let store: Arc<dyn ObjectStore> = counted.clone();
    let own = table(&store);
    let key = training_key("flux.dev/lora", "rtx4090");
    for number in 0..9u32 {
        let many = (0..600u32).map(|more| Contribution {
            id: u128::from(number * 1_000 + more).to_be_bytes(),
            rows: vec![row(key, 100 + more, 150)],
        });
        let many: Vec<_> = many.collect();
        own.commit(&many, drop).await.expect("stored");
    }
    let unknown = Arc::new(Int32Array::from(vec![37])) as ArrayRef;
    let one = [row(key, 100, 150)];
    let file = parquet_of(&with_column(&one, "batch_size", unknown));
    for number in 0..8 {
        // As the log says, they fill a round.
        add_file(&own, &format!("{number}.parquet"), file.clone(), 500_000).await;
    }
    let done = own.compact(drop).await.expect("compacted");
    assert_eq!((done.files, done.rows), (9, 9 * 600));
    assert_eq!(own.lock().await.left.len(), 8);
    for id in 0..8 {
        let sent = contribution(100 + id, vec![row(key, 100, 150)]);
        own.commit(&[sent], drop).await.expect("stored");
    }
    let before = counted.row_files_read();
    let done = own.compact(drop).await.expect("compacted");
    assert_eq!(
        done.files, 9,
        "the new ones and what they were put into before"
    );
    assert_eq!(counted.row_files_read() - before, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_a_newer_version_are_read_past_and_not_written() {
    let store = memory();
    let own = table(&store);
    let fields = Kind::Training.delta_fields();
    let more = StructField::new("colour", deltalake::kernel::DataType::STRING, true);
    CreateBuilder::new()
        .with_log_store(Arc::clone(&own.log))
        .with_columns(fields.chain([more]))
        .await
        .expect("a table of tomorrow");
    let rows = columns::encode(Kind::Training, &expected(&batch(0..2))).expect("columns");
    let schema = rows.schema();
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("colour", DataType::Int32, true));
    let mut arrays = rows.columns().to_vec();
    arrays.push(Arc::new(Int32Array::from(vec![1; 4])));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("batch");
    add_file(&own, "new.parquet", parquet_of(&rows), 4).await;
    let reader = table(&store);
    let news = reader.follow().await.expect("read");
    assert_eq!((found(&news), news.refused_rows), (4, 0));
    assert!(reader.listing().read_only);
    let error = reader.commit(&batch(3..4), drop).await.err();
    let error = error.expect("not written").to_string();
    assert!(
        error.contains("a newer version has added columns"),
        "{error}"
    );
    assert!(reader.compact(drop).await.is_err());
    assert_eq!(
        reader
            .clean(SystemTime::now(), drop)
            .await
            .expect("nothing")
            .deleted,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_a_newer_protocol_says_so() {
    let store = memory();
    table(&store)
        .commit(&batch(0..1), drop)
        .await
        .expect("stored");
    let path = Path::from("bench/training_steps/_delta_log/00000000000000000002.json");
    let entry = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["tomorrow"],"writerFeatures":["tomorrow"]}}"#;
    store.put(&path, entry.into()).await.expect("put");
    let error = table(&store).follow().await.expect_err("newer");
    assert!(
        matches!(error, Error::Foreign { .. }) && !error.is_transient(),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_other_columns_is_none_of_ours() {
    let store = memory();
    let other = Url::parse("memory:///other/").expect("url");
    let other = Table::new(Kind::Validation, &store, &other).expect("table");
    other.create().await.expect("a table");
    let from = Path::from("other/validation_prompts/_delta_log/00000000000000000000.json");
    let to = Path::from("third/training_steps/_delta_log/00000000000000000000.json");
    store.copy(&from, &to).await.expect("copied");
    let third = Url::parse("memory:///third/").expect("url");
    let third = Table::new(Kind::Training, &store, &third).expect("table");
    let error = third.follow().await.expect_err("other columns");
    assert!(error.to_string().contains("inference_steps"), "{error}");
    assert!(!error.is_transient());
}
