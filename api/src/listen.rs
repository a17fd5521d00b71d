//! Connections as they come in: TLS where there is a certificate, few bytes soon, and nobody who only holds one open.
//!
//! A connection that has not sent [`FIRST_BYTES`] in [`FIRST_WITHIN`] is closed, and so is one that reads nothing of what
//! waits for it within [`READS_WITHIN`]. Until the first byte a connection costs a socket and a small task. One on which no
//! token was shown is a stranger's ([`strangers`]), and closed when no call of it was let in for a while.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::Extensions;
use futures::Stream;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;

use crate::config::Connections;
use crate::wire::Wire;

pub(crate) use self::strangers::Standing;
use self::strangers::{Entered, Strangers};

mod files;
mod strangers;

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

/// A port that is full is looked at again after this long, for what was closed may not have ended.
const ROOM_AGAIN: Duration = Duration::from_secs(1);

/// Who calls, beside every request.
#[derive(Clone)]
pub(crate) struct Peer {
    /// From where.
    pub(crate) address: SocketAddr,
    /// What has been let in on the connection.
    pub(crate) standing: Standing,
}

impl Peer {
    /// Who makes this request.
    pub(crate) fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get::<Self>()
    }

    /// A good token was shown with a request.
    pub(crate) fn note_token(extensions: &Extensions) {
        if let Some(peer) = Self::of(extensions) {
            peer.standing.known();
        }
    }

    /// A request was let in that needs no token.
    pub(crate) fn note_call(extensions: &Extensions) {
        if let Some(peer) = Self::of(extensions) {
            peer.standing.let_in();
        }
    }
}

/// The connections of a port, each ready to be read. Ends everything it has begun when it is dropped.
pub(crate) struct Incoming {
    ready: mpsc::Receiver<Connection>,
    _accepting: JoinSet<()>,
}

impl Incoming {
    /// Takes connections from now on.
    pub(crate) fn new(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        bounds: Connections,
    ) -> Self {
        let bounds = files::room_for(bounds);
        let (sender, ready) = mpsc::channel(READY);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, tls.map(TlsAcceptor::from), bounds, sender));
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

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    bounds: Connections,
    ready: mpsc::Sender<Connection>,
) {
    let room = Arc::new(Semaphore::new(bounds.at_once));
    let strangers = Strangers::new(bounds.of_address);
    let mut greeting = JoinSet::new();
    loop {
        while greeting.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, address)) => {
                // Only now that somebody waits for it.
                let permit = permit(&room, &strangers).await;
                let (tls, ready) = (tls.clone(), ready.clone());
                let mut entered = strangers.enter(address);
                let begins = Instant::now() + FIRST_WITHIN;
                greeting.spawn(async move {
                    let greeted = tokio::select! {
                        greeted = timeout_at(begins, Wire::greet(stream, tls.as_ref())) => greeted,
                        () = entered.closed() => return,
                    };
                    let Ok(Ok(wire)) = greeted else {
                        return;
                    };
                    let connection = Connection {
                        wire,
                        address,
                        missing: FIRST_BYTES,
                        ends: Box::pin(sleep_until(begins)),
                        stranger_within: bounds.stranger_within,
                        entered,
                        is_known: false,
                        is_closed: false,
                        stalled: None,
                        _permit: permit,
                    };
                    // Nobody takes it any more only when the server ends.
                    let _ = ready.send(connection).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Room for one more connection, if need be that of a stranger's.
async fn permit(room: &Arc<Semaphore>, strangers: &Strangers) -> OwnedSemaphorePermit {
    loop {
        if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
            return permit;
        }
        strangers.make_room();
        if let Ok(Ok(permit)) = timeout(ROOM_AGAIN, Arc::clone(room).acquire_owned()).await {
            return permit;
        }
    }
}

/// One connection.
pub(crate) struct Connection {
    wire: Wire,
    address: SocketAddr,
    /// Bytes that are still to come before `ends`.
    missing: usize,
    /// When it ends unless so much has come, and later unless something was let in.
    ends: Pin<Box<Sleep>>,
    /// How long a stranger may go on without that.
    stranger_within: Duration,
    entered: Entered,
    /// Whether a good token was shown on it.
    is_known: bool,
    /// Whether it makes room for another.
    is_closed: bool,
    /// Until when something of what waits has to be taken.
    stalled: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer {
            address: self.address,
            standing: self.entered.standing.clone(),
        }
    }
}

impl Connection {
    /// Whether it is to end: a stranger's that makes room for another, or on which nothing was let in for too long.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(told) = &mut self.entered.told
            && let Poll::Ready(told) = Pin::new(told).poll(context)
        {
            self.entered.told = None;
            self.is_known = told.is_err();
            self.is_closed = told.is_ok();
        }
        if self.is_closed {
            return Poll::Ready(());
        }
        if self.is_known || self.missing > 0 {
            return Poll::Pending;
        }
        loop {
            ready!(self.ends.as_mut().poll(context));
            let ends = self.entered.standing.last() + self.stranger_within;
            if ends <= Instant::now() {
                return Poll::Ready(());
            }
            self.ends.as_mut().reset(ends);
        }
    }

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
        let late = || Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        if self.poll_ended(context).is_ready() {
            return late();
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.wire).poll_read(context, buffer);
        if self.missing == 0 {
            return read;
        }
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        if self.missing == 0 {
            let ends = self.entered.standing.last() + self.stranger_within;
            self.ends.as_mut().reset(ends);
        }
        if read.is_ready() {
            return read;
        }
        ready!(self.ends.as_mut().poll(context));
        late()
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
