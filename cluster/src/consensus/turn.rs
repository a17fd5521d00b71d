//! One turn of the Raft thread: everything that came in goes to the core, and what is to be done about it comes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::applier::{Applier, Machine};
use super::core::{Core, Effect};
use super::event::{Event, Task};
use super::handle::{Handle, Input, Shared, Stall};
use super::peer::{self, Begin};

/// The core behind its inbox, and what the handles show of it.
pub(super) struct Turns<R> {
    core: Core<R>,
    shared: Arc<Shared<R>>,
    inputs: Vec<Input<R>>,
    /// Proposals and reads that the core does not know of yet.
    waiting: Vec<Event<R>>,
    /// The last one that waits came with the word that nobody comes behind it.
    complete: bool,
}

/// What became of the wait for something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on.
    Turn,
    /// Stop.
    Leave,
}

impl<R: Send + 'static> Turns<R> {
    pub(super) fn new(core: Core<R>, shared: Arc<Shared<R>>) -> Self {
        Self {
            core,
            shared,
            inputs: Vec::new(),
            waiting: Vec::new(),
            complete: false,
        }
    }

    /// Takes in what has come, waiting for the first of it at most this long. Proposals and reads are kept for
    /// [`Self::let_go`]; while some wait, more of them end no wait.
    pub(super) fn take(&mut self, wait: Duration) -> Next {
        let inbox = &self.shared.inbox;
        let open = if self.waiting.is_empty() {
            inbox.drain(&mut self.inputs, wait)
        } else {
            inbox.drain_patiently(&mut self.inputs, wait)
        };
        let mut next = if open { Next::Turn } else { Next::Leave };
        for input in self.inputs.drain(..) {
            match input {
                Input::Event(event @ (Event::Propose(..) | Event::Read(_))) => {
                    self.waiting.push(event);
                }
                Input::Last(event) => {
                    self.waiting.push(event);
                    self.complete = true;
                }
                Input::Event(event) => self.core.handle(event),
                Input::Received(messages, permit) => {
                    self.core.handle(Event::Received(messages));
                    drop(permit);
                }
                Input::Stop => next = Next::Leave,
            }
        }
        next
    }

    /// Proposals and reads that wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether those that wait are all that come for now.
    pub(super) const fn are_complete(&self) -> bool {
        self.complete
    }

    /// Has the core see to the proposals and reads that wait.
    pub(super) fn let_go(&mut self) {
        self.complete = false;
        let waiting = self.waiting.drain(..);
        waiting.for_each(|event| self.core.handle(event));
    }

    /// A tick of the clock has passed.
    pub(super) fn tick(&mut self) {
        self.core.tick();
        self.shared.disk_hangs(self.core.disk_hangs());
        *self.shared.followers.write() = self.core.followers();
    }

    /// Says what is to be done, and shows everybody where this node stands. Stops after [`Effect::Fail`].
    pub(super) fn effects(&mut self, out: &mut Vec<Effect<R>>) -> Next {
        let mut next = Next::Turn;
        self.core.effects(out);
        for effect in &*out {
            match effect {
                Effect::Role(role) => {
                    *self.shared.followers.write() = self.core.followers();
                    self.shared.role.send_replace(*role);
                }
                Effect::SnapshotWanted => self.shared.snapshot_wanted.notify_one(),
                Effect::Fail(why) => {
                    tracing::error!(%why, "this node stops taking part");
                    self.shared.fail(why.clone(), false);
                    next = Next::Leave;
                }
                Effect::Send(_)
                | Effect::Write(_)
                | Effect::Compact(_)
                | Effect::Apply(_)
                | Effect::Members(_) => {}
            }
        }
        let (committed, last) = (self.core.committed(), self.core.last_index());
        self.shared.committed.store(committed, Ordering::Release);
        self.shared.last.store(last, Ordering::Release);
        next
    }
}

/// Consensus without threads: whoever holds it plays them, one turn, one write and one task at a time. For simulations.
pub struct Bare<M: Machine> {
    turns: Turns<M::Reply>,
    applier: Applier<M>,
}

impl<M: Machine> Bare<M> {
    /// Begins from what is on disk. The handle is the one that production code has.
    pub fn new(
        begin: Begin,
        life: u64,
        machine: M,
    ) -> Result<(Self, Handle<M::Reply>), peer::Error> {
        let applied = Arc::new(AtomicU64::new(begin.applied));
        let core = Core::new(begin, life)?;
        let shared = Arc::new(Shared::new(Arc::clone(&applied), core.last_index()));
        let bare = Self {
            turns: Turns::new(core, Arc::clone(&shared)),
            applier: Applier::shared(machine, applied),
        };
        Ok((bare, Handle { shared }))
    }

    /// The core, to look at.
    pub fn core(&self) -> &Core<M::Reply> {
        &self.turns.core
    }

    /// The core, for the election timeout that is drawn by chance otherwise.
    pub fn core_mut(&mut self) -> &mut Core<M::Reply> {
        &mut self.turns.core
    }

    /// Whether something has come in.
    pub fn is_waiting(&self) -> bool {
        !self.turns.shared.inbox.is_empty()
    }

    /// A tick of the clock has passed.
    pub fn tick(&mut self) {
        self.turns.tick();
    }

    /// Takes in what has come and says what is to be done about it; false once it has stopped.
    pub fn turn(&mut self, out: &mut Vec<Effect<M::Reply>>) -> bool {
        self.turns.take(Duration::ZERO);
        self.turns.let_go();
        self.turns.effects(out) == Next::Turn
    }

    /// What the log thread has to say.
    pub fn tell(&self, event: Event<M::Reply>) {
        let _ = self.turns.shared.tell(event);
    }

    /// The log can no longer be written, or can be again.
    pub fn stalled(&self, stall: Option<Stall>) {
        self.tell(Event::Stalled(stall.is_some()));
        self.turns.shared.stalled(stall);
    }

    /// Does one task of the apply thread. An error stops this node for good.
    pub fn apply(&mut self, task: Task<M::Reply>) -> Result<(), String> {
        if let Err(why) = self.applier.take(task) {
            self.turns.shared.fail(why.clone(), false);
            return Err(why);
        }
        self.tell(Event::Applied(self.applier.applied()));
        Ok(())
    }
}
