//! Tests of entries that remove objects while others write: what somebody else has moved or taken is not there twice.

use deltalake::kernel::{Action, Add};
use deltalake::protocol::{DeltaOperation, SaveMode};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::super::compact::{Ended, Gathered};
use super::super::entry::Header;
use super::*;

/// What a table would move, read and put in one file, and named by nobody yet.
async fn gathered(own: &Table) -> Gathered {
    let chosen = own.chosen(&mut drop).await.expect("looked");
    own.gather(chosen.expect("enough")).await.expect("read")
}

/// Two processes that have seen nine objects, of one contribution each.
async fn both_know_nine(store: &Arc<dyn ObjectStore>) -> (Table, Table) {
    let (writer, late) = (table(store), table(store));
    for id in 0..9 {
        let sent = batch(id..id + 1);
        writer.commit(&sent, drop).await.expect("stored");
    }
    late.follow().await.expect("followed");
    (writer, late)
}

/// Both have seen the same objects; one moves them with another one that has come since, so that what they would write
/// is not the same.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_move_the_same_objects_one_leaves_everything_as_it_is() {
    // Whether it is seen in the log before the entry is written, or by the entry that cannot be written.
    for is_seen in [true, false] {
        let store = memory();
        let (writer, late) = both_know_nine(&store).await;
        let gathered = gathered(&late).await;
        writer.commit(&batch(9..10), drop).await.expect("stored");
        assert_eq!(writer.compact(drop).await.expect("moved").files, 10);
        if is_seen {
            late.follow().await.expect("followed");
        }
        let mut state = late.lock().await;
        let ended = late.move_to(&mut state, gathered).await;
        let ended = ended.expect("that somebody was faster is no fault");
        assert_eq!(ended, Ended::Overtaken);
        drop(state);
        assert_eq!(stored(&store).await, expected(&batch(0..10)));
    }
}

/// What others have stored meanwhile is no reason to leave it.
#[tokio::test(flavor = "multi_thread")]
async fn objects_are_moved_while_others_store() {
    let store = memory();
    let (writer, late) = both_know_nine(&store).await;
    let gathered = gathered(&late).await;
    writer.commit(&batch(9..10), drop).await.expect("stored");
    let mut state = late.lock().await;
    let ended = late.move_to(&mut state, gathered).await;
    assert_eq!(ended.expect("moved"), Ended::Moved { files: 9, rows: 18 });
    drop(state);
    assert_eq!(stored(&store).await, expected(&batch(0..10)));
}

/// A plan that was made before somebody has moved the rows takes nothing, and the next one finds them where they are.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_meanwhile_are_taken_back_where_they_are() {
    let store = memory();
    let (writer, late) = both_know_nine(&store).await;
    let span = Span { after: 2, to: 4 };
    let mut state = late.lock().await;
    let delta = state.delta.clone().expect("followed");
    let plan = late.plan(span, &delta).await.expect("a plan");
    assert_eq!(writer.compact(drop).await.expect("moved").files, 9);
    let taken = late.take(&mut state, &plan, "somebody").await;
    let error = taken.expect_err("somebody was faster");
    assert!(matches!(error, Error::Contended { .. }), "{error:?}");
    drop(state);
    assert_eq!(stored(&store).await, expected(&batch(0..9)));

    let taken = late.take_back(span, false, drop).await.expect("taken back");
    assert_eq!((taken.rows, taken.missing), (4, 0));
    let left: Vec<_> = batch(0..2).into_iter().chain(batch(4..9)).collect();
    assert_eq!(stored(&store).await, expected(&left));
}

/// And who moves what was taken back meanwhile moves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_taken_back_meanwhile_do_not_come_back() {
    let store = memory();
    let (writer, late) = both_know_nine(&store).await;
    let gathered = gathered(&late).await;
    let span = Span { after: 8, to: 9 };
    let taken = writer.take_back(span, false, drop).await;
    assert_eq!(taken.expect("taken back").rows, 2);
    let mut state = late.lock().await;
    let ended = late.move_to(&mut state, gathered).await;
    let ended = ended.expect("that somebody was faster is no fault");
    assert_eq!(ended, Ended::Overtaken);
    drop(state);
    assert_eq!(stored(&store).await, expected(&batch(0..8)));
}

/// Several nodes store, move and take back at once.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_at_once_nothing_is_lost_or_doubled() {
    let store = memory();
    let first = table(&store);
    for id in 0..10 {
        let sent = batch(id..id + 1);
        first.commit(&sent, drop).await.expect("stored");
    }
    let again = |error: Error| assert!(matches!(error, Error::Contended { .. }), "{error:?}");
    let writer = tokio::spawn({
        let own = table(&store);
        async move {
            for id in 10..30 {
                while let Err(error) = own.commit(&batch(id..id + 1), drop).await {
                    again(error);
                }
            }
        }
    });
    let mover = tokio::spawn({
        let own = table(&store);
        async move {
            for _ in 0..6 {
                own.compact(drop).await.expect("tidied up");
            }
        }
    });
    let takers = [(2, 5), (4, 7)].map(|(after, to)| {
        let own = table(&store);
        tokio::spawn(async move {
            let span = Span { after, to };
            while let Err(error) = own.take_back(span, false, drop).await {
                again(error);
            }
        })
    });
    writer.await.expect("no panic");
    mover.await.expect("no panic");
    for taker in takers {
        taker.await.expect("no panic");
    }
    let left: Vec<_> = batch(0..2).into_iter().chain(batch(7..30)).collect();
    assert_eq!(stored(&store).await, expected(&left));
}

/// Reading and putting what moves takes long, and who stores need not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn who_stores_does_not_wait_for_what_a_compaction_reads() {
    let disk = memory();
    let (writer, _) = both_know_nine(&disk).await;
    let faulty = Faulty::new(&disk, None);
    let as_store: Arc<dyn ObjectStore> = faulty.clone();
    let own = table(&as_store);
    own.follow().await.expect("followed");
    let files = own.listing().files.clone();
    faulty.stall_at(files.into_iter().map(|file| file.path).collect());
    let moving = tokio::spawn({
        let own = own.clone();
        async move { own.compact(drop).await }
    });
    faulty.stalled().await;
    let outcome = own.commit(&batch(9..10), drop).await;
    assert_eq!(outcome.expect("stored meanwhile").rows, 2);
    // And somebody else moves everything: what was read is not where it was any more.
    assert_eq!(writer.compact(drop).await.expect("moved").files, 10);
    faulty.go_on();
    let moved = moving.await.expect("no panic").expect("tidied up");
    assert_eq!((moved.files, moved.rows), (0, 0));
    assert_eq!(stored(&disk).await, expected(&batch(0..10)));
}

/// A process that stood still between putting the file and writing the entry.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_a_compaction_that_vanishes_before_the_log_names_it_is_put_again() {
    let store = memory();
    let (_, late) = both_know_nine(&store).await;
    let gathered = gathered(&late).await;
    let mut state = late.lock().await;
    let ended = late.move_to(&mut state, gathered).await;
    assert_eq!(ended.expect("moved"), Ended::Moved { files: 9, rows: 18 });
    late.follow_in(&mut state).await.expect("followed");
    let path = late.listing().files[0].path.clone();
    let objects = late.log.object_store(None);
    objects.delete(&path).await.expect("it was there");
    late.put_moved_again(&mut state).await.expect("put again");
    assert!(state.last_moved.is_empty());
    drop(state);
    assert_eq!(stored(&store).await, expected(&batch(0..9)));
}

/// And of one that has what stays of an object from which rows were taken back.
#[tokio::test(flavor = "multi_thread")]
async fn what_stays_beside_rows_that_were_taken_back_is_put_again_if_it_vanishes_before_the_log_names_it()
 {
    let store = memory();
    let (writer, late) = both_know_nine(&store).await;
    assert_eq!(writer.compact(drop).await.expect("moved").files, 9);
    late.follow().await.expect("followed");
    let mut state = late.lock().await;
    let delta = state.delta.clone().expect("followed");
    let span = Span { after: 2, to: 4 };
    let plan = late.plan(span, &delta).await.expect("a plan");
    let taken = late.take(&mut state, &plan, "somebody").await;
    assert_eq!(taken.expect("taken back"), 0);
    late.follow_in(&mut state).await.expect("followed");
    let path = late.listing().files[0].path.clone();
    let objects = late.log.object_store(None);
    objects.delete(&path).await.expect("it was there");
    late.put_moved_again(&mut state).await.expect("put again");
    assert!(state.last_moved.is_empty());
    drop(state);
    let left: Vec<_> = batch(0..2).into_iter().chain(batch(4..9)).collect();
    assert_eq!(stored(&store).await, expected(&left));
}

/// By then somebody may be about to delete it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_put_long_ago_is_not_named_any_more() {
    let disk = memory();
    let clock = Faulty::new(&disk, None);
    let store: Arc<dyn ObjectStore> = clock.clone();
    let (_, late) = both_know_nine(&store).await;
    let gathered = gathered(&late).await;
    clock.set_ahead(std::time::Duration::from_secs(2 * 86_400));
    let mut state = late.lock().await;
    let ended = late.move_to(&mut state, gathered).await;
    assert_eq!(ended.expect("no fault"), Ended::Overtaken);
    drop(state);
    assert_eq!(late.compact(drop).await.expect("moved").files, 9);
    assert_eq!(stored(&disk).await, expected(&batch(0..9)));
}

/// An entry that stores says nothing of what others have stored meanwhile, so it comes right behind what was seen.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_overtaken_looks_again_before_storing() {
    let store = memory();
    let (writer, late) = both_know_nine(&store).await;
    writer.commit(&batch(9..10), drop).await.expect("stored");
    let mut state = late.lock().await;
    let operation = DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: None,
        predicate: None,
    };
    let actions = vec![Action::Add(Add::default())];
    let written = late.write_entry(&mut state, actions, Vec::new(), operation, Header::new());
    let error = written.await.expect_err("somebody was faster");
    assert!(matches!(error, Error::Contended { .. }), "{error:?}");
    drop(state);

    let counted = Faulty::new(&store, None);
    let as_store: Arc<dyn ObjectStore> = counted.clone();
    let own = table(&as_store);
    // Each look but the last is followed by somebody else's entry.
    let mut looks = 0;
    let overtaken = |_: News| {
        if looks < 6 && looks % 2 == 0 {
            let sent = batch(20 + looks..21 + looks);
            let stored = writer.commit(&sent, drop);
            let stored = block_in_place(|| Handle::current().block_on(stored));
            stored.expect("stored");
        }
        looks += 1;
    };
    let outcome = own.commit(&batch(10..11), overtaken).await;
    assert_eq!(outcome.expect("stored").rows, 2);
    assert_eq!(looks, 8, "it lost three times");
    assert_eq!(counted.writes(), 2, "the file was put once");
    let mut all = batch(0..11);
    all.extend([20, 22, 24].into_iter().flat_map(|id| batch(id..id + 1)));
    assert_eq!(stored(&store).await, expected(&all));
}
