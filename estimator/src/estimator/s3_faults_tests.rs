//! Tests of the tables in an S3 server that fails as real ones do, read afterwards with programs of others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::ObjectStoreExt;
use serde::Deserialize;
use stepcast_tests::moto::Moto;
use stepcast_tests::python::Python;
use stepcast_tests::s3_faults::S3Faults;
use tokio::time::sleep;

use super::*;
use crate::testing::{contribution, moto, row, training_key, validation_key};

/// Writers at once.
const WRITERS: u32 = 10;
/// Batches of each.
const BATCHES: u32 = 4;
/// Contributions of a batch.
const BATCH: u32 = 3;

async fn open(port: u16) -> Estimator {
    Estimator::open(moto::config(port), PriceBook::default())
        .await
        .expect("opened")
}

/// Contributions of which each has times of its own, so that a lost one and a doubled one show.
fn batch(first: u32) -> Vec<Contribution> {
    let run = |number: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let ms = 100 + number;
        let training = row(training_key("flux.dev/lora", "rtx4090"), ms, 150);
        let validation = row(validation_key("flux.dev/lora", "rtx4090"), ms, 9);
        Contribution {
            id,
            ..contribution(0, vec![training, validation])
        }
    };
    (first..first + BATCH).map(run).collect()
}

/// What a reader of `tests/python/read_table.py` found.
#[derive(Debug, Deserialize)]
struct Found {
    reader: String,
    columns: Vec<String>,
    rows: u64,
    times: u64,
    observed: u64,
}

fn read_by_others(python: &Python, port: u16, table: &str) -> BTreeMap<String, Found> {
    let endpoint = format!("http://127.0.0.1:{port}");
    let location = format!("s3://bench/records/{table}");
    let plain = format!("s3://bench/records/public/{table}.parquet");
    let printed = python.run("read_table.py", &[&endpoint, &location, &plain]);
    let found = printed.lines().map(|line| {
        let found: Found = serde_json::from_str(line).expect("a line of ours");
        (found.reader.clone(), found)
    });
    found.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_writers_and_a_compactor_lose_and_double_nothing_while_the_store_fails() {
    let Some(server) = Moto::start(moto::BUCKET) else {
        return;
    };
    let proxy = S3Faults::before(server.port(), 4);
    proxy.fail(20);
    let over = Arc::new(AtomicBool::new(false));
    let compactor = tokio::spawn({
        let (estimator, over) = (open(proxy.port()).await, Arc::clone(&over));
        async move {
            let mut moved = 0;
            while !over.load(Ordering::SeqCst) {
                match estimator.compact().await {
                    Ok(done) => moved += done.files,
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
                sleep(Duration::from_millis(200)).await;
            }
            moved
        }
    });
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let estimator = open(proxy.port()).await;
        writers.push(tokio::spawn(async move {
            for round in 0..BATCHES {
                let batch = batch((writer * BATCHES + round) * BATCH);
                while let Err(error) = estimator.record(batch.clone()).await {
                    assert!(error.is_transient(), "{error:?}");
                }
            }
        }));
    }
    for writer in writers {
        writer.await.expect("no panic");
    }
    over.store(true, Ordering::SeqCst);
    let moved = compactor.await.expect("no panic");
    proxy.fail(0);
    let (requests, failed) = proxy.counted();
    eprintln!("{requests} requests, {failed} made to fail, {moved} files moved");
    assert!(failed > 0 && moved > 0);

    let all = u64::from(WRITERS * BATCHES * BATCH);
    let keeper = open(server.port()).await;
    assert_eq!(keeper.stats().training.rows, all);
    assert_eq!(keeper.stats().validation.rows, all);
    keeper.compact().await.expect("tidied up");
    let started = open(server.port()).await;
    assert_eq!(started.stats().training.rows, all, "from the cells");
    let repeated = started.record(batch(0)).await.expect("known");
    assert_eq!(repeated.stored, 0);

    let modules = ["duckdb", "duckdb_extension_delta", "polars", "deltalake"];
    let Some(python) = Python::with(&modules) else {
        return;
    };
    for (kind, observed) in Kind::ALL.into_iter().zip([150, 9]) {
        let found = read_by_others(&python, server.port(), kind.name());
        let columns: Vec<&str> = kind.fields().iter().map(|(name, _)| *name).collect();
        for reader in ["duckdb", "polars"] {
            let found = &found[reader];
            assert_eq!(found.columns, columns, "{reader}");
            assert_eq!(
                (found.rows, found.times, found.observed),
                (all, all, all * observed),
                "{reader}"
            );
        }
        assert_eq!(found["deltalake"].columns, columns);
        assert_eq!(found["deltalake"].rows, all);
        let plain = &found["plain"];
        assert_eq!(plain.columns, columns);
        assert_eq!((plain.rows, plain.times), (1, 1), "one row a cell");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_expired_credentials_and_many_objects_are_got_over() {
    let Some(server) = Moto::start(moto::BUCKET) else {
        return;
    };
    let proxy = S3Faults::before(server.port(), 5);
    proxy.set_one_write_a_second(true);
    let estimator = open(proxy.port()).await;
    for round in 0..3 {
        let batch = batch(round * BATCH);
        while let Err(error) = estimator.record(batch.clone()).await {
            assert!(error.is_transient(), "{error:?}");
        }
    }
    proxy.set_one_write_a_second(false);

    proxy.set_expired(true);
    let error = estimator.record(batch(30)).await.expect_err("expired");
    assert!(
        matches!(error, Error::Denied { .. }) && error.is_transient(),
        "{error:?}"
    );
    let trouble = estimator.stats().trouble.expect("told");
    assert_eq!(trouble, "the benchmark store refuses the credentials");
    assert_eq!(estimator.stats().training.rows, 9, "known stays known");
    proxy.set_expired(false);
    estimator.record(batch(30)).await.expect("stored");

    // More than one page of a listing. What others have put there stays where it is.
    let strays = 1_010;
    let (store, prefix) = moto::config(server.port()).object_store().expect("store");
    for number in 0..strays {
        let path = prefix
            .clone()
            .join("training_steps")
            .join(format!("stray-{number}"));
        store.put(&path, "x".into()).await.expect("put");
    }
    for round in 20..30 {
        estimator
            .record(batch(round * BATCH))
            .await
            .expect("stored");
    }
    let done = estimator.compact().await.expect("tidied up");
    assert!(done.files >= 16, "{done:?}");
    let stats = estimator.stats();
    assert_eq!(stats.training.foreign_objects, strays);
    assert_eq!((stats.training.rows, stats.training.objects), (42, 1));
    assert_eq!(open(server.port()).await.stats().training.rows, 42);
}
