//! `stepcast records status`: how the tables are, as the asked server knows them.

use serde_json::json;
use stepcast_proto::v1::{GetRecordsStatusRequest, GetRecordsStatusResponse, TableStatus};

use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{bytes, count, counted};
use crate::output::style::{Mark, Tone};
use crate::output::table::{Side, Table};
use crate::output::{Output, time};

/// Asks.
pub(super) async fn ask(client: &Client) -> Result<GetRecordsStatusResponse, Failure> {
    let answer = client.ask(|| {
        let mut service = client.records();
        async move {
            service
                .get_records_status(timed(GetRecordsStatusRequest {}))
                .await
        }
    });
    answer.await
}

/// Shows the answer.
pub(super) fn show(context: &Context, answer: &GetRecordsStatusResponse) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        return output.json(&as_json(answer));
    }
    let mut table = Table::new(&[
        ("TABLE", Side::Left),
        ("ROWS", Side::Right),
        ("VERSION", Side::Right),
        ("OBJECTS", Side::Right),
        ("SIZE", Side::Right),
        ("LEFT OUT", Side::Left),
    ]);
    for status in &answer.tables {
        let version = status.version.map_or_else(|| "-".to_owned(), count);
        table.row(vec![
            status.name.clone().into(),
            count(status.rows).into(),
            version.into(),
            count(status.objects).into(),
            bytes(status.bytes).into(),
            left_out(status).into(),
        ]);
    }
    output.table(&table)?;
    if !answer.trouble.is_empty() {
        output.marked(Mark::Look, Tone::Warn, &answer.trouble);
    }
    for status in &answer.tables {
        notes(output, status);
    }
    let tidying = answer.tidying.unwrap_or_default();
    let last = tidying.last_duration.as_ref().map(time::seconds);
    let mut done = format!("tidied up {}", counted(tidying.done, "time", "times"));
    if tidying.done > 0 {
        done.push_str(&format!(
            ", {:.1} s for the last; {} moved into larger ones, {} deleted",
            last.unwrap_or_default(),
            counted(tidying.objects_moved, "object", "objects"),
            count(tidying.objects_deleted)
        ));
    }
    if tidying.failed > 0 {
        done.push_str(&format!(
            "; {} failed, to be tried again",
            count(tidying.failed)
        ));
    }
    output.say(format!("In {}; {done}.", answer.location));
    Ok(())
}

/// What a table has that neither estimates nor queries see.
fn left_out(status: &TableStatus) -> String {
    let parts = [
        (status.refused_rows, "row", "rows"),
        (status.refused_objects, "object", "objects"),
        (status.cells_aside, "key", "keys"),
    ];
    let parts = parts.iter().filter(|(number, ..)| *number > 0);
    let parts: Vec<String> = parts.map(|(n, one, many)| counted(*n, one, many)).collect();
    if parts.is_empty() {
        return "nothing".to_owned();
    }
    parts.join(", ")
}

/// What each of these means, and what to do.
fn notes(output: &Output, status: &TableStatus) {
    let name = &status.name;
    let say = |number: u64, text: String| {
        if number > 0 {
            output.marked(Mark::Look, Tone::Warn, format!("{name}: {text}"));
        }
    };
    say(
        u64::from(status.read_only),
        "a newer version has added columns: it is read and not written; upgrade this server".into(),
    );
    say(
        status.refused_objects,
        format!(
            "{} missing or not readable; the server's log names them, and what is put back is read again",
            counted(status.refused_objects, "object is", "objects are")
        ),
    );
    say(
        status.refused_rows,
        format!(
            "{} of another vocabulary or out of bounds",
            counted(status.refused_rows, "row is", "rows are")
        ),
    );
    say(
        status.foreign_objects,
        format!(
            "{} in its folder, left alone",
            counted(
                status.foreign_objects,
                "object of others",
                "objects of others"
            )
        ),
    );
    say(
        status.cells_aside,
        format!(
            "{} implausible beside the others; no estimate rests on them:",
            counted(status.cells_aside, "key is", "keys are")
        ),
    );
    for cell in &status.aside {
        output.say(format!(
            "    {}: {} of {} ms",
            cell.key,
            counted(cell.rows, "row", "rows"),
            count(cell.median_ms)
        ));
    }
}

fn as_json(answer: &GetRecordsStatusResponse) -> serde_json::Value {
    let tables = answer.tables.iter().map(|status| {
        let aside = status
            .aside
            .iter()
            .map(|cell| json!({ "key": cell.key, "rows": cell.rows, "median_ms": cell.median_ms }));
        json!({
            "name": status.name, "version": status.version, "rows": status.rows,
            "objects": status.objects, "bytes": status.bytes, "refused_rows": status.refused_rows,
            "refused_objects": status.refused_objects, "foreign_objects": status.foreign_objects,
            "cells_aside": status.cells_aside, "aside": aside.collect::<Vec<_>>(),
            "read_only": status.read_only,
        })
    });
    let tidying = answer.tidying.unwrap_or_default();
    json!({
        "tables": tables.collect::<Vec<_>>(),
        "location": answer.location,
        "trouble": (!answer.trouble.is_empty()).then_some(&answer.trouble),
        "tidying": {
            "done": tidying.done, "failed": tidying.failed, "objects_moved": tidying.objects_moved,
            "rows_moved": tidying.rows_moved, "objects_deleted": tidying.objects_deleted,
            "last_s": tidying.last_duration.as_ref().map(time::seconds),
        },
    })
}
