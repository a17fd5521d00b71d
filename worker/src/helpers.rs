//! The hidden commands that a worker starts by itself, for whatever program it is part of: the guard of a trainer, what steps down
//! to its account, and the player of streams.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::account::{Ids, step_down};
use crate::{guard, replay};

/// Guards one trainer process.
#[derive(Debug, Args)]
pub struct Guard {
    /// The account that the trainer runs as
    #[arg(long)]
    account: Option<Ids>,
    /// The trainer's command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Guard {
    /// Runs the trainer and ends it when the worker is gone.
    pub fn run(self) -> ExitCode {
        guard::run(self.account.as_ref(), &self.command)
    }
}

/// Becomes an account and then its trainer.
#[derive(Debug, Args)]
pub struct StepDown {
    /// Which account
    #[arg(long)]
    account: Ids,
    /// Folders that it has to be able to enter; nothing else is done then
    #[arg(long, conflicts_with = "command")]
    enter: Vec<PathBuf>,
    /// Kills whatever else runs as it; nothing else is done then
    #[arg(long, conflicts_with_all = ["command", "enter"])]
    kill: bool,
    /// The trainer's command
    #[arg(last = true)]
    command: Vec<OsString>,
}

impl StepDown {
    /// Gives up what this process may, for good.
    pub fn run(self) -> ExitCode {
        match self.kill {
            true => step_down::kill(&self.account),
            false => step_down::run(&self.account, &self.enter, &self.command),
        }
    }
}

/// Plays a stream of webhooks instead of a trainer.
#[derive(Debug, Args)]
pub struct Replay {
    /// The stream or recording to play
    #[arg(long)]
    stream: PathBuf,
    /// The receiver to post to
    #[arg(long)]
    url: String,
    /// How many times faster than written; 0 for no waiting at all
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// The exit code when the stream names none
    #[arg(long, default_value_t = 0)]
    exit: u8,
}

impl Replay {
    /// Plays it.
    pub async fn run(self) -> ExitCode {
        replay::run(replay::Options {
            stream: self.stream,
            url: self.url,
            speed: self.speed,
            exit: self.exit,
        })
        .await
    }
}
