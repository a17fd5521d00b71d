//! Calls to a node's front door, over the wires: the answer may be lost, late, or never given.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use stepcast_cluster::session::{Order, Report};
use stepcast_cluster::{
    AttachError, ContributeError, Contribution, Handle, JobUpdate, ProposeError, ReadError,
    Runtime, Session,
};
use stepcast_scheduler::ids::{InstanceId, JobId, WorkerId};
use stepcast_scheduler::model::{JobState, PartState};
use stepcast_scheduler::{Command, Reply, RequestId, State};
use tokio::sync::oneshot;

use crate::checks::Seen;
use crate::clock::Process;
use crate::kernel::{Host, Kernel};
use crate::mutant::Mutant;
use crate::network::{Network, Receiver, Sender};
use crate::world::World;

/// What a node is asked.
pub(crate) enum Request {
    /// To put a command into the log.
    Propose(Command, Option<RequestId>),
    /// To say how these jobs stand, with everything that was acknowledged.
    Read(Vec<JobId>),
    /// To store samples.
    Contribute(Contribution),
}

/// What it answers.
#[derive(Debug)]
pub(crate) enum Response {
    /// What came of a command.
    Proposed(Result<Reply, ProposeError>),
    /// How the jobs stand.
    Read(Result<Seen, ReadError>),
    /// Whether the samples are stored.
    Contributed(Result<(), ContributeError>),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody listens there: nothing was done.
    Refused,
    /// It was asked, and nobody knows what came of it.
    Unknown,
}

/// What a worker hears over its stream.
pub(crate) enum Down {
    /// The session is open.
    Open,
    /// There is none.
    Refused(AttachError),
    /// An order.
    Order(Order),
}

/// What a watcher hears.
pub(crate) enum Told {
    /// The watch is not opened.
    Refused,
    /// Something about the job.
    Update(Box<JobUpdate>),
}

/// The host of a node.
pub(crate) fn node(id: u64) -> Host {
    Host::Node(id)
}

/// Has this happen at the other end, unless the wire is cut when it would arrive.
pub(crate) fn deliver(
    kernel: &Arc<Kernel>,
    network: &Arc<Network>,
    from: Host,
    to: Host,
    act: impl FnOnce(&mut World) + Send + 'static,
) {
    let delay = network.delay(kernel);
    kernel.after(delay, move |world| {
        if world.network.is_cut(from, to) {
            // Nothing is heard of it, not even that it failed.
            world.limbo.push(Box::new(act));
        } else {
            act(world);
        }
    });
}

/// Asks a node and waits for its answer.
pub(crate) async fn call(
    process: &Process,
    network: &Arc<Network>,
    server: u64,
    request: Request,
    patience: Duration,
) -> Result<Response, Failure> {
    let (answer, answered) = oneshot::channel();
    let here = process.owner.host;
    let kernel = &process.kernel;
    deliver(kernel, network, here, node(server), move |world| {
        serve(world, server, here, request, answer);
    });
    match select(pin!(answered), process.sleep(patience)).await {
        Either::Left((Ok(answer), _)) => answer,
        // The node ended while it had the call.
        Either::Left((Err(_), _)) | Either::Right(_) => Err(Failure::Unknown),
    }
}

type Answer = oneshot::Sender<Result<Response, Failure>>;

fn serve(world: &mut World, server: u64, from: Host, request: Request, answer: Answer) {
    let Some((handle, owner)) = world.door(server) else {
        let (kernel, network) = (Arc::clone(&world.kernel), Arc::clone(&world.network));
        deliver(&kernel, &network, node(server), from, move |_| {
            let _ = answer.send(Err(Failure::Refused));
        });
        return;
    };
    let (kernel, network) = (Arc::clone(&world.kernel), Arc::clone(&world.network));
    let stale = world.options.mutant == Some(Mutant::ReadWithoutQuorum);
    let forgetful = world.options.mutant == Some(Mutant::RequestForgotten);
    let forgets = forgetful && world.has_restored(server);
    let unwritten = world.options.mutant == Some(Mutant::CancelNotWritten);
    let task = async move {
        let response = respond(&handle, request, (stale, forgets, unwritten)).await;
        deliver(&kernel, &network, node(server), from, move |_| {
            let _ = answer.send(Ok(response));
        });
    };
    world.kernel.spawn(owner, task.boxed());
}

async fn respond(
    handle: &Handle,
    request: Request,
    (stale, forgets, unwritten): (bool, bool, bool),
) -> Response {
    match request {
        // A deliberate bug: what runs is said to be cancelled, and nothing of it is written.
        Request::Propose(Command::CancelJob { job }, _) if unwritten && runs(handle, job) => {
            let state = JobState::Cancelling;
            Response::Proposed(Ok(Reply::JobCancelled { state }))
        }
        // A deliberate bug: a node that was restored from a snapshot does not know the requests before it.
        Request::Propose(command, _) if forgets => {
            Response::Proposed(handle.propose(command, None).await)
        }
        Request::Propose(command, request_id) => {
            Response::Proposed(handle.propose(command, request_id).await)
        }
        Request::Read(jobs) => {
            let look = |state: &State| {
                let job = |id: &JobId| {
                    let job = state.job(*id)?;
                    Some((job.seq(), job.state))
                };
                Seen {
                    index: state.applied_index(),
                    jobs: jobs.iter().map(|id| (*id, job(id))).collect(),
                }
            };
            // A deliberate bug: the state as it is here is shown without asking anybody.
            Response::Read(if stale {
                Ok(handle.read_stale(look))
            } else {
                handle.read(look).await
            })
        }
        Request::Contribute(contribution) => {
            Response::Contributed(handle.contribute(contribution).await)
        }
    }
}

fn runs(handle: &Handle, job: JobId) -> bool {
    let runs = |state: &State| state.job(job).map(|job| job.state) == Some(JobState::Running);
    handle.read_stale(runs)
}

/// A worker's stream arrives at a node.
pub(crate) fn attach(
    world: &mut World,
    server: u64,
    (worker, instance): (WorkerId, InstanceId),
    up: Receiver<Report>,
    down: Sender<Down>,
) {
    let Some((handle, owner)) = world.door(server) else {
        return;
    };
    let mutant = world.options.mutant;
    let task = async move {
        match handle.attach(worker, instance) {
            Err(error) => down.send(Down::Refused(error)),
            Ok(session) => {
                down.send(Down::Open);
                serve_session(&handle, session, up, down, mutant).await;
            }
        }
    };
    world.kernel.spawn(owner, task.boxed());
}

async fn serve_session(
    handle: &Handle,
    session: Session,
    mut up: Receiver<Report>,
    down: Sender<Down>,
    mutant: Option<Mutant>,
) {
    let Session {
        mut orders,
        reports,
    } = session;
    let reading = async move {
        while let Some(report) = up.next().await {
            let is_done = match mutant {
                Some(Mutant::EpochNotChecked) => believe(handle, &report).await,
                Some(Mutant::PartEndsAll) => end_all(handle, &report).await,
                Some(Mutant::PartExpiresOthers) => expire_others(handle, &report).await,
                _ => false,
            };
            if is_done {
                continue;
            }
            if reports.report(report).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order @ Order::Shutdown(_)) => {
                        down.send(Down::Order(order));
                        return;
                    }
                    Some(order) => down.send(Down::Order(order)),
                    None => {
                        down.send(Down::Order(Order::Shutdown(stepcast_cluster::session::Parting::TooSlow)));
                        return;
                    }
                },
                () = down.closed() => return,
            }
        }
    };
    // The end of the orders ends the reading; the end of the reading closes the session, which ends the orders.
    match select(pin!(writing), pin!(reading)).await {
        Either::Left(((), _)) => {}
        Either::Right(((), writing)) => writing.await,
    }
}

/// A deliberate bug: the end of an old epoch is taken for the end of the newest attempt of its job.
async fn believe(handle: &Handle, report: &Report) -> bool {
    let Report::Ended {
        job,
        epoch,
        outcome,
        step,
        detail,
    } = report
    else {
        return false;
    };
    let newest = handle.read_stale(|state| Some(state.job(*job)?.live_attempt()?.epoch));
    let Some(newest) = newest.filter(|newest| newest != epoch) else {
        return false;
    };
    let command = Command::EndAttempt {
        job: *job,
        epoch: newest,
        outcome: *outcome,
        step: *step,
        detail: detail.clone(),
    };
    handle.propose(command, None).await.is_ok()
}

/// A deliberate bug: the end of one part of a gang is taken for the end of all of its parts.
async fn end_all(handle: &Handle, report: &Report) -> bool {
    let Report::Ended {
        job,
        epoch,
        outcome,
        step,
        detail,
    } = report
    else {
        return false;
    };
    let workers: Vec<WorkerId> = handle.read_stale(|state| {
        let live = state.live_attempt(*epoch);
        let gang = live.filter(|(_, attempt)| attempt.gang.is_some());
        let parts = gang.iter().flat_map(|(_, attempt)| attempt.parts());
        parts.map(|part| part.worker).collect()
    });
    for worker in workers {
        let command = Command::EndPart {
            job: *job,
            epoch: *epoch,
            worker,
            outcome: *outcome,
            step: *step,
            detail: detail.clone(),
        };
        let _ = handle.propose(command, None).await;
    }
    // What is left to say is that the worker may forget it.
    false
}

/// A deliberate bug: when one part of a gang starts, the leases of those that have started before are taken for over.
async fn expire_others(handle: &Handle, report: &Report) -> bool {
    let Report::Started { job, epoch, .. } = report else {
        return false;
    };
    let expired: Vec<_> = handle.read_stale(|state| {
        let live = state.live_attempt(*epoch);
        let gang = live.filter(|(_, attempt)| attempt.gang.is_some());
        let parts = gang.iter().flat_map(|(_, attempt)| attempt.parts());
        let running = parts.filter(|part| part.state == PartState::Running);
        running.map(|part| (*job, *epoch, part.worker)).collect()
    });
    if !expired.is_empty() {
        let _ = handle.propose(Command::ExpireParts { expired }, None).await;
    }
    false
}

/// A person's watch arrives at a node.
pub(crate) fn watch(world: &mut World, server: u64, job: JobId, to: Sender<Told>) {
    let Some((handle, owner)) = world.door(server) else {
        return;
    };
    let gap = world.options.mutant == Some(Mutant::WatchGap);
    let kernel = Arc::clone(&world.kernel);
    let task = async move {
        match handle.watch(job) {
            Err(_) => to.send(Told::Refused),
            Ok(mut watch) => loop {
                tokio::select! {
                    biased;
                    update = watch.next() => match update {
                        // A deliberate bug: now and then an event is not passed on.
                        Some(JobUpdate::Event { .. }) if gap && kernel.roll(|dice| dice.per_mille(50)) => {}
                        Some(update) => to.send(Told::Update(Box::new(update))),
                        None => return,
                    },
                    () = to.closed() => return,
                }
            },
        }
    };
    world.kernel.spawn(owner, task.boxed());
}
