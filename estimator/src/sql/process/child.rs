//! The other end: the process that runs statements for a server, and asks it for pieces of objects.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as Socket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use object_store::path::Path;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};

use super::super::reads::Pieces;
use super::super::session::Reach;
use super::super::{PROCESS_BYTES_MAX, Wanted, footers, thread};
use super::wire::{self, Ask, Frames, Said, ToProcess, ToServer, Unread};

/// Messages to the server that wait to be sent. A statement has a few reads at a time.
const OUTBOX: usize = 64;

/// Runs statements for the server at the other end of the standard input, a socket, until that is closed.
///
/// The process gives up what it does not need: memory beyond a limit, and its place before others when the machine has
/// too little of it.
///
/// # Errors
/// When the standard input is no socket: somebody calls this who is no server.
pub fn serve() -> io::Result<()> {
    within(PROCESS_BYTES_MAX)
}

/// The same with another limit of memory, in bytes.
pub(super) fn within(memory: u64) -> io::Result<()> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = Socket::from(stdin);
    // Fails for what is no socket, and leaves a terminal as it is.
    socket.local_addr()?;
    socket.set_nonblocking(true)?;
    bounded(memory);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let served = runtime.block_on(async { answer(UnixStream::from_std(socket)?).await });
    // A statement that still runs ends with the process.
    runtime.shutdown_background();
    served
}

/// Limits that only ever become narrower. Where the system knows one of them not, the others hold.
fn bounded(memory: u64) {
    let most = |most| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    let _ = setrlimit(Resource::Data, most(memory));
    // What lies in memory is nobody's to find in a file.
    let _ = setrlimit(Resource::Core, most(0));
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

async fn answer(socket: UnixStream) -> io::Result<()> {
    let (read, write) = socket.into_split();
    let mut frames = Frames::of(read);
    let (outbox, messages) = mpsc::channel(OUTBOX);
    let server = Arc::new(Server {
        outbox,
        waiting: Mutex::default(),
        reads: AtomicU64::new(0),
    });
    tokio::spawn(post(messages, write));
    let footers = footers();
    while let Some((head, bytes)) = frames.next().await {
        match head {
            ToProcess::Ask(ask) => {
                tokio::spawn(run(ask, Arc::clone(&server), Arc::clone(&footers)));
            }
            ToProcess::Pieces { read, found } => server.found(read, found, bytes),
        }
    }
    Ok(())
}

/// Sends what there is to say, in its order.
async fn post(mut messages: mpsc::Receiver<(ToServer, Bytes)>, mut socket: OwnedWriteHalf) {
    while let Some((head, bytes)) = messages.recv().await {
        if wire::send(&mut socket, &head, &[bytes]).await.is_err() {
            return;
        }
    }
}

async fn run(ask: Ask, server: Arc<Server>, footers: Arc<FileMetadataCache>) {
    let views = ask.views();
    let reach = Reach {
        pieces: Arc::clone(&server) as Arc<dyn Pieces>,
        footers,
        views,
    };
    let wanted = match ask.columns_only {
        true => Wanted::Columns,
        false => Wanted::Rows,
    };
    let answer = thread::run(&ask.statement, wanted, reach, ask.time_max, ()).await;
    let answer = answer.map_err(Said::from).and_then(|answer| {
        wire::packed(&answer).map_err(|error| Said::Query {
            message: error.to_string(),
            hint: None,
        })
    });
    let (head, rows) = match answer {
        Ok((facts, rows)) => (Ok(facts), rows),
        Err(said) => (Err(said), Bytes::new()),
    };
    let _ = server.outbox.send((ToServer::Answer(head), rows)).await;
}

/// What a read ended with.
type Found = Result<Vec<Bytes>, Unread>;

/// The server, as it is asked for pieces of objects.
struct Server {
    outbox: mpsc::Sender<(ToServer, Bytes)>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Found>>>,
    reads: AtomicU64,
}

impl Server {
    async fn ask(&self, path: &Path, ranges: &[Range<u64>]) -> Found {
        let gone = || Unread {
            is_missing: false,
            why: "the server is gone".into(),
        };
        let (found, wanted) = oneshot::channel();
        let read = self.reads.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(read, found);
        let asked = ToServer::Read {
            read,
            path: path.to_string(),
            ranges: ranges.to_vec(),
        };
        let asked = self.outbox.send((asked, Bytes::new())).await;
        asked.map_err(|_| gone())?;
        wanted.await.map_err(|_| gone())?
    }

    fn found(&self, read: u64, found: Result<Vec<usize>, Unread>, bytes: Bytes) {
        let torn = || Unread {
            is_missing: false,
            why: "an answer of the server cannot be read".into(),
        };
        let pieces = found.and_then(|lengths| wire::split(bytes, &lengths).ok_or_else(torn));
        if let Some(waits) = self.lock().remove(&read) {
            // A statement that has ended reads no more.
            let _ = waits.send(pieces);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Found>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Pieces for Server {
    async fn read(
        &self,
        path: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, object_store::Error> {
        let found = self.ask(path, ranges).await;
        found.map_err(|unread| match unread.is_missing {
            true => object_store::Error::NotFound {
                path: path.to_string(),
                source: unread.why.into(),
            },
            false => object_store::Error::Generic {
                store: "server",
                source: unread.why.into(),
            },
        })
    }
}
