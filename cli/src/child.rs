//! Other processes of this program, for `dev` and `demo`: a server and a worker that never outlive the one who asked.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::failure::Failure;

/// A server that has not opened its port by then has failed; it reads its whole log first.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);
/// A process that was asked to end and has not by then is killed. A worker may be saving a checkpoint.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// The last lines of a process that are kept for when it fails.
const LINES_KEPT: usize = 20;

/// A running process of this program. It ends when its stdin closes, so it also ends when this process is killed.
#[derive(Debug)]
pub(crate) struct Child {
    name: &'static str,
    process: Process,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    said: JoinHandle<Vec<String>>,
}

/// Where a process's messages go.
#[derive(Debug, Clone)]
pub(crate) enum Log {
    /// To the terminal, behind the process's name.
    Shown,
    /// To a file.
    File(PathBuf),
}

impl Child {
    /// Starts this program with other arguments. It knows no settings but these: see `--with-parent`.
    pub(crate) fn start(
        name: &'static str,
        arguments: &[OsString],
        log: Log,
    ) -> Result<Self, Failure> {
        let wrong =
            |why: String| Failure::refused(format!("the {name} cannot be started")).detail(why);
        let program = std::env::current_exe().map_err(|error| wrong(error.to_string()))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg("--with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // What this host's own server, worker and people are told is not for these: they have their arguments.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STEPCAST_") {
                command.env_remove(name);
            }
        }
        // A group of its own: Ctrl-C reaches this process only, which then ends the others in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn().map_err(|error| wrong(error.to_string()))?;
        let (stdin, stdout, stderr) = (
            process.stdin.take(),
            process.stdout.take(),
            process.stderr.take(),
        );
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(wrong("it has no streams".to_owned()));
        };
        let said = tokio::spawn(follow(name, stderr, log));
        Ok(Self {
            name,
            process,
            stdin,
            stdout: BufReader::new(stdout).lines(),
            said,
        })
    }

    /// Starts a server and waits until it listens; the address to talk to.
    pub(crate) async fn start_server(
        name: &'static str,
        arguments: &[OsString],
        log: Log,
    ) -> Result<(Self, String), Failure> {
        let mut server = Self::start(name, arguments, log)?;
        let line = tokio::time::timeout(LISTENS_WITHIN, server.stdout.next_line()).await;
        match line {
            Ok(Ok(Some(line))) if line.starts_with(LISTENING) => {
                let address = line[LISTENING.len()..].trim().to_owned();
                Ok((server, address))
            }
            Ok(_) => Err(server.failed().await),
            Err(_elapsed) => Err(Failure::refused(format!(
                "the {name} did not start within {} seconds",
                LISTENS_WITHIN.as_secs()
            ))),
        }
    }

    /// What went wrong with a process that has ended by itself, in its own last words.
    pub(crate) async fn failed(mut self) -> Failure {
        self.stdin.take();
        let status = tokio::time::timeout(ENDS_WITHIN, self.process.wait()).await;
        let status = status
            .ok()
            .and_then(Result::ok)
            .map_or_else(|| "did not end".to_owned(), |status| status.to_string());
        let said = tokio::time::timeout(Duration::from_secs(1), self.said).await;
        let mut failure = Failure::refused(format!("the {} ended by itself ({status})", self.name));
        failure.details = said.ok().and_then(Result::ok).unwrap_or_default();
        failure
    }

    /// Waits until the process ends by itself.
    pub(crate) async fn wait(&mut self) {
        // An error means that it is gone as well.
        let _ = self.process.wait().await;
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Asks the process to end, and kills it if it does not.
    pub(crate) async fn stop(mut self) {
        self.stdin.take();
        if tokio::time::timeout(ENDS_WITHIN, self.process.wait())
            .await
            .is_err()
        {
            // Killing fails only if it has ended in between.
            let _ = self.process.kill().await;
        }
        self.said.abort();
    }
}

/// What a server prints on stdout once people may call it; the address follows.
pub(crate) const LISTENING: &str = "listening on ";

async fn follow(name: &'static str, stream: impl AsyncRead + Unpin, log: Log) -> Vec<String> {
    let mut kept = std::collections::VecDeque::new();
    let mut file = match &log {
        Log::File(path) => open_log(path),
        Log::Shown => None,
    };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match (&log, &mut file) {
            (Log::Shown, _) => {
                // It is read on where nobody sees it any more, so that the process can go on.
                let _ = writeln!(anstream::stderr(), "{name:>6} | {line}");
            }
            (Log::File(_), Some(file)) => {
                // A log that cannot be written is no reason to stop.
                let _ = writeln!(file, "{line}");
            }
            (Log::File(_), None) => {}
        }
        if kept.len() == LINES_KEPT {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    kept.into()
}

fn open_log(path: &Path) -> Option<std::fs::File> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .ok()
}
