//! Tests of the estimator's doors: recording, following, and a store that is not there.

mod one_table;

use std::time::Duration;

use datafusion::arrow::util::display::array_value_to_string;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;
use crate::import::{Mapping, PriceFile};
use crate::testing::{Faulty, contribution, hardware, row, training_key, validation_key};

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn over(store: &Arc<dyn ObjectStore>) -> Estimator {
    let base = Url::parse("memory:///bench/").expect("url");
    Estimator::over(Arc::clone(store), base, PriceBook::default()).expect("estimator")
}

/// One run: step times and a validation time.
fn run(id: u8, hardware: &str, avg_ms: u32) -> Contribution {
    let training = row(training_key("flux.dev/lora", hardware), avg_ms, 150);
    contribution(
        id,
        vec![
            training,
            row(validation_key("flux.dev/lora", hardware), 20_000, 9),
        ],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_known_at_once_and_counts_once() {
    let store = memory();
    let estimator = over(&store);
    let first = estimator
        .record(vec![run(1, "rtx4090", 14_000), run(2, "rtx4090", 14_200)])
        .await;
    assert_eq!(
        first.expect("stored"),
        Committed {
            stored: 2,
            skipped: 0,
            rows: 4
        }
    );
    let second = estimator
        .record(vec![run(2, "rtx4090", 14_200), run(3, "h100", 5_000)])
        .await;
    assert_eq!(
        second.expect("stored"),
        Committed {
            stored: 1,
            skipped: 1,
            rows: 2
        }
    );
    let empty = estimator.record(vec![contribution(4, Vec::new())]).await;
    assert_eq!(
        empty.expect("nothing to store"),
        Committed {
            stored: 0,
            skipped: 1,
            rows: 0
        }
    );

    let stats = estimator.stats();
    assert_eq!(
        (stats.training.rows, stats.validation.rows, stats.cells),
        (3, 3, 4)
    );
    assert_eq!((stats.objects(), stats.trouble), (4, None));
    let key = training_key("flux.dev/lora", "rtx4090");
    let index = estimator.index();
    let cell = index.training(&key.shape(), key.hardware).expect("cell");
    assert_eq!((cell.rows(), cell.count()), (2, 300));

    let stranger = over(&store);
    assert_eq!(stranger.stats(), Stats::default());
    stranger.refresh().await.expect("read");
    assert_eq!(
        stranger.stats(),
        estimator.stats(),
        "a process that starts later knows the same"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_the_index_never_changes() {
    let estimator = over(&memory());
    estimator
        .record(vec![run(1, "rtx4090", 14_000)])
        .await
        .expect("stored");
    let before = estimator.index();
    estimator
        .record(vec![run(2, "h100", 5_000)])
        .await
        .expect("stored");
    assert_eq!((before.cells(), estimator.index().cells()), (2, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_before_the_first_look_is_no_empty_answer() {
    let disk = memory();
    let faulty = Faulty::new(&disk, None);
    let store: Arc<dyn ObjectStore> = faulty.clone();
    over(&disk)
        .record(vec![run(1, "rtx4090", 14_000)])
        .await
        .expect("stored");
    let estimator = over(&store);
    let ask = || estimator.sql("SELECT count(*) FROM training_steps");
    faulty.set_dead(true);
    let error = ask().await.expect_err("gone");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    faulty.set_dead(false);
    let answer = ask().await.expect("answer");
    assert_eq!(answer.cells(), [[Some("1".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_is_said_and_nothing_is_lost() {
    let disk = memory();
    let faulty = Faulty::new(&disk, None);
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let estimator = over(&store);
    estimator
        .record(vec![run(1, "rtx4090", 14_000)])
        .await
        .expect("stored");
    faulty.set_dead(true);
    for _ in 0..2 {
        let error = estimator
            .record(vec![run(2, "rtx4090", 14_200)])
            .await
            .expect_err("gone");
        assert!(
            matches!(error, Error::Unreachable { .. }) && error.is_transient(),
            "{error:?}"
        );
        estimator.refresh().await.expect_err("gone");
        let stats = estimator.stats();
        assert_eq!(
            stats.trouble.as_deref(),
            Some("the benchmark store does not answer")
        );
        assert_eq!(stats.rows(), 2, "what was known stays known");
    }
    faulty.set_dead(false);
    let again = estimator
        .record(vec![run(1, "rtx4090", 14_000), run(2, "rtx4090", 14_200)])
        .await;
    assert_eq!(
        again.expect("stored"),
        Committed {
            stored: 1,
            skipped: 1,
            rows: 2
        }
    );
    assert_eq!(estimator.stats().trouble, None);
    assert_eq!(estimator.stats().rows(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_while_the_store_does_not_answer() {
    // Nobody listens on port 1 of this machine.
    let mut config = StoreConfig::at("s3://bench");
    config.s3.endpoint = Some("http://127.0.0.1:1".into());
    config.s3.region = Some("auto".into());
    config.s3.access_key_id = Some("id".into());
    config.s3.secret_access_key = Some("secret".into());
    config.s3.allow_http = true;
    let opened = timeout(
        Duration::from_secs(60),
        Estimator::open(config, PriceBook::shipped()),
    );
    let estimator = opened.await.expect("in time").expect("opened");
    assert!(estimator.stats().trouble.is_some());
    assert_eq!(estimator.index().cells(), 0);
    let gpu = hardware("h100").gpu;
    assert!(
        estimator.prices().price(gpu, crate::Day::today()).is_some(),
        "what needs no store works"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_a_store() {
    let folder = tempfile::tempdir().expect("folder");
    let config = StoreConfig::folder(folder.path().join("records"));
    let estimator = Estimator::open(config.clone(), PriceBook::default())
        .await
        .expect("opened");
    assert_eq!(
        estimator.stats().trouble,
        None,
        "an empty folder is an empty history"
    );
    let contributions: Vec<_> = (0..10).map(|id| run(id, "rtx4090", 14_000)).collect();
    for contribution in &contributions {
        estimator
            .record(vec![contribution.clone()])
            .await
            .expect("stored");
    }
    let left = folder.path().join("records/training_steps/x#1000007");
    let file = std::fs::File::create_new(&left).expect("left by a crash");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 86_400);
    file.set_modified(long_ago).expect("old");
    let compacted = estimator.compact().await.expect("compacted");
    assert_eq!((compacted.files, compacted.rows), (20, 20));
    assert_eq!((compacted.deleted, left.exists()), (1, false));
    assert_eq!(estimator.stats().objects(), 2);
    drop(estimator);
    let again = Estimator::open(config, PriceBook::default())
        .await
        .expect("opened");
    assert_eq!((again.stats().rows(), again.stats().cells), (20, 2));
    let repeated = again.record(contributions).await.expect("known");
    assert_eq!((repeated.stored, repeated.skipped), (0, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_the_store_is_told_and_everything_goes_on() {
    let store = memory();
    let estimator = over(&store);
    for id in 0..3 {
        estimator
            .record(vec![run(id, "rtx4090", 14_000)])
            .await
            .expect("stored");
    }
    let folder = Path::from("bench/training_steps");
    let listed = store.list_with_delimiter(Some(&folder)).await;
    let broken = listed.expect("list").objects[0].location.clone();
    store
        .put(&broken, "PAR1 no more".into())
        .await
        .expect("put");
    let stray = folder.join("notes.txt");
    store.put(&stray, "mine".into()).await.expect("put");

    let other = over(&store);
    other.refresh().await.expect("read");
    other.compact().await.expect("tidied up");
    let stats = other.stats();
    let training = &stats.training;
    assert_eq!((training.rows, training.objects), (2, 2));
    assert_eq!((training.refused_objects, training.foreign_objects), (1, 1));
    assert_eq!((stats.validation.rows, stats.trouble), (3, None));
    assert_eq!((stats.work.done, stats.work.failed), (1, 0));
    assert_eq!((stats.work.cells_written, stats.work.published), (2, 2));
    let answer = other.sql("SELECT count(*) FROM training_steps").await;
    assert_eq!(answer.expect("the rest").cells(), [[Some("2".to_owned())]]);
    let text = other.stats().metrics_text();
    let told = "stepcast_records_refused_objects{table=\"training_steps\"} 1";
    assert!(text.lines().any(|line| line == told), "{text}");
}

/// The training rows that the index and a statement see, and the objects that are left out.
async fn seen(estimator: &Estimator) -> (u64, u64, u64) {
    let answer = estimator.sql("SELECT count(*) FROM training_steps").await;
    let cells = answer.expect("answer").cells();
    let count = cells[0][0].as_ref().expect("a number");
    let training = estimator.stats().training;
    (
        training.rows,
        count.parse().expect("a number"),
        training.refused_objects,
    )
}

async fn restarted(store: &Arc<dyn ObjectStore>) -> Estimator {
    let estimator = over(store);
    estimator.refresh().await.expect("read");
    estimator
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_object_that_was_away_for_a_while_count_once() {
    let store = memory();
    let (estimator, late) = (over(&store), over(&store));
    for id in 0..9 {
        let run = run(id, "rtx4090", 14_000 + 100 * u32::from(id));
        estimator.record(vec![run]).await.expect("stored");
    }
    let folder = Path::from("bench/training_steps");
    let listed = store.list_with_delimiter(Some(&folder)).await;
    let lost = listed.expect("list").objects[0].location.clone();
    let bytes = store.get(&lost).await.expect("file").bytes().await;
    store.delete(&lost).await.expect("away");
    late.refresh().await.expect("read");
    assert_eq!(seen(&late).await, (8, 8, 1), "it never read that one");

    let moved = estimator.compact().await.expect("tidied up");
    assert_eq!(moved.files, 8 + 9);
    assert_eq!(seen(&estimator).await, (9, 8, 1), "what is known stays");
    let second = restarted(&store).await;
    assert_eq!(seen(&second).await, (9, 8, 1), "also from the cells");
    second.compact().await.expect("tidied up");
    assert_eq!(seen(&second).await, (9, 8, 1));

    store
        .put(&lost, bytes.expect("bytes").into())
        .await
        .expect("put back");
    for node in [&estimator, &second, &late] {
        node.compact().await.expect("tidied up");
        assert_eq!(seen(node).await, (9, 9, 0));
    }
    let third = restarted(&store).await;
    assert_eq!(seen(&third).await, (9, 9, 0));
    third
        .record(vec![run(9, "h100", 5_000)])
        .await
        .expect("stored");
    third.compact().await.expect("tidied up");
    assert_eq!(seen(&third).await, (10, 10, 0));
    assert_eq!(seen(&restarted(&store).await).await, (10, 10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_file_has_a_row_for_each_cell_and_is_written_when_that_changes() {
    let store = memory();
    let estimator = over(&store);
    let contributions = vec![
        run(1, "rtx4090", 14_000),
        run(2, "rtx4090", 14_200),
        run(3, "h100", 5_000),
        run(4, "replay", 14),
    ];
    estimator.record(contributions).await.expect("stored");
    for published in [2, 0] {
        let before = estimator.stats().work.published;
        estimator.compact().await.expect("tidied up");
        assert_eq!(estimator.stats().work.published - before, published);
    }
    let path = Path::from("bench/public/training_steps.parquet");
    let file = store.get(&path).await.expect("file").bytes().await;
    let file = file.expect("bytes");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("file");
    assert_eq!(reader.metadata().file_metadata().key_value_metadata(), None);
    let batches = reader.build().expect("reader");
    let mut rows = Vec::new();
    for batch in batches {
        let batch = batch.expect("batch");
        assert_eq!(batch.num_columns(), 9, "the policy's columns");
        for row in 0..batch.num_rows() {
            let cell =
                |column: usize| array_value_to_string(batch.column(column), row).expect("value");
            rows.push([1, 7, 8].map(cell).join(" "));
        }
    }
    assert_eq!(rows, ["rtx4090x1 14100 300", "h100x1 5000 150"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pretend_device_never_reaches_a_real_ones_cell() {
    let estimator = over(&memory());
    estimator
        .record(vec![run(1, "replay", 14), run(2, "rtx4090", 14_000)])
        .await
        .expect("stored");
    let (replay, real) = (
        training_key("flux.dev/lora", "replay"),
        training_key("flux.dev/lora", "rtx4090"),
    );
    let index = estimator.index();
    let mean = |hardware| {
        index
            .training(&real.shape(), hardware)
            .and_then(stepcast_records::Cell::mean_ms)
    };
    assert_eq!(mean(real.hardware), Some(14_000.0));
    assert_eq!(mean(replay.hardware), Some(14.0));
    let known: Vec<_> = index.hardware(real.recipe).collect();
    assert_eq!(known, [real.hardware]);
}

#[tokio::test]
async fn a_call_is_bounded() {
    let estimator = over(&memory());
    let many = vec![contribution(1, Vec::new()); CONTRIBUTIONS_MAX + 1];
    let error = estimator.record(many).await.expect_err("too many");
    assert_eq!(
        error.to_string(),
        "a call may hold at most 4096 contributions"
    );
}

#[tokio::test]
async fn a_wrong_location_is_said_at_once() {
    let error = Estimator::open(StoreConfig::at("ftp://host/x"), PriceBook::default()).await;
    assert!(matches!(error, Err(Error::Config(_))), "{error:?}");
}

/// Until it is known that these are this node's tables, no door writes.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_into_tables_that_are_held() {
    let store = memory();
    let estimator = over(&store);
    let csv = b"hardware,usd_per_gpu_hour,valid_from,valid_until,source\nh100,2.5,2026-11-01,,a\n";
    let prices = PriceFile {
        source: "feed",
        csv,
        provider: "",
        spot: false,
    };
    let figures = format!("{}\n", crate::import::TRAINING_HEADER);
    estimator.hold(true);
    let refused = [
        estimator
            .record(vec![run(1, "rtx4090", 14_000)])
            .await
            .err(),
        estimator.import_prices(&prices).await.err(),
        estimator.compact().await.err(),
        estimator
            .import("team", Mapping::Records, figures.as_bytes())
            .await
            .err(),
    ];
    for error in refused {
        assert!(
            matches!(error, Some(Error::Unreachable { .. })),
            "{error:?}"
        );
    }
    let listed: Vec<_> = store.list(None).collect().await;
    assert!(listed.is_empty(), "{listed:?}");
    estimator.hold(false);
    let taken = estimator.record(vec![run(1, "rtx4090", 14_000)]).await;
    assert_eq!(taken.expect("stored").stored, 1);
}
