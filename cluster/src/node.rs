//! Puts one node together: identity, log, snapshots, state, consensus, and the duties that run beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stepcast_scheduler::State;

use crate::config::Config;
use crate::consensus::log::{EngineLog, Loaded, LogStore, ORIGIN, Position};
use crate::consensus::{self, Transport, Word};
use crate::credentials::Keeper;
use crate::disk;
use crate::doorkeeper::Doorkeeper;
use crate::error::StartError;
use crate::handle::{Handle, Inner};
use crate::identity::{self, Identity};
use crate::jobs::{Follower, JobHub};
use crate::leader::{LiveBoard, Parts, Recorder, Signals, Slot, duties};
use crate::members::Members;
use crate::metrics::Metrics;
use crate::network::{Network, Way};
use crate::ports::Ports;
use crate::proposer::{Outcome, Proposer};
use crate::replica::{Received, Replica, Replicated};
use crate::runtime::{Runtime, Tokio};
use crate::snapshot::{self, Header, Snapshots};
use crate::snapshotter::{Due, Gate, Snapshotter};
use crate::stamp::{self, Stamper};
use crate::tasks::Tasks;

/// A node that has just started looks this often whether somebody has said the time: it cannot lead before, since an election
/// takes ten times as long.
const FIRST_WORD_EVERY: Duration = Duration::from_millis(50);

/// Free space is looked at this often: a disk does not fill faster than the reserve in that time.
const DISK_EVERY: Duration = Duration::from_secs(1);

/// A control-plane node.
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Starts a node on its data directory, new or old, and returns once it takes part: a node that votes alone leads
    /// a moment later. Reads the whole log first, which blocks. To be called inside a tokio runtime.
    pub fn start(config: Config, ports: Ports) -> Result<Handle, StartError> {
        Self::start_in(config, ports, Network::Alone)
    }

    /// The same for a node of several: new ones let themselves in with [`peers::join`](crate::peers::join) first, which
    /// gives the data directory its identity.
    pub fn start_in(config: Config, ports: Ports, network: Network) -> Result<Handle, StartError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::Runtime)?;
        let mut identity = Identity::open(&config.data_dir, config.node_id)?;
        identity.check_log(&config.data_dir)?;
        network.prepare(&config.data_dir, &identity)?;
        let mut log = EngineLog::open(&identity::log_dir(&config.data_dir))?;
        identity.note_log(&config.data_dir)?;
        let snapshots = Snapshots::open(&identity::snapshot_dir(&config.data_dir))?;
        let recovered = recover(log.load()?, &snapshots, &identity)?;
        check_format(&recovered.state, config.log_format)?;
        let _entered = runtime.enter();
        let way = network.open(&config, &identity, &snapshots)?;
        let parts = Assembly::new(
            &config,
            recovered.state,
            recovered.members.clone(),
            recovered.at,
        );
        let stamper = parts
            .replicated
            .read(|state| Stamper::new(Arc::clone(&ports.clock), state.newest_stamp_ms()));
        let consensus = consensus::start(consensus::Start {
            node_id: identity.node_id,
            log,
            loaded: recovered.log,
            members: recovered.members.clone(),
            applied: recovered.at.index,
            snapshot: recovered.snapshot,
            life: identity::random().map_err(StartError::Random)?,
            machine: Replica::new(
                Arc::clone(&parts.replicated),
                Arc::new(parts.follower(&ports.credentials)),
                Incoming(snapshots.clone()),
                config.log_format,
            ),
            transport: Arc::clone(&way.transport),
        })?;
        Ok(parts.run(Running {
            identity,
            config,
            ports,
            stamper,
            consensus,
            snapshots,
            way,
        }))
    }
}

/// What a start finds on disk.
struct Recovered {
    state: State,
    at: Position,
    members: Members,
    log: Loaded,
    /// The snapshot it begins with, if there is one.
    snapshot: Option<(Position, Members)>,
}

/// The newest snapshot and the log behind it, checked against each other.
fn recover(
    mut log: Loaded,
    snapshots: &Snapshots,
    identity: &Identity,
) -> Result<Recovered, StartError> {
    snapshots.settle(log.truncated)?;
    let (state, at, members, snapshot) = match snapshots.newest()? {
        None => (State::new(), ORIGIN, first_members(identity), None),
        Some(found) => {
            let Header { at, members } = found.header;
            let snapshot = Some((at, members.clone()));
            (found.state, at, members, snapshot)
        }
    };
    if at.index < log.truncated.index {
        return Err(snapshot::Error::Missing {
            log: log.truncated.index,
            snapshot: at.index,
        }
        .into());
    }
    if at.index > log.last().index {
        return Err(snapshot::Error::Ahead {
            snapshot: at.index,
            log: log.last().index,
        }
        .into());
    }
    if snapshot.is_none() {
        // The log is whole from its origin on: what could not be read is not needed.
        snapshots.set_aside_all()?;
    }
    // What is in a snapshot was committed, even if the note of that was not on disk when the power went.
    log.hard_state.commit = log.hard_state.commit.max(at.index);
    Ok(Recovered {
        state,
        at,
        members,
        log,
        snapshot,
    })
}

/// What a newer format has made of the state, a node that is held at an older one does not touch.
fn check_format(state: &State, newest: u16) -> Result<(), StartError> {
    let format = state.format();
    (format <= newest)
        .then_some(())
        .ok_or(StartError::Held { format, newest })
}

/// Who belongs to a cluster in which nothing has happened yet. A node that joins begins there as well, and hears from the
/// leader what has happened since; until then it knows whom it met.
fn first_members(identity: &Identity) -> Members {
    if identity.founded() {
        return Members::founder(identity.node_id);
    }
    let met = identity.known();
    Members {
        nodes: met.into_iter().map(|member| (member.id, member)).collect(),
        ..Members::founder(identity::FIRST_NODE)
    }
}

/// What the tasks round a running consensus need.
struct Running {
    identity: Identity,
    config: Config,
    ports: Ports,
    stamper: Stamper,
    consensus: consensus::Handle<Outcome>,
    snapshots: Snapshots,
    way: Way,
}

/// The parts that need no running consensus.
pub(crate) struct Assembly {
    pub(crate) replicated: Arc<Replicated>,
    pub(crate) hub: Arc<JobHub>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) due: Arc<Due>,
    pub(crate) snapshot_index: Arc<AtomicU64>,
}

impl Assembly {
    pub(crate) fn new(config: &Config, state: State, members: Members, at: Position) -> Self {
        Self {
            replicated: Arc::new(Replicated::new(state, members, at)),
            hub: Arc::default(),
            metrics: Arc::default(),
            signals: Arc::new(Signals::default()),
            due: Arc::new(Due::new(config)),
            // A node that begins where every log begins has no snapshot.
            snapshot_index: Arc::new(AtomicU64::new(if at == ORIGIN { 0 } else { at.index })),
        }
    }

    pub(crate) fn follower(&self, credentials: &Arc<dyn Keeper>) -> Follower {
        Follower {
            credentials: Arc::clone(credentials),
            hub: Arc::clone(&self.hub),
            signals: Arc::clone(&self.signals),
            metrics: Arc::clone(&self.metrics),
            due: Arc::clone(&self.due),
            snapshot_index: Arc::clone(&self.snapshot_index),
        }
    }

    /// Starts the tasks round consensus.
    fn run(self, running: Running) -> Handle {
        let Running {
            identity,
            config,
            ports,
            stamper,
            consensus,
            snapshots,
            way,
        } = running;
        let disk_free = Arc::new(AtomicU64::new(u64::MAX));
        let runtime: Arc<dyn Runtime> = Arc::new(Tokio);
        look_at_disk(&config.data_dir, &disk_free);
        let proposer = Arc::new(Proposer::new(
            consensus.clone(),
            Arc::clone(&self.replicated),
            stamper,
            Arc::clone(&disk_free),
            config.disk_reserve_bytes,
            Arc::clone(&self.metrics),
            Arc::clone(&runtime),
        ));
        let live = Arc::new(LiveBoard::default());
        let slot = Slot::default();
        let (recorder, recording) = Recorder::new(
            Arc::clone(&ports.recorder),
            config.record_every,
            Arc::clone(&runtime),
        );
        let gate = Arc::new(Gate::default());
        let snapshotter = Arc::new(Snapshotter {
            replicated: Arc::clone(&self.replicated),
            snapshots,
            consensus: consensus.clone(),
            due: self.due,
            gate: Arc::clone(&gate),
            every: config.snapshot_every,
            log_tail_entries: config.log_tail_entries,
            newest: Arc::clone(&self.snapshot_index),
        });
        let time = Arc::downgrade(&proposer);
        consensus.tell_time(move |leads| time.upgrade()?.told_ms(leads));
        let doorkeeper = Doorkeeper {
            consensus: consensus.clone(),
            transport: Arc::clone(&way.transport),
            replicated: Arc::clone(&self.replicated),
            places: config.places.clone(),
            runtime: Arc::clone(&runtime),
        };
        way.transport
            .attach(Arc::new(consensus.clone()), Arc::new(doorkeeper));
        let credentials = Arc::clone(&ports.credentials);
        let leading = Parts {
            config: config.clone(),
            ports,
            runtime,
            node_id: identity.node_id,
            consensus: consensus.clone(),
            transport: Arc::clone(&way.transport),
            replicated: Arc::clone(&self.replicated),
            proposer: Arc::clone(&proposer),
            signals: self.signals,
            hub: Arc::clone(&self.hub),
            live: Arc::clone(&live),
            metrics: Arc::clone(&self.metrics),
        };
        let tasks = Tasks::default();
        tasks.spawn("recorder", recording);
        tasks.spawn("snapshotter", Arc::clone(&snapshotter).run());
        tasks.spawn(
            "leader's duties",
            duties::run(leading, Arc::clone(&slot), consensus.role()),
        );
        tasks.spawn(
            "disk and clock watch",
            watch(
                config.data_dir.clone(),
                Arc::clone(&disk_free),
                Arc::clone(&proposer),
                consensus.clone(),
                Arc::clone(&way.transport),
                Arc::clone(&self.replicated),
            ),
        );
        Handle(Arc::new(Inner {
            identity,
            config,
            consensus,
            proposer,
            replicated: self.replicated,
            hub: self.hub,
            live,
            slot,
            credentials,
            recorder,
            metrics: self.metrics,
            disk_free,
            snapshot_index: self.snapshot_index,
            gate,
            way,
            snapshotter,
            tasks,
        }))
    }
}

/// Snapshots that other nodes have sent.
struct Incoming(Snapshots);

impl Received for Incoming {
    fn take(&self, at: Position) -> Result<State, String> {
        match self.0.adopt(at) {
            Ok(restored) => Ok(restored.state),
            Err(error) => Err(chain(&error)),
        }
    }
}

/// An error with what lies behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

/// Looks at the disk and at the leader's clock for as long as the node runs, and lets the others know whether there is room.
async fn watch(
    dir: PathBuf,
    free: Arc<AtomicU64>,
    proposer: Arc<Proposer>,
    consensus: consensus::Handle<Outcome>,
    transport: Arc<dyn Transport>,
    replicated: Arc<Replicated>,
) {
    let standing = |node| match transport.standing(node) {
        Word::Said(standing) => Some(standing),
        Word::Never | Word::Awaited => None,
    };
    let mut disk_looks = Looks::since(Instant::now());
    loop {
        consensus.note_room(!proposer.disk_is_low());
        let role = *consensus.role().borrow();
        if !role.leads {
            let leader = role.leader.and_then(standing);
            let members = replicated.members();
            let others = members.ids().filter_map(standing);
            if let Some(time_ms) = stamp::word(leader, others, proposer.has_heard()) {
                proposer.heard(time_ms);
            }
        }
        // Whoever leads next knows when the newest command came: what has passed since then is no leap of its wall clock.
        let _ = proposer.now_ms();
        let knows = role.leads || proposer.has_heard();
        tokio::time::sleep(if knows { DISK_EVERY } else { FIRST_WORD_EVERY }).await;
        if disk_looks.is_due(Instant::now()) {
            look_at_disk(&dir, &free);
        }
    }
}

/// When the disk was looked at last: each look asks the file system, so the way to the first word does not go by it.
struct Looks(Instant);

impl Looks {
    fn since(now: Instant) -> Self {
        Self(now)
    }

    /// Whether it is time for another, which is then the last.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now.saturating_duration_since(self.0) >= DISK_EVERY;
        if is_due {
            self.0 = now;
        }
        is_due
    }
}

fn look_at_disk(dir: &Path, free: &AtomicU64) {
    match disk::free_bytes(dir) {
        Ok(bytes) => free.store(bytes, Ordering::Relaxed),
        // The writes themselves will say what is wrong.
        Err(error) => tracing::debug!(%error, "free space is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_first_word_does_not_look_at_the_disk_more_often() {
        let start = Instant::now();
        let mut looks = Looks::since(start);
        let ways = (1..=60).map(|way| start + FIRST_WORD_EVERY * way);
        let looked = ways.filter(|now| looks.is_due(*now)).count();
        assert_eq!(looked, 3, "in three seconds");
    }
}
