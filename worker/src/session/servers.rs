//! The servers' addresses: which one is spoken with, how, and which is the next when it does not answer.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stepcast_proto::v1::agent_service_client::AgentServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::config::WorkerConfig;

/// How long a TCP and TLS handshake may take: so little of a lease term that every other server is tried in time.
const CONNECT: Duration = Duration::from_secs(2);

/// An idle connection is asked for a sign of life this often, as servers and proxies allow.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How long such a sign may take.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Largest message taken: a job's files are 3 MiB together at most.
const MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// Addresses remembered, told ones included: clusters have up to five nodes, and they move.
const MAX_SERVERS: usize = 16;

/// Where Linux distributions and OpenSSL keep the authorities that everybody trusts.
const SYSTEM_AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// A client of one server that shows the worker's secret with each call.
pub(super) type Client = AgentServiceClient<InterceptedService<Channel, Bearer>>;

/// The servers of the cluster, shared by everything that calls them.
pub(crate) struct Servers {
    known: Mutex<Known>,
    tls: Option<ClientTlsConfig>,
    secret: String,
    bearer: Bearer,
}

struct Known {
    servers: Vec<Server>,
    /// The one that is spoken with.
    present: usize,
    /// Whose turn it was last. Hints do not move it: a server that points to one that is gone is not asked again and again
    /// while the others are not.
    turn: usize,
}

impl Known {
    /// The next one in turn that is not the present one.
    fn go_round(&mut self) {
        for _ in 0..2 {
            self.turn = (self.turn + 1) % self.servers.len();
            if self.turn != self.present {
                break;
            }
        }
        self.present = self.turn;
    }
}

struct Server {
    address: String,
    channel: Channel,
}

/// Why the servers cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// None is named.
    #[error("no server is named; give at least one (--server http://HOST:7070)")]
    NoServer,
    /// An address is none.
    #[error("{0} is not a server's address; it looks like http://HOST:7070 or https://HOST:7070")]
    Address(String),
    /// A certificate file cannot be read.
    #[error("cannot read the certificate authorities in {0}")]
    Authorities(PathBuf, #[source] std::io::Error),
    /// No certificate is trusted.
    #[error(
        "no certificate authorities were found on this host; name the cluster's own (--ca-file)"
    )]
    NoAuthorities,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up for {0}")]
    Tls(String, #[source] tonic::transport::Error),
    /// The token cannot be sent.
    #[error("the worker's token holds characters that no token has; was the right file given?")]
    Token,
}

impl Servers {
    /// Makes ready to call; nothing is connected yet.
    pub(crate) fn new(config: &WorkerConfig, secret: String) -> Result<Self, Unusable> {
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {secret}")
            .parse()
            .map_err(|_bad| Unusable::Token)?;
        bearer.set_sensitive(true);
        let encrypted = config
            .servers
            .iter()
            .any(|address| address.starts_with("https://"));
        let tls = if encrypted {
            Some(tls(config.ca_file.as_deref())?)
        } else {
            None
        };
        let known = Known {
            servers: Vec::new(),
            present: 0,
            turn: 0,
        };
        let servers = Self {
            known: Mutex::new(known),
            tls,
            secret,
            bearer: Bearer(bearer),
        };
        for address in &config.servers {
            let server = servers.server(address.trim_end_matches('/'))?;
            servers.lock().servers.push(server);
        }
        if servers.lock().servers.is_empty() {
            Err(Unusable::NoServer)
        } else {
            Ok(servers)
        }
    }

    /// The worker's secret.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// A client of the present server.
    pub(super) fn client(&self) -> Client {
        let known = self.lock();
        let channel = known.servers[known.present].channel.clone();
        AgentServiceClient::with_interceptor(channel, self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
    }

    /// The present server's address.
    pub(super) fn address(&self) -> String {
        let known = self.lock();
        known.servers[known.present].address.clone()
    }

    /// How many there are to go round.
    pub(super) fn count(&self) -> usize {
        self.lock().servers.len()
    }

    /// Goes to the next server.
    pub(super) fn next(&self) {
        self.lock().go_round();
    }

    /// Goes where the leader is said to be; to the next server if that says nothing.
    pub(super) fn follow(&self, hint: Option<&str>) {
        let Some(address) = hint
            .map(str::trim)
            .filter(|hint| !hint.is_empty())
            .and_then(|hint| self.whole(hint))
        else {
            return self.next();
        };
        let mut known = self.lock();
        if let Some(at) = known
            .servers
            .iter()
            .position(|server| server.address == address)
        {
            // The present one says that it is the leader and does not act like it: ask the others.
            if at == known.present {
                known.go_round();
            } else {
                known.present = at;
            }
            return;
        }
        drop(known);
        match self.server(&address) {
            Ok(server) if self.lock().servers.len() < MAX_SERVERS => {
                let mut known = self.lock();
                known.servers.push(server);
                known.present = known.servers.len() - 1;
            }
            _ => self.next(),
        }
    }

    /// The hint as a whole address. Never one without encryption where the present connection has it: it would carry the
    /// worker's secret.
    fn whole(&self, hint: &str) -> Option<String> {
        let (scheme, _) = self
            .address()
            .split_once("://")
            .map(|(scheme, rest)| (scheme.to_owned(), rest.to_owned()))?;
        match hint.split_once("://") {
            None => Some(format!("{scheme}://{hint}")),
            Some(("http", _)) if scheme == "https" => None,
            Some(("https", _)) if self.tls.is_none() => None,
            Some(_) => Some(hint.trim_end_matches('/').to_owned()),
        }
    }

    fn server(&self, address: &str) -> Result<Server, Unusable> {
        let bad = || Unusable::Address(address.to_owned());
        if !address.starts_with("http://") && !address.starts_with("https://") {
            return Err(bad());
        }
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_bad| bad())?;
        let mut endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if address.starts_with("https://") {
            let tls = self.tls.clone().ok_or_else(bad)?;
            endpoint = endpoint
                .tls_config(tls)
                .map_err(|error| Unusable::Tls(address.to_owned(), error))?;
        }
        Ok(Server {
            address: address.to_owned(),
            channel: endpoint.connect_lazy(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Whole after any panic: no step in here leaves it half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cluster's own authority if one is named, else those that the host trusts.
fn tls(ca_file: Option<&Path>) -> Result<ClientTlsConfig, Unusable> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let system = || {
        named
            .into_iter()
            .chain(SYSTEM_AUTHORITIES.map(PathBuf::from))
            .find(|path| path.is_file())
    };
    let path = ca_file
        .map(Path::to_owned)
        .or_else(system)
        .ok_or(Unusable::NoAuthorities)?;
    let pem = std::fs::read(&path).map_err(|error| Unusable::Authorities(path, error))?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

/// Shows the worker's secret with each call.
#[derive(Clone)]
pub(super) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// The secret stays out of logs.
impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.lock();
        f.debug_list()
            .entries(known.servers.iter().map(|server| &server.address))
            .finish()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn servers(addresses: &[&str]) -> Result<Servers, Unusable> {
        let addresses = addresses
            .iter()
            .map(|address| (*address).to_owned())
            .collect();
        let mut config = WorkerConfig::replay(addresses, PathBuf::new(), Vec::new());
        config.ca_file = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        Servers::new(&config, "secret".to_owned())
    }

    #[tokio::test]
    async fn hints_are_followed_and_the_others_are_asked_in_turn() {
        let servers = servers(&["http://a:1/", "http://b:1"]).unwrap();
        assert_eq!(servers.address(), "http://a:1");
        servers.follow(Some("http://b:1"));
        assert_eq!(servers.address(), "http://b:1");
        servers.follow(Some("c:1"));
        assert_eq!(servers.address(), "http://c:1");
        servers.follow(Some("http://c:1"));
        assert_eq!(
            servers.address(),
            "http://b:1",
            "it says it leads, and does not"
        );
        servers.follow(None);
        assert_eq!(servers.address(), "http://c:1");
        servers.next();
        assert_eq!(servers.address(), "http://a:1");
        for number in 0..100 {
            servers.follow(Some(&format!("http://n{number}:1")));
        }
        assert_eq!(servers.lock().servers.len(), MAX_SERVERS);
    }

    #[tokio::test]
    async fn a_hint_never_takes_the_secret_out_of_encryption() {
        let servers = servers(&["https://a:1", "https://b:1"]).unwrap();
        servers.follow(Some("http://c:1"));
        assert_eq!(servers.address(), "https://b:1");
        servers.follow(Some("d:1"));
        assert_eq!(servers.address(), "https://d:1");
    }

    #[tokio::test]
    async fn what_cannot_be_an_address_or_a_token_is_said() {
        assert!(matches!(servers(&[]), Err(Unusable::NoServer)));
        for address in ["a:1", "ftp://a", "http://a b", ""] {
            assert!(
                matches!(servers(&[address]), Err(Unusable::Address(_))),
                "{address}"
            );
        }
        let config =
            WorkerConfig::replay(vec!["http://a:1".to_owned()], PathBuf::new(), Vec::new());
        assert!(matches!(
            Servers::new(&config, "a\nb".to_owned()),
            Err(Unusable::Token)
        ));
    }
}
