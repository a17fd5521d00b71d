//! `stepcast records take-back`: what should not have come into the tables goes out again.

use std::io::IsTerminal;

use clap::{ArgGroup, Args};
use prost_types::Timestamp;
use serde_json::json;
use stepcast_proto::v1::{TakeBackRowsRequest, TakeBackRowsResponse, TakenBack, VersionRange};

use crate::client::{Client, IMPORT_DEADLINE, timed_within};
use crate::confirm::confirmed;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{count, counted};
use crate::output::style::{Mark, Tone};
use crate::output::table::{Side, Table};
use crate::output::{Output, time};

/// Takes back the rows that came into the tables in a span of time, or with some versions
///
/// Shows first what would go, and asks. What came before and after stays, also where it is equal. What is taken back
/// cannot be sent or imported again. A worker that sends wrong times is to be shut out first (`stepcast workers token
/// revoke`), and `stepcast records versions` shows what came when.
///
/// Example: stepcast records take-back --since "2026-11-27 14:30"
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["since", "after"]))]
pub(crate) struct TakeBack {
    /// What was written from then on, by the store's clock: 14:30 for the last time that the clock said so here, 2026-11-27 14:30, a time in RFC 3339, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = time::parse_past)]
    since: Option<Timestamp>,
    /// And until then; until now unless given
    #[arg(long, value_name = "TIME", value_parser = time::parse_past, requires = "since")]
    until: Option<Timestamp>,
    /// The table, with --after and --to: training_steps or validation_prompts
    #[arg(long, value_name = "TABLE", requires = "after")]
    table: Option<String>,
    /// What came after this version of the table
    #[arg(long, value_name = "VERSION", requires_all = ["table", "to"])]
    after: Option<u64>,
    /// Up to this one
    #[arg(long, value_name = "VERSION", requires = "after")]
    to: Option<u64>,
    /// Show what would go and take nothing back
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl TakeBack {
    /// Does it.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let output = &context.output;
        let may_ask = std::io::stdin().is_terminal() && output.asks;
        if !(self.dry_run || self.yes || may_ask) {
            return Err(Failure::usage("nobody is there to be asked")
                .hint("look with --dry-run first, and say --yes"));
        }
        let client = context.connect().await?;
        let named = self.after.zip(self.to).zip(self.table);
        let ranges = named.map(|((after, to), table)| VersionRange { table, after, to });
        let planned = ask(
            &client,
            TakeBackRowsRequest {
                ranges: ranges.into_iter().collect(),
                since: self.since,
                until: self.until,
                dry_run: true,
            },
        );
        let planned = planned.await?;
        let rows: u64 = planned.tables.iter().map(|table| table.rows).sum();
        if self.dry_run || rows == 0 {
            return show(output, &planned, true);
        }
        if !self.yes {
            show(output, &planned, true)?;
            if !confirmed("Take back?", false).await? {
                output.say("Nothing was taken back.");
                return Ok(());
            }
        }
        // The versions that were shown, whatever has come since.
        let ranges = planned
            .tables
            .iter()
            .filter_map(|table| table.range.clone());
        let taken = ask(
            &client,
            TakeBackRowsRequest {
                ranges: ranges.collect(),
                ..TakeBackRowsRequest::default()
            },
        );
        show(output, &taken.await?, false)
    }
}

/// Takes back. Asking again is safe: what went is not taken twice.
async fn ask(
    client: &Client,
    message: TakeBackRowsRequest,
) -> Result<TakeBackRowsResponse, Failure> {
    let answer = client.change_within(IMPORT_DEADLINE, || {
        let request = timed_within(IMPORT_DEADLINE, message.clone());
        let mut service = client.records();
        async move { service.take_back_rows(request).await }
    });
    answer.await
}

fn show(output: &Output, answer: &TakeBackRowsResponse, is_dry: bool) -> Result<(), Failure> {
    if output.json {
        return output.json(&json!({
            "dry_run": is_dry,
            "tables": answer.tables.iter().map(as_json).collect::<Vec<_>>(),
        }));
    }
    if answer.tables.is_empty() {
        output.say("Nothing came into the tables then.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("TABLE", Side::Left),
        ("ROWS", Side::Right),
        ("RECIPE", Side::Left),
        ("HARDWARE", Side::Left),
    ]);
    for taken in &answer.tables {
        let name = taken.range.as_ref().map(|range| range.table.clone());
        let name = name.unwrap_or_default();
        for of in &taken.of {
            table.row(vec![
                name.clone().into(),
                count(of.rows).into(),
                of.recipe.clone().into(),
                of.hardware.clone().into(),
            ]);
        }
        let told: u64 = taken.of.iter().map(|of| of.rows).sum();
        if taken.rows > told {
            let more = count(taken.rows - told);
            table.row(vec![name.into(), more.into(), "others".into(), "".into()]);
        }
    }
    if !table.is_empty() {
        output.table(&table)?;
    }
    for taken in &answer.tables {
        tell(output, taken, is_dry);
    }
    Ok(())
}

fn as_json(taken: &TakenBack) -> serde_json::Value {
    let range = taken.range.clone().unwrap_or_default();
    json!({
        "name": range.table,
        "after": range.after,
        "to": range.to,
        "rows": taken.rows,
        "rows_before": taken.rows_before,
        "rows_missing": taken.rows_missing,
        "of": taken.of.iter().map(|of| json!({
            "recipe": of.recipe, "hardware": of.hardware, "rows": of.rows,
        })).collect::<Vec<_>>(),
    })
}

/// A line of a table.
fn tell(output: &Output, taken: &TakenBack, is_dry: bool) {
    let range = taken.range.clone().unwrap_or_default();
    let mut line = format!(
        "{}: {} of versions {} to {} {}",
        range.table,
        counted(taken.rows, "row", "rows"),
        range.after + 1,
        range.to,
        if is_dry { "would go" } else { "taken back" },
    );
    if taken.rows_before > 0 {
        line.push_str(&format!(
            "; {} taken back before",
            counted(taken.rows_before, "was", "were")
        ));
    }
    if taken.rows_missing > 0 {
        line.push_str(&format!(
            "; {} not there any more",
            counted(taken.rows_missing, "is", "are")
        ));
    }
    match is_dry {
        true => output.say(line),
        false => output.marked(Mark::Done, Tone::Good, line),
    }
}
