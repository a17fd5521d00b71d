//! The benchmark tables: asked in SQL, fed from measured figures.

mod take_back;

use std::collections::BTreeMap;

use futures::stream::{self, BoxStream};
use stepcast_estimator::Day;
use stepcast_estimator::arrow::datatypes::SchemaRef;
use stepcast_estimator::arrow::ipc::writer::StreamWriter;
use stepcast_estimator::import::{Mapping, Refusal as RefusedLine};
use stepcast_estimator::sql::{self, Answer};
use stepcast_estimator::{Index, Kind};
use stepcast_proto::v1;
use stepcast_proto::v1::run_query_response::Part;
use stepcast_records::{Cell, Key};
use stepcast_scheduler::accounts::{Action, Actor};
use tonic::Status;

use crate::context::Context;
use crate::reader::{Reader, Reading};
use crate::{convert, status};

/// Bytes of one piece of an Arrow stream: well under what any client takes in one message.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes of an imported file.
pub(crate) const CSV_BYTES_MAX: usize = 16 << 20;

/// Keys that were set aside are listed up to so many: a person looks at a few, and SQL has them all.
const ASIDE_MAX: usize = 20;

/// The service.
#[derive(Clone)]
pub(crate) struct Records(pub(crate) Context);

/// The answer to a question in pieces: an Arrow stream, and a summary behind it.
pub(crate) type Parts = BoxStream<'static, Result<v1::RunQueryResponse, Status>>;

impl Records {
    /// The answer to a question in SQL.
    pub(crate) async fn query(
        &self,
        reader: &Reader,
        sql: &str,
        max_rows: u32,
    ) -> Result<Answer, Status> {
        let _turn = reader.turn().await?;
        let answer = async {
            let answer = self.0.estimator.sql(sql).await;
            answer.map_err(|error| status::records(&error))
        };
        let answer = self.0.unless_closed(answer).await?;
        Ok(cut(answer, max_rows))
    }

    /// The columns that it would have.
    pub(crate) async fn columns(&self, reader: &Reader, sql: &str) -> Result<SchemaRef, Status> {
        let _turn = reader.turn().await?;
        let columns = self.0.estimator.sql_columns(sql).await;
        columns.map_err(|error| status::records(&error))
    }

    /// The answer as an Arrow stream.
    pub(crate) async fn run_query(
        &self,
        reading: Reading,
        request: v1::RunQueryRequest,
    ) -> Result<Parts, Status> {
        let reader = reading.reader();
        let answer = self.query(reader, &request.sql, request.max_rows).await?;
        let mut parts: Vec<Part> = arrow(&answer)?;
        parts.push(Part::Summary(summary(&answer)));
        let parts = parts
            .into_iter()
            .map(|part| Ok(v1::RunQueryResponse { part: Some(part) }));
        Ok(reading.of(Box::pin(stream::iter(parts)), |_| Ok(())))
    }

    /// The tables and their columns.
    pub(crate) fn tables() -> v1::ListTablesResponse {
        let column = |column: sql::ColumnDoc| v1::Column {
            name: column.name.to_owned(),
            r#type: column.sql_type.to_owned(),
            doc: column.description.to_owned(),
        };
        let table = |table: sql::TableDoc| v1::Table {
            name: table.name.to_owned(),
            doc: table.description.to_owned(),
            columns: table.columns.into_iter().map(column).collect(),
        };
        v1::ListTablesResponse {
            tables: sql::tables().into_iter().map(table).collect(),
        }
    }

    /// Takes measured figures in, in somebody's name.
    pub(crate) async fn import(
        &self,
        actor: Option<Actor>,
        request: v1::ImportRecordsRequest,
    ) -> Result<v1::ImportRecordsResponse, Status> {
        if request.csv.len() > CSV_BYTES_MAX {
            return Err(status::bad_field(
                "csv",
                "a file has at most 16 MiB: send it in parts",
            ));
        }
        let mapping = match request.mapping.as_str() {
            "" => Mapping::Records,
            name => Mapping::parse(name)
                .ok_or_else(|| status::bad_field("mapping", unknown_mapping()))?,
        };
        self.0.note(actor, Action::ChangeRules, "records").await?;
        let imported = self
            .0
            .estimator
            .import(&request.source, mapping, &request.csv)
            .await;
        let imported = imported.map_err(|error| status::records(&error))?;
        Ok(v1::ImportRecordsResponse {
            lines: imported.lines as u64,
            rows_stored: imported.stored as u64,
            rows_known: imported.known as u64,
            refused: refused(&imported.reasons, &imported.refusals),
        })
    }

    /// Where the rows come from.
    pub(crate) async fn sources(&self) -> Result<v1::ListSourcesResponse, Status> {
        let sources = self
            .0
            .estimator
            .sources()
            .await
            .map_err(|error| status::records(&error))?;
        let stats = self.0.estimator.stats();
        let source = |source: stepcast_estimator::import::Source| {
            let day: Option<Day> = source.last_day.parse().ok();
            let import_ms = day.and_then(|day| u64::try_from(day.start_ms()).ok());
            v1::Source {
                import_time: import_ms.map(convert::timestamp_ms),
                name: source.name,
                rows: source.rows as u64,
            }
        };
        Ok(v1::ListSourcesResponse {
            sources: sources.into_iter().map(source).collect(),
            training_rows: stats.training.rows,
            validation_rows: stats.validation.rows,
            cells: stats.cells as u64,
            location: self.0.estimator.location(),
        })
    }

    /// How the tables are.
    pub(crate) fn status(&self) -> v1::GetRecordsStatusResponse {
        let estimator = &self.0.estimator;
        let stats = estimator.stats();
        let table = |kind: Kind| {
            let table = stats.table(kind);
            v1::TableStatus {
                name: kind.name().to_owned(),
                version: table.version,
                rows: table.rows,
                objects: table.objects as u64,
                bytes: table.bytes,
                refused_rows: table.refused_rows,
                refused_objects: table.refused_objects,
                foreign_objects: table.foreign_objects,
                cells_aside: table.cells_aside,
                aside: aside(&estimator.index(), kind),
                read_only: table.read_only,
            }
        };
        let work = stats.work;
        v1::GetRecordsStatusResponse {
            tables: Kind::ALL.into_iter().map(table).collect(),
            location: estimator.location(),
            tidying: Some(v1::Tidying {
                done: work.done,
                failed: work.failed,
                objects_moved: work.files_moved,
                rows_moved: work.rows_moved,
                objects_deleted: work.deleted,
                last_duration: Some(convert::duration_ms(work.last_ms)),
            }),
            trouble: stats.trouble.unwrap_or_default(),
        }
    }
}

/// Some keys that were set aside, in their order.
fn aside(index: &Index, kind: Kind) -> Vec<v1::AsideCell> {
    let mut cells: Vec<_> = index.aside(kind).collect();
    cells.sort_unstable_by_key(|(key, _)| *key);
    let cell = |(key, cell): (Key, &Cell)| v1::AsideCell {
        key: in_words(&key),
        rows: cell.rows().into(),
        median_ms: cell.quantile(0.5).unwrap_or_default() as u64,
    };
    cells.into_iter().take(ASIDE_MAX).map(cell).collect()
}

/// A key as its columns are written.
fn in_words(key: &Key) -> String {
    let (recipe, hardware) = (key.recipe(), key.hardware());
    let megapixels = key.resolution().megapixels();
    let rest = match key {
        Key::Training(key) => format!(
            "batch {} x {}, {}, {}",
            key.batch_size, key.accumulation, key.precision, key.quantization
        ),
        Key::Validation(key) => format!(
            "{} inference steps, {}, {}",
            key.inference_steps, key.precision, key.quantization
        ),
    };
    format!("{recipe} on {hardware}, {megapixels:.1} MP, {rest}")
}

/// The answer with as many rows as were asked for.
fn cut(mut answer: Answer, max_rows: u32) -> Answer {
    let mut left = match max_rows {
        0 => usize::MAX,
        rows => rows as usize,
    };
    for batch in &mut answer.batches {
        if batch.num_rows() > left {
            *batch = batch.slice(0, left);
            answer.truncated = true;
        }
        left -= batch.num_rows();
    }
    answer
}

/// The rows as an Arrow IPC stream in pieces.
fn arrow(answer: &Answer) -> Result<Vec<Part>, Status> {
    let mut bytes = Vec::new();
    let written = StreamWriter::try_new(&mut bytes, &answer.schema).and_then(|mut writer| {
        answer
            .batches
            .iter()
            .try_for_each(|batch| writer.write(batch))?;
        writer.finish()
    });
    written.map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as an Arrow stream");
        status::internal("ARROW", "the answer cannot be written as an Arrow stream")
    })?;
    Ok(bytes
        .chunks(PIECE_BYTES)
        .map(|piece| Part::ArrowIpc(piece.to_vec()))
        .collect())
}

fn summary(answer: &Answer) -> v1::QuerySummary {
    v1::QuerySummary {
        rows: answer.rows() as u64,
        truncated: answer.truncated,
        elapsed: Some(convert::duration_ms(
            u64::try_from(answer.elapsed.as_millis()).unwrap_or(u64::MAX),
        )),
        objects_read: answer.objects_read as u64,
        objects_total: answer.objects as u64,
        bytes_read: answer.bytes_read,
    }
}

/// Lines by reason, the most frequent first, each with the first line it concerns.
fn refused(
    reasons: &BTreeMap<&'static str, usize>,
    lines: &[RefusedLine],
) -> Vec<v1::RefusedLines> {
    let mut refused: Vec<_> = reasons
        .iter()
        .map(|(reason, count)| v1::RefusedLines {
            reason: (*reason).to_owned(),
            count: *count as u64,
            first_line: lines
                .iter()
                .find(|line| line.reason == *reason)
                .map_or(0, |line| line.line),
        })
        .collect();
    refused.sort_by_key(|lines| std::cmp::Reverse(lines.count));
    refused
}

fn unknown_mapping() -> String {
    let names: Vec<&str> = Mapping::ALL.into_iter().map(Mapping::name).collect();
    format!(
        "there is no such mapping; there are {}",
        names.join(" and ")
    )
}
