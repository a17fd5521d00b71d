//! The servers' addresses: which one is spoken with, how, and which is the next when it does not answer.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stepcast_proto::v1::agent_service_client::AgentServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::chain::chain;
use crate::config::WorkerConfig;
use crate::servers::{PlainText, Round, Spoken, Untrusted, authorities, is_encrypted, trust_also};

/// How long a TCP and TLS handshake may take: so little of a lease term that every other server is tried in time.
const CONNECT: Duration = Duration::from_secs(2);

/// An idle connection is asked for a sign of life this often, as servers and proxies allow.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How long such a sign may take.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Largest message taken: a job's files are 3 MiB together at most.
const MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// A client of one server that shows the worker's secret with each call.
pub(super) type Client = AgentServiceClient<InterceptedService<Channel, Bearer>>;

/// The servers of the cluster, shared by everything that calls them.
pub(crate) struct Servers {
    known: Mutex<Round<Channel>>,
    trusted: Mutex<Trusted>,
    plain: PlainText,
    secret: String,
    bearer: Bearer,
}

/// Who is trusted to be a server.
struct Trusted {
    tls: Option<ClientTlsConfig>,
    /// The operator's own authorities, and what was in their file when it was last of use.
    ca_file: Option<PathBuf>,
    ca: Vec<u8>,
}

/// Why the servers cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// None is named.
    #[error("no server is named; give at least one (--server https://HOST:7070)")]
    NoServer,
    /// An address is none.
    #[error(
        "{0} is not a server's address; it looks like https://HOST:7070, or http://127.0.0.1:7070"
    )]
    Address(String),
    /// It would be called in plain text.
    #[error(
        "{0} is not on this host and has no TLS: the worker's token and the files of jobs would travel in plain text; write \
         https://, or give --allow-plain-text where something else encrypts"
    )]
    PlainText(String),
    /// No server's certificate could be checked.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
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
        let encrypted = config.servers.iter().any(|address| is_encrypted(address));
        let ca_file = config.ca_file.clone().filter(|_| encrypted);
        let ca = ca_file.as_deref().map(authorities).transpose()?;
        let tls = if encrypted {
            Some(trust_also(ca.as_deref())?)
        } else {
            None
        };
        let servers = config.servers.iter().map(|address| {
            let address = address.trim_end_matches('/').to_owned();
            let channel = channel(&address, tls.as_ref())?;
            if !config.plain.may_call(&address) {
                return Err(Unusable::PlainText(address));
            }
            Ok((address, channel))
        });
        let known = Round::new(servers.collect::<Result<_, Unusable>>()?);
        Ok(Self {
            known: Mutex::new(known.ok_or(Unusable::NoServer)?),
            trusted: Mutex::new(Trusted {
                tls,
                ca_file,
                ca: ca.unwrap_or_default(),
            }),
            plain: config.plain,
            secret,
            bearer: Bearer(bearer),
        })
    }

    /// The worker's secret.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// A client of the present server.
    pub(super) fn client(&self) -> Client {
        let channel = self.lock().present().clone();
        AgentServiceClient::with_interceptor(channel, self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
    }

    /// The present server's address.
    pub(super) fn address(&self) -> String {
        self.lock().address().to_owned()
    }

    /// How many there are to go round.
    pub(super) fn count(&self) -> usize {
        self.lock().count()
    }

    /// Goes to the next server.
    pub(super) fn next(&self) {
        self.trust_anew();
        self.lock().go_round();
    }

    /// Goes where the leader is said to be; to the next server if that says nothing.
    pub(super) fn follow(&self, hint: Option<&str>) {
        self.trust_anew();
        let trusted = self.trusted();
        let tls = trusted.tls.as_ref();
        let spoken = Spoken {
            tls: tls.is_some(),
            plain: self.plain,
        };
        let mut known = self.lock();
        known.follow(hint, spoken, |address| channel(address, tls).ok());
    }

    /// Trusts whom the file of authorities names by now, whenever a server was not to be had: it has a certificate that is new,
    /// or is new itself. Whether anything has changed; a file that is of no use changes nothing.
    fn trust_anew(&self) -> bool {
        let mut trusted = self.trusted();
        let Some(file) = trusted.ca_file.clone() else {
            return false;
        };
        let Ok(ca) = authorities(&file).inspect_err(|error| {
            tracing::debug!(
                error = chain(error),
                "the certificate authorities cannot be read"
            );
        }) else {
            return false;
        };
        if ca == trusted.ca {
            return false;
        }
        let Ok(tls) = trust_also(Some(&ca)) else {
            return false;
        };
        let mut known = self.lock();
        if channel(known.address(), Some(&tls)).is_err() {
            return false;
        }
        known.renew(|address| channel(address, Some(&tls)).ok());
        (trusted.tls, trusted.ca) = (Some(tls), ca);
        tracing::info!(file = %file.display(), "the certificate authorities have changed and are trusted from now on");
        true
    }

    fn trusted(&self) -> MutexGuard<'_, Trusted> {
        // Whole after any panic: both parts are replaced at once.
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Round<Channel>> {
        // Whole after any panic: no step in here leaves it half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to this server, which is made when it is first used.
fn channel(address: &str, tls: Option<&ClientTlsConfig>) -> Result<Channel, Unusable> {
    let bad = || Unusable::Address(address.to_owned());
    if !address.starts_with("http://") && !is_encrypted(address) {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_bad| bad())?;
    let mut endpoint = endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    if is_encrypted(address) {
        let tls = tls.cloned().ok_or_else(bad)?;
        endpoint = endpoint
            .tls_config(tls)
            .map_err(|error| Unusable::Tls(address.to_owned(), error))?;
    }
    Ok(endpoint.connect_lazy())
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
        f.debug_list().entries(self.lock().addresses()).finish()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

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
    async fn a_hint_never_takes_the_secret_out_of_encryption() {
        let servers = servers(&["https://a:1", "https://b:1"]).unwrap();
        servers.follow(Some("http://c:1"));
        assert_eq!(servers.address(), "https://b:1");
        servers.follow(Some("d:1"));
        assert_eq!(servers.address(), "https://d:1");
    }

    /// A node has been added, or its certificate was renewed by itself: the operator has put it into the file.
    #[tokio::test]
    async fn whom_the_file_of_authorities_names_later_is_trusted_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let text = STANDARD.encode(made.cert.der());
        let authority = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        std::fs::write(&file, &authority).unwrap();
        let mut config =
            WorkerConfig::replay(vec!["https://a:1".to_owned()], PathBuf::new(), Vec::new());
        config.ca_file = Some(file.clone());
        let servers = Servers::new(&config, "secret".to_owned()).unwrap();
        assert!(!servers.trust_anew(), "as it was");
        std::fs::write(&file, authority.repeat(2)).unwrap();
        assert!(servers.trust_anew());
        assert!(!servers.trust_anew(), "once");
        std::fs::remove_file(&file).unwrap();
        assert!(!servers.trust_anew(), "what is not there says nothing");
        std::fs::write(&file, &authority).unwrap();
        assert!(servers.trust_anew());
    }

    #[tokio::test]
    async fn what_cannot_be_an_address_or_a_token_is_said() {
        assert!(matches!(servers(&[]), Err(Unusable::NoServer)));
        assert!(matches!(
            servers(&["https://a:1", "http://b:1"]),
            Err(Unusable::PlainText(_))
        ));
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
