//! Reaching a listener of another node: TCP, TLS and HTTP/2 on it, each within a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// TCP and TLS together. A host that is gone does not answer at all; one in the same data centre answers in milliseconds.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// A silent connection is asked whether it is still there this often, and given up without an answer in this time.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

/// Bytes on their way on one stream and on one connection: four frames, so that distance does not slow them down.
pub(super) const WINDOW_BYTES: u32 = 4 << 20;

/// Who sees to it that a connection whose other end is gone does not stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// HTTP/2, which asks again and again.
    Pings,
    /// Who uses it: an answer to a ping comes late behind much that was sent, and is no sign that nothing arrives.
    Caller,
}

/// Why a node is not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{address} is no HOST:PORT")]
    Address { address: String },
    #[error("{address} does not answer")]
    Silent { address: String },
    #[error("{address} cannot be reached")]
    Tcp {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{address} has not proved that it belongs to the cluster")]
    Tls {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{address} does not speak HTTP/2")]
    Http {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
}

impl Error {
    /// Whether somebody answers whose certificate is of another authority than the one that was expected.
    pub(super) fn is_of_another_authority(&self) -> bool {
        let Self::Tls { source, .. } = self else {
            return false;
        };
        let cause = source.get_ref().and_then(|cause| cause.downcast_ref());
        matches!(
            cause,
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer
            ))
        )
    }
}

/// A connection, and the certificate at its other end.
pub(super) struct Dialled {
    pub(super) channel: Channel,
    pub(super) certificate: Option<CertificateDer<'static>>,
}

/// Connects to `HOST:PORT`, where somebody of this name is expected; without a name the configuration knows whom it wants.
pub(super) async fn dial(
    address: &str,
    name: Option<&str>,
    tls: Arc<ClientConfig>,
    watch: Watch,
) -> Result<Dialled, Error> {
    let owned = || address.to_owned();
    let host = address
        .rsplit_once(':')
        .map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']'))
        .ok_or_else(|| Error::Address { address: owned() })?;
    let name = ServerName::try_from(name.unwrap_or(host).to_owned())
        .map_err(|_| Error::Address { address: owned() })?;
    let connected = timeout(CONNECT_WITHIN, async {
        let tcp = TcpStream::connect(address)
            .await
            .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
            .map_err(|source| Error::Tcp {
                address: owned(),
                source,
            })?;
        TlsConnector::from(tls)
            .connect(name, tcp)
            .await
            .map_err(|source| Error::Tls {
                address: owned(),
                source,
            })
    });
    let stream = connected
        .await
        .map_err(|_| Error::Silent { address: owned() })??;
    let certificate = stream.get_ref().1.peer_certificates();
    let certificate = certificate.and_then(|chain| chain.first()).cloned();
    // Once: a connection that ends is not made again behind the caller's back.
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.take().ok_or(io::ErrorKind::NotConnected);
        async move { stream.map_err(io::Error::from) }
    });
    // The name in requests; who the other is, TLS has shown.
    let mut endpoint = Endpoint::from_static("http://node.stepcast");
    if watch == Watch::Pings {
        endpoint = endpoint
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true);
    }
    let channel = endpoint
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(|source| Error::Http {
            address: owned(),
            source,
        })?;
    Ok(Dialled {
        channel,
        certificate,
    })
}

/// An error with all its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let words = deeper.to_string();
        if !line.ends_with(&words) {
            line.push_str(": ");
            line.push_str(&words);
        }
        cause = deeper.source();
    }
    line
}
