//! Following a table: what has been added since the last look, or everything on the first one.

use std::collections::{BTreeMap, BTreeSet};

use deltalake::DeltaTable;
use deltalake::kernel::Action;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stepcast_records::Row;

use super::commit::CHECKPOINT_EVERY;
use super::log::{ID_RETENTION_DAYS, State, Table};
use super::{ids, parquet};
use crate::error::Error;
use crate::index::Index;
use crate::price::Day;

/// So many objects are read at once: enough to hide a store's latency, few enough to be polite and to fit in memory.
pub(super) const READS_AT_ONCE: usize = 8;
/// Who has followed so many entries reads the log as a whole; by then whoever commits has written a checkpoint.
const WHOLE_AFTER: u64 = 2 * CHECKPOINT_EVERY;
const DAY_MS: i64 = 86_400_000;

/// What a look at a table found.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Whether this is everything there is, instead of what was added.
    pub(crate) everything: bool,
    /// With everything: its cells, which are looked at for plausibility when all of them are there.
    pub(crate) known: Index,
    /// Rows that were added, or that are not in the cells.
    pub(crate) rows: Vec<Row>,
    /// Stored rows that are none: another vocabulary, or numbers out of bounds.
    pub(crate) refused_rows: u64,
}

impl News {
    /// Whether there is nothing to take in.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.everything && self.rows.is_empty() && self.refused_rows == 0
    }
}

/// The files that cannot be read, as in [`State`].
struct LeftOut {
    unread: BTreeSet<Path>,
    away: BTreeSet<Path>,
}

impl LeftOut {
    fn of(state: &State) -> Self {
        Self {
            unread: state.unread.clone(),
            away: state.away.clone(),
        }
    }
}

/// What came of trying to read them.
struct Tried {
    before: LeftOut,
    after: LeftOut,
    news: News,
}

/// What the log entries since a version ask for.
enum Since {
    Files(Vec<Path>),
    /// Files went away or the log was cut: only a full read is right.
    Reload,
}

impl Table {
    /// Looks for what is new and hands it on before anybody else can look. While there is no table yet there is
    /// nothing.
    pub(crate) async fn follow_with(&self, learn: impl FnOnce(News)) -> Result<(), Error> {
        let mut state = self.lock().await;
        learn(self.follow_in(&mut state).await?);
        Ok(())
    }

    #[cfg(test)]
    pub(super) async fn follow(&self) -> Result<News, Error> {
        let mut found = None;
        self.follow_with(|news| found = Some(news)).await?;
        Ok(found.unwrap_or_default())
    }

    /// Nothing is taken over before all of it was read, so a look that fails half way, or is given up, is
    /// simply repeated.
    pub(super) async fn follow_in(&self, state: &mut State) -> Result<News, Error> {
        let Some(mut delta) = state.delta.clone() else {
            return self.open(state).await;
        };
        let before = delta.version().unwrap_or_default();
        if let Err(error) = delta.update_state().await {
            // By a checkpoint that somebody has written since, and that cannot be read.
            return match self.is_damaged().await? {
                true => self.open(state).await,
                false => Err(self.unopened(error)),
            };
        }
        let now = delta.version().unwrap_or_default();
        let mut ids = ids::Ids::new();
        let Since::Files(files) = self.since(before, now, &mut ids).await? else {
            return self.open(state).await;
        };
        let mut news = News::default();
        let mut unread = self.read(files, &mut news, false).await?;
        unread.extend(state.unread.iter().cloned());
        if !(unread.is_empty() && state.away.is_empty()) {
            let named = named(&delta)?;
            if !unread.iter().all(|path| named.contains_key(path)) {
                // What was in it is in another file by now, whose coming was no news.
                tracing::info!(
                    table = self.kind.name(),
                    "an object that was not read is replaced; everything is read"
                );
                return self.open(state).await;
            }
            state.away.retain(|path| named.contains_key(path));
        }
        let whole = match now >= state.whole + WHOLE_AFTER {
            true => self.whole(now).await,
            false => None,
        };
        // From here on nothing waits: who gives up a look that waits has taken in nothing of it.
        state.ids.extend(ids);
        state.unread = unread;
        if whole.is_some() {
            state.whole = now;
            forget_old(&mut state.ids);
        }
        let delta = whole.unwrap_or(delta);
        self.publish(&delta, state)?;
        state.delta = Some(delta);
        Ok(news)
    }

    /// The first look, and the one after something unusual: everything is read, from the newest object of cells and
    /// what came after it where there is one, and otherwise row by row.
    pub(super) async fn open(&self, state: &mut State) -> Result<News, Error> {
        let exists = self.log.is_delta_table_location().await;
        if !exists.map_err(Error::unreachable)? {
            *state = State::default();
            self.publish_nothing();
            return Ok(News {
                everything: true,
                ..News::default()
            });
        }
        let (delta, is_cut) = self.load().await?;
        let read_only = self.check(&delta)?;
        let version = delta.version().unwrap_or_default();
        let files = named(&delta)?;
        let (mut news, unread, away) = match self.by_cells(version, &files).await? {
            Some(found) => found,
            None => {
                let mut news = News::default();
                let files = files.into_keys().collect();
                let unread = self.read(files, &mut news, true).await?;
                (news, unread, BTreeSet::new())
            }
        };
        news.everything = true;
        news.known.judge();
        let mut ids = self.load_ids(version).await?;
        forget_old(&mut ids);
        state.ids = ids;
        state.unread = unread;
        state.away = away;
        state.read_only = read_only;
        state.is_cut = is_cut;
        self.publish(&delta, state)?;
        state.delta = Some(delta);
        state.whole = version;
        Ok(news)
    }

    /// Everything by way of the newest object of cells; `None` when there is none that leads here. Returns besides which
    /// files were never read, and which are in the cells and cannot be read now.
    async fn by_cells(
        &self,
        version: u64,
        named: &BTreeMap<Path, u64>,
    ) -> Result<Option<(News, BTreeSet<Path>, BTreeSet<Path>)>, Error> {
        let Some(found) = self.newest_cells(version).await? else {
            return Ok(None);
        };
        if !found.is_whole() {
            let table = self.kind.name();
            tracing::info!(
                table,
                "the cells are of a version that knows other rows; all rows are read"
            );
            return Ok(None);
        }
        let header = found.header;
        let paths = |names: Vec<String>| names.into_iter().map(Path::from);
        // Its ids are not wanted: they are read from the log anyway.
        let mut ids = ids::Ids::new();
        let Since::Files(mut files) = self.since(header.version, version, &mut ids).await? else {
            return Ok(None);
        };
        let mut news = News {
            known: found.index,
            refused_rows: header.refused_rows,
            ..News::default()
        };
        // What was never read then may be whole now, or its rows are in a file that is no news.
        for path in paths(header.unread) {
            if !named.contains_key(&path) {
                return Ok(None);
            }
            files.push(path);
        }
        let read: BTreeSet<Path> = files.iter().cloned().collect();
        let unread = self.read(files, &mut news, true).await?;
        if !unread.iter().all(|path| named.contains_key(path)) {
            return Ok(None);
        }
        // And whether the others are back is only looked at: their rows are in the cells.
        let away = paths(header.away).filter(|path| named.contains_key(path));
        let away: BTreeSet<Path> = away.collect();
        let rest = named
            .iter()
            .filter(|(path, _)| !read.contains(*path) && !away.contains(*path))
            .map(|(path, size)| (path.clone(), *size));
        let rest = rest.collect();
        let away = away.into_iter().collect();
        let mut away = self.read(away, &mut News::default(), false).await?;
        away.extend(self.broken(rest).await?);
        Ok(Some((news, unread, away)))
    }

    /// Tries files once more that could not be read. Those that never could and can be now are news; those whose rows
    /// are known are only looked at, so that queries see them again.
    pub(super) async fn try_again(&self, state: &mut State) -> Result<News, Error> {
        let tried = self.tried(LeftOut::of(state)).await?;
        self.take_in(state, tried)
    }

    /// The same while others go on.
    pub(super) async fn try_again_beside(
        &self,
        learn: &mut (impl FnMut(News) + Send),
    ) -> Result<(), Error> {
        let left_out = LeftOut::of(&*self.lock().await);
        let tried = self.tried(left_out).await?;
        let mut state = self.lock().await;
        learn(self.take_in(&mut state, tried)?);
        Ok(())
    }

    async fn tried(&self, before: LeftOut) -> Result<Tried, Error> {
        let mut news = News::default();
        let away = before.away.iter().cloned().collect();
        let away = self.read(away, &mut News::default(), false).await?;
        let unread = before.unread.iter().cloned().collect();
        let unread = self.read(unread, &mut news, false).await?;
        let after = LeftOut { unread, away };
        Ok(Tried {
            before,
            after,
            news,
        })
    }

    /// Takes over what a try has found. Where the files that were never read are others by now, it is tried once more some
    /// other time: rows of theirs may have become known meanwhile.
    fn take_in(&self, state: &mut State, tried: Tried) -> Result<News, Error> {
        let Tried {
            before,
            after,
            mut news,
        } = tried;
        if state.unread == before.unread {
            state.unread = after.unread;
        } else {
            news = News::default();
        }
        let is_back = |path: &Path| before.away.contains(path) && !after.away.contains(path);
        state.away.retain(|path| !is_back(path));
        if let Some(delta) = state.delta.clone() {
            self.publish(&delta, state)?;
        }
        Ok(news)
    }

    /// Reads the log entries after `before` up to `now`, and takes their ids along.
    async fn since(&self, before: u64, now: u64, ids: &mut ids::Ids) -> Result<Since, Error> {
        let mut files = Vec::new();
        let entries = (before + 1..=now).map(|version| self.actions(version));
        let mut entries = stream::iter(entries).buffered(READS_AT_ONCE);
        while let Some(actions) = entries.try_next().await? {
            let Some(actions) = actions else {
                return Ok(Since::Reload);
            };
            ids::collect(&actions, ids);
            for action in actions {
                match action {
                    Action::Add(add) if add.data_change => {
                        let path = Path::from_url_path(&add.path);
                        files.push(path.map_err(|_| self.foreign("it names a file that is none"))?);
                    }
                    // Moving rows between files changes nothing that is known.
                    Action::Add(_) | Action::Txn(_) | Action::CommitInfo(_) => {}
                    Action::Remove(remove) if !remove.data_change => {}
                    _ => return Ok(Since::Reload),
                }
            }
        }
        Ok(Since::Files(files))
    }

    /// Reads files into the news, as cells when they are many. Returns those that could not be read.
    pub(super) async fn read(
        &self,
        files: Vec<Path>,
        news: &mut News,
        fold: bool,
    ) -> Result<BTreeSet<Path>, Error> {
        let store = self.log.object_store(None);
        let reads = files
            .into_iter()
            .map(|path| read_file(store.as_ref(), path));
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        let mut unreadable = BTreeSet::new();
        while let Some((path, bytes)) = reads.try_next().await? {
            match self.rows_of(&path, bytes).await {
                Some((rows, refused)) => {
                    news.refused_rows += refused as u64;
                    if fold {
                        news.known.gather(&rows);
                    } else {
                        news.rows.extend(rows);
                    }
                }
                None => drop(unreadable.insert(path)),
            }
        }
        Ok(unreadable)
    }

    /// The rows of a file, and how many of its rows are none. `None`, and a word in the log, when it is missing or no
    /// file of ours: it is left where it is, for a person to look at, and everything else goes on.
    pub(super) async fn rows_of(
        &self,
        path: &Path,
        bytes: Option<bytes::Bytes>,
    ) -> Option<(Vec<Row>, usize)> {
        let kind = self.kind;
        let read = match bytes {
            Some(bytes) => {
                // On a thread where it keeps nobody waiting, and where a reader that panics ends nothing but itself.
                let read = tokio::task::spawn_blocking(move || parquet::read(kind, bytes)).await;
                read.map_err(|error| error.to_string())
                    .and_then(|read| read.map_err(|error| error.to_string()))
            }
            None => Err("it is missing".to_owned()),
        };
        read.inspect_err(|error| {
            tracing::warn!(table = kind.name(), object = %path, %error, "an object cannot be read and is left out");
        })
        .ok()
    }
}

/// The files of the version that a table was loaded at, and how many bytes its log says that they have.
pub(super) fn named(delta: &DeltaTable) -> Result<BTreeMap<Path, u64>, Error> {
    let snapshot = delta.snapshot().map_err(Error::unreachable)?;
    let log_data = snapshot.log_data();
    let files = log_data.iter().map(|file| {
        let bytes = u64::try_from(file.size()).unwrap_or(0);
        (file.object_store_path(), bytes)
    });
    Ok(files.collect())
}

/// Drops the ids that the log may forget, so that memory stays bounded too: those that are so old by this node's clock, and
/// of which the log has ids of as many later days. So no clock that is wrong, this node's or a writer's, makes an id go that
/// may still arrive.
pub(super) fn forget_old(ids: &mut ids::Ids) {
    let kept = ID_RETENTION_DAYS + 1;
    let by_clock = Day::today().start_ms() - kept * DAY_MS;
    let days: BTreeSet<i64> = ids.values().copied().collect();
    let kept = usize::try_from(kept).unwrap_or(usize::MAX);
    let Some(by_log) = days.into_iter().rev().nth(kept) else {
        return;
    };
    ids.retain(|_, day| *day >= by_clock || *day >= by_log);
}

/// The bytes of a file, beside its path; `None` when it is not there.
pub(super) async fn read_file(
    store: &dyn ObjectStore,
    path: Path,
) -> Result<(Path, Option<bytes::Bytes>), Error> {
    let read = async { store.get(&path).await?.bytes().await };
    match read.await {
        Ok(bytes) => Ok((path, Some(bytes))),
        Err(object_store::Error::NotFound { .. }) => Ok((path, None)),
        Err(error) => Err(Error::unreachable(error)),
    }
}
