//! Tests of the days that ids are dated by: no clock that is wrong makes one be forgotten that may still arrive.

use std::collections::BTreeSet;

use super::super::follow::forget_old;
use super::super::ids::Ids;
use super::*;
use crate::price::Day;

const DAY_MS: i64 = 86_400_000;

/// Ids of these days, counted from today.
fn of_days(days: impl IntoIterator<Item = i64>) -> Ids {
    let today = Day::today().start_ms();
    let dated = days.into_iter().enumerate().map(|(number, day)| {
        let id = (number as u128).to_be_bytes();
        (id, today + day * DAY_MS)
    });
    dated.collect()
}

/// How many ids of these days are left.
fn left(days: impl IntoIterator<Item = i64>) -> usize {
    let mut ids = of_days(days);
    forget_old(&mut ids);
    ids.len()
}

#[test]
fn ids_go_when_clock_and_log_say_that_they_are_old() {
    assert_eq!(left(-99..=0), 32, "a month and a day, and today");
    // This node's clock, or that of one that has written, is a year ahead, and nobody has written of late.
    assert_eq!(left(-400..=-360), 32);
    assert_eq!(left(-400..=-390), 11);
    assert_eq!(left((-10..=0).chain([365])), 12);
    assert_eq!(left((-100..=-60).chain([0])), 32);
    // It is a year behind.
    assert_eq!(left(300..=365), 66);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_never_dated_before_what_the_log_has() {
    let store = memory();
    let own = table(&store);
    own.commit(&batch(0..1), drop).await.expect("stored");
    // As if somebody had written whose clock is ahead of this one's, or right.
    let ahead = Day::today().start_ms() + 50 * DAY_MS;
    own.lock().await.ids.insert([77; 16], ahead);
    own.commit(&batch(1..2), drop).await.expect("stored");
    let stranger = table(&store);
    stranger.follow().await.expect("read");
    let days = stranger.lock().await.ids.clone();
    assert_eq!(days[&[1; 16]], ahead);
    assert!(days[&[0; 16]] < ahead);
}

/// A node that never writes would otherwise know ids for as long as it lives.
#[tokio::test(flavor = "multi_thread")]
async fn who_only_follows_forgets_too() {
    let store = memory();
    let (own, late) = (table(&store), table(&store));
    for id in 0..41 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
        if id == 0 {
            late.follow().await.expect("followed");
            late.lock().await.ids.extend(of_days(-99..-9));
        }
    }
    late.follow().await.expect("followed");
    let days: BTreeSet<i64> = late.lock().await.ids.values().copied().collect();
    assert_eq!(days.len(), 32, "today, and as many others as are kept");
}
