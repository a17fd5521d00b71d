//! `stepcast server`: one node with its log, its tables and its front door.

mod settings;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(crate) use self::settings::{Join, SETTINGS, ServerConfig};
use crate::asked::Asked;
use crate::assembly;
use crate::command::config;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::settings::{self as values, Setting, SettingsFile};

/// Where an operator's settings lie.
const FILE: &str = "/etc/stepcast/server.toml";

/// Runs a server.
///
/// Example: stepcast server --data /var/lib/stepcast --listen 0.0.0.0:7070 --tls-cert cert.pem --tls-key key.pem
#[derive(Debug, Args)]
pub(crate) struct Server {
    #[command(subcommand)]
    what: Option<What>,
    /// Folder of the log and everything else that must survive
    #[arg(long, value_name = "FOLDER", global = true)]
    data: Option<String>,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", global = true)]
    listen: Option<String>,
    /// URL where people and workers reach this node; where it listens unless given
    #[arg(long, value_name = "URL", global = true)]
    client_address: Option<String>,
    /// Address to listen on for other nodes; the port after that of --listen unless given
    #[arg(long, value_name = "ADDRESS", global = true)]
    peer_listen: Option<String>,
    /// Where other nodes reach this one; where it listens to them unless given
    #[arg(long, value_name = "HOST:PORT", global = true)]
    peer_address: Option<String>,
    /// Peer addresses of a cluster to join, separated by commas; `stepcast cluster token` says which. Of a cluster that the
    /// node belongs to: where to look for nodes that are elsewhere now
    #[arg(long, value_name = "HOST:PORT", global = true)]
    join: Option<String>,
    /// File with the token to join with
    #[arg(long, value_name = "FILE", global = true)]
    join_token_file: Option<String>,
    /// The token itself, which everybody on this host can then see in the list of processes: prefer --join-token-file
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "join",
        conflicts_with = "join_token_file"
    )]
    token: Option<String>,
    /// Address on which /metrics, /livez and /readyz are answered, with TLS unless on loopback; nowhere unless given
    #[arg(long, value_name = "ADDRESS", global = true)]
    metrics_listen: Option<String>,
    /// Where the benchmark tables lie: a folder, file://..., or s3://bucket/prefix; `records` in the data folder unless given
    #[arg(long, value_name = "LOCATION", global = true)]
    store: Option<String>,
    /// Where the files of jobs lie until they are over: a folder, or s3://bucket/prefix; `staging` in the data folder unless
    /// given
    #[arg(long, value_name = "LOCATION", global = true)]
    staging: Option<String>,
    /// Take a staging area though it has none of the files of the jobs that are not over: those jobs fail
    #[arg(long)]
    new_staging: bool,
    /// Price book, as TOML or CSV: what jobs cost on workers that say no price; what it does not say estimates take from
    /// the shipped list prices
    #[arg(long, value_name = "FILE", global = true)]
    prices: Option<String>,
    /// Certificate to show, as a PEM file; without one a server that others can reach makes its own
    #[arg(long, value_name = "FILE", global = true)]
    tls_cert: Option<String>,
    /// The certificate's private key, as a PEM file
    #[arg(long, value_name = "FILE", global = true)]
    tls_key: Option<String>,
    /// Seconds that a worker may run an attempt after its last renewal; 30 unless given
    #[arg(long, value_name = "SECONDS", global = true)]
    lease_seconds: Option<String>,
    /// Keep the log in this older format, so that an upgrade can be undone
    #[arg(long, value_name = "FORMAT", global = true)]
    hold_format: Option<String>,
    /// The settings file; /etc/stepcast/server.toml unless given
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// End when stdin closes, and read no settings file unless --config names one: for the process that started this one
    #[arg(long, hide = true)]
    with_parent: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Shows the settings that a server here would run with
    #[command(subcommand)]
    Config(Config),
}

#[derive(Debug, Subcommand)]
enum Config {
    /// Shows each setting with where it came from
    Show,
}

impl Server {
    /// Serves until it is asked to end.
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let settings = self.settings(context)?;
        if let Some(What::Config(Config::Show)) = self.what {
            config::show(&context.output, &settings)?;
            return Ok(ExitCode::SUCCESS);
        }
        log_to_stderr();
        // The leader holds credentials of jobs in its memory.
        stepcast_worker::no_core_dumps();
        let config = settings::read(&settings, self.token)?;
        let server = assembly::start(config, self.new_staging).await?;
        // In one piece: whoever has started this may read the first line and no more.
        context.output.data(server.greeting())?;
        let asked = Asked::listen(self.with_parent);
        asked.or_at_once(server.until(asked.times(1))).await?;
        Ok(ExitCode::SUCCESS)
    }

    /// The file that is read where none is named. What is in it is for the host's own server, not for one of `dev` or `demo`.
    fn own_file(&self) -> Option<&'static str> {
        (!self.with_parent).then_some(FILE)
    }

    fn settings(&self, context: &Context) -> Result<Vec<Setting>, Failure> {
        let file = match &self.config {
            Some(path) if !path.is_file() => {
                return Err(Failure::new(
                    Exit::NotFound,
                    format!("{} cannot be read", path.display()),
                )
                .detail(match path.exists() {
                    true => "it is not a file of its own, but a folder or a device",
                    false => "there is no such file",
                })
                .hint("name a settings file with --config, or leave it out"));
            }
            Some(path) => SettingsFile::read(path, SETTINGS)?,
            None => match self.own_file() {
                Some(path) => SettingsFile::read(path.as_ref(), SETTINGS)?,
                None => SettingsFile::default(),
            },
        };
        let flags = [
            self.data.clone(),
            self.listen.clone(),
            self.client_address.clone(),
            self.peer_listen.clone(),
            self.peer_address.clone(),
            self.join.clone(),
            self.join_token_file.clone(),
            self.metrics_listen.clone(),
            self.store.clone(),
            self.staging.clone(),
            self.prices.clone(),
            self.tls_cert.clone(),
            self.tls_key.clone(),
            context.common.access_token_file.clone(),
            context.common.allow_plain_text.then(|| "true".to_owned()),
            self.lease_seconds.clone(),
            self.hold_format.clone(),
        ];
        Ok(SETTINGS
            .iter()
            .zip(flags)
            .map(|(known, flag)| values::resolve(known, flag, &file))
            .collect())
    }
}

/// What is logged unless `RUST_LOG` says otherwise. The table format's libraries tell every file they read at `info`,
/// dozens of lines a commit, in which our own would drown.
const LOGGED: &str = "info,buoyant_kernel=warn,deltalake_core=warn,raft_engine=warn";

/// Messages of a long-running process go to stderr; `RUST_LOG` says how much.
pub(crate) fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_unset| LOGGED.into());
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none();
    // A second call finds the first one's subscriber in place, which is fine.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(std::io::stderr)
        .try_init();
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    #[test]
    fn the_host_s_settings_are_not_for_a_server_that_another_process_has_started() {
        let file = |words: &[&str]| {
            let words = [&["stepcast", "server"], words].concat();
            match Options::try_parse_from(words).expect("read").command {
                Command::Server(server) => server.own_file(),
                _ => panic!("it is a server"),
            }
        };
        assert_eq!(file(&[]), Some(FILE));
        assert_eq!(file(&["--with-parent"]), None);
    }
}
