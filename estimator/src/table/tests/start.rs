//! Tests of starting from an object of cells: the same as from every row, and no trouble when it is not there.

use super::*;
use crate::index::Index;

/// Writes the cells of the table as they are.
pub(super) async fn write_cells(own: &Table) -> bool {
    let mut index = Index::default();
    let news = own.open(&mut *own.lock().await).await.expect("opened");
    index.replace(Kind::Training, news.known);
    index.add(&news.rows);
    own.write_cells(drop, || (Arc::new(index), 0))
        .await
        .expect("written")
}

/// What a process that starts knows, and how many objects of rows it read for that.
pub(super) async fn started(store: &Arc<dyn ObjectStore>) -> (Index, usize) {
    let counting = Faulty::new(store, None);
    let as_store: Arc<dyn ObjectStore> = counting.clone();
    let news = table(&as_store).follow().await.expect("read");
    let mut index = Index::default();
    index.replace(Kind::Training, news.known);
    index.add(&news.rows);
    (index, counting.row_files_read())
}

fn same(a: &Index, b: &Index) -> bool {
    let cells = |index: &Index| {
        let mut cells: Vec<_> = index
            .cells_of(Kind::Training)
            .map(|(key, cell)| (key, cell.clone()))
            .collect();
        cells.sort_by_key(|(key, _)| *key);
        (cells, index.rows(Kind::Training))
    };
    cells(a) == cells(b)
}

fn cells_at(version: u64) -> Path {
    Path::from(format!("bench/training_steps/_cells/{version:020}.cells"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_from_cells_is_the_same_as_one_from_rows() {
    let store = memory();
    let own = table(&store);
    for id in 0..5 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let (by_rows, read) = started(&store).await;
    assert_eq!((by_rows.rows(Kind::Training), read), (10, 5));
    assert!(write_cells(&own).await);
    assert!(!write_cells(&own).await, "they are of this version already");
    let (by_cells, read) = started(&store).await;
    assert!(same(&by_rows, &by_cells));
    assert_eq!(read, 0, "no row was read");
    for id in 5..7 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let (later, read) = started(&store).await;
    assert_eq!(
        (later.rows(Kind::Training), read),
        (14, 2),
        "what came after"
    );
    let known = table(&store).commit(&batch(0..7), drop).await;
    assert_eq!(known.expect("known").rows, 0, "ids come from the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_survive_a_compaction_and_old_ones_go() {
    let store = memory();
    let own = table(&store);
    for round in 0..4u8 {
        for id in round * 9..round * 9 + 9 {
            own.commit(&batch(id..id + 1), drop).await.expect("stored");
        }
        assert!(write_cells(&own).await);
        own.compact(drop).await.expect("compacted");
    }
    let (index, read) = started(&store).await;
    assert_eq!((index.rows(Kind::Training), read), (72, 0));
    let prefix = Path::from("bench/training_steps/_cells");
    let left = store
        .list_with_delimiter(Some(&prefix))
        .await
        .expect("list");
    let names = left.objects.iter().map(|object| &object.location);
    let left = names.filter(|name| name.as_ref().ends_with(".cells"));
    assert_eq!(left.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_never_read_is_in_no_cells_and_is_read_once_it_is_back() {
    let store = memory();
    let own = table(&store);
    for id in 0..3 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let file = own.listing().files[0].path.clone();
    let file = Path::from(format!("bench/training_steps/{file}"));
    let bytes = store.get(&file).await.expect("file").bytes().await;
    store.delete(&file).await.expect("lost");
    assert!(write_cells(&table(&store)).await);
    assert_eq!(started(&store).await.0.rows(Kind::Training), 4);
    let bytes = bytes.expect("bytes");
    store.put(&file, bytes.into()).await.expect("put back");
    let (index, read) = started(&store).await;
    assert_eq!((index.rows(Kind::Training), read), (6, 1));
}

/// Files in the cells whose objects are lost, cut or overwritten are seen by no query, and their rows stay known.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_damaged_after_it_was_read_is_left_out_until_it_is_back() {
    let store = memory();
    let own = table(&store);
    for id in 0..3 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    assert!(write_cells(&own).await);
    let file = own.listing().files[0].path.clone();
    let place = Path::from(format!("bench/training_steps/{file}"));
    let whole = store.get(&place).await.expect("file").bytes().await;
    let whole = whole.expect("bytes");
    let left_out = |table: &Table| {
        let listing = table.listing();
        (listing.files.len(), listing.unreadable.clone())
    };
    for damage in ["lost", "cut", "longer", "overwritten", "within"] {
        let damaged = match damage {
            "cut" => whole.slice(..500).to_vec(),
            "longer" => [&whole[..], b"PAR1"].concat(),
            "overwritten" => vec![b'x'; whole.len()],
            // All but what it ends with.
            "within" => [&vec![b'x'; whole.len() - 4][..], b"PAR1"].concat(),
            _ => Vec::new(),
        };
        match damage {
            "lost" => store.delete(&place).await.expect("lost"),
            _ => drop(store.put(&place, damaged.into()).await.expect("damaged")),
        }
        let again = table(&store);
        let news = again.follow().await.expect("read");
        assert_eq!(news.known.rows(Kind::Training), 6, "{damage}");
        if damage == "within" {
            assert_eq!(left_out(&again), (3, vec![]), "nobody has read it");
            again.look_for_broken().await.expect("looked");
            again.compact(drop).await.expect("tidied up");
        }
        assert_eq!(left_out(&again), (2, vec![file.clone()]), "{damage}");
        // One that runs finds out when a statement could not read it.
        if damage != "within" {
            assert_eq!(left_out(&own), (3, vec![]), "{damage}");
        }
        own.look_for_broken().await.expect("looked");
        own.compact(drop).await.expect("tidied up");
        assert_eq!(left_out(&own), (2, vec![file.clone()]), "{damage}");
        store.put(&place, whole.clone().into()).await.expect("back");
        for one in [&own, &again] {
            let mut news = 0;
            let learn = |found: News| news += found.rows.len();
            one.compact(learn).await.expect("tidied up");
            assert_eq!((left_out(one), news), ((3, vec![]), 0), "{damage}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_none_to_who_wrote_the_cells_are_read() {
    let store = memory();
    let own = table(&store);
    for id in 0..2 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let (all, _) = started(&store).await;
    // To somebody with another vocabulary the rows of the second contribution are none.
    let mut less = Index::default();
    less.add(&rows(100));
    let plant = async |vocabulary: &str| {
        let header = cells::Header {
            version: 2,
            rows: 2,
            refused_rows: 2,
            vocabulary: vocabulary.to_owned(),
            ..cells::Header::default()
        };
        let bytes = cells::write(Kind::Training, &less, header).expect("cells");
        store.put(&cells_at(2), bytes.into()).await.expect("put");
    };
    for vocabulary in ["a smaller one", ""] {
        plant(vocabulary).await;
        let (index, read) = started(&store).await;
        assert!(same(&all, &index), "{vocabulary:?}");
        assert_eq!(read, 2, "{vocabulary:?}");
        assert!(write_cells(&own).await, "these know more: {vocabulary:?}");
        let (index, read) = started(&store).await;
        assert!(same(&all, &index) && read == 0, "{vocabulary:?}");
        assert!(!write_cells(&own).await, "{vocabulary:?}");
    }
    let known = || (Arc::new(less.clone()), 2);
    let written = own.write_cells(drop, known).await.expect("looked");
    assert!(!written, "who knows less leaves them alone");
    // What is no row to this version either is not read for nothing.
    plant(cells::vocabulary()).await;
    let (index, read) = started(&store).await;
    assert_eq!((index.rows(Kind::Training), read), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_cells_or_a_cut_log_cost_a_full_read_and_nothing_else() {
    let store = memory();
    let own = table(&store);
    own.commit(&batch(0..3), drop).await.expect("stored");
    assert!(write_cells(&own).await);
    let (right, _) = started(&store).await;
    store
        .put(&cells_at(1), "damaged".into())
        .await
        .expect("put");
    let (again, read) = started(&store).await;
    assert!(same(&right, &again) && read == 1);
    // Cells of a version that is not there yet, as after a log was put back from a backup.
    let cells = cells_at(9);
    store
        .put(&cells, "of the future".into())
        .await
        .expect("put");
    assert!(same(&right, &started(&store).await.0));
    store.delete(&cells).await.expect("gone");

    store.delete(&cells_at(1)).await.expect("gone");
    assert!(write_cells(&own).await);
    own.commit(&batch(3..4), drop).await.expect("stored");
    own.commit(&batch(4..5), drop).await.expect("stored");
    deltalake::protocol::checkpoints::create_checkpoint(
        own.lock().await.delta.as_ref().expect("open"),
        None,
    )
    .await
    .expect("checkpoint");
    for version in 0..3 {
        let entry = format!("bench/training_steps/_delta_log/{version:020}.json");
        store.delete(&Path::from(entry)).await.expect("cut");
    }
    let (whole, read) = started(&store).await;
    assert_eq!((whole.rows(Kind::Training), read), (10, 3));
}

/// As after tables were put back from a copy that was made with the cells of later versions.
#[tokio::test(flavor = "multi_thread")]
async fn cells_of_another_log_are_passed_over() {
    let (store, other) = (memory(), memory());
    table(&other).commit(&batch(0..1), drop).await.expect("it");
    table(&store).commit(&batch(0..1), drop).await.expect("it");
    let (own, theirs) = (table(&store), table(&other));
    own.commit(&batch(1..2), drop).await.expect("stored");
    theirs.commit(&batch(5..9), drop).await.expect("stored");
    assert!(write_cells(&theirs).await);
    let cells = other.get(&cells_at(2)).await.expect("cells").bytes().await;
    let put = store.put(&cells_at(2), cells.expect("bytes").into()).await;
    put.expect("put");

    let (index, read) = started(&store).await;
    assert_eq!((index.rows(Kind::Training), read), (4, 2));
    assert!(write_cells(&own).await, "its own in place of these");
    assert!(!write_cells(&own).await);
    let (index, read) = started(&store).await;
    assert_eq!((index.rows(Kind::Training), read), (4, 0));
}

/// Every statement that meets one that is damaged within says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_found_nothing_is_not_repeated() {
    let disk = memory();
    let counted = Faulty::new(&disk, None);
    let store: Arc<dyn ObjectStore> = counted.clone();
    let own = table(&store);
    for id in 0..3 {
        own.commit(&batch(id..id + 1), drop).await.expect("stored");
    }
    let looks = async || {
        let before = counted.reads();
        own.look_for_broken().await.expect("looked");
        counted.reads() - before
    };
    assert_eq!((looks().await, looks().await), (3, 0));
    own.commit(&batch(3..4), drop).await.expect("stored");
    assert_eq!((looks().await, looks().await), (4, 0), "there is more now");
    // And once all of them were read.
    own.compact(drop).await.expect("tidied up");
    assert_eq!(looks().await, 4);
    own.compact(drop).await.expect("tidied up");
    let lost = own.listing().files[0].path.clone();
    let lost = Path::from(format!("bench/training_steps/{lost}"));
    disk.delete(&lost).await.expect("it was there");
    looks().await;
    assert_eq!(own.listing().unreadable.len(), 1);
    assert_eq!(looks().await, 3, "one that found something is no reason");
}
