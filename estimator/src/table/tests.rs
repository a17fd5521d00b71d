//! Tests of the tables: exactly once under failures, followers, checkpoints and compaction.

mod bad_input;
mod clean;
mod copied;
mod cost;
mod damage;
mod days;
mod late;
mod races;
mod start;
mod take_back;

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stepcast_records::Row;
use url::Url;

use super::*;
use crate::contribution::Contribution;
use crate::error::Error;
use crate::testing::{Fault, Faulty, contribution, row, training_key, validation_key};

fn table(store: &Arc<dyn ObjectStore>) -> Table {
    let base = Url::parse("memory:///bench/").expect("url");
    Table::new(Kind::Training, store, &base).expect("table")
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn rows(avg_ms: u32) -> Vec<Row> {
    vec![
        row(training_key("flux.dev/lora", "rtx4090"), avg_ms, 150),
        row(training_key("flux.dev/lora", "h100"), avg_ms, 150),
        row(validation_key("flux.dev/lora", "rtx4090"), avg_ms, 9),
    ]
}

fn batch(ids: std::ops::Range<u8>) -> Vec<Contribution> {
    ids.map(|id| contribution(id, rows(100 + u32::from(id))))
        .collect()
}

/// Everything a stranger finds in the table.
async fn stored(store: &Arc<dyn ObjectStore>) -> Vec<Row> {
    let stranger = table(store);
    let news = stranger.follow().await.expect("readable");
    assert!(news.everything && news.refused_rows == 0);
    let (listing, bytes) = (stranger.listing(), stranger.log.object_store(None));
    assert_eq!(listing.unreadable, []);
    let mut rows = Vec::new();
    for file in &listing.files {
        let file = bytes.get(&file.path).await.expect("file").bytes().await;
        rows.extend(
            parquet::read(Kind::Training, file.expect("bytes"))
                .expect("rows")
                .0,
        );
    }
    rows.sort_unstable();
    assert_eq!(news.known.rows(Kind::Training), rows.len() as u64);
    rows
}

/// How many rows a look found.
fn found(news: &News) -> usize {
    news.rows.len() + news.known.rows(Kind::Training) as usize
}

/// What must be stored of these contributions: each row once.
fn expected(contributions: &[Contribution]) -> Vec<Row> {
    let rows = contributions
        .iter()
        .flat_map(|contribution| &contribution.rows);
    let mut rows: Vec<Row> = rows
        .filter(|row| Kind::of(&row.key) == Kind::Training)
        .copied()
        .collect();
    rows.sort_unstable();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contribution_counts_once_however_often_it_is_sent() {
    let store = memory();
    let own = table(&store);
    let first = own.commit(&batch(0..3), drop).await.expect("stored");
    assert_eq!((first.stored.len(), first.rows), (3, 6));
    let again = own.commit(&batch(0..3), drop).await.expect("skipped");
    assert_eq!((again.stored.len(), again.rows), (0, 0));
    let other = table(&store);
    let mixed = other
        .commit(&batch(1..5), drop)
        .await
        .expect("the new ones");
    assert_eq!(
        mixed.stored.len(),
        2,
        "a process that was started later knows the ids too"
    );
    let twice: Vec<_> = batch(7..8).into_iter().chain(batch(7..8)).collect();
    assert_eq!(own.commit(&twice, drop).await.expect("once").rows, 2);
    let all: Vec<_> = batch(0..5).into_iter().chain(batch(7..8)).collect();
    assert_eq!(stored(&store).await, expected(&all));
}

/// Every write of a commit fails once in every way; then a new process sends everything again.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_any_write_neither_loses_nor_doubles() {
    let reliable = Faulty::new(&memory(), None);
    let as_store: Arc<dyn ObjectStore> = reliable.clone();
    table(&as_store)
        .commit(&batch(0..2), drop)
        .await
        .expect("stored");
    table(&as_store)
        .commit(&batch(2..4), drop)
        .await
        .expect("stored");
    let writes = reliable.writes();
    assert!(
        writes >= 5,
        "a table's start, two files and two entries, not {writes}"
    );
    for at in 0..writes {
        for fault in Fault::ALL {
            let disk = memory();
            let faulty: Arc<dyn ObjectStore> = Faulty::new(&disk, Some((at, fault)));
            let first = table(&faulty).commit(&batch(0..2), drop).await;
            let second = table(&faulty).commit(&batch(2..4), drop).await;
            for (result, sent) in [(&first, 0..2), (&second, 2..4)] {
                if result.is_ok() {
                    let rows = stored(&disk).await;
                    let kept = expected(&batch(sent)).iter().all(|row| rows.contains(row));
                    assert!(kept, "write {at} {fault:?}: an acknowledged row is gone");
                } else if let Err(error) = result {
                    assert!(error.is_transient(), "write {at} {fault:?}: {error:?}");
                }
            }
            let retry = table(&disk).commit(&batch(0..4), drop).await;
            retry.unwrap_or_else(|error| panic!("write {at} {fault:?}: {error:?}"));
            assert_eq!(
                stored(&disk).await,
                expected(&batch(0..4)),
                "write {at} {fault:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_resolved_by_reading_the_log() {
    let disk = memory();
    table(&disk)
        .commit(&batch(0..1), drop)
        .await
        .expect("stored");
    // Write 0 is the file, write 1 the log entry.
    let faulty: Arc<dyn ObjectStore> = Faulty::new(&disk, Some((1, Fault::LoseAnswer)));
    let outcome = table(&faulty)
        .commit(&batch(1..2), drop)
        .await
        .expect("it was stored");
    assert_eq!(outcome.rows, 2);
    assert_eq!(stored(&disk).await, expected(&batch(0..2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_lose_nothing_and_double_nothing() {
    let store = memory();
    let writers = (0..4u8).map(|writer| {
        let table = table(&store);
        tokio::spawn(async move {
            for round in 0..3 {
                // Each batch overlaps the next writer's, as after a change of the leader.
                let from = writer * 6 + round * 2;
                loop {
                    match table.commit(&batch(from..from + 8), drop).await {
                        Ok(_) => break,
                        Err(Error::Contended { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
    assert_eq!(stored(&store).await, expected(&batch(0..30)));
}

/// Both read the log before either has written to it, in almost every round.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_store_the_same_at_once_one_says_so() {
    let store = memory();
    for id in 0..10 {
        let (one, other) = (table(&store), table(&store));
        let sent = batch(id..id + 1);
        let (one, other) = tokio::join!(one.commit(&sent, drop), other.commit(&sent, drop));
        let (one, other) = (one.expect("stored"), other.expect("stored"));
        assert_eq!(one.rows + other.rows, 2, "round {id}");
        assert_eq!(one.stored.len() + other.stored.len(), 1, "round {id}");
    }
    assert_eq!(stored(&store).await, expected(&batch(0..10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_reads_only_what_is_new() {
    let store = memory();
    let (writer, follower) = (table(&store), table(&store));
    let news = follower.follow().await.expect("nothing yet");
    assert_eq!((news.everything, found(&news)), (true, 0));
    writer.commit(&batch(0..3), drop).await.expect("stored");
    let news = follower.follow().await.expect("first");
    assert_eq!((news.everything, found(&news)), (true, 6));
    writer.commit(&batch(3..4), drop).await.expect("stored");
    let news = follower.follow().await.expect("second");
    assert_eq!((news.everything, news.rows.len()), (false, 2));
    assert_eq!(follower.follow().await.expect("third").rows.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_every_row_and_every_id() {
    let store = memory();
    let (writer, follower) = (table(&store), table(&store));
    for id in 0..9 {
        writer
            .commit(&batch(id..id + 1), drop)
            .await
            .expect("stored");
    }
    follower.follow().await.expect("followed");
    let mut learnt = 0;
    table(&store)
        .commit(&batch(9..10), drop)
        .await
        .expect("somebody else");
    let compacted = writer
        .compact(|news| learnt += news.rows.len())
        .await
        .expect("compacted");
    assert_eq!((compacted.files, compacted.rows, learnt), (10, 20, 2));
    let news = follower.follow().await.expect("followed");
    assert_eq!(
        (news.everything, news.rows.len()),
        (false, 2),
        "moving rows is no news"
    );
    assert_eq!(stored(&store).await, expected(&batch(0..10)));
    let again = table(&store)
        .commit(&batch(0..10), drop)
        .await
        .expect("skipped");
    assert_eq!(again.rows, 0, "the ids are in the checkpoint");
    assert_eq!(writer.compact(drop).await.expect("nothing to do").files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_holds_the_ids() {
    let store = memory();
    let writer = table(&store);
    for id in 0..22 {
        writer
            .commit(&batch(id..id + 1), drop)
            .await
            .expect("stored");
    }
    let checkpoint = Path::from("bench/training_steps/_delta_log/_last_checkpoint");
    store
        .get(&checkpoint)
        .await
        .expect("a checkpoint was written");
    assert_eq!(
        table(&store)
            .commit(&batch(0..22), drop)
            .await
            .expect("skipped")
            .rows,
        0
    );
    assert_eq!(stored(&store).await, expected(&batch(0..22)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_nothing_that_the_policy_forbids() {
    let store = memory();
    table(&store)
        .commit(&batch(0..2), drop)
        .await
        .expect("stored");
    let entry = |version: u64| {
        let path = Path::from(format!(
            "bench/training_steps/_delta_log/{version:020}.json"
        ));
        let store = Arc::clone(&store);
        async move {
            let bytes = store
                .get(&path)
                .await
                .expect("entry")
                .bytes()
                .await
                .expect("bytes");
            String::from_utf8(bytes.to_vec()).expect("text")
        }
    };
    let first = entry(0).await;
    let schema = first
        .lines()
        .find(|line| line.starts_with(r#"{"metaData""#))
        .expect("schema");
    for (name, _) in Kind::Training.fields() {
        assert!(
            schema.contains(&format!(r#"\"name\":\"{name}\""#)),
            "{name}"
        );
    }
    assert_eq!(schema.matches(r#"\"name\":"#).count(), 9, "{schema}");
    let commit = entry(1).await;
    let info = commit
        .lines()
        .find(|line| line.contains("commitInfo"))
        .expect("header");
    let (head, writer) = info.split_once(r#""writer":""#).expect("whose it is");
    assert_eq!(
        head,
        r#"{"commitInfo":{"operation":"WRITE","engineInfo":"stepcast","#
    );
    let writer = writer.strip_suffix(r#""}}"#).expect("and nothing else");
    let is_chance =
        |writer: &str| writer.len() == 32 && writer.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(is_chance(writer), "{info}");
    assert_eq!(commit.matches("\"appId\"").count(), 2);
    let day = crate::price::Day::today().start_ms();
    for time in ["modificationTime", "lastUpdated"] {
        assert!(
            commit.contains(&format!("\"{time}\":{day}")),
            "no time finer than a day: {commit}"
        );
    }
}

/// Over a slow line a large object never gets through.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_fails_takes_less_the_next_time() {
    let disk = memory();
    let own = table(&disk);
    for id in 0..9 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let faulty = Faulty::new(&disk, Some((0, Fault::Fail)));
    faulty.also(1, Fault::Fail);
    let as_store: Arc<dyn ObjectStore> = faulty.clone();
    let slow = table(&as_store);
    for halved in [1, 2] {
        let error = slow.compact(drop).await;
        error.expect_err("its object does not get through");
        assert_eq!(slow.lock().await.halved, halved);
    }
    assert_eq!(slow.compact(drop).await.expect("compacted").files, 9);
    assert_eq!(slow.lock().await.halved, 1);
}
