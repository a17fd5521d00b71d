//! The port for other nodes: takes connections in, speaks TLS on them, and bounds how many there are.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::greetings::Greetings;

/// A caller that has not finished its TLS greeting in this time does not mean it.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Connections of members: two from each of them, and those that ended without a word.
const MEMBERS: usize = 128;

/// Connections without a certificate: nodes that ask to join, one at a time as a rule.
const STRANGERS: usize = 16;

/// A connection without a certificate ends after this long: joining takes a second, or half a minute in bad times.
const STRANGER_FOR: Duration = Duration::from_secs(90);

/// When the system refuses to accept (too many open files), this long passes before the next try.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A caller's connection. Gives its room back when it ends.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    /// Done when the connection may go on no longer; `None` then.
    ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _room: OwnedSemaphorePermit,
}

/// The certificate of whoever is at the other end, verified against the authority.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Option<CertificateDer<'static>>);

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        let chain = self.stream.get_ref().1.peer_certificates();
        Caller(chain.and_then(|chain| chain.first()).cloned())
    }
}

/// The connections that come in, and what accepts them: it has the port for as long as it runs. Once `closing`
/// says so, all of them end: what serves them does not know when its own time is over.
pub(super) fn connections(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    closing: watch::Receiver<bool>,
) -> (
    impl Stream<Item = io::Result<Connection>>,
    impl Future<Output = ()> + Send + 'static,
) {
    let (found, connections) = mpsc::channel(1);
    let accepting = accept(listener, tls.into(), found, closing);
    (ReceiverStream::new(connections), accepting)
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    found: mpsc::Sender<io::Result<Connection>>,
    closing: watch::Receiver<bool>,
) {
    let greetings = Arc::new(Mutex::new(Greetings::<AbortHandle>::default()));
    let members = Arc::new(Semaphore::new(MEMBERS));
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = found.closed() => return,
        };
        let (tcp, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (tls, found) = (tls.clone(), found.clone());
        let (members, strangers) = (Arc::clone(&members), Arc::clone(&strangers));
        let (closing, ended) = (closing.clone(), Arc::clone(&greetings));
        let greeting = |number| {
            let greeting = tokio::spawn(async move {
                let connection = greet(tcp, &tls, members, strangers, closing).await;
                lock(&ended).end(number);
                if let Some(connection) = connection {
                    let _ = found.send(Ok(connection)).await;
                }
            });
            greeting.abort_handle()
        };
        let mut greetings = lock(&greetings);
        if let Some(oldest) = greetings.begin(from.ip(), greeting) {
            oldest.abort();
            if greetings.is_said(Instant::now()) {
                tracing::warn!(%from, "many connect to the nodes' port and say nothing: the oldest of them are closed");
            }
        }
    }
}

fn lock(greetings: &Mutex<Greetings<AbortHandle>>) -> MutexGuard<'_, Greetings<AbortHandle>> {
    greetings.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn greet(
    tcp: TcpStream,
    tls: &TlsAcceptor,
    members: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    mut closing: watch::Receiver<bool>,
) -> Option<Connection> {
    tcp.set_nodelay(true).ok()?;
    let from = tcp.peer_addr().ok()?;
    let stream = match timeout(HANDSHAKE, tls.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%from, %error, "a caller does not speak TLS with us");
            return None;
        }
        Err(_) => return None,
    };
    let stranger = stream.get_ref().1.peer_certificates().is_none();
    let room = if stranger { strangers } else { members };
    let Ok(room) = room.try_acquire_owned() else {
        tracing::warn!(%from, stranger, "too many connections: this one is dropped");
        return None;
    };
    let ends = async move {
        // The sender is gone only when everything is.
        let closed = async { drop(closing.wait_for(|closing| *closing).await) };
        if stranger {
            let _ = timeout(STRANGER_FOR, closed).await;
        } else {
            closed.await;
        }
    };
    Some(Connection {
        stream,
        ends: Some(Box::pin(ends)),
        _room: room,
    })
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let over = match &mut self.ends {
            Some(ends) => ends.as_mut().poll(context).is_ready(),
            None => true,
        };
        if over {
            self.ends = None;
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
