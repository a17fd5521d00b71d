//! Prices that are imported while everything runs: kept in the store, and the same on every node a moment later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use stepcast_records::{GpuModel, UsdMicros};

use super::Estimator;
use crate::error::Error;
use crate::import::{Imported, PriceFile, check_name, read_prices};
use crate::price::shelf::{self, Lines, Newest};
use crate::price::{Day, PRICES_MAX, Price, PriceBook};

/// Others who import at the same moment are waited for so often.
const TRIES: usize = 8;

/// Why a line of a file is not stored although nothing is wrong with it.
const OVER: &str = "a later price has followed it, and there is no room for what counts no more";

/// What GPUs cost by now.
#[derive(Debug)]
pub(crate) struct Book {
    /// The version of what was imported, as far as it can be read here; 0 before the first import.
    pub(crate) version: u64,
    /// The newest version that was seen.
    seen: u64,
    /// Whether it is known what was imported.
    is_read: bool,
    pub(crate) book: Arc<PriceBook>,
}

impl Book {
    /// What the operator has written, and what comes with this version, before anybody has looked at what was imported.
    pub(super) fn unread(prices: &PriceBook) -> Self {
        Self {
            version: 0,
            seen: 0,
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
    /// go at once is not stored, and is counted among the refused ones. Lines of a newer version, as of hardware that this
    /// one does not know, stay as they are.
    /// Whoever asks for estimates here sees them when this returns, on other nodes within some seconds.
    ///
    /// # Errors
    /// [`Error::Config`] when the name or the header is wrong, there would be too many lines, or what was imported before
    /// cannot be read here as a whole;
    /// [`Error::Unreachable`] and [`Error::Contended`] pass with time, and nothing was stored then.
    pub async fn import_prices(&self, file: &PriceFile<'_>) -> Result<PricesImported, Error> {
        check_name(file.source)?;
        let read = read_prices(file)?;
        self.check_held()?;
        for _ in 0..TRIES {
            let found = shelf::newest(self.prefixed()).await?;
            found.check_is_read()?;
            let there = &found.lines.prices;
            let most = PRICES_MAX.saturating_sub(found.lines.others.len());
            let (mut new, said) = with(there, &read.rows);
            let gone = make_room(&mut new, Day::today(), most);
            // Of what has gone, these came just now: they were never there, and the same file again says them again.
            let over = if said > 0 {
                let before: HashSet<_> = there.iter().map(Price::says).collect();
                let are_new = gone.iter().filter(|price| !before.contains(&price.says()));
                are_new.count()
            } else {
                0
            };
            let is_same = is_same(&new, there);
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
                self.show_prices(&found);
                return Ok(PricesImported {
                    read: imported,
                    version: found.version,
                });
            }
            if new.len() > most {
                return Err(Error::Config(format!(
                    "imported prices hold at most {PRICES_MAX} lines that still count; there would be {}: import fewer GPUs, \
                     days or sources",
                    new.len() + found.lines.others.len()
                )));
            }
            let version = found.version + 1;
            let lines = Lines {
                prices: new,
                others: found.lines.others,
            };
            if shelf::put(self.prefixed(), version, &lines).await? {
                self.show_prices(&Newest {
                    version,
                    read: version,
                    lines,
                });
                return Ok(PricesImported {
                    read: imported,
                    version,
                });
            }
        }
        Err(Error::Contended { table: "prices" })
    }

    /// Takes in what was imported elsewhere: by a look at the next version, or `listed` by a list of all.
    pub(super) async fn refresh_prices(&self, listed: bool) -> Result<(), Error> {
        let shown = self.book();
        let is_known = shown.is_read && !listed;
        if is_known && !shelf::is_there(self.prefixed(), shown.seen + 1).await? {
            return Ok(());
        }
        self.show_prices(&shelf::newest(self.prefixed()).await?);
        Ok(())
    }

    /// Shows a version to everybody, unless it or a newer one is shown already.
    fn show_prices(&self, found: &Newest) {
        let shown = self.book();
        if shown.is_read && shown.version >= found.read && shown.seen >= found.version {
            return;
        }
        let imported = &found.lines.prices;
        let book = Arc::new(self.shared.own_prices.with_imported(imported));
        self.shared.prices.rcu(|shown| {
            let is_shown = shown.is_read && shown.version >= found.read;
            let (version, book) = if is_shown {
                (shown.version, &shown.book)
            } else {
                (found.read, &book)
            };
            Arc::new(Book {
                version,
                seen: found.version.max(shown.seen),
                is_read: true,
                book: Arc::clone(book),
            })
        });
    }
}

/// The lines that were imported before and these, what comes later first, where it counts; and how many of these say
/// something new. A line is known when its source says the same already: what another source says of that day beside it
/// stays where it is, so that two that are imported in turns do not replace one another each time.
fn with(there: &[Price], lines: &[Price]) -> (Vec<Price>, usize) {
    let mut all: Vec<Option<&Price>> = Vec::with_capacity(there.len() + lines.len());
    // Where in it what one source says of a GPU from a day on stands, the newest last. Of these a later one outlasts none
    // that came before it, or it has taken its place; so it is enough to look at the last ones.
    let mut places: HashMap<(GpuModel, Day, &str), Vec<usize>> = HashMap::new();
    for price in there.iter().rev() {
        let alike = places.entry(price.said_by()).or_default();
        alike.push(all.len());
        all.push(Some(price));
    }
    let mut stored = 0;
    for line in lines {
        let alike = places.entry(line.said_by()).or_default();
        let newest = alike.last().and_then(|place| all[*place]);
        if newest.is_some_and(|price| price.says() == line.says()) {
            continue;
        }
        while let Some(place) =
            alike.pop_if(|place| all[*place].is_some_and(|price| line.replaces(price)))
        {
            all[place] = None;
        }
        alike.push(all.len());
        all.push(Some(line));
        stored += 1;
    }
    let mut all: Vec<Price> = all.into_iter().flatten().cloned().collect();
    all.reverse();
    // A file that itself says several things of one day leaves all as it was the second time.
    let is_same = is_same(&all, there);
    (all, if is_same { 0 } else { stored })
}

fn is_same(a: &[Price], b: &[Price]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says() == b.says())
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
mod tests;
