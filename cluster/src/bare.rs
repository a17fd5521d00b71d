//! A node without threads, files, sockets or a clock of its own: whoever holds it moves it. Everything that decides in it
//! is what [`Node::start`](crate::Node::start) puts together as well, so that a simulation finds its mistakes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::FutureExt;
use stepcast_scheduler::State;

use crate::config::Config;
use crate::consensus::log::Position;
use crate::consensus::{self, Begin, Core, Effect, Event, Stall, Task, Transport};
use crate::handle::{Handle, Inner};
use crate::identity::Identity;
use crate::jobs::Follower;
use crate::leader::{Parts, Recorder, Slot, duties};
use crate::members::Members;
use crate::network::Way;
use crate::node::Assembly;
use crate::ports::Ports;
use crate::proposer::{Outcome, Proposer};
use crate::replica::{Received, Replica};
use crate::runtime::Runtime;
use crate::snapshot::Snapshots;
use crate::snapshotter::{Gate, Snapshotter};
use crate::stamp::Stamper;
use crate::tasks::Tasks;

/// The state in a snapshot that another node has sent.
pub type Incoming = Box<dyn Fn(Position) -> Result<State, String> + Send>;

/// What a bare node begins with.
pub struct Start {
    /// Its settings; nothing is looked for in its directory.
    pub config: Config,
    /// What it asks of the world.
    pub ports: Ports,
    /// Who runs its tasks.
    pub runtime: Arc<dyn Runtime>,
    /// What its log holds.
    pub begin: Begin,
    /// The state as of the entry the log is applied to.
    pub state: State,
    /// That entry.
    pub at: Position,
    /// A number no other life of the node has.
    pub life: u64,
    /// Snapshots that come from other nodes.
    pub incoming: Incoming,
    /// What the duties ask of the way to other nodes. Messages do not go there: they are [`Effect`]s.
    pub transport: Arc<dyn Transport>,
}

/// A node that is moved from outside: ticks and messages go in, [`Effect`]s come out.
pub struct Bare {
    consensus: consensus::Bare<Replica<Follower, From>>,
    handle: Handle,
}

struct From(Incoming);

impl Received for From {
    fn take(&self, at: Position) -> Result<State, String> {
        (self.0)(at)
    }
}

impl Bare {
    /// Starts a node and its duties.
    ///
    /// # Errors
    /// If Raft refuses what is stored.
    pub fn start(start: Start) -> Result<Self, consensus::Error> {
        let (config, ports, runtime) = (start.config, start.ports, start.runtime);
        let node_id = start.begin.id;
        let parts = Assembly::new(&config, start.state, start.begin.members.clone(), start.at);
        let stamper = parts
            .replicated
            .read(|state| Stamper::new(Arc::clone(&ports.clock), state.newest_stamp_ms()));
        let machine = Replica::new(
            Arc::clone(&parts.replicated),
            Arc::new(parts.follower(&ports.credentials)),
            From(start.incoming),
            config.log_format,
        );
        let (consensus, opened) = consensus::Bare::new(start.begin, start.life, machine)?;
        let disk_free = Arc::new(AtomicU64::new(u64::MAX));
        let proposer = Arc::new(Proposer::new(
            opened.clone(),
            Arc::clone(&parts.replicated),
            stamper,
            Arc::clone(&disk_free),
            config.disk_reserve_bytes,
            Arc::clone(&parts.metrics),
            Arc::clone(&runtime),
        ));
        let slot = Slot::default();
        let (recorder, recording) = Recorder::new(
            Arc::clone(&ports.recorder),
            config.record_every,
            Arc::clone(&runtime),
        );
        let live = Arc::default();
        let gate = Arc::new(Gate::default());
        // Its files are the simulation's affair: this one is asked for nothing.
        let snapshotter = Snapshotter {
            replicated: Arc::clone(&parts.replicated),
            snapshots: Snapshots::unopened(),
            consensus: opened.clone(),
            due: parts.due,
            gate: Arc::clone(&gate),
            every: config.snapshot_every,
            log_tail_entries: config.log_tail_entries,
            newest: Arc::clone(&parts.snapshot_index),
        };
        let credentials = Arc::clone(&ports.credentials);
        let leading = Parts {
            config: config.clone(),
            ports,
            runtime: Arc::clone(&runtime),
            node_id,
            consensus: opened.clone(),
            transport: Arc::clone(&start.transport),
            replicated: Arc::clone(&parts.replicated),
            proposer: Arc::clone(&proposer),
            signals: parts.signals,
            hub: Arc::clone(&parts.hub),
            live: Arc::clone(&live),
            metrics: Arc::clone(&parts.metrics),
        };
        runtime.spawn(recording.boxed());
        runtime.spawn(duties::run(leading, Arc::clone(&slot), opened.role()).boxed());
        let handle = Handle(Arc::new(Inner {
            identity: Identity::pretend(node_id),
            config,
            consensus: opened,
            proposer,
            replicated: parts.replicated,
            hub: parts.hub,
            live,
            slot,
            credentials,
            recorder,
            metrics: parts.metrics,
            disk_free,
            snapshot_index: parts.snapshot_index,
            gate,
            way: Way::other(start.transport),
            snapshotter: Arc::new(snapshotter),
            tasks: Tasks::default(),
        }));
        Ok(Self { consensus, handle })
    }

    /// The node's front door.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The core of its consensus, to look at.
    pub fn core(&self) -> &Core<Outcome> {
        self.consensus.core()
    }

    /// What would be drawn by chance: the ticks until it campaigns.
    pub fn set_election_timeout(&mut self, ticks: usize) {
        self.consensus.core_mut().set_election_timeout(ticks);
    }

    /// Whether something waits to be decided.
    pub fn is_waiting(&self) -> bool {
        self.consensus.is_waiting()
    }

    /// A tick of the clock has passed.
    pub fn tick(&mut self) {
        self.consensus.tick();
    }

    /// Something happened, as the log thread or another node says.
    pub fn tell(&self, event: Event<Outcome>) {
        self.consensus.tell(event);
    }

    /// The log can no longer be written, or can be again.
    pub fn stalled(&self, stall: Option<Stall>) {
        self.consensus.stalled(stall);
    }

    /// Decides about everything that waits; false once the node has stopped.
    pub fn turn(&mut self, out: &mut Vec<Effect<Outcome>>) -> bool {
        self.consensus.turn(out)
    }

    /// Does one task of the apply thread.
    ///
    /// # Errors
    /// A sentence that says why the node has stopped.
    pub fn apply(&mut self, task: Task<Outcome>) -> Result<(), String> {
        self.consensus.apply(task)
    }

    /// The state with who belongs to the cluster, and the entry both are as of.
    pub fn read_at<T>(&self, read: impl FnOnce(&State, &Members, Position) -> T) -> T {
        self.handle.0.replicated.read_at(read)
    }
}
