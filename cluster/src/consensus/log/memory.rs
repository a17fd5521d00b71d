//! A log in memory whose disk can lose what was not synced: for simulation.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Batch, Error, Loaded, LogStore, Position};

/// The pretend disk: it outlives the logs opened on it.
#[derive(Debug, Clone, Default)]
pub struct MemLogDisk(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    /// What a crash cannot take.
    synced: Option<Loaded>,
    /// Writes since then, oldest first.
    unsynced: Vec<Change>,
    refusing: bool,
}

#[derive(Debug)]
enum Change {
    Write(Batch),
    Compact(Position),
}

impl MemLogDisk {
    /// Opens the log on this disk.
    pub fn open(&self) -> MemLog {
        MemLog { disk: self.clone() }
    }

    /// Loses every unsynced write but the first `kept`: a file system keeps a prefix of what was appended.
    pub fn crash(&self, kept: usize) {
        let mut disk = self.0.lock();
        disk.unsynced.truncate(kept);
        disk.settle();
    }

    /// How many writes a crash could lose now.
    pub fn unsynced(&self) -> usize {
        self.0.lock().unsynced.len()
    }

    /// From now on every write fails, or works again.
    pub fn refuse(&self, refusing: bool) {
        self.0.lock().refusing = refusing;
    }
}

impl Disk {
    fn settle(&mut self) {
        let mut loaded = self.synced.take().unwrap_or_else(Loaded::new_cluster);
        for change in self.unsynced.drain(..) {
            change.apply_to(&mut loaded);
        }
        self.synced = Some(loaded);
    }

    fn change(&mut self, change: Change, sync: bool) -> Result<(), Error> {
        if self.refusing {
            return Err(Error::Simulated);
        }
        self.unsynced.push(change);
        if sync {
            self.settle();
        }
        Ok(())
    }
}

impl Change {
    fn apply_to(self, loaded: &mut Loaded) {
        match self {
            Self::Write(batch) => {
                if let Some(at) = batch.reset() {
                    loaded.entries.clear();
                    loaded.truncated = at;
                }
                if let Some(first) = batch.entries().first() {
                    let keep = loaded.entries.partition_point(|e| e.index < first.index);
                    loaded.entries.truncate(keep);
                }
                loaded.entries.extend_from_slice(batch.entries());
                if let Some(hard_state) = batch.hard_state() {
                    loaded.hard_state = hard_state.clone();
                }
            }
            Self::Compact(to) => {
                loaded.entries.retain(|e| e.index > to.index);
                loaded.truncated = loaded.truncated.max(to);
            }
        }
    }
}

/// A log on a [`MemLogDisk`].
#[derive(Debug)]
pub struct MemLog {
    disk: MemLogDisk,
}

impl LogStore for MemLog {
    fn load(&mut self) -> Result<Loaded, Error> {
        let mut disk = self.disk.0.lock();
        disk.settle();
        let loaded = disk.synced.clone().unwrap_or_else(Loaded::new_cluster);
        loaded.check()?;
        Ok(loaded)
    }

    fn write(&mut self, batch: &Batch, sync: bool) -> Result<(), Error> {
        self.disk
            .0
            .lock()
            .change(Change::Write(batch.clone()), sync)
    }

    fn compact(&mut self, to: Position) -> Result<(), Error> {
        self.disk.0.lock().change(Change::Compact(to), false)
    }

    fn purge(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
