//! Reading a table's log past what is wrong with its checkpoints: the hint names one that is not there, or the newest cannot be
//! read. What the log says is then in the one before and the entries after that, as long as these are kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake::{DeltaTable, checkpoints};

use super::ids::Listed;
use super::log::{State, Table};
use crate::error::Error;

/// What is wrong with a log's checkpoints.
struct Wrong {
    /// The newest version that the log has an entry of.
    newest: u64,
    /// As in [`State`].
    is_cut: bool,
    /// The newest checkpoints, as far as they cannot be read.
    damaged: BTreeSet<u64>,
}

impl Table {
    /// Reads the newest version as a whole, and whether the log is cut, as in [`State`].
    pub(super) async fn load(&self) -> Result<(DeltaTable, bool), Error> {
        self.load_at(None).await
    }

    /// Reads the version that was followed to as a whole: what is followed to entry by entry is kept entry by entry, and
    /// every look and commit goes through all of that. Failing costs speed only.
    pub(super) async fn load_whole(&self, state: &mut State) {
        let Some(version) = state.delta.as_ref().and_then(DeltaTable::version) else {
            return;
        };
        if let Some(delta) = self.whole(version).await {
            (state.delta, state.whole) = (Some(delta), version);
        }
    }

    /// A version read as a whole, and `None` where that fails. Nothing of it is taken over here, so that it may be given up.
    pub(super) async fn whole(&self, version: u64) -> Option<DeltaTable> {
        let loaded = self.load_at(Some(version)).await;
        loaded
            .inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::warn!(
                    table = self.kind.name(),
                    error,
                    "the log could not be read as a whole"
                );
            })
            .ok()
            .map(|(delta, _)| delta)
    }

    /// Reads a version as a whole, or the newest.
    async fn load_at(&self, version: Option<u64>) -> Result<(DeltaTable, bool), Error> {
        let mut delta = DeltaTable::new(Arc::clone(&self.log));
        let loaded = match version {
            Some(version) => delta.load_version(version).await,
            None => delta.load().await,
        };
        let Err(error) = loaded else {
            return Ok((delta, false));
        };
        let Some(wrong) = self.wrong().await? else {
            return Err(self.unopened(error));
        };
        let delta = self.load_past(&wrong, version).await?;
        Ok((delta, wrong.is_cut))
    }

    /// Reads a version, or the newest, past what is wrong.
    async fn load_past(&self, wrong: &Wrong, version: Option<u64>) -> Result<DeltaTable, Error> {
        let (table, newest) = (self.kind.name(), wrong.newest);
        if wrong.is_cut {
            tracing::warn!(
                table,
                newest,
                "the checkpoint that the log's `_last_checkpoint` names is not there, as in a copy that was made while \
                 somebody wrote; the log is read without it, as far as it goes"
            );
        }
        for checkpoint in &wrong.damaged {
            tracing::warn!(
                table,
                newest,
                checkpoint,
                "a checkpoint of the log cannot be read; the log is read from the one before it"
            );
        }
        let log = self.past(&wrong.damaged);
        let log = log.ok_or_else(|| self.foreign("its place is none"))?;
        let mut delta = DeltaTable::new(log);
        let loaded = delta.load_version(version.unwrap_or(newest)).await;
        loaded.map_err(|error| self.unopened(error))?;
        Ok(delta)
    }

    /// Whether the checkpoints are why a log cannot be read, so that it can be when it is read anew.
    pub(super) async fn is_damaged(&self) -> Result<bool, Error> {
        Ok(self.wrong().await?.is_some())
    }

    /// Writes the state of a version in one object, also where the log has to be read past what is wrong for that.
    pub(super) async fn write_checkpoint(&self, delta: &DeltaTable) -> Result<(), Error> {
        let Err(error) = checkpoints::create_checkpoint(delta, None).await else {
            return Ok(());
        };
        // Whoever writes one goes by the newest that is there.
        match self.wrong().await? {
            Some(wrong) => self.write_past(&wrong, delta).await,
            None => Err(Error::unreachable(error)),
        }
    }

    /// Does so and sees to it that it can be read, also if it was there before: what it holds is about to be deleted.
    pub(super) async fn write_sound_checkpoint(&self, delta: &DeltaTable) -> Result<(), Error> {
        self.write_checkpoint(delta).await?;
        let version = delta.version().unwrap_or_default();
        if self.has_sound_checkpoint(version).await? {
            return Ok(());
        }
        if let Some(wrong) = self.wrong().await? {
            self.write_past(&wrong, delta).await?;
        }
        match self.has_sound_checkpoint(version).await? {
            true => Ok(()),
            false => Err(Error::unreachable(
                "a checkpoint that was written cannot be read",
            )),
        }
    }

    /// Writes a checkpoint over one that cannot be read, if that is of this version.
    async fn write_past(&self, wrong: &Wrong, delta: &DeltaTable) -> Result<(), Error> {
        let past = self.load_past(wrong, delta.version()).await?;
        let written = checkpoints::create_checkpoint(&past, None).await;
        written.map_err(Error::unreachable)
    }

    async fn has_sound_checkpoint(&self, version: u64) -> Result<bool, Error> {
        Ok(match self.get_checkpoint(version).await? {
            Some(bytes) => is_readable(bytes).await,
            None => false,
        })
    }

    /// What is wrong with the checkpoints; `None` when nothing is.
    ///
    /// # Errors
    /// [`Error::LogDamaged`] when the log cannot be read without those that are damaged.
    async fn wrong(&self) -> Result<Option<Wrong>, Error> {
        let is_cut = self.behind_hint().await?.is_some();
        let Listed {
            entries,
            checkpoints,
        } = self.listed().await?;
        let Some(newest) = entries.iter().copied().max() else {
            return Ok(None);
        };
        let mut sought: Vec<u64> = checkpoints.into_iter().filter(|v| *v <= newest).collect();
        sought.sort_unstable_by(|a, b| b.cmp(a));
        let (mut damaged, mut first) = (BTreeSet::new(), 0);
        for version in sought {
            // One that was deleted meanwhile is in nobody's way.
            let Some(bytes) = self.get_checkpoint(version).await? else {
                continue;
            };
            if is_readable(bytes).await {
                first = version + 1;
                break;
            }
            damaged.insert(version);
        }
        if let Some(last) = damaged.last() {
            let there: BTreeSet<u64> = entries.into_iter().collect();
            if let Some(gone) = (first..=newest).find(|version| !there.contains(version)) {
                return Err(self.log_damaged(*last, gone));
            }
        }
        let is_wrong = is_cut || !damaged.is_empty();
        Ok(is_wrong.then_some(Wrong {
            newest,
            is_cut,
            damaged,
        }))
    }

    /// That a log cannot be read without a checkpoint that is damaged, since an entry is gone.
    fn log_damaged(&self, checkpoint: u64, gone: u64) -> Error {
        Error::LogDamaged {
            table: self.kind.name(),
            detail: format!(
                "_delta_log/{checkpoint:020}.checkpoint.parquet cannot be read, and the log has no entry {gone} any more to do without it: put that object back from a copy of the tables"
            ),
        }
    }
}

/// Whether all of a checkpoint can be read.
async fn is_readable(bytes: Bytes) -> bool {
    let read = move || {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?;
        let mut batches = reader.build().ok()?;
        batches.all(|batch| batch.is_ok()).then_some(())
    };
    // A reader that panics ends nothing but itself.
    let read = tokio::task::spawn_blocking(read).await;
    matches!(read, Ok(Some(())))
}
