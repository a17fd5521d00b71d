//! What an hour on each GPU costs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::route::{Nothing, Route};
use crate::access::Permission;
use crate::service::{Estimates, PRICES_BYTES_MAX};

pub(super) fn routes(api: &mut Api) {
    let list = Route::get(
        "/v1/prices",
        Permission::Estimate,
        "What an hour on each GPU costs. What a worker asks for itself counts before all of it.",
    );
    api.route(list, self::list);
    let import = Route::post(
        "/v1/prices",
        Permission::RunCluster,
        "Adds prices to those that were imported before.",
    );
    // As text in JSON a file may be twice as long.
    api.route(import.body_max(2 * PRICES_BYTES_MAX), self::import);
}

/// Which prices.
#[derive(Debug, Deserialize, JsonSchema)]
struct Which {
    /// The day they hold on, such as `2026-11-01`; today unless given.
    date: Option<String>,
    /// Every line of the book, also those that do not hold on that day or are overridden.
    all: Option<bool>,
}

/// Prices by GPU.
#[derive(Debug, Serialize, JsonSchema)]
struct Prices {
    /// Of each GPU the line that counts comes before those that it overrides.
    items: Vec<PriceShown>,
    /// The day that was looked at.
    date: String,
    /// How often prices were imported.
    version: u64,
}

/// One line of the price book.
#[derive(Debug, Serialize, JsonSchema)]
struct PriceShown {
    /// GPU model, such as `h100`.
    hardware: String,
    /// One GPU of it for an hour, in millionths of a US dollar.
    per_gpu_hour_usd_micros: u64,
    /// The first day that it holds.
    valid_from: String,
    /// The last one; absent while it is open.
    valid_until: Option<String>,
    /// Who says so.
    source: String,
    /// Whether it is the one that counts on the day that was looked at.
    counts: bool,
}

/// A file of prices.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
    /// What it is called: 1 to 64 lower case letters, digits and any of `- _ .`.
    source: String,
    /// Comma separated values: the lines of a price book, or a list of offers, of which the median becomes a line.
    csv: String,
    /// Of a list of offers only those of this provider; all unless given.
    #[serde(default)]
    provider: String,
    /// Of a list of offers the spot prices and not those on demand.
    #[serde(default)]
    spot: bool,
}

/// What became of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Imported {
    /// Lines of the file.
    lines: u64,
    /// Lines of the book that came of them and are new.
    prices_stored: u64,
    /// The same that were there before.
    prices_known: u64,
    /// Lines that were left out.
    lines_refused: u64,
    /// The first of them, one by one.
    refused: Vec<RefusedShown>,
    /// How often prices were imported.
    version: u64,
}

/// A line that was left out.
#[derive(Debug, Serialize, JsonSchema)]
struct RefusedShown {
    /// Its number; the header is line 1.
    line: u64,
    /// Why.
    reason: String,
    /// The cell that is the reason, cut short.
    cell: String,
}

async fn list(http: Http, asked: Asked<Which>, _: Nothing) -> Result<Prices, Status> {
    let request = v1::ListPricesRequest {
        date: asked.query.date.unwrap_or_default(),
        all: asked.query.all.unwrap_or(false),
    };
    let listed = Estimates(http.context).prices(&request)?;
    let items = listed.prices.into_iter().map(|price| PriceShown {
        hardware: price.hardware,
        per_gpu_hour_usd_micros: price.per_gpu_hour_usd_micros,
        valid_from: price.valid_from,
        valid_until: Some(price.valid_until).filter(|day| !day.is_empty()),
        source: price.source,
        counts: price.counts,
    });
    Ok(Prices {
        items: items.collect(),
        date: listed.date,
        version: listed.version,
    })
}

async fn import(http: Http, asked: Asked<Nothing>, file: File) -> Result<Imported, Status> {
    let request = v1::ImportPricesRequest {
        source: file.source,
        csv: file.csv.into_bytes(),
        provider: file.provider,
        spot: file.spot,
    };
    let actor = asked.caller.actor();
    let done = Estimates(http.context)
        .import_prices(actor, request)
        .await?;
    let refused = done.refused.into_iter().map(|refused| RefusedShown {
        line: refused.line,
        reason: refused.reason,
        cell: refused.cell,
    });
    Ok(Imported {
        lines: done.lines,
        prices_stored: done.prices_stored,
        prices_known: done.prices_known,
        lines_refused: done.lines_refused,
        refused: refused.collect(),
        version: done.version,
    })
}
