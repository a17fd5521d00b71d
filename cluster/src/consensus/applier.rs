//! The thread that owns the replicated state: it applies committed entries in order and answers who waits for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use raft::eraftpb::{Entry, EntryType};

use super::handle::{Event, ReadWaiter, Refused, Shared, Waiter};
use super::log::Position;
use super::peer::Role;
use super::queue::Queue;
use super::waiters::Waiters;

/// The queue wakes its reader; this only bounds how long a stopped process can go unnoticed.
const WAIT: Duration = Duration::from_secs(10);

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

/// What the apply thread is told.
pub(super) enum Task<R> {
    Appended {
        first: Position,
        waiters: Vec<Waiter<R>>,
    },
    Apply(Vec<Entry>),
    ReadAt {
        index: u64,
        waiters: Vec<ReadWaiter>,
    },
    Role(Role),
}

pub(super) struct Applier<M: Machine> {
    machine: M,
    tasks: Arc<Queue<Task<M::Reply>>>,
    shared: Arc<Shared<M::Reply>>,
    waiters: Waiters<Waiter<M::Reply>>,
    reads: Vec<(u64, Vec<ReadWaiter>)>,
    applied: u64,
}

impl<M: Machine> Applier<M> {
    pub(super) fn new(
        machine: M,
        tasks: Arc<Queue<Task<M::Reply>>>,
        shared: Arc<Shared<M::Reply>>,
    ) -> Self {
        let applied = shared.applied.load(Ordering::Acquire);
        Self {
            machine,
            tasks,
            shared,
            waiters: Waiters::new(),
            reads: Vec::new(),
            applied,
        }
    }

    pub(super) fn run(mut self) {
        let mut tasks = Vec::new();
        while self.tasks.drain(&mut tasks, WAIT) {
            for task in tasks.drain(..) {
                if let Err(why) = self.take(task) {
                    tracing::error!(%why, "applying the log has stopped");
                    self.shared.stop(why);
                    self.tasks.abandon();
                    return;
                }
            }
            // Once for everything that was waiting: Raft only needs to know how far this is.
            let _ = self.shared.inbox.push(Event::Applied(self.applied));
        }
        lose(self.waiters.take_all());
    }

    fn take(&mut self, task: Task<M::Reply>) -> Result<(), String> {
        match task {
            Task::Appended { first, waiters } => lose(self.waiters.appended(first, waiters)),
            Task::Apply(entries) => self.apply(entries)?,
            Task::ReadAt { index, waiters } => self.reads.push((index, waiters)),
            Task::Role(role) => {
                if !role.leads {
                    lose(self.waiters.take_all());
                }
                self.machine.role(role);
            }
        }
        self.answer_reads();
        Ok(())
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        let Some(last) = entries.last().map(position) else {
            return Ok(());
        };
        let carrying: Vec<Committed> = entries
            .into_iter()
            // A new leader's first entry is empty, and changes of members are Raft's own business.
            .filter(|e| !e.data.is_empty() && e.get_entry_type() == EntryType::EntryNormal)
            .map(|e| Committed {
                at: position(&e),
                data: e.data,
            })
            .collect();
        let mut replies = Vec::with_capacity(carrying.len());
        self.machine.apply(&carrying, &mut replies)?;
        self.machine.advanced(last);
        self.applied = last.index;
        self.shared.applied.store(last.index, Ordering::Release);
        for (entry, reply) in carrying.iter().zip(replies) {
            let matched = self.waiters.applied(entry.at);
            lose(matched.lost);
            if let Some(waiter) = matched.mine {
                waiter.answer(Ok(reply));
            }
        }
        Ok(())
    }

    fn answer_reads(&mut self) {
        let applied = self.applied;
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
