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
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::greetings::Greetings;
use super::seats::{Seat, Seats, Speech};
use super::shared::Shared;

/// A caller that has not finished its TLS greeting in this time does not mean it.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A connection without a certificate ends after this long: joining takes a second, or half a minute in bad times.
const STRANGER_FOR: Duration = Duration::from_secs(90);

/// When the system refuses to accept (too many open files), this long passes before the next try.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A caller's connection. Gives its seat back when it ends.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    /// Done when the connection may go on no longer; `None` then.
    ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    seat: Seat,
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The certificate, verified against the authority.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// Where calls are told that are heard: a connection without any does not last.
    pub(super) speech: Speech,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        let chain = self.stream.get_ref().1.peer_certificates();
        Caller {
            certificate: chain.and_then(|chain| chain.first()).cloned(),
            speech: self.seat.speech(),
        }
    }
}

/// The connections that come in, and what accepts them: it has the port for as long as it runs. Once `closing`
/// says so, all of them end: what serves them does not know when its own time is over.
pub(super) fn connections(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
) -> (
    impl Stream<Item = io::Result<Connection>>,
    impl Future<Output = ()> + Send + 'static,
) {
    let (found, connections) = mpsc::channel(1);
    let accepting = accept(listener, tls.into(), found, shared);
    (ReceiverStream::new(connections), accepting)
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    found: mpsc::Sender<io::Result<Connection>>,
    shared: Arc<Shared>,
) {
    let greetings = Arc::new(Mutex::new(Greetings::<AbortHandle>::default()));
    let seats = Arc::<Seats>::default();
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
        let (shared, seats) = (Arc::clone(&shared), Arc::clone(&seats));
        let ended = Arc::clone(&greetings);
        let greeting = |number| {
            let greeting = tokio::spawn(async move {
                let connection = greet(tcp, &tls, &shared, &seats).await;
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
    shared: &Shared,
    seats: &Arc<Seats>,
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
    let certificate = stream.get_ref().1.peer_certificates();
    let certificate = certificate.and_then(|chain| chain.first());
    let is_member = certificate.is_some_and(|certificate| shared.roster.names(certificate));
    let Some(seat) = seats.take(from.ip(), is_member) else {
        tracing::warn!(%from, is_member, "too many connections: this one is dropped");
        return None;
    };
    let lasts = certificate.is_none().then_some(STRANGER_FOR);
    let ends = ends(seat.over(), lasts, shared.closing.subscribe());
    Some(Connection {
        stream,
        ends: Some(Box::pin(ends)),
        seat,
    })
}

/// Waits for whatever ends a connection first.
async fn ends(
    over: impl Future<Output = ()>,
    lasts: Option<Duration>,
    mut closing: watch::Receiver<bool>,
) {
    let too_long = async {
        match lasts {
            Some(lasts) => sleep(lasts).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        () = too_long => {}
        // The sender is gone only when everything is.
        _ = closing.wait_for(|closing| *closing) => {}
    }
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
