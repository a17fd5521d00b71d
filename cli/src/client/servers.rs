//! The servers of a cluster as a person's program knows them: which one is asked, and which is the next.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::Address;
use crate::failure::{Exit, Failure};

/// A server that does not accept a connection by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same when there are others to ask: within a call's deadline each of them has its turn.
const CONNECT_TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(2);

/// A stream on which nothing comes is probed this often, or the network forgets it.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A server that does not answer such a probe by then is gone, and a watch goes on elsewhere.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Addresses remembered, told ones included: clusters have up to five nodes, and they move.
const SERVERS_MAX: usize = 16;

/// What is known of the cluster's servers. The one that is asked changes while calls are under way.
#[derive(Debug)]
pub(super) struct Servers {
    known: Mutex<Known>,
    tls: Option<ClientTlsConfig>,
}

#[derive(Debug)]
struct Known {
    servers: Vec<Server>,
    /// The one that is asked.
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

#[derive(Debug, Clone)]
struct Server {
    address: String,
    channel: Channel,
}

impl Servers {
    /// The servers of an address list; nothing is connected yet.
    pub(super) fn new(address: &Address) -> Result<Self, Failure> {
        let addresses = list(&address.server);
        let encrypted = addresses
            .iter()
            .filter(|address| is_encrypted(address))
            .count();
        if encrypted != 0 && encrypted != addresses.len() {
            return Err(Failure::usage(
                "some of the servers are https and some are not",
            )
            .detail(addresses.join(", "))
            .hint("give every server as https://HOST:PORT: the access token goes to each of them"));
        }
        let servers = Self {
            known: Mutex::new(Known {
                servers: Vec::new(),
                present: 0,
                turn: 0,
            }),
            tls: match encrypted {
                0 => None,
                _ => Some(tls(address.ca_file.as_deref())?),
            },
        };
        let patience = if addresses.len() > 1 {
            CONNECT_TIMEOUT_OF_SEVERAL
        } else {
            CONNECT_TIMEOUT
        };
        for address in addresses {
            let server = servers.server(&address, patience)?;
            servers.lock().servers.push(server);
        }
        if servers.count() == 0 {
            return Err(
                Failure::usage("no server is named").hint("name one such as http://127.0.0.1:7070")
            );
        }
        Ok(servers)
    }

    /// Connects to the first server that can be reached; it is the one that is asked from now on.
    pub(super) async fn reach(&self, ca_file: Option<&Path>) -> Result<(), Failure> {
        let addresses: Vec<String> = {
            let known = self.lock();
            known
                .servers
                .iter()
                .map(|server| server.address.clone())
                .collect()
        };
        let patience = if addresses.len() > 1 {
            CONNECT_TIMEOUT_OF_SEVERAL
        } else {
            CONNECT_TIMEOUT
        };
        let mut causes = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            match self.endpoint(address, patience)?.connect().await {
                Ok(channel) => {
                    let mut known = self.lock();
                    known.servers[index].channel = channel;
                    (known.present, known.turn) = (index, index);
                    return Ok(());
                }
                Err(error) => causes.push(cause(&error)),
            }
        }
        Err(unreachable(&addresses, causes, ca_file))
    }

    /// This server alone, if it may be called.
    pub(super) fn only(&self, address: &str) -> Option<Self> {
        if address.is_empty() || !self.may_be_told(address) {
            return None;
        }
        let server = self.server(address, CONNECT_TIMEOUT_OF_SEVERAL).ok()?;
        Some(Self {
            known: Mutex::new(Known {
                servers: vec![server],
                present: 0,
                turn: 0,
            }),
            tls: self.tls.clone(),
        })
    }

    /// The connection to the server that is asked.
    pub(super) fn channel(&self) -> Channel {
        let known = self.lock();
        known.servers[known.present].channel.clone()
    }

    /// The address of the server that is asked.
    pub(super) fn address(&self) -> String {
        let known = self.lock();
        known.servers[known.present].address.clone()
    }

    /// How many are known.
    pub(super) fn count(&self) -> usize {
        self.lock().servers.len()
    }

    /// Asks the next server from now on.
    pub(super) fn next(&self) {
        self.lock().go_round();
    }

    /// Asks where the leader is said to be from now on; the next server if that says nothing of use.
    pub(super) fn follow(&self, hint: Option<&str>) {
        let hint = hint.map(with_scheme_of(&self.address()));
        let Some(address) = hint.filter(|hint| self.may_be_told(hint)) else {
            return self.next();
        };
        let mut known = self.lock();
        let at = known
            .servers
            .iter()
            .position(|server| server.address == address);
        match at {
            // The present one says that it leads and does not act like it: ask the others.
            Some(at) if at == known.present => known.go_round(),
            Some(at) => known.present = at,
            None if known.servers.len() < SERVERS_MAX => {
                match self.server(&address, CONNECT_TIMEOUT_OF_SEVERAL) {
                    Ok(server) => {
                        known.servers.push(server);
                        known.present = known.servers.len() - 1;
                    }
                    Err(_unusable) => known.go_round(),
                }
            }
            None => known.go_round(),
        }
    }

    /// Whether a server may be called there: never without encryption where a person has asked for it, since every call
    /// carries the access token.
    fn may_be_told(&self, address: &str) -> bool {
        self.tls.is_some() == is_encrypted(address)
    }

    fn server(&self, address: &str, patience: Duration) -> Result<Server, Failure> {
        Ok(Server {
            address: address.to_owned(),
            channel: self.endpoint(address, patience)?.connect_lazy(),
        })
    }

    fn endpoint(&self, server: &str, patience: Duration) -> Result<Endpoint, Failure> {
        let wrong = |why: String| {
            Failure::usage(format!("`{server}` is no server's address"))
                .detail(why)
                .hint("write one such as http://127.0.0.1:7070")
        };
        let endpoint =
            Endpoint::from_shared(server.to_owned()).map_err(|error| wrong(error.to_string()))?;
        if endpoint.uri().host().is_none_or(str::is_empty) {
            return Err(wrong("it names no host".to_owned()));
        }
        let endpoint = endpoint
            .connect_timeout(patience)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .user_agent(concat!("stepcast/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| wrong(error.to_string()))?;
        match self.tls.clone().filter(|_| is_encrypted(server)) {
            Some(tls) => endpoint
                .tls_config(tls)
                .map_err(|error| wrong(error.to_string())),
            None => Ok(endpoint),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Whole after any panic: no step in here leaves it half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_encrypted(address: &str) -> bool {
    address.starts_with("https://")
}

/// The addresses that a person has written, separated by commas.
fn list(servers: &str) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    let named = servers.split(',').map(str::trim);
    for server in named.filter(|server| !server.is_empty()) {
        let address = with_scheme_of("http://")(server);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// An address may leave out its scheme; it is then that of another one.
fn with_scheme_of(other: &str) -> impl Fn(&str) -> String {
    let scheme = if is_encrypted(other) { "https" } else { "http" };
    move |server| {
        let server = server.trim().trim_end_matches('/');
        if server.contains("://") {
            server.to_owned()
        } else {
            format!("{scheme}://{server}")
        }
    }
}

/// The authorities that the host trusts, and the one that a person has named.
fn tls(ca_file: Option<&Path>) -> Result<ClientTlsConfig, Failure> {
    let tls = ClientTlsConfig::new().with_enabled_roots();
    let Some(file) = ca_file else { return Ok(tls) };
    let pem = std::fs::read(file).map_err(|error| {
        Failure::refused(format!("{} cannot be read", file.display())).detail(error.to_string())
    })?;
    Ok(tls.ca_certificate(Certificate::from_pem(pem)))
}

/// The deepest cause: the library's own words say only that it could not.
fn cause(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn unreachable(addresses: &[String], causes: Vec<String>, ca_file: Option<&Path>) -> Failure {
    let mut failure = match addresses {
        [server] => {
            let mut failure =
                Failure::new(Exit::Unreachable, format!("no server answers at {server}"));
            failure.details = causes;
            failure
        }
        _ => {
            let mut failure = Failure::new(Exit::Unreachable, "none of the servers answers");
            let told = addresses.iter().zip(causes);
            failure.details = told
                .map(|(server, why)| format!("{server}: {why}"))
                .collect();
            failure
        }
    };
    let unknown_authority = failure
        .details
        .iter()
        .any(|line| line.contains("UnknownIssuer"));
    failure.hint = Some(if unknown_authority && ca_file.is_none() {
        "name the authority that signed the server's certificate with --ca-file or STEPCAST_CA_FILE"
            .to_owned()
    } else {
        "start one with `stepcast dev`, or name another with --server or STEPCAST_SERVER".to_owned()
    });
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(list: &str) -> Servers {
        let address = Address {
            server: list.to_owned(),
            ..Address::default()
        };
        Servers::new(&address).expect("usable addresses")
    }

    #[test]
    fn an_address_may_leave_out_its_scheme() {
        assert_eq!(list("127.0.0.1:7070"), ["http://127.0.0.1:7070"]);
        assert_eq!(
            list("https://a:1/, b:2 ,,http://b:2"),
            ["https://a:1", "http://b:2"]
        );
    }

    #[tokio::test]
    async fn hints_are_followed_and_the_others_are_asked_in_turn() {
        let servers = servers("a:1,b:1");
        assert_eq!(servers.address(), "http://a:1");
        servers.follow(Some("http://b:1/"));
        assert_eq!(servers.address(), "http://b:1");
        servers.follow(Some("http://c:1"));
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
        assert_eq!(servers.count(), SERVERS_MAX);
    }

    #[tokio::test]
    async fn a_hint_never_takes_the_token_out_of_encryption() {
        let servers = servers("https://a:1,https://b:1");
        servers.follow(Some("http://c:1"));
        assert_eq!(servers.address(), "https://b:1");
        servers.follow(Some("d:1"));
        assert_eq!(servers.address(), "https://d:1");
    }

    #[tokio::test]
    async fn servers_with_and_without_encryption_are_not_mixed() {
        let address = Address {
            server: "https://a:1,http://b:1".to_owned(),
            ..Address::default()
        };
        let failure = Servers::new(&address).expect_err("a token would travel in plain text");
        assert_eq!(failure.exit, Exit::Usage);
    }
}
