//! The live log in memory, as Raft reads it: everything behind the truncation point, synced or not.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::util::limit_size;
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::log::{Loaded, Position};

/// All live entries. Its size is bounded by the snapshots that let it be truncated.
#[derive(Debug)]
pub(super) struct LiveLog {
    hard_state: HardState,
    conf_state: ConfState,
    truncated: Position,
    entries: VecDeque<Entry>,
}

impl LiveLog {
    /// What was on disk, and who votes as of the entry that counts as applied.
    pub(super) fn new(loaded: Loaded, conf_state: ConfState) -> Self {
        Self {
            hard_state: loaded.hard_state,
            conf_state,
            truncated: loaded.truncated,
            entries: loaded.entries.into(),
        }
    }

    /// Takes new entries, replacing what was there from the first one's index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self.entries.back().is_some_and(|e| e.index >= first.index) {
            self.entries.pop_back();
        }
        self.entries.extend(entries.iter().cloned());
    }

    /// Takes the new hard state.
    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Forgets everything up to and including `index`; says where the log then begins, or nothing if it did before.
    pub(super) fn compact(&mut self, index: u64) -> Option<Position> {
        if index <= self.truncated.index {
            return None;
        }
        while let Some(entry) = self.entries.front().filter(|e| e.index <= index) {
            self.truncated = Position {
                index: entry.index,
                term: entry.term,
            };
            self.entries.pop_front();
        }
        Some(self.truncated)
    }

    /// The last entry, or the truncation point.
    pub(super) fn last(&self) -> Position {
        self.entries.back().map_or(self.truncated, |e| Position {
            index: e.index,
            term: e.term,
        })
    }

    fn at(&self, index: u64) -> Option<usize> {
        let offset = index.checked_sub(self.truncated.index + 1)?;
        usize::try_from(offset).ok()
    }
}

impl Storage for LiveLog {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            self.conf_state.clone(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let (Some(from), Some(to)) = (self.at(low), self.at(high)) else {
            return Err(Error::Store(StorageError::Compacted));
        };
        if to > self.entries.len() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let mut found: Vec<Entry> = self.entries.range(from..to).cloned().collect();
        limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        let Some(at) = self.at(index) else {
            return Err(Error::Store(StorageError::Compacted));
        };
        self.entries
            .get(at)
            .map(|e| e.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last().index)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> Result<Snapshot> {
        // Only a follower too far behind asks for one, and a cluster of one has none.
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            ..Entry::default()
        }
    }

    fn log() -> LiveLog {
        let mut log = LiveLog::new(Loaded::new_cluster(), ConfState::default());
        log.append(&[entry(2, 1), entry(3, 1), entry(4, 2)]);
        log
    }

    fn read(log: &LiveLog, low: u64, high: u64) -> Result<Vec<u64>> {
        let entries = log.entries(low, high, None, GetEntriesContext::empty(false))?;
        Ok(entries.iter().map(|e| e.index).collect())
    }

    #[test]
    fn appending_replaces_a_conflicting_tail() {
        let mut log = log();
        log.append(&[entry(3, 3)]);
        assert_eq!(log.last(), Position { index: 3, term: 3 });
        assert_eq!(log.term(2).unwrap(), 1);
        assert!(log.term(4).is_err());
    }

    #[test]
    fn a_compacted_log_keeps_the_term_of_its_boundary() {
        let mut log = log();
        assert_eq!(log.compact(3), Some(Position { index: 3, term: 1 }));
        assert_eq!(log.compact(3), None);
        assert_eq!((log.first_index().unwrap(), log.term(3).unwrap()), (4, 1));
        assert_eq!(read(&log, 4, 5).unwrap(), [4]);
        assert!(matches!(
            read(&log, 3, 5),
            Err(Error::Store(StorageError::Compacted))
        ));
    }
}
