//! The thin worker binary for GPU hosts: it links neither the cluster nor the SQL engine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use stepcast_worker::config::{ReplayConfig, ReplayStream, WorkerConfig};
use stepcast_worker::gpu::{self, Offer};
use stepcast_worker::{guard, replay};

/// Runs training jobs for a Stepcast cluster on this host.
///
/// Example: stepcast-worker run --server http://10.0.0.1:7070 --join-token-file token
#[derive(Debug, Parser)]
#[command(name = "stepcast-worker", version)]
struct Options {
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
    /// File with the token that lets this host join; needed the first time only.
    #[arg(long, env = "STEPCAST_JOIN_TOKEN_FILE")]
    join_token_file: Option<PathBuf>,
    /// Certificate authority to trust, as a PEM file.
    #[arg(long, env = "STEPCAST_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// The worker's own folder.
    #[arg(
        long,
        env = "STEPCAST_WORKER_STATE",
        default_value = "/var/lib/stepcast-worker"
    )]
    state: PathBuf,
    /// Where results go; `outputs` in the state folder unless given.
    #[arg(long, env = "STEPCAST_WORKER_OUTPUTS")]
    outputs: Option<PathBuf>,
    /// Offer the processor instead of GPUs.
    #[arg(long, conflicts_with = "replay")]
    cpu: bool,
    /// Offer so many pretend devices that play streams instead of training.
    #[arg(long, value_name = "DEVICES")]
    replay: Option<u8>,
    /// What pretend devices play: `plan` (made up for each job), a shipped stream's name, or a file.
    #[arg(long, default_value = "plan", requires = "replay")]
    replay_stream: ReplayStream,
    /// How many times faster than written; 0 for no waiting at all.
    #[arg(long, default_value_t = 1.0, requires = "replay")]
    replay_speed: f64,
    /// A word for jobs to choose workers by; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Price of one GPU in dollars an hour.
    #[arg(long, env = "STEPCAST_WORKER_PRICE", value_parser = price)]
    price: Option<u64>,
    /// The trainer's command, words separated by spaces; {processes} becomes the number of GPUs.
    #[arg(long, env = "STEPCAST_SIMPLETUNER_COMMAND")]
    simpletuner_command: Option<String>,
    /// Seconds a trainer may take to save a checkpoint when the worker is asked to stop.
    #[arg(long, default_value_t = 120)]
    drain_seconds: u64,
}

fn main() -> ExitCode {
    match Options::parse().command {
        Command::Run(run) => {
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
        let join_token = match &self.join_token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                Some(text.trim().to_owned())
            }
            None => None,
        };
        let offer = match self.replay {
            Some(devices) => Offer::Replay(devices),
            None if self.cpu => Offer::Cpu,
            None => Offer::Gpus,
        };
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let config = WorkerConfig {
            servers: self.servers,
            join_token,
            ca_file: self.ca_file,
            state: self.state,
            outputs: self.outputs,
            offer,
            labels: BTreeMap::from_iter(self.labels),
            price_usd_micros_per_hour: self.price,
            simpletuner_command: self
                .simpletuner_command
                .map(|command| command.split_whitespace().map(str::to_owned).collect()),
            replay: ReplayConfig {
                stream: self.replay_stream,
                speed: self.replay_speed,
            },
            helper: vec![program.into()],
            drain_grace: Duration::from_secs(self.drain_seconds),
        };
        Ok(stepcast_worker::run(config).await?)
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn price(text: &str) -> Result<u64, String> {
    let dollars: f64 = text
        .parse()
        .map_err(|_bad| "a price is a number of dollars")?;
    if !(0.0..=10_000.0).contains(&dollars) {
        return Err("a price is 0 to 10000 dollars an hour".to_owned());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the bounds just checked"
    )]
    Ok((dollars * 1e6).round() as u64)
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
