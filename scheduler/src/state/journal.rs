//! What has changed lately, for who keeps something beside a state from one look at it to the next.
//!
//! It is no part of what is true: two states are equal whatever stands here, a copy begins a journal of its own, and who
//! has not read on for long finds that too much has happened and begins anew.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lines::Line;
use crate::ids::WorkerId;

/// Changes that are kept: some seconds of a cluster that takes tens of thousands of jobs a second, in a megabyte or two.
const CHANGES_MAX: usize = 65_536;

/// Something that is not as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A job came into a line of waiting jobs, or went out of it.
    Line(Line),
    /// A worker came, went, or changed, or an attempt on it did.
    Worker(WorkerId),
}

/// The newest changes of one state.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Which journal it is: no other has the same.
    life: Arc<()>,
    /// The number of the oldest change that is kept.
    first: u64,
    changes: VecDeque<Change>,
}

/// How far a journal was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Read {
    life: Option<Arc<()>>,
    next: u64,
}

impl Journal {
    /// Writes a change down.
    pub(super) fn note(&mut self, change: Change) {
        if self.changes.back() == Some(&change) {
            return;
        }
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
            self.first += 1;
        }
        self.changes.push_back(change);
    }

    /// What was written since, and that it is read from here on; `None` if that is not known any more.
    pub(crate) fn read_on(&self, read: &mut Read) -> Option<impl Iterator<Item = Change>> {
        let is_same = read
            .life
            .as_ref()
            .is_some_and(|life| Arc::ptr_eq(life, &self.life));
        let begins = read.next;
        *read = Read {
            life: Some(Arc::clone(&self.life)),
            next: self.first + self.changes.len() as u64,
        };
        if !is_same || begins < self.first {
            return None;
        }
        // What was read last may have happened again, which is not written twice: it is told again.
        let skipped = begins.max(self.first + 1) - 1 - self.first;
        Some(self.changes.iter().skip(skipped as usize).copied())
    }
}

impl Clone for Journal {
    /// What a copy goes through is its own.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Journal {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(journal: &Journal, read: &mut Read) -> Option<Vec<Change>> {
        journal.read_on(read).map(Iterator::collect)
    }

    #[test]
    fn what_was_read_is_not_missed_and_a_copy_is_another() {
        let (mut journal, mut at) = (Journal::default(), Read::default());
        assert_eq!(
            read(&journal, &mut at),
            None,
            "whoever begins has to look at everything"
        );
        assert_eq!(read(&journal, &mut at), Some(vec![]));
        journal.note(Change::Line(1));
        journal.note(Change::Worker(WorkerId(2)));
        let both = vec![Change::Line(1), Change::Worker(WorkerId(2))];
        assert_eq!(read(&journal, &mut at), Some(both));
        // The same once more: it is not written, and must not be missed.
        journal.note(Change::Worker(WorkerId(2)));
        assert_eq!(
            read(&journal, &mut at),
            Some(vec![Change::Worker(WorkerId(2))])
        );
        assert_eq!(read(&journal.clone(), &mut at), None);
        assert_eq!(
            read(&journal, &mut at),
            None,
            "it was another that was read last"
        );
    }

    #[test]
    fn who_reads_too_seldom_begins_anew() {
        let (mut journal, mut at) = (Journal::default(), Read::default());
        let _ = read(&journal, &mut at);
        (0..=CHANGES_MAX as u128).for_each(|line| journal.note(Change::Line(line)));
        assert_eq!(read(&journal, &mut at), None);
        journal.note(Change::Line(0));
        let last = Change::Line(CHANGES_MAX as u128);
        assert_eq!(read(&journal, &mut at), Some(vec![last, Change::Line(0)]));
    }
}
