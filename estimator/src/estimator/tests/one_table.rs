//! One table that cannot be read: what it has nothing to do with goes on.

use super::*;
use crate::table::Span;

/// The first entry of the log of validation times.
const ENTRY: &str = "validation_prompts/_delta_log/00000000000000000000.json";

async fn damaged(store: &Arc<dyn ObjectStore>) {
    let entry = Path::from(format!("bench/{ENTRY}"));
    let put = store.put(&entry, "damaged".into()).await;
    put.expect("put");
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_one_table_is_none_of_what_has_no_rows_for_it() {
    let store = memory();
    damaged(&store).await;
    let estimator = over(&store);
    let key = training_key("flux.dev/lora", "h100");
    let steps = |id| contribution(id, vec![row(key, 5_000, 150)]);
    let stored = estimator.record(vec![steps(1)]).await.expect("stored");
    assert_eq!(stored.stored, 1);
    let both = vec![steps(2), run(3, "rtx4090", 14_000), steps(4)];
    let recorded = estimator.record_each(both.clone()).await;
    assert!(recorded.failure.is_some());
    assert_eq!(recorded.kept, [[2; 16], [4; 16]]);
    assert_eq!(estimator.index().rows(Kind::Training), 4);
    estimator.record(vec![steps(5)]).await.expect("stored");
    assert!(estimator.trouble().is_some(), "the other is as it was");

    let lost = store.delete(&Path::from(format!("bench/{ENTRY}"))).await;
    lost.expect("it was there");
    let recorded = estimator.record_each(both).await;
    assert!(recorded.failure.is_none(), "{:?}", recorded.failure);
    assert_eq!((recorded.kept.len(), recorded.committed.rows), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_count_whatever_becomes_of_a_table() {
    let folder = tempfile::tempdir().expect("folder");
    let entry = folder.path().join(ENTRY);
    std::fs::create_dir_all(entry.parent().expect("a folder")).expect("made");
    std::fs::write(entry, "damaged").expect("written");
    let own =
        "hardware,usd_per_gpu_hour,valid_from,valid_until,source\nl4,9,2026-01-01,,contract\n";
    let open = || async {
        let own = PriceBook::from_csv(own).expect("book");
        let config = StoreConfig::folder(folder.path().to_owned());
        Estimator::open(config, own).await.expect("opened")
    };
    let (here, there) = (open().await, open().await);
    let day = || "2026-11-20".parse().expect("day");
    let prices = |estimator: &Estimator| estimator.said_prices(day()).map(|said| said.len());
    assert_eq!(prices(&here), Some(1), "the operator's own word");
    assert!(here.trouble().is_some());
    let file = PriceFile {
        source: "feed",
        csv: b"hardware,usd_per_gpu_hour,valid_from,valid_until,source\nh100,2,2026-11-01,,a\n",
        provider: "",
        spot: false,
    };
    there.import_prices(&file).await.expect("imported");
    let looked = here.look(false).await;
    assert!(looked.is_err(), "the table is as it was");
    assert_eq!(prices(&here), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_file_of_a_table_that_was_not_read_stays() {
    let store = memory();
    let writer = over(&store);
    let stored = writer.record(vec![run(1, "rtx4090", 14_000)]).await;
    stored.expect("stored");
    writer.compact().await.expect("tidied up");
    let plain = Path::from("bench/public/validation_prompts.parquet");
    let read = || async {
        let there = store.get(&plain).await.expect("there");
        there.bytes().await.expect("bytes")
    };
    let before = read().await;
    // Of the tables it reads the one of which something is taken back, and has not come to the other.
    let reader = over(&store);
    let span = Span { after: 0, to: 1 };
    let taken = reader.take_back(Kind::Training, span, false).await;
    assert_eq!(taken.expect("taken back").rows, 1);
    assert_eq!(read().await, before);
}
