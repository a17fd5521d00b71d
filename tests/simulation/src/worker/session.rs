//! The worker's way to the leader: registers, stays attached, goes round the servers, and sends its samples.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use stepcast_cluster::session::{self as leader, Order, Parting};
use stepcast_cluster::{AttachError, Clock, Contribution, ProposeError, Runtime};
use stepcast_records::GpuModel;
use stepcast_scheduler::ids::{Epoch, WorkerId};
use stepcast_scheduler::model::{FailureReason, Inventory, Outcome, TrainerKind};
use stepcast_scheduler::{Command, Rejection, Reply};
use stepcast_worker::agent;
use stepcast_worker::order::Report;
use tokio::sync::mpsc;

use super::process::{News, Shell, job_id};
use crate::calls::{self, Down, Failure, Request, Response};
use crate::mutant::Mutant;
use crate::network::{self, Receiver, Sender};

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// A leader that says nothing this long after a renewal may be cut off from the others.
const SILENCE: Duration = Duration::from_secs(10);

/// A connection that lived this long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// The first and the longest wait between two tries, in milliseconds.
const BACKOFF_MS: (u64, u64) = (250, 5_000);

/// How often samples that could not be sent are tried again.
const SAMPLES_AGAIN: Duration = Duration::from_secs(3);

/// Why a connection ended.
enum Trouble {
    /// This worker is not wanted: nothing will change that.
    Stop,
    /// Go to the leader.
    Leader(Option<u64>),
    /// Register again.
    Unknown,
    /// Try elsewhere.
    Again,
}

/// Speaks with the leader for the whole life of the process.
pub(super) async fn run(shell: Arc<Shell>, news: mpsc::UnboundedSender<News>) {
    let mut server = shell.runtime.kernel.roll(|dice| dice.roll(shell.nodes)) + 1;
    let mut worker = None;
    let mut failures = 0;
    loop {
        let begun = shell.runtime.clock.monotonic();
        let trouble = connect(&shell, server, &mut worker, &news).await;
        shell.outbox.change(|w| w.connected(false));
        if shell.runtime.clock.monotonic().saturating_sub(begun) >= GOOD {
            failures = 0;
        }
        match trouble {
            Trouble::Stop => {
                shell.checks.count("workers refused for good");
                shell
                    .checks
                    .note("worker", || format!("host {} is refused", shell.number));
                return;
            }
            Trouble::Leader(Some(leader)) => server = leader,
            Trouble::Unknown => worker = None,
            Trouble::Leader(None) | Trouble::Again => server = server % shell.nodes + 1,
        }
        let whole = (BACKOFF_MS.0 << failures.min(10)).min(BACKOFF_MS.1);
        failures += 1;
        let wait = whole / 2 + shell.runtime.kernel.roll(|dice| dice.roll(whole / 2 + 1));
        shell.runtime.sleep(Duration::from_millis(wait)).await;
    }
}

async fn connect(
    shell: &Arc<Shell>,
    server: u64,
    worker: &mut Option<WorkerId>,
    news: &mpsc::UnboundedSender<News>,
) -> Trouble {
    let id = match *worker {
        Some(id) => id,
        None => match register(shell, server).await {
            Ok(id) => *worker.insert(id),
            Err(trouble) => return trouble,
        },
    };
    attach(shell, server, id, news).await
}

async fn register(shell: &Arc<Shell>, server: u64) -> Result<WorkerId, Trouble> {
    let gpu: GpuModel = "h100".parse().map_err(|_| Trouble::Stop)?;
    let command = Command::RegisterWorker {
        token_hash: shell.token,
        instance: shell.instance,
        inventory: Inventory {
            gpus: vec![gpu; usize::from(shell.gpus)],
            trainers: BTreeSet::from([TrainerKind::SimpleTuner]),
            labels: BTreeMap::new(),
            price_per_gpu_hour: None,
            address: format!("host-{}:29500", shell.number).parse().ok(),
            outputs: None,
        },
    };
    let request = Request::Propose(command, None);
    match calls::call(&shell.runtime, &shell.network, server, request, ANSWER).await {
        Ok(Response::Proposed(Ok(Reply::WorkerRegistered { worker }))) => {
            shell.folder.lock().worker = Some(worker);
            Ok(worker)
        }
        Ok(Response::Proposed(Err(ProposeError::NotLeader { leader }))) => {
            Err(Trouble::Leader(leader))
        }
        Ok(Response::Proposed(Err(ProposeError::Rejected(
            Rejection::TokenInUse { .. } | Rejection::InvalidInventory { .. },
        )))) => Err(Trouble::Stop),
        // The token is made at the beginning of the world, and may be a moment away.
        _ => Err(Trouble::Again),
    }
}

/// Opens the stream and passes things on in both directions until it ends.
async fn attach(
    shell: &Arc<Shell>,
    server: u64,
    worker: WorkerId,
    news: &mpsc::UnboundedSender<News>,
) -> Trouble {
    let (up, mut down) = open(shell, server, worker);
    match first(shell, &mut down).await {
        Some(Down::Open) => {}
        Some(Down::Refused(AttachError::NotLeader { leader })) => return Trouble::Leader(leader),
        Some(Down::Refused(AttachError::UnknownWorker)) => return Trouble::Unknown,
        Some(Down::Refused(AttachError::StaleInstance)) => return Trouble::Stop,
        Some(Down::Order(_)) | None => return Trouble::Again,
    }
    shell.outbox.change(|w| w.connected(true));
    if news.send(News::Connected).is_err() {
        return Trouble::Stop;
    }
    shell.checks.count("sessions opened");
    let mut silent_at: Option<Duration> = None;
    loop {
        let silence = silent_at.map(|at| at.saturating_sub(shell.runtime.clock.monotonic()));
        tokio::select! {
            biased;
            order = down.next() => {
                silent_at = None;
                match order {
                    Some(Down::Order(Order::Shutdown(parting))) => return parted(parting),
                    Some(Down::Order(order)) => drop(news.send(News::Order(order))),
                    Some(Down::Open | Down::Refused(_)) | None => return Trouble::Again,
                }
            }
            () = up.closed() => return Trouble::Again,
            report = shell.outbox.next(&shell.runtime) => {
                if matches!(report, Report::Renew { .. }) {
                    silent_at.get_or_insert(shell.runtime.clock.monotonic() + SILENCE);
                }
                if let Some(report) = to_leader(report) {
                    up.send(report);
                }
            }
            () = wait(shell, silence) => return Trouble::Again,
        }
    }
}

fn open(
    shell: &Arc<Shell>,
    server: u64,
    worker: WorkerId,
) -> (Sender<leader::Report>, Receiver<Down>) {
    let kernel = &shell.runtime.kernel;
    let (here, there) = (shell.runtime.owner.host, calls::node(server));
    let (up, reports) = network::pipe(kernel, &shell.network, here, there);
    let (orders, down) = network::pipe(kernel, &shell.network, there, here);
    *shell.breakers.lock() = vec![reports.breaker(), down.breaker()];
    let instance = shell.instance;
    let hello = move |world: &mut crate::world::World| {
        calls::attach(world, server, (worker, instance), reports, orders);
    };
    calls::deliver(kernel, &shell.network, here, there, hello);
    (up, down)
}

async fn first(shell: &Arc<Shell>, down: &mut Receiver<Down>) -> Option<Down> {
    let late = shell.runtime.sleep(ANSWER);
    tokio::select! { biased; first = down.next() => first, () = late => None }
}

fn parted(parting: Parting) -> Trouble {
    match parting {
        Parting::Replaced | Parting::Revoked => Trouble::Stop,
        Parting::NotLeader => Trouble::Leader(None),
        Parting::TooSlow => Trouble::Again,
    }
}

async fn wait(shell: &Arc<Shell>, time: Option<Duration>) {
    match time {
        Some(time) => shell.runtime.sleep(time).await,
        None => std::future::pending().await,
    }
}

/// As it goes over the wire and comes out at the server.
fn to_leader(report: Report) -> Option<leader::Report> {
    Some(match report {
        Report::Renew { renewal, epochs } => leader::Report::Renew {
            renewal,
            epochs: epochs.into_iter().map(Epoch).collect(),
        },
        Report::Started { epoch, job, from } => leader::Report::Started {
            job: job_id(&job)?,
            epoch: Epoch(epoch),
            from: Some(from),
        },
        Report::Progress(epoch, progress) => leader::Report::Progress {
            epoch: Epoch(epoch),
            progress: leader::Progress {
                step: progress.step,
                steps_total: progress.total,
                step_ms: progress.step_ms,
                phase: leader::Phase::Training,
            },
        },
        Report::Checkpointed { epoch, job, step } => leader::Report::Checkpointed {
            job: job_id(&job)?,
            epoch: Epoch(epoch),
            step,
        },
        Report::Ended(ended) => leader::Report::Ended {
            job: job_id(&ended.job)?,
            epoch: Epoch(ended.epoch),
            outcome: outcome(ended.outcome),
            step: ended.step,
            detail: ended.detail,
        },
        Report::Leaving => leader::Report::Leaving,
        Report::Logs(epoch, lines) => leader::Report::LogLines {
            epoch: Epoch(epoch),
            lines,
        },
    })
}

fn outcome(outcome: agent::Outcome) -> Outcome {
    let failure = match outcome {
        agent::Outcome::Succeeded => return Outcome::Succeeded,
        agent::Outcome::Cancelled => return Outcome::Cancelled,
        agent::Outcome::LeaseExpired => FailureReason::LeaseLost,
        agent::Outcome::Failed(failure) => match failure {
            agent::Failure::ConfigInvalid => FailureReason::ConfigInvalid,
            agent::Failure::OutOfMemory => FailureReason::OutOfMemory,
            agent::Failure::TrainerError => FailureReason::TrainerError,
            agent::Failure::Stuck => FailureReason::Stuck,
            agent::Failure::WorkerRestarted => FailureReason::WorkerRestarted,
            agent::Failure::MaxRuntime => FailureReason::MaxRuntime,
            agent::Failure::BudgetSpent => FailureReason::BudgetSpent,
            agent::Failure::Preempted => FailureReason::Preempted,
            agent::Failure::LaunchFailed => FailureReason::LaunchFailed,
            agent::Failure::StagingMissing => FailureReason::StagingMissing,
            agent::Failure::CredentialsGone => FailureReason::CredentialsGone,
        },
    };
    Outcome::Failed(failure)
}

/// A deliberate bug: samples that nobody has acknowledged are sent as others the next time.
fn rename(shell: &Shell, id: [u8; 16]) {
    if shell.mutant != Some(Mutant::SamplesRenamed) {
        return;
    }
    let mut folder = shell.folder.lock();
    if let Some(epoch) = folder.spool.remove(&id) {
        let new = shell.runtime.kernel.roll(crate::dice::Dice::wide);
        let found = shell.checks.histories.lock().measured(new, epoch);
        shell.checks.judge(found);
        folder.spool.insert(new, epoch);
    }
}

/// Sends samples until each is acknowledged, under the id it was kept with.
pub(super) async fn spool(shell: Arc<Shell>) {
    loop {
        let waiting: Vec<[u8; 16]> = shell.folder.lock().spool.keys().copied().collect();
        for id in waiting {
            let server = shell.runtime.kernel.roll(|dice| dice.roll(shell.nodes)) + 1;
            let contribution = Contribution {
                id,
                samples: Vec::new(),
            };
            let request = Request::Contribute(contribution);
            let answer = calls::call(&shell.runtime, &shell.network, server, request, ANSWER).await;
            match answer {
                Ok(Response::Contributed(Ok(()))) => {
                    shell.checks.histories.lock().acknowledged(id);
                    shell.folder.lock().spool.remove(&id);
                    shell.checks.count("contributions acknowledged");
                }
                Ok(_) | Err(Failure::Refused | Failure::Unknown) => rename(&shell, id),
            }
        }
        let again = pin!(shell.runtime.sleep(SAMPLES_AGAIN));
        let spooled = pin!(shell.spooled.notified().fuse());
        futures::future::select(spooled, again).await;
    }
}
