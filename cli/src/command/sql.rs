//! `stepcast sql`: the benchmark records asked in SQL, one query at a time or at a prompt.

mod forms;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::ipc::reader::StreamReader;
use serde_json::{Value, json};
use stepcast_proto::v1::{
    ListTablesRequest, QuerySummary, RunQueryRequest, Table as Described, run_query_response::Part,
};
use tonic::Request;

use self::forms::{csv, json_rows, write_parquet};
pub(crate) use self::forms::{summary, table};
use crate::client::{Client, timed};
use crate::confirm::line;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::output::money::count;
use crate::output::style::Tone;
use crate::output::table::{Side, Table};

/// The largest answer that is held here; the server has its own, smaller, limit.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Asks the benchmark records in SQL; without a query it prompts.
///
/// Example: stepcast sql "SELECT hardware, avg(avg_step_ms) FROM training_steps GROUP BY hardware"
#[derive(Debug, Args)]
pub(crate) struct Sql {
    /// One SELECT, EXPLAIN, DESCRIBE or SHOW; `\d` lists tables, `\d TABLE` its columns. `-` reads it from stdin
    query: Option<String>,
    /// At most so many rows
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Answer as comma separated values
    #[arg(long, conflicts_with = "parquet")]
    csv: bool,
    /// Write the answer to a Parquet file
    #[arg(long, value_name = "FILE")]
    parquet: Option<PathBuf>,
}

impl Sql {
    /// Answers one query, or one after the other.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let query = match self.query.as_deref() {
            Some("-") => Some(stdin_text().await?),
            Some(query) => Some(query.to_owned()),
            None if !std::io::stdin().is_terminal() => Some(stdin_text().await?),
            None => None,
        };
        let client = context.connect().await?;
        match query {
            Some(query) => self.answer(context, &client, &query).await,
            None => self.prompt(context, &client).await,
        }
    }

    async fn prompt(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        context.output.say(
            "Ends each query with ; · \\d lists tables · \\d TABLE lists columns · \\q leaves",
        );
        let mut query = String::new();
        loop {
            let prompt = if query.is_empty() { "sql> " } else { "  -> " };
            let _ = write!(std::io::stderr(), "{prompt}");
            let Some(line) = stdin_line().await? else {
                return Ok(());
            };
            let line = line.trim_end();
            if query.is_empty() && matches!(line.trim(), "\\q" | "exit" | "quit") {
                return Ok(());
            }
            query.push_str(line);
            query.push('\n');
            let whole = query.trim().starts_with('\\') || query.trim_end().ends_with(';');
            if query.trim().is_empty() || !whole {
                if query.trim().is_empty() {
                    query.clear();
                }
                continue;
            }
            // A wrong query is told and forgotten; the next line is a new one.
            if let Err(failure) = self.answer(context, client, &query).await {
                context.output.failure(&failure);
                if failure.exit == Exit::Unreachable {
                    return Err(failure);
                }
            }
            query.clear();
        }
    }

    async fn answer(&self, context: &Context, client: &Client, query: &str) -> Result<(), Failure> {
        let query = query.trim().trim_end_matches(';').trim();
        if let Some(named) = query.strip_prefix("\\d") {
            return describe(context, client, named.trim()).await;
        }
        let answer = run_query(client, query, self.limit.unwrap_or(0)).await?;
        let output = &context.output;
        match &self.parquet {
            Some(path) => write_parquet(path, &answer)?,
            None if output.json => output.json(&json_rows(&answer)?)?,
            None if self.csv => output.data(&csv(&answer)?)?,
            None => output.table(&table(&answer)?)?,
        }
        output.say(summary(&answer.summary, self.limit));
        if let Some(path) = &self.parquet {
            output.say(format!("Written to {}.", path.display()));
        }
        Ok(())
    }
}

/// Rows, and what they took.
#[derive(Debug)]
pub(crate) struct Answer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    summary: QuerySummary,
}

/// Runs one query.
pub(crate) async fn run_query(
    client: &Client,
    sql: &str,
    max_rows: u32,
) -> Result<Answer, Failure> {
    let request = Request::new(RunQueryRequest {
        sql: sql.to_owned(),
        max_rows,
    });
    let stream = client
        .records()
        .run_query(request)
        .await
        .map_err(|status| client.failure(&status))?;
    let mut stream = stream.into_inner();
    let mut arrow = Vec::new();
    let mut summary = QuerySummary::default();
    while let Some(message) = stream
        .message()
        .await
        .map_err(|status| client.failure(&status))?
    {
        match message.part {
            Some(Part::ArrowIpc(piece)) if arrow.len() + piece.len() > ANSWER_BYTES_MAX => {
                return Err(Failure::refused("the answer is too large")
                    .hint("ask for fewer rows with --limit or a WHERE"));
            }
            Some(Part::ArrowIpc(piece)) => arrow.extend_from_slice(&piece),
            Some(Part::Summary(part)) => summary = part,
            None => {}
        }
    }
    if arrow.is_empty() {
        return Ok(Answer {
            schema: Schema::empty().into(),
            batches: Vec::new(),
            summary,
        });
    }
    let unreadable = |error: datafusion::arrow::error::ArrowError| {
        Failure::refused("the answer cannot be read").detail(error.to_string())
    };
    let reader = StreamReader::try_new(arrow.as_slice(), None).map_err(unreadable)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    Ok(Answer {
        schema,
        batches,
        summary,
    })
}

async fn describe(context: &Context, client: &Client, named: &str) -> Result<(), Failure> {
    let answer = client.ask(|| {
        let mut service = client.records();
        async move { service.list_tables(timed(ListTablesRequest {})).await }
    });
    let mut tables = answer.await?.tables;
    let output = &context.output;
    if !named.is_empty() {
        tables.retain(|table| table.name == named);
        if tables.is_empty() {
            let failure = Failure::new(Exit::NotFound, format!("there is no table {named}"));
            return Err(failure.hint("\\d lists them"));
        }
    }
    if output.json {
        return output.json(&tables_json(&tables));
    }
    if named.is_empty() {
        let mut table = Table::new(&[
            ("TABLE", Side::Left),
            ("COLUMNS", Side::Right),
            ("WHAT A ROW IS", Side::Left),
        ]);
        for described in &tables {
            table.row(vec![
                described.name.clone().into(),
                count(described.columns.len() as u64).into(),
                described.doc.clone().into(),
            ]);
        }
        output.table(&table)?;
        output.next("\\d TABLE lists its columns");
        return Ok(());
    }
    tables.iter().try_for_each(|table| columns(output, table))
}

fn columns(output: &Output, described: &Described) -> Result<(), Failure> {
    output.say(format!(
        "{}: {}",
        Tone::Strong.paint(&described.name),
        described.doc
    ));
    let mut table = Table::new(&[
        ("COLUMN", Side::Left),
        ("TYPE", Side::Left),
        ("MEANING", Side::Left),
    ]);
    for column in &described.columns {
        table.row(vec![
            column.name.clone().into(),
            column.r#type.clone().into(),
            column.doc.clone().into(),
        ]);
    }
    output.table(&table)
}

fn tables_json(tables: &[Described]) -> Value {
    let tables = tables.iter().map(|table| {
        let columns = table
            .columns
            .iter()
            .map(|column| json!({ "name": column.name, "type": column.r#type, "doc": column.doc }));
        json!({ "name": table.name, "doc": table.doc, "columns": columns.collect::<Vec<_>>() })
    });
    json!({ "tables": tables.collect::<Vec<_>>() })
}

/// On a thread of its own, so that Ctrl-C is heard.
async fn stdin_text() -> Result<String, Failure> {
    let wrong = |error| Failure::refused(format!("the query cannot be read: {error}"));
    let read = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    read.await
        .map_err(|error| Failure::refused(error.to_string()))?
        .map_err(wrong)
}

async fn stdin_line() -> Result<Option<String>, Failure> {
    let _ = std::io::stderr().flush();
    line("the query").await
}

#[cfg(test)]
mod tests;
