//! What machines ask of a node over HTTP: its measurements, whether it lives, and whether it is ready.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use stepcast_cluster::{Handle, Health};
use stepcast_estimator::{Estimator, Requests};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::certificate;
use crate::config::Tls;
use crate::server::Error;
use crate::wire::Wire;

/// What is spoken here.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// Connections at once: a scraper or two, a balancer, and a person with curl.
const CONNECTIONS: usize = 16;

/// A connection asks one question and is closed by then at the latest, so that nobody can hold all of them.
const CONNECTION_LIFE: Duration = Duration::from_secs(3);

/// A port that takes no connection is tried again after this long: usually too many files are open.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// An entry that is committed is applied by then, or this node is behind.
const APPLY_WITHIN: Duration = Duration::from_millis(250);

/// How often it is looked at whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The text format that Prometheus reads.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The listener for machines: `/metrics`, `/livez` and `/readyz`. It answers from before the log is read until it is
/// dropped, to everybody who can reach it: it names no job and takes no order.
#[derive(Debug)]
pub struct Probes {
    node: Node,
    serving: JoinHandle<()>,
}

type Node = Arc<OnceLock<(Handle, Arc<Estimator>)>>;

impl Probes {
    /// Answers on a listener, with this certificate or in plain text, as yet for a node that starts.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn start(listener: TcpListener, tls: Option<&Tls>) -> Result<Self, Error> {
        let node = Node::default();
        let app = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(Arc::clone(&node));
        let tls = tls
            .map(|tls| certificate::server(tls, &PROTOCOLS))
            .transpose()?;
        let listener = Brief::new(listener, tls.map(TlsAcceptor::from))?;
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "metrics and probes are not served any more");
            }
        });
        Ok(Self { node, serving })
    }

    /// From now on it speaks of this node and its tables.
    pub fn attach(&self, handle: Handle, estimator: Arc<Estimator>) {
        // A second node has nothing to say here.
        let _ = self.node.set((handle, estimator));
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Answer = (StatusCode, [(HeaderName, &'static str); 2], String);

fn answer(code: StatusCode, kind: &'static str, text: String) -> Answer {
    let headers = [(header::CONTENT_TYPE, kind), (header::CONNECTION, "close")];
    (code, headers, text)
}

fn probe(verdict: Result<&'static str, String>) -> Answer {
    let (code, text) = match verdict {
        Ok(text) => (StatusCode::OK, text.to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    answer(code, "text/plain; charset=utf-8", format!("{text}\n"))
}

async fn metrics(State(node): State<Node>) -> impl IntoResponse {
    match node.get() {
        Some((handle, estimator)) => {
            let mut text = handle.metrics_text();
            text += &estimator.stats().metrics_text();
            text += &Requests::of_process().metrics_text();
            answer(StatusCode::OK, METRICS_TYPE, text)
        }
        None => probe(Err(STARTING.to_owned())),
    }
}

/// What is said until the log is read.
const STARTING: &str = "the node reads its log";

/// Alive unless only a restart helps.
async fn livez(State(node): State<Node>) -> impl IntoResponse {
    probe(match node.get().map(|(handle, _)| handle.status().health) {
        Some(Health::Stopped(why)) => {
            Err(format!("the node cannot go on without a restart: {why}"))
        }
        _ => Ok("alive"),
    })
}

/// Ready when it knows a leader and has applied what it knows to be committed.
async fn readyz(State(node): State<Node>) -> impl IntoResponse {
    probe(match node.get() {
        Some((handle, _)) => readiness(handle).await.map(|()| "ready"),
        None => Err(STARTING.to_owned()),
    })
}

async fn readiness(handle: &Handle) -> Result<(), String> {
    let asked = handle.status();
    match asked.health {
        Health::Stopped(why) => return Err(format!("the node has stopped: {why}")),
        Health::Electing => return Err("no node leads at the moment".to_owned()),
        // These keep it from writing; it still reads.
        Health::Serving | Health::StorageFull | Health::LogStalled(_) => {}
    }
    let began = Instant::now();
    loop {
        let applied = handle.status().applied_index;
        if applied >= asked.commit_index {
            return Ok(());
        }
        if began.elapsed() >= APPLY_WITHIN {
            let behind = asked.commit_index - applied;
            return Err(format!("{behind} committed entries are not applied yet"));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// A listener with few and short connections.
struct Brief {
    ready: mpsc::Receiver<(BriefStream, SocketAddr)>,
    address: SocketAddr,
    _accepting: JoinSet<()>,
}

/// One of them.
struct BriefStream {
    wire: Wire,
    ends: Pin<Box<Sleep>>,
    _room: OwnedSemaphorePermit,
}

impl Brief {
    fn new(listener: TcpListener, tls: Option<TlsAcceptor>) -> Result<Self, Error> {
        let address = listener.local_addr().map_err(Error::Listener)?;
        let (sender, ready) = mpsc::channel(CONNECTIONS);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, tls, sender));
        Ok(Self {
            ready,
            address,
            _accepting: accepting,
        })
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    ready: mpsc::Sender<(BriefStream, SocketAddr)>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut greeting = JoinSet::new();
    loop {
        // A semaphore that nobody closes always has room again.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        while greeting.try_join_next().is_some() {}
        let Ok((stream, address)) = listener.accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let (tls, ready) = (tls.clone(), ready.clone());
        greeting.spawn(async move {
            let ends = Instant::now() + CONNECTION_LIFE;
            let greeted = timeout_at(ends, Wire::greet(stream, tls.as_ref())).await;
            if let Ok(Ok(wire)) = greeted {
                let stream = BriefStream {
                    wire,
                    ends: Box::pin(sleep_until(ends)),
                    _room: permit,
                };
                // Nobody takes it any more only when the server ends.
                let _ = ready.send((stream, address)).await;
            }
        });
    }
}

impl axum::serve::Listener for Brief {
    type Io = BriefStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // Whoever accepts ends with this.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

impl AsyncRead for BriefStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.wire).poll_read(context, buffer) {
            return Poll::Ready(read);
        }
        ready!(self.ends.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for BriefStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.wire).poll_write(context, bytes) {
            return Poll::Ready(written);
        }
        ready!(self.ends.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
