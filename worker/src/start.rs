//! The whole worker: its folder, its devices, its session with the leader, and its loop, from start to end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::account::{self, Accounts};
use crate::cleanup;
use crate::config::WorkerConfig;
use crate::gpu;
use crate::host::Host;
use crate::metrics::{Answer, Metrics, Port, PortError};
use crate::outputs;
use crate::outputs_id;
use crate::runner::Turns;
use crate::session::{self, Refusal, Servers, Session, Unusable};
use crate::spool;
use crate::state_dir::{self, StateDir, accounts_of, private_folder};
use crate::tasks::{Ended, Tasks};
use crate::work::{INPUTS, News, ORDERS, Work};

/// How long samples may take on their way when the worker stops; they are on disk for the next start.
const LAST_SAMPLES: Duration = Duration::from_secs(5);

/// How long what ended attempts have left may take to go when the worker stops; the rest goes at the next start.
const LAST_REMOVALS: Duration = Duration::from_secs(30);

/// Why a worker cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its folder cannot be used.
    #[error(transparent)]
    Folder(#[from] state_dir::Error),
    /// Trainers cannot run as the accounts that were named.
    #[error(transparent)]
    Accounts(#[from] account::Error),
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
    /// One of its own tasks has ended, so that it was no whole worker any more.
    #[error(transparent)]
    Ended(#[from] Ended),
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
    let mut tasks = Tasks::default();
    tell(&host, &mut tasks).await?;
    let (news, heard) = mpsc::channel(ORDERS);
    let session = Session::new(Arc::clone(&host), servers, offer, news).run();
    work_until(host, tasks, session, heard, stop).await
}

/// The same with what it was set up with. One of the `tasks` that ends is as good as `stop`: what runs may save a checkpoint
/// first. What the session has `heard` is over when it ends itself.
async fn work_until(
    host: Arc<Host>,
    mut tasks: Tasks,
    session: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    heard: mpsc::Receiver<News>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (inputs, received) = mpsc::channel(INPUTS);
    let (spooled, stopping) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut work = Work::new(Arc::clone(&host), inputs, Arc::clone(&spooled));
    work.take_over().await?;
    let session = Task(tokio::spawn(session));
    tasks.spawn("removal of results", outputs::run(Arc::clone(&host)));
    tasks.spawn("removal of attempts", cleanup::run(Arc::clone(&host)));
    tasks.spawn("sender of samples", spool::run(Arc::clone(&host), spooled));
    let ended = {
        let work = work.run(received, heard, Arc::clone(&stopping));
        let asked = async {
            tokio::select! {
                () = stop => None,
                ended = tasks.ended() => Some(ended),
            }
        };
        tokio::pin!(work, asked);
        tokio::select! {
            () = &mut work => None,
            ended = &mut asked => {
                if let Some(ended) = &ended {
                    tracing::error!(%ended, "the worker stops");
                }
                stopping.notify_one();
                work.await;
                ended
            }
        }
    };
    work.shut_down().await;
    let removed = tokio::time::timeout(LAST_REMOVALS, host.cleanup.all_tried());
    if ended.is_none() && removed.await.is_err() {
        tracing::warn!(
            "what ended attempts have left is removed when this worker is started again"
        );
    }
    drop(tasks);
    // They wait on disk for a next start as well, and the sender may be what has failed.
    if ended.is_none() {
        let mut turn = spool::Turn::default();
        let sending = spool::send_all(&host, &mut turn);
        let _in_time = tokio::time::timeout(LAST_SAMPLES, sending).await;
    }
    let _in_time = tokio::time::timeout(LAST_SAMPLES, spool::settle(&host)).await;
    let lost = host.held.count();
    if lost > 0 {
        tracing::error!(
            lost,
            "samples that were neither sent nor kept on disk are lost"
        );
    }
    session.ended().await?;
    ended.map_or(Ok(()), |ended| Err(ended.into()))
}

/// Answers machines that ask how the worker is, in a task of its own.
async fn tell(host: &Arc<Host>, tasks: &mut Tasks) -> Result<(), PortError> {
    let Some(config) = &host.config.metrics else {
        return Ok(());
    };
    let port = Port::open(config).await?;
    tracing::info!(url = port.url(), "metrics are served");
    let (host, shown) = (Arc::clone(host), port.shown().cloned());
    if let Some(shown) = shown.clone() {
        tasks.spawn("look at the certificate", shown.keep());
    }
    let answer = move |path: &str| -> Option<Answer> {
        match path {
            "/metrics" => {
                let end = shown.as_ref().and_then(|shown| shown.end());
                let end = end.map(|end| end.unix_seconds());
                Some((true, host.metrics_text(end)))
            }
            "/livez" => Some((true, "alive\n".to_owned())),
            "/readyz" => Some(match host.outbox.stands() {
                (true, _) => (true, "ready\n".to_owned()),
                (false, _) => (false, "no leader is connected\n".to_owned()),
            }),
            _ => None,
        }
    };
    tasks.spawn("port for metrics", port.serve(answer));
    Ok(())
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
    let accounts = Accounts::look_up(&config.trainer_users)?;
    accounts.tried(&config.helper, state.root(), &outputs)?;
    accounts.unused(&accounts_of(&state.left_over()?))?;
    say_accounts(&accounts, devices.len());
    let offer = session::offer(
        &config,
        &devices,
        state.instance()?,
        outputs_id::of(&outputs),
    );
    tracing::info!(devices = devices.len(), state = %config.state.display(), "starting");
    let host = Host {
        config,
        state,
        outputs,
        devices,
        outbox: session::outbox::Outbox::default(),
        metrics: Metrics::default(),
        held: spool::Held::default(),
        cleanup: cleanup::Cleanup::default(),
        accounts,
        turns: Turns::default(),
        wire: Box::new(Arc::clone(&servers)),
    };
    Ok((Arc::new(host), servers, offer))
}

/// Says whom trainers run as, and whether jobs may share an account.
fn say_accounts(accounts: &Accounts, devices: usize) {
    let all = accounts.all();
    if all.is_empty() {
        return;
    }
    let names: Vec<&str> = all
        .iter()
        .map(|account| account.ids.name.as_str())
        .collect();
    let accounts = names.join(",");
    tracing::info!(accounts, "trainers run as accounts of their own");
    if all.len() < devices {
        tracing::warn!(
            accounts = all.len(),
            devices,
            "there are fewer accounts than devices, so jobs that run side by side may share one and read each other's files: \
             name more (--trainer-user)"
        );
    }
}

/// The session's task, which does not outlive the worker.
struct Task(JoinHandle<Result<(), Refusal>>);

impl Task {
    /// What it ended with, if it ended by itself just now.
    async fn ended(mut self) -> Result<(), Error> {
        match tokio::time::timeout(LAST_SAMPLES, &mut self.0).await {
            Ok(Ok(ended)) => Ok(ended?),
            Ok(Err(error)) => Err(Ended::joined("session with the leader", error).into()),
            Err(_runs_on) => Ok(()),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::future::pending;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::host::tests::Leader;
    use crate::state_dir::Contribution;

    /// A worker's life with a session that has everything heard, and then does this.
    async fn live(
        leader: &Arc<Leader>,
        then: impl Future<Output = Result<(), Refusal>> + Send + 'static,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let root = tempfile::tempdir().unwrap();
        let host = Arc::new(leader.host(root.path()));
        let contribution = Contribution {
            id: "0a".to_owned(),
            ..Contribution::default()
        };
        host.state.spool(&contribution).unwrap();
        let (news, heard) = mpsc::channel(ORDERS);
        let hears = Arc::clone(&host);
        let session = async move {
            hears.outbox.connected(true);
            let all = async {
                while !news.is_closed() {
                    hears.outbox.next().await;
                }
            };
            tokio::select! {
                () = all => Ok(()),
                then = then => then,
            }
        };
        work_until(host, Tasks::default(), session, heard, stop).await
    }

    #[tokio::test]
    async fn a_worker_one_of_whose_tasks_fails_stops_and_says_which() {
        let leader = Arc::new(Leader::default());
        leader.fails.store(true, Ordering::SeqCst);
        let ended = live(&leader, pending(), pending()).await.unwrap_err();
        assert_eq!(
            ended.to_string(),
            "the sender of samples has ended: no leader; start the worker again, and report what it has logged"
        );
        let leader = Arc::new(Leader::default());
        let ended = live(&leader, async { panic!("no words") }, pending()).await;
        assert_eq!(
            ended.unwrap_err().to_string(),
            "the session with the leader has ended: no words; start the worker again, and report what it has logged"
        );
        assert!(live(&leader, pending(), async {}).await.is_ok());
    }
}
