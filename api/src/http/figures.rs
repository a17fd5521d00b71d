//! Measured figures in the benchmark tables: taken in, and how much there is of which.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http, SERVED_WITHIN};
use super::route::{Nothing, Route};
use super::shapes::time;
use crate::access::Permission as P;
use crate::convert;
use crate::service::{RECORDS_BYTES_MAX, Records};

/// Bytes of an import: a file, and what its ends of lines have as text in JSON. A line of figures has more than eight bytes.
const BODY_BYTES: usize = RECORDS_BYTES_MAX + RECORDS_BYTES_MAX / 8;

/// They come within this time by a path of 2.5 Mbit/s.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// What a leader may take to store them where they are passed on: with the time that they take to come less than any call
/// has.
const ANSWER_WITHIN: Duration = Duration::from_secs(55);
const _: () = assert!(BODY_WITHIN.as_secs() + ANSWER_WITHIN.as_secs() < SERVED_WITHIN.as_secs());

pub(super) fn routes(api: &mut Api) {
    let list = "What was imported, and how much there is.";
    api.route(Route::get("/v1/records", P::ReadRecords, list), self::list);
    let import = "Adds measured figures. Importing the same file again adds nothing.";
    let import = Route::post("/v1/records", P::ImportRecords, import);
    let import = import.body_max(BODY_BYTES).body_within(BODY_WITHIN);
    api.route(import.answer_within(ANSWER_WITHIN), self::import);
    let status =
        "How the tables are as the asked node knows them: what was left out of them and why.";
    let status = Route::get("/v1/records/status", P::ReadRecords, status);
    api.route(status, self::status);
}

/// A file of figures.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Figures {
    /// Who measured them: 1 to 64 lower case letters, digits and any of `- _ .`.
    source: String,
    /// Comma separated values with a header, at most 16 MiB.
    csv: String,
    /// The documented mapping of a file with another header; empty for the plain form.
    #[serde(default)]
    mapping: String,
}

/// What became of the figures.
#[derive(Debug, Serialize, JsonSchema)]
struct FiguresImported {
    /// Lines of the file, without its header.
    lines: u64,
    /// Rows that were stored now.
    rows_stored: u64,
    /// Rows that had been stored before.
    rows_known: u64,
    /// Why lines were left out, most frequent first.
    refused: Vec<RefusedFigures>,
}

/// Lines that were left out for one reason.
#[derive(Debug, Serialize, JsonSchema)]
struct RefusedFigures {
    reason: String,
    count: u64,
    /// The first such line's number; the header is line 1.
    first_line: u64,
}

/// What was imported.
#[derive(Debug, Serialize, JsonSchema)]
struct Sources {
    items: Vec<SourceShown>,
    /// Training rows in all.
    training_rows: u64,
    /// Validation rows in all.
    validation_rows: u64,
    /// Different keys in all.
    cells: u64,
    /// Where the tables lie, without credentials.
    location: String,
}

/// One import.
#[derive(Debug, Serialize, JsonSchema)]
struct SourceShown {
    name: String,
    imported_at: Option<String>,
    /// Lines of its files that have rows.
    rows: u64,
}

/// How the tables are.
#[derive(Debug, Serialize, JsonSchema)]
struct RecordsShown {
    tables: Vec<TableState>,
    /// What the node that answers has tidied up since it began.
    tidying: Tidied,
    /// Where they lie, without credentials.
    location: String,
    /// Why the last look at the store failed; empty when it did not.
    trouble: String,
}

/// What was tidied up.
#[derive(Debug, Serialize, JsonSchema)]
struct Tidied {
    /// Times it was done.
    done: u64,
    /// Times it failed, to be tried again.
    failed: u64,
    /// Objects whose rows moved into larger ones.
    objects_moved: u64,
    /// Rows that moved.
    rows_moved: u64,
    /// Objects that nobody needs any more and that were deleted.
    objects_deleted: u64,
    /// How long the last time took, in milliseconds.
    last_ms: u64,
}

/// How one table is.
#[derive(Debug, Serialize, JsonSchema)]
struct TableState {
    /// Its name in SQL.
    name: String,
    /// The version that was read last; null while there is no table.
    version: Option<u64>,
    /// Rows that estimates and queries see.
    rows: u64,
    /// Objects that hold them.
    objects: u64,
    /// Their size.
    bytes: u64,
    /// Stored rows that are none: another vocabulary, or numbers out of bounds.
    refused_rows: u64,
    /// Objects that are missing or not readable.
    refused_objects: u64,
    /// Objects in the table's folder that are not of it.
    foreign_objects: u64,
    /// Keys whose times are implausible beside their neighbours', so that no estimate rests on them.
    cells_aside: u64,
    /// Some of these keys.
    aside: Vec<AsideKey>,
    /// Whether a newer version has changed the table, so that this one only reads it.
    read_only: bool,
}

/// A key whose times are implausible beside its neighbours'.
#[derive(Debug, Serialize, JsonSchema)]
struct AsideKey {
    /// The key, as its columns are written.
    key: String,
    /// Rows of it.
    rows: u64,
    /// Their median time in milliseconds.
    median_ms: u64,
}

async fn import(
    http: Http,
    asked: Asked<Nothing>,
    sent: Figures,
) -> Result<FiguresImported, Status> {
    let request = v1::ImportRecordsRequest {
        source: sent.source,
        csv: sent.csv.into_bytes(),
        mapping: sent.mapping,
    };
    let actor = asked.caller.actor();
    let done = Records(http.context).import(actor, request).await?;
    let refused = done.refused.into_iter().map(|lines| RefusedFigures {
        reason: lines.reason,
        count: lines.count,
        first_line: lines.first_line,
    });
    Ok(FiguresImported {
        lines: done.lines,
        rows_stored: done.rows_stored,
        rows_known: done.rows_known,
        refused: refused.collect(),
    })
}

async fn list(http: Http, _: Asked<Nothing>, _: Nothing) -> Result<Sources, Status> {
    let listed = Records(http.context).sources().await?;
    let source = |source: v1::Source| SourceShown {
        imported_at: time(source.import_time.as_ref()),
        name: source.name,
        rows: source.rows,
    };
    Ok(Sources {
        items: listed.sources.into_iter().map(source).collect(),
        training_rows: listed.training_rows,
        validation_rows: listed.validation_rows,
        cells: listed.cells,
        location: listed.location,
    })
}

async fn status(http: Http, _: Asked<Nothing>, _: Nothing) -> Result<RecordsShown, Status> {
    let status = Records(http.context).status();
    let tidying = status.tidying.unwrap_or_default();
    let last = tidying.last_duration.as_ref();
    let aside = |cell: v1::AsideCell| AsideKey {
        key: cell.key,
        rows: cell.rows,
        median_ms: cell.median_ms,
    };
    let table = |table: v1::TableStatus| TableState {
        name: table.name,
        version: table.version,
        rows: table.rows,
        objects: table.objects,
        bytes: table.bytes,
        refused_rows: table.refused_rows,
        refused_objects: table.refused_objects,
        foreign_objects: table.foreign_objects,
        cells_aside: table.cells_aside,
        aside: table.aside.into_iter().map(aside).collect(),
        read_only: table.read_only,
    };
    Ok(RecordsShown {
        tables: status.tables.into_iter().map(table).collect(),
        tidying: Tidied {
            done: tidying.done,
            failed: tidying.failed,
            objects_moved: tidying.objects_moved,
            rows_moved: tidying.rows_moved,
            objects_deleted: tidying.objects_deleted,
            last_ms: last.and_then(convert::duration_to_ms).unwrap_or(0),
        },
        location: status.location,
        trouble: status.trouble,
    })
}
