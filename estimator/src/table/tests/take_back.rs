//! Tests of taking back: what is left is what would be there without the span, whatever became of its rows meanwhile.

use super::start::write_cells;
use super::*;

/// Contributions that all have the same rows.
fn alike(ids: std::ops::Range<u8>) -> Vec<Contribution> {
    ids.map(|id| contribution(id, rows(100))).collect()
}

fn both(one: Vec<Contribution>, other: Vec<Contribution>) -> Vec<Contribution> {
    one.into_iter().chain(other).collect()
}

/// A table of ten versions: 1 to 3 are A, 4 to 6 are B, which has rows of its own and some that A has, and 7 to 9 are C.
async fn abc(store: &Arc<dyn ObjectStore>) -> Table {
    let own = table(store);
    let a = both(batch(0..2), alike(10..11));
    let b = both(batch(2..4), alike(11..12));
    let c = batch(4..7);
    for one in [a, b, c].into_iter().flatten() {
        own.commit(&[one], drop).await.expect("stored");
    }
    own
}

const B: Span = Span { after: 3, to: 6 };

/// What is there without B.
fn without_b() -> Vec<Row> {
    expected(&both(both(batch(0..2), alike(10..11)), batch(4..7)))
}

fn with_b() -> Vec<Row> {
    expected(&both(both(batch(0..4), alike(10..12)), batch(4..7)))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_with_some_versions_is_taken_back_and_equal_rows_of_others_stay() {
    for moves in [false, true] {
        let store = memory();
        let own = abc(&store).await;
        if moves {
            assert_eq!(own.compact(drop).await.expect("moved").files, 9);
        }
        let dry = own.take_back(B, true, drop).await.expect("told");
        assert_eq!((dry.rows, dry.before, dry.missing), (6, 0, 0));
        let of: Vec<u64> = dry.of.values().copied().collect();
        assert_eq!(of, [3, 3], "of each hardware");
        assert_eq!(stored(&store).await, with_b(), "nothing has happened");

        let taken = own.take_back(B, false, drop).await.expect("taken back");
        assert_eq!(taken, dry);
        assert_eq!(stored(&store).await, without_b(), "moved: {moves}");
        let again = own.commit(&batch(2..4), drop).await.expect("known");
        assert_eq!(again.rows, 0, "what is taken back cannot be sent again");
        let again = table(&store).commit(&alike(11..12), drop).await;
        assert_eq!(again.expect("known").rows, 0);
        assert_eq!(stored(&store).await, without_b());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_again_takes_nothing_more_also_of_what_came_since() {
    for moves in [false, true] {
        let store = memory();
        let own = abc(&store).await;
        own.take_back(B, false, drop).await.expect("taken back");
        // The same rows, which somebody else has measured.
        let same: Vec<Contribution> = batch(2..4)
            .into_iter()
            .zip(30..)
            .map(|(one, id)| contribution(id, one.rows))
            .collect();
        own.commit(&same, drop).await.expect("stored");
        if moves {
            own.commit(&batch(40..41), drop).await.expect("stored");
            assert_eq!(own.compact(drop).await.expect("moved").files, 8);
        }
        let there = stored(&store).await;
        let taken = table(&store).take_back(B, false, drop).await;
        let taken = taken.expect("nothing to do");
        assert_eq!((taken.rows, taken.before), (0, 6));
        // And a larger span takes what of it is left.
        assert_eq!(stored(&store).await, there);
        let span = Span { after: 0, to: 6 };
        let taken = own.take_back(span, false, drop).await.expect("taken back");
        assert_eq!((taken.rows, taken.before, taken.missing), (6, 6, 0));
        let mut left = both(batch(4..7), same);
        if moves {
            left.extend(batch(40..41));
        }
        assert_eq!(stored(&store).await, expected(&left));
    }
}

/// Every write fails once in every way; then somebody else asks again.
#[tokio::test(flavor = "multi_thread")]
async fn everything_or_nothing_is_taken_back_wherever_the_store_fails() {
    let disk = memory();
    abc(&disk).await.compact(drop).await.expect("moved");
    let counting = Faulty::new(&disk, None);
    let as_store: Arc<dyn ObjectStore> = counting.clone();
    let taken = table(&as_store).take_back(B, false, drop).await;
    assert_eq!(taken.expect("taken back").rows, 6);
    let writes = counting.writes();
    assert_eq!(writes, 3, "an object, what time it is, and the log entry");
    for at in 0..writes {
        for fault in Fault::ALL {
            let disk = memory();
            abc(&disk).await.compact(drop).await.expect("moved");
            let faulty: Arc<dyn ObjectStore> = Faulty::new(&disk, Some((at, fault)));
            let taken = table(&faulty).take_back(B, false, drop).await;
            let there = stored(&disk).await;
            match taken {
                Ok(taken) => {
                    assert_eq!(taken.rows, 6, "write {at} {fault:?}");
                    assert_eq!(there, without_b(), "write {at} {fault:?}");
                }
                Err(error) => {
                    assert!(error.is_transient(), "write {at} {fault:?}: {error:?}");
                    let is_whole = there == with_b() || there == without_b();
                    assert!(is_whole, "write {at} {fault:?}");
                    let is_before = at < 2 || fault == Fault::DieBefore;
                    assert!(!is_before || there == with_b(), "write {at} {fault:?}");
                }
            }
            let again = table(&disk).take_back(B, false, drop).await;
            let again = again.unwrap_or_else(|error| panic!("write {at} {fault:?}: {error:?}"));
            assert_eq!(again.rows + again.before, 6, "write {at} {fault:?}");
            assert_eq!(stored(&disk).await, without_b(), "write {at} {fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_taking_back_is_resolved_by_reading_the_log() {
    let disk = memory();
    abc(&disk).await;
    // Nothing has moved, so write 0 is what time it is and write 1 the log entry.
    let faulty: Arc<dyn ObjectStore> = Faulty::new(&disk, Some((1, Fault::LoseAnswer)));
    let taken = table(&faulty).take_back(B, false, drop).await;
    assert_eq!(taken.expect("it was taken back").rows, 6);
    assert_eq!(stored(&disk).await, without_b());
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_and_starts_know_what_was_taken_back() {
    let store = memory();
    let own = abc(&store).await;
    let follower = table(&store);
    assert_eq!(found(&follower.follow().await.expect("followed")), 18);
    assert!(write_cells(&own).await, "cells with what is wrong");
    let mut learnt = 0;
    let learn = |news: News| {
        if news.everything {
            learnt = 0;
        }
        learnt += found(&news);
    };
    own.take_back(B, false, learn).await.expect("taken back");
    assert_eq!(learnt, 12, "all that is left, anew");
    let news = follower.follow().await.expect("followed");
    assert_eq!((news.everything, found(&news)), (true, 12));
    let news = table(&store).follow().await.expect("started");
    assert_eq!(found(&news), 12, "in spite of the cells");
    own.compact(drop).await.expect("too few to move");
    assert_eq!(stored(&store).await, without_b());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_from_the_rest_is_refused_in_a_sentence() {
    let store = memory();
    let own = abc(&store).await;
    let before = own.listing().files.clone();
    own.compact(drop).await.expect("moved");
    let objects = own.log.object_store(None);
    // As the clean-up of a week later does.
    for file in &before {
        objects.delete(&file.path).await.expect("deleted");
    }
    let refused = |span| {
        let own = own.clone();
        async move {
            let error = own.take_back(span, false, drop).await.expect_err("refused");
            error.to_string()
        }
    };
    assert_eq!(
        refused(B).await,
        "what came with version 4 of the training_steps table can no longer be told from the rest: an object is kept for a week once its rows have moved"
    );
    let beyond = Span { after: 3, to: 99 };
    assert_eq!(
        refused(beyond).await,
        "the training_steps table has versions up to 10, and 3 to 99 are none of them in this order"
    );
    assert_eq!(stored(&store).await, with_b());
    let delta = own.lock().await.delta.clone().expect("followed");
    let entry = Path::from(format!("_delta_log/{:020}.json", 5));
    objects.delete(&entry).await.expect("deleted");
    let error = own.plan(B, &delta).await.err().expect("refused");
    assert_eq!(
        error.to_string(),
        "what came with version 5 of the training_steps table can no longer be told from the rest: a log entry is kept for 30 days"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_an_object_that_cannot_be_read_are_not_given_up() {
    let store = memory();
    let own = abc(&store).await;
    own.compact(drop).await.expect("moved");
    let lost = own.listing().files[0].path.clone();
    let objects = own.log.object_store(None);
    let bytes = objects.get(&lost).await.expect("file").bytes().await;
    objects.delete(&lost).await.expect("lost");
    let error = own.take_back(B, false, drop).await.expect_err("refused");
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    let bytes = bytes.expect("bytes");
    objects.put(&lost, bytes.into()).await.expect("put back");
    own.take_back(B, false, drop).await.expect("taken back");
    assert_eq!(stored(&store).await, without_b());
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_say_what_each_of_them_did() {
    let store = memory();
    let own = abc(&store).await;
    own.compact(drop).await.expect("moved");
    own.take_back(B, false, drop).await.expect("taken back");
    let seen = own.versions_with_ids(100).await.expect("listed");
    let numbers: Vec<u64> = seen.iter().map(|(version, _)| version.number).collect();
    assert_eq!(numbers, (0..=11).rev().collect::<Vec<u64>>());
    let taken = How::TakenBack { span: B, rows: 6 };
    assert_eq!((&seen[0].0.how, seen[0].0.rows), (&taken, 0));
    assert_eq!((&seen[1].0.how, seen[1].0.rows), (&How::Moved, 0));
    let stored = How::Stored {
        contributions: 1,
        source: None,
    };
    for (version, ids) in &seen[2..11] {
        assert_eq!((&version.how, version.rows, ids.len()), (&stored, 2, 1));
        assert_eq!(version.is_taken_back, B.holds(version.number));
    }
    assert_eq!(seen[11].0.how, How::Created);
    assert_eq!(own.versions_with_ids(2).await.expect("listed").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_what_was_written_between_two_moments() {
    use std::time::{Duration, SystemTime};
    const HOUR: Duration = Duration::from_secs(3_600);
    let disk = memory();
    let clock = Faulty::new(&disk, None);
    let store: Arc<dyn ObjectStore> = clock.clone();
    let own = table(&store);
    for id in 0..4 {
        clock.set_ahead(HOUR * u32::from(id));
        let sent = batch(id..id + 1);
        own.commit(&sent, drop).await.expect("stored");
    }
    let now = SystemTime::now();
    let at = |half_hours: u32| now + HOUR / 2 * half_hours;
    let between = |since, until| {
        let own = own.clone();
        async move {
            own.between(at(since), Some(at(until)))
                .await
                .expect("listed")
        }
    };
    assert_eq!(between(1, 5).await, Some(Span { after: 1, to: 3 }));
    assert_eq!(between(1, 99).await, Some(Span { after: 1, to: 4 }));
    assert_eq!(between(7, 99).await, None);
    assert_eq!(between(3, 3).await, None);
    let since = now - HOUR;
    let all = own.between(since, None).await.expect("listed");
    assert_eq!(all, Some(Span { after: 0, to: 4 }));
    for version in 0..2 {
        let entry = Path::from(format!("_delta_log/{version:020}.json"));
        let objects = own.log.object_store(None);
        objects.delete(&entry).await.expect("deleted");
    }
    for until in [None, Some(now - HOUR / 2)] {
        let error = own.between(since, until).await.expect_err("too long ago");
        assert!(error.to_string().ends_with("an entry is kept for 30 days"));
    }
}
