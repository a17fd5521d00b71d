//! Compaction: the rows of many small files move into one, sorted by key, and what nobody needs any more goes.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use deltalake::checkpoints;
use deltalake::kernel::{Action, Remove};
use deltalake::protocol::DeltaOperation;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::follow::{News, read_file};
use super::log::Table;
use super::parquet;
use crate::error::Error;
use crate::price::Day;

/// Fewer small files are left alone: reading them costs less than rewriting them.
const FILES_MIN: usize = 8;
/// A file of so many bytes is large enough and stays as it is.
const LARGE_BYTES: i64 = 32 << 20;
/// One compaction reads at most so many bytes, so that its memory is bounded; the next one goes on.
const READ_BYTES_MAX: i64 = 256 << 20;
/// So many files are read at once.
const READS_AT_ONCE: usize = 16;

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files whose rows moved.
    pub files: usize,
    /// Rows that moved.
    pub rows: usize,
    /// Files deleted that no version within the retention names.
    pub deleted: usize,
}

impl Table {
    /// Moves the rows of small files into one. Commits of others go on meanwhile and nothing of theirs is lost;
    /// `learn` hears of them.
    pub(crate) async fn compact(
        &self,
        mut learn: impl FnMut(News) + Send,
    ) -> Result<Compacted, Error> {
        let mut state = self.lock().await;
        learn(self.follow_in(&mut state).await?);
        let Some(delta) = &state.delta else {
            return Ok(Compacted::default());
        };
        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let mut bytes_left = READ_BYTES_MAX;
        let small: Vec<_> = snapshot
            .log_data()
            .iter()
            .filter(|file| file.size() < LARGE_BYTES)
            .take_while(|file| {
                bytes_left -= file.size();
                bytes_left >= 0
            })
            .collect();
        if small.len() < FILES_MIN {
            return Ok(Compacted::default());
        }
        let store = self.log.object_store(None);
        let paths: Vec<Path> = small.iter().map(|file| file.object_store_path()).collect();
        let reads = paths
            .into_iter()
            .map(|path| read_file(store.as_ref(), path));
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        let mut rows = Vec::new();
        while let Some(bytes) = reads.try_next().await? {
            let bytes = bytes.ok_or_else(|| self.foreign("a file is missing"))?;
            let (read, refused) = parquet::read(self.kind, bytes)
                .map_err(|error| self.foreign(format!("a file cannot be read: {error}")))?;
            if refused > 0 {
                return Err(self.foreign("rows of another vocabulary would be lost"));
            }
            rows.extend(read);
        }
        drop(reads);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let mut actions: Vec<Action> = Vec::with_capacity(small.len() + 1);
        for file in &small {
            actions.push(Action::Remove(Remove {
                deletion_timestamp: Some(now),
                ..file.remove_action(false)
            }));
        }
        let moved = rows.len();
        let mut add = self
            .put_file(rows, &HashSet::new(), Day::today().start_ms())
            .await?;
        add.data_change = false;
        actions.push(Action::Add(add));
        let operation = DeltaOperation::Optimize {
            predicate: None,
            target_size: LARGE_BYTES,
        };
        let files = small.len();
        self.write_entry(&state, actions, Vec::new(), operation)
            .await?;
        learn(self.follow_in(&mut state).await?);
        let deleted = match &state.delta {
            Some(delta) => self.clean(delta.clone()).await?,
            None => 0,
        };
        Ok(Compacted {
            files,
            rows: moved,
            deleted,
        })
    }

    /// Deletes data files and log entries that are older than their retention.
    async fn clean(&self, delta: deltalake::DeltaTable) -> Result<usize, Error> {
        let checkpointed = checkpoints::create_checkpoint(&delta, None).await;
        checkpointed.map_err(Error::unreachable)?;
        let entries = checkpoints::cleanup_metadata(&delta, None).await;
        let entries = entries.map_err(Error::unreachable)?;
        let (_, vacuumed) = delta.vacuum().await.map_err(Error::unreachable)?;
        Ok(entries + vacuumed.files_deleted.len())
    }
}
