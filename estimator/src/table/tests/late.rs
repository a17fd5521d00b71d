//! Tests of who looks late: objects may have moved and gone meanwhile, and no row is lost for it.

use super::start::{started, write_cells};
use super::*;

/// Deletes the files that only earlier versions name, as the clean-up of a week later does.
async fn delete_moved(own: &Table, before: &[DataFile]) {
    let kept = own.listing();
    let store = own.log.object_store(None);
    for file in before.iter().filter(|file| !kept.files.contains(file)) {
        store.delete(&file.path).await.expect("deleted");
    }
}

/// Counts what looks find one after the other.
fn take(rows: &mut usize, news: &News) {
    if news.everything {
        *rows = 0;
    }
    *rows += found(news);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_look_finds_rows_whose_object_has_moved_and_is_deleted() {
    let store = memory();
    let (own, late) = (table(&store), table(&store));
    own.commit(&batch(0..1), drop).await.expect("stored");
    late.follow().await.expect("followed");
    assert!(write_cells(&own).await, "cells of the first version");
    for id in 1..9 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let before = own.listing().files.clone();
    assert_eq!(own.compact(drop).await.expect("compacted").files, 9);
    delete_moved(&own, &before).await;

    let news = late.follow().await.expect("followed");
    assert_eq!((news.everything, found(&news)), (true, 18));
    assert_eq!(late.listing().unreadable, []);
    let (index, _) = started(&store).await;
    assert_eq!(index.rows(Kind::Training), 18, "from the old cells too");
    assert!(write_cells(&late).await);
    let (index, read) = started(&store).await;
    assert_eq!((index.rows(Kind::Training), read), (18, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_object_that_came_back_and_moved_are_read_where_they_are() {
    let store = memory();
    let (own, other) = (table(&store), table(&store));
    for id in 0..9 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let before = own.listing().files.clone();
    let lost = &before[0].path;
    let objects = own.log.object_store(None);
    let bytes = objects.get(lost).await.expect("file").bytes().await;
    objects.delete(lost).await.expect("lost");
    let mut known = 0;
    take(&mut known, &other.follow().await.expect("the rest"));
    assert_eq!((known, other.listing().unreadable.len()), (16, 1));
    assert!(write_cells(&other).await, "cells without it");

    let bytes = bytes.expect("bytes");
    objects.put(lost, bytes.into()).await.expect("put back");
    assert_eq!(own.compact(drop).await.expect("compacted").files, 9);
    delete_moved(&own, &before).await;
    take(&mut known, &other.follow().await.expect("followed"));
    assert_eq!((known, other.listing().unreadable.len()), (18, 0));
    let (index, _) = started(&store).await;
    assert_eq!(index.rows(Kind::Training), 18, "from cells without it");
    other.commit(&batch(9..10), drop).await.expect("stored");
    assert_eq!(stored(&store).await, expected(&batch(0..10)));
}

/// A look may be given up wherever it waits: who has asked for it goes away, or waits no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_is_given_up_anywhere_loses_no_row() {
    let disk = memory();
    let own = table(&disk);
    for id in 0..40 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let slow = Faulty::new(&disk, None);
    let as_store: Arc<dyn ObjectStore> = slow.clone();
    let late = table(&as_store);
    let mut known = 0;
    take(&mut known, &late.follow().await.expect("followed"));
    for reads in 0.. {
        // Such a look reads the log as a whole, once it has read what is new.
        late.lock().await.whole = 0;
        let id = 40 + u8::try_from(reads).expect("few reads");
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
        slow.stall_after(reads);
        let is_over = tokio::select! {
            news = late.follow() => {
                take(&mut known, &news.expect("followed"));
                true
            }
            () = slow.stalled() => false,
        };
        slow.go_on();
        take(&mut known, &late.follow().await.expect("followed"));
        assert_eq!(known, 2 * (usize::from(id) + 1), "given up at read {reads}");
        if is_over {
            assert!(reads >= 5, "the log was read as a whole");
            break;
        }
    }
}
