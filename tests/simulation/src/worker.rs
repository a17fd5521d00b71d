//! A GPU host: its clock, its state folder, the trainers that really run on it, and the worker process that comes and goes.

mod process;
mod session;
mod trainer;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use parking_lot::Mutex;
use stepcast_scheduler::ids::{InstanceId, TokenHash, WorkerId};
use stepcast_worker::agent::{Epoch, Input, Outcome};
use tokio::sync::mpsc;

use self::process::Shell;
use self::trainer::{Launching, Trainer};
use crate::clock::{HostClock, Process};
use crate::kernel::{Host, Micros, Owner};
use crate::mutant::Mutant;
use crate::world::World;

/// What a worker keeps on disk. Every write is synced before anything is said of it.
#[derive(Default)]
pub(crate) struct Folder {
    /// Who this is, once registered.
    worker: Option<WorkerId>,
    /// Attempts whose trainer was started, or was about to be.
    attempts: BTreeMap<Epoch, String>,
    /// How they ended.
    outcomes: BTreeMap<Epoch, Kept>,
    /// Samples that are not acknowledged: their id and the attempt they are of.
    pub(crate) spool: BTreeMap<[u8; 16], Epoch>,
}

/// An end that is kept until it is acknowledged.
#[derive(Debug, Clone)]
struct Kept {
    job: String,
    outcome: Outcome,
    detail: String,
    step: u64,
}

/// A GPU host.
pub(crate) struct Machine {
    pub(crate) number: u64,
    pub(crate) gpus: u8,
    pub(crate) clock: Arc<HostClock>,
    pub(crate) folder: Arc<Mutex<Folder>>,
    pub(crate) instance: InstanceId,
    pub(crate) token: TokenHash,
    life: u64,
    running: Option<Running>,
    trainers: BTreeMap<Epoch, Trainer>,
    launching: BTreeMap<Epoch, Launching>,
}

/// The worker process, while there is one.
struct Running {
    inputs: mpsc::UnboundedSender<Input>,
    breakers: Arc<Mutex<Vec<crate::network::Breaker>>>,
    paused: bool,
}

impl Machine {
    pub(crate) fn new(world: &World, number: u64, gpus: u8) -> Self {
        // A deliberate bug: as if leases were counted in processor time.
        let slow = world.options.mutant == Some(Mutant::WorkerClockIsSlow);
        let slower = if slow { 2 } else { 1 };
        let mut instance = [0; 16];
        instance[0] = 1 + u8::try_from(number).unwrap_or(0);
        Self {
            number,
            gpus,
            clock: HostClock::slower(&world.kernel, false, slower),
            folder: Arc::default(),
            instance: InstanceId(instance),
            token: token(number),
            life: 0,
            running: None,
            trainers: BTreeMap::new(),
            launching: BTreeMap::new(),
        }
    }

    pub(crate) fn host(&self) -> Host {
        Host::Worker(self.number)
    }

    fn owner(&self) -> Owner {
        Owner {
            host: self.host(),
            life: self.life,
        }
    }

    fn is_paused(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.paused)
    }

    /// Whether anything of an attempt is still there.
    pub(crate) fn is_idle(&self) -> bool {
        self.trainers.is_empty() && self.launching.is_empty()
    }

    /// Tells the worker process something, if there is one.
    fn tell(&self, life: u64, input: Input) {
        if life == self.life
            && let Some(running) = &self.running
        {
            // Its loop ends only with the process.
            let _ = running.inputs.send(input);
        }
    }
}

/// The hash of the secret that a host was given.
pub(crate) fn token(number: u64) -> TokenHash {
    let mut hash = [0x5c; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    TokenHash(hash)
}

/// Starts the worker process of a host, if there is none.
pub(crate) fn start(world: &mut World, number: u64) {
    let (kernel, network, checks) = world.shared();
    let nodes = world.options.most_nodes();
    let mutant = world.options.mutant;
    let Some(machine) = world.workers.get_mut(&number) else {
        return;
    };
    if machine.running.is_some() {
        return;
    }
    machine.life += 1;
    let (inputs, received) = mpsc::unbounded_channel();
    let breakers = Arc::default();
    machine.running = Some(Running {
        inputs: inputs.clone(),
        breakers: Arc::clone(&breakers),
        paused: false,
    });
    let owner = machine.owner();
    let shell = Arc::new(Shell {
        runtime: Process {
            kernel: Arc::clone(&kernel),
            clock: Arc::clone(&machine.clock),
            owner,
        },
        checks,
        network,
        nodes,
        mutant,
        number,
        gpus: machine.gpus,
        instance: machine.instance,
        token: machine.token,
        folder: Arc::clone(&machine.folder),
        outbox: process::Outbox::new(Arc::clone(&machine.clock)),
        spooled: tokio::sync::Notify::new(),
        breakers,
    });
    kernel.spawn(owner, process::run(shell, received).boxed());
}

/// Ends the worker process at once. Its guards notice and end what they guard.
pub(crate) fn kill(world: &mut World, number: u64) {
    let Some(machine) = world.workers.get_mut(&number) else {
        return;
    };
    if machine.running.take().is_none() {
        return;
    }
    let owner = machine.owner();
    machine.launching.clear();
    let orphans: Vec<Epoch> = machine.trainers.keys().copied().collect();
    world.end_tasks(owner);
    for epoch in orphans {
        let notices = world.kernel.roll(|dice| dice.between(100, 20_000));
        world.kernel.after(notices, move |world| {
            trainer::kill(world, number, epoch);
        });
    }
}

/// The host loses power: whatever runs on it ends in this moment.
pub(crate) fn cut_power(world: &mut World, number: u64) {
    kill(world, number);
    trainer::vanish(world, number);
}

/// The worker process is stopped as by SIGSTOP; its trainers and guards go on.
pub(crate) fn pause(world: &mut World, number: u64) {
    let Some(machine) = world.workers.get_mut(&number) else {
        return;
    };
    let owner = machine.owner();
    if let Some(running) = &mut machine.running {
        running.paused = true;
        world.pause_tasks(owner);
    }
}

/// It goes on.
pub(crate) fn resume(world: &mut World, number: u64) {
    let Some(machine) = world.workers.get_mut(&number) else {
        return;
    };
    let owner = machine.owner();
    if let Some(running) = &mut machine.running {
        running.paused = false;
        world.resume_tasks(owner);
    }
}

/// The worker's connection breaks.
pub(crate) fn cut_stream(world: &mut World, number: u64) {
    let breakers = world
        .workers
        .get(&number)
        .and_then(|machine| machine.running.as_ref())
        .map(|running| std::mem::take(&mut *running.breakers.lock()));
    for breaker in breakers.into_iter().flatten() {
        breaker.snap();
    }
}

/// How long a command takes to its guard, or a webhook to the worker.
fn hop(world: &World) -> Micros {
    world.kernel.roll(|dice| dice.between(50, 3_000))
}
