//! A whole cluster with its workers and people, moved from one event to the next by a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use stepcast_cluster::Handle;
use stepcast_scheduler::ids::JobId;

use crate::checks::{Check, Checks};
use crate::kernel::{Act, Event, Executor, Kernel, MS, Micros, Owner, SECOND};
use crate::network::Network;
use crate::options::Options;
use crate::outside::Store;
use crate::people::Town;
use crate::{faults, follow, members, node, people, worker};

/// After the faults everything has to end within this long: a job may wait for its tenth retry until then.
const SETTLING: Micros = 3_600 * SECOND;

/// How often it is looked whether everything has ended.
const LOOK: Micros = 2 * SECOND;

/// Everything there is.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) network: Arc<Network>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) store: Arc<Store>,
    pub(crate) town: Arc<Mutex<Town>>,
    pub(crate) nodes: BTreeMap<u64, node::Machine>,
    pub(crate) workers: BTreeMap<u64, worker::Machine>,
    /// Nodes that do not belong to the cluster any more, as anybody has seen.
    pub(crate) removed: BTreeSet<u64>,
    /// What got lost on a wire: whoever sent it hears nothing.
    pub(crate) limbo: Vec<Act>,
    executor: Executor,
    settled: bool,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let kernel = Kernel::new(options.seed);
        let checks = Checks::new(&kernel, options.traced);
        let mut world = Self {
            options,
            kernel,
            network: Arc::default(),
            checks,
            store: Arc::default(),
            town: Arc::default(),
            nodes: BTreeMap::new(),
            workers: BTreeMap::new(),
            removed: BTreeSet::new(),
            limbo: Vec::new(),
            executor: Executor::default(),
            settled: false,
        };
        for id in 1..=world.options.nodes {
            let machine = node::Machine::new(&world, id);
            world.nodes.insert(id, machine);
        }
        for number in 1..=world.options.workers {
            let gpus = if number == 1 { 4 } else { 2 };
            let machine = worker::Machine::new(&world, number, gpus);
            world.workers.insert(number, machine);
        }
        world
    }

    /// Runs to the end: the troubled time, and then the time until everything has come to rest.
    pub(crate) fn run(&mut self) {
        for id in 1..=self.options.nodes {
            node::start(self, id);
        }
        people::operator(self);
        for number in 1..=self.options.workers {
            worker::start(self, number);
        }
        let troubled = self.options.troubled;
        people::arrive(self, troubled);
        faults::begin(self, troubled);
        self.until(troubled);
        faults::end(self);
        let mut next = troubled;
        while !self.settled && self.checks.violation().is_none() {
            next += LOOK;
            self.until(next);
            self.settled = self.is_at_rest();
            if next > troubled + SETTLING {
                let open = self.open_jobs();
                let detail = format!(
                    "after {} s of peace jobs {open:?} have not ended",
                    SETTLING / SECOND
                );
                self.checks.fail(Check::EverythingEnds, detail);
            }
        }
        if self.settled {
            // A moment for what is still on its way: the last applied entries, the last acknowledgements.
            let mut end = next + 15 * SECOND;
            self.until(end);
            // Other prices come every ten seconds, and may just be on their way.
            for _ in 0..5 {
                if self.have_all_applied() {
                    break;
                }
                end += SECOND;
                self.until(end);
            }
            self.judge_the_end();
        }
    }

    fn until(&mut self, end: Micros) {
        while self.checks.violation().is_none() {
            self.settle_tasks();
            match self.kernel.next(end) {
                None => return,
                Some(Event::Wake(waker)) => waker.wake(),
                Some(Event::Do(act)) => act(self),
            }
        }
    }

    /// Runs tasks until none is ready, and gives every node whose inbox was filled its turn.
    fn settle_tasks(&mut self) {
        self.executor.run(&self.kernel);
        for id in self.node_ids() {
            let waits = self
                .nodes
                .get(&id)
                .and_then(node::Machine::bare)
                .is_some_and(stepcast_cluster::bare::Bare::is_waiting);
            if waits {
                node::turn_soon(self, id);
            }
        }
    }

    /// What most parts of the world need of it.
    pub(crate) fn shared(&self) -> (Arc<Kernel>, Arc<Network>, Arc<Checks>) {
        (
            Arc::clone(&self.kernel),
            Arc::clone(&self.network),
            Arc::clone(&self.checks),
        )
    }

    /// Every node there is or was.
    pub(crate) fn node_ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// A node's front door, if the node is up.
    pub(crate) fn door(&self, id: u64) -> Option<(Handle, Owner)> {
        self.nodes.get(&id)?.door()
    }

    /// Whether a node has begun from a snapshot.
    pub(crate) fn has_restored(&self, id: u64) -> bool {
        self.nodes
            .get(&id)
            .is_some_and(|machine| !machine.snapshots.is_empty())
    }

    pub(crate) fn end_tasks(&mut self, owner: Owner) {
        self.executor.end(owner);
    }

    pub(crate) fn pause_tasks(&mut self, owner: Owner) {
        self.executor.pause(owner);
    }

    pub(crate) fn resume_tasks(&mut self, owner: Owner) {
        self.executor.resume(owner);
    }

    /// Whether nothing goes wrong any more.
    pub(crate) fn is_in_peace(&self) -> bool {
        self.kernel.now() >= self.options.troubled
    }

    /// The node that leads the newest term, if one does.
    pub(crate) fn leader(&self) -> Option<u64> {
        let leading = self.nodes.values().filter_map(|machine| {
            let role = machine.role()?;
            role.leads.then_some((role.term, machine.id))
        });
        leading.max().map(|(_, id)| id)
    }

    /// Jobs that are not over, as the node that is furthest sees it.
    fn open_jobs(&self) -> Vec<JobId> {
        let furthest = self
            .nodes
            .values()
            .filter_map(node::Machine::bare)
            .max_by_key(|bare| bare.read_at(|_, _, at| at));
        furthest.map_or_else(Vec::new, |bare| {
            bare.read_at(|state, _, _| {
                let open = state.jobs().filter(|job| !job.state.is_terminal());
                open.map(|job| job.id).collect()
            })
        })
    }

    fn is_at_rest(&self) -> bool {
        self.open_jobs().is_empty()
            && members::is_settled(self)
            && self.town.lock().trying == 0
            && self
                .workers
                .values()
                .all(|machine| machine.is_idle() && machine.folder.lock().spool.is_empty())
    }

    /// Whether every node has what one has.
    fn have_all_applied(&self) -> bool {
        let newest = self.checks.logs.lock().newest();
        let members = self.nodes.values();
        let mut bare = members.filter(|machine| !self.removed.contains(&machine.id));
        bare.all(|machine| {
            let bare = machine.bare();
            bare.is_some_and(|bare| bare.read_at(|_, _, at| at.index >= newest))
        })
    }

    fn judge_the_end(&self) {
        let checks = &self.checks;
        let newest = checks.logs.lock().newest();
        let belongs = |machine: &&node::Machine| !self.removed.contains(&machine.id);
        for machine in self.nodes.values().filter(belongs) {
            let Some(bare) = machine.bare() else {
                checks.fail(
                    Check::NodesRestart,
                    format!("node {} is not up", machine.id),
                );
                continue;
            };
            bare.read_at(|state, members, at| {
                if at.index < newest {
                    let detail = format!(
                        "node {} has applied up to entry {}, and others up to entry {newest}",
                        machine.id, at.index
                    );
                    checks.fail(Check::EverythingEnds, detail);
                    return;
                }
                let found =
                    checks
                        .logs
                        .lock()
                        .state(machine.id, u64::MAX, &state.snapshot(), members);
                checks.judge(found);
                follow::sound(self, machine.id, state);
                for job in checks.histories.lock().jobs() {
                    if state.job(job).is_none() {
                        let detail = format!("node {} does not know job {job}", machine.id);
                        checks.fail(Check::AcknowledgedIsKept, detail);
                    }
                }
                let ended = |job| state.job(job).map(|job| job.state);
                let found = checks.histories.lock().cancellations(ended);
                checks.judge(found);
            });
        }
        let waiting = self
            .workers
            .values()
            .flat_map(|machine| {
                machine
                    .folder
                    .lock()
                    .spool
                    .keys()
                    .copied()
                    .collect::<Vec<_>>()
            })
            .collect();
        let found = checks.histories.lock().contributions(&waiting);
        checks.judge(found);
    }

    /// Adds up what the run was like.
    pub(crate) fn summarize(&self) {
        let now = self.kernel.now();
        let ran = self.checks.trainers.lock().ran(now);
        self.checks.add("milliseconds trained", ran / MS);
        self.checks.add("simulated milliseconds", now / MS);
        let terms = self.checks.logs.lock().led() as u64;
        self.checks.add("terms with a leader", terms);
    }
}
