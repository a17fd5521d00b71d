//! A server's settings: what each means, and what a server makes of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stepcast_worker::servers::PlainText;

use crate::failure::Failure;
use crate::settings::{self, Known, Setting};

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
        name: "client_address",
        variable: "STEPCAST_CLIENT_ADDRESS",
        default: None,
        doc: "URL where people and workers reach this node; where it listens unless given. The other nodes give it to those \
              who look for the leader.",
    },
    Known {
        name: "peer_listen",
        variable: "STEPCAST_PEER_LISTEN",
        default: None,
        doc: "Address on which the other nodes are listened to, always with the cluster's own certificates; the port after \
              that of `listen` unless given.",
    },
    Known {
        name: "peer_address",
        variable: "STEPCAST_PEER_ADDRESS",
        default: None,
        doc: "`HOST:PORT` where the other nodes reach this one; where it listens to them unless given.",
    },
    Known {
        name: "join",
        variable: "STEPCAST_JOIN",
        default: None,
        doc: "Peer addresses of a cluster to join, as `HOST:PORT`, separated by commas. A node whose data folder belongs \
              to a cluster already looks for nodes there that it does not reach where they were, and needs no token.",
    },
    Known {
        name: "join_token_file",
        variable: "STEPCAST_JOIN_TOKEN_FILE",
        default: None,
        doc: "File with the join token that `stepcast cluster token` has printed. Read only when the node joins.",
    },
    Known {
        name: "metrics_listen",
        variable: "STEPCAST_METRICS_LISTEN",
        default: None,
        doc: "Address on which `/metrics`, `/livez` and `/readyz` are answered, to anybody who can reach it: in plain text on \
              loopback, with TLS elsewhere; nowhere unless given.",
    },
    Known {
        name: "store",
        variable: "STEPCAST_STORE",
        default: None,
        doc: "Where the benchmark tables lie: a folder, `file://...` or `s3://bucket/prefix` (with the usual `AWS_*` variables); \
              `records` in the data folder unless given. The same place for every node of a cluster.",
    },
    Known {
        name: "staging",
        variable: "STEPCAST_STAGING",
        default: None,
        doc: "Where the files of jobs lie until they are over: a folder that every node reaches, or `s3://bucket/prefix`; \
              `staging` in the data folder unless given. The same place for every node of a cluster.",
    },
    Known {
        name: "prices",
        variable: "STEPCAST_PRICES",
        default: None,
        doc: "Price book, as TOML or CSV: what jobs cost on workers that say no price. The same for every node of a cluster. \
              What it does not say estimates take from the shipped list prices.",
    },
    Known {
        name: "tls_cert",
        variable: "STEPCAST_TLS_CERT",
        default: None,
        doc: "Certificate to show, as a PEM file. Without one a server that listens beyond this host makes its own, in `tls` in the \
              data folder, and prints its fingerprint.",
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
        doc: "File with a token that makes whoever shows it an operator. Without it a server that listens beyond this host lets \
              people in by their own tokens only, and prints what the first operator needs.",
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
    Known {
        name: "hold_format",
        variable: "STEPCAST_HOLD_FORMAT",
        default: None,
        doc: "Keeps the log in this format, an older one than the program knows, so that an upgrade can be undone: give it to every \
              node, and take it away to have what is new.",
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
    /// URL where people and workers reach it, if its operator has said so.
    pub(crate) client_address: Option<String>,
    /// Address to listen on for other nodes, if its operator has chosen one.
    pub(crate) peer_listen: Option<SocketAddr>,
    /// `HOST:PORT` where other nodes reach it, if its operator has said so.
    pub(crate) peer_address: Option<String>,
    /// The cluster to join.
    pub(crate) join: Option<Join>,
    /// Address for metrics and probes.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Where the tables lie.
    pub(crate) store: Place,
    /// Where files of jobs lie.
    pub(crate) staging: Place,
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
    /// The newest format of the log that it goes along with.
    pub(crate) log_format: u16,
}

/// A place for data that all nodes of a cluster share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// A folder or a URL.
    pub(crate) location: String,
    /// Whether an operator has chosen it. The default lies in the data folder, where no other node comes.
    pub(crate) chosen: bool,
}

impl Place {
    fn new(chosen: Option<String>, data: &Path, default: &str) -> Self {
        let location = chosen
            .clone()
            .unwrap_or_else(|| data.join(default).to_string_lossy().into_owned());
        Self {
            location,
            chosen: chosen.is_some(),
        }
    }

    /// The place as every node must write it: nothing for a place of this node alone.
    pub(crate) fn shared(&self) -> String {
        if !self.chosen {
            return String::new();
        }
        if self.location.contains("://") {
            return self.location.trim_end_matches('/').to_owned();
        }
        // A folder that cannot be made absolute is told as it was written.
        std::path::absolute(&self.location).map_or_else(
            |_| self.location.clone(),
            |path| path.to_string_lossy().into_owned(),
        )
    }
}

/// A cluster to join.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    /// `HOST:PORT` of its nodes' peer ports.
    pub(crate) servers: Vec<String>,
    /// What lets this node in.
    token: JoinToken,
}

#[derive(Clone)]
enum JoinToken {
    File(PathBuf),
    Text(String),
    Missing,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinToken")
    }
}

impl Join {
    /// The token. Read only now: it is of no use to a node that has joined before.
    pub(crate) fn token(&self) -> Result<String, Failure> {
        match &self.token {
            JoinToken::File(path) => settings::secret(path),
            JoinToken::Text(text) => Ok(text.clone()),
            JoinToken::Missing => Err(Failure::usage("a node that joins needs a join token")
                .hint("`stepcast cluster token` on the cluster prints one: give its file with --join-token-file")),
        }
    }
}

/// Reads the settings; `token` is a join token from the command line.
pub(super) fn read(settings: &[Setting], token: Option<String>) -> Result<ServerConfig, Failure> {
    let values = Values(settings);
    let value = |name: &str| values.get(name);
    let data = PathBuf::from(values.folder("data")?);
    let tls = match (value("tls_cert"), value("tls_key")) {
        (Some(cert), Some(key)) => Some((cert.into(), key.into())),
        (None, None) => None,
        _ => return Err(Failure::usage("tls_cert and tls_key belong together")),
    };
    let plain = settings::plain_text(value("allow_plain_text").as_deref())?;
    let lease_seconds = values.required("lease_seconds").parse().ok();
    let lease_seconds = lease_seconds
        .filter(|seconds| LEASE_SECONDS.contains(seconds))
        .ok_or_else(|| values.wrong("lease_seconds", "write a number from 3 to 600"))?;
    let listen = values.address("listen")?;
    let config = ServerConfig {
        listen: listen.unwrap_or_else(|| ([127, 0, 0, 1], 7070).into()),
        client_address: values.client_address()?,
        peer_listen: values.address("peer_listen")?,
        peer_address: values.peer_address("peer_address")?,
        join: values.join(token)?,
        metrics_listen: values.address("metrics_listen")?,
        store: Place::new(values.place("store")?, &data, "records"),
        staging: Place::new(values.place("staging")?, &data, "staging"),
        data,
        prices: value("prices").map(PathBuf::from),
        tls,
        access_token: value("access_token_file")
            .map(|path| settings::secret(path.as_ref()))
            .transpose()?,
        allow_plain_text: plain == PlainText::Anywhere,
        lease_term: Duration::from_secs(lease_seconds),
        log_format: values.hold_format()?,
    };
    if config.join.is_some() && !(config.store.chosen && config.staging.chosen) {
        return Err(Failure::usage(
            "a node that joins needs the places that all nodes share: give --store and --staging",
        )
        .detail("without them its tables and the files of jobs would lie in its own data folder, where no other node comes")
        .hint("`stepcast cluster token` prints the whole command"));
    }
    Ok(config)
}

struct Values<'settings>(&'settings [Setting]);

impl Values<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let setting = self.0.iter().find(|setting| setting.name == name);
        setting.and_then(|setting| setting.value.clone())
    }

    fn required(&self, name: &str) -> String {
        self.get(name).unwrap_or_default()
    }

    fn wrong(&self, name: &str, why: &str) -> Failure {
        Failure::usage(format!("{name} `{}` cannot be used", self.required(name))).detail(why)
    }

    fn folder(&self, name: &str) -> Result<String, Failure> {
        let folder = self.required(name);
        if folder.is_empty() {
            return Err(self.wrong(name, "write a folder, such as /var/lib/stepcast"));
        }
        Ok(folder)
    }

    /// A folder or a URL, if there is one. Half a URL would be a folder of that name where the server was started.
    fn place(&self, name: &str) -> Result<Option<String>, Failure> {
        let Some(place) = self.get(name) else {
            return Ok(None);
        };
        let half_url = place.split_once(':').is_some_and(|(scheme, rest)| {
            let is_scheme =
                !scheme.is_empty() && scheme.chars().all(|letter| letter.is_ascii_alphanumeric());
            is_scheme && !rest.starts_with("//")
        });
        if place.is_empty() || half_url {
            let why = "write a folder or a URL such as s3://bucket/prefix; a folder with a colon in its name begins with ./ or /";
            return Err(self.wrong(name, why));
        }
        Ok(Some(place))
    }

    fn address(&self, name: &str) -> Result<Option<SocketAddr>, Failure> {
        let parsed = self.get(name).map(|text| text.parse()).transpose();
        parsed
            .map_err(|_bad| self.wrong(name, "write an address and a port, such as 127.0.0.1:7070"))
    }

    fn peer_address(&self, name: &str) -> Result<Option<String>, Failure> {
        match self.get(name) {
            Some(text) if !is_host_and_port(&text) => Err(self.wrong(
                name,
                "write a host and a port, such as node1.example.com:7071",
            )),
            address => Ok(address),
        }
    }

    fn hold_format(&self) -> Result<u16, Failure> {
        let newest = u16::try_from(stepcast_cluster::LOG_FORMAT).unwrap_or(u16::MAX);
        let Some(text) = self.get("hold_format") else {
            return Ok(newest);
        };
        let format = text
            .parse::<u16>()
            .ok()
            .filter(|format| (1..=newest).contains(format));
        let why = format!("write a number from 1 to {newest}");
        format.ok_or_else(|| self.wrong("hold_format", &why))
    }

    fn client_address(&self) -> Result<Option<String>, Failure> {
        let Some(text) = self.get("client_address") else {
            return Ok(None);
        };
        let address = text.trim_end_matches('/');
        let rest = address
            .strip_prefix("https://")
            .or_else(|| address.strip_prefix("http://"));
        if rest.is_some_and(is_host_and_port) {
            Ok(Some(address.to_owned()))
        } else {
            Err(self.wrong(
                "client_address",
                "write a URL such as https://node1.example.com:7070",
            ))
        }
    }

    fn join(&self, token: Option<String>) -> Result<Option<Join>, Failure> {
        let Some(list) = self.get("join") else {
            return Ok(None);
        };
        let servers = list.split(',').map(|server| server.trim().to_owned());
        let servers: Vec<String> = servers.filter(|server| !server.is_empty()).collect();
        if servers.is_empty() || !servers.iter().all(|server| is_host_and_port(server)) {
            return Err(self.wrong(
                "join",
                "write hosts and ports, such as node1.example.com:7071",
            ));
        }
        let token = match (token, self.get("join_token_file")) {
            (Some(text), _) => JoinToken::Text(text),
            (None, Some(path)) => JoinToken::File(path.into()),
            (None, None) => JoinToken::Missing,
        };
        Ok(Some(Join { servers, token }))
    }
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_fits = !host.is_empty()
            && !host.contains(['/', '@', ','])
            && host.chars().all(|letter| letter.is_ascii_graphic());
        host_fits && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use crate::settings::{SettingsFile, resolve};

    fn given(values: &[(&str, &str)]) -> Vec<Setting> {
        let value = |name| {
            let given = values.iter().find(|(known, _)| *known == name);
            given.map(|(_, value)| (*value).to_owned())
        };
        let known = SETTINGS.iter().map(|known| Known {
            variable: "STEPCAST_TEST_NO_SUCH_VARIABLE",
            ..*known
        });
        known
            .map(|known| resolve(&known, value(known.name), &SettingsFile::default()))
            .collect()
    }

    fn refused(values: &[(&str, &str)]) -> Failure {
        let failure = read(&given(values), None).expect_err("it cannot be used");
        assert_eq!(failure.exit, Exit::Usage, "{values:?}");
        failure
    }

    #[test]
    fn a_node_alone_needs_nothing_but_defaults() {
        let config = read(&given(&[("data", "d")]), None).expect("usable");
        assert!(config.join.is_none() && config.peer_listen.is_none());
        assert_eq!(
            (config.store.shared(), config.staging.shared()),
            (String::new(), String::new()),
            "places of its own are nobody else's"
        );
    }

    #[test]
    fn a_node_that_joins_needs_shared_places_and_a_token() {
        let join = ("join", "a:7071, [::1]:7072");
        let failure = refused(&[join]);
        assert!(failure.primary.contains("--store and --staging"));
        assert_eq!(failure.primary, refused(&[join, ("store", "/s")]).primary);
        let shared = [join, ("store", "s3://b/t/"), ("staging", "/s/../s")];
        let config = read(&given(&shared), None).expect("usable");
        assert_eq!(config.store.shared(), "s3://b/t");
        let join = config.join.expect("joins");
        assert_eq!(join.servers, ["a:7071", "[::1]:7072"]);
        assert_eq!(join.token().expect_err("no token").exit, Exit::Usage);
        let config = read(&given(&shared), Some("T".to_owned())).expect("usable");
        let token = config.join.expect("joins").token();
        assert_eq!(token.expect("given"), "T");
    }

    #[test]
    fn the_log_is_held_at_a_format_that_is_known() {
        let held = |text| given(&[("hold_format", text)]);
        let config = read(&held("1"), None).expect("usable");
        assert_eq!(config.log_format, 1);
        for text in ["0", "99", "newest"] {
            assert!(read(&held(text), None).is_err(), "{text}");
        }
    }

    #[test]
    fn a_folder_may_have_a_colon_in_its_name() {
        for place in ["/mnt/a:b", "./a:b", "records", "s3://bucket/records"] {
            let config = read(&given(&[("store", place)]), None).expect("usable");
            assert_eq!(config.store.location, place);
        }
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for (name, value) in [
            ("listen", "7070"),
            ("peer_listen", "host:1"),
            ("metrics_listen", ":9"),
            ("peer_address", "host"),
            ("peer_address", "host:0"),
            ("client_address", "host:7070"),
            ("client_address", "https://host"),
            ("join", "http://host:7071"),
            ("join", ","),
            ("data", ""),
            ("store", ""),
            ("store", "s3:/bucket/records"),
            ("staging", "S3:bucket"),
        ] {
            let failure = refused(&[(name, value)]);
            assert!(failure.primary.starts_with(name), "{failure:?}");
        }
    }
}
