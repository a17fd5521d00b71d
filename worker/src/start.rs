//! The whole worker: its folder, its devices, its session with the leader, and its loop, from start to end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::config::WorkerConfig;
use crate::gpu;
use crate::host::Host;
use crate::metrics::{Answer, Metrics, Port, PortError};
use crate::outputs;
use crate::session::{self, Refusal, Servers, Session, Unusable};
use crate::spool;
use crate::state_dir::{self, StateDir, private_folder};
use crate::work::{INPUTS, ORDERS, Work};

/// How long samples may take on their way when the worker stops; they are on disk for the next start.
const LAST_SAMPLES: Duration = Duration::from_secs(5);

/// Why a worker cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its folder cannot be used.
    #[error(transparent)]
    Folder(#[from] state_dir::Error),
    /// It has nothing to offer.
    #[error("this host has no device to offer: {0}")]
    NoDevice(String),
    /// It was never let in.
    #[error(
        "this worker has no token yet; make one with `stepcast workers token create NAME` and give it once (--join-token-file)"
    )]
    NoToken,
    /// The servers cannot be called.
    #[error(transparent)]
    Servers(#[from] Unusable),
    /// The cluster does not want it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot tell how it is.
    #[error(transparent)]
    Metrics(#[from] PortError),
    /// The operating system does not tell when to stop.
    #[error("the signals of the operating system cannot be listened to")]
    Signals(#[source] std::io::Error),
}

/// Runs a worker until SIGTERM or Ctrl-C, which let its trainers save a checkpoint first; a second one ends it at once.
pub async fn run(config: WorkerConfig) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    no_core_dumps();
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let asked = Arc::new(Notify::new());
    let worker = run_until(config, {
        let asked = Arc::clone(&asked);
        async move { asked.notified().await }
    });
    tokio::pin!(worker);
    let mut times = 0;
    loop {
        tokio::select! {
            ended = &mut worker => return ended,
            _ = terminate.recv() => times += 1,
            _ = interrupt.recv() => times += 1,
        }
        if times > 1 {
            tracing::warn!("asked twice: the trainers are ended at once");
            return Ok(());
        }
        asked.notify_one();
    }
}

/// Has this process leave no file of its memory when it crashes, since credentials may be in it; nor what it starts.
pub fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Core)
    };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
}

/// Runs a worker until `stop` is ready and everything it runs has ended, or until the cluster refuses it.
pub async fn run_until(config: WorkerConfig, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let (host, servers, offer) = set_up(config)?;
    let _told = tell(&host).await?;
    let (inputs, received) = mpsc::channel(INPUTS);
    let (news, heard) = mpsc::channel(ORDERS);
    let (spooled, stopping) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut work = Work::new(Arc::clone(&host), inputs, Arc::clone(&spooled));
    work.take_over().await?;
    let session = Task(tokio::spawn(
        Session::new(Arc::clone(&host), servers, offer, news).run(),
    ));
    let _outputs = Task(tokio::spawn(outputs::run(Arc::clone(&host))));
    let samples = Task(tokio::spawn(spool::run(Arc::clone(&host), spooled)));
    {
        let work = work.run(received, heard, Arc::clone(&stopping));
        tokio::pin!(work, stop);
        tokio::select! {
            () = &mut work => {}
            () = &mut stop => {
                stopping.notify_one();
                work.await;
            }
        }
    }
    work.shut_down().await;
    drop(samples);
    let _for_the_next_start = tokio::time::timeout(LAST_SAMPLES, spool::send_all(&host)).await;
    spool::settle(&host);
    let lost = host.held.count();
    if lost > 0 {
        tracing::error!(
            lost,
            "samples that were neither sent nor kept on disk are lost"
        );
    }
    match session.ended().await {
        Some(Err(refusal)) => Err(refusal.into()),
        Some(Ok(())) | None => Ok(()),
    }
}

/// Answers machines that ask how the worker is, for as long as what is given back lives.
async fn tell(host: &Arc<Host>) -> Result<Option<Task<()>>, PortError> {
    let Some(config) = &host.config.metrics else {
        return Ok(None);
    };
    let port = Port::open(config).await?;
    tracing::info!(url = port.url(), "metrics are served");
    let host = Arc::clone(host);
    let answer = move |path: &str| -> Option<Answer> {
        match path {
            "/metrics" => Some((true, host.metrics_text())),
            "/livez" => Some((true, "alive\n".to_owned())),
            "/readyz" => Some(match host.outbox.stands() {
                (true, _) => (true, "ready\n".to_owned()),
                (false, _) => (false, "no leader is connected\n".to_owned()),
            }),
            _ => None,
        }
    };
    Ok(Some(Task(tokio::spawn(port.serve(answer)))))
}

fn set_up(
    config: WorkerConfig,
) -> Result<
    (
        Arc<Host>,
        Arc<Servers>,
        stepcast_proto::v1::RegisterWorkerRequest,
    ),
    Error,
> {
    let state = StateDir::open(&config.state)?;
    let (devices, remarks) = gpu::devices(config.offer);
    if devices.is_empty() {
        return Err(Error::NoDevice(remarks.join("; ")));
    }
    for remark in remarks {
        tracing::warn!("{remark}");
    }
    let kept = state.credential()?.map(|credential| credential.secret);
    let secret = config.join_token.clone().or(kept).ok_or(Error::NoToken)?;
    let servers = Arc::new(Servers::new(&config, secret)?);
    let outputs = config.outputs.clone().unwrap_or_else(|| state.outputs());
    private_folder(&outputs)?;
    let outputs = outputs.canonicalize().unwrap_or(outputs);
    let offer = session::offer(&config, &devices, state.instance()?);
    tracing::info!(devices = devices.len(), state = %config.state.display(), "starting");
    let host = Host {
        config,
        state,
        outputs,
        devices,
        outbox: session::outbox::Outbox::default(),
        metrics: Metrics::default(),
        held: spool::Held::default(),
        wire: Box::new(Arc::clone(&servers)),
    };
    Ok((Arc::new(host), servers, offer))
}

/// A task that does not outlive the worker.
struct Task<T>(JoinHandle<T>);

impl<T> Task<T> {
    /// What it ended with, if it ended by itself just now.
    async fn ended(mut self) -> Option<T> {
        tokio::time::timeout(LAST_SAMPLES, &mut self.0)
            .await
            .ok()?
            .ok()
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
