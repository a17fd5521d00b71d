//! `stepcast server`: one node with its log, its tables and its front door.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::assembly;
use crate::child::{LISTENING, asked_to_end};
use crate::command::config;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::settings::{self, Known, Setting, SettingsFile};

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
    /// Where the benchmark tables lie: a folder, file://..., or s3://bucket/prefix; `records` in the data folder unless given
    #[arg(long, value_name = "LOCATION", global = true)]
    store: Option<String>,
    /// Price book, as TOML or CSV; what it does not say is taken from the shipped list prices
    #[arg(long, value_name = "FILE", global = true)]
    prices: Option<String>,
    /// Certificate to show, as a PEM file
    #[arg(long, value_name = "FILE", global = true)]
    tls_cert: Option<String>,
    /// The certificate's private key, as a PEM file
    #[arg(long, value_name = "FILE", global = true)]
    tls_key: Option<String>,
    /// Listen beyond this host without TLS; only where something else encrypts
    #[arg(long, global = true)]
    allow_plain_text: bool,
    /// Seconds that a worker may run an attempt after its last renewal; 30 unless given
    #[arg(long, value_name = "SECONDS", global = true)]
    lease_seconds: Option<String>,
    /// The settings file; /etc/stepcast/server.toml unless given
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// End when stdin closes: for the process that started this one
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

/// What a server can be told.
pub(crate) const SETTINGS: &[Known] = &[
    Known {
        name: "data",
        variable: "STEPCAST_DATA",
        default: Some("/var/lib/stepcast"),
        doc: "Folder of the log and everything else that must survive.",
    },
    Known {
        name: "listen",
        variable: "STEPCAST_LISTEN",
        default: Some("127.0.0.1:7070"),
        doc: "Address to listen on.",
    },
    Known {
        name: "store",
        variable: "STEPCAST_STORE",
        default: None,
        doc: "Where the benchmark tables lie: a folder, `file://...` or `s3://bucket/prefix` (with the usual `AWS_*` variables); \
              `records` in the data folder unless given.",
    },
    Known {
        name: "prices",
        variable: "STEPCAST_PRICES",
        default: None,
        doc: "Price book, as TOML or CSV; what it does not say is taken from the shipped list prices.",
    },
    Known {
        name: "tls_cert",
        variable: "STEPCAST_TLS_CERT",
        default: None,
        doc: "Certificate to show, as a PEM file.",
    },
    Known {
        name: "tls_key",
        variable: "STEPCAST_TLS_KEY",
        default: None,
        doc: "The certificate's private key, as a PEM file.",
    },
    Known {
        name: "access_token_file",
        variable: "STEPCAST_ACCESS_TOKEN_FILE",
        default: None,
        doc: "File with the token that people must show. Needed when the server listens beyond this host.",
    },
    Known {
        name: "allow_plain_text",
        variable: "STEPCAST_ALLOW_PLAIN_TEXT",
        default: Some("false"),
        doc: "`true` listens beyond this host without TLS; only where something else encrypts.",
    },
    Known {
        name: "lease_seconds",
        variable: "STEPCAST_LEASE_SECONDS",
        default: Some("30"),
        doc: "Seconds that a worker may run an attempt after its last renewal, 3 to 600. Longer survives longer pauses of \
              the server or the network, shorter notices a dead worker sooner.",
    },
];

/// A shorter lease would end between two renewals on a busy host; a longer one leaves GPUs idle after a worker's death.
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 3..=600;

/// A server's settings, read and checked.
#[derive(Debug, Clone)]
pub(crate) struct ServerConfig {
    /// Folder of everything that must survive.
    pub(crate) data: PathBuf,
    /// Address to listen on.
    pub(crate) listen: SocketAddr,
    /// Where the tables lie.
    pub(crate) store: String,
    /// The operator's own prices.
    pub(crate) prices: Option<PathBuf>,
    /// Files of the certificate and its key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// What people must show.
    pub(crate) access_token: Option<String>,
    /// Whether it may listen beyond this host without TLS.
    pub(crate) allow_plain_text: bool,
    /// How long a worker may run an attempt after its last renewal.
    pub(crate) lease_term: Duration,
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
        let server = assembly::start(read(&settings)?).await?;
        context
            .output
            .data(&format!("{LISTENING}{}\n", server.address()))?;
        server.until(asked_to_end(self.with_parent)).await?;
        Ok(ExitCode::SUCCESS)
    }

    fn settings(&self, context: &Context) -> Result<Vec<Setting>, Failure> {
        let file = match &self.config {
            Some(path) if !path.is_file() => {
                return Err(Failure::new(
                    Exit::NotFound,
                    format!("{} cannot be read", path.display()),
                ));
            }
            Some(path) => SettingsFile::read(path, SETTINGS)?,
            None => SettingsFile::read(FILE.as_ref(), SETTINGS)?,
        };
        let flags = [
            self.data.clone(),
            self.listen.clone(),
            self.store.clone(),
            self.prices.clone(),
            self.tls_cert.clone(),
            self.tls_key.clone(),
            context.common.access_token_file.clone(),
            self.allow_plain_text.then(|| "true".to_owned()),
            self.lease_seconds.clone(),
        ];
        Ok(SETTINGS
            .iter()
            .zip(flags)
            .map(|(known, flag)| settings::resolve(known, flag, &file))
            .collect())
    }
}

fn read(settings: &[Setting]) -> Result<ServerConfig, Failure> {
    let value = |name: &str| {
        settings
            .iter()
            .find(|setting| setting.name == name)
            .and_then(|setting| setting.value.clone())
    };
    let required = |name: &str| value(name).unwrap_or_default();
    let wrong = |name: &str, why: &str| {
        Failure::usage(format!("{name} `{}` cannot be used", required(name))).detail(why)
    };
    let data = PathBuf::from(required("data"));
    let listen = required("listen").parse().map_err(|_bad| {
        wrong(
            "listen",
            "write an address and a port, such as 127.0.0.1:7070",
        )
    })?;
    let tls = match (value("tls_cert"), value("tls_key")) {
        (Some(cert), Some(key)) => Some((cert.into(), key.into())),
        (None, None) => None,
        _ => return Err(Failure::usage("tls_cert and tls_key belong together")),
    };
    let allow_plain_text = match required("allow_plain_text").as_str() {
        "true" | "1" => true,
        "false" | "0" => false,
        _ => return Err(wrong("allow_plain_text", "write true or false")),
    };
    let lease_seconds = required("lease_seconds").parse().ok();
    let lease_seconds = lease_seconds
        .filter(|seconds| LEASE_SECONDS.contains(seconds))
        .ok_or_else(|| wrong("lease_seconds", "write a number from 3 to 600"))?;
    Ok(ServerConfig {
        store: value("store")
            .unwrap_or_else(|| data.join("records").to_string_lossy().into_owned()),
        data,
        listen,
        prices: value("prices").map(PathBuf::from),
        tls,
        access_token: value("access_token_file")
            .map(|path| settings::secret(path.as_ref()))
            .transpose()?,
        allow_plain_text,
        lease_term: Duration::from_secs(lease_seconds),
    })
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
