//! The servers of a cluster as a person's program knows them: which one is asked, and which is the next.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stepcast_worker::servers::{PlainText, Round, Spoken, is_encrypted, may_be_told, named, trust};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

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

/// What is known of the cluster's servers. The one that is asked changes while calls are under way.
#[derive(Debug)]
pub(super) struct Servers {
    known: Mutex<Round<Channel>>,
    tls: Option<ClientTlsConfig>,
    plain: PlainText,
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
        if let Some(open) = addresses.iter().find(|one| !address.plain.may_call(one)) {
            return Err(
                Failure::usage(format!("{open} is not on this host and has no TLS"))
                    .detail(
                        "access tokens, configurations and credentials would travel in plain text",
                    )
                    .hint(format!(
                        "write {}; where something else encrypts, call it with --allow-plain-text",
                        open.replacen("http://", "https://", 1)
                    )),
            );
        }
        let tls = match encrypted {
            0 => None,
            _ => Some(trusted(address.ca_file.as_deref())?),
        };
        let patience = patience(addresses.len());
        let servers = addresses.into_iter().map(|address| {
            let channel = endpoint(&address, patience, tls.as_ref())?.connect_lazy();
            Ok((address, channel))
        });
        let known = Round::new(servers.collect::<Result<_, Failure>>()?);
        let known = known.ok_or_else(|| {
            Failure::usage("no server is named").hint("name one such as http://127.0.0.1:7070")
        })?;
        Ok(Self {
            known: Mutex::new(known),
            tls,
            plain: address.plain,
        })
    }

    /// Connects to the first server that can be reached; it is the one that is asked from now on.
    pub(super) async fn reach(&self, ca_file: Option<&Path>) -> Result<(), Failure> {
        let addresses: Vec<String> = self.lock().addresses().map(str::to_owned).collect();
        let patience = patience(addresses.len());
        let mut causes = Vec::new();
        for (place, address) in addresses.iter().enumerate() {
            let endpoint = endpoint(address, patience, self.tls.as_ref())?;
            match endpoint.connect().await {
                Ok(channel) => {
                    self.lock().found(place, channel);
                    return Ok(());
                }
                Err(error) => causes.push(cause(&error)),
            }
        }
        Err(unreachable(&addresses, causes, ca_file))
    }

    /// This server alone, if it may be called.
    pub(super) fn only(&self, address: &str) -> Option<Self> {
        let tls = self.tls.as_ref();
        if address.is_empty() || !may_be_told(address, self.lock().address(), self.spoken()) {
            return None;
        }
        let endpoint = endpoint(address, CONNECT_TIMEOUT_OF_SEVERAL, tls).ok()?;
        Some(Self {
            known: Mutex::new(Round::new(vec![(
                address.to_owned(),
                endpoint.connect_lazy(),
            )])?),
            tls: tls.cloned(),
            plain: self.plain,
        })
    }

    /// That none of them answers.
    pub(super) fn gone(&self) -> Failure {
        let addresses: Vec<String> = self.lock().addresses().map(str::to_owned).collect();
        unreachable(&addresses, Vec::new(), None)
    }

    /// The connection to the server that is asked.
    pub(super) fn channel(&self) -> Channel {
        self.lock().present().clone()
    }

    /// The address of the server that is asked.
    pub(super) fn address(&self) -> String {
        self.lock().address().to_owned()
    }

    /// How many are known.
    pub(super) fn count(&self) -> usize {
        self.lock().count()
    }

    /// Asks the next server from now on.
    pub(super) fn next(&self) {
        self.lock().go_round();
    }

    /// Asks where the leader is said to be from now on; the next server if that says nothing of use.
    pub(super) fn follow(&self, hint: Option<&str>) {
        let tls = self.tls.as_ref();
        self.lock().follow(hint, self.spoken(), |address| {
            let endpoint = endpoint(address, CONNECT_TIMEOUT_OF_SEVERAL, tls);
            Some(endpoint.ok()?.connect_lazy())
        });
    }

    fn spoken(&self) -> Spoken {
        Spoken {
            tls: self.tls.is_some(),
            plain: self.plain,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Round<Channel>> {
        // Whole after any panic: no step in here leaves it half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long one of so many servers is waited for.
fn patience(servers: usize) -> Duration {
    if servers > 1 {
        CONNECT_TIMEOUT_OF_SEVERAL
    } else {
        CONNECT_TIMEOUT
    }
}

fn endpoint(
    server: &str,
    patience: Duration,
    tls: Option<&ClientTlsConfig>,
) -> Result<Endpoint, Failure> {
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
    match tls.filter(|_| is_encrypted(server)) {
        Some(tls) => endpoint
            .tls_config(tls.clone())
            .map_err(|error| wrong(error.to_string())),
        None => Ok(endpoint),
    }
}

/// The addresses that a person has written, separated by commas.
fn list(servers: &str) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    let written = servers.split(',').map(str::trim);
    for server in written.filter(|server| !server.is_empty()) {
        let address = named(server);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The authorities that the host trusts, and the one that a person has named.
fn trusted(ca_file: Option<&Path>) -> Result<ClientTlsConfig, Failure> {
    trust(ca_file).map_err(|error| {
        let failure = Failure::refused(error.to_string());
        match std::error::Error::source(&error) {
            Some(cause) => failure.detail(cause.to_string()),
            None => failure,
        }
    })
}

/// The deepest cause: the library's own words say only that it could not.
fn cause(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Whether a server's certificate was refused, by what is told of a connection.
fn is_distrusted(details: &[String]) -> bool {
    let refused = |line: &String| line.contains("invalid peer certificate");
    details.iter().any(refused)
}

/// What to do where a server was reached through another one and its certificate is refused.
pub(super) fn distrust_hint(details: &[String]) -> Option<String> {
    is_distrusted(details).then(|| {
        "let --ca-file or STEPCAST_CA_FILE name a file with the certificates of all servers: each that has none makes its own, \
         `tls/certificate.pem` in its data folder"
            .to_owned()
    })
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
    // A server is there, and what it shows is refused.
    let distrusted = is_distrusted(&failure.details);
    if distrusted && let [server] = addresses {
        failure.primary = format!("the certificate of the server at {server} is not trusted");
    }
    // What a server without TLS answers is none of its records.
    let plain = failure
        .details
        .iter()
        .any(|line| line.contains("InvalidContentType"));
    let hint = if distrusted && ca_file.is_none() {
        "name the authority that signed the server's certificate with --ca-file or STEPCAST_CA_FILE"
    } else if distrusted {
        "look whether --ca-file or STEPCAST_CA_FILE names the authority that signed the server's certificate, and the address \
         a name that stands in it; of servers that make their own the file must hold each one's"
    } else if plain {
        "does the server speak TLS? Its address begins with http:// if not"
    } else {
        "start one with `stepcast dev`, or name another with --server or STEPCAST_SERVER"
    };
    failure.hint = Some(hint.to_owned());
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_its_scheme() {
        assert_eq!(list("127.0.0.1:7070"), ["http://127.0.0.1:7070"]);
        assert_eq!(
            list("[::1]:1,localhost:1"),
            ["http://[::1]:1", "http://localhost:1"]
        );
        assert_eq!(
            list("https://a:1/, b:2 ,,https://b:2"),
            ["https://a:1", "https://b:2"]
        );
    }

    #[test]
    fn a_server_without_tls_is_told_by_its_answer() {
        let hint = |cause: &str| {
            let address = ["https://a:1".to_owned()];
            unreachable(&address, vec![cause.to_owned()], None).hint
        };
        let plain = hint("received corrupt message of type InvalidContentType").expect("a hint");
        assert!(plain.contains("http://"), "{plain}");
        let refused = "invalid peer certificate: UnknownIssuer";
        let distrusted = hint(refused).expect("a hint");
        assert!(distrusted.starts_with("name the authority"), "{distrusted}");
        let gone = hint("Connection refused (os error 111)").expect("a hint");
        assert!(!gone.contains("http://"), "{gone}");
    }

    #[test]
    fn a_leader_whose_certificate_is_another_one_is_told_with_what_to_do() {
        let refused = [
            "asked https://b:1",
            "invalid peer certificate: BadSignature",
        ];
        let hint = distrust_hint(&refused.map(str::to_owned)).expect("a hint");
        assert!(hint.contains("certificates of all servers"), "{hint}");
        assert_eq!(distrust_hint(&["asked https://b:1".to_owned()]), None);
    }

    #[test]
    fn a_server_whose_certificate_is_refused_is_there() {
        let address = ["https://a:1".to_owned()];
        for why in ["UnknownIssuer", "Other(OtherError(CaUsedAsEndEntity))"] {
            let cause = format!("invalid peer certificate: {why}");
            let failure = unreachable(&address, vec![cause], Some(Path::new("ca.pem")));
            assert_eq!(
                failure.primary,
                "the certificate of the server at https://a:1 is not trusted"
            );
            let hint = failure.hint.expect("a hint");
            assert!(hint.starts_with("look whether --ca-file"), "{hint}");
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_in_plain_text_beyond_this_host_unless_it_is_asked_for() {
        let at = |server: &str, plain| Address {
            server: server.to_owned(),
            plain,
            ..Address::default()
        };
        let failure = Servers::new(&at("http://10.0.0.1:7070", PlainText::ThisHost));
        let failure = failure.expect_err("a token would travel in plain text");
        assert_eq!(failure.exit, Exit::Usage);
        let hint = failure.hint.expect("a hint");
        assert!(hint.starts_with("write https://10.0.0.1:7070;"), "{hint}");
        for (server, plain) in [
            ("http://127.0.0.1:7070", PlainText::ThisHost),
            ("http://10.0.0.1:7070", PlainText::Anywhere),
        ] {
            assert!(Servers::new(&at(server, plain)).is_ok(), "{server}");
        }
        // Nor where a server says that another one leads.
        let here = at("http://127.0.0.1:7070", PlainText::ThisHost);
        let here = Servers::new(&here).expect("usable");
        assert!(here.only("http://10.0.0.1:7070").is_none());
        assert!(here.only("http://127.0.0.1:7080").is_some());
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
