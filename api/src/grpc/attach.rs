//! A worker's stream: its reports go to the leader, the leader's orders go to it.

use std::pin::Pin;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::{self, BoxStream};
use stepcast_cluster::session::{Order, Parting};
use stepcast_cluster::{Handle, Reports, Session};
use stepcast_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use super::agent::{instance, not_registered};
use crate::auth::WorkerCaller;
use crate::context::{Context, closed};
use crate::status::Refusal;
use crate::{convert, names, redirect, status};

/// A worker says hello with its first message; one that has not by then does not mean it.
const HELLO: Duration = Duration::from_secs(10);

/// A worker that comes while nobody leads waits this long for a leader, since what it runs waits for one too. An election
/// takes less, and a node that is cut off does not hold up for longer a worker that would find the others.
const ELECTION: Duration = Duration::from_secs(1);

/// The orders of one session. Dropping it ends the session.
pub(crate) struct Orders(BoxStream<'static, Result<v1::AttachResponse, Status>>);

/// Opens the session of a worker that has shown its secret.
pub(crate) async fn open(
    context: &Context,
    caller: WorkerCaller,
    mut stream: Streaming<v1::AttachRequest>,
) -> Result<Orders, Status> {
    let first = timeout(HELLO, stream.message())
        .await
        .map_err(|_| no_hello())??;
    let Some(v1::attach_request::Report::Hello(hello)) = first.and_then(|first| first.report)
    else {
        return Err(no_hello());
    };
    let (id, instance) = (
        names::worker("hello.worker", &hello.worker)?,
        instance("hello.instance", &hello.instance)?,
    );
    let known = caller
        .worker
        .filter(|known| known.id == id)
        .ok_or_else(not_registered)?;
    let mut closing = context.closing.clone();
    tokio::select! {
        () = context.handle.somebody_leads(ELECTION) => {}
        status = closed(&mut closing) => return Err(status),
    }
    let session = if hello.leaving {
        context.handle.attach_leaving(known.id, instance)
    } else {
        context.handle.attach(known.id, instance)
    };
    let session = session.map_err(status::attach)?;
    tracing::info!(worker = %known.id, "a worker has attached");
    let Session { orders, reports } = session;
    let (fail, failure) = oneshot::channel();
    let reading = tokio::spawn(read(stream, reports, fail)).abort_handle();
    let open = Open {
        orders,
        failure,
        closing: context.closing.clone(),
        handle: context.handle.clone(),
        _reading: Reading(reading),
    };
    Ok(Orders(Box::pin(stream::unfold(Some(open), next))))
}

/// An open session.
struct Open {
    orders: mpsc::Receiver<Order>,
    failure: oneshot::Receiver<Status>,
    closing: watch::Receiver<bool>,
    handle: Handle,
    _reading: Reading,
}

/// The reader of the reports, which ends with the stream of orders.
struct Reading(AbortHandle);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Item = Result<v1::AttachResponse, Status>;

/// The next thing a worker is told. A farewell or a failure is the last one.
async fn next(open: Option<Open>) -> Option<(Item, Option<Open>)> {
    let mut open = open?;
    tokio::select! {
        biased;
        order = open.orders.recv() => match order {
            // Said as a refusal, since that can carry the address of the node that leads now.
            Some(Order::Shutdown(Parting::NotLeader)) => Some((Err(open.lead_on()), None)),
            Some(order @ Order::Shutdown(_)) => Some((Ok(convert::order(order)), None)),
            Some(order) => Some((Ok(convert::order(order)), Some(open))),
            None => Some((end(&mut open), None)),
        },
        status = closed(&mut open.closing) => Some((Err(status), None)),
    }
}

impl Open {
    fn lead_on(&self) -> Status {
        let leader = self.handle.status().leader;
        redirect::told(status::not_leader(leader), &self.handle)
    }
}

/// The session is over without a word from the leader: the worker broke the protocol, went away, or read too slowly.
fn end(open: &mut Open) -> Item {
    match open.failure.try_recv() {
        Ok(status) => Err(status),
        Err(_) => Ok(convert::order(Order::Shutdown(Parting::TooSlow))),
    }
}

/// Passes reports on until either side has had enough. Its end closes the session.
async fn read(
    mut stream: Streaming<v1::AttachRequest>,
    reports: Reports,
    fail: oneshot::Sender<Status>,
) {
    loop {
        let report = match stream.message().await {
            Ok(Some(report)) => convert::report(report),
            // The worker is gone, or will be in a moment.
            Ok(None) | Err(_) => return,
        };
        match report {
            Ok(Some(report)) => {
                if reports.report(report).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(status) => {
                tracing::warn!(%status, "a worker's report cannot be read");
                // Nobody listens only if the worker is gone.
                let _ = fail.send(status);
                return;
            }
        }
    }
}

fn no_hello() -> Status {
    Refusal::new(
        Code::InvalidArgument,
        "HELLO_MISSING",
        "the first message of a session is hello",
    )
    .into()
}

impl Stream for Orders {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Item>> {
        self.0.as_mut().poll_next(poller)
    }
}
