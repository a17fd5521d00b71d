//! The front door of consensus: propose bytes, wait until a read is safe, see where it stands.

mod inbound;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use raft::eraftpb::Message;
use tokio::sync::{Notify, oneshot, watch};

use super::admission::{Admission, MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES, Permit};
use super::change::{Change, ChangeError};
use super::driver::TICK;
use super::event::{Event, ReadWaiter, Waiter};
use super::log::Position;
use super::peer::{ELECTION_TICKS, NodeProgress, Role};
use super::queue::Queue;
use crate::members::Members;
use crate::tasks::Ended;

/// Raft gives a transfer up after one election timeout; the new leader's first word takes a moment more.
const TRANSFER_TIMEOUT: Duration = TICK.saturating_mul(2 * ELECTION_TICKS as u32);

/// Messages from other nodes that wait to be taken in; what comes beyond is dropped, and Raft sends it again.
const MAX_RECEIVED: usize = 16_384;

/// Bytes of the same: what a leader may have on its way to a follower, and as much again.
pub(super) const MAX_RECEIVED_BYTES: usize = 64 << 20;

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

impl std::fmt::Display for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full"),
            Self::Failing(why) => f.write_str(why),
        }
    }
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

/// An entry that is to go into the log.
pub(crate) struct Ready<R> {
    data: Bytes,
    waiter: Waiter<R>,
    shared: Arc<Shared<R>>,
}

/// Where the outcome of a proposal comes.
pub(crate) type Waiting<R> = oneshot::Receiver<Result<R, Refused>>;

/// Milliseconds since 1970, as the log sees them, by whether this node leads; nothing where it does not know.
type Now = dyn Fn(bool) -> Option<u64> + Send + Sync;

/// What the three threads and the handles share.
pub(super) struct Shared<R> {
    pub(super) inbox: Queue<Input<R>>,
    pub(super) admission: Arc<Admission>,
    pub(super) received: Arc<Admission>,
    pub(super) role: watch::Sender<Role>,
    pub(super) state: RwLock<State>,
    /// What has stopped it, unless it was asked to.
    failed: watch::Sender<Option<Ended>>,
    pub(super) committed: AtomicU64,
    pub(super) applied: Arc<AtomicU64>,
    pub(super) last: AtomicU64,
    /// Whether the disk has room for submissions, for the others to know.
    has_room: AtomicBool,
    /// For how many ticks the disk under the log has not answered; 0 unless it is said to hang.
    disk_hangs: AtomicU64,
    /// The time as this node puts it into the log, for the others to know.
    time: OnceLock<Box<Now>>,
    pub(super) followers: RwLock<Vec<NodeProgress>>,
    pub(super) snapshot_wanted: Notify,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the Raft thread is told.
pub(super) enum Input<R> {
    Event(Event<R>),
    /// A proposal behind which nobody comes for now.
    Last(Event<R>),
    /// Counted until they are taken in.
    Received(Vec<Message>, Permit),
    Stop,
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

impl<R: Send + 'static> Handle<R> {
    /// Puts an entry into the log and waits until it is applied. Dropping the future does not take it back.
    pub async fn propose(&self, data: Bytes) -> Result<R, Refused> {
        let (ready, waiting) = self.prepare(data)?;
        ready.go();
        waiting.await.unwrap_or(Err(Refused::OutcomeUnknown))
    }

    /// Takes a place for an entry that is to go into the log at a moment of somebody else's choice, and says where the
    /// outcome comes. One that never goes comes to nothing.
    pub(crate) fn prepare(&self, data: Bytes) -> Result<(Ready<R>, Waiting<R>), Refused> {
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
        let (waiter, waiting) = Waiter::within(Some(permit));
        let shared = Arc::clone(&self.shared);
        let ready = Ready {
            data,
            waiter,
            shared,
        };
        Ok((ready, waiting))
    }

    /// Waits until every entry acknowledged before this call is applied here, on whichever node this is.
    pub async fn read(&self) -> Result<(), Refused> {
        if let State::Stopped(why) = self.state() {
            return Err(Refused::Stopped(why));
        }
        let permit = self.shared.admission.enter(0).ok_or(Refused::Busy)?;
        let (waiter, waiting) = ReadWaiter::within(Some(permit));
        self.shared.ask(Event::Read(waiter));
        waiting.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Changes who belongs to the cluster, and waits until that is applied here. Answers with who belongs to it then.
    pub async fn change(&self, change: Change) -> Result<Members, ChangeError> {
        // Who does not lead says who does, whatever its own disk is like.
        if let (Ok(()), State::Stalled(stall)) = (self.leads(), self.state()) {
            return Err(ChangeError::Stalled(stall.to_string()));
        }
        let (waiter, waiting) = oneshot::channel();
        self.shared
            .tell(Event::Change(change, waiter))
            .map_err(|()| ChangeError::Stopped(self.why_stopped()))?;
        waiting.await.unwrap_or(Err(ChangeError::OutcomeUnknown))
    }

    /// Hands leadership to this node, or to the one that fits best, and waits until it has taken over. Proposals are
    /// refused meanwhile. Answers with the new leader.
    pub async fn transfer(&self, to: Option<u64>) -> Result<u64, ChangeError> {
        let mut role = self.role();
        let (answer, waiting) = oneshot::channel();
        self.shared
            .tell(Event::Transfer(to, answer))
            .map_err(|_| ChangeError::Stopped(self.why_stopped()))?;
        let to = waiting
            .await
            .map_err(|_| ChangeError::Stopped(self.why_stopped()))??;
        let taken = role.wait_for(|role| !role.leads && role.leader == Some(to));
        match tokio::time::timeout(TRANSFER_TIMEOUT, taken).await {
            Ok(Ok(_)) => Ok(to),
            Ok(Err(_)) | Err(_) => Err(ChangeError::NotTaken(to)),
        }
    }

    /// A snapshot of this entry is on disk: it can be sent to a node that is too far behind.
    pub fn snapshot_taken(&self, at: Position, members: Members) {
        let _ = self.shared.tell(Event::SnapshotTaken(at, members));
    }

    /// Waits until another node needs a snapshot that is not there.
    pub async fn snapshot_wanted(&self) {
        self.shared.snapshot_wanted.notified().await;
    }

    /// Another node needs a snapshot.
    #[cfg(test)]
    pub(crate) fn want_snapshot(&self) {
        self.shared.snapshot_wanted.notify_one();
    }

    /// Forgets the log up to `index`, which is safe in snapshots.
    pub fn compact(&self, index: u64) {
        let _ = self.shared.tell(Event::Compact(index));
    }

    /// Term and leader, and every change of them.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.shared.role.subscribe()
    }

    /// Whether this node leads, as it is told to everybody: an error that says who does instead, or why it has stopped.
    pub(crate) fn leads(&self) -> Result<(), Refused> {
        if let State::Stopped(why) = &*self.shared.state.read() {
            return Err(Refused::Stopped(why.clone()));
        }
        let role = *self.shared.role.borrow();
        let leader = role.leader;
        match role.leads {
            true => Ok(()),
            false => Err(Refused::NotLeader { leader }),
        }
    }

    /// How far the log is.
    pub fn progress(&self) -> Progress {
        Progress {
            committed: self.shared.committed.load(Ordering::Acquire),
            applied: self.shared.applied.load(Ordering::Acquire),
            last: self.shared.last.load(Ordering::Acquire),
        }
    }

    /// How far everybody else is, as of the last tick; nobody on a node that does not lead.
    pub fn followers(&self) -> Vec<NodeProgress> {
        self.shared.followers.read().clone()
    }

    /// From now on the others are told that the disk here has room for submissions, or none.
    pub(crate) fn note_room(&self, has_room: bool) {
        self.shared.has_room.store(has_room, Ordering::Relaxed);
    }

    /// From now on the others are told the time, by whether this node leads. What is given first stays.
    pub(crate) fn tell_time(&self, now_ms: impl Fn(bool) -> Option<u64> + Send + Sync + 'static) {
        let _ = self.shared.time.set(Box::new(now_ms));
    }

    /// Waits until it has stopped for good without having been asked to, and says why: for ever, if that does not happen.
    pub async fn failed(&self) -> Ended {
        let mut failed = self.shared.failed.subscribe();
        let failed = failed.wait_for(Option::is_some).await;
        match failed.ok().and_then(|failed| failed.clone()) {
            Some(failed) => failed,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// Whether it runs.
    pub fn state(&self) -> State {
        self.shared.state.read().clone()
    }

    /// For how long the disk under the log has not answered, if it is said to hang ([`HANGS_TICKS`](super::HANGS_TICKS)).
    pub fn disk_hangs(&self) -> Option<Duration> {
        let ticks = self.shared.disk_hangs.load(Ordering::Relaxed);
        let silent = TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
        (ticks > 0).then_some(silent)
    }

    /// Proposals and reads without an answer yet.
    pub fn in_flight(&self) -> usize {
        self.shared.admission.in_flight()
    }

    /// Has the threads stop, without waiting for them.
    pub fn stop(&self) {
        // One that is gone has stopped already.
        let _ = self.shared.inbox.push(Input::Stop);
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

    fn stopped(&self) -> Refused {
        Refused::Stopped(self.why_stopped())
    }

    fn why_stopped(&self) -> String {
        self.shared.why_stopped()
    }
}

impl<R> Ready<R> {
    /// Into the log with it, from any thread. Whoever waits hears what comes of it.
    pub(crate) fn go(self) {
        self.shared.ask(Event::Propose(self.data, self.waiter));
    }

    /// The same for one behind which nobody comes for now: it goes at once, with everything that waits.
    pub(crate) fn go_now(self) {
        let event = Event::Propose(self.data, self.waiter);
        let pushed = self.shared.inbox.push(Input::Last(event));
        self.shared.refuse(pushed);
    }
}

impl<R> Shared<R> {
    /// What a node that begins with this log shares; `applied` says how far it has been applied.
    pub(super) fn new(applied: Arc<AtomicU64>, last: u64) -> Self {
        Self {
            inbox: Queue::new(),
            admission: Admission::new(MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES),
            received: Admission::new(MAX_RECEIVED, MAX_RECEIVED_BYTES),
            role: watch::Sender::new(Role::default()),
            state: RwLock::new(State::Running),
            failed: watch::Sender::default(),
            committed: AtomicU64::new(applied.load(Ordering::Acquire)),
            applied,
            last: AtomicU64::new(last),
            has_room: AtomicBool::new(true),
            disk_hangs: AtomicU64::new(0),
            time: OnceLock::new(),
            followers: RwLock::default(),
            snapshot_wanted: Notify::new(),
            threads: Mutex::new(Vec::new()),
        }
    }

    /// Has the Raft thread decide about this; an error if that has stopped.
    pub(super) fn tell(&self, event: Event<R>) -> Result<(), ()> {
        self.inbox.push(Input::Event(event)).map_err(drop)
    }

    /// The same for a proposal or a read, which may wait for others like it (see [`super::gather`]). Whoever waits for it
    /// is told if the thread has stopped.
    fn ask(&self, event: Event<R>) {
        self.refuse(self.inbox.push_patiently(Input::Event(event)));
    }

    /// Tells whoever waits for what the thread did not take in that it has stopped.
    fn refuse(&self, pushed: Result<(), Input<R>>) {
        let stopped = || Refused::Stopped(self.why_stopped());
        match pushed {
            Err(
                Input::Event(Event::Propose(_, waiter)) | Input::Last(Event::Propose(_, waiter)),
            ) => {
                waiter.answer(Err(stopped()));
            }
            Err(Input::Event(Event::Read(waiter))) => waiter.answer(Err(stopped())),
            _ => {}
        }
    }

    fn why_stopped(&self) -> String {
        match &*self.state.read() {
            State::Stopped(why) => why.clone(),
            _ => "it is shutting down".to_owned(),
        }
    }

    /// Stops for good and says why; the first reason stays. `again` as in [`Ended`].
    pub(super) fn fail(&self, why: String, again: bool) {
        if self.stop(why.clone()) {
            self.failed.send_replace(Some(Ended {
                task: "consensus",
                why,
                again,
            }));
        }
    }

    /// Nothing more comes in: the Raft thread is at its end.
    pub(super) fn leave(&self) {
        self.stop("it was shut down".to_owned());
        self.inbox.abandon();
        self.followers.write().clear();
        self.role
            .send_modify(|role| (role.leads, role.leader) = (false, None));
    }

    /// Whether this is the first word of a stop.
    fn stop(&self, why: String) -> bool {
        let mut state = self.state.write();
        let first = !matches!(*state, State::Stopped(_));
        if first {
            *state = State::Stopped(why);
        }
        first
    }

    /// A tick has passed, with so many in which the disk has not answered, if it is said to hang.
    pub(super) fn disk_hangs(&self, ticks: Option<u64>) {
        let before = self.disk_hangs.swap(ticks.unwrap_or(0), Ordering::Relaxed);
        match (before, ticks) {
            (0, Some(_)) => tracing::error!(
                "the disk under the log does not answer; what is written here waits until it does"
            ),
            (1.., None) => tracing::info!("the disk under the log answers again"),
            _ => {}
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
