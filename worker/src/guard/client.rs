//! The worker's end of a guard: starts one, speaks to it, hears how the trainer ended.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::agent::ExitStatus;

/// A running guard with its trainer. Dropping it closes the guard's stdin, which ends the trainer.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Option<ChildStderr>,
    trainer_pid: u32,
}

/// What a guard says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// The trainer's first process runs under this number.
    Started(u32),
    /// The trainer could not be started.
    Failed(String),
    /// The trainer and all it started are gone.
    Ended(ExitStatus),
}

/// Why a guard could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guard process itself.
    #[error("the guard process could not be started")]
    Guard(#[source] std::io::Error),
    /// The trainer inside it.
    #[error("the trainer could not be started: {0}")]
    Trainer(String),
}

impl Guard {
    /// Starts `guard` (the program and its leading arguments) with the trainer's command behind it.
    ///
    /// `environment` replaces the worker's own environment completely. The guard is told how long the trainer may run
    /// (`left`) before it starts it: the worker may be stopped in the next moment.
    pub async fn start(
        guard: &[OsString],
        trainer: &[OsString],
        directory: &Path,
        environment: &[(OsString, OsString)],
        left: Duration,
    ) -> Result<Self, Error> {
        let Some((program, leading)) = guard.split_first() else {
            return Err(Error::Guard(std::io::Error::other(
                "no guard command is configured",
            )));
        };
        let mut command = Command::new(program);
        command
            .args(leading)
            .arg("--")
            .args(trainer)
            .current_dir(directory);
        command
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Its own group, so that Ctrl-C at a terminal reaches the worker alone and the trainer may save a checkpoint.
        command.process_group(0);
        let mut child = command.spawn().map_err(Error::Guard)?;
        let lost = || Error::Guard(std::io::Error::other("a pipe is missing"));
        let stdin = child.stdin.take().ok_or_else(lost)?;
        let stdout = child.stdout.take().ok_or_else(lost)?;
        let stderr = child.stderr.take();
        let stdout = BufReader::new(stdout).lines();
        let mut guard = Self {
            child,
            stdin: Some(stdin),
            stdout,
            stderr,
            trainer_pid: 0,
        };
        guard.deadline(left).await;
        match guard.status().await {
            Status::Started(pid) => guard.trainer_pid = pid,
            Status::Failed(why) => return Err(Error::Trainer(why)),
            Status::Ended(_) => return Err(Error::Trainer("its guard ended at once".to_owned())),
        }
        Ok(guard)
    }

    /// The trainer's first process.
    pub fn trainer_pid(&self) -> u32 {
        self.trainer_pid
    }

    /// What the trainer prints; there to be taken once.
    pub fn take_output(&mut self) -> Option<ChildStderr> {
        self.stderr.take()
    }

    /// Lets the trainer run for this long from now.
    pub async fn deadline(&mut self, left: Duration) {
        self.say(&format!("deadline {}\n", left.as_millis())).await;
    }

    /// Sends SIGTERM to all of the trainer's processes.
    pub async fn terminate(&mut self) {
        self.say("term\n").await;
    }

    /// Sends SIGKILL to all of the trainer's processes.
    pub async fn kill(&mut self) {
        self.say("kill\n").await;
    }

    /// The next thing the guard says. Cancel-safe.
    pub async fn status(&mut self) -> Status {
        loop {
            match self.stdout.next_line().await {
                Ok(Some(line)) => {
                    if let Some(status) = parse(&line) {
                        return status;
                    }
                }
                Ok(None) | Err(_) => return Status::Ended(ExitStatus::Unseen),
            }
        }
    }

    /// Waits for the guard process itself; call it after [`Status::Ended`].
    pub async fn wait(mut self) {
        drop(self.stdin.take());
        let _status = self.child.wait().await;
    }

    /// A guard that is gone says so through [`Guard::status`], so a broken pipe needs no handling here.
    async fn say(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _gone = stdin.write_all(line.as_bytes()).await;
        }
    }
}

fn parse(line: &str) -> Option<Status> {
    let (word, rest) = line.split_once(' ')?;
    match word {
        "started" => rest.parse().ok().map(Status::Started),
        "failed" => Some(Status::Failed(rest.to_owned())),
        "exited" => rest
            .parse()
            .ok()
            .map(|code| Status::Ended(ExitStatus::Code(code))),
        "signaled" => rest
            .parse()
            .ok()
            .map(|signal| Status::Ended(ExitStatus::Signal(signal))),
        _ => None,
    }
}
