//! What a node needs of the world, small enough to look into, and a worker as the leader sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use stepcast_cluster::credentials::MemoryKeeper;
use stepcast_cluster::session::{Assignment, Order, Report, StopReason};
use stepcast_cluster::{
    Clock, Config, Contribution, Handle, JobWatch, Node, NotRecorded, PortError, Ports, Pricing,
    ProposeError, RecordSink, Session, Staging, Update,
};
use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sharing, Workload};
use stepcast_records::{
    FrameClass, GpuModel, HalfMegapixels, Precision, Quantization, Recipe, Sample,
};
use stepcast_scheduler::ids::{Epoch, InstanceId, JobId, StagingId, TokenHash, WorkerId};
use stepcast_scheduler::model::{
    EventKind, Inventory, JobSpec, Label, Outcome, Prices, TrainerKind,
};
use stepcast_scheduler::placement::NoForecast;
use stepcast_scheduler::{Command, Rejection, Reply, RequestId, State, codec};

/// A wait longer than this is a failure; no test comes near it.
const PATIENCE: Duration = Duration::from_secs(60);

/// When a world begins whose time stands still, by the wall clock.
const STILL_MS: u64 = 1_800_000_000_000;

/// The node's surroundings, as a test sees them.
#[derive(Default)]
pub(crate) struct World {
    /// Time leaps when a test says so,
    leapt_ms: AtomicU64,
    /// and besides that goes on by the host's clock, or not at all.
    is_still: bool,
    /// By how much the wall clock of a node that is started is wrong, until it is put right.
    pub(crate) ahead_ms: AtomicU64,
    recorded: Mutex<BTreeMap<[u8; 16], Vec<Sample>>>,
    staged: Mutex<BTreeSet<StagingId>>,
    /// Jobs of which lines are kept.
    pub(crate) lined: Mutex<BTreeSet<JobId>>,
    /// What the operator's book says, if that is known.
    pub(crate) prices: Mutex<Option<Prices>>,
    /// Whether they are deleted without end.
    keeps_lines: bool,
}

impl World {
    /// One whose time goes on by [`Self::pass`] alone: what a test says of leases holds however slow the host is.
    pub(crate) fn still() -> Self {
        Self {
            is_still: true,
            ..Self::default()
        }
    }

    /// One in which lines of these jobs are kept, and deleted without end.
    pub(crate) fn keeping_lines(jobs: [JobId; 2]) -> Self {
        Self {
            keeps_lines: true,
            lined: Mutex::new(BTreeSet::from(jobs)),
            ..Self::default()
        }
    }

    pub(crate) fn ports(self: &Arc<Self>) -> Ports {
        Ports {
            forecast: Arc::new(NoForecast),
            prices: Arc::clone(self) as Arc<dyn Pricing>,
            recorder: Arc::clone(self) as Arc<dyn RecordSink>,
            staging: Arc::clone(self) as Arc<dyn Staging>,
            credentials: Arc::new(MemoryKeeper::default()),
            clock: Arc::new(Hands {
                world: Arc::clone(self),
                host: stepcast_cluster::HostClock::new(),
                is_ahead: self.ahead_ms.load(Ordering::SeqCst) > 0,
            }),
        }
    }

    /// Lets this much time pass at once.
    pub(crate) fn pass(&self, time: Duration) {
        self.leapt_ms
            .fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }

    /// Samples by their contribution.
    pub(crate) fn recorded(&self) -> BTreeMap<[u8; 16], Vec<Sample>> {
        self.recorded.lock().clone()
    }

    /// Puts files into the staging area.
    pub(crate) fn stage(&self, staging: StagingId) {
        self.staged.lock().insert(staging);
    }

    pub(crate) fn is_staged(&self, staging: StagingId) -> bool {
        self.staged.lock().contains(&staging)
    }
}

impl RecordSink for World {
    fn record(&self, contributions: Vec<Contribution>) -> BoxFuture<'_, Result<(), NotRecorded>> {
        Box::pin(async move {
            let mut recorded = self.recorded.lock();
            for contribution in contributions {
                recorded
                    .entry(contribution.id)
                    .or_insert(contribution.samples);
            }
            Ok(())
        })
    }
}

impl Staging for World {
    fn delete(&self, staging: StagingId) -> BoxFuture<'_, Result<(), PortError>> {
        self.staged.lock().remove(&staging);
        Box::pin(async { Ok(()) })
    }

    fn older_than(
        &self,
        _: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StagingId>, PortError>> {
        let found = self.staged.lock().iter().take(limit).copied().collect();
        Box::pin(async move { Ok(found) })
    }

    fn jobs_with_lines(&self, limit: usize) -> BoxFuture<'_, Result<Vec<JobId>, PortError>> {
        let found = self.lined.lock().iter().take(limit).copied().collect();
        Box::pin(async move { Ok(found) })
    }

    fn forget_lines(&self, job: JobId) -> BoxFuture<'_, Result<(), PortError>> {
        if self.keeps_lines {
            return Box::pin(std::future::pending());
        }
        self.lined.lock().remove(&job);
        Box::pin(async { Ok(()) })
    }
}

struct Hands {
    world: Arc<World>,
    host: stepcast_cluster::HostClock,
    is_ahead: bool,
}

impl Clock for Hands {
    fn wall_ms(&self) -> u64 {
        let begun = if self.world.is_still {
            STILL_MS
        } else {
            self.host.wall_ms()
        };
        let ahead = self.world.ahead_ms.load(Ordering::SeqCst);
        let wrong = if self.is_ahead { ahead } else { 0 };
        begun + wrong + self.world.leapt_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        let begun = if self.world.is_still {
            Duration::ZERO
        } else {
            self.host.monotonic()
        };
        begun + Duration::from_millis(self.world.leapt_ms.load(Ordering::SeqCst))
    }
}

/// A node's settings with its duties looking often, so that a test waits for an event and not for a period.
pub(crate) fn config(dir: &Path) -> Config {
    Config {
        plan_every: Duration::from_millis(100),
        lease_check_every: Duration::from_millis(5),
        record_every: Duration::from_millis(5),
        disk_reserve_bytes: 1 << 20,
        ..Config::new(dir)
    }
}

/// A node that leads, and whose log goes on in the newest format.
pub(crate) async fn start(config: Config, world: &Arc<World>) -> Handle {
    let node = Node::start(config, world.ports()).unwrap();
    assert!(node.leading().await);
    until("the newest format", || {
        node.read_stale(State::format) == codec::VERSION
    })
    .await;
    node
}

/// A node in a folder and a world of its own, which a test keeps for as long as it needs the node.
pub(crate) async fn alone(world: World) -> (tempfile::TempDir, Arc<World>, Handle) {
    alone_with(world, |_| {}).await
}

/// The same with other settings.
pub(crate) async fn alone_with(
    world: World,
    change: impl FnOnce(&mut Config),
) -> (tempfile::TempDir, Arc<World>, Handle) {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(world));
    let mut config = config(dir.path());
    change(&mut config);
    let node = start(config, &world).await;
    (dir, world, node)
}

/// A job on one GPU of this model, whose files are known by a number.
pub(crate) fn spec(number: u64) -> JobSpec {
    let workload = Workload {
        recipe: Recipe::parse("flux.dev/lora+ckpt").unwrap(),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: HalfMegapixels::new(2).unwrap(),
            frames: FrameClass::Single,
            batch_size: 4,
            samples: Some(120),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(1_000),
        checkpoint_every: None,
        validation: None,
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing::default(),
    };
    JobSpec::new(workload, StagingId(wide(number)))
}

pub(crate) fn wide(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Submits a job under a request id made of a number.
pub(crate) async fn submit(node: &Handle, number: u64) -> JobId {
    let command = Command::SubmitJob {
        spec: Box::new(spec(number)),
    };
    match node.propose(command, Some(RequestId(wide(number)))).await {
        Ok(Reply::JobSubmitted { job }) => job,
        other => panic!("{other:?}"),
    }
}

/// A worker's process as the leader sees it.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) instance: InstanceId,
    pub(crate) token: TokenHash,
}

impl Worker {
    /// Lets a worker with one GPU in under a number, and registers it.
    pub(crate) async fn join(node: &Handle, number: u8) -> Self {
        let token = TokenHash([number; 32]);
        let name = format!("host-{number}").parse().unwrap();
        node.propose(Command::CreateWorkerToken { name, hash: token }, None)
            .await
            .unwrap();
        Self::register(node, token, InstanceId([number; 16])).await
    }

    /// The same for one that other hosts reach, so that it takes part in gangs.
    pub(crate) async fn join_reached(node: &Handle, number: u8) -> Self {
        let worker = Self::join(node, number).await;
        let address = format!("10.0.0.{number}:29500").parse().ok();
        Self::say(node, worker.token, worker.instance, address)
            .await
            .unwrap()
    }

    /// Registers a process of a worker.
    pub(crate) async fn register(node: &Handle, token: TokenHash, instance: InstanceId) -> Self {
        Self::try_register(node, token, instance).await.unwrap()
    }

    /// The same; nothing if another process takes part with this token.
    pub(crate) async fn try_register(
        node: &Handle,
        token: TokenHash,
        instance: InstanceId,
    ) -> Option<Self> {
        Self::say(node, token, instance, None).await
    }

    async fn say(
        node: &Handle,
        token: TokenHash,
        instance: InstanceId,
        address: Option<Label>,
    ) -> Option<Self> {
        let inventory = Inventory {
            gpus: vec!["h100".parse::<GpuModel>().unwrap()],
            trainers: BTreeSet::from([TrainerKind::SimpleTuner]),
            labels: BTreeMap::new(),
            price_per_gpu_hour: None,
            address,
            outputs: None,
        };
        match node
            .propose(
                Command::RegisterWorker {
                    token_hash: token,
                    instance,
                    inventory,
                },
                None,
            )
            .await
        {
            Ok(Reply::WorkerRegistered { worker }) => Some(Self {
                id: worker,
                instance,
                token,
            }),
            Err(ProposeError::Rejected(Rejection::TokenInUse { .. })) => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn attach(&self, node: &Handle) -> Session {
        node.attach(self.id, self.instance).unwrap()
    }
}

/// A job, and the worker that runs it.
pub(crate) async fn at_work(node: &Handle) -> (Worker, Session, Assignment) {
    submit(node, 1).await;
    let worker = Worker::join(node, 7).await;
    let mut session = worker.attach(node);
    let assigned = assignment(&mut session).await;
    (worker, session, assigned)
}

/// The next order.
pub(crate) async fn order(session: &mut Session) -> Order {
    within(session.orders.recv())
        .await
        .expect("the session has ended without a word")
}

/// The next order, which is an assignment.
pub(crate) async fn assignment(session: &mut Session) -> Assignment {
    match order(session).await {
        Order::Assign(assignment) => *assignment,
        other => panic!("{other:?}"),
    }
}

/// The next order, which is to stop an attempt: which, why and how long it may save a checkpoint.
pub(crate) async fn stop(session: &mut Session) -> (Epoch, StopReason, u64) {
    match order(session).await {
        Order::Stop {
            epoch,
            why,
            grace_ms,
            ..
        } => (epoch, why, grace_ms),
        other => panic!("{other:?}"),
    }
}

/// Reports the end of an attempt until it is acknowledged.
pub(crate) async fn end(session: &mut Session, assignment: &Assignment, outcome: Outcome) {
    let report = ended(assignment, outcome);
    session.reports.report(report).await.unwrap();
    match order(session).await {
        Order::Acknowledged { epoch } => assert_eq!(epoch, assignment.epoch),
        other => panic!("{other:?}"),
    }
}

/// Renews a lease; the epochs that hold it.
pub(crate) async fn renew(session: &mut Session, epoch: Epoch) -> Vec<Epoch> {
    session
        .reports
        .report(Report::Renew {
            renewal: 1,
            epochs: vec![epoch],
        })
        .await
        .unwrap();
    match order(session).await {
        Order::Renewed {
            renewal: 1, epochs, ..
        } => epochs,
        other => panic!("{other:?}"),
    }
}

/// The end of an attempt, as a worker reports it.
pub(crate) fn ended(assignment: &Assignment, outcome: Outcome) -> Report {
    Report::Ended {
        job: assignment.job,
        epoch: assignment.epoch,
        outcome,
        step: 1_000,
        detail: String::new(),
    }
}

/// The kinds of the events up to one for which `last` holds, and of those that the watch began with.
pub(crate) async fn events_until(
    watch: &mut JobWatch,
    last: impl Fn(EventKind) -> bool,
) -> Vec<EventKind> {
    let mut kinds = Vec::new();
    let mut next = None;
    loop {
        let events = match within(watch.next()).await.expect("the watch has ended") {
            Update::Current { job, .. } => job.events.iter().copied().collect(),
            Update::Event { event, .. } => vec![event],
            Update::Progress { .. } | Update::Log { .. } => continue,
            Update::Behind { seq } => panic!("behind after {seq}"),
        };
        for event in events {
            assert_eq!(event.seq, next.unwrap_or(event.seq), "a gap or a repeat");
            next = Some(event.seq + 1);
            kinds.push(event.kind);
            if last(event.kind) {
                return kinds;
            }
        }
    }
}

/// Waits for what must come; only a test that would hang notices the limit.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it did not come")
}

/// Waits for what another task brings about and tells nobody.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
