//! `stepcast records`: measured figures in, and where the records came from.

mod status;
mod take_back;
mod versions;

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use stepcast_proto::v1::{
    ImportRecordsRequest, ImportRecordsResponse, ListSourcesRequest, ListSourcesResponse,
};

use crate::client::{Client, IMPORT_DEADLINE, timed, timed_within};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::money::{count, counted};
use crate::output::style::{Mark, Tone};
use crate::output::table::{Side, Table};
use crate::output::{json, time};

/// The largest file that a server takes.
const CSV_BYTES_MAX: u64 = 16 << 20;

/// What can be done with records.
#[derive(Debug, Subcommand)]
pub(crate) enum Records {
    /// Adds measured figures; the same file again adds nothing
    Import {
        /// Comma separated values with a header
        file: PathBuf,
        /// Who measured them: lower-case letters, digits, dots, dashes, underscores
        #[arg(long, value_name = "NAME")]
        source: String,
        /// A documented mapping, for files with another header
        #[arg(long, value_name = "MAPPING")]
        mapping: Option<String>,
    },
    /// Lists what was imported, and how much there is
    Ls,
    /// Says how the tables are: what was left out and why, and what was tidied up
    Status,
    /// Lists the newest versions of the tables: when each was written, and what it brought
    Versions {
        /// So many of each table, at most 1000
        #[arg(long, value_name = "NUMBER", default_value_t = 20,
              value_parser = clap::value_parser!(u32).range(1..=1000))]
        newest: u32,
    },
    TakeBack(take_back::TakeBack),
}

impl Records {
    /// Does it.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Import {
                file,
                source,
                mapping,
            } => {
                let csv = read(&file)?;
                let client = context.connect().await?;
                let answer = import(
                    &client,
                    csv,
                    &source,
                    mapping.as_deref().unwrap_or_default(),
                )
                .await?;
                show_import(context, &answer, &source)
            }
            Self::Ls => {
                let client = context.connect().await?;
                show_sources(context, &sources(&client).await?)
            }
            Self::Status => {
                let client = context.connect().await?;
                status::show(context, &status::ask(&client).await?)
            }
            Self::Versions { newest } => {
                let client = context.connect().await?;
                versions::show(context, &versions::ask(&client, newest).await?)
            }
            Self::TakeBack(what) => what.run(context).await,
        }
    }
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let wrong = |exit, why: String| {
        Failure::new(exit, format!("{} cannot be read", file.display())).detail(why)
    };
    let meta = std::fs::metadata(file).map_err(|error| wrong(Exit::NotFound, error.to_string()))?;
    if meta.len() > CSV_BYTES_MAX {
        return Err(wrong(
            Exit::Refused,
            format!(
                "{} bytes; at most {} MiB ({CSV_BYTES_MAX} bytes) are taken at once",
                meta.len(),
                CSV_BYTES_MAX >> 20
            ),
        ));
    }
    std::fs::read(file).map_err(|error| wrong(Exit::Refused, error.to_string()))
}

/// Adds figures. Asking again is safe: what is known is not stored twice.
pub(crate) async fn import(
    client: &Client,
    csv: Vec<u8>,
    source: &str,
    mapping: &str,
) -> Result<ImportRecordsResponse, Failure> {
    let message = ImportRecordsRequest {
        source: source.to_owned(),
        csv,
        mapping: mapping.to_owned(),
    };
    let answer = client.change_within(IMPORT_DEADLINE, || {
        let request = timed_within(IMPORT_DEADLINE, message.clone());
        let mut service = client.records();
        async move { service.import_records(request).await }
    });
    answer.await
}

fn show_import(
    context: &Context,
    answer: &ImportRecordsResponse,
    source: &str,
) -> Result<(), Failure> {
    let output = &context.output;
    let refused: u64 = answer.refused.iter().map(|lines| lines.count).sum();
    if output.json {
        return output.json(&json!({
            "source": source,
            "lines": answer.lines,
            "rows_stored": answer.rows_stored,
            "rows_known": answer.rows_known,
            "refused": answer.refused.iter().map(|lines| json!({
                "reason": lines.reason, "count": lines.count, "first_line": lines.first_line,
            })).collect::<Vec<_>>(),
        }));
    }
    let known = if answer.rows_known > 0 {
        format!(", {} known before", count(answer.rows_known))
    } else {
        String::new()
    };
    let stored = format!(
        "{} of {} stored as {source}{known}",
        count(answer.rows_stored),
        counted(answer.lines, "line", "lines")
    );
    output.marked(Mark::Done, Tone::Good, stored);
    if refused > 0 {
        output.marked(
            Mark::Look,
            Tone::Warn,
            format!("{} left out:", counted(refused, "line", "lines")),
        );
        let mut table = Table::new(&[
            ("LINES", Side::Right),
            ("FIRST", Side::Right),
            ("REASON", Side::Left),
        ]);
        for lines in &answer.refused {
            table.row(vec![
                count(lines.count).into(),
                count(lines.first_line).into(),
                lines.reason.clone().into(),
            ]);
        }
        output.table(&table)?;
    }
    output.next("stepcast estimate PATH");
    Ok(())
}

/// Where the records come from.
pub(crate) async fn sources(client: &Client) -> Result<ListSourcesResponse, Failure> {
    let answer = client.ask(|| {
        let mut service = client.records();
        async move { service.list_sources(timed(ListSourcesRequest {})).await }
    });
    answer.await
}

fn show_sources(context: &Context, answer: &ListSourcesResponse) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        return output.json(&json!({
            "sources": answer.sources.iter().map(|source| json!({
                "name": source.name, "import_time": json::moment(source.import_time.as_ref()), "rows": source.rows,
            })).collect::<Vec<_>>(),
            "training_rows": answer.training_rows,
            "validation_rows": answer.validation_rows,
            "cells": answer.cells,
            "location": answer.location,
        }));
    }
    let mut table = Table::new(&[
        ("SOURCE", Side::Left),
        ("ROWS", Side::Right),
        ("IMPORTED", Side::Left),
    ]);
    for source in &answer.sources {
        table.row(vec![
            source.name.clone().into(),
            count(source.rows).into(),
            time::utc_day(source.import_time.as_ref()).into(),
        ]);
    }
    if !table.is_empty() {
        output.table(&table)?;
    }
    output.say(format!(
        "{} and {} of {} in {}",
        counted(answer.training_rows, "training row", "training rows"),
        counted(answer.validation_rows, "validation row", "validation rows"),
        counted(answer.cells, "key", "keys"),
        answer.location
    ));
    output.next("stepcast sql    (then \\d lists the tables)");
    Ok(())
}
