//! Connections as they come in: TLS where there is a certificate, few bytes soon, and nobody who only holds one open.
//!
//! A connection that has not sent [`FIRST_BYTES`] in [`FIRST_WITHIN`] is closed, and so is one that reads nothing of what
//! waits for it within [`READS_WITHIN`]. Until the first byte a connection costs a socket and a small task.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;

use crate::wire::Wire;

/// Connections at once. Workers and people have one each; what is beyond waits in the kernel until another ends.
const CONNECTIONS: usize = 16_384;

/// Connections that are ready and not yet taken.
const READY: usize = 64;

/// So many bytes are there soon, or the caller does not mean it: HTTP/2 begins with as many.
const FIRST_BYTES: usize = 24;

/// How soon. A TLS greeting must be over by then as well.
const FIRST_WITHIN: Duration = Duration::from_secs(10);

/// A caller that takes nothing of its answer for so long gets no more of it.
const READS_WITHIN: Duration = Duration::from_secs(30);

/// A port that takes no connection is tried again after this long: usually too many files are open.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Who calls, beside every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The connections of a port, each ready to be read. Ends everything it has begun when it is dropped.
pub(crate) struct Incoming {
    ready: mpsc::Receiver<Connection>,
    _accepting: JoinSet<()>,
}

impl Incoming {
    /// Takes connections from now on.
    pub(crate) fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        let (sender, ready) = mpsc::channel(READY);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, tls.map(TlsAcceptor::from), sender));
        Self {
            ready,
            _accepting: accepting,
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context).map(|next| next.map(Ok))
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, ready: mpsc::Sender<Connection>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut greeting = JoinSet::new();
    loop {
        // A semaphore that nobody closes always has room again.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        while greeting.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, address)) => {
                let (tls, ready) = (tls.clone(), ready.clone());
                greeting.spawn(async move {
                    let greeted = timeout(FIRST_WITHIN, greet(stream, address, tls, permit)).await;
                    if let Ok(Ok(connection)) = greeted {
                        // Nobody takes it any more only when the server ends.
                        let _ = ready.send(connection).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Waits for the first byte, and for the end of the TLS greeting.
async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    permit: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    let begins = Instant::now() + FIRST_WITHIN;
    let wire = Wire::greet(stream, tls.as_ref()).await?;
    Ok(Connection {
        wire,
        address,
        missing: FIRST_BYTES,
        begins: Box::pin(tokio::time::sleep_until(begins)),
        stalled: None,
        _permit: permit,
    })
}

/// One connection.
pub(crate) struct Connection {
    wire: Wire,
    address: SocketAddr,
    /// Bytes that are still to come before `begins`.
    missing: usize,
    begins: Pin<Box<Sleep>>,
    /// Until when something of what waits has to be taken.
    stalled: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.address)
    }
}

impl Connection {
    /// What came of a write: one that waits may do so for a while only.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(READS_WITHIN)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.wire).poll_read(context, buffer);
        if self.missing == 0 {
            return read;
        }
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        if read.is_ready() {
            return read;
        }
        ready!(self.begins.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write_vectored(context, bytes);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.wire).poll_flush(context);
        self.written(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
