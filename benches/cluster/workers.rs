//! Pretend workers: they speak the worker's own service, and say of each job that it has started and ended at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, stream};
use stepcast_proto::v1;
use stepcast_proto::v1::attach_request::Report;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::board::Board;
use crate::servers::{Failed, Servers};
use crate::wire::Told;

/// GPUs of each worker.
const GPUS: usize = 8;

/// Reports on their way into the stream: more than a worker's GPUs ever have to say at once.
const REPORTS: usize = 64;

/// How often leases are renewed: a third of the shortest usual term.
const RENEW: Duration = Duration::from_secs(5);

/// Workers that are let in at the same time.
const AT_ONCE: usize = 16;

/// The pause before a lost session is opened again.
const PAUSE: Duration = Duration::from_millis(50);

/// Workers that run until they are dropped.
pub(crate) struct Workers {
    tasks: JoinSet<()>,
}

struct Worker {
    number: usize,
    servers: Arc<Servers>,
    board: Arc<Board>,
    secret: MetadataValue<Ascii>,
    name: String,
    instance: String,
    /// Ends that the leader has not acknowledged, with their jobs.
    unheard: BTreeMap<u64, String>,
    renewal: u64,
}

impl Workers {
    /// Lets in, registers and attaches so many workers.
    pub(crate) async fn start(
        addresses: &[String],
        count: usize,
        board: &Arc<Board>,
    ) -> anyhow::Result<Self> {
        // A connection each, as real workers have.
        let servers = Arc::new(Servers::new(addresses, count)?);
        let mut tasks = JoinSet::new();
        let (attached, mut all_attached) = mpsc::channel::<()>(1);
        let mut entering = stream::iter(0..count)
            .map(|number| enter(number, &servers, board))
            .buffer_unordered(AT_ONCE);
        while let Some(worker) = entering.next().await {
            tasks.spawn(worker?.run(Some(attached.clone())));
        }
        drop(attached);
        let waiting = all_attached.recv();
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .context("not every pretend worker could attach")?;
        Ok(Self { tasks })
    }

    /// Ends them all.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn enter(
    number: usize,
    servers: &Arc<Servers>,
    board: &Arc<Board>,
) -> anyhow::Result<Worker> {
    let token: v1::CreateWorkerTokenResponse = servers
        .call(
            number,
            "/stepcast.v1.WorkersService/CreateWorkerToken",
            None,
            &v1::CreateWorkerTokenRequest {
                display_name: format!("pretend-{number}"),
            },
        )
        .await
        .map_err(refused)?;
    let mut secret: MetadataValue<Ascii> = format!("Bearer {}", token.secret).parse()?;
    secret.set_sensitive(true);
    let instance = format!("{:032x}", u128::try_from(number)? + 1);
    let offer = v1::RegisterWorkerRequest {
        instance: instance.clone(),
        gpus: vec!["h100".to_owned(); GPUS],
        trainers: vec![v1::Trainer::Simpletuner.into()],
        price_per_gpu_hour_usd_micros: Some(2_000_000),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let path = "/stepcast.v1.AgentService/RegisterWorker";
    let registered: v1::RegisterWorkerResponse = servers
        .call(number, path, Some(&secret), &offer)
        .await
        .map_err(refused)?;
    Ok(Worker {
        number,
        servers: Arc::clone(servers),
        board: Arc::clone(board),
        secret,
        name: registered.worker,
        instance,
        unheard: BTreeMap::new(),
        renewal: 0,
    })
}

fn refused(failed: Failed) -> anyhow::Error {
    anyhow::anyhow!("a pretend worker is not let in: {failed:?}")
}

impl Worker {
    /// Attaches again whenever the session is lost. `attached` is dropped at the first success.
    async fn run(mut self, mut attached: Option<mpsc::Sender<()>>) {
        loop {
            let at = self.servers.leader();
            let Err(status) = self.session(at, &mut attached).await;
            let _where_to = self.servers.next(at, &status);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn session(
        &mut self,
        at: usize,
        attached: &mut Option<mpsc::Sender<()>>,
    ) -> Result<std::convert::Infallible, Status> {
        let (reports, outgoing) = mpsc::channel::<v1::AttachRequest>(REPORTS);
        let hello = v1::Hello {
            worker: self.name.clone(),
            instance: self.instance.clone(),
            leaving: false,
        };
        say(&reports, Report::Hello(hello)).await?;
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request
            .metadata_mut()
            .insert("authorization", self.secret.clone());
        let mut client = tonic::client::Grpc::new(self.servers.channel(at, self.number));
        client
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static("/stepcast.v1.AgentService/Attach");
        let codec = ProstCodec::<v1::AttachRequest, Told>::default();
        let mut orders = client.streaming(request, path, codec).await?.into_inner();
        drop(attached.take());
        for (epoch, job) in self.unheard.clone() {
            say(&reports, ended(epoch, job)).await?;
        }
        let mut renew = tokio::time::interval(RENEW);
        loop {
            let told = tokio::select! {
                told = orders.message() => told?,
                _ = renew.tick() => {
                    self.renewal += 1;
                    let (renewal, epochs) = (self.renewal, self.unheard.keys().copied().collect());
                    say(&reports, Report::Renew(v1::Renew { renewal, epochs })).await?;
                    continue;
                }
            };
            let told = told.ok_or_else(|| Status::unavailable("the server ended the stream"))?;
            if let Some(assigned) = told.assign {
                self.board.placed(&assigned.job, Instant::now());
                let (job, epoch) = (assigned.job, assigned.epoch);
                self.unheard.insert(epoch, job.clone());
                let started = v1::AttemptStarted {
                    job: job.clone(),
                    epoch,
                    begun_step: None,
                };
                say(&reports, Report::Started(started)).await?;
                say(&reports, ended(epoch, job)).await?;
            }
            if let Some(acknowledged) = told.acknowledged {
                self.unheard.remove(&acknowledged.epoch);
            }
            if told.parting.is_some() {
                return Err(Status::unavailable("the session is over"));
            }
        }
    }
}

fn ended(epoch: u64, job: String) -> Report {
    Report::Ended(v1::AttemptEnded {
        job,
        epoch,
        outcome: v1::Outcome::Succeeded.into(),
        step: 3_000,
        detail: String::new(),
        lease_lost: false,
        credentials_gone: false,
    })
}

async fn say(reports: &mpsc::Sender<v1::AttachRequest>, report: Report) -> Result<(), Status> {
    let report = v1::AttachRequest {
        report: Some(report),
    };
    let sent = reports.send(report).await;
    sent.map_err(|_closed| Status::unavailable("the server reads no more"))
}
