//! Tests of checkpoints that cannot be read: the log says what they hold as long as its entries are there.

use std::time::SystemTime;

use super::*;

fn place(name: &str) -> Path {
    Path::from(format!("bench/training_steps/_delta_log/{name}"))
}

fn checkpoint(version: u64) -> Path {
    place(&format!("{version:020}.checkpoint.parquet"))
}

async fn commit(own: &Table, ids: std::ops::Range<u8>) {
    for id in ids {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
}

/// Ways in which an object can be damaged.
const WAYS: [&str; 4] = ["empty", "cut", "overwritten", "within"];

async fn damage(store: &Arc<dyn ObjectStore>, object: &Path, way: &str) {
    let found = store.get(object).await.expect("it").bytes().await;
    let mut bytes = found.expect("bytes").to_vec();
    let size = bytes.len();
    match way {
        "empty" => bytes.clear(),
        "cut" => bytes.truncate(size / 2),
        "overwritten" => bytes.fill(0),
        // Its footer is whole.
        _ => bytes[4..size / 2].fill(0xff),
    }
    store.put(object, bytes.into()).await.expect("damaged");
}

async fn any_reader_reads(own: &Table) -> bool {
    let mut any_reader = deltalake::DeltaTable::new(Arc::clone(&own.log));
    any_reader.load().await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_reads_past_checkpoints_that_are_damaged() {
    // With none before it; with one, and where the newest two are.
    let mut cases: Vec<_> = WAYS.map(|way| (way, 20, &[20][..])).to_vec();
    cases.push(("within", 45, &[40]));
    cases.push(("cut", 45, &[20, 40]));
    for (way, commits, damaged) in cases {
        let told = format!("{way} {damaged:?}");
        let store = memory();
        commit(&table(&store), 0..commits).await;
        for version in damaged {
            damage(&store, &checkpoint(*version), way).await;
        }
        let (own, follower) = (table(&store), table(&store));
        assert!(!any_reader_reads(&own).await, "{told}");
        assert_eq!(stored(&store).await, expected(&batch(0..commits)), "{told}");
        for _ in 0..2 {
            own.follow().await.expect("followed");
            follower.follow().await.expect("followed");
        }
        let again = own.commit(&batch(0..commits), drop).await;
        assert_eq!(again.expect("known").rows, 0, "{told}");
        commit(&own, commits..commits + 2).await;
        let news = follower.follow().await.expect("followed");
        assert_eq!((news.everything, news.rows.len()), (false, 4), "{told}");
        // Whoever tidies up writes another one.
        let cleaned = own.clean(SystemTime::now(), drop).await;
        assert_eq!(cleaned.expect("cleaned").deleted, 0, "{told}");
        assert!(any_reader_reads(&own).await, "{told}");
        let all = expected(&batch(0..commits + 2));
        assert_eq!(stored(&store).await, all, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_goes_on_when_a_checkpoint_is_damaged() {
    for way in ["empty", "within"] {
        let store = memory();
        let (own, late) = (table(&store), table(&store));
        commit(&own, 0..10).await;
        late.follow().await.expect("followed");
        commit(&own, 10..40).await;
        damage(&store, &checkpoint(40), way).await;
        // The newest version is that of the checkpoint.
        own.clean(SystemTime::now(), drop).await.expect("cleaned");
        assert!(any_reader_reads(&own).await, "{way}");

        damage(&store, &checkpoint(40), way).await;
        commit(&own, 40..43).await;
        late.follow().await.expect("followed");
        let known = late.commit(&batch(0..43), drop).await;
        assert_eq!(known.expect("known").rows, 0, "{way}");
        own.clean(SystemTime::now(), drop).await.expect("cleaned");
        assert!(any_reader_reads(&own).await, "{way}");
        commit(&late, 43..45).await;
        assert_eq!(stored(&store).await, expected(&batch(0..45)), "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_else_has_it_the_object_to_put_back_is_named() {
    let store = memory();
    commit(&table(&store), 0..45).await;
    let whole = store.get(&checkpoint(40)).await.expect("it").bytes().await;
    damage(&store, &checkpoint(40), "cut").await;
    store.delete(&checkpoint(20)).await.expect("gone");
    for version in 0..30 {
        let entry = place(&format!("{version:020}.json"));
        store.delete(&entry).await.expect("gone");
    }
    let own = table(&store);
    let error = own.follow().await.expect_err("it cannot be known");
    assert!(matches!(error, Error::LogDamaged { .. }), "{error:?}");
    let words = error.to_string();
    assert!(
        words.contains("00000000000000000040.checkpoint.parquet cannot be read")
            && words.contains("put that object back"),
        "{words}"
    );
    let put = store
        .put(&checkpoint(40), whole.expect("bytes").into())
        .await;
    put.expect("put back");
    assert_eq!(found(&own.follow().await.expect("read")), 90);
}
