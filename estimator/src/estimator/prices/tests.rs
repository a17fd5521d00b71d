//! Tests of imported prices: what counts, who sees it when, and what is left alone.

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use url::Url;

use super::*;

fn estimator(store: &Arc<dyn ObjectStore>) -> Estimator {
    let own =
        "hardware,usd_per_gpu_hour,valid_from,valid_until,source\nl4,9,2026-01-01,,contract\n";
    let own = PriceBook::from_csv(own).expect("book");
    let base = Url::parse("memory:///bench/").expect("url");
    let prices = own.or(PriceBook::shipped());
    Estimator::over(Arc::clone(store), base, prices).expect("estimator")
}

fn micros(estimator: &Estimator, gpu: &str, day: &str) -> Option<u64> {
    let (gpu, day) = (gpu.parse().expect("gpu"), day.parse().expect("day"));
    let price = estimator.price(gpu, day);
    price.map(|price| price.usd_per_gpu_hour.0)
}

async fn import(estimator: &Estimator, lines: &str) -> PricesImported {
    let csv = format!("hardware,usd_per_gpu_hour,valid_from,valid_until,source\n{lines}");
    let file = PriceFile {
        source: "feed",
        csv: csv.as_bytes(),
        provider: "",
        spot: false,
    };
    estimator.import_prices(&file).await.expect("imported")
}

#[tokio::test]
async fn what_is_imported_counts_everywhere_between_the_operator_s_word_and_what_is_shipped() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (here, there) = (estimator(&store), estimator(&store));
    let shipped = micros(&here, "h100", "2026-11-20");
    let first = import(
        &here,
        "h100,2.5,2026-11-01,,a\nl4,0.1,2026-11-01,,a\nh900,1,2026-11-01,,a\n",
    )
    .await;
    assert_eq!(
        (first.read.stored, first.read.known, first.version),
        (2, 0, 1)
    );
    assert_eq!(first.read.refused(), 1);
    assert_eq!(micros(&here, "h100", "2026-11-20"), Some(2_500_000));
    assert_eq!(
        micros(&here, "h100", "2026-10-20"),
        shipped,
        "not yet in force"
    );
    assert_eq!(
        micros(&here, "l4", "2026-11-20"),
        Some(9_000_000),
        "the operator's word"
    );
    assert_eq!(micros(&there, "h100", "2026-11-20"), shipped);
    there.refresh_prices(false).await.expect("looked");
    assert_eq!(micros(&there, "h100", "2026-11-20"), Some(2_500_000));
    let again = import(&there, "h100,2.5,2026-11-01,,a\n").await;
    assert_eq!(
        (again.read.stored, again.read.known, again.version),
        (0, 1, 1)
    );
    // A correction of the same day, and a price that will hold later.
    let later = import(&there, "h100,2.4,2026-11-01,,a\nh100,2,2026-12-01,,a\n").await;
    assert_eq!((later.read.stored, later.version), (2, 2));
    assert_eq!(micros(&there, "h100", "2026-11-20"), Some(2_400_000));
    assert_eq!(micros(&there, "h100", "2026-12-20"), Some(2_000_000));
    let opened = estimator(&store);
    opened.refresh_prices(true).await.expect("looked");
    assert_eq!(micros(&opened, "h100", "2026-11-20"), Some(2_400_000));
}

#[tokio::test]
async fn what_the_operator_says_is_told_apart_from_what_is_shipped_once_it_is_known() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let estimator = estimator(&store);
    let said = |day: &str| {
        let said = estimator.said_prices(day.parse().expect("day"))?;
        let names = said.iter().map(|(gpu, price)| (gpu.slug(), price.0));
        Some(names.collect::<Vec<_>>())
    };
    assert_eq!(said("2026-11-20"), None, "nobody has looked yet");
    estimator.refresh_prices(false).await.expect("looked");
    assert_eq!(said("2025-11-20"), Some(vec![]), "before the contract");
    assert_eq!(said("2026-11-20"), Some(vec![("l4", 9_000_000)]));
    let lines = "h100,2.5,2026-11-10,2026-11-20,a\nl4,0.1,2026-11-01,,a\n";
    import(&estimator, lines).await;
    let both = vec![("l4", 9_000_000), ("h100", 2_500_000)];
    let sorted = |mut said: Vec<(&'static str, u64)>| {
        said.sort_unstable();
        said
    };
    assert_eq!(said("2026-11-20").map(sorted), Some(sorted(both)));
    assert_eq!(said("2026-11-21"), Some(vec![("l4", 9_000_000)]));
    estimator.hold(true);
    assert_eq!(said("2026-11-21"), None, "the tables may be others");
}

#[tokio::test]
async fn a_correction_that_is_taken_back_counts_and_sources_leave_each_other_alone() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let estimator = estimator(&store);
    let day = "2026-11-20";
    for (line, micros_then) in [
        ("h100,2.5,2026-11-01,,a\n", 2_500_000),
        ("h100,2.4,2026-11-01,,a\n", 2_400_000),
        ("h100,2.5,2026-11-01,,a\n", 2_500_000),
        ("h100,1.9,2026-11-01,,b\n", 1_900_000),
    ] {
        let done = import(&estimator, line).await;
        assert_eq!((done.read.stored, done.read.known), (1, 0), "{line}");
        assert_eq!(micros(&estimator, "h100", day), Some(micros_then), "{line}");
    }
    for line in ["h100,2.5,2026-11-01,,a\n", "h100,1.9,2026-11-01,,b\n"] {
        let done = import(&estimator, line).await;
        assert_eq!((done.read.stored, done.read.known), (0, 1), "{line}");
    }
    assert_eq!(micros(&estimator, "h100", day), Some(1_900_000));
    let both = "l40s,1.1,2026-11-01,,a\nl40s,1.2,2026-11-01,,a\n";
    assert_eq!(import(&estimator, both).await.read.stored, 2);
    assert_eq!(micros(&estimator, "l40s", day), Some(1_200_000));
    assert_eq!(import(&estimator, both).await.read.known, 2);
    assert_eq!(micros(&estimator, "l40s", day), Some(1_200_000));
}

#[test]
fn what_counts_no_more_makes_room_for_what_comes() {
    let lines = "h100,1,2026-01-01,,a\nh100,2,2026-01-02,,a\nh100,3,2026-01-03,,b\nl4,4,2025-01-01,2025-06-01,a\n\
                 h100,5,2026-01-04,,a\nh100,6,2030-01-01,,a\n";
    let csv = format!("hardware,usd_per_gpu_hour,valid_from,valid_until,source\n{lines}");
    let all = PriceBook::from_csv(&csv).expect("book").prices().to_vec();
    let left = |most| {
        let mut prices = all.clone();
        make_room(&mut prices, "2026-06-01".parse().expect("day"), most);
        let dollars = prices
            .iter()
            .map(|price| price.usd_per_gpu_hour.0 / 1_000_000);
        let mut dollars: Vec<u64> = dollars.collect();
        dollars.sort_unstable();
        dollars
    };
    assert_eq!(left(6), [1, 2, 3, 4, 5, 6]);
    assert_eq!(left(5), [1, 2, 3, 5, 6], "the oldest that is over");
    assert_eq!(left(4), [2, 3, 5, 6]);
    assert_eq!(left(1), [3, 5, 6], "these count, or will");
}

/// Each day's price has followed the one before it, and so many are too many.
#[tokio::test]
async fn a_file_that_is_too_long_is_stored_in_part_and_adds_nothing_the_second_time() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let estimator = estimator(&store);
    let (many, over) = (PRICES_MAX + 200, 200);
    let sources = many / 25;
    let lines = (0..sources).flat_map(|source| {
        (1..=25).map(move |day| format!("h100,{day},2020-01-{day:02},,s{source}\n"))
    });
    let lines: String = lines.collect();
    let first = import(&estimator, &lines).await;
    assert_eq!(
        (first.read.lines, first.read.stored, first.read.known),
        (many, PRICES_MAX, 0)
    );
    assert_eq!((first.read.refused(), first.version), (over, 1));
    for _ in 0..2 {
        let again = import(&estimator, &lines).await;
        assert_eq!(
            (again.read.stored, again.read.known, again.version),
            (0, PRICES_MAX, 1)
        );
        assert_eq!(again.read.refused(), over);
    }
    // A new line makes room for itself.
    let more = import(&estimator, "h100,1,2021-01-01,,s0\n").await;
    assert_eq!((more.read.stored, more.version), (1, 2));
}

#[tokio::test]
async fn two_who_import_at_once_lose_nothing() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let all: Vec<Estimator> = (0..6).map(|_| estimator(&store)).collect();
    let lines: Vec<String> = (1..=6)
        .map(|day| format!("h100,{day},2026-11-0{day},,a\n"))
        .collect();
    let imports = all.iter().zip(&lines).map(|(one, line)| import(one, line));
    let done = futures::future::join_all(imports).await;
    let mut versions: Vec<u64> = done.iter().map(|done| done.version).collect();
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6]);
    all[0].refresh_prices(true).await.expect("looked");
    for day in 1..=6 {
        let on = format!("2026-11-0{day}");
        assert_eq!(micros(&all[0], "h100", &on), Some(day * 1_000_000));
    }
}

/// Where version `number` of the imported prices lies.
fn place(number: u64) -> Path {
    Path::from(format!("bench/prices/{number:020}.csv"))
}

async fn put(store: &Arc<dyn ObjectStore>, number: u64, text: &'static str) {
    let put = store.put(&place(number), text.into()).await;
    put.expect("put");
}

#[tokio::test]
async fn what_a_newer_version_has_imported_is_kept_by_an_import_here() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let estimator = estimator(&store);
    import(&estimator, "h100,3,2026-11-01,,a\n").await;
    let newer = "hardware,usd_per_gpu_hour,valid_from,valid_until,source\n\
                 h100,2.5,2026-11-01,,a\nh900,9.000000,2026-11-01,,a\n";
    put(&store, 2, newer).await;
    estimator.refresh_prices(false).await.expect("looked");
    assert_eq!(estimator.prices_version(), 2);
    assert_eq!(micros(&estimator, "h100", "2026-11-20"), Some(2_500_000));
    let same = import(&estimator, "h100,2.5,2026-11-01,,a\n").await;
    assert_eq!((same.read.known, same.version), (1, 2));
    let more = import(&estimator, "l40s,1,2026-11-01,,a\n").await;
    assert_eq!((more.read.stored, more.version), (1, 3));
    assert_eq!(micros(&estimator, "h100", "2026-11-20"), Some(2_500_000));
    let written = store.get(&place(3)).await.expect("there").bytes().await;
    let written = written.expect("bytes");
    let written = std::str::from_utf8(&written).expect("text");
    assert!(
        written.contains("h900,9.000000,2026-11-01,,a\n"),
        "{written}"
    );
}

#[tokio::test]
async fn nothing_is_added_to_an_older_version_than_the_newest() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let estimator = estimator(&store);
    import(&estimator, "h100,3,2026-11-01,,a\n").await;
    put(&store, 2, "gpu,price,region\nh100,2,here\n").await;
    let file = PriceFile {
        source: "feed",
        csv: b"hardware,usd_per_gpu_hour,valid_from,valid_until,source\nl40s,1,2026-11-01,,a\n",
        provider: "",
        spot: false,
    };
    let refused = estimator.import_prices(&file).await.expect_err("refused");
    assert!(refused.to_string().contains("newer version"), "{refused}");
    assert!(store.head(&place(3)).await.is_err());
    for listed in [false, true] {
        estimator.refresh_prices(listed).await.expect("looked");
        assert_eq!(estimator.prices_version(), 1, "this is what counts");
        assert_eq!(micros(&estimator, "h100", "2026-11-20"), Some(3_000_000));
    }
    // Somebody has put it right under the same number.
    let right = "hardware,usd_per_gpu_hour,valid_from,valid_until,source\nh100,2,2026-11-01,,a\n";
    put(&store, 2, right).await;
    estimator.refresh_prices(true).await.expect("looked");
    assert_eq!(estimator.prices_version(), 2);
    assert_eq!(micros(&estimator, "h100", "2026-11-20"), Some(2_000_000));
}

#[tokio::test]
async fn a_source_that_is_cut_at_a_space_says_the_same_the_second_time() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let estimator = estimator(&store);
    let long = format!("{} and more", "x".repeat(199));
    for source in [long.as_str(), "\u{1} a"] {
        let line = format!("h100,2,2026-11-01,,{source}\n");
        let imported = [
            import(&estimator, &line).await,
            import(&estimator, &line).await,
        ];
        let stored = imported.map(|done| (done.read.stored, done.read.known));
        assert_eq!(stored, [(1, 0), (0, 1)], "{source}");
    }
}

/// A line by the day on which it ends and its amount; all are of one source and begin on the same day.
fn alike((last, dollars): (Option<u8>, u64)) -> Price {
    let day = |day: u8| format!("2026-01-{day:02}").parse().expect("day");
    let until = last.map(day);
    Price::new(
        "h100".parse().expect("gpu"),
        UsdMicros(dollars),
        day(1),
        until,
        "a".into(),
    )
}

proptest! {
    /// As lines are put one after the other before all that they replace.
    #[test]
    fn the_newest_word_of_a_source_takes_the_place_of_what_it_outlasts(
        files in vec(vec((option::of(1_u8..6), 1_u64..3), 0..8), 1..4),
    ) {
        let mut book: Vec<Price> = Vec::new();
        for file in files {
            let lines: Vec<Price> = file.into_iter().map(alike).collect();
            let mut expected = book.clone();
            for line in &lines {
                if expected.first().is_none_or(|newest| newest.says() != line.says()) {
                    expected.retain(|price| !line.replaces(price));
                    expected.insert(0, line.clone());
                }
            }
            book = with(&book, &lines).0;
            prop_assert_eq!(&book, &expected);
        }
    }
}
