//! Compaction: the rows of many small files move into one, sorted by key.

use std::collections::HashSet;
use std::time::UNIX_EPOCH;

use deltalake::kernel::{Action, LogicalFileView, Remove};
use deltalake::protocol::DeltaOperation;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use stepcast_records::Row;

use super::entry::Header;
use super::follow::{News, read_file};
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

impl Table {
    /// Moves the rows of small files into few. Commits of others go on meanwhile and nothing of theirs is lost;
    /// `learn` hears of them. Files that cannot be read, or hold rows that are none, stay as they are.
    pub(crate) async fn compact(
        &self,
        mut learn: impl FnMut(News) + Send,
    ) -> Result<Compacted, Error> {
        let mut done = Compacted::default();
        let mut left = HashSet::new();
        {
            let mut state = self.lock().await;
            learn(self.follow_in(&mut state).await?);
            learn(self.try_again(&mut state).await?);
            self.read_suspects(&mut state).await?;
        }
        for _ in 0..ROUNDS_MAX {
            // The lock is given up between rounds, so that commits of this process need not wait for all of them.
            let mut state = self.lock().await;
            learn(self.follow_in(&mut state).await?);
            if state.delta.is_none() {
                break;
            }
            self.writable(&state)?;
            let round = self.round(&mut state, &mut left).await;
            if round.is_err() {
                state.halved = (state.halved + 1).min(HALVED_MAX);
            }
            let round = round?;
            learn(self.follow_in(&mut state).await?);
            done.files += round.files;
            done.rows += round.rows;
            if round.files == 0 {
                break;
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

    pub(super) async fn round(
        &self,
        state: &mut State,
        left: &mut HashSet<Path>,
    ) -> Result<Compacted, Error> {
        let delta = state.delta.clone();
        let delta = delta.ok_or_else(|| self.foreign("it was never opened"))?;
        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let log_data = snapshot.log_data();
        let may_move = log_data.iter().filter(|file| {
            let path = file.object_store_path();
            !left.contains(&path) && !state.is_left_out(&path)
        });
        let small = choose(may_move, state.halved);
        if small.len() < FILES_MIN {
            return Ok(Compacted::default());
        }
        let store = self.log.object_store(None);
        let paths = small.iter().map(|file| file.object_store_path());
        let reads = paths.map(|path| read_file(store.as_ref(), path));
        let reads: Vec<_> = reads.collect();
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        let mut rows: Vec<Row> = Vec::new();
        let mut moved = HashSet::new();
        while let Some((path, bytes)) = reads.try_next().await? {
            match self.rows_of(&path, bytes).await {
                Some((read, 0)) => {
                    rows.extend(read);
                    moved.insert(path);
                }
                // Rows of another vocabulary would be lost.
                Some(_) => drop(left.insert(path)),
                // Its rows are in the index already: whoever followed to here has read it.
                None => drop(state.away.insert(path)),
            }
        }
        drop(reads);
        self.publish(&delta, state)?;
        if moved.len() < FILES_MIN {
            return Ok(Compacted::default());
        }
        let done = Compacted {
            files: moved.len(),
            rows: rows.len(),
            deleted: 0,
        };
        let mut add = self
            .put_file(rows, &HashSet::new(), Day::today().start_ms())
            .await?;
        // By the store's clock, which every clean-up goes by, whatever this node's says.
        let put = Path::from_url_path(&add.path);
        let put = put.map_err(|_| self.foreign("a name of ours is none"))?;
        let now = self.put_at(&put).await?.duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
        let removed = small
            .iter()
            .filter(|file| moved.contains(&file.object_store_path()));
        let removed = removed.map(|file| {
            Action::Remove(Remove {
                deletion_timestamp: Some(now),
                ..file.remove_action(false)
            })
        });
        let mut actions: Vec<Action> = removed.collect();
        add.data_change = false;
        actions.push(Action::Add(add));
        let operation = DeltaOperation::Optimize {
            predicate: None,
            target_size: LARGE_BYTES,
        };
        let written = self.write_entry(state, actions, Vec::new(), operation, Header::new());
        match written.await {
            // Somebody else has moved rows meanwhile. Their entry counts, and what was put here is named by nobody.
            Err(Error::Contended { .. }) => Ok(Compacted::default()),
            written => written.map(|()| done),
        }
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
