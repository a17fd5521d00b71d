//! Tests of the index.

use stepcast_records::{BatchSize, HalfMegapixels, TrainingKey};

use super::*;
use crate::testing::{hardware, row, training_key, validation_key};

#[test]
fn a_copy_does_not_see_what_is_added_later() {
    let key = training_key("flux.dev/lora", "rtx4090");
    let mut index = Index::default();
    index.add(&[row(key, 14_000, 150)]);
    let before = index.clone();
    index.add(&[
        row(key, 14_200, 150),
        row(validation_key("flux.dev/lora", "h100"), 9_000, 9),
    ]);
    let rows = |index: &Index| {
        index
            .training(&key.shape(), key.hardware)
            .expect("cell")
            .rows()
    };
    assert_eq!((rows(&before), rows(&index)), (1, 2));
    assert_eq!((before.cells(), index.cells()), (1, 2));
    assert_eq!(
        (index.rows(Kind::Training), index.rows(Kind::Validation)),
        (2, 1)
    );
    let known: Vec<Hardware> = index.hardware(key.recipe).collect();
    assert_eq!(known, [hardware("rtx4090"), hardware("h100")]);
    assert!(index.shelf(key.recipe, hardware("h100x2")).is_none());
}

#[test]
fn one_tables_rows_can_be_replaced() {
    let (training, validation) = (
        training_key("flux.dev/lora", "rtx4090"),
        validation_key("flux.dev/lora", "h100"),
    );
    let mut index = Index::default();
    index.add(&[row(training, 14_000, 150), row(validation, 9_000, 9)]);
    index.forget(Kind::Training);
    assert!(
        index
            .training(&training.shape(), training.hardware)
            .is_none()
    );
    assert!(
        index
            .validation(&validation.shape(), validation.hardware)
            .is_some()
    );
    assert_eq!(
        (index.rows(Kind::Training), index.rows(Kind::Validation)),
        (0, 1)
    );
    let known: Vec<Hardware> = index.hardware(training.recipe).collect();
    assert_eq!(
        known,
        [hardware("h100")],
        "a hardware without cells is not known"
    );
}

#[test]
fn the_pretend_device_is_found_only_by_its_own_name() {
    let replay = training_key("flux.dev/lora", "replay");
    let mut index = Index::default();
    index.add(&[row(replay, 14, 150)]);
    assert_eq!(index.hardware(replay.recipe).count(), 0);
    assert!(
        index
            .training(&replay.shape(), hardware("replay"))
            .is_some()
    );
    for real in Hardware::all().filter(|hardware| !hardware.is_replay()) {
        assert!(index.shelf(replay.recipe, real).is_none(), "{real}");
    }
}

/// Keys of one shelf that differ in their batch.
fn batches() -> Vec<TrainingKey> {
    let key = training_key("flux.dev/lora", "rtx4090");
    let sizes = [1u32, 2, 4, 8, 16, 32];
    sizes
        .map(|size| TrainingKey {
            batch_size: BatchSize::new(size).expect("grid"),
            ..key
        })
        .into()
}

#[test]
fn a_cell_a_million_times_slower_than_its_neighbours_is_set_aside() {
    let keys = batches();
    let mut index = Index::default();
    for key in &keys[..5] {
        index.add(&[row(*key, 3 * u32::from(key.batch_size), 150)]);
    }
    let wrong = keys[5];
    index.add(&[row(wrong, 3_000_000, 150)]);
    assert!(index.training(&wrong.shape(), wrong.hardware).is_none());
    assert_eq!((index.cells(), index.rows(Kind::Training)), (5, 6));
    let aside: Vec<Key> = index.aside(Kind::Training).map(|(key, _)| key).collect();
    assert_eq!(aside, [Key::Training(wrong)]);
    assert_eq!(index.cells_of(Kind::Training).count(), 6, "it is kept");
    let right = [
        row(wrong, 96, 150),
        row(wrong, 97, 150),
        row(wrong, 96, 150),
    ];
    index.add(&right);
    assert_eq!(
        index.aside(Kind::Training).count(),
        0,
        "what most rows say counts"
    );
    let cell = index.training(&wrong.shape(), wrong.hardware);
    assert_eq!(cell.expect("served").rows(), 4);
}

#[test]
fn too_fast_is_wrong_too_and_a_big_shape_may_be_slow() {
    let keys = batches();
    let mut index = Index::default();
    for key in &keys[..5] {
        index.add(&[row(*key, 2_000_000, 150)]);
    }
    index.add(&[row(keys[5], 2, 150)]);
    assert_eq!(index.aside(Kind::Training).count(), 1);

    let big = TrainingKey {
        resolution: HalfMegapixels::new(66).expect("bucket"),
        ..keys[5]
    };
    let mut index = Index::default();
    for key in &keys[..5] {
        index.add(&[row(*key, 100, 150)]);
    }
    index.add(&[row(big, 3_600_000, 150)]);
    assert_eq!(
        index.aside(Kind::Training).count(),
        0,
        "66 times the pixels and twice the batch explain it"
    );
}

#[test]
fn of_few_cells_nobody_can_say_which_is_wrong() {
    let keys = batches();
    let mut index = Index::default();
    index.add(&[row(keys[0], 3, 150), row(keys[1], 3_000_000, 150)]);
    assert_eq!((index.cells(), index.aside(Kind::Training).count()), (2, 0));
}
