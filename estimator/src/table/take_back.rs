//! Taking back what came into a table between two of its versions. A row names nobody, but the log says which rows came
//! when, and rows that are equal are the same for everybody: so many of them are taken out as had come.

mod trail;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::UNIX_EPOCH;

use deltalake::DeltaTable;
use deltalake::kernel::{Action, Add, LogicalFileView, Remove};
use deltalake::protocol::DeltaOperation;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use stepcast_records::{Hardware, Recipe, Row};
use xxhash_rust::xxh3::xxh3_128;

use self::trail::Trail;
use super::commit::{ATTEMPTS, BACKOFF, unlike_any, version, written_by};
use super::compact::Moved;
use super::entry::Header;
use super::follow::{News, READS_AT_ONCE, named, read_file};
use super::log::{State, Table};
use crate::error::Error;
use crate::price::Day;

/// Rows that a compaction has moved since are held in memory until they are found, at most so many: some hundred
/// megabytes. Those whose object still stands go with it and are not counted here.
const ROWS_MAX: usize = 2_000_000;

/// The name in a log entry's header under which it says what it took back.
const TAKEN: &str = "takenBack";

/// The versions of a table after one of them, up to another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// What came with this version, and before it, is left alone.
    pub after: u64,
    /// The last version.
    pub to: u64,
}

impl Span {
    /// Whether a version is one of them.
    #[must_use]
    pub const fn holds(&self, version: u64) -> bool {
        self.after < version && version <= self.to
    }
}

/// What was taken back of one table, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakenBack {
    /// What came with these versions.
    pub span: Span,
    /// How many rows.
    pub rows: u64,
    /// How many of these were measured with which recipe on which hardware.
    pub of: BTreeMap<(Recipe, Hardware), u64>,
    /// Rows that came with these versions and were taken back before.
    pub before: u64,
    /// Rows among those to take back that are not there any more: another program has removed them.
    pub missing: u64,
}

/// What a log entry says that it took back.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Taken {
    #[serde(flatten)]
    pub(super) span: Span,
    pub(super) rows: u64,
}

/// What a log entry took back.
pub(super) fn taken(actions: &[Action]) -> Option<Taken> {
    let info = actions.iter().find_map(|action| match action {
        Action::CommitInfo(info) => Some(info),
        _ => None,
    })?;
    serde_json::from_value(info.info.get(TAKEN)?.clone()).ok()
}

/// What is to be taken back, as the log was when it was made.
pub(super) struct Plan {
    trail: Trail,
    /// Objects that came with the span and still stand: they go as they are.
    whole: Vec<Path>,
    /// Rows that have moved since, each with how often it came.
    moved: HashMap<Row, u32>,
    told: TakenBack,
}

impl Table {
    /// Takes back the rows that came with a span of versions, in one log entry, and leaves everything else as it is: what
    /// came before and after, also rows that are equal, and the ids, so that what is taken back cannot be sent again. What
    /// of the span was taken back before is not taken once more, so the call may be repeated after any failure. With
    /// `is_dry` it only says what it would do. `learn` hears of what is found meanwhile.
    ///
    /// # Errors
    /// [`Error::Config`] when the span is not in the log any more, or too large; [`Error::Damaged`] when rows of it lie in
    /// an object that cannot be read; and as [`Table::commit`].
    pub(crate) async fn take_back(
        &self,
        span: Span,
        is_dry: bool,
        mut learn: impl FnMut(News) + Send,
    ) -> Result<TakenBack, Error> {
        let writer = unlike_any();
        for attempt in 0..ATTEMPTS {
            // Read without the lock, so that commits of this process need not wait for it.
            let delta = self.newest(&mut learn).await?;
            let mut plan = self.plan(span, &delta).await?;
            if is_dry || plan.told.rows == 0 {
                return Ok(plan.told);
            }
            let mut state = self.lock().await;
            learn(self.follow_in(&mut state).await?);
            self.put_moved_again(&mut state).await?;
            state.last_moved.clear();
            self.writable(&state)?;
            if !self.still_holds(&mut plan, &state).await? {
                continue;
            }
            let before = version(&state);
            let taken = self.take(&mut state, &plan, &writer).await;
            // Whatever the answer was, or whether one came: the log alone says what happened.
            learn(self.follow_in(&mut state).await?);
            self.put_moved_again(&mut state).await?;
            let (missing, error) = match taken {
                Ok(missing) => (missing, None),
                Err(error) => (0, Some(error)),
            };
            if error.is_none() || self.wrote(&writer, before + 1..=version(&state)).await? {
                plan.told.rows -= missing;
                plan.told.missing = missing;
                return Ok(plan.told);
            }
            match error {
                None | Some(Error::Contended { .. }) => {}
                Some(error) => return Err(error),
            }
            drop(state);
            tokio::time::sleep(BACKOFF * 2u32.pow(attempt)).await;
        }
        Err(self.contended())
    }

    /// Whether anything came with a span of versions that was not taken back since. `learn` hears of what is found meanwhile.
    ///
    /// # Errors
    /// [`Error::Config`] when the span is not in the log, or not any more.
    pub(crate) async fn has_left(
        &self,
        span: Span,
        mut learn: impl FnMut(News) + Send,
    ) -> Result<bool, Error> {
        let delta = self.newest(&mut learn).await?;
        let newest = delta.version().unwrap_or_default();
        let trail = self.trail(span, newest).await?;
        Ok(trail.left().next().is_some())
    }

    /// The table as it is now.
    async fn newest(&self, learn: &mut (impl FnMut(News) + Send)) -> Result<DeltaTable, Error> {
        let mut state = self.lock().await;
        learn(self.follow_in(&mut state).await?);
        let delta = state.delta.clone();
        delta.ok_or_else(|| Error::Config("there is nothing in the tables yet".into()))
    }

    /// What of a span is to be taken back of this version of the table.
    pub(super) async fn plan(&self, span: Span, delta: &DeltaTable) -> Result<Plan, Error> {
        let newest = delta.version().unwrap_or_default();
        let trail = self.trail(span, newest).await?;
        let named = named(delta)?;
        let mut told = TakenBack {
            span,
            before: trail.taken_before(),
            ..TakenBack::default()
        };
        let (mut whole, mut moved) = (Vec::new(), HashMap::new());
        let store = self.log.object_store(None);
        let reads = trail.left().map(|(path, came)| {
            let read = read_file(store.as_ref(), path.clone());
            async move { Ok::<_, Error>((read.await?, came)) }
        });
        let reads: Vec<_> = reads.collect();
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        while let Some(((path, bytes), came)) = reads.try_next().await? {
            let stands = named.contains_key(&path);
            let is_there = bytes.is_some();
            let Some((rows, refused)) = self.rows_of(&path, bytes).await else {
                return Err(self.lost(came.version, stands || is_there));
            };
            told.rows += rows.len() as u64 + refused as u64;
            for row in &rows {
                let of = (row.key.recipe(), row.key.hardware());
                *told.of.entry(of).or_default() += 1;
            }
            if stands {
                whole.push(path);
                continue;
            }
            for row in rows {
                *moved.entry(row).or_default() += 1;
            }
            if moved.len() > ROWS_MAX {
                return Err(Error::Config(format!(
                    "more than {ROWS_MAX} rows of the {} table that came with these versions have moved since: take them back in parts, by fewer versions at once",
                    self.kind.name()
                )));
            }
        }
        drop(reads);
        Ok(Plan {
            trail,
            whole,
            moved,
            told,
        })
    }

    /// Whether a plan is still right at the version that was followed to, after what has come since.
    async fn still_holds(&self, plan: &mut Plan, state: &State) -> Result<bool, Error> {
        let Some(delta) = &state.delta else {
            return Ok(false);
        };
        let taken = plan.trail.taken();
        self.extend(&mut plan.trail, version(state)).await?;
        let named = named(delta)?;
        Ok(plan.trail.taken() == taken && plan.whole.iter().all(|path| named.contains_key(path)))
    }

    /// Writes the entry. Returns how many of the rows are not there any more. An error does not say that nothing was
    /// written.
    pub(super) async fn take(
        &self,
        state: &mut State,
        plan: &Plan,
        writer: &str,
    ) -> Result<u64, Error> {
        let delta = state.delta.clone().ok_or_else(|| self.contended())?;
        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let files: Vec<LogicalFileView> = snapshot.log_data().iter().collect();
        let whole: HashSet<&Path> = plan.whole.iter().collect();
        let (gone, mut others): (Vec<_>, Vec<_>) = files
            .into_iter()
            .partition(|file| whole.contains(&file.object_store_path()));
        let mut removed: Vec<LogicalFileView> = gone;
        let (mut added, mut put): (Vec<Add>, Vec<Moved>) = (Vec::new(), Vec::new());
        // First where the rows have moved to. One of them may have been taken for an equal one that came another time:
        // then that one is where it lies.
        others.sort_by_cached_key(|file| {
            let path = file.object_store_path();
            (Reverse(plan.trail.is_kin(&path)), path)
        });
        let mut sought = Sought {
            left: plan.moved.values().map(|rows| u64::from(*rows)).sum(),
            rows: plan.moved.clone(),
        };
        let mut unseen = None;
        for file in others {
            if sought.left == 0 {
                break;
            }
            let path = file.object_store_path();
            match self.without(state, &path, sought, writer).await? {
                (rest, Sifted::Nothing) => sought = rest,
                (rest, Sifted::Unseen) => {
                    unseen = Some(path);
                    sought = rest;
                }
                (rest, Sifted::Some(rewritten)) => {
                    removed.push(file);
                    if let Some((moved, add)) = rewritten.map(|file| *file) {
                        put.push(moved);
                        added.push(add);
                    }
                    sought = rest;
                }
            }
        }
        if let Some(path) = unseen.filter(|_| sought.left > 0) {
            let source =
                format!("rows to take back may lie in {path}, which cannot be read").into();
            return Err(Error::Damaged { source });
        }
        if removed.is_empty() {
            return Ok(sought.left);
        }
        // By the store's clock, which every clean-up goes by, whatever this node's says.
        let now = self.store_time().await?;
        for file in &put {
            if !self.may_be_named(file, now).await? {
                return Err(self.contended());
            }
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let removed = removed.iter().map(|file| {
            Action::Remove(Remove {
                deletion_timestamp: Some(now),
                ..file.remove_action(true)
            })
        });
        let actions = removed.chain(added.into_iter().map(Action::Add)).collect();
        let taken = Taken {
            span: plan.told.span,
            rows: plan.told.rows - sought.left,
        };
        let taken = serde_json::to_value(taken).map_err(Error::unreachable)?;
        let header = Header::from([written_by(writer), (TAKEN.to_owned(), taken)]);
        state.last_moved.extend(put);
        let operation = DeltaOperation::Delete { predicate: None };
        self.write_entry(state, actions, Vec::new(), operation, header)
            .await?;
        Ok(sought.left)
    }

    /// Puts an object beside one that has what that has but for the rows that are sought, if it has any of them.
    async fn without(
        &self,
        state: &State,
        path: &Path,
        mut sought: Sought,
        writer: &str,
    ) -> Result<(Sought, Sifted), Error> {
        if state.is_left_out(path) {
            return Ok((sought, Sifted::Unseen));
        }
        let store = self.log.object_store(None);
        let (_, bytes) = read_file(store.as_ref(), path.clone()).await?;
        // Rows that this version does not know would be lost.
        let Some((mut rows, 0)) = self.rows_of(path, bytes).await else {
            return Ok((sought, Sifted::Unseen));
        };
        let all = rows.len();
        let sifted = tokio::task::spawn_blocking(move || {
            rows.retain(|row| !sought.takes(row));
            (rows, sought)
        });
        let (rows, sought) = sifted.await.map_err(Error::unreachable)?;
        if rows.len() == all {
            return Ok((sought, Sifted::Nothing));
        }
        if rows.is_empty() {
            return Ok((sought, Sifted::Some(None)));
        }
        // Two objects may be left with equal rows, so the name says which one it was.
        let of = xxh3_128(format!("{writer} {path}").as_bytes());
        let of = HashSet::from([of.to_le_bytes()]);
        let put = self.put_moved(rows, &of, Day::today().start_ms()).await?;
        Ok((sought, Sifted::Some(Some(Box::new(put)))))
    }

    /// Why what came with a version cannot be taken back.
    fn lost(&self, version: u64, is_damaged: bool) -> Error {
        let table = self.kind.name();
        Error::Config(match is_damaged {
            true => format!(
                "an object that came with version {version} of the {table} table cannot be read: put it back, or leave that version out"
            ),
            false => format!(
                "what came with version {version} of the {table} table can no longer be told from the rest: an object is kept for a week once its rows have moved"
            ),
        })
    }
}

/// Rows that are looked for, and how many of them are left.
struct Sought {
    rows: HashMap<Row, u32>,
    left: u64,
}

impl Sought {
    /// Whether this row is one of them; it is found then.
    fn takes(&mut self, row: &Row) -> bool {
        match self.rows.get_mut(row) {
            Some(often) if *often > 0 => {
                *often -= 1;
                self.left -= 1;
                true
            }
            _ => false,
        }
    }
}

/// What a look for rows in one object came to.
enum Sifted {
    /// None of them is there.
    Nothing,
    /// It cannot be said.
    Unseen,
    /// Some are; the object without them, unless nothing else was in it.
    Some(Option<Box<(Moved, Add)>>),
}
