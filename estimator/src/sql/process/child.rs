//! The other end: the process that runs statements for a server, and asks it for pieces of objects.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream as Socket;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use object_store::path::Path;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::oneshot;

use super::super::reads::Pieces;
use super::super::session::Reach;
use super::super::{GRACE, PROCESS_BYTES_MAX, Wanted, footers, thread};
use super::wire::{self, Ask, Facts, Frames, Said, ToProcess, ToServer, Unread};

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
    // Fails for what is no socket, and leaves a terminal as it is.
    Socket::from(io::stdin().as_fd().try_clone_to_owned()?).local_addr()?;
    alone();
    let socket = Socket::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    bounded(memory);
    // Everything on one thread: a read costs no more than asking and being answered.
    let served = thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async { answer(UnixStream::from_std(socket)?).await })
    })?;
    served
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the query engine failed")))
}

/// Closes whatever the server had open when it started this process, such as its log: not everything that it opens is closed
/// for those that it starts. Nothing of this process is open yet but its standard streams.
fn alone() {
    let open = std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd"));
    let Ok(open) = open else { return };
    let open = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    // That of the list itself is closed when it has been read, and closing it again harms nothing.
    let open: Vec<RawFd> = open.filter(|descriptor| *descriptor > 2).collect();
    for descriptor in open {
        let _ = nix::unistd::close(descriptor);
    }
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
    let server = Arc::new(Server {
        socket: tokio::sync::Mutex::new(write),
        waiting: Mutex::default(),
        reads: AtomicU64::new(0),
    });
    let footers = footers();
    let watch = Watch::start()?;
    let mut next = None;
    loop {
        let ask = match next.take() {
            Some(ask) => ask,
            None => match frames.next().await {
                Some((ToProcess::Ask(ask), _)) => ask,
                // A read of a statement that has ended.
                Some((ToProcess::Pieces { .. }, _)) => continue,
                None => return Ok(()),
            },
        };
        server.send(&ToServer::Taken, &[]).await?;
        let _watched = watch.begin(ask.time_max);
        let mut run = pin!(run(&ask, &server, &footers));
        let (answer, rows) = loop {
            tokio::select! {
                answer = &mut run => break answer,
                frame = frames.next() => match frame {
                    Some((ToProcess::Pieces { read, found }, bytes)) => server.found(read, found, bytes),
                    // One statement at a time.
                    Some((ToProcess::Ask(_), _)) | None => return Ok(()),
                },
            }
        };
        // The server may be sending what the statement wanted to read, and takes the answer when that is gone.
        let (answer, rows) = (ToServer::Answer(answer), [rows]);
        let mut sent = pin!(server.send(&answer, &rows));
        loop {
            tokio::select! {
                sent = &mut sent => break sent?,
                frame = frames.next() => match frame {
                    Some((ToProcess::Pieces { .. }, _)) => {}
                    Some((ToProcess::Ask(ask), _)) => next = Some(ask),
                    None => return Ok(()),
                },
            }
        }
    }
}

async fn run(
    ask: &Ask,
    server: &Arc<Server>,
    footers: &Arc<FileMetadataCache>,
) -> (Result<Facts, Said>, Bytes) {
    let reach = Reach {
        pieces: Arc::clone(server) as Arc<dyn Pieces>,
        footers: Arc::clone(footers),
        views: ask.views(),
    };
    let wanted = match ask.columns_only {
        true => Wanted::Columns,
        false => Wanted::Rows,
    };
    let answer = thread::answer(&ask.statement, wanted, reach, ask.time_max).await;
    let answer = answer.map_err(Said::from).and_then(|answer| {
        wire::packed(&answer).map_err(|error| Said::Query {
            message: error.to_string(),
            hint: None,
        })
    });
    match answer {
        Ok((facts, rows)) => (Ok(facts), rows),
        Err(said) => (Err(said), Bytes::new()),
    }
}

/// Ends the process when a statement has not ended long after its time: the server would have, but may be gone.
struct Watch(mpsc::Sender<Option<Duration>>);

struct Watched<'a>(&'a Watch);

impl Watch {
    fn start() -> io::Result<Self> {
        let (sender, begun) = mpsc::channel();
        let watch = move || {
            while let Ok(begins) = begun.recv() {
                let Some(time_max) = begins else { continue };
                if begun.recv_timeout(time_max + 2 * GRACE) == Err(RecvTimeoutError::Timeout) {
                    std::process::abort();
                }
            }
        };
        std::thread::Builder::new().spawn(watch)?;
        Ok(Self(sender))
    }

    fn begin(&self, time_max: Duration) -> Watched<'_> {
        let _ = self.0.send(Some(time_max));
        Watched(self)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let _ = self.0.0.send(None);
    }
}

/// What a read ended with.
type Found = Result<Vec<Bytes>, Unread>;

/// The server, as it is asked for pieces of objects.
struct Server {
    socket: tokio::sync::Mutex<OwnedWriteHalf>,
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
        self.send(&asked, &[]).await.map_err(|_| gone())?;
        wanted.await.map_err(|_| gone())?
    }

    async fn send(&self, head: &ToServer, pieces: &[Bytes]) -> io::Result<()> {
        wire::send(&mut *self.socket.lock().await, head, pieces).await
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
