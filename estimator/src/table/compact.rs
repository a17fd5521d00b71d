//! Compaction: the rows of many small files move into one, sorted by key.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use deltalake::kernel::{Action, Add, LogicalFileView, Remove};
use deltalake::protocol::DeltaOperation;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use stepcast_records::Row;

use super::entry::Header;
use super::follow::{News, named, read_file};
use super::log::{DataFile, State, Table};
use crate::error::Error;
use crate::price::Day;

/// Fewer small files are left alone: reading them costs less than rewriting them.
const FILES_MIN: usize = 8;
/// A file of so many bytes is large enough and stays as it is.
const LARGE_BYTES: i64 = 32 << 20;
/// So is one of so many rows.
const LARGE_ROWS: usize = 2_000_000;
/// One round moves at most so many rows, so that its memory stays within some hundreds of megabytes.
const ROWS_MAX: usize = 4_000_000;
/// And reads at most so many bytes, in case a file's number of rows is not known.
const BYTES_MAX: i64 = 256 << 20;
/// A round that fails halves both for the next ones, so often at most: over a slow line a large object may never get through,
/// and all the rest would stay as it is with it. A compaction that gets through doubles them again.
const HALVED_MAX: u32 = 6;
/// So many rounds at most: after a long time without any there is more than one round's worth to do.
const ROUNDS_MAX: usize = 64;
/// A file that was put so long ago is not named any more: after a week somebody deletes it.
const UNNAMED_MAX: Duration = Duration::from_secs(86_400);
/// So many files are read at once.
const READS_AT_ONCE: usize = 8;

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files whose rows moved.
    pub files: usize,
    /// Rows that moved.
    pub rows: usize,
    /// Files and log entries deleted that no version within the retention names.
    pub deleted: usize,
}

/// A file to which rows have moved, for as long as it is not certain that it is there and in the log.
#[derive(Clone)]
pub(super) struct Moved {
    path: Path,
    bytes: Bytes,
}

/// What a round has read, and put in one file that no log entry names yet.
pub(super) struct Gathered {
    /// The files whose rows are in it.
    from: Vec<LogicalFileView>,
    rows: usize,
    /// The file, and what the log is to say of it; none where too few were left.
    file: Option<(Moved, Add)>,
    /// Files with rows that this version does not know.
    left: Vec<Path>,
    /// Files that could not be read.
    broken: Vec<Path>,
}

/// How a round ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The rows of so many files have moved.
    Moved { files: usize, rows: usize },
    /// Too many of the files have to stay as they are. Others may move.
    Left,
    /// Others have moved or taken some of them meanwhile.
    Overtaken,
}

impl Table {
    /// Moves the rows of small files into few. Commits go on meanwhile, of this process too, and nothing of theirs is lost;
    /// `learn` hears of them. Files that cannot be read, or hold rows that are none, stay as they are.
    pub(crate) async fn compact(
        &self,
        mut learn: impl FnMut(News) + Send,
    ) -> Result<Compacted, Error> {
        let mut done = Compacted::default();
        self.follow_with(&mut learn).await?;
        self.try_again_beside(&mut learn).await?;
        self.read_suspects().await?;
        for _ in 0..ROUNDS_MAX {
            let Some(chosen) = self.chosen(&mut learn).await? else {
                break;
            };
            let round = self.round(chosen, &mut learn).await;
            if round.is_err() {
                let mut state = self.lock().await;
                state.halved = (state.halved + 1).min(HALVED_MAX);
            }
            match round? {
                Ended::Moved { files, rows } => {
                    done.files += files;
                    done.rows += rows;
                }
                Ended::Left => {}
                Ended::Overtaken => break,
            }
        }
        let mut state = self.lock().await;
        state.halved = state.halved.saturating_sub(1);
        Ok(done)
    }

    /// How many files of the version that was followed to are small.
    pub(crate) fn small_files(&self) -> usize {
        let small = |file: &&DataFile| i64::try_from(file.bytes).is_ok_and(|b| b < LARGE_BYTES);
        self.listing().files.iter().filter(small).count()
    }

    /// The files of the next round, if there are enough that may move.
    pub(super) async fn chosen(
        &self,
        learn: &mut (impl FnMut(News) + Send),
    ) -> Result<Option<Vec<LogicalFileView>>, Error> {
        let mut state = self.lock().await;
        learn(self.follow_in(&mut state).await?);
        self.put_moved_again(&mut state).await?;
        state.last_moved.clear();
        let Some(delta) = state.delta.clone() else {
            return Ok(None);
        };
        self.writable(&state)?;
        if !state.left.is_empty() {
            let named = named(&delta)?;
            state.left.retain(|path| named.contains_key(path));
        }
        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let log_data = snapshot.log_data();
        let may_move = log_data.iter().filter(|file| {
            let path = file.object_store_path();
            !state.left.contains(&path) && !state.is_left_out(&path)
        });
        let small = choose(may_move, state.halved);
        Ok((small.len() >= FILES_MIN).then_some(small))
    }

    /// Moves the rows of these files into one. What takes long is done while others go on.
    async fn round(
        &self,
        chosen: Vec<LogicalFileView>,
        learn: &mut (impl FnMut(News) + Send),
    ) -> Result<Ended, Error> {
        let gathered = self.gather(chosen).await?;
        let mut state = self.lock().await;
        learn(self.follow_in(&mut state).await?);
        let ended = self.move_to(&mut state, gathered).await;
        // Whatever the answer was, or whether one came: the log alone says what happened.
        learn(self.follow_in(&mut state).await?);
        self.put_moved_again(&mut state).await?;
        ended
    }

    /// Reads files and puts their rows into one, beside the log. Nobody sees it yet, and nothing is taken over.
    pub(super) async fn gather(&self, chosen: Vec<LogicalFileView>) -> Result<Gathered, Error> {
        let store = self.log.object_store(None);
        let paths = chosen.iter().map(|file| file.object_store_path());
        let reads = paths.map(|path| read_file(store.as_ref(), path));
        let reads: Vec<_> = reads.collect();
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        let mut rows: Vec<Row> = Vec::new();
        let (mut moved, mut left, mut broken) = (HashSet::new(), Vec::new(), Vec::new());
        while let Some((path, bytes)) = reads.try_next().await? {
            match self.rows_of(&path, bytes).await {
                Some((read, 0)) => {
                    rows.extend(read);
                    moved.insert(path);
                }
                // Rows of another vocabulary would be lost.
                Some(_) => left.push(path),
                None => broken.push(path),
            }
        }
        drop(reads);
        let count = rows.len();
        let file = match moved.len() >= FILES_MIN {
            true => {
                let day = Day::today().start_ms();
                Some(self.put_moved(rows, &HashSet::new(), day).await?)
            }
            false => None,
        };
        let from = chosen.into_iter();
        let from = from.filter(|file| moved.contains(&file.object_store_path()));
        Ok(Gathered {
            from: from.collect(),
            rows: count,
            file,
            left,
            broken,
        })
    }

    /// Writes the log entry by which rows have moved, if all the files that they were read from still stand. An error does
    /// not say that nothing was written.
    pub(super) async fn move_to(
        &self,
        state: &mut State,
        gathered: Gathered,
    ) -> Result<Ended, Error> {
        let Some(delta) = state.delta.clone() else {
            return Ok(Ended::Overtaken);
        };
        self.writable(state)?;
        state.left.extend(gathered.left);
        // Their rows are in the index already: whoever followed to where they were chosen has read them.
        self.leave_out(state, gathered.broken)?;
        let Some((file, add)) = gathered.file else {
            return Ok(Ended::Left);
        };
        let named = named(&delta)?;
        let stands = |file: &LogicalFileView| {
            let path = file.object_store_path();
            named.contains_key(&path) && !state.is_left_out(&path)
        };
        if !gathered.from.iter().all(stands) {
            return Ok(Ended::Overtaken);
        }
        // By the store's clock, which every clean-up goes by, whatever this node's says.
        let now = self.store_time().await?;
        if !self.may_be_named(&file, now).await? {
            return Ok(Ended::Overtaken);
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let removed = gathered.from.iter().map(|file| {
            Action::Remove(Remove {
                deletion_timestamp: Some(now),
                ..file.remove_action(false)
            })
        });
        let mut actions: Vec<Action> = removed.collect();
        actions.push(Action::Add(Add {
            data_change: false,
            ..add
        }));
        let operation = DeltaOperation::Optimize {
            predicate: None,
            target_size: LARGE_BYTES,
        };
        state.last_moved.push(file);
        let written = self.write_entry(state, actions, Vec::new(), operation, Header::new());
        match written.await {
            // Their entry counts, and what was put here is named by nobody.
            Err(Error::Contended { .. }) => Ok(Ended::Overtaken),
            written => written.map(|()| Ended::Moved {
                files: gathered.from.len(),
                rows: gathered.rows,
            }),
        }
    }

    /// Puts rows that move into a file, beside the log: nobody sees it yet.
    pub(super) async fn put_moved(
        &self,
        rows: Vec<Row>,
        ids: &HashSet<[u8; 16]>,
        day: i64,
    ) -> Result<(Moved, Add), Error> {
        let (add, path, bytes) = self.file_of(rows, ids, day).await?;
        let store = self.log.object_store(None);
        let put = store.put(&path, bytes.clone().into()).await;
        put.map_err(Error::unreachable)?;
        Ok((Moved { path, bytes }, add))
    }

    /// Whether a file that was put may still be named at this time of the store's: nobody is about to delete it.
    pub(super) async fn may_be_named(&self, file: &Moved, now: SystemTime) -> Result<bool, Error> {
        let put = self.put_at(&file.path).await?;
        Ok(now.duration_since(put).unwrap_or_default() <= UNNAMED_MAX)
    }

    /// Puts the files to which rows have moved again that the log names and that are not there: somebody has deleted them
    /// before the log named them, since that took so long.
    pub(super) async fn put_moved_again(&self, state: &mut State) -> Result<(), Error> {
        let Some(delta) = state
            .delta
            .as_ref()
            .filter(|_| !state.last_moved.is_empty())
        else {
            return Ok(());
        };
        let named = named(delta)?;
        let store = self.log.object_store(None);
        for moved in &state.last_moved {
            if !named.contains_key(&moved.path) {
                continue;
            }
            match store.head(&moved.path).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => {
                    tracing::warn!(table = self.kind.name(), object = %moved.path, "an object was deleted before the log named it; it is put again");
                    let put = store.put(&moved.path, moved.bytes.clone().into()).await;
                    put.map_err(Error::unreachable)?;
                }
                Err(error) => return Err(Error::unreachable(error)),
            }
        }
        let is_there = |moved: &Moved| named.contains_key(&moved.path);
        state.last_moved.retain(|moved| !is_there(moved));
        Ok(())
    }
}

/// The smallest files, as many as one round may take whose bounds were halved so often, if they are small enough to be worth
/// it.
fn choose(files: impl Iterator<Item = LogicalFileView>, halved: u32) -> Vec<LogicalFileView> {
    let rows = |file: &LogicalFileView| file.num_records().unwrap_or(0);
    let mut small: Vec<LogicalFileView> = files
        .filter(|file| file.size() < LARGE_BYTES && rows(file) < LARGE_ROWS)
        .collect();
    small.sort_by_key(LogicalFileView::size);
    let (mut rows_left, mut bytes_left) = (ROWS_MAX >> halved, BYTES_MAX >> halved);
    let fits = |file: &LogicalFileView| {
        let (rows, bytes) = (rows(file), file.size());
        let fits = rows <= rows_left && bytes <= bytes_left;
        rows_left = rows_left.saturating_sub(rows);
        bytes_left = bytes_left.saturating_sub(bytes);
        fits
    };
    small.into_iter().take_while(fits).collect()
}
