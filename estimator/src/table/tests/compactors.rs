//! Several processes that move rows into fewer files at the same time: each row stays there once.

use super::*;

/// The entry is the second write of a round, behind the file of rows.
const ENTRY: usize = 1;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_move_the_same_rows_one_counts() {
    let store = memory();
    for id in 0..9 {
        let stored = table(&store).commit(&batch(id..id + 1), drop).await;
        stored.expect("stored");
    }
    // One of them is paused where it has read what is there and is about to say that it has moved it.
    let slow = Faulty::new(&store, Some((ENTRY, Fault::Wait)));
    let as_store: Arc<dyn ObjectStore> = slow.clone();
    let paused = table(&as_store);
    let paused = tokio::spawn(async move { paused.compact(drop).await });
    while slow.writes() <= ENTRY {
        tokio::task::yield_now().await;
    }
    let other = table(&store);
    other.commit(&batch(9..10), drop).await.expect("stored");
    let moved = other.compact(drop).await.expect("compacted");
    assert_eq!((moved.files, moved.rows), (10, 20));
    slow.let_go();
    let late = paused.await.expect("it ends").expect("it is no fault");
    assert_eq!((late.files, late.rows), (0, 0), "it leaves all as it is");
    assert_eq!(stored(&store).await, expected(&batch(0..10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_rows_is_held_up_by_no_contribution() {
    let store = memory();
    for id in 0..9 {
        let stored = table(&store).commit(&batch(id..id + 1), drop).await;
        stored.expect("stored");
    }
    let slow = Faulty::new(&store, Some((ENTRY, Fault::Wait)));
    let as_store: Arc<dyn ObjectStore> = slow.clone();
    let moving = table(&as_store);
    let moving = tokio::spawn(async move { moving.compact(drop).await });
    while slow.writes() <= ENTRY {
        tokio::task::yield_now().await;
    }
    let stored_too = table(&store).commit(&batch(9..10), drop).await;
    stored_too.expect("stored");
    slow.let_go();
    let moved = moving.await.expect("it ends").expect("compacted");
    assert_eq!((moved.files, moved.rows), (9, 18));
    assert_eq!(stored(&store).await, expected(&batch(0..10)));
}
