//! The options of a worker on the command line, the same for `stepcast worker` and `stepcast-worker run`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use stepcast_records::UsdMicros;
use stepcast_records::units::GPU_HOUR_MAX;

use crate::config::{MetricsConfig, ReplayConfig, ReplayStream, WorkerConfig};
use crate::gpu::Offer;
use crate::servers::PlainText;
use crate::state_dir::StateDir;

/// A token is one line; a longer file is something else.
const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// What a worker is told besides where the cluster is.
#[derive(Debug, Args)]
pub struct Options {
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
    /// Where results and checkpoints go; `outputs` in the state folder unless given. For a job to go on at another worker both
    /// need the same folder here, else it begins anew there
    #[arg(long, env = "STEPCAST_WORKER_OUTPUTS", value_name = "FOLDER")]
    outputs: Option<PathBuf>,
    /// Hours for which the results of a job stay here when it is over, 1 to 8760, or `forever`. Then its folder is removed, if
    /// this worker has made it; `flock --shared FOLDER` keeps it while it is copied
    #[arg(long, env = "STEPCAST_WORKER_OUTPUTS_KEPT", value_name = "HOURS", default_value = "72", value_parser = outputs_kept)]
    outputs_kept: Kept,
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
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, requires = "replay", value_parser = replay_speed)]
    replay_speed: f64,
    /// A word for jobs to choose workers by; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Where other hosts reach this one, for jobs over several hosts; without it this one takes part in none. The port is the
    /// first of as many as it has GPUs, 29500 unless given. All of them need one folder for results, see --outputs
    #[arg(long, env = "STEPCAST_GANG_ADDRESS", value_name = "HOST[:PORT]", value_parser = gang_address)]
    gang_address: Option<String>,
    /// The network between the hosts encrypts by itself, as WireGuard does: trainers do not, and off loopback none of them may
    /// talk to others unless this is said
    #[arg(long, env = "STEPCAST_GANG_ENCRYPTED", requires = "gang_address", value_parser = BoolishValueParser::new())]
    gang_encrypted: bool,
    /// Price of one GPU, in dollars an hour; without it the server's own and imported prices count, and where these say nothing
    /// of a GPU nothing is charged for what runs on it, and no job comes there that has a limit on its price or cost, or whose
    /// team has a budget
    #[arg(long, env = "STEPCAST_WORKER_PRICE", value_name = "DOLLARS", value_parser = price)]
    price: Option<UsdMicros>,
    /// The trainer's command, words separated by spaces; {processes} becomes the number of GPUs, and for jobs over several
    /// hosts {machines}, {rank}, {main_host} and {main_port} what their names say
    #[arg(long, env = "STEPCAST_SIMPLETUNER_COMMAND", value_name = "COMMAND")]
    simpletuner_command: Option<String>,
    /// Accounts that trainers run as, so that a job can read neither what is the worker's nor what is another job's; as many as
    /// there are devices, for trainers alone. Needs a worker that runs as root (Linux)
    #[arg(
        long = "trainer-user",
        env = "STEPCAST_TRAINER_USER",
        value_name = "NAME",
        value_delimiter = ','
    )]
    trainer_users: Vec<String>,
    /// Seconds a trainer may take to save a checkpoint when the worker is asked to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    drain_seconds: u64,
    /// Address on which /metrics, /livez and /readyz are answered, on loopback or with a certificate; nowhere unless given
    #[arg(long, env = "STEPCAST_WORKER_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Certificate to show there, as a PEM file
    #[arg(long, env = "STEPCAST_WORKER_TLS_CERT", value_name = "FILE", requires_all = ["tls_key", "metrics_listen"])]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, as a PEM file
    #[arg(
        long,
        env = "STEPCAST_WORKER_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
    /// The program that starts trainers, in place of this one: for tests that count the starts
    #[arg(long, value_name = "PROGRAM", hide = true)]
    helper: Option<PathBuf>,
}

/// The command without the variables that are set to nothing, as in a file of them with nothing behind the `=`: nothing is given
/// by them, here as for a server.
#[must_use]
pub fn without_empty(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let set = arg.get_env().and_then(std::env::var_os);
        if set.is_some_and(|value| value.is_empty()) {
            arg.env(None::<&'static str>)
        } else {
            arg
        }
    });
    command.mut_subcommands(without_empty)
}

/// Why the options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token's file cannot be read.
    #[error("the token's file {} cannot be read", path.display())]
    Token {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} must hold one token and nothing else", path.display())]
    NoToken {
        /// Which file.
        path: PathBuf,
    },
    /// Trainers on several hosts do not encrypt what they say to each other.
    #[error(
        "trainers of one job would talk to {0} in plain text: let the hosts reach each other through a network that encrypts by itself, such as WireGuard, and say so with --gang-encrypted"
    )]
    PlainText(String),
    /// The hosts of a gang write into one folder.
    #[error(
        "with --gang-address one account is all that trainers can run as, of the same number on every host, since the hosts of a job share its folder: give --trainer-user one name"
    )]
    GangAccounts,
    /// A label has one value.
    #[error("label {0} is given two values: give each label once")]
    LabelTwice(String),
    /// This program's own file is needed to start trainers.
    #[error("this program's own file cannot be found")]
    Program(#[source] io::Error),
}

impl Options {
    /// A worker of these servers that trusts `ca_file` besides the system's authorities, and calls them in plain text only
    /// where it may.
    ///
    /// # Errors
    /// When a file that is named cannot be used.
    pub fn config(
        self,
        servers: Vec<String>,
        ca_file: Option<PathBuf>,
        plain: PlainText,
    ) -> Result<WorkerConfig, Error> {
        let join_token = match self.join_token_file.map(token).transpose() {
            // It is deleted when the host has joined, and the service goes on naming it.
            Err(Error::Token { source, .. })
                if source.kind() == io::ErrorKind::NotFound
                    && StateDir::has_credential(&self.state) =>
            {
                None
            }
            read => read?,
        };
        if let Some(address) = self.gang_address.as_ref()
            && !self.gang_encrypted
            && !is_loopback(address)
        {
            return Err(Error::PlainText(address.clone()));
        }
        if self.gang_address.is_some() && self.trainer_users.len() > 1 {
            return Err(Error::GangAccounts);
        }
        let offer = match self.replay {
            Some(devices) => Offer::Replay(devices),
            None if self.cpu => Offer::Cpu,
            None => Offer::Gpus,
        };
        let mut labels = BTreeMap::new();
        for (key, value) in self.labels {
            if labels.get(&key).is_some_and(|known| *known != value) {
                return Err(Error::LabelTwice(key));
            }
            labels.insert(key, value);
        }
        let program = self.helper.map_or_else(std::env::current_exe, Ok);
        let command = self.simpletuner_command;
        let tls = self.tls_cert.zip(self.tls_key);
        Ok(WorkerConfig {
            servers,
            plain,
            join_token,
            ca_file,
            state: self.state,
            outputs: self.outputs,
            outputs_kept: self.outputs_kept.0,
            offer,
            labels,
            gang_address: self.gang_address,
            price_usd_micros_per_hour: self.price.map(|UsdMicros(micros)| micros),
            simpletuner_command: command
                .map(|command| command.split_whitespace().map(str::to_owned).collect()),
            trainer_users: self.trainer_users,
            replay: ReplayConfig {
                stream: self.replay_stream,
                speed: self.replay_speed,
            },
            helper: vec![program.map_err(Error::Program)?.into()],
            drain_grace: Duration::from_secs(self.drain_seconds),
            metrics: self
                .metrics_listen
                .map(|listen| MetricsConfig { listen, tls }),
        })
    }
}

fn token(path: PathBuf) -> Result<String, Error> {
    let read = |path: &PathBuf| {
        let short = std::fs::metadata(path)?.len() <= TOKEN_BYTES_MAX;
        short.then(|| std::fs::read_to_string(path)).transpose()
    };
    match read(&path) {
        Ok(text) => {
            let text = text.unwrap_or_default();
            let token = text.trim();
            let plain = !token.is_empty() && token.chars().all(|letter| letter.is_ascii_graphic());
            plain
                .then(|| token.to_owned())
                .ok_or(Error::NoToken { path })
        }
        Err(source) => Err(Error::Token { path, source }),
    }
}

/// How many times faster a stream is played: 0 for no waiting at all, else within what a clock can follow.
///
/// # Errors
/// What may be written instead.
pub fn replay_speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok();
    let fits = |speed: &f64| *speed == 0.0 || (0.001..=1_000_000.0).contains(speed);
    speed
        .filter(fits)
        .ok_or_else(|| "write 0 for no waiting at all, or from 0.001 to 1000000".to_owned())
}

/// For how long results are kept; nothing for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept(Option<Duration>);

/// A year: who wants more means for ever.
const OUTPUTS_HOURS_MAX: u64 = 8_760;

fn outputs_kept(text: &str) -> Result<Kept, String> {
    if text == "forever" {
        return Ok(Kept(None));
    }
    let hours = text.parse().ok();
    let hours = hours.filter(|hours: &u64| (1..=OUTPUTS_HOURS_MAX).contains(hours));
    let kept = hours.map(|hours| Kept(Some(Duration::from_secs(hours * 60 * 60))));
    kept.ok_or_else(|| "write hours from 1 to 8760, or `forever` to remove nothing".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// PyTorch's own port for such things.
const GANG_PORT: u16 = 29_500;

/// `HOST:PORT` of a host's name or address.
fn gang_address(text: &str) -> Result<String, String> {
    let known = "write the name or the address by which other hosts reach this one, and its port if it is not 29500";
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (
            host,
            port.parse::<u16>().map_err(|_no_port| known.to_owned())?,
        ),
        None => (text, GANG_PORT),
    };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
    let is_host = !host.is_empty() && !host.starts_with('-') && host.chars().all(plain);
    let address = format!("{host}:{port}");
    if is_host && port > 0 && address.len() <= 64 {
        Ok(address)
    } else {
        Err(known.to_owned())
    }
}

/// Whether what is said to `HOST:PORT` stays on this host.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let ip = host.parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

fn price(text: &str) -> Result<UsdMicros, String> {
    let amount = text.trim().trim_start_matches('$').parse();
    let amount: UsdMicros = amount.map_err(|_no_amount| {
        format!("`{text}` is no amount of dollars; write one such as 5 or 2.50")
    })?;
    match amount > GPU_HOUR_MAX {
        true => Err("a GPU costs $1,000 an hour at most".to_owned()),
        false => Ok(amount),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::state_dir::Credential;

    #[test]
    fn a_token_is_one_word_in_a_short_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(matches!(token(path.clone()), Err(Error::Token { .. })));
        std::fs::write(&path, "abc123\n").unwrap();
        assert_eq!(token(path.clone()).unwrap(), "abc123");
        for other in ["", "two words", &"x".repeat(5_000)] {
            std::fs::write(&path, other).unwrap();
            assert!(
                matches!(token(path.clone()), Err(Error::NoToken { .. })),
                "{other}"
            );
        }
    }

    #[test]
    fn prices_and_labels_are_read_to_the_letter() {
        assert_eq!(price("0.40"), Ok(UsdMicros(400_000)));
        assert_eq!(price("$2"), Ok(UsdMicros(2_000_000)));
        assert!(price("cheap").is_err() && price("-1").is_err());
        assert_eq!(price("1000"), Ok(UsdMicros(1_000_000_000)));
        assert!(price("1000.000001").is_err());
        assert_eq!(label("zone=a=b"), Ok(("zone".to_owned(), "a=b".to_owned())));
        assert!(label("zone").is_err());
        for speed in ["0", "0.001", "1", "2.5", "1000000"] {
            assert_eq!(replay_speed(speed), Ok(speed.parse().unwrap()));
        }
        for speed in ["nan", "inf", "-inf", "-1", "1e-300", "1e300", "fast", ""] {
            assert!(replay_speed(speed).is_err(), "{speed}");
        }
    }

    #[test]
    fn results_are_kept_for_hours_or_for_ever() {
        assert_eq!(
            outputs_kept("72"),
            Ok(Kept(Some(crate::config::OUTPUTS_KEPT)))
        );
        assert_eq!(outputs_kept("forever"), Ok(Kept(None)));
        let hour = Duration::from_secs(60 * 60);
        assert_eq!(outputs_kept("1"), Ok(Kept(Some(hour))));
        for other in [
            "0",
            "-1",
            "8761",
            "72h",
            "never",
            "",
            "18446744073709551615",
        ] {
            assert!(outputs_kept(other).is_err(), "{other}");
        }
    }

    #[test]
    fn an_address_for_gangs_is_a_host_and_a_port() {
        let known = |text: &str| gang_address(text).ok();
        assert_eq!(known("10.0.0.5").as_deref(), Some("10.0.0.5:29500"));
        assert_eq!(known("gpu-5.lab:4000").as_deref(), Some("gpu-5.lab:4000"));
        for other in ["", ":4000", "a:0", "a:b", "-x", "a b", "a;b", "fe80::1"] {
            assert_eq!(known(other), None, "{other}");
        }
        assert_eq!(known(&"h".repeat(80)), None);
    }

    #[test]
    fn the_file_of_the_token_is_needed_the_first_time_only() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let file = folder.path().join("join.token");
        let config = || {
            let words = ["worker", "--cpu", "--join-token-file"].map(OsString::from);
            let paths = [file.clone().into(), "--state".into(), state.clone().into()];
            let line = words.into_iter().chain(paths);
            let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
            line.options.config(Vec::new(), None, PlainText::ThisHost)
        };
        assert!(matches!(config(), Err(Error::Token { .. })));
        std::fs::write(&file, "scw_1\n").unwrap();
        assert_eq!(config().unwrap().join_token.as_deref(), Some("scw_1"));
        let joined = Credential {
            worker: "w1".to_owned(),
            secret: "scw_1".to_owned(),
        };
        let kept = StateDir::open(&state).unwrap();
        kept.store_credential(&joined).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(config().unwrap().join_token, None, "the kept one is used");
        std::fs::write(&file, "two words\n").unwrap();
        assert!(
            matches!(config(), Err(Error::NoToken { .. })),
            "a broken one is told"
        );
    }

    #[test]
    fn trainers_talk_in_plain_text_on_loopback_only() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let told = |words: &[&str]| {
            let line = ["worker", "--cpu"].into_iter().chain(words.iter().copied());
            let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
            line.options
                .config(Vec::new(), None, PlainText::ThisHost)
                .map(|config| config.gang_address)
        };
        let plain = told(&["--gang-address", "10.0.0.5"]);
        assert!(matches!(plain, Err(Error::PlainText(to)) if to == "10.0.0.5:29500"));
        let said = told(&["--gang-address", "10.0.0.5", "--gang-encrypted"]);
        assert_eq!(said.unwrap().as_deref(), Some("10.0.0.5:29500"));
        for here in ["127.0.0.1", "localhost:4000"] {
            assert!(told(&["--gang-address", here]).is_ok(), "{here}");
        }
        assert_eq!(told(&[]).unwrap(), None);
        // Its hosts share a folder, and with it an account.
        let gang = ["--gang-address", "localhost", "--trainer-user"];
        let two = told(&[&gang[..], &["a,b"]].concat());
        assert!(matches!(two, Err(Error::GangAccounts)));
        assert!(told(&[&gang[..], &["a"]].concat()).is_ok());
        assert!(told(&["--trainer-user", "a", "--trainer-user", "b"]).is_ok());
    }
}
