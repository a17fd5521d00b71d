//! Files of prices: a book's own lines, or what providers list, of which the median becomes a line.

use std::collections::BTreeMap;

use stepcast_records::units::GPU_HOUR_MAX;
use stepcast_records::{GpuModel, UsdMicros};

use super::{Columns, Line, Read, Refused, each_line, step_times};
use crate::error::Error;
use crate::price::{Day, Price};

/// The columns of a price book; `valid_until` may be missing.
pub const PRICES_HEADER: &str = "hardware,usd_per_gpu_hour,valid_from,valid_until,source";
/// The columns of a list of offers that are read; others may stand beside them.
pub const OFFERS_HEADER: &str = "date,provider,gpu,on_demand_usd_per_gpu_hr,spot_usd_per_gpu_hr";

/// So much of what a line says of its source is kept.
const SOURCE_CHARS_MAX: usize = 200;

/// A file of prices, and what is wanted of it.
#[derive(Debug, Clone, Copy)]
pub struct PriceFile<'a> {
    /// What it is called: 1 to 64 lower case letters, digits and any of `- _ .`.
    pub source: &'a str,
    /// Comma separated values under [`PRICES_HEADER`] or [`OFFERS_HEADER`].
    pub csv: &'a [u8],
    /// Of a list of offers only those of this provider; empty for all.
    pub provider: &'a str,
    /// Of a list of offers the spot prices and not those on demand.
    pub spot: bool,
}

/// What a provider asks for an hour on one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    gpu: GpuModel,
    day: Day,
    price: UsdMicros,
}

/// The lines of a book that a file makes, and what was not taken of it.
///
/// # Errors
/// When the file is too large or its header is neither of the two.
pub(crate) fn read(file: &PriceFile<'_>) -> Result<Read<Price>, Error> {
    let has = |columns: &Columns, header: &str| {
        let mut names = header.split(',');
        names.all(|name| name == "valid_until" || columns.has(name))
    };
    let mut is_offers = false;
    let read = each_line(file.csv, |columns| {
        is_offers = has(columns, OFFERS_HEADER);
        let is_book = !is_offers && has(columns, PRICES_HEADER);
        if is_book && (file.spot || !file.provider.is_empty()) {
            return Err(Error::Config(
                "a price book says neither whose prices it has nor which are spot prices: give no provider and do not ask for spot prices".into(),
            ));
        }
        if is_offers || is_book {
            return Ok(|line: &Line<'_>| {
                if is_offers {
                    offer(line, file).map(Written::Offer)
                } else {
                    price(line).map(Written::Price)
                }
            });
        }
        Err(Error::Config(format!(
            "the header is neither that of a price book ({PRICES_HEADER}) nor that of a list of offers ({OFFERS_HEADER})"
        )))
    })?;
    let (mut prices, mut offers) = (Vec::new(), Vec::new());
    for written in read.rows {
        match written {
            Written::Price(price) => prices.push(price),
            Written::Offer(offer) => offers.push(offer),
        }
    }
    prices.extend(medians(&offers, file));
    Ok(Read {
        lines: read.lines,
        rows: prices,
        refused: read.refused,
    })
}

/// What one line says.
enum Written {
    Price(Price),
    Offer(Offer),
}

fn price(line: &Line<'_>) -> Result<Price, Refused> {
    let gpu = line.read("hardware", gpu, "the hardware is not in the registry")?;
    let amount = line.read("usd_per_gpu_hour", amount, NO_AMOUNT)?;
    let from = line.read("valid_from", day, NO_DAY)?;
    let until = match line.cell("valid_until") {
        "" => None,
        _ => Some(line.read("valid_until", day, NO_DAY)?),
    };
    if until.is_some_and(|until| until < from) {
        return Err((
            "it ends before it begins",
            line.cell("valid_until").to_owned(),
        ));
    }
    let source = line
        .cell("source")
        .chars()
        .filter(|letter| !letter.is_control());
    let source: String = source.take(SOURCE_CHARS_MAX).collect();
    // As it is read again, so that the same file says nothing new.
    let source = source.trim().to_owned();
    if source.is_empty() {
        return Err(("nobody says so: the source is empty", String::new()));
    }
    Ok(Price::new(gpu, amount, from, until, source))
}

fn offer(line: &Line<'_>, file: &PriceFile<'_>) -> Result<Offer, Refused> {
    if !file.provider.is_empty() && line.cell("provider") != file.provider {
        return Err(("another provider", line.cell("provider").to_owned()));
    }
    let gpu = line.read("gpu", gpu, "the hardware is not in the registry")?;
    let day = line.read("date", day, NO_DAY)?;
    let (column, none) = if file.spot {
        ("spot_usd_per_gpu_hr", "there is no spot price")
    } else {
        ("on_demand_usd_per_gpu_hr", "there is no price on demand")
    };
    if line.cell(column).is_empty() {
        return Err((none, String::new()));
    }
    let price = line.read(column, amount, NO_AMOUNT)?;
    Ok(Offer { gpu, day, price })
}

const NO_AMOUNT: &str =
    "write dollars such as 1.08, with at most six digits behind the point, above 0 and up to 1000";
const NO_DAY: &str = "write a day as 2026-10-01, from 1970 on";

fn gpu(cell: &str) -> Option<GpuModel> {
    step_times::gpu(cell).filter(|gpu| gpu.is_gpu())
}

fn amount(cell: &str) -> Option<UsdMicros> {
    let amount: UsdMicros = cell.parse().ok()?;
    (UsdMicros(1)..=GPU_HOUR_MAX)
        .contains(&amount)
        .then_some(amount)
}

fn day(cell: &str) -> Option<Day> {
    cell.parse().ok()
}

/// Of each GPU and day the median of what was offered, from that day on.
fn medians(offers: &[Offer], file: &PriceFile<'_>) -> Vec<Price> {
    let mut by_day: BTreeMap<(GpuModel, Day), Vec<u64>> = BTreeMap::new();
    for offer in offers {
        let key = (offer.gpu, offer.day);
        by_day.entry(key).or_default().push(offer.price.0);
    }
    let kind = if file.spot {
        "spot price"
    } else {
        "list price"
    };
    let line = |((gpu, day), mut prices): ((GpuModel, Day), Vec<u64>)| {
        prices.sort_unstable();
        let count = prices.len();
        let (low, high) = (prices[(count - 1) / 2], prices[count / 2]);
        // Rounded half up to a millionth of a dollar.
        let middle = UsdMicros((low + high).div_ceil(2));
        let many = if count == 1 { "" } else { "s" };
        let of = match file.provider {
            "" => String::new(),
            provider => format!(" of {provider}"),
        };
        let source = format!("{}: median of {count} {kind}{many}{of}", file.source);
        Price::new(gpu, middle, day, None, source)
    };
    by_day.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERS: &str = "source,date,provider,gpu,gpus_in_config,on_demand_usd_per_gpu_hr,spot_usd_per_gpu_hr,note\n\
        a,2026-10-01,one,H100 80GB SXM,8,3.10,1.2,\n\
        a,2026-10-01,two,H100 80GB SXM,,2.9,,\"a, b\"\n\
        a,2026-10-01,two,RTX 4090 24GB,,0.340001,,\n\
        a,2026-08-23,two,H100 80GB SXM,,4,,\n\
        a,2026-08,two,H100 80GB SXM,,4,,\n\
        a,2026-10-01,two,H900,,4,,\n\
        a,2026-10-01,two,L4 24GB,,,0.2,\n\
        a,2026-10-01,two,L4 24GB,,-1,0.2,\n\
        a,2026-10-01,two,L4 24GB,,0.12345678,0.2,\n";

    fn told(csv: &str, provider: &str, spot: bool) -> (Vec<String>, Vec<(u64, &'static str)>) {
        let file = PriceFile {
            source: "feed",
            csv: csv.as_bytes(),
            provider,
            spot,
        };
        let read = read(&file).expect("a header");
        let prices = read.rows.iter().map(|price| {
            let (gpu, micros) = (price.gpu.slug(), price.usd_per_gpu_hour.0);
            format!("{gpu} {micros} {} {}", price.valid_from, price.source)
        });
        let refused = read.refused.refusals.iter();
        let refused = refused
            .map(|refusal| (refusal.line, refusal.reason))
            .collect();
        (prices.collect(), refused)
    }

    #[test]
    fn of_what_is_offered_the_median_counts_and_bad_lines_are_named() {
        let (prices, refused) = told(OFFERS, "", false);
        assert_eq!(
            prices,
            [
                "rtx4090 340001 2026-10-01 feed: median of 1 list price",
                "h100 4000000 2026-08-23 feed: median of 1 list price",
                "h100 3000000 2026-10-01 feed: median of 2 list prices",
            ]
        );
        assert_eq!(
            refused,
            [
                (6, NO_DAY),
                (7, "the hardware is not in the registry"),
                (8, "there is no price on demand"),
                (9, NO_AMOUNT),
                (10, NO_AMOUNT),
            ]
        );
    }

    #[test]
    fn one_provider_or_spot_prices_may_be_taken_alone() {
        let (prices, refused) = told(OFFERS, "one", false);
        assert_eq!(
            prices,
            ["h100 3100000 2026-10-01 feed: median of 1 list price of one"]
        );
        assert!(
            refused
                .iter()
                .all(|(_, reason)| *reason == "another provider")
        );
        let (prices, _) = told(OFFERS, "", true);
        assert_eq!(
            prices,
            [
                "l4 200000 2026-10-01 feed: median of 3 spot prices",
                "h100 1200000 2026-10-01 feed: median of 1 spot price",
            ]
        );
    }

    #[test]
    fn a_book_s_own_lines_are_read_as_they_are() {
        let csv = "hardware,usd_per_gpu_hour,valid_from,valid_until,source\nh100,2.5,2026-01-01,2026-06-30,contract\n\
                   h100,2.5,2026-01-02,2026-01-01,contract\nh100,0,2026-01-01,,contract\nh100,1,2026-01-01,,\n";
        let (prices, refused) = told(csv, "", false);
        assert_eq!(prices, ["h100 2500000 2026-01-01 contract"]);
        assert_eq!(
            refused,
            [
                (3, "it ends before it begins"),
                (4, NO_AMOUNT),
                (5, "nobody says so: the source is empty"),
            ]
        );
        let file = PriceFile {
            source: "feed",
            csv: b"gpu,price\nh100,1\n",
            provider: "",
            spot: false,
        };
        let error = read(&file).expect_err("another header").to_string();
        assert!(
            error.contains(PRICES_HEADER) && error.contains(OFFERS_HEADER),
            "{error}"
        );
    }
}
