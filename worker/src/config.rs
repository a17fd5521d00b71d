//! What a worker is told when it starts; the command line fills it in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::gpu::Offer;
use crate::servers::PlainText;

/// How long a trainer may take to save a checkpoint when the worker is asked to stop.
pub const DRAIN_GRACE: Duration = Duration::from_secs(120);

/// How long the results of a job stay when it is over.
pub const OUTPUTS_KEPT: Duration = Duration::from_secs(72 * 60 * 60);

/// Everything a worker needs to know.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The servers' addresses, such as `https://10.0.0.1:7070`; the worker finds the leader among them.
    pub servers: Vec<String>,
    /// Where they may be called in plain text.
    pub plain: PlainText,
    /// The token that lets this host join: this worker's own secret. Needed once, then kept in the state folder; one that
    /// is given later replaces it.
    pub join_token: Option<String>,
    /// A certificate authority to trust besides the system's, as a PEM file.
    pub ca_file: Option<PathBuf>,
    /// The worker's own folder.
    pub state: PathBuf,
    /// Where results go; `outputs` in the state folder unless given.
    pub outputs: Option<PathBuf>,
    /// How long the results of a job stay when it is over; for ever if not given. Only folders that this worker has made itself
    /// are removed, and only those made while this was given.
    pub outputs_kept: Option<Duration>,
    /// Which devices to offer. Pretend devices run replays only, and replays run on nothing else.
    pub offer: Offer,
    /// Words for jobs to choose workers by.
    pub labels: BTreeMap<String, String>,
    /// Where other hosts reach this one, as `HOST:PORT`, if it takes part in gangs. Its outputs must then lie in a folder that
    /// all of them share.
    pub gang_address: Option<String>,
    /// Price of one device in millionths of a dollar an hour.
    pub price_usd_micros_per_hour: Option<u64>,
    /// The trainer's command. `{processes}` becomes the number of GPUs on all hosts, `{machines}` that of the hosts, `{rank}`
    /// this one's number, `{main_host}` and `{main_port}` where rank 0 waits. None: found by their number.
    pub simpletuner_command: Option<Vec<String>>,
    /// Accounts that trainers run as; as the worker does where there are none. An attempt has the one that fewest others have.
    pub trainer_users: Vec<String>,
    /// What pretend devices play, and how fast.
    pub replay: ReplayConfig,
    /// The program and leading arguments that offer `guard` and `replay` as subcommands.
    pub helper: Vec<OsString>,
    /// How long a trainer may take to save a checkpoint when the worker is asked to stop.
    pub drain_grace: Duration,
    /// Where machines ask how the worker is; nowhere unless given.
    pub metrics: Option<MetricsConfig>,
}

/// The port for metrics and probes.
#[derive(Debug, Clone)]
pub struct MetricsConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Files of the certificate and its key, in PEM. Without them it listens on loopback only.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// What a pretend device plays.
#[derive(Debug, Clone)]
pub struct ReplayConfig {
    /// Which stream.
    pub stream: ReplayStream,
    /// How many times faster than written; 0 for no waiting at all.
    pub speed: f64,
}

/// Which stream is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayStream {
    /// A run made up for each job, with the job's own steps, checkpoints and validations.
    Plan,
    /// A shipped one.
    Shipped(String),
    /// A stream or a recording in a file.
    File(PathBuf),
}

impl std::str::FromStr for ReplayStream {
    type Err = String;

    /// `plan`, a shipped stream's name, or a path.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "plan" {
            Ok(Self::Plan)
        } else if crate::stream::shipped(text).is_some() {
            Ok(Self::Shipped(text.to_owned()))
        } else if Path::new(text).is_file() {
            Ok(Self::File(PathBuf::from(text)))
        } else {
            let names: Vec<&str> = crate::stream::shipped_names()
                .map(|(name, _)| name)
                .collect();
            Err(format!(
                "neither `plan`, nor a shipped stream ({}), nor a file",
                names.join(", ")
            ))
        }
    }
}

impl WorkerConfig {
    /// Runs replays on one pretend device, with the state in `state`; `helper` is this program's path and arguments.
    pub fn replay(servers: Vec<String>, state: PathBuf, helper: Vec<OsString>) -> Self {
        Self {
            servers,
            plain: PlainText::ThisHost,
            join_token: None,
            ca_file: None,
            state,
            outputs: None,
            outputs_kept: Some(OUTPUTS_KEPT),
            offer: Offer::Replay(1),
            labels: BTreeMap::new(),
            gang_address: None,
            price_usd_micros_per_hour: None,
            simpletuner_command: None,
            trainer_users: Vec::new(),
            replay: ReplayConfig {
                stream: ReplayStream::Plan,
                speed: 1.0,
            },
            helper,
            drain_grace: DRAIN_GRACE,
            metrics: None,
        }
    }
}
