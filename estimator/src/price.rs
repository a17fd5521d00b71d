//! The price book: what an hour on one GPU costs, since when, until when, and who says so.

mod day;
pub(crate) mod shelf;

use std::cmp::Reverse;

use serde::Deserialize;
use stepcast_records::units::GPU_HOUR_MAX;
use stepcast_records::{GpuModel, UsdMicros};

use crate::error::Error;
pub use day::Day;

/// The list prices that come with this version, with their dates and sources.
const SHIPPED: &str = include_str!("../prices/list_prices.csv");
/// A book holds at most so many lines: every GPU, every month, for years.
pub(crate) const PRICES_MAX: usize = 10_000;

/// Prices per GPU and hour, each valid for a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceBook {
    /// By GPU; of each what counts first before what it overrides.
    prices: Vec<Price>,
}

/// One line of a price book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// The GPU.
    pub gpu: GpuModel,
    /// One GPU of it for one hour.
    pub usd_per_gpu_hour: UsdMicros,
    /// The first day it holds.
    pub valid_from: Day,
    /// The last day it holds; open without one.
    pub valid_until: Option<Day>,
    /// Who says so.
    pub source: String,
    /// How many books it was overridden by: 0 is the operator's last word.
    rank: usize,
    /// It comes with this version, and nobody here has said it.
    is_shipped: bool,
}

/// A line as it is written. Amounts and dates are text, so that nothing is rounded on the way.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    hardware: String,
    usd_per_gpu_hour: toml::Value,
    valid_from: toml::Value,
    valid_until: Option<toml::Value>,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Toml {
    #[serde(default)]
    price: Vec<Line>,
}

impl PriceBook {
    /// The book that comes with this version: the median list price per GPU of public cloud offers.
    #[must_use]
    pub fn shipped() -> Self {
        // A test reads the file, so it cannot fail here; without prices an estimate says `no price`.
        let mut book = Self::from_csv(SHIPPED).unwrap_or_default();
        let prices = book.prices.iter_mut();
        prices.for_each(|price| price.is_shipped = true);
        book
    }

    /// A book without a line.
    pub(crate) const fn none() -> &'static Self {
        const NONE: &PriceBook = &PriceBook { prices: Vec::new() };
        NONE
    }

    /// Reads `[[price]]` tables with `hardware`, `usd_per_gpu_hour`, `valid_from`, `valid_until` (optional)
    /// and `source`.
    ///
    /// # Errors
    /// When a line is not of that form; the message names it.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let read: Toml = toml::from_str(text).map_err(|error| wrong(error.message().to_owned()))?;
        Self::from_lines(read.price.into_iter().enumerate())
    }

    /// Reads lines of comma separated values with the same columns; lines that begin with `#` are comments.
    ///
    /// # Errors
    /// When a line is not of that form; the message names it.
    pub fn from_csv(text: &str) -> Result<Self, Error> {
        let mut reader = reader(text);
        let lines = reader.deserialize::<CsvLine>().enumerate();
        let lines = lines.map(|(index, line)| {
            let line = line.map_err(|error| wrong(error.to_string()))?;
            Ok((index, line.into()))
        });
        let lines: Vec<(usize, Line)> = lines.collect::<Result<_, Error>>()?;
        Self::from_lines(lines)
    }

    /// This book, and another one for what it does not say.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        let ranks = self.prices.iter().map(|price| price.rank + 1);
        let next = ranks.max().unwrap_or(0);
        self.prices
            .extend(other.prices.into_iter().map(|price| Price {
                rank: price.rank + next,
                ..price
            }));
        Self::of(self.prices)
    }

    /// This book with imported lines, which count before its last part: before what comes with this version, and after
    /// what the operator has written.
    #[must_use]
    pub(crate) fn with_imported(&self, imported: &[Price]) -> Self {
        let last = self.prices.iter().map(|price| price.rank).max();
        let last = last.unwrap_or(0);
        let mut prices: Vec<Price> = imported.to_vec();
        prices.iter_mut().for_each(|price| price.rank = last);
        prices.extend(self.prices.iter().cloned().map(|price| Price {
            rank: price.rank + usize::from(price.rank == last),
            ..price
        }));
        Self::of(prices)
    }

    /// Lines in the order in which they are looked at; of equal ones the first counts.
    fn of(mut prices: Vec<Price>) -> Self {
        prices.sort_by_key(|price| (price.gpu, price.rank, Reverse(price.valid_from)));
        Self { prices }
    }

    /// The price of a GPU on a day: of the lines that hold then, the newest of the first book that has one.
    #[must_use]
    pub fn price(&self, gpu: GpuModel, day: Day) -> Option<&Price> {
        let first = self.prices.partition_point(|price| price.gpu < gpu);
        let of_it = self.prices[first..].iter();
        let mut of_it = of_it.take_while(|price| price.gpu == gpu);
        of_it.find(|price| price.holds(day))
    }

    /// The same if the operator has said it, in a book or by an import: not what comes with this version.
    #[must_use]
    pub fn said(&self, gpu: GpuModel, day: Day) -> Option<&Price> {
        // What is shipped counts behind everything else.
        self.price(gpu, day).filter(|price| !price.is_shipped)
    }

    /// Every GPU that has a price on a day.
    pub fn gpus(&self, day: Day) -> impl Iterator<Item = GpuModel> {
        let mut gpus: Vec<GpuModel> = self
            .prices
            .iter()
            .filter(|price| price.holds(day))
            .map(|price| price.gpu)
            .collect();
        gpus.sort_unstable();
        gpus.dedup();
        gpus.into_iter()
    }

    /// Every line by GPU; of each what counts first before what it overrides.
    #[must_use]
    pub fn prices(&self) -> &[Price] {
        &self.prices
    }

    fn from_lines(lines: impl IntoIterator<Item = (usize, Line)>) -> Result<Self, Error> {
        let mut prices = Vec::new();
        for (index, line) in lines {
            if prices.len() == PRICES_MAX {
                return Err(wrong(format!("it holds more than {PRICES_MAX} lines")));
            }
            let place = |what: &str| wrong(format!("price {}: {what}", index + 1));
            prices.push(line.read().map_err(place)?);
        }
        Ok(Self::of(prices))
    }
}

impl Price {
    /// A line of no book yet.
    pub(crate) const fn new(
        gpu: GpuModel,
        usd_per_gpu_hour: UsdMicros,
        valid_from: Day,
        valid_until: Option<Day>,
        source: String,
    ) -> Self {
        Self {
            gpu,
            usd_per_gpu_hour,
            valid_from,
            valid_until,
            source,
            rank: 0,
            is_shipped: false,
        }
    }

    /// What it says, wherever it stands.
    pub(crate) const fn says(&self) -> ((GpuModel, Day, &str), UsdMicros, Option<Day>) {
        (self.said_by(), self.usd_per_gpu_hour, self.valid_until)
    }

    /// What it is the word on: of two of one source for a GPU from a day on one corrects the other.
    pub(crate) const fn said_by(&self) -> (GpuModel, Day, &str) {
        (self.gpu, self.valid_from, self.source.as_str())
    }

    /// Whether the other counts on no day once this one stands before it.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        let outlasts = match (self.valid_until, other.valid_until) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(last), Some(of_other)) => of_other <= last,
        };
        self.said_by() == other.said_by() && outlasts
    }

    /// Whether it holds on a day.
    #[must_use]
    pub fn holds(&self, day: Day) -> bool {
        self.valid_from <= day && self.valid_until.is_none_or(|last| day <= last)
    }
}

impl Line {
    fn read(self) -> Result<Price, &'static str> {
        let gpu = self
            .hardware
            .parse()
            .map_err(|_| "the hardware is not in the registry")?;
        let day = |value: toml::Value| {
            text(&value)
                .parse::<Day>()
                .map_err(|_| "write a day as 2026-10-01, from 1970 on")
        };
        let amount = text(&self.usd_per_gpu_hour).parse::<UsdMicros>();
        let amount = amount.map_err(|_| "write dollars such as 1.08")?;
        if amount > GPU_HOUR_MAX {
            return Err("a GPU costs $1,000 an hour at most");
        }
        let valid_from = day(self.valid_from)?;
        let valid_until = self.valid_until.map(day).transpose()?;
        if valid_until.is_some_and(|last| last < valid_from) {
            return Err("it ends before it begins");
        }
        Ok(Price {
            gpu,
            usd_per_gpu_hour: amount,
            valid_from,
            valid_until,
            source: self.source,
            rank: 0,
            is_shipped: false,
        })
    }
}

/// A line of comma separated values, where everything is text and an empty cell is an absent one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvLine {
    hardware: String,
    usd_per_gpu_hour: String,
    valid_from: String,
    #[serde(default)]
    valid_until: String,
    source: String,
}

impl From<CsvLine> for Line {
    fn from(line: CsvLine) -> Self {
        let CsvLine {
            hardware,
            usd_per_gpu_hour,
            valid_from,
            valid_until,
            source,
        } = line;
        Self {
            hardware,
            usd_per_gpu_hour: usd_per_gpu_hour.into(),
            valid_from: valid_from.into(),
            valid_until: (!valid_until.is_empty()).then(|| valid_until.into()),
            source,
        }
    }
}

/// Comma separated values; lines that begin with `#` are comments.
fn reader(text: &str) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes())
}

/// A TOML value as it was written: amounts may be text or numbers, days text or dates.
fn text(value: &toml::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn wrong(what: String) -> Error {
    Error::Config(format!("the price book is wrong: {what}"))
}

#[cfg(test)]
mod tests;
