//! A control-plane node: its disk, its clock, and the process on it, whose threads the world plays.

pub(crate) mod snapshots;
mod threads;
pub(crate) use self::threads::{hear_of, receive, turn_soon};
mod writing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::eraftpb::{Entry, Message};
use stepcast_cluster::bare::{Bare, Start};
use stepcast_cluster::consensus::log::{LogStore, MemLog, MemLogDisk, ORIGIN, Position};
use stepcast_cluster::consensus::{Begin, Event, Inbound, Role, Task, Transport, Write};
use stepcast_cluster::credentials::MemoryKeeper;
use stepcast_cluster::members::{Member, Members};
use stepcast_cluster::peers::Admission;
use stepcast_cluster::{Config, Handle, Outcome, Ports, Runtime};
use stepcast_scheduler::placement::NoForecast;
use stepcast_scheduler::{State, codec};
use tokio::sync::oneshot;

use crate::checks::Check;
use crate::clock::{HostClock, Process};
use crate::kernel::{Act, Host, MS, Micros, Owner};
use crate::mutant::Mutant;
use crate::outside::Outside;
use crate::world::World;

/// How long a failed write waits before it is tried again.
const RETRY: (Micros, Micros) = (250 * MS, 4_000 * MS);

/// A snapshot on disk.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) at: Position,
    pub(crate) members: Members,
    pub(crate) state: Arc<Vec<u8>>,
}

/// How a node's disk is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Quick.
    Fine,
    /// Every sync takes long.
    Slow,
    /// Every write fails.
    Failing,
    /// There is no room.
    Full,
}

/// A node, running or not.
pub(crate) struct Machine {
    pub(crate) id: u64,
    pub(crate) clock: Arc<HostClock>,
    pub(crate) disk: Disk,
    log: MemLogDisk,
    /// What was received from another node and is not adopted yet.
    incoming: Arc<Mutex<BTreeMap<Position, Kept>>>,
    /// The newest two snapshots, oldest first.
    pub(crate) snapshots: Vec<Kept>,
    life: u64,
    running: Option<Running>,
    /// Whether it has learned that it was removed: it does not start again.
    retired: bool,
}

/// The process.
struct Running {
    bare: Bare,
    log: MemLog,
    role: Role,
    to_write: VecDeque<Job>,
    writing: bool,
    retry: Micros,
    to_apply: VecDeque<Task<Outcome>>,
    applying: bool,
    turning: bool,
    paused: bool,
    /// What came while the process was paused.
    held: Vec<Act>,
    since_snapshot: u64,
    /// Snapshots that have come in, and where the node says whether it takes them up.
    undecided: Vec<(Position, oneshot::Receiver<bool>)>,
    /// For a deliberate bug: the newest entry, as it was replayed at this start.
    replayed: Option<Entry>,
}

enum Job {
    Write(Write),
    Compact(Position),
}

impl Machine {
    pub(crate) fn new(world: &World, id: u64) -> Self {
        let follows_wall = world.options.mutant == Some(Mutant::LeaseByWallClock);
        Self {
            id,
            clock: HostClock::new(&world.kernel, follows_wall),
            disk: Disk::Fine,
            log: MemLogDisk::default(),
            incoming: Arc::default(),
            snapshots: Vec::new(),
            life: 0,
            running: None,
            retired: false,
        }
    }

    fn owner(&self) -> Owner {
        Owner {
            host: Host::Node(self.id),
            life: self.life,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn role(&self) -> Option<Role> {
        self.running.as_ref().map(|running| running.role)
    }

    /// Its front door, and whose tasks serve it.
    pub(crate) fn door(&self) -> Option<(Handle, Owner)> {
        let running = self.running.as_ref()?;
        Some((running.bare.handle().clone(), self.owner()))
    }

    pub(crate) fn bare(&self) -> Option<&Bare> {
        self.running.as_ref().map(|running| &running.bare)
    }
}

/// Starts a node from what is on its disk.
pub(crate) fn start(world: &mut World, id: u64) {
    let (kernel, _, checks) = world.shared();
    let mutant = world.options.mutant;
    let voters = world.options.nodes;
    let store = Arc::clone(&world.store);
    let Some(machine) = world.nodes.get_mut(&id) else {
        return;
    };
    if machine.running.is_some() || machine.retired {
        return;
    }
    machine.life += 1;
    let mut log = machine.log.open();
    let mut loaded = match log.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            checks.fail(Check::NodesRestart, format!("node {id}: {error}"));
            return;
        }
    };
    snapshots::adopt(machine, loaded.truncated);
    let newest = machine
        .snapshots
        .iter()
        .rev()
        .find(|kept| kept.at.index >= loaded.truncated.index)
        .cloned();
    if newest.is_none() && loaded.truncated != ORIGIN {
        checks.fail(
            Check::NodesRestart,
            format!("node {id}: the log begins behind its snapshots"),
        );
        return;
    }
    let (state, at, members) = match &newest {
        None => (State::new(), ORIGIN, founders(voters)),
        Some(kept) => match State::restore(&kept.state) {
            Ok(state) => (state, kept.at, kept.members.clone()),
            Err(error) => {
                checks.fail(Check::NodesRestart, format!("node {id}: {error}"));
                return;
            }
        },
    };
    if at.index > loaded.last().index {
        let detail = format!("node {id}: its snapshot is ahead of its log");
        checks.fail(Check::NodesRestart, detail);
        return;
    }
    loaded.hard_state.commit = loaded.hard_state.commit.max(at.index);
    if mutant == Some(Mutant::VoteLost) {
        let least = loaded.last().term;
        loaded.hard_state.vote = 0;
        loaded.hard_state.term = least.max(loaded.hard_state.term.saturating_sub(1));
    }
    let replayed = loaded
        .entries
        .iter()
        .rfind(|entry| !entry.data.is_empty() && entry.index <= loaded.hard_state.commit)
        .filter(|_| mutant == Some(Mutant::AppliedTwice) && machine.life > 1)
        .cloned();
    let owner = machine.owner();
    let runtime: Arc<dyn Runtime> = Arc::new(Process {
        kernel: Arc::clone(&kernel),
        clock: Arc::clone(&machine.clock),
        owner,
    });
    let outside = Arc::new(Outside {
        kernel: Arc::clone(&kernel),
        store,
        checks: Arc::clone(&checks),
        node: id,
    });
    let incoming = Arc::clone(&machine.incoming);
    let started = Bare::start(Start {
        config: config(),
        ports: Ports {
            forecast: Arc::new(NoForecast),
            prices: Arc::clone(&outside) as _,
            recorder: Arc::clone(&outside) as _,
            staging: outside,
            credentials: Arc::new(MemoryKeeper::default()),
            clock: Arc::clone(&machine.clock) as _,
        },
        runtime,
        begin: Begin {
            id,
            loaded,
            applied: at.index,
            members,
            snapshot: newest.map(|kept| (kept.at, kept.members)),
        },
        state,
        at,
        life: machine.life,
        incoming: Box::new(move |at| snapshots::received(&incoming, at)),
        transport: Arc::new(Wire { me: member(id) }),
    });
    let bare = match started {
        Ok(bare) => bare,
        Err(error) => {
            checks.fail(Check::NodesRestart, format!("node {id}: {error}"));
            return;
        }
    };
    machine.running = Some(Running {
        bare,
        log,
        role: Role::default(),
        to_write: VecDeque::new(),
        writing: false,
        retry: RETRY.0,
        to_apply: VecDeque::new(),
        applying: false,
        turning: false,
        paused: false,
        held: Vec::new(),
        since_snapshot: 0,
        undecided: Vec::new(),
        replayed,
    });
    checks.note("node", || format!("{id} starts (life {})", owner.life));
    threads::election(world, id);
    threads::tick(world, id, owner.life);
    threads::turn_soon(world, id);
    crate::raft_wire::connects(world, id);
}

/// What a node's duties know of the way to the others.
struct Wire {
    me: Member,
}

impl Transport for Wire {
    fn send(&self, _: Vec<Message>) {}

    fn members(&self, _: &Members) {}

    fn attach(&self, _: Arc<dyn Inbound>, _: Arc<dyn Admission>) {}

    fn me(&self) -> Option<Member> {
        Some(self.me.clone())
    }

    fn log_format(&self, _: u64) -> Option<u32> {
        Some(u32::from(codec::VERSION))
    }
}

/// A node as the others know it.
pub(crate) fn member(id: u64) -> Member {
    Member {
        id,
        peer_address: format!("node-{id}:7071"),
        client_address: format!("https://node-{id}:7070"),
        key: [u8::try_from(id).unwrap_or(0); 32],
    }
}

/// Everybody who is there at the beginning.
pub(crate) fn founders(voters: u64) -> Members {
    Members {
        voters: (1..=voters).collect(),
        last_id: voters,
        ..Members::founder(1)
    }
}

/// Settings that make the world lively: short leases, short waits.
pub(crate) fn config() -> Config {
    Config {
        lease_term: Duration::from_secs(10),
        plan_every: Duration::from_secs(2),
        lease_check_every: Duration::from_secs(1),
        sweep_every: Duration::from_secs(20),
        staging_grace: Duration::from_secs(60),
        ..Config::new("nowhere")
    }
}

/// Crashes a node: what was not synced is lost from some write on.
pub(crate) fn crash(world: &mut World, id: u64) {
    let Some(machine) = world.nodes.get_mut(&id) else {
        return;
    };
    let Some(running) = machine.running.take() else {
        return;
    };
    let owner = machine.owner();
    let unsynced = machine.log.unsynced() as u64;
    let kept = world.kernel.roll(|dice| dice.roll(unsynced + 1));
    machine.log.crash(usize::try_from(kept).unwrap_or(0));
    world.end_tasks(owner);
    drop(running);
    crate::raft_wire::hangs_up(world, id);
    world.checks.count("crashes");
    world.checks.note("node", || {
        format!("{id} crashes; {kept} of {unsynced} unsynced writes stay")
    });
}

/// The process is stopped as by SIGSTOP.
pub(crate) fn pause(world: &mut World, id: u64) {
    let Some(machine) = world.nodes.get_mut(&id) else {
        return;
    };
    let owner = machine.owner();
    if let Some(running) = &mut machine.running {
        running.paused = true;
        world.pause_tasks(owner);
        world.checks.note("node", || format!("{id} is paused"));
    }
}

/// It goes on, with everything that came meanwhile.
pub(crate) fn resume(world: &mut World, id: u64) {
    let Some(machine) = world.nodes.get_mut(&id) else {
        return;
    };
    let owner = machine.owner();
    let Some(running) = machine.running.as_mut().filter(|running| running.paused) else {
        return;
    };
    running.paused = false;
    let held = std::mem::take(&mut running.held);
    world.resume_tasks(owner);
    world.checks.note("node", || format!("{id} goes on"));
    for act in held {
        act(world);
    }
}

/// Does this in the process, now or when it goes on; never in another life of it.
fn within(world: &mut World, id: u64, life: u64, act: impl FnOnce(&mut World) + Send + 'static) {
    let Some(machine) = world.nodes.get_mut(&id).filter(|m| m.life == life) else {
        return;
    };
    match &mut machine.running {
        None => {}
        Some(running) if running.paused => running.held.push(Box::new(act)),
        Some(_) => act(world),
    }
}

/// Has the leader hand leadership over.
pub(crate) fn transfer(world: &mut World, leader: u64, to: u64) {
    let (answer, _) = tokio::sync::oneshot::channel();
    threads::hear_of(world, leader, Event::Transfer(Some(to), answer));
}

/// The process has ended for good: it was removed and knows it.
fn retire(world: &mut World, id: u64) {
    let Some(machine) = world.nodes.get_mut(&id) else {
        return;
    };
    machine.retired = true;
    let (running, owner) = (machine.running.take(), machine.owner());
    world.end_tasks(owner);
    drop(running);
    world.checks.count("nodes removed");
    world
        .checks
        .note("node", || format!("{id} knows that it was removed"));
    crate::raft_wire::hangs_up(world, id);
}

fn running(world: &mut World, id: u64) -> Option<&mut Running> {
    world.nodes.get_mut(&id)?.running.as_mut()
}
