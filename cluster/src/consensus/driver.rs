//! The thread that owns Raft: it takes what came in, lets the peer decide, and hands out what follows.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::admission::Admission;
use super::applier::{self, Machine, Task};
use super::handle::{Event, Handle, ReadWaiter, Refused, Shared, State, Waiter};
use super::log::{Loaded, LogStore};
use super::peer::{Dropped, Output, Peer, Role};
use super::queue::Queue;
use super::transport::Transport;
use super::writer::{self, Job};
use crate::members::Members;

/// One Raft tick. An election takes ten to twenty of them.
pub const TICK: Duration = Duration::from_millis(100);

/// Entries in one proposal message; more are split, so that one turn's work stays in the cache.
const PROPOSE_AT_ONCE: usize = 4096;

/// A read that got no answer for this many ticks is asked for again: Raft drops such questions in silence.
const READ_AGAIN_TICKS: u64 = 5;

/// What a node starts consensus with.
pub struct Start<M, L, T> {
    /// This node, never 0.
    pub node_id: u64,
    /// The log, already read.
    pub log: L,
    /// What was read from it.
    pub loaded: Loaded,
    /// Who belongs to the cluster as of `applied`.
    pub members: Members,
    /// The entry the machine is restored to.
    pub applied: u64,
    /// The replicated state.
    pub machine: M,
    /// The way to other nodes.
    pub transport: Arc<T>,
}

/// Why consensus did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Raft refuses what is stored.
    #[error(transparent)]
    Peer(#[from] super::peer::Error),
    /// A thread could not be made.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// Starts the Raft, log and apply threads.
pub fn start<M, L, T>(start: Start<M, L, T>) -> Result<Handle<M::Reply>, Error>
where
    M: Machine,
    L: LogStore,
    T: Transport,
{
    let mut peer = Peer::new(
        start.node_id,
        start.loaded,
        start.members.conf_state(),
        start.applied,
    )?;
    peer.start()?;
    let shared = Arc::new(Shared {
        inbox: Queue::new(),
        admission: Arc::new(Admission::default()),
        role: watch::Sender::new(Role::default()),
        state: RwLock::new(State::Running),
        committed: AtomicU64::new(start.applied),
        applied: AtomicU64::new(start.applied),
        last: AtomicU64::new(peer.last_index()),
        voters: RwLock::new(peer.voters()),
        threads: Mutex::new(Vec::new()),
    });
    let jobs = Arc::new(Queue::new());
    let tasks = Arc::new(Queue::new());
    let driver = Driver {
        peer,
        shared: Arc::clone(&shared),
        jobs: Arc::clone(&jobs),
        tasks: Arc::clone(&tasks),
        transport: Arc::clone(&start.transport),
        reads: Reads::default(),
        ticks: 0,
        outputs: Vec::new(),
    };
    let writer = writer::Writer::new(start.log, jobs, Arc::clone(&shared), start.transport);
    let applier = applier::Applier::new(start.machine, tasks, Arc::clone(&shared));
    let threads = [
        spawn("raft", &shared, move || driver.run()),
        spawn("log", &shared, move || writer.run()),
        spawn("apply", &shared, move || applier.run()),
    ];
    for thread in threads {
        match thread {
            Ok(thread) => shared.threads.lock().push(thread),
            Err(error) => {
                shared.inbox.abandon();
                return Err(Error::Thread(error));
            }
        }
    }
    Ok(Handle { shared })
}

/// A thread whose panic stops consensus instead of leaving it half alive.
fn spawn<R: Send + 'static>(
    name: &'static str,
    shared: &Arc<Shared<R>>,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<thread::JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            let words = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            tracing::error!(thread = name, reason = words, "consensus has stopped");
            shared.stop(format!("the {name} thread failed: {words}"));
        }
        // Whichever thread ends first takes the others with it: no half of consensus is of any use.
        let _ = shared.inbox.push(Event::Stop);
    })
}

struct Driver<R, T> {
    peer: Peer,
    shared: Arc<Shared<R>>,
    jobs: Arc<Queue<Job>>,
    tasks: Arc<Queue<Task<R>>>,
    transport: Arc<T>,
    reads: Reads,
    ticks: u64,
    outputs: Vec<Output>,
}

/// Reads on their way through Raft.
#[derive(Default)]
struct Reads {
    last_number: u64,
    /// Not asked for yet.
    waiting: Vec<ReadWaiter>,
    /// Asked for under a number, at a tick.
    asked: BTreeMap<u64, (u64, Vec<ReadWaiter>)>,
}

impl<R: Send + 'static, T: Transport> Driver<R, T> {
    fn run(mut self) {
        let mut events = Vec::new();
        let mut next_tick = Instant::now() + TICK;
        self.flush();
        loop {
            let wait = next_tick.saturating_duration_since(Instant::now());
            let open = self.shared.inbox.drain(&mut events, wait);
            if self.take(&mut events) || !open {
                break;
            }
            if Instant::now() >= next_tick {
                // A late thread ticks once, not once for each tick it missed: nobody has been silent but itself.
                next_tick = Instant::now() + TICK;
                self.ticks += 1;
                self.peer.tick();
                self.reads.forget_lost(self.ticks);
            }
            self.ask_reads();
            self.flush();
        }
        self.leave();
    }

    /// Takes the events in; true to stop.
    fn take(&mut self, events: &mut Vec<Event<R>>) -> bool {
        let mut stop = false;
        let mut data = Vec::new();
        let mut waiters = Vec::new();
        for event in events.drain(..) {
            match event {
                Event::Propose(bytes, waiter) => {
                    data.push(bytes);
                    waiters.push(waiter);
                    if data.len() == PROPOSE_AT_ONCE {
                        self.propose(std::mem::take(&mut data), std::mem::take(&mut waiters));
                    }
                }
                Event::Read(waiter) => self.reads.waiting.push(waiter),
                Event::Received(messages) => messages.into_iter().for_each(|m| self.peer.step(m)),
                Event::Persisted(number) => self.peer.persisted(number),
                Event::Applied(index) => self.peer.applied(index),
                Event::Compact(index) => {
                    if let Some(to) = self.peer.compact(index) {
                        let _ = self.jobs.push(Job::Compact(to));
                    }
                }
                Event::Stop => stop = true,
            }
        }
        self.propose(data, waiters);
        stop
    }

    fn propose(&mut self, data: Vec<Bytes>, waiters: Vec<Waiter<R>>) {
        if data.is_empty() {
            return;
        }
        match self.peer.propose(data) {
            Ok(proposed) => {
                // Ahead of the entries themselves, which go through the same queue once committed.
                let _ = self.tasks.push(Task::Appended {
                    first: proposed.first,
                    waiters,
                });
            }
            Err(dropped) => {
                let refused = match dropped {
                    Dropped::NotLeader => Refused::NotLeader {
                        leader: self.peer.role().leader,
                    },
                    Dropped::Busy => Refused::Busy,
                };
                waiters
                    .into_iter()
                    .for_each(|w| w.answer(Err(refused.clone())));
            }
        }
    }

    /// One question to Raft for all reads of this turn.
    fn ask_reads(&mut self) {
        if self.reads.waiting.is_empty() {
            return;
        }
        let role = self.peer.role();
        if !role.leads {
            let refused = Refused::NotLeader {
                leader: role.leader,
            };
            self.reads
                .waiting
                .drain(..)
                .for_each(|w| w.answer(Err(refused.clone())));
            return;
        }
        let number = self.reads.last_number + 1;
        if self.peer.read(number) {
            self.reads.last_number = number;
            let waiters = std::mem::take(&mut self.reads.waiting);
            self.reads.asked.insert(number, (self.ticks, waiters));
        }
    }

    /// Hands out everything the peer has decided.
    fn flush(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.peer.outputs(&mut outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Send(messages) => self.transport.send(messages),
                Output::Persist(write) => {
                    let _ = self.jobs.push(Job::Write(write));
                }
                Output::Apply(entries) => {
                    let _ = self.tasks.push(Task::Apply(entries));
                }
                Output::ReadAt { read, index } => {
                    if let Some((_, waiters)) = self.reads.asked.remove(&read) {
                        let _ = self.tasks.push(Task::ReadAt { index, waiters });
                    }
                }
                Output::Role(role) => {
                    let _ = self.tasks.push(Task::Role(role));
                    *self.shared.voters.write() = self.peer.voters();
                    self.shared.role.send_replace(role);
                }
            }
        }
        self.outputs = outputs;
        self.shared
            .committed
            .store(self.peer.committed(), Ordering::Release);
        self.shared
            .last
            .store(self.peer.last_index(), Ordering::Release);
    }

    /// Nothing more comes in; what was handed out is still written and applied.
    fn leave(&self) {
        self.shared.stop("it was shut down".to_owned());
        self.shared.inbox.abandon();
        self.jobs.close();
        self.tasks.close();
        self.shared.role.send_replace(Role {
            leads: false,
            leader: None,
            ..self.peer.role()
        });
    }
}

impl Reads {
    /// Reads whose question got lost wait to be asked for again; those nobody waits for any more are dropped.
    fn forget_lost(&mut self, now: u64) {
        self.waiting.retain(|waiter| !waiter.gone());
        while let Some(first) = self.asked.first_entry() {
            if now.saturating_sub(first.get().0) < READ_AGAIN_TICKS {
                break;
            }
            self.waiting.extend(first.remove().1);
        }
    }
}
