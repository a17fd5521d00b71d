//! The threads: one turns what comes in over to the core and does what it says, one writes the log, one applies it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use super::applier::{Applier, Machine};
use super::core::{Core, Effect};
use super::event::{Event, Task};
use super::gather::Gather;
use super::handle::{Handle, Input, Shared};
use super::log::{Loaded, LogStore, Position};
use super::peer::Begin;
use super::queue::Queue;
use super::transport::Transport;
use super::turn::{Next, Turns};
use super::writer::{self, Job};
use crate::members::Members;
use crate::tasks::words;

/// One Raft tick. An election takes ten to twenty of them.
pub const TICK: Duration = Duration::from_millis(50);

/// The queue wakes its reader; this only bounds how long a stopped process can go unnoticed.
const WAIT: Duration = Duration::from_secs(10);

/// What a node starts consensus with.
pub struct Start<M, L> {
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
    /// The newest snapshot on disk, to be sent to a node that is too far behind.
    pub snapshot: Option<(Position, Members)>,
    /// Drawn at random at every start.
    pub life: u64,
    /// The replicated state.
    pub machine: M,
    /// The way to other nodes.
    pub transport: Arc<dyn Transport>,
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
pub fn start<M, L>(start: Start<M, L>) -> Result<Handle<M::Reply>, Error>
where
    M: Machine,
    L: LogStore,
{
    let begin = Begin {
        id: start.node_id,
        loaded: start.loaded,
        applied: start.applied,
        members: start.members,
        snapshot: start.snapshot,
    };
    let core = Core::new(begin, start.life)?;
    start.transport.members(core.members());
    let applied = Arc::new(AtomicU64::new(start.applied));
    let shared = Arc::new(Shared::new(Arc::clone(&applied), core.last_index()));
    let jobs = Arc::new(Queue::new());
    let tasks = Arc::new(Queue::new());
    let driver = Driver {
        turns: Turns::new(core, Arc::clone(&shared)),
        jobs: Arc::clone(&jobs),
        tasks: Arc::clone(&tasks),
        transport: Arc::clone(&start.transport),
        effects: Vec::new(),
    };
    let writer = writer::Writer::new(start.log, jobs, Arc::clone(&shared), start.transport);
    let applier = Applier::shared(start.machine, applied);
    let applying = Arc::clone(&shared);
    let left = (
        Arc::clone(&shared),
        Arc::clone(&driver.jobs),
        Arc::clone(&tasks),
    );
    // What was handed out is still written and applied, also when the thread has failed: the others end behind it.
    let leave = move || {
        let (shared, jobs, tasks) = left;
        shared.leave();
        jobs.close();
        tasks.close();
    };
    let threads = [
        spawn("raft", &shared, move || driver.run(), leave),
        spawn("log", &shared, move || writer.run(), || {}),
        spawn(
            "apply",
            &shared,
            move || apply(applier, &tasks, &applying),
            || {},
        ),
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

/// A thread whose panic stops consensus instead of leaving it half alive. `leave` is what it does last, in any case.
fn spawn<R: Send + 'static>(
    name: &'static str,
    shared: &Arc<Shared<R>>,
    run: impl FnOnce() + Send + 'static,
    leave: impl FnOnce() + Send + 'static,
) -> std::io::Result<thread::JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            let words = words(panic.as_ref());
            tracing::error!(thread = name, reason = words, "consensus has stopped");
            shared.fail(format!("its {name} thread has failed: {words}"), true);
        }
        leave();
        // Whichever thread ends first takes the others with it: no half of consensus is of any use.
        let _ = shared.inbox.push(Input::Stop);
    })
}

/// The apply thread.
fn apply<M: Machine>(
    mut applier: Applier<M>,
    queue: &Queue<Task<M::Reply>>,
    shared: &Shared<M::Reply>,
) {
    let mut tasks = Vec::new();
    while queue.drain(&mut tasks, WAIT) {
        for task in tasks.drain(..) {
            if let Err(why) = applier.take(task) {
                tracing::error!(%why, "applying the log has stopped");
                shared.fail(why, false);
                queue.abandon();
                return;
            }
        }
        // Once for everything that was waiting: Raft only needs to know how far this is.
        let _ = shared.tell(Event::Applied(applier.applied()));
    }
    applier.lose_all();
}

/// The Raft thread.
struct Driver<R> {
    turns: Turns<R>,
    jobs: Arc<Queue<Job>>,
    tasks: Arc<Queue<Task<R>>>,
    transport: Arc<dyn Transport>,
    effects: Vec<Effect<R>>,
}

impl<R: Send + 'static> Driver<R> {
    fn run(mut self) {
        let mut next_tick = Instant::now() + TICK;
        let mut gather = Gather::new(Instant::now());
        let mut next = self.act();
        while next == Next::Turn {
            let now = Instant::now();
            let mut wait = next_tick.saturating_duration_since(now);
            if self.turns.waiting() > 0 {
                wait = wait.min(gather.left(now));
            }
            if self.turns.take(wait) == Next::Leave {
                break;
            }
            let now = Instant::now();
            if gather.lets_go(self.turns.waiting(), self.turns.are_complete(), now) {
                self.turns.let_go();
            }
            if now >= next_tick {
                // A late thread ticks once, not once for each tick it missed: nobody has been silent but itself.
                next_tick = now + TICK;
                self.turns.tick();
            }
            next = self.act();
        }
    }

    /// Does everything the core has decided.
    fn act(&mut self) -> Next {
        let mut effects = std::mem::take(&mut self.effects);
        let next = self.turns.effects(&mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(messages) => self.transport.send(messages),
                Effect::Write(write) => {
                    let _ = self.jobs.push(Job::Write(write));
                }
                Effect::Compact(to) => {
                    let _ = self.jobs.push(Job::Compact(to));
                }
                Effect::Apply(task) => {
                    let _ = self.tasks.push(task);
                }
                Effect::Role(role) => {
                    let _ = self.tasks.push(Task::Role(role));
                }
                Effect::Members(members) => self.transport.members(&members),
                // Told to whom it concerns by the turn itself.
                Effect::SnapshotWanted | Effect::Fail(_) => {}
            }
        }
        self.effects = effects;
        next
    }
}
