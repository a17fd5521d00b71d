//! What came into the benchmark tables when, and taking back what should not have.

use std::time::Duration;

use prost_types::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http, SERVED_WITHIN};
use super::route::{BODY_WITHIN, Nothing, Route};
use super::shapes::time;
use crate::access::Permission as P;
use crate::service::Records;
use crate::status::bad_field;

/// What a leader may take to find the rows and to write that they are gone, where it is passed on.
const ANSWER_WITHIN: Duration = Duration::from_secs(80);
const _: () = assert!(BODY_WITHIN.as_secs() + ANSWER_WITHIN.as_secs() < SERVED_WITHIN.as_secs());

pub(super) fn routes(api: &mut Api) {
    let versions = "What came into the benchmark tables when, the newest first.";
    let versions = Route::get("/v1/records/versions", P::ImportRecords, versions);
    api.route(versions, self::versions);
    let take_back = "Takes rows back that came into the benchmark tables in a span of time, or with some versions.";
    let take_back = Route::post("/v1/records/take-back", P::ImportRecords, take_back);
    api.route(take_back.answer_within(ANSWER_WITHIN), self::take_back);
}

/// How many of them.
#[derive(Debug, Deserialize, JsonSchema)]
struct Newest {
    /// So many of each table, 1,000 at most; 20 unless given.
    newest: Option<u32>,
}

/// The versions of the tables.
#[derive(Debug, Serialize, JsonSchema)]
struct Versions {
    tables: Vec<VersionsOf>,
}

/// The newest versions of one table.
#[derive(Debug, Serialize, JsonSchema)]
struct VersionsOf {
    /// Its name in SQL.
    name: String,
    /// The newest first.
    versions: Vec<VersionShown>,
}

/// One version of a table.
#[derive(Debug, Serialize, JsonSchema)]
struct VersionShown {
    version: u64,
    /// When it was written, by the store's clock.
    committed_at: Option<String>,
    /// Rows that it brought.
    rows: u64,
    /// What it did: `created`, `contributed`, `imported`, `moved`, `taken-back` or `other`.
    what: String,
    /// Contributions of workers, or lines of an import, that it stored.
    contributions: u64,
    /// The source of an import; else empty.
    source: String,
    /// Whether the rows that it brought were taken back since.
    is_taken_back: bool,
    /// With `taken-back`: what came with these versions was, of which so many rows went.
    took_back: Option<TookBack>,
}

/// What a version took back.
#[derive(Debug, Serialize, JsonSchema)]
struct TookBack {
    /// What came with these versions.
    range: Range,
    rows: u64,
}

/// Versions of a table after one of them, up to another one.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Range {
    /// The table's name in SQL.
    table: String,
    /// What came with this version, and before it, is left alone.
    after: u64,
    /// The last one.
    to: u64,
}

/// What to take back: ranges of versions, or a span of time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct What {
    /// Versions, as they are shown or as an answer with `dry_run` names them: at most one range of each table.
    #[serde(default)]
    ranges: Vec<Range>,
    /// Without ranges: what was written from this moment on, by the store's clock (RFC 3339).
    #[serde(default)]
    since: Option<String>,
    /// And until this one; until now unless given.
    #[serde(default)]
    until: Option<String>,
    /// Says only what would be taken back.
    #[serde(default)]
    dry_run: bool,
}

/// What was taken back, or would be.
#[derive(Debug, Serialize, JsonSchema)]
struct All {
    /// A table into which nothing came in the span of time is not among them.
    tables: Vec<TakenBack>,
}

/// What was taken back of one table, or would be.
#[derive(Debug, Serialize, JsonSchema)]
struct TakenBack {
    /// What came with these versions.
    range: Range,
    rows: u64,
    /// Rows that came with these versions and were taken back before.
    rows_before: u64,
    /// Rows that came with these versions and that another program has removed.
    rows_missing: u64,
    /// What the rows are of, most frequent first, at most 50.
    of: Vec<Of>,
}

/// Rows of one recipe on one hardware.
#[derive(Debug, Serialize, JsonSchema)]
struct Of {
    recipe: String,
    hardware: String,
    rows: u64,
}

async fn versions(http: Http, asked: Asked<Newest>, _: Nothing) -> Result<Versions, Status> {
    let newest = asked.query.newest.unwrap_or(0);
    let request = v1::ListVersionsRequest { newest };
    let listed = Records(http.context).versions(request).await?;
    let version = |version: v1::TableVersion| VersionShown {
        version: version.version,
        committed_at: time(version.commit_time.as_ref()),
        rows: version.rows,
        what: version.what,
        contributions: version.contributions,
        source: version.source,
        is_taken_back: version.is_taken_back,
        took_back: version.took_back.map(|took| TookBack {
            range: range(took),
            rows: version.rows_taken_back,
        }),
    };
    let table = |table: v1::TableVersions| VersionsOf {
        name: table.name,
        versions: table.versions.into_iter().map(version).collect(),
    };
    Ok(Versions {
        tables: listed.tables.into_iter().map(table).collect(),
    })
}

async fn take_back(http: Http, asked: Asked<Nothing>, what: What) -> Result<All, Status> {
    let range_of = |range: Range| v1::VersionRange {
        table: range.table,
        after: range.after,
        to: range.to,
    };
    let request = v1::TakeBackRowsRequest {
        ranges: what.ranges.into_iter().map(range_of).collect(),
        since: moment("since", what.since)?,
        until: moment("until", what.until)?,
        dry_run: what.dry_run,
    };
    let actor = asked.caller.actor();
    let taken = Records(http.context).take_back(actor, request).await?;
    let of = |of: v1::TakenBackOf| Of {
        recipe: of.recipe,
        hardware: of.hardware,
        rows: of.rows,
    };
    let table = |taken: v1::TakenBack| TakenBack {
        range: range(taken.range.unwrap_or_default()),
        rows: taken.rows,
        rows_before: taken.rows_before,
        rows_missing: taken.rows_missing,
        of: taken.of.into_iter().map(of).collect(),
    };
    Ok(All {
        tables: taken.tables.into_iter().map(table).collect(),
    })
}

fn range(range: v1::VersionRange) -> Range {
    Range {
        table: range.table,
        after: range.after,
        to: range.to,
    }
}

fn moment(field: &str, text: Option<String>) -> Result<Option<Timestamp>, Status> {
    let read = |text: String| {
        let what = "write a time as 2026-10-01T08:00:00Z";
        text.parse().map_err(|_| bad_field(field, what))
    };
    text.map(read).transpose()
}
