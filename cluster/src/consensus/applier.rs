//! Applies committed entries in order to the replicated state and answers who waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raft::eraftpb::{Entry, EntryType};

use super::change::ChangeError;
use super::event::{ChangeWaiter, ReadWaiter, Task, Waiter};
use super::handle::Refused;
use super::log::Position;
use super::peer::Role;
use super::waiters::Waiters;
use crate::members::Members;

/// The replicated state as consensus sees it.
pub trait Machine: Send + 'static {
    /// The answer to one entry.
    type Reply: Send + 'static;

    /// Applies committed entries and pushes one reply for each of them. An error stops this node for good.
    fn apply(
        &mut self,
        entries: &[Committed],
        replies: &mut Vec<Self::Reply>,
    ) -> Result<(), String>;

    /// The entry `at` has changed who belongs to the cluster.
    fn members(&mut self, members: &Members, at: Position);

    /// Replaces the state by the snapshot of the entry `at`, which another node has sent and which is on disk. An error
    /// stops this node for good.
    fn install(&mut self, at: Position, members: &Members) -> Result<(), String>;

    /// Every entry up to here counts as applied, also the ones that carry nothing.
    fn advanced(&mut self, to: Position);

    /// Term or leader have changed. Called between the entries of the terms before and after.
    fn role(&mut self, role: Role);
}

/// A committed entry that carries a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where it stands.
    pub at: Position,
    /// What was proposed.
    pub data: bytes::Bytes,
}

/// The apply side of a node: a machine, and everybody who waits for what it does.
pub struct Applier<M: Machine> {
    machine: M,
    waiters: Waiters<Waiter<M::Reply>>,
    changes: Waiters<ChangeWaiter>,
    reads: Vec<(u64, Vec<ReadWaiter>)>,
    applied: Arc<AtomicU64>,
}

impl<M: Machine> Applier<M> {
    /// Begins with a machine that is as of the entry `applied`.
    pub fn new(machine: M, applied: u64) -> Self {
        Self::shared(machine, Arc::new(AtomicU64::new(applied)))
    }

    /// The same, with a place to see from elsewhere how far it is.
    pub(super) fn shared(machine: M, applied: Arc<AtomicU64>) -> Self {
        Self {
            machine,
            waiters: Waiters::new(),
            changes: Waiters::new(),
            reads: Vec::new(),
            applied,
        }
    }

    /// Highest applied index.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The state.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Does one task. An error stops this node for good.
    pub fn take(&mut self, task: Task<M::Reply>) -> Result<(), String> {
        match task {
            Task::Appended { first, waiters } => lose(self.waiters.appended(first, waiters)),
            Task::ChangeAppended { at, waiter } => {
                lose_changes(self.changes.appended(at, vec![waiter]));
            }
            Task::Apply { entries, changes } => self.apply(entries, changes)?,
            Task::Install { at, members } => {
                self.machine.install(at, &members)?;
                self.applied.store(at.index, Ordering::Release);
            }
            Task::ReadAt { index, waiters } => self.reads.push((index, waiters)),
            Task::Role(role) => {
                if !role.leads {
                    self.lose_all();
                }
                self.machine.role(role);
            }
        }
        self.answer_reads();
        Ok(())
    }

    /// Nothing more comes: whoever waits for an entry is told that its outcome is not known.
    pub fn lose_all(&mut self) {
        lose(self.waiters.take_all());
        lose_changes(self.changes.take_all());
    }

    fn apply(&mut self, entries: Vec<Entry>, changes: Vec<(u64, Members)>) -> Result<(), String> {
        let Some(last) = entries.last().map(position) else {
            return Ok(());
        };
        let mut changes = changes.into_iter().peekable();
        let mut carrying = Vec::with_capacity(entries.len());
        for entry in entries {
            let at = position(&entry);
            let changed = changes.next_if(|(index, _)| *index == at.index);
            if let Some((_, members)) = &changed {
                // The state and the members of a snapshot are of the same entry, so they go on in the same order.
                self.apply_carrying(&mut carrying)?;
                self.machine.members(members, at);
                self.applied.store(at.index, Ordering::Release);
            } else if !entry.data.is_empty() && entry.get_entry_type() == EntryType::EntryNormal {
                // A new leader's first entry is empty.
                carrying.push(Committed {
                    at,
                    data: entry.data,
                });
            }
            self.answer_change(at, changed.map(|(_, members)| members));
        }
        self.apply_carrying(&mut carrying)?;
        self.machine.advanced(last);
        self.applied.store(last.index, Ordering::Release);
        Ok(())
    }

    fn apply_carrying(&mut self, carrying: &mut Vec<Committed>) -> Result<(), String> {
        let Some(last) = carrying.last().map(|entry| entry.at) else {
            return Ok(());
        };
        let mut replies = Vec::with_capacity(carrying.len());
        self.machine.apply(carrying, &mut replies)?;
        self.machine.advanced(last);
        self.applied.store(last.index, Ordering::Release);
        for (entry, reply) in carrying.drain(..).zip(replies) {
            let matched = self.waiters.applied(entry.at);
            lose(matched.lost);
            if let Some(waiter) = matched.mine {
                waiter.answer(Ok(reply));
            }
        }
        Ok(())
    }

    fn answer_change(&mut self, at: Position, members: Option<Members>) {
        let matched = self.changes.applied(at);
        lose_changes(matched.lost);
        if let Some(waiter) = matched.mine {
            // Raft empties the entry of a change that comes while another one is under way.
            let _ = waiter.send(members.ok_or(ChangeError::UnderWay));
        }
    }

    fn answer_reads(&mut self) {
        let applied = self.applied();
        for (_, waiters) in self.reads.extract_if(.., |(index, _)| *index <= applied) {
            waiters.into_iter().for_each(|w| w.answer(Ok(())));
        }
    }
}

fn position(entry: &Entry) -> Position {
    Position {
        index: entry.index,
        term: entry.term,
    }
}

fn lose<R>(waiters: Vec<Waiter<R>>) {
    waiters
        .into_iter()
        .for_each(|w| w.answer(Err(Refused::OutcomeUnknown)));
}

fn lose_changes(waiters: Vec<ChangeWaiter>) {
    for waiter in waiters {
        let _ = waiter.send(Err(ChangeError::OutcomeUnknown));
    }
}
