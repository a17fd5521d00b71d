//! The live log in memory, as Raft reads it: everything behind the truncation point, synced or not.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::util::limit_size;
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::log::{Loaded, Position, entry_bytes};
use crate::members::Members;

/// All live entries. Its size is bounded by the snapshots that let it be truncated.
#[derive(Debug)]
pub(super) struct LiveLog {
    hard_state: HardState,
    conf_state: ConfState,
    truncated: Position,
    entries: VecDeque<Entry>,
    /// What the entries take, about.
    bytes: usize,
    /// The newest snapshot on disk.
    snapshot: Option<(Position, Members)>,
    /// Whether Raft has asked for a snapshot that is not there.
    wanted: Cell<bool>,
}

impl LiveLog {
    /// What was on disk, and who votes as of the entry that counts as applied.
    pub(super) fn new(
        loaded: Loaded,
        members: &Members,
        snapshot: Option<(Position, Members)>,
    ) -> Self {
        Self {
            hard_state: loaded.hard_state,
            conf_state: members.conf_state(),
            truncated: loaded.truncated,
            bytes: loaded.entries.iter().map(entry_bytes).sum(),
            entries: loaded.entries.into(),
            snapshot,
            wanted: Cell::new(false),
        }
    }

    /// Takes new entries, replacing what was there from the first one's index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while let Some(replaced) = self.entries.pop_back_if(|e| e.index >= first.index) {
            self.bytes -= entry_bytes(&replaced);
        }
        self.bytes += entries.iter().map(entry_bytes).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// A snapshot from another node takes the place of everything.
    pub(super) fn restore(&mut self, at: Position, members: &Members) {
        self.entries.clear();
        self.bytes = 0;
        self.truncated = at;
        self.conf_state = members.conf_state();
        self.set_snapshot(at, members.clone());
    }

    /// A snapshot of this entry is on disk.
    pub(super) fn set_snapshot(&mut self, at: Position, members: Members) {
        if self
            .snapshot
            .as_ref()
            .is_none_or(|(newest, _)| *newest < at)
        {
            self.snapshot = Some((at, members));
        }
    }

    /// The snapshot of this entry is of no use; a newer one may be.
    pub(super) fn forget_snapshot(&mut self, at: Position) {
        self.snapshot.take_if(|(newest, _)| *newest <= at);
    }

    /// Whether a snapshot was asked for in vain since the last call.
    pub(super) fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    /// What the entries take in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
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
        while let Some(entry) = self.entries.pop_front_if(|e| e.index <= index) {
            self.bytes -= entry_bytes(&entry);
            self.truncated = Position {
                index: entry.index,
                term: entry.term,
            };
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

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        // A node refuses a snapshot in which it does not occur: it was taken before that node was let in.
        let fit = self
            .snapshot
            .as_ref()
            .filter(|(at, members)| at.index >= request_index && members.contains(to));
        let Some((at, members)) = fit else {
            self.wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = at.index;
        metadata.term = at.term;
        metadata.set_conf_state(members.conf_state());
        // The state itself travels beside Raft; these are the addresses that belong to the configuration.
        snapshot.set_data(members.encode().into());
        Ok(snapshot)
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
        let mut log = LiveLog::new(Loaded::new_cluster(), &Members::founder(1), None);
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
    fn a_snapshot_is_given_to_whom_it_knows_and_asked_for_otherwise() {
        let mut log = log();
        assert!(log.snapshot(0, 1).is_err());
        assert!(log.take_wanted());
        assert!(!log.take_wanted());
        log.set_snapshot(Position { index: 3, term: 1 }, Members::founder(1));
        let snapshot = log.snapshot(0, 1).unwrap();
        assert_eq!(snapshot.get_metadata().index, 3);
        assert_eq!(
            Members::decode(snapshot.get_data()),
            Some(Members::founder(1))
        );
        assert!(log.snapshot(4, 1).is_err(), "it must reach further");
        assert!(log.snapshot(0, 2).is_err(), "node 2 is not in it");
        assert!(log.take_wanted());
    }

    #[test]
    fn the_bytes_are_those_of_the_entries() {
        let mut log = log();
        let three = log.bytes();
        log.append(&[entry(3, 3)]);
        assert_eq!(log.bytes(), three / 3 * 2);
        log.compact(2);
        assert_eq!(log.bytes(), three / 3);
        log.restore(Position { index: 9, term: 4 }, &Members::founder(1));
        assert_eq!((log.bytes(), log.last().index), (0, 9));
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
