//! Prices that are imported while everything runs: kept in the store, and the same on every node a moment later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use stepcast_records::{GpuModel, UsdMicros};

use super::Estimator;
use crate::error::Error;
use crate::import::{Imported, PriceFile, check_name, read_prices};
use crate::price::{Day, PRICES_MAX, Price, PriceBook, shelf};

/// Others who import at the same moment are waited for so often.
const TRIES: usize = 8;

/// Why a line of a file is not stored although nothing is wrong with it.
const OVER: &str = "a later price has followed it, and there is no room for what counts no more";

/// What GPUs cost by now.
#[derive(Debug)]
pub(crate) struct Book {
    /// The version of what was imported; 0 before the first import.
    pub(crate) version: u64,
    /// Whether it is known what was imported.
    is_read: bool,
    pub(crate) book: Arc<PriceBook>,
}

impl Book {
    /// What the operator has written, and what comes with this version, before anybody has looked at what was imported.
    pub(super) fn unread(prices: &PriceBook) -> Self {
        Self {
            version: 0,
            is_read: false,
            book: Arc::new(prices.clone()),
        }
    }
}

/// What an import of prices did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PricesImported {
    /// Lines of the file, and which of them were refused; `stored` and `known` count lines of the book that came of it.
    pub read: Imported,
    /// The version of the imported prices after it.
    pub version: u64,
}

impl Estimator {
    /// What GPUs cost: what the operator has written, then what was imported, then what comes with this version.
    #[must_use]
    pub fn prices(&self) -> Arc<PriceBook> {
        Arc::clone(&self.book().book)
    }

    /// The version of the imported prices; 0 before the first import.
    #[must_use]
    pub fn prices_version(&self) -> u64 {
        self.book().version
    }

    /// The line that counts for a GPU on a day.
    #[must_use]
    pub fn price(&self, gpu: GpuModel, day: Day) -> Option<Price> {
        self.book().book.price(gpu, day).cloned()
    }

    /// What the operator says that one GPU costs an hour on a day, in a book or by an import, for each model of which anything
    /// is said; `None` while it is not known what was imported, or whether these are the operator's own tables.
    #[must_use]
    pub fn said_prices(&self, day: Day) -> Option<Vec<(GpuModel, UsdMicros)>> {
        let shown = self.book();
        if !shown.is_read || self.check_held().is_err() {
            return None;
        }
        let gpus = shown.book.gpus(day);
        let said = gpus.filter_map(|gpu| {
            let price = shown.book.said(gpu, day)?;
            Some((price.gpu, price.usd_per_gpu_hour))
        });
        Some(said.collect())
    }

    pub(crate) fn book(&self) -> Arc<Book> {
        self.shared.prices.load_full()
    }

    /// Adds the prices of a file to those that were imported before. A line that its source says already is known; of two
    /// for one GPU that hold on a day the one that began later counts, and of two that began together the one that came
    /// later. Where there would be too many, those that count no more go, the oldest first; a line of this file that would
    /// go at once is not stored, and is counted among the refused ones.
    /// Whoever asks for estimates here sees them when this returns, on other nodes within some seconds.
    ///
    /// # Errors
    /// [`Error::Config`] when the name or the header is wrong or there would be too many lines;
    /// [`Error::Unreachable`] and [`Error::Contended`] pass with time, and nothing was stored then.
    pub async fn import_prices(&self, file: &PriceFile<'_>) -> Result<PricesImported, Error> {
        check_name(file.source)?;
        let read = read_prices(file)?;
        self.check_held()?;
        for _ in 0..TRIES {
            let (version, there) = shelf::newest(self.prefixed()).await?;
            let (mut new, said) = with(&there, &read.rows);
            let gone = make_room(&mut new, Day::today(), PRICES_MAX);
            // Of what has gone, these came just now: they were never there, and the same file again says them again.
            let over = gone
                .iter()
                .filter(|price| said > 0 && !there.iter().any(|before| before.says_as(price)));
            let over = over.count();
            let is_same = is_same(&new, &there);
            let stored = if is_same {
                0
            } else {
                said.saturating_sub(over)
            };
            let mut imported = Imported {
                lines: read.lines,
                stored,
                known: read.rows.len() - stored - over,
                ..read.refused.clone()
            };
            if over > 0 {
                imported.reasons.insert(OVER, over);
            }
            if is_same {
                self.show_prices(version, &there);
                return Ok(PricesImported {
                    read: imported,
                    version,
                });
            }
            if new.len() > PRICES_MAX {
                return Err(Error::Config(format!(
                    "imported prices hold at most {PRICES_MAX} lines that still count; there would be {}: import fewer GPUs, \
                     days or sources",
                    new.len()
                )));
            }
            if shelf::put(self.prefixed(), version + 1, &new).await? {
                self.show_prices(version + 1, &new);
                return Ok(PricesImported {
                    read: imported,
                    version: version + 1,
                });
            }
        }
        Err(Error::Contended { table: "prices" })
    }

    /// Takes in what was imported elsewhere: by a look at the next version, or `listed` by a list of all.
    pub(super) async fn refresh_prices(&self, listed: bool) -> Result<(), Error> {
        let shown = self.book();
        let (known, is_read) = (shown.version, shown.is_read);
        if is_read && !listed && !shelf::is_there(self.prefixed(), known + 1).await? {
            return Ok(());
        }
        let (version, prices) = shelf::newest(self.prefixed()).await?;
        if !is_read || version > known {
            self.show_prices(version, &prices);
        }
        Ok(())
    }

    /// Shows a version to everybody, unless a newer one is shown already.
    fn show_prices(&self, version: u64, imported: &[Price]) {
        let book = Arc::new(self.shared.own_prices.with_imported(imported));
        self.shared.prices.rcu(|shown| {
            if shown.is_read && shown.version >= version {
                return Arc::clone(shown);
            }
            Arc::new(Book {
                version,
                is_read: true,
                book: Arc::clone(&book),
            })
        });
    }
}

/// The lines that were imported before and these, what comes later first, where it counts; and how many of these say
/// something new. A line is known when its source says the same already: what another source says of that day beside it
/// stays where it is, so that two that are imported in turns do not replace one another each time.
fn with(there: &[Price], lines: &[Price]) -> (Vec<Price>, usize) {
    let mut all: Vec<Price> = there.iter().rev().cloned().collect();
    let mut stored = 0;
    for line in lines {
        let newest = all.iter().rev().find(|price| line.corrects(price));
        if newest.is_some_and(|price| price.says_as(line)) {
            continue;
        }
        all.retain(|price| !line.replaces(price));
        all.push(line.clone());
        stored += 1;
    }
    all.reverse();
    // A file that itself says several things of one day leaves all as it was the second time.
    let is_same = is_same(&all, there);
    (all, if is_same { 0 } else { stored })
}

fn is_same(a: &[Price], b: &[Price]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says_as(b))
}

/// Leaves out what counts on no day from this one on, the oldest first, until there are no more than so many: lines that are
/// over, and those that a later one of the same source has followed. Returns those that it has left out.
fn make_room(prices: &mut Vec<Price>, today: Day, most: usize) -> Vec<Price> {
    let Some(too_many) = prices
        .len()
        .checked_sub(most)
        .filter(|too_many| *too_many > 0)
    else {
        return Vec::new();
    };
    let mut newest: HashMap<(GpuModel, String), Day> = HashMap::new();
    for price in prices.iter().filter(|price| price.valid_until.is_none()) {
        if price.valid_from <= today {
            let day = newest.entry((price.gpu, price.source.clone()));
            let day = day.or_insert(price.valid_from);
            *day = price.valid_from.max(*day);
        }
    }
    let is_over = |price: &Price| {
        let followed = newest.get(&(price.gpu, price.source.clone()));
        price.valid_until.is_some_and(|last| last < today)
            || followed.is_some_and(|day| price.valid_from < *day)
    };
    let mut over: Vec<(Day, usize)> = prices
        .iter()
        .enumerate()
        .filter(|(_, price)| is_over(price))
        .map(|(place, price)| (price.valid_from, place))
        .collect();
    over.sort_unstable();
    let gone: HashSet<usize> = over
        .iter()
        .take(too_many)
        .map(|(_, place)| *place)
        .collect();
    let mut place = 0..;
    let is_gone = |_: &mut Price| place.next().is_some_and(|place| gone.contains(&place));
    prices.extract_if(.., is_gone).collect()
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStore;
    use object_store::memory::InMemory;
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
}
