//! The front door of consensus: propose bytes, wait until a read is safe, see where it stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use raft::eraftpb::Message;
use tokio::sync::{oneshot, watch};

use super::admission::{Admission, Permit};
use super::peer::Role;
use super::queue::Queue;

/// Why a proposal or a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// This node does not lead.
    NotLeader {
        /// Who does, if known.
        leader: Option<u64>,
    },
    /// Too much is in flight.
    Busy,
    /// The proposal may or may not have taken effect.
    OutcomeUnknown,
    /// The log cannot be written for now.
    Stalled(Stall),
    /// Consensus has stopped, and why.
    Stopped(String),
}

/// Whether the log can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stall {
    /// The disk is full.
    Full,
    /// Anything else, in one sentence.
    Failing(String),
}

/// How far the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Highest committed index.
    pub committed: u64,
    /// Highest applied index.
    pub applied: u64,
    /// Highest index in the log.
    pub last: u64,
}

/// A running consensus. Cheap to clone; the last shutdown wins.
pub struct Handle<R> {
    pub(super) shared: Arc<Shared<R>>,
}

/// What the three threads and the handles share.
pub(super) struct Shared<R> {
    pub(super) inbox: Queue<Event<R>>,
    pub(super) admission: Arc<Admission>,
    pub(super) role: watch::Sender<Role>,
    pub(super) state: RwLock<State>,
    pub(super) committed: AtomicU64,
    pub(super) applied: AtomicU64,
    pub(super) last: AtomicU64,
    pub(super) voters: RwLock<Vec<u64>>,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Whether consensus runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// It does.
    #[default]
    Running,
    /// The log cannot be written for now.
    Stalled(Stall),
    /// It has stopped for good, and why.
    Stopped(String),
}

/// What the Raft thread is told.
pub(super) enum Event<R> {
    Propose(Bytes, Waiter<R>),
    Read(ReadWaiter),
    Received(Vec<Message>),
    Persisted(u64),
    Applied(u64),
    Compact(u64),
    Stop,
}

/// Somebody waiting for the outcome of a proposal.
pub(super) struct Waiter<R> {
    answer: oneshot::Sender<Result<R, Refused>>,
    _permit: Permit,
}

/// Somebody waiting until a read is safe.
pub(super) struct ReadWaiter {
    answer: oneshot::Sender<Result<(), Refused>>,
    _permit: Permit,
}

impl<R> Waiter<R> {
    /// Gives the outcome; the receiver may have gone.
    pub(super) fn answer(self, outcome: Result<R, Refused>) {
        let _ = self.answer.send(outcome);
    }
}

impl ReadWaiter {
    pub(super) fn answer(self, outcome: Result<(), Refused>) {
        let _ = self.answer.send(outcome);
    }

    /// Whether nobody waits any more.
    pub(super) fn gone(&self) -> bool {
        self.answer.is_closed()
    }
}

impl<R: Send + 'static> Handle<R> {
    /// Puts an entry into the log and waits until it is applied. Dropping the future does not take it back.
    pub async fn propose(&self, data: Bytes) -> Result<R, Refused> {
        let waiting = self.enter(data)?;
        waiting.await.unwrap_or(Err(Refused::OutcomeUnknown))
    }

    /// Waits until every entry acknowledged before this call is applied here.
    pub async fn read(&self) -> Result<(), Refused> {
        if let State::Stopped(why) = self.state() {
            return Err(Refused::Stopped(why));
        }
        let permit = self.shared.admission.enter(0).ok_or(Refused::Busy)?;
        let (answer, waiting) = oneshot::channel();
        let event = Event::Read(ReadWaiter {
            answer,
            _permit: permit,
        });
        self.shared.inbox.push(event).map_err(|_| self.stopped())?;
        waiting.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Hands on what other nodes sent.
    pub fn receive(&self, messages: Vec<Message>) {
        // A node that has stopped hears nothing; Raft copes with lost messages.
        let _ = self.shared.inbox.push(Event::Received(messages));
    }

    /// Forgets the log up to `index`, which is safe in snapshots.
    pub fn compact(&self, index: u64) {
        let _ = self.shared.inbox.push(Event::Compact(index));
    }

    /// Term and leader, and every change of them.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.shared.role.subscribe()
    }

    /// How far the log is.
    pub fn progress(&self) -> Progress {
        Progress {
            committed: self.shared.committed.load(Ordering::Acquire),
            applied: self.shared.applied.load(Ordering::Acquire),
            last: self.shared.last.load(Ordering::Acquire),
        }
    }

    /// Who votes.
    pub fn voters(&self) -> Vec<u64> {
        self.shared.voters.read().clone()
    }

    /// Whether it runs.
    pub fn state(&self) -> State {
        self.shared.state.read().clone()
    }

    /// Proposals and reads without an answer yet.
    pub fn in_flight(&self) -> usize {
        self.shared.admission.in_flight()
    }

    /// Has the threads stop, without waiting for them.
    pub fn stop(&self) {
        // One that is gone has stopped already.
        let _ = self.shared.inbox.push(Event::Stop);
    }

    /// Stops the threads and waits for them. What is in the log's queue still reaches the disk; what is not committed
    /// is answered with an unknown outcome. Blocks.
    pub fn shutdown(&self) {
        self.stop();
        let threads = std::mem::take(&mut *self.shared.threads.lock());
        for thread in threads {
            // Each thread catches its own panics and writes down why.
            let _ = thread.join();
        }
    }

    fn enter(&self, data: Bytes) -> Result<oneshot::Receiver<Result<R, Refused>>, Refused> {
        match &*self.shared.state.read() {
            State::Running => {}
            State::Stalled(stall) => return Err(Refused::Stalled(stall.clone())),
            State::Stopped(why) => return Err(Refused::Stopped(why.clone())),
        }
        let permit = self
            .shared
            .admission
            .enter(data.len())
            .ok_or(Refused::Busy)?;
        let (answer, waiting) = oneshot::channel();
        let event = Event::Propose(
            data,
            Waiter {
                answer,
                _permit: permit,
            },
        );
        self.shared.inbox.push(event).map_err(|_| self.stopped())?;
        Ok(waiting)
    }

    fn stopped(&self) -> Refused {
        match self.state() {
            State::Stopped(why) => Refused::Stopped(why),
            _ => Refused::Stopped("it is shutting down".to_owned()),
        }
    }
}

impl<R> Shared<R> {
    /// Stops for good and says why; the first reason stays.
    pub(super) fn stop(&self, why: String) {
        let mut state = self.state.write();
        if !matches!(*state, State::Stopped(_)) {
            *state = State::Stopped(why);
        }
    }

    /// The log works again, or not, unless everything has stopped already.
    pub(super) fn stalled(&self, stall: Option<Stall>) {
        let mut state = self.state.write();
        if !matches!(*state, State::Stopped(_)) {
            *state = stall.map_or(State::Running, State::Stalled);
        }
    }
}

impl<R> Clone for Handle<R> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}
