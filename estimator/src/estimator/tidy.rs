//! Tidying up: few files instead of many, the cells in one object for the next start, nothing kept that nobody needs,
//! and the plain files for everybody else.

use std::time::{Duration, Instant, SystemTime};

use super::Estimator;
use crate::error::Error;
use crate::table::{Compacted, Kind, Table};

/// What is not finished after so long belongs to no process that still writes it.
const UNFINISHED_KEPT: Duration = Duration::from_secs(86_400);

impl Estimator {
    /// Moves the rows of many small objects into few, writes the cells for the next start, deletes what no recent
    /// version needs, and publishes the served cells. Several processes may do this at once.
    ///
    /// # Errors
    /// As [`Estimator::refresh`], and while the tables are held ([`Estimator::hold`]); nothing is lost by a call that ends half way, and the next goes on from there.
    pub async fn compact(&self) -> Result<Compacted, Error> {
        self.check_held()?;
        let began = Instant::now();
        let mut sum = Compacted::default();
        let mut outcome = Ok(());
        for table in &self.shared.tables {
            // One table's trouble is no reason to leave the other alone.
            outcome = outcome.and(self.compact_one(table, &mut sum).await);
        }
        let outcome = match outcome {
            Ok(()) => self.publish().await,
            failed => failed,
        };
        let mut building = self.building();
        let work = &mut building.work;
        work.files_moved += sum.files as u64;
        work.rows_moved += sum.rows as u64;
        work.deleted += sum.deleted as u64;
        work.last_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(()) => work.done += 1,
            Err(_) => work.failed += 1,
        }
        drop(building);
        outcome.map(|()| sum)
    }

    /// How many objects there are that a tidying might move into larger ones.
    pub(super) fn small_objects(&self) -> usize {
        self.shared.tables.iter().map(Table::small_files).sum()
    }

    async fn compact_one(&self, table: &Table, sum: &mut Compacted) -> Result<(), Error> {
        let kind = table.kind();
        if !table.listing().read_only {
            let done = table.compact(|news| self.learn(kind, news)).await?;
            sum.files += done.files;
            sum.rows += done.rows;
        }
        self.write_cells(table).await?;
        let cleaned = table.clean(SystemTime::now(), |news| self.learn(kind, news));
        let cleaned = cleaned.await?;
        sum.deleted += cleaned.deleted + self.remove_unfinished(cleaned.now).await;
        self.building().foreign[kind as usize] = cleaned.foreign;
        Ok(())
    }

    /// Writes the cells for the next start, if there are none of this version.
    pub(super) async fn write_cells(&self, table: &Table) -> Result<(), Error> {
        let kind = table.kind();
        let index = || (self.index(), self.building().refused_rows[kind as usize]);
        if table
            .write_cells(|news| self.learn(kind, news), index)
            .await?
        {
            self.building().work.cells_written += 1;
        }
        Ok(())
    }

    /// Removes what a process that was killed has left unfinished in a folder of tables. No store shows it.
    async fn remove_unfinished(&self, now: Option<SystemTime>) -> usize {
        let base = &self.shared.base;
        let folder = (base.scheme() == "file").then(|| base.to_file_path().ok());
        let (Some(folder), Some(now)) = (folder.flatten(), now) else {
            return 0;
        };
        let removing = move || crate::store::remove_unfinished(&folder, now - UNFINISHED_KEPT);
        tokio::task::spawn_blocking(removing).await.unwrap_or(0)
    }

    /// Writes the plain files, each if its cells have changed since this process wrote it last. That of a table which has not
    /// been read yet stays as somebody else has written it.
    pub(super) async fn publish(&self) -> Result<(), Error> {
        for kind in Kind::ALL {
            if !self.shared.tables[kind as usize].listing().seen {
                continue;
            }
            let index = self.index();
            let written = super::publish::write(kind, &index, self.prefixed());
            if written.await? {
                self.building().work.published += 1;
            }
        }
        Ok(())
    }
}
