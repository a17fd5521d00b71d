//! Tests of deleting: only what no reader can need and only ours, whatever the clocks say.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use deltalake::kernel::Action;
use deltalake::protocol::{DeltaOperation, SaveMode};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::super::entry::Header;
use super::bad_input::files;
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A store whose clock can be set, and the same for tables.
fn clocked() -> (Arc<Faulty>, Arc<dyn ObjectStore>) {
    let clocked = Faulty::new(&memory(), None);
    (Arc::clone(&clocked), clocked)
}

/// What a clean-up deletes and finds besides when so many days have gone by for a node.
async fn cleaned(store: &Arc<dyn ObjectStore>, days: u32) -> (usize, usize) {
    let later = SystemTime::now() + DAY * days;
    let cleaned = table(store).clean(later, drop).await.expect("cleaned");
    (cleaned.deleted, cleaned.foreign)
}

/// Nine files whose rows have moved into a tenth.
async fn moved(store: &Arc<dyn ObjectStore>) -> Table {
    let own = table(store);
    for id in 0..9 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    own.compact(drop).await.expect("compacted");
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_no_reader_can_need_is_deleted_and_only_ours() {
    let (clock, store) = clocked();
    let own = moved(&store).await;
    let kept = own.listing().files[0].path.clone();
    let kept = Path::from(format!("bench/training_steps/{kept}"));
    let ours = Path::from("bench/training_steps/0123456789abcdef0123456789abcdef.parquet");
    for stray in [
        "notes.txt",
        "part-00000.parquet",
        "0123456789abcdef.parquet",
    ] {
        let path = Path::from("bench/training_steps").join(stray);
        store.put(&path, "x".into()).await.expect("put");
    }
    store
        .put(&ours, "left by a crash".into())
        .await
        .expect("put");
    assert_eq!(cleaned(&store, 0).await, (0, 3));
    clock.set_ahead(DAY * 6);
    assert_eq!(cleaned(&store, 6).await, (0, 3), "readers of last week");
    clock.set_ahead(DAY * 8);
    assert_eq!(cleaned(&store, 8).await, (10, 3), "nine files and a stray");
    let left: HashMap<Path, ()> = files(&store).await.into_iter().map(|f| (f, ())).collect();
    assert_eq!(left.len(), 4, "one file, and what is not ours: {left:?}");
    assert!(left.contains_key(&kept));
    assert_eq!(stored(&store).await, expected(&batch(0..9)));
    assert_eq!(cleaned(&store, 8).await, (0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_node_has_just_deleted_is_no_failure() {
    let folder = tempfile::tempdir().expect("folder");
    let config = crate::StoreConfig::folder(folder.path());
    let (disk, base) = config.open().expect("store");
    let clock = Faulty::new(&disk, None);
    let store: Arc<dyn ObjectStore> = clock.clone();
    let own = Table::new(Kind::Training, &store, &base).expect("table");
    for id in 0..9 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let before = own.listing().files.clone();
    own.compact(drop).await.expect("compacted");
    clock.set_ahead(DAY * 8);
    // Between the list and the deletion: the one that deletes sees them, and they are gone.
    clock.forget_before_delete();
    let later = SystemTime::now() + DAY * 8;
    let cleaned = own.clean(later, drop).await.expect("cleaned");
    assert_eq!(cleaned.deleted, 0);
    let objects = own.log.object_store(None);
    for file in before {
        assert!(objects.head(&file.path).await.is_err(), "it is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_wrong_deletes_nothing() {
    let (clock, store) = clocked();
    moved(&store).await;
    let ours = Path::from("bench/training_steps/0123456789abcdef0123456789abcdef.parquet");
    store
        .put(&ours, "to be committed".into())
        .await
        .expect("put");
    assert_eq!(cleaned(&store, 8).await, (0, 0), "it is ahead");
    clock.set_ahead(DAY * 16);
    assert_eq!(cleaned(&store, 0).await, (0, 0), "it is behind");
    assert_eq!(files(&store).await.len(), 11);
    assert_eq!(cleaned(&store, 16).await, (10, 0), "it is right again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_moves_whose_clock_is_behind_is_kept_for_a_week() {
    let (clock, store) = clocked();
    // It is a week later for everybody but the node that moves the rows: its files are old, and have just gone.
    let own = table(&store);
    for id in 0..9 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    clock.set_ahead(DAY * 8);
    own.compact(drop).await.expect("compacted");
    assert_eq!(cleaned(&store, 8).await, (0, 0), "readers of yesterday");
    clock.set_ahead(DAY * 16);
    assert_eq!(cleaned(&store, 16).await, (9, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_vanishes_before_the_log_names_it_is_put_again() {
    let disk = memory();
    let other = table(&disk);
    other.commit(&batch(0..1), drop).await.expect("stored");
    // Write 0 is the file, write 1 the log entry, write 2 the file once more.
    let faulty = Faulty::new(&disk, Some((0, Fault::Vanish)));
    faulty.also(2, Fault::Fail);
    let as_store: Arc<dyn ObjectStore> = faulty.clone();
    let own = table(&as_store);
    let mut learnt = 0;
    let error = own.commit(&batch(1..2), drop).await.err();
    let error = error.expect("it is not there");
    assert!(error.is_transient(), "{error:?}");
    let learn = |news: News| learnt += found(&news);
    own.commit(&batch(1..2), learn).await.expect("stored");
    assert_eq!(learnt, 2, "the index has it too");
    assert_eq!(stored(&disk).await, expected(&batch(0..2)));
    let faulty: Arc<dyn ObjectStore> = Faulty::new(&disk, Some((0, Fault::Vanish)));
    let outcome = table(&faulty).commit(&batch(2..3), drop).await;
    assert_eq!(outcome.expect("stored at once").rows, 2);
    assert_eq!(stored(&disk).await, expected(&batch(0..3)));
}

/// Each holds all ids of a month: kept like the entries they would take a thousand times the room of the rows.
#[tokio::test(flavor = "multi_thread")]
async fn of_former_days_one_checkpoint_is_kept_and_every_version_can_be_read() {
    let (clock, store) = clocked();
    let own = table(&store);
    for id in 0..135 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let checkpoints = async || {
        let log = Path::from("bench/training_steps/_delta_log");
        let listed = store.list_with_delimiter(Some(&log)).await.expect("log");
        let version = |path: Path| -> Option<u64> {
            let name = path.filename()?.strip_suffix(".checkpoint.parquet")?;
            name.parse().ok()
        };
        let objects = listed.objects.into_iter();
        let mut found: Vec<u64> = objects.filter_map(|o| version(o.location)).collect();
        found.sort_unstable();
        found
    };
    let written = checkpoints().await;
    assert_eq!(written, [20, 40, 60, 80, 100, 120]);
    // Two of each day, as if they had been written then.
    for (place, version) in (0u32..).zip(&written) {
        let path = format!("bench/training_steps/_delta_log/{version:020}.checkpoint.parquet");
        let path = Path::from(path);
        let bytes = store.get(&path).await.expect("it").bytes().await;
        clock.set_ahead(DAY * (place / 2));
        let put = store.put(&path, bytes.expect("bytes").into()).await;
        put.expect("put");
    }
    let (deleted, _) = cleaned(&store, 2).await;
    let mut left = checkpoints().await;
    // The clean-up has written one of its own.
    let newest = left.pop().expect("one");
    assert!(newest > written[5]);
    // The third was the first of two of its day; the first of all stays, and so does what was written this hour.
    let kept = [written[0], written[1], written[3], written[4], written[5]];
    assert_eq!((deleted, left), (1, kept.to_vec()));
    // Two hours later.
    clock.set_ahead(DAY * 2 + DAY / 12);
    let later = SystemTime::now() + DAY * 2 + DAY / 12;
    let again = table(&store).clean(later, drop).await.expect("cleaned");
    assert_eq!(again.deleted, 1, "the first of the third day");
    for version in (1..=newest).step_by(9) {
        let mut delta = deltalake::DeltaTable::new(Arc::clone(&own.log));
        delta.load_version(version).await.expect("it can be read");
    }
    assert_eq!(stored(&store).await, expected(&batch(0..135)));
}

/// One that a process has put, which then stood still for more than a week.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_named_while_others_clean_up_is_not_deleted() {
    let (clock, store) = clocked();
    let own = table(&store);
    own.commit(&batch(0..1), drop).await.expect("stored");
    let slow = table(&store);
    slow.follow().await.expect("followed");
    let mut rows = expected(&batch(1..2));
    rows.sort_unstable();
    let add = slow.put_file(rows, &HashSet::from([[1; 16]]), 0).await;
    let mut add = Some(add.expect("put"));
    clock.set_ahead(DAY * 8);
    // It goes on between the look and the deletion.
    let name_it = |_: News| {
        let Some(add) = add.take() else { return };
        let named = async {
            let mut state = slow.lock().await;
            let operation = DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: None,
                predicate: None,
            };
            let actions = vec![Action::Add(add)];
            let written =
                slow.write_entry(&mut state, actions, Vec::new(), operation, Header::new());
            written.await.expect("named");
        };
        block_in_place(|| Handle::current().block_on(named));
    };
    let later = SystemTime::now() + DAY * 8;
    let cleaned = own.clean(later, name_it).await.expect("cleaned");
    assert_eq!(cleaned.deleted, 0);
    assert_eq!(stored(&store).await, expected(&batch(0..2)));
}
