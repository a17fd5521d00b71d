//! What goes to disk in one write: any number of Raft's turns merged.

use raft::eraftpb::{Entry, HardState};

use super::Position;

/// Entries and the newest hard state. Merging several keeps what the last of them would have left on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    reset: Option<Position>,
    entries: Vec<Entry>,
    hard_state: Option<HardState>,
    bytes: usize,
}

impl Batch {
    /// One turn's share. With `reset` a snapshot of that entry has come in and takes the place of all entries before
    /// these.
    pub fn new(
        reset: Option<Position>,
        entries: Vec<Entry>,
        hard_state: Option<HardState>,
    ) -> Self {
        let bytes = entries.iter().map(entry_bytes).sum();
        Self {
            reset,
            entries,
            hard_state,
            bytes,
        }
    }

    /// Where the log begins anew: everything that was in it is forgotten before the entries are written.
    pub fn reset(&self) -> Option<Position> {
        self.reset
    }

    /// The entries, in order and without a gap.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The hard state, if it changed.
    pub fn hard_state(&self) -> Option<&HardState> {
        self.hard_state.as_ref()
    }

    /// About how many bytes this takes on disk.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.reset.is_none() && self.entries.is_empty() && self.hard_state.is_none()
    }

    /// Adds a later turn's share.
    pub fn merge(&mut self, later: Batch) {
        if later.reset.is_some() {
            self.reset = later.reset;
            self.entries.clear();
            self.bytes = 0;
        }
        if let Some(first) = later.entries.first() {
            // A new leader may replace entries that an earlier turn of this very batch has brought.
            while self.entries.last().is_some_and(|e| e.index >= first.index) {
                if let Some(dropped) = self.entries.pop() {
                    self.bytes -= entry_bytes(&dropped);
                }
            }
        }
        self.bytes += later.bytes;
        self.entries.extend(later.entries);
        self.hard_state = later.hard_state.or(self.hard_state.take());
    }
}

/// Room one entry takes, roughly: its data and what surrounds it.
pub(in crate::consensus) fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + 24
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: vec![0; 10].into(),
            ..Entry::default()
        }
    }

    #[test]
    fn merging_keeps_what_the_last_write_would_leave() {
        let first_term = HardState {
            term: 1,
            ..HardState::default()
        };
        let mut batch = Batch::new(
            None,
            vec![entry(5, 1), entry(6, 1), entry(7, 1)],
            Some(first_term),
        );
        batch.merge(Batch::new(None, vec![entry(6, 2)], None));
        let found: Vec<_> = batch.entries().iter().map(|e| (e.index, e.term)).collect();
        assert_eq!(found, [(5, 1), (6, 2)]);
        assert_eq!(batch.bytes(), 68);
        assert_eq!(batch.hard_state().map(|hs| hs.term), Some(1));
        batch.merge(Batch::new(
            None,
            vec![],
            Some(HardState {
                term: 2,
                ..HardState::default()
            }),
        ));
        assert_eq!(batch.hard_state().map(|hs| hs.term), Some(2));
        let at = Position { index: 20, term: 2 };
        batch.merge(Batch::new(Some(at), vec![entry(21, 2)], None));
        batch.merge(Batch::new(None, vec![entry(22, 2)], None));
        assert_eq!((batch.reset(), batch.entries().len()), (Some(at), 2));
        assert_eq!(batch.bytes(), 68);
    }
}
