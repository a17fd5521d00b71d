//! The thin worker binary for GPU hosts: it links neither the cluster nor the SQL engine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stepcast_worker::{guard, replay};

/// Runs training jobs for a Stepcast cluster on this host.
#[derive(Debug, Parser)]
#[command(name = "stepcast-worker", version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Guards one trainer process (started by the worker itself).
    #[command(hide = true)]
    Guard {
        /// The trainer's command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Plays a stream of webhooks instead of a trainer (started by the worker itself).
    #[command(hide = true)]
    Replay {
        /// The stream or recording to play.
        #[arg(long)]
        stream: PathBuf,
        /// The receiver to post to.
        #[arg(long)]
        url: String,
        /// How many times faster than written; 0 for no waiting at all.
        #[arg(long, default_value_t = 1.0)]
        speed: f64,
        /// The exit code when the stream names none.
        #[arg(long, default_value_t = 0)]
        exit: u8,
    },
}

fn main() -> ExitCode {
    match Options::parse().command {
        Command::Guard { command } => guard::run(&command),
        Command::Replay {
            stream,
            url,
            speed,
            exit,
        } => with_runtime(replay::run(replay::Options {
            stream,
            url,
            speed,
            exit,
        })),
    }
}

fn with_runtime(task: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(task),
        Err(error) => {
            eprintln!("stepcast-worker: {error}");
            ExitCode::FAILURE
        }
    }
}
