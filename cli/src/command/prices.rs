//! `stepcast prices`: what an hour on each GPU costs, and prices added from a file.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use stepcast_proto::v1::{
    ImportPricesRequest, ImportPricesResponse, ListPricesRequest, ListPricesResponse, Price,
};

use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::money::{count, counted, per_hour};
use crate::output::style::{Mark, Tone};
use crate::output::table::{Side, Table};

/// The largest file that a server takes.
const CSV_BYTES_MAX: u64 = 1 << 20;
/// Lines that were left out are shown up to so many; `--json` has a thousand.
const REFUSED_SHOWN: usize = 20;
/// Refused lines that a server tells one by one.
const REFUSED_TOLD: usize = 1_000;

/// Lists what an hour on each GPU costs, or adds prices from a file.
///
/// What a worker asks for itself (`stepcast worker --price`) counts before all of it.
///
/// Example: stepcast prices import offers.csv --source feed
#[derive(Debug, Args)]
pub(crate) struct Prices {
    #[command(subcommand)]
    command: Option<Command>,
    /// On this day, such as 2026-10-01, and not today
    #[arg(long, value_name = "DAY")]
    on: Option<String>,
    /// Every line of the book, also those that do not hold or are overridden
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Adds prices while everything runs; the same file again adds nothing
    ///
    /// The file holds the lines of a price book (hardware,usd_per_gpu_hour,valid_from,valid_until,source), or a list of what
    /// providers offer (date,provider,gpu,on_demand_usd_per_gpu_hr,spot_usd_per_gpu_hr), of which the median of each GPU and
    /// day becomes a line that holds from that day on.
    Import {
        /// Comma separated values with a header
        file: PathBuf,
        /// What the file is called in the book: lower-case letters, digits, dots, dashes, underscores
        #[arg(long, value_name = "NAME")]
        source: String,
        /// Of a list of offers only those of this provider
        #[arg(long, value_name = "NAME", default_value = "")]
        provider: String,
        /// Of a list of offers the spot prices and not those on demand
        #[arg(long)]
        spot: bool,
    },
}

impl Prices {
    /// Does it.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            None => {
                let client = context.connect().await?;
                let message = ListPricesRequest {
                    date: self.on.unwrap_or_default(),
                    all: self.all,
                };
                let answer = list(&client, &message).await?;
                if answer.prices.is_empty() && !context.output.json {
                    let book = ListPricesRequest {
                        all: true,
                        ..message
                    };
                    say_none(context, &answer.date, &list(&client, &book).await?.prices);
                    return Ok(());
                }
                show(context, &answer, self.all)
            }
            Some(Command::Import {
                file,
                source,
                provider,
                spot,
            }) => {
                let message = ImportPricesRequest {
                    csv: read(&file)?,
                    source,
                    provider,
                    spot,
                };
                let client = context.connect().await?;
                show_import(context, &import(&client, &message).await?)
            }
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |exit, why: String| {
        Failure::new(exit, format!("{} cannot be read", file.display())).detail(why)
    };
    let meta = std::fs::metadata(file).map_err(|error| wrong(Exit::NotFound, error.to_string()))?;
    if meta.len() > CSV_BYTES_MAX {
        let why = format!(
            "{} KiB; a file of prices has at most 1 MiB",
            meta.len() >> 10
        );
        return Err(wrong(Exit::Refused, why));
    }
    std::fs::read(file).map_err(|error| wrong(Exit::Refused, error.to_string()))
}

async fn list(client: &Client, message: &ListPricesRequest) -> Result<ListPricesResponse, Failure> {
    let answer = client.ask(|| {
        let request = timed(message.clone());
        let mut service = client.estimates();
        async move { service.list_prices(request).await }
    });
    answer.await
}

/// Adds prices. Asking again is safe: what is there is not stored twice.
async fn import(
    client: &Client,
    message: &ImportPricesRequest,
) -> Result<ImportPricesResponse, Failure> {
    let answer = client.change(|| {
        let request = timed(message.clone());
        let mut service = client.estimates();
        async move { service.import_prices(request).await }
    });
    answer.await
}

/// Says why there is nothing to list: estimates for that day have no costs.
fn say_none(context: &Context, date: &str, book: &[Price]) {
    let output = &context.output;
    output.say(none(date, book));
    if book.is_empty() {
        output.next("stepcast prices import FILE --source NAME");
    } else {
        output.next("stepcast prices --all");
    }
}

fn none(date: &str, book: &[Price]) -> String {
    // A day is written so that the earlier one is the lesser text.
    match book.iter().map(|price| price.valid_from.as_str()).min() {
        None => "No prices: the book is empty.".to_owned(),
        Some(first) if date < first => {
            format!("No price holds on {date}: the first one holds from {first} on.")
        }
        Some(_) => format!("No price holds on {date} any more."),
    }
}

fn show(context: &Context, answer: &ListPricesResponse, all: bool) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        return output.json(&json!({
            "prices": answer.prices.iter().map(|price| json!({
                "hardware": price.hardware,
                "per_gpu_hour_usd_micros": price.per_gpu_hour_usd_micros,
                "valid_from": price.valid_from,
                "valid_until": Some(&price.valid_until).filter(|day| !day.is_empty()),
                "source": price.source,
                "counts": price.counts,
            })).collect::<Vec<_>>(),
            "date": answer.date,
            "version": answer.version,
        }));
    }
    let mut table = Table::new(&[
        ("GPU", Side::Left),
        ("AN HOUR", Side::Right),
        ("FROM", Side::Left),
        ("UNTIL", Side::Left),
        ("SOURCE", Side::Left),
    ]);
    for price in &answer.prices {
        let cells = vec![
            price.hardware_title.clone().into(),
            per_hour(price.per_gpu_hour_usd_micros).into(),
            price.valid_from.clone().into(),
            price.valid_until.clone().into(),
            price.source.clone().into(),
        ];
        table.marked("", cells, all && !price.counts);
    }
    output.table(&table)?;
    output.say(format!(
        "{} on {}.",
        counted(answer.prices.len() as u64, "price", "prices"),
        answer.date
    ));
    output.next("stepcast prices import FILE --source NAME");
    Ok(())
}

fn show_import(context: &Context, answer: &ImportPricesResponse) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        return output.json(&json!({
            "lines": answer.lines,
            "prices_stored": answer.prices_stored,
            "prices_known": answer.prices_known,
            "lines_refused": answer.lines_refused,
            "refused": answer.refused.iter().map(|refused| json!({
                "line": refused.line, "reason": refused.reason, "cell": refused.cell,
            })).collect::<Vec<_>>(),
            "version": answer.version,
        }));
    }
    let known = if answer.prices_known > 0 {
        format!(", {} known before", count(answer.prices_known))
    } else {
        String::new()
    };
    let stored = format!(
        "{} of {} stored{known}",
        counted(answer.prices_stored, "price", "prices"),
        counted(answer.lines, "line", "lines")
    );
    output.marked(Mark::Done, Tone::Good, stored);
    // Each refused line is told, up to so many; what is beyond that and told nowhere is what there was no room for.
    let told = answer.refused.len();
    let over = match told < REFUSED_TOLD {
        true => answer.lines_refused.saturating_sub(told as u64),
        false => 0,
    };
    if over > 0 {
        output.say(format!(
            "{} not kept: a later price of its source has followed each, and there is room for so many only",
            counted(over, "line", "lines")
        ));
    }
    let refused = answer.lines_refused - over;
    if refused > 0 {
        output.marked(
            Mark::Look,
            Tone::Warn,
            format!("{} left out:", counted(refused, "line", "lines")),
        );
        let mut table = Table::new(&[
            ("LINE", Side::Right),
            ("CELL", Side::Left),
            ("REASON", Side::Left),
        ]);
        for refused in answer.refused.iter().take(REFUSED_SHOWN) {
            table.row(vec![
                count(refused.line).into(),
                refused.cell.clone().into(),
                refused.reason.clone().into(),
            ]);
        }
        output.table(&table)?;
        let more = refused.saturating_sub(REFUSED_SHOWN as u64);
        if more > 0 {
            output.say(format!("and {}", counted(more, "line", "lines")));
        }
    }
    output.next("stepcast prices");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_without_prices_is_told_with_the_first_that_has_some() {
        let from = |day: &str| Price {
            valid_from: day.to_owned(),
            ..Price::default()
        };
        let book = [from("2026-10-01"), from("2026-02-03")];
        assert_eq!(
            none("1980-01-01", &book),
            "No price holds on 1980-01-01: the first one holds from 2026-02-03 on."
        );
        assert_eq!(
            none("2030-01-01", &book),
            "No price holds on 2030-01-01 any more."
        );
        assert_eq!(none("2030-01-01", &[]), "No prices: the book is empty.");
    }
}
