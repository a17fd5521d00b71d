//! Tests of copies of a table that were made object by object while somebody wrote into it.

use futures::TryStreamExt;

use super::start::{started, write_cells};
use super::*;

/// Copies those objects of the table that are wanted.
async fn copy(
    from: &Arc<dyn ObjectStore>,
    to: &Arc<dyn ObjectStore>,
    wanted: impl Fn(&str) -> bool,
) {
    let objects: Vec<_> = from.list(None).try_collect().await.expect("listed");
    for object in objects {
        if wanted(object.location.as_ref()) {
            let found = from.get(&object.location).await.expect("object");
            let bytes = found.bytes().await.expect("bytes");
            to.put(&object.location, bytes.into()).await.expect("put");
        }
    }
}

fn is_log(name: &str) -> bool {
    name.contains("/_delta_log/")
}

async fn commit(own: &Table, ids: std::ops::Range<u8>) {
    for id in ids {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_its_hint_is_read_as_far_as_it_goes() {
    // Its entries were copied before its hint, which by then named a checkpoint that was written meanwhile. Once the log has
    // a checkpoint of its own, and once none.
    for (early, checkpoints) in [(23, 1), (4, 0)] {
        let (store, copied) = (memory(), memory());
        let own = table(&store);
        commit(&own, 0..early).await;
        copy(&store, &copied, is_log).await;
        commit(&own, early..45).await;
        copy(&store, &copied, |name| {
            name.ends_with("/_last_checkpoint") || !is_log(name)
        })
        .await;
        let objects: Vec<_> = copied.list(None).try_collect().await.expect("listed");
        let names = objects.iter().map(|object| object.location.as_ref());
        let found = names.filter(|name| name.ends_with(".checkpoint.parquet"));
        assert_eq!(found.count(), checkpoints);

        assert_eq!(stored(&copied).await, expected(&batch(0..early)));
        let taken = table(&copied);
        let again = taken.commit(&batch(0..early), drop).await.expect("known");
        assert_eq!(again.rows, 0, "its ids are known");
        // Whoever has it open writes and follows on, past the version that the hint names.
        let follower = table(&copied);
        follower.follow().await.expect("followed");
        commit(&taken, early..60).await;
        let news = follower.follow().await.expect("followed");
        assert_eq!(news.rows.len(), 2 * usize::from(60 - early));
        assert_eq!(stored(&copied).await, expected(&batch(0..60)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_log_and_then_of_the_rest_is_whole() {
    let (store, copied) = (memory(), memory());
    let own = table(&store);
    commit(&own, 0..23).await;
    copy(&store, &copied, |name| {
        is_log(name) && !name.ends_with("/_last_checkpoint")
    })
    .await;
    commit(&own, 23..45).await;
    own.compact(drop).await.expect("compacted");
    assert!(write_cells(&own).await);
    copy(&store, &copied, |name| !is_log(name)).await;
    assert_eq!(stored(&copied).await, expected(&batch(0..23)));
    let again = table(&copied).commit(&batch(0..23), drop).await;
    assert_eq!(again.expect("known").rows, 0, "its ids are known");

    // The cells that came along are of a version that this log has not come to. When it does, it has other rows.
    let taken = table(&copied);
    commit(&taken, 100..103).await;
    assert!(write_cells(&taken).await);
    commit(&taken, 103..130).await;
    let (index, _) = started(&copied).await;
    assert_eq!(index.rows(Kind::Training), 2 * 53);
}

/// However the object that names the newest checkpoint has come not to be true, or not to be whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_names_what_is_not_there_is_passed_over() {
    const HINT: &str = "_last_checkpoint";
    let checkpoint = |version: u64| format!("{version:020}.checkpoint.parquet");
    let named = |version: u64| format!(r#"{{"version":{version},"size":1}}"#);
    for (commits, lost, hint) in [
        (20, Some(checkpoint(20)), None),
        (45, Some(checkpoint(40)), None),
        (45, None, Some(named(30))),
        (45, None, Some(String::new())),
        (45, None, Some(named(40)[..12].to_owned())),
    ] {
        let told = format!("{commits} {lost:?} {hint:?}");
        let store = memory();
        let place = |name: &str| Path::from(format!("bench/training_steps/_delta_log/{name}"));
        commit(&table(&store), 0..commits).await;
        if let Some(lost) = lost {
            store.delete(&place(&lost)).await.expect("it was there");
        }
        if let Some(hint) = hint {
            store.put(&place(HINT), hint.into()).await.expect("put");
        }
        assert_eq!(stored(&store).await, expected(&batch(0..commits)), "{told}");
        let (own, follower) = (table(&store), table(&store));
        for _ in 0..2 {
            // The second look finds nothing new, where the version is the one that the hint names too.
            own.follow().await.expect("followed");
            follower.follow().await.expect("followed");
        }
        let again = own.commit(&batch(0..commits), drop).await;
        assert_eq!(again.expect("known").rows, 0, "{told}");
        commit(&own, commits..commits + 2).await;
        let news = follower.follow().await.expect("followed");
        assert_eq!((news.everything, news.rows.len()), (false, 4), "{told}");
        let mut any_reader = deltalake::DeltaTable::new(Arc::clone(&own.log));
        any_reader.load().await.expect("any reader reads it now");
        let all = expected(&batch(0..commits + 2));
        assert_eq!(stored(&store).await, all, "{told}");
    }
}
