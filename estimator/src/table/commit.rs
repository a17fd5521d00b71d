//! Storing contributions exactly once: rows, file and ids become visible in one log entry or not at all.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use deltalake::kernel::{Action, Add, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use stepcast_records::Row;
use xxhash_rust::xxh3::Xxh3;

use super::follow::{News, forget_old};
use super::ids::Ids;
use super::log::{State, Table};
use super::parquet;
use super::schema::Kind;
use crate::contribution::{Contribution, HexId, has_rows, merged};
use crate::error::Error;
use crate::price::Day;

/// Others may win the race for a version so often before a commit gives up; the caller keeps its contributions.
pub(super) const ATTEMPTS: u32 = 8;
/// The first wait after a lost race; it doubles each time.
pub(super) const BACKOFF: Duration = Duration::from_millis(20);
/// The name in a log entry's header under which it says by which call it was written: a text of chance.
const WRITER: &str = "writer";
/// After so many log entries a checkpoint is written, so that opening a table reads few objects.
pub(super) const CHECKPOINT_EVERY: u64 = 20;

/// What a commit to one table did.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Ids that were stored by this call.
    pub(crate) stored: HashSet<[u8; 16]>,
    /// Rows that were stored by this call.
    pub(crate) rows: usize,
}

impl Table {
    /// Stores the rows of this table that the contributions hold; `learn` hears of everything that is found in
    /// the log meanwhile, also of others' commits.
    ///
    /// The call may be repeated after any failure: an id that is in the log is skipped.
    pub(crate) async fn commit(
        &self,
        contributions: &[Contribution],
        mut learn: impl FnMut(News) + Send,
    ) -> Result<Outcome, Error> {
        if !has_rows(contributions, self.kind) {
            // Whatever is wrong with this table is then no trouble.
            return Ok(Outcome::default());
        }
        let mut state = self.lock().await;
        let mut last = Error::Contended {
            table: self.kind.name(),
        };
        let mut put = None;
        for attempt in 0..ATTEMPTS {
            learn(self.follow_in(&mut state).await?);
            self.writable(&state)?;
            self.put_again(&mut state, &mut learn).await?;
            let batch = Arc::new(Batch::new(self.kind, contributions, &state));
            if batch.ids.is_empty() {
                return Ok(Outcome::default());
            }
            let (before, writer) = (version(&state), unlike_any());
            let appended = self.append(&mut state, &batch, &writer, &mut put).await;
            let error = appended.err();
            // Whatever the answer was, or whether one came: the log alone says what happened.
            learn(self.follow_in(&mut state).await?);
            if batch.ids.iter().all(|id| state.ids.contains_key(id)) {
                let is_ours =
                    error.is_none() || self.wrote(&writer, before + 1..=version(&state)).await?;
                self.put_again(&mut state, &mut learn).await?;
                self.checkpoint(&mut state).await;
                return Ok(match is_ours {
                    true => Outcome {
                        rows: batch.rows.len(),
                        stored: batch.ids.clone(),
                    },
                    // Somebody else has stored the same meanwhile.
                    false => Outcome::default(),
                });
            }
            match error {
                Some(error @ Error::Contended { .. }) => last = error,
                Some(error) => return Err(error),
                None => return Err(self.foreign("a commit was answered but is not in its log")),
            }
            tokio::time::sleep(BACKOFF * 2u32.pow(attempt)).await;
        }
        Err(last)
    }

    /// Whether one of these log entries is of this writer.
    pub(super) async fn wrote(
        &self,
        writer: &str,
        entries: RangeInclusive<u64>,
    ) -> Result<bool, Error> {
        for entry in entries {
            let actions = self.actions(entry).await?.unwrap_or_default();
            let is_ours = actions.iter().any(|action| {
                let Action::CommitInfo(info) = action else {
                    return false;
                };
                info.info.get(WRITER).and_then(|value| value.as_str()) == Some(writer)
            });
            if is_ours {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts the file of the last commit again if the log names it and it was not there: somebody has deleted it before
    /// the log named it. Until it is there nobody hears that it is stored, also who asks once more.
    async fn put_again(
        &self,
        state: &mut State,
        learn: &mut (impl FnMut(News) + Send),
    ) -> Result<(), Error> {
        let Some(Put {
            file, batch, day, ..
        }) = state.last_put.clone()
        else {
            return Ok(());
        };
        if state.unread.contains(&file) {
            tracing::warn!(table = self.kind.name(), object = %file, "an object was deleted before the log named it; it is put again");
            self.put_file(batch.rows.clone(), &batch.ids, day).await?;
            // Others may have come back besides, whatever became of this one.
            learn(self.try_again(state).await?);
            if state.unread.contains(&file) {
                return Err(Error::unreachable("an object that was put is not there"));
            }
        }
        state.last_put = None;
        Ok(())
    }

    /// Writes the file, unless it was just `put`, and the log entry. An error does not say that nothing was written.
    async fn append(
        &self,
        state: &mut State,
        batch: &Arc<Batch>,
        writer: &str,
        put: &mut Option<Put>,
    ) -> Result<(), Error> {
        if state.delta.is_none() {
            self.create().await?;
            return Err(Error::Contended {
                table: self.kind.name(),
            });
        }
        let day = Day::today().start_ms();
        // After a lost race it was put a moment ago.
        let same = put.take();
        let same = same.filter(|put| put.day == day && *put.batch == **batch);
        let made = match same {
            Some(same) => same,
            None => {
                let add = self.put_file(batch.rows.clone(), &batch.ids, day).await?;
                let file = Path::from_url_path(&add.path);
                Put {
                    file: file.map_err(|_| self.foreign("a name of ours is none"))?,
                    add,
                    batch: Arc::clone(batch),
                    day,
                }
            }
        };
        let add = made.add.clone();
        state.last_put = Some(made.clone());
        *put = Some(made);
        let dated = day.max(newest_day(&state.ids));
        let transactions = batch
            .ids
            .iter()
            .map(|id| Transaction::new_with_last_update(HexId(id), 1, Some(dated)));
        let transactions = transactions.collect();
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: None,
            predicate: None,
        };
        self.write_entry(
            state,
            vec![Action::Add(add)],
            transactions,
            operation,
            HashMap::from([written_by(writer)]),
        )
        .await
    }

    /// Puts a file of rows beside the log. Until a log entry names it, nobody sees it.
    ///
    /// Its name follows from its bytes, the ids and the day, so a repeated call writes the same object again. The ids
    /// are in the name because two contributions may hold equal rows, and the day so that no name is ever used again
    /// that [`Table::clean`] may be about to delete.
    pub(super) async fn put_file(
        &self,
        rows: Vec<Row>,
        ids: &HashSet<[u8; 16]>,
        day: i64,
    ) -> Result<Add, Error> {
        let (add, path, bytes) = self.file_of(rows, ids, day).await?;
        let put = self.log.object_store(None).put(&path, bytes.into()).await;
        put.map_err(Error::unreachable)?;
        Ok(add)
    }

    /// A file of rows that is not put yet: what a log entry says of it, its place and its bytes.
    pub(super) async fn file_of(
        &self,
        rows: Vec<Row>,
        ids: &HashSet<[u8; 16]>,
        day: i64,
    ) -> Result<(Add, Path, Bytes), Error> {
        let count = rows.len();
        let (kind, mut rows) = (self.kind, rows);
        let written = tokio::task::spawn_blocking(move || parquet::write(kind, &mut rows)).await;
        let bytes = written
            .map_err(Error::unreachable)?
            .map_err(|error| self.foreign(format!("its rows cannot be written: {error}")))?;
        let path = file_path(name_hash(&bytes, ids, day));
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let add = Add {
            path: path.to_string(),
            size,
            modification_time: day,
            data_change: true,
            stats: Some(format!(r#"{{"numRecords":{count}}}"#)),
            ..Add::default()
        };
        Ok((add, path, bytes))
    }

    /// Now and then, writes the state of the log in one object. Failing costs speed only.
    async fn checkpoint(&self, state: &mut State) {
        forget_old(&mut state.ids);
        let Some(delta) = &state.delta else { return };
        let Some(version) = delta.version().filter(|v| v % CHECKPOINT_EVERY == 0) else {
            return;
        };
        let written = async {
            // A checkpoint forgets what was removed a week ago, and a clean-up would no longer know when that was.
            let entry = Path::from(format!("_delta_log/{version:020}.json"));
            if self.agreed(SystemTime::now(), &entry).await?.is_some() {
                self.write_checkpoint(delta).await?;
            }
            Ok::<_, Error>(())
        };
        match written.await {
            Ok(()) => self.load_whole(state).await,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    table = self.kind.name(),
                    error,
                    "a checkpoint could not be written"
                );
            }
        }
    }
}

/// The version that a table was followed to.
pub(super) fn version(state: &State) -> u64 {
    let version = state
        .delta
        .as_ref()
        .and_then(deltalake::DeltaTable::version);
    version.unwrap_or_default()
}

/// The day of the ids in a log that were written last. By a clock that is behind, an id would be old on the day on which it is
/// written, and forgotten while it may still come once more.
fn newest_day(ids: &Ids) -> i64 {
    let said = ids.values().filter(|day| **day != i64::MAX);
    said.copied().max().unwrap_or(i64::MIN)
}

/// A text that no other call has, and that says nothing of this one.
pub(super) fn unlike_any() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// What stands in a log entry's header of who wrote it.
pub(super) fn written_by(writer: &str) -> (String, serde_json::Value) {
    (WRITER.to_owned(), writer.into())
}

/// A file that was put and may not be named in the log yet.
#[derive(Clone)]
pub(super) struct Put {
    file: Path,
    add: Add,
    batch: Arc<Batch>,
    day: i64,
}

/// The part of the contributions that concerns one table and is not in its log.
#[derive(PartialEq)]
struct Batch {
    ids: HashSet<[u8; 16]>,
    rows: Vec<Row>,
}

impl Batch {
    fn new(kind: Kind, contributions: &[Contribution], state: &State) -> Self {
        let mut batch = Self {
            ids: HashSet::new(),
            rows: Vec::new(),
        };
        for contribution in contributions {
            let own = contribution
                .rows
                .iter()
                .filter(|row| Kind::of(&row.key) == kind);
            let rows = merged(own.copied().collect());
            let known = state.ids.contains_key(&contribution.id);
            if !rows.is_empty() && !known && batch.ids.insert(contribution.id) {
                batch.rows.extend(rows);
            }
        }
        batch
    }
}

fn name_hash(bytes: &Bytes, ids: &HashSet<[u8; 16]>, day: i64) -> u128 {
    let mut ids: Vec<&[u8; 16]> = ids.iter().collect();
    ids.sort_unstable();
    let mut hash = Xxh3::new();
    hash.update(bytes);
    ids.iter().for_each(|id| hash.update(*id));
    hash.update(&day.to_le_bytes());
    hash.digest128()
}

/// The place of a data file in the table's folder.
fn file_path(hash: u128) -> Path {
    Path::from(format!("{hash:032x}.parquet"))
}

/// Whether an object has the name of a data file of ours.
pub(super) fn is_ours(path: &Path) -> bool {
    let Some(hash) = path.as_ref().strip_suffix(".parquet") else {
        return false;
    };
    hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}
