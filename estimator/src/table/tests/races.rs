//! Tests of entries that remove objects while others write: what somebody else has moved is not there twice.

use std::collections::HashSet;

use super::*;

/// Both have seen the same objects; one moves them with another one that has come since, so that what they would write
/// is not the same.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_move_the_same_objects_one_leaves_everything_as_it_is() {
    let store = memory();
    let (writer, late) = (table(&store), table(&store));
    for id in 0..9 {
        let sent = batch(id..id + 1);
        writer.commit(&sent, drop).await.expect("stored");
    }
    late.follow().await.expect("followed");
    writer.commit(&batch(9..10), drop).await.expect("stored");
    assert_eq!(writer.compact(drop).await.expect("moved").files, 10);

    let mut state = late.lock().await;
    let round = late.round(&mut state, &mut HashSet::new()).await;
    let done = round.expect("that somebody was faster is no fault");
    assert_eq!((done.files, done.rows), (0, 0));
    drop(state);
    assert_eq!(stored(&store).await, expected(&batch(0..10)));
}

/// What others have stored meanwhile is no reason to leave it.
#[tokio::test(flavor = "multi_thread")]
async fn objects_are_moved_while_others_store() {
    let store = memory();
    let (writer, late) = (table(&store), table(&store));
    for id in 0..9 {
        let sent = batch(id..id + 1);
        writer.commit(&sent, drop).await.expect("stored");
    }
    late.follow().await.expect("followed");
    writer.commit(&batch(9..10), drop).await.expect("stored");
    let mut state = late.lock().await;
    let round = late.round(&mut state, &mut HashSet::new()).await;
    assert_eq!(round.expect("moved").files, 9);
    drop(state);
    assert_eq!(stored(&store).await, expected(&batch(0..10)));
}
