//! Statements in processes of their own, so that none can keep its turn or take the server with it.
//!
//! The engine cannot be stopped everywhere: not while it plans, not within one batch of rows, and it does not count
//! all memory that it holds. A process can be killed, and may have a limit of memory that the system keeps. It gets the
//! statement and the list of objects, and asks for pieces of these over a socket; it has no access to the store and
//! nothing of the server's environment.

mod child;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Answer, GRACE, View, Wanted, reads, thread};
use crate::error::Error;
pub use child::serve;
use wire::{Ask, Frames, ToProcess, ToServer, Unread};

/// A process that closes its socket and has not ended by then is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// What is read of what a process says. One that says more has nobody to hear it, and waits for its end.
const SAID_BYTES_MAX: u64 = 64 << 10;
/// How lines begin that tell where a program has failed.
const WHERE: [&str; 2] = ["thread '", "memory allocation of "];
/// Signals by which a process ends that had too little memory: its own, the system's, and that of a stack at its end.
const OUT_OF_MEMORY: [i32; 3] = [6, 9, 11];

/// How a process that runs statements is started; it calls [`serve`] and does nothing else.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file to execute.
    pub file: PathBuf,
    /// What it is called with.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// This very program, called with other arguments. It stays the same while the server runs, also when the file is
    /// replaced by another version.
    ///
    /// # Errors
    /// When the system does not tell which file was executed.
    pub fn this(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> std::io::Result<Self> {
        let running = PathBuf::from("/proc/self/exe");
        let file = match running.exists() {
            true => running,
            false => std::env::current_exe()?,
        };
        let arguments = arguments.into_iter().map(Into::into).collect();
        Ok(Self { file, arguments })
    }
}

/// Processes that wait for their next statement.
pub(super) struct Processes {
    program: Program,
    idle: Mutex<Vec<Process>>,
}

impl Processes {
    pub(super) const fn of(program: Program) -> Self {
        Self {
            program,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Runs one statement in a process. As many run at once as the caller lets.
    pub(super) async fn run(
        &self,
        statement: &str,
        wanted: Wanted,
        store: &Arc<dyn ObjectStore>,
        views: &[View],
        time_max: Duration,
    ) -> Result<Answer, Error> {
        let objects = views.iter().flat_map(View::objects);
        let objects: HashSet<Path> = objects.map(|(path, _)| path).collect();
        loop {
            let (mut process, waited) = match self.idle() {
                Some(process) => (process, true),
                None => (Process::start(&self.program)?, false),
            };
            let ask = Ask::new(statement, wanted, time_max, views);
            let answer = process.ask(ask, store, &objects);
            return match timeout(time_max + GRACE, answer).await {
                Ok(Some(answer)) => {
                    self.lock().push(process);
                    answer.map_err(|error| error.told(time_max))
                }
                // It was ended while it waited, and the system had not said so yet: no fault of the statement's, which
                // another one is given.
                Ok(None) if waited && !process.taken => continue,
                Ok(None) => Err(process.why_it_ended().await),
                Err(_) => {
                    process.kill().await;
                    Err(Error::TimedOut(time_max))
                }
            };
        }
    }

    fn idle(&self) -> Option<Process> {
        loop {
            let mut process = self.lock().pop()?;
            // Somebody may have ended it.
            if matches!(process.process.try_wait(), Ok(None)) {
                return Some(process);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Process>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process. It is killed when this is dropped, and ends by itself when the server is gone.
struct Process {
    process: Child,
    frames: Frames,
    socket: OwnedWriteHalf,
    /// Whether it has said that it has the statement which it was given last.
    taken: bool,
    /// What it has said on its standard error when it ends.
    said: JoinHandle<String>,
}

impl Process {
    fn start(program: &Program) -> Result<Self, Error> {
        let start = || {
            let (ours, theirs) = Socket::pair()?;
            ours.set_nonblocking(true)?;
            let mut process = Command::new(&program.file)
                .arg0("stepcast")
                .args(&program.arguments)
                .env_clear()
                .current_dir("/")
                .stdin(OwnedFd::from(theirs))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                // Ctrl-C is for the server, which lets statements end.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()?;
            let (read, socket) = UnixStream::from_std(ours)?.into_split();
            let said = tokio::spawn(said(process.stderr.take()));
            Ok(Self {
                process,
                frames: Frames::of(read),
                socket,
                taken: false,
                said,
            })
        };
        start().map_err(|error: std::io::Error| {
            tracing::error!(%error, "a process for a statement cannot be started");
            Error::NotRun
        })
    }

    /// Has it run a statement, and reads for it what it asks for. `None` when it ends instead.
    async fn ask(
        &mut self,
        ask: Ask,
        store: &Arc<dyn ObjectStore>,
        objects: &HashSet<Path>,
    ) -> Option<Result<Answer, wire::Said>> {
        self.taken = false;
        self.send(&ToProcess::Ask(ask), &[]).await?;
        let mut reads = FuturesUnordered::new();
        loop {
            tokio::select! {
                frame = self.frames.next() => match frame? {
                    (ToServer::Taken, _) => self.taken = true,
                    (ToServer::Read { read, path, ranges }, _) => {
                        let pieces = pieces(store, objects, path, ranges);
                        reads.push(async move { (read, pieces.await) });
                    }
                    (ToServer::Answer(Ok(facts)), rows) => return wire::unpacked(facts, rows).ok().map(Ok),
                    (ToServer::Answer(Err(said)), _) => return Some(Err(said)),
                },
                Some((read, found)) = reads.next() => {
                    let (found, pieces) = match found {
                        Ok(pieces) => (Ok(pieces.iter().map(Bytes::len).collect()), pieces),
                        Err(error) => (Err(error), Vec::new()),
                    };
                    self.send(&ToProcess::Pieces { read, found }, &pieces).await?;
                }
            }
        }
    }

    async fn send(&mut self, head: &ToProcess, pieces: &[Bytes]) -> Option<()> {
        wire::send(&mut self.socket, head, pieces).await.ok()
    }

    async fn kill(mut self) {
        // It is gone when this returns, and its memory with it.
        let _ = self.process.kill().await;
    }

    /// What it means for the person who asked that the process ended.
    async fn why_it_ended(mut self) -> Error {
        let ended = timeout(ENDS_WITHIN, self.process.wait()).await;
        let Ok(Ok(status)) = ended else {
            self.kill().await;
            return thread::failed();
        };
        let said = timeout(ENDS_WITHIN, self.said).await;
        let said = said.ok().and_then(Result::ok).unwrap_or_default();
        tracing::warn!(%status, said, "the process of a statement ended");
        match status.signal() {
            Some(signal) if OUT_OF_MEMORY.contains(&signal) => Error::OutOfMemory,
            // The server is being stopped, or somebody ended the process.
            Some(_) => Error::NotRun,
            None => thread::failed(),
        }
    }
}

/// Where a process has failed, by what it says: nothing of the statement, which a failure may quote.
async fn said(stderr: Option<ChildStderr>) -> String {
    let mut kept = String::new();
    let Some(stderr) = stderr else {
        return kept;
    };
    // A line without an end is cut off here, and nothing is read behind it.
    let mut lines = BufReader::new(stderr.take(SAID_BYTES_MAX)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if WHERE.iter().any(|begin| line.starts_with(begin)) && kept.is_empty() {
            kept = line;
        }
    }
    kept
}

async fn pieces(
    store: &Arc<dyn ObjectStore>,
    objects: &HashSet<Path>,
    path: String,
    ranges: Vec<std::ops::Range<u64>>,
) -> Result<Vec<Bytes>, Unread> {
    let path = Path::parse(path).ok().filter(|path| objects.contains(path));
    let Some(path) = path else {
        return Err(Unread {
            is_missing: true,
            why: "it belongs to no table".into(),
        });
    };
    let read = reads::pieces(store.as_ref(), &path, &ranges).await;
    read.map_err(|error| Unread {
        is_missing: matches!(error, StoreError::NotFound { .. }),
        why: error.to_string(),
    })
}
