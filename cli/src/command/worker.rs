//! `stepcast worker`: offers this host's GPUs; the same agent as the thin `stepcast-worker`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stepcast_worker::Error;
use stepcast_worker::config::WorkerConfig;
use stepcast_worker::options::Options;

use crate::asked::Asked;
use crate::assembly::refused;
use crate::context::Context;
use crate::failure::Failure;
use crate::settings;

/// Offers this host's GPUs to a cluster until SIGTERM, which drains it.
///
/// Example: stepcast worker --server https://10.0.0.1:7070 --join-token-file token
#[derive(Debug, Args)]
pub(crate) struct Worker {
    #[command(flatten)]
    options: Options,
    /// End when stdin closes, and read no settings file: for the process that started this one
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

impl Worker {
    /// Works until it is asked to end.
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        super::server::log_to_stderr();
        let with_parent = self.with_parent;
        let config = self.config(context)?;
        let ended = if with_parent {
            let asked = Asked::listen(true);
            stepcast_worker::run_until(config, asked.times(1)).await
        } else {
            stepcast_worker::run(config).await
        };
        ended.map(|()| ExitCode::SUCCESS).map_err(|error| {
            let what = match &error {
                Error::Ended(_) => "the worker cannot go on",
                Error::Refused(_) => "the cluster refuses this worker",
                _ => "the worker cannot start",
            };
            refused(what, &error)
        })
    }

    fn config(self, context: &Context) -> Result<WorkerConfig, Failure> {
        let settings = match self.with_parent {
            true => context.settings_in(None)?,
            false => context.settings()?,
        };
        let value = |name: &str| {
            settings
                .iter()
                .find(|setting| setting.name == name)
                .and_then(|setting| setting.value.clone())
        };
        let servers = value("server").unwrap_or_default();
        let servers = servers.split(',').map(|server| server.trim().to_owned());
        let plain = settings::plain_text(value("allow_plain_text").as_deref())?;
        let ca_file = value("ca_file").map(PathBuf::from);
        self.options
            .config(servers.collect(), ca_file, plain)
            .map_err(|error| refused("the worker cannot start", &error))
    }
}
