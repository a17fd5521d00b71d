//! `stepcast worker`: offers this host's GPUs; the same agent as the thin `stepcast-worker`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stepcast_worker::config::{ReplayConfig, ReplayStream, WorkerConfig};
use stepcast_worker::gpu::Offer;

use crate::assembly::refused;
use crate::child::asked_to_end;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::parse_dollars;
use crate::settings;

/// Offers this host's GPUs to a cluster until SIGTERM, which drains it.
///
/// Example: stepcast worker --server http://10.0.0.1:7070 --join-token-file token
#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// File with the token that lets this host join; needed the first time only
    #[arg(long, env = "STEPCAST_JOIN_TOKEN_FILE", value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// The worker's own folder
    #[arg(
        long,
        env = "STEPCAST_WORKER_STATE",
        value_name = "FOLDER",
        default_value = "/var/lib/stepcast-worker"
    )]
    state: PathBuf,
    /// Where results go; `outputs` in the state folder unless given
    #[arg(long, env = "STEPCAST_WORKER_OUTPUTS", value_name = "FOLDER")]
    outputs: Option<PathBuf>,
    /// Offer the processor instead of GPUs
    #[arg(long, conflicts_with = "replay")]
    cpu: bool,
    /// Offer so many pretend devices that play streams instead of training
    #[arg(long, value_name = "DEVICES", value_parser = clap::value_parser!(u8).range(1..=8))]
    replay: Option<u8>,
    /// What pretend devices play: `plan` (made up for each job), a shipped stream's name, or a file
    #[arg(
        long,
        value_name = "STREAM",
        default_value = "plan",
        requires = "replay"
    )]
    replay_stream: ReplayStream,
    /// How many times faster than written; 0 for no waiting at all
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, requires = "replay")]
    replay_speed: f64,
    /// A word for jobs to choose workers by; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Price of one GPU, in dollars an hour
    #[arg(long, env = "STEPCAST_WORKER_PRICE", value_name = "DOLLARS", value_parser = parse_dollars)]
    price: Option<u64>,
    /// The trainer's command, words separated by spaces; {processes} becomes the number of GPUs
    #[arg(long, env = "STEPCAST_SIMPLETUNER_COMMAND", value_name = "COMMAND")]
    simpletuner_command: Option<String>,
    /// Seconds a trainer may take to save a checkpoint when the worker is asked to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    drain_seconds: u64,
    /// The program that starts trainers, in place of this one: for tests that count the starts
    #[arg(long, value_name = "PROGRAM", hide = true)]
    helper: Option<PathBuf>,
    /// End when stdin closes: for the process that started this one
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Worker {
    /// Works until it is asked to end.
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        super::server::log_to_stderr();
        let with_parent = self.with_parent;
        let config = self.config(context)?;
        let ended = if with_parent {
            stepcast_worker::run_until(config, asked_to_end(true)).await
        } else {
            stepcast_worker::run(config).await
        };
        ended
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| refused("the worker cannot go on", &error))
    }

    fn config(self, context: &Context) -> Result<WorkerConfig, Failure> {
        let settings = context.settings()?;
        let value = |name: &str| {
            settings
                .iter()
                .find(|setting| setting.name == name)
                .and_then(|setting| setting.value.clone())
        };
        let join_token = self
            .join_token_file
            .as_deref()
            .map(settings::secret)
            .transpose()?;
        let offer = match self.replay {
            Some(devices) => Offer::Replay(devices),
            None if self.cpu => Offer::Cpu,
            None => Offer::Gpus,
        };
        let program = self.helper.map_or_else(std::env::current_exe, Ok);
        let program = program.map_err(|error| {
            Failure::refused("this program's own file cannot be found").detail(error.to_string())
        })?;
        let servers = value("server").unwrap_or_default();
        Ok(WorkerConfig {
            servers: servers
                .split(',')
                .map(|server| server.trim().to_owned())
                .collect(),
            join_token,
            ca_file: value("ca_file").map(PathBuf::from),
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
        })
    }
}
