//! The thin worker binary for GPU hosts: it links neither the cluster nor the SQL engine.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::BoolishValueParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use stepcast_worker::gpu::{self, Offer};
use stepcast_worker::helpers;
use stepcast_worker::options::{Options, without_empty};
use stepcast_worker::servers::PlainText;

/// Runs training jobs for a Stepcast cluster on this host.
///
/// Example: stepcast-worker run --server https://10.0.0.1:7070 --join-token-file token
#[derive(Debug, Parser)]
#[command(name = "stepcast-worker", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Offers this host's GPUs to a cluster until SIGTERM, which drains it.
    Run(Box<Run>),
    /// Shows which devices this host would offer, and why others are left out.
    Devices,
    /// Guards one trainer process (started by the worker itself).
    #[command(hide = true)]
    Guard(helpers::Guard),
    /// Becomes an account and then its trainer (started by the guard).
    #[command(hide = true)]
    StepDown(helpers::StepDown),
    /// Plays a stream of webhooks instead of a trainer (started by the worker itself).
    #[command(hide = true)]
    Replay(helpers::Replay),
}

#[derive(Debug, Args)]
struct Run {
    /// A server of the cluster; name several for when one is away.
    #[arg(
        long = "server",
        env = "STEPCAST_SERVER",
        required = true,
        value_delimiter = ','
    )]
    servers: Vec<String>,
    /// Certificate authority to trust, as a PEM file.
    #[arg(long, env = "STEPCAST_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Call servers beyond this host without TLS where their addresses begin with http://; only where something else encrypts.
    #[arg(long, env = "STEPCAST_ALLOW_PLAIN_TEXT", value_parser = BoolishValueParser::new())]
    allow_plain_text: bool,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let matches = without_empty(Program::command()).get_matches();
    let program = Program::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match program.command {
        Command::Run(run) => {
            // In a build of the whole workspace more than one library of primitives is linked.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let filter = tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_unset| "info".into());
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_ansi(std::io::stderr().is_terminal())
                .with_writer(std::io::stderr)
                .init();
            with_runtime(async {
                match run.start().await {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => {
                        eprintln!("stepcast-worker: {error:#}");
                        ExitCode::FAILURE
                    }
                }
            })
        }
        Command::Devices => show_devices(),
        Command::Guard(guard) => guard.run(),
        Command::StepDown(step_down) => step_down.run(),
        Command::Replay(replay) => with_runtime(replay.run()),
    }
}

/// One line a device on standard output, remarks on the other.
fn show_devices() -> ExitCode {
    let (devices, remarks) = gpu::devices(Offer::Gpus);
    for remark in &remarks {
        eprintln!("{remark}");
    }
    let mut out = std::io::stdout().lock();
    for device in &devices {
        let (slug, name, memory) = (
            device.model.slug(),
            device.model.name(),
            device.model.memory_gib(),
        );
        let number = device
            .index
            .map_or_else(String::new, |index| index.to_string());
        if writeln!(out, "{number}\t{slug}\t{name}\t{memory} GiB").is_err() {
            return ExitCode::FAILURE;
        }
    }
    if devices.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

impl Run {
    async fn start(self) -> anyhow::Result<()> {
        let plain = match self.allow_plain_text {
            true => PlainText::Anywhere,
            false => PlainText::ThisHost,
        };
        let config = self.options.config(self.servers, self.ca_file, plain)?;
        Ok(stepcast_worker::run(config).await?)
    }
}

fn with_runtime(task: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let code = runtime.block_on(task);
            // A removal on a far disk that does not answer must not keep the program.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("stepcast-worker: {error}");
            ExitCode::FAILURE
        }
    }
}
