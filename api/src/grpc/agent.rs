//! The worker's own calls. Each shows the secret of the worker's token.

use std::time::{Duration, Instant};

use stepcast_cluster::{Contribution, ProposeError};
use stepcast_proto::v1;
use stepcast_proto::v1::agent_service_server::AgentService;
use stepcast_records::{Hardware, Sample};
use stepcast_scheduler::ids::{Epoch, InstanceId, JobId, StagingId, TokenHash, WorkerId};
use stepcast_scheduler::model::{Inventory, Job, WorkerState};
use stepcast_scheduler::{Command, Rejection, Reply};
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::FieldViolation;

use super::attach::{self, Orders};
use super::credit::Credits;
use crate::context::Context;
use crate::service::unexpected;
use crate::staging;
use crate::status::Refusal;
use crate::{auth, convert, names, status};

/// A log begins in an old format and goes over to the newest one within moments, unless an older node keeps it from that.
/// A worker that registers meanwhile waits so long for it; it would not say its address, and where its results are, a second
/// time.
const NEWEST_FORMAT_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The service, and what each worker may still contribute.
pub(crate) struct Agent(pub(crate) Context, pub(crate) Credits);

#[tonic::async_trait]
impl AgentService for Agent {
    type AttachStream = Orders;

    async fn register_worker(
        &self,
        request: Request<v1::RegisterWorkerRequest>,
    ) -> Result<Response<v1::RegisterWorkerResponse>, Status> {
        let caller = auth::worker_of_leader(&self.0.handle, request.metadata()).await?;
        let request = request.into_inner();
        let version: String = request
            .version
            .chars()
            .filter(|c| c.is_ascii_graphic())
            .take(32)
            .collect();
        let instance = instance("instance", &request.instance)?;
        let mut inventory = convert::inventory(request)?;
        let is_new = inventory.address.is_some() || inventory.outputs.is_some();
        if is_new && !self.knows_addresses().await {
            // An older node could not read it; the worker says it again when it registers next.
            (inventory.address, inventory.outputs) = (None, None);
        }
        self.check_nothing_runs_elsewhere(&caller, instance)?;
        let command = Command::RegisterWorker {
            token_hash: caller.token,
            instance,
            inventory,
        };
        let worker = match self
            .0
            .handle
            .propose(command, None)
            .await
            .map_err(status::propose)?
        {
            Reply::WorkerRegistered { worker } => worker,
            other => return Err(unexpected(&other)),
        };
        tracing::info!(%worker, version, "a worker has registered");
        let name = self
            .0
            .handle
            .read_stale(|state| state.worker(worker).map(|worker| worker.name.to_string()));
        Ok(Response::new(v1::RegisterWorkerResponse {
            worker: names::of_worker(worker),
            display_name: name.unwrap_or_default(),
        }))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let caller = auth::worker_of_leader(&self.0.handle, request.metadata()).await?;
        let orders = attach::open(&self.0, caller, request.into_inner()).await?;
        Ok(Response::new(orders))
    }

    async fn get_assignment_files(
        &self,
        request: Request<v1::GetAssignmentFilesRequest>,
    ) -> Result<Response<v1::GetAssignmentFilesResponse>, Status> {
        let caller = auth::worker(&self.0.handle, request.metadata()).await?;
        let request = request.into_inner();
        let job = names::job("job", &request.job)?;
        let worker = caller.worker.map(|worker| worker.id);
        let epoch = Epoch(request.epoch);
        let (staging, has_credentials) = self.assigned(job, epoch, worker).await?;
        self.1.given(caller.token, [epoch], Instant::now());
        let credentials = if has_credentials {
            self.0.hand_over(staging)?
        } else {
            Vec::new()
        };
        match self.0.staging.get(staging).await {
            Ok(files) => Ok(Response::new(v1::GetAssignmentFilesResponse {
                files: files.into_iter().map(Into::into).collect(),
                credentials,
            })),
            Err(error) => Err(not_handed_over(job, &error)),
        }
    }

    async fn contribute_samples(
        &self,
        request: Request<v1::ContributeSamplesRequest>,
    ) -> Result<Response<v1::ContributeSamplesResponse>, Status> {
        let caller = auth::worker(&self.0.handle, request.metadata()).await?;
        let request = request.into_inner();
        let id = <[u8; 16]>::try_from(request.id)
            .map_err(|_| status::bad_field("id", "an id has 16 bytes"))?;
        let samples = convert::samples(request.samples)?;
        let worker = caller.worker.ok_or_else(not_registered)?;
        check_hardware(&samples, &worker.inventory)?;
        self.take_credit(caller.token, worker.id, id)?;
        // From here on nothing knows whose samples these are, and nothing may say it: no span, no log line.
        let contributed = self.0.handle.contribute(Contribution { id, samples }).await;
        contributed.map_err(status::contribute)?;
        self.1.stored(caller.token, id, Instant::now());
        Ok(Response::new(v1::ContributeSamplesResponse {}))
    }
}

impl Agent {
    /// Refuses another process with a worker's token while the one before still runs something. A worker that leaves is
    /// given up in the log before that has ended, and the next one would be told to run the same attempts.
    ///
    /// Asked right before the command goes into the log: nothing is placed there from then on, since only a worker that was
    /// given up may be followed by another.
    fn check_nothing_runs_elsewhere(
        &self,
        caller: &auth::WorkerCaller,
        instance: InstanceId,
    ) -> Result<(), Status> {
        let Some(known) = &caller.worker else {
            return Ok(());
        };
        let in_use = self.0.handle.read_stale(|state| {
            let worker = state.worker(known.id)?;
            let is_busy = || state.live_attempts_on(worker.id).next().is_some();
            let is_another = worker.instance != instance;
            (is_another && (worker.state == WorkerState::Present || is_busy())).then(|| {
                Rejection::TokenInUse {
                    worker: worker.id,
                    name: worker.name.clone(),
                    instance: worker.instance,
                }
            })
        });
        in_use.map_or(Ok(()), |in_use| {
            Err(status::propose(ProposeError::Rejected(in_use)))
        })
    }

    /// Takes one contribution off what the worker may hand over. What runs on it now was given to it, if by another leader.
    fn take_credit(
        &self,
        token: TokenHash,
        worker: WorkerId,
        contribution: [u8; 16],
    ) -> Result<(), Status> {
        let now = Instant::now();
        let held = self.0.handle.read_stale(|state| {
            let held = state.live_attempts_on(worker);
            held.map(|(_, attempt)| attempt.epoch).collect::<Vec<_>>()
        });
        self.1.given(token, held, now);
        self.1.take(token, contribution, now).map_err(|after| {
            let message = "this worker has handed over samples of more attempts than it was given";
            Refusal::new(Code::ResourceExhausted, "MORE_THAN_WAS_RUN", message)
                .hint("an attempt contributes once; what waits is taken as more attempts come, or one an hour")
                .retry(after)
                .into()
        })
    }

    /// Whether every node can read the address of a worker.
    async fn knows_addresses(&self) -> bool {
        let handle = &self.0.handle;
        // Nobody raises it.
        if handle.newest_log_format() < 3 {
            return false;
        }
        let known = async {
            while handle.read_stale(|state| state.format()) < 3 {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(NEWEST_FORMAT_WITHIN, known).await.is_ok()
    }

    /// Where the files of a job lie, and whether it needs credentials, for the worker that holds the lease of its attempt
    /// and for nobody else.
    async fn assigned(
        &self,
        job: JobId,
        epoch: Epoch,
        worker: Option<WorkerId>,
    ) -> Result<(StagingId, bool), Status> {
        let found = self.0.handle.read(|state| {
            let over = state.job(job).is_none_or(|job| job.state.is_terminal());
            let live = state.live_attempt(epoch);
            let is_on = |worker| state.is_on(epoch, worker);
            let mine = live.filter(|(held, _)| held.id == job && worker.is_some_and(is_on));
            let about = |job: &Job| (job.spec.staging, !job.spec.terms.credentials.is_empty());
            (over, mine.map(|(held, _)| about(held)))
        });
        match found.await.map_err(status::read)? {
            (_, Some(about)) => Ok(about),
            (true, None) => Err(status::not_found("jobs", "a job", "jobs")),
            (false, None) => {
                let message = "this worker does not hold the lease of this attempt";
                Err(
                    Refusal::new(Code::FailedPrecondition, "STALE_EPOCH", message)
                        .with("given", epoch)
                        .into(),
                )
            }
        }
    }
}

/// The state folder a worker runs on.
pub(super) fn instance(field: &str, text: &str) -> Result<InstanceId, Status> {
    text.parse()
        .map_err(|error: stepcast_scheduler::ids::Error| {
            status::bad_field(field, error.to_string())
        })
}

/// A worker that calls before it has registered.
pub(super) fn not_registered() -> Status {
    Refusal::new(
        Code::NotFound,
        "NO_SUCH_WORKER",
        "no worker has registered with this token",
    )
    .hint("register first")
    .into()
}

/// A worker speaks of hardware that it has, so that pretend hardware never passes for real one. Not of how many it has by
/// now: a sample may have waited while one of its GPUs was taken out, and nothing in it says where or when it was measured.
fn check_hardware(samples: &[Sample], inventory: &Inventory) -> Result<(), Status> {
    let offers = |hardware: Hardware| inventory.gpus.contains(&hardware.gpu);
    match samples
        .iter()
        .position(|sample| !offers(sample.key.hardware()))
    {
        None => Ok(()),
        Some(index) => {
            let message = "a worker contributes times of its own GPU models only";
            let field = FieldViolation::new(format!("samples[{index}].key.hardware"), message);
            Err(
                Refusal::new(Code::InvalidArgument, "FOREIGN_HARDWARE", message)
                    .fields(vec![field])
                    .into(),
            )
        }
    }
}

/// Why a job's files cannot be had: those that are gone or damaged stay so, and whatever else it is passes.
fn not_handed_over(job: JobId, error: &staging::Error) -> Status {
    let what = match error {
        staging::Error::Missing => "the job's files are gone",
        staging::Error::Damaged => {
            tracing::error!(%job, "a job's files are damaged");
            "the job's files are damaged"
        }
        error => return staging::unusable(error),
    };
    Refusal::new(Code::NotFound, "STAGING_MISSING", what).into()
}
