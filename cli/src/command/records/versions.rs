//! `stepcast records versions`: what came into the tables when.

use serde_json::{Value, json};
use stepcast_proto::v1::{ListVersionsRequest, ListVersionsResponse, TableVersion};

use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{count, counted};
use crate::output::table::{Side, Table};
use crate::output::{json, time};

/// Asks.
pub(super) async fn ask(client: &Client, newest: u32) -> Result<ListVersionsResponse, Failure> {
    let answer = client.ask(|| {
        let mut service = client.records();
        async move {
            service
                .list_versions(timed(ListVersionsRequest { newest }))
                .await
        }
    });
    answer.await
}

/// Shows the answer.
pub(super) fn show(context: &Context, answer: &ListVersionsResponse) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        let tables = answer.tables.iter().map(|table| {
            json!({
                "name": table.name,
                "versions": table.versions.iter().map(as_json).collect::<Vec<_>>(),
            })
        });
        return output.json(&json!({"tables": tables.collect::<Vec<_>>()}));
    }
    let mut table = Table::new(&[
        ("TABLE", Side::Left),
        ("VERSION", Side::Right),
        ("WRITTEN", Side::Left),
        ("ROWS", Side::Right),
        ("WHAT", Side::Left),
    ]);
    for of in &answer.tables {
        for version in &of.versions {
            table.row(vec![
                of.name.clone().into(),
                version.version.to_string().into(),
                time::day_and_second(version.commit_time.as_ref()).into(),
                rows(version).into(),
                what(version).into(),
            ]);
        }
    }
    if table.is_empty() {
        output.say("There is nothing in the tables yet.");
        return Ok(());
    }
    output.table(&table)
}

fn as_json(version: &TableVersion) -> Value {
    json!({
        "version": version.version,
        "commit_time": json::moment(version.commit_time.as_ref()),
        "rows": version.rows,
        "what": version.what,
        "contributions": version.contributions,
        "source": version.source,
        "is_taken_back": version.is_taken_back,
        "took_back": version.took_back.as_ref().map(|range| json!({"after": range.after, "to": range.to})),
        "rows_taken_back": version.rows_taken_back,
    })
}

/// How many rows came or went.
fn rows(version: &TableVersion) -> String {
    match (version.rows, version.rows_taken_back) {
        (0, 0) => String::new(),
        (0, gone) => format!("-{}", count(gone)),
        (came, _) => format!("+{}", count(came)),
    }
}

/// What a version did, in words.
fn what(version: &TableVersion) -> String {
    let mut what = match version.what.as_str() {
        "created" => "the table was made".to_owned(),
        "contributed" => counted(version.contributions, "contribution", "contributions"),
        "imported" => format!("import of {}", version.source),
        "moved" => "tidied up".to_owned(),
        "taken-back" => version
            .took_back
            .as_ref()
            .map_or_else(String::new, |range| {
                format!("took back {} to {}", range.after + 1, range.to)
            }),
        _ => "by another program".to_owned(),
    };
    if version.is_taken_back {
        what.push_str(", taken back");
    }
    what
}
