//! The port on which machines ask how a worker is: `/metrics`, `/livez` and `/readyz`, one question a connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use stepcast_proto::certificate::{self, Files, Shown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::MetricsConfig;

/// Connections at once: a scraper or two, and a person with curl.
const CONNECTIONS: usize = 16;

/// A connection is closed after this long at the latest, so that nobody can hold all of them.
const CONNECTION_LIFE: Duration = Duration::from_secs(3);

/// A port that takes no connection is tried again after this long: usually too many files are open.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Bytes of a request that are kept: a scraper's has some hundred.
const REQUEST_BYTES: usize = 8 << 10;

/// The text format that Prometheus reads.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Why a worker cannot tell how it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not this host's.
    #[error("metrics cannot be served on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Others could read along.
    #[error(
        "metrics on {0} would be readable on their way: give a certificate with --tls-cert and --tls-key, or listen on loopback"
    )]
    PlainText(SocketAddr),
    /// The certificate and its key cannot be shown.
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
    /// TLS cannot be spoken.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// What is answered, and whether it is good news.
pub(crate) type Answer = (bool, String);

/// The open port.
pub(crate) struct Port {
    listener: TcpListener,
    tls: Option<(Arc<Shown>, TlsAcceptor)>,
}

impl Port {
    /// Opens it.
    pub(crate) async fn open(config: &MetricsConfig) -> Result<Self, Error> {
        let address = config.listen;
        let tls = match &config.tls {
            Some((certificate, key)) => {
                let shown = Shown::read(Files {
                    certificate: certificate.clone(),
                    key: key.clone(),
                })?;
                let acceptor = TlsAcceptor::from(shown.greeting(&[])?);
                Some((shown, acceptor))
            }
            None if address.ip().is_loopback() => None,
            None => return Err(Error::PlainText(address)),
        };
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| Error::Listen { address, source })?;
        Ok(Self { listener, tls })
    }

    /// What it shows.
    pub(crate) fn shown(&self) -> Option<&Arc<Shown>> {
        self.tls.as_ref().map(|(shown, _)| shown)
    }

    /// Where it is asked.
    pub(crate) fn url(&self) -> String {
        let scheme = self.tls.as_ref().map_or("http", |_| "https");
        let address = self
            .listener
            .local_addr()
            .map(|address| address.to_string());
        format!("{scheme}://{}/metrics", address.unwrap_or_default())
    }

    /// Answers by path until it is dropped.
    pub(crate) async fn serve(
        self,
        answer: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static,
    ) {
        let (room, answer) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(answer));
        let mut asked = JoinSet::new();
        loop {
            // A semaphore that nobody closes always has room again.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            while asked.try_join_next().is_some() {}
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let tls = self.tls.as_ref().map(|(_, acceptor)| acceptor.clone());
            let answer = Arc::clone(&answer);
            asked.spawn(async move {
                // Whoever is too slow, or goes away, gets no answer.
                let _ = tokio::time::timeout(CONNECTION_LIFE, hear(stream, tls, &*answer)).await;
                drop(permit);
            });
        }
    }
}

async fn hear(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    answer: &impl Fn(&str) -> Option<Answer>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match tls {
        None => one(stream, answer).await?,
        Some(tls) => one(tls.accept(stream).await?, answer).await?,
    }
    Ok(())
}

/// One question and its answer.
async fn one(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &impl Fn(&str) -> Option<Answer>,
) -> hyper::Result<()> {
    let service = service_fn(async |request| Ok::<_, Infallible>(respond(&request, answer)));
    http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn respond<B>(request: &Request<B>, answer: &impl Fn(&str) -> Option<Answer>) -> Response<String> {
    let (status, text) = if request.method() == Method::GET {
        match answer(request.uri().path()) {
            Some((true, text)) => (StatusCode::OK, text),
            Some((false, text)) => (StatusCode::SERVICE_UNAVAILABLE, text),
            None => (StatusCode::NOT_FOUND, "no such path\n".to_owned()),
        }
    } else {
        let text = "only GET is answered\n".to_owned();
        (StatusCode::METHOD_NOT_ALLOWED, text)
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_path_is_answered_and_nothing_else_is() {
        let config = MetricsConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
        };
        let port = Port::open(&config).await.unwrap();
        let url = port.url();
        let address = url.strip_prefix("http://").unwrap();
        let address = address.strip_suffix("/metrics").unwrap().to_owned();
        let serving = tokio::spawn(port.serve(|path| match path {
            "/metrics" => Some((true, "a 1\n".to_owned())),
            "/readyz" => Some((false, "no leader\n".to_owned())),
            _ => None,
        }));
        // As many as there is room for, and silent: each is closed in time, and then others are heard.
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(&address).await.unwrap());
        }
        let told = ask(&address, "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
        assert!(told.ends_with("\r\n\r\na 1\n"), "{told}");
        let unready = ask(&address, "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(unready.starts_with("HTTP/1.1 503 "), "{unready}");
        let none = ask(&address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(none.starts_with("HTTP/1.1 404 "), "{none}");
        let other = ask(&address, "POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 405 "), "{other}");
        serving.abort();
    }

    fn pem(what: &str, der: &[u8]) -> String {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
    }

    #[tokio::test]
    async fn with_a_certificate_it_is_asked_by_tls() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let certificate = pem("CERTIFICATE", made.cert.der());
        std::fs::write(path("cert"), certificate).unwrap();
        let key = pem("PRIVATE KEY", made.signing_key.serialized_der());
        std::fs::write(path("key"), key).unwrap();
        let config = MetricsConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: Some((path("cert"), path("key"))),
        };
        let port = Port::open(&config).await.unwrap();
        let url = port.url();
        let address = url.strip_prefix("https://").unwrap();
        let address = address.strip_suffix("/metrics").unwrap().to_owned();
        tokio::spawn(port.serve(|_| Some((true, "a 1\n".to_owned()))));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let stream = TcpStream::connect(&address).await.unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        assert!(told.ends_with("\r\n\r\na 1\n"), "{told}");
    }

    #[tokio::test]
    async fn what_others_can_reach_needs_a_certificate() {
        let listen = ([0, 0, 0, 0], 0).into();
        let refused = Port::open(&MetricsConfig { listen, tls: None }).await;
        assert!(matches!(refused, Err(Error::PlainText(_))));
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("cert.pem");
        let tls = Some((missing.clone(), missing.clone()));
        let refused = Port::open(&MetricsConfig { listen, tls }).await;
        let unreadable = certificate::Error::Unreadable {
            path: missing,
            source: std::io::ErrorKind::NotFound.into(),
        };
        let refused = refused.err().map(|error| error.to_string());
        assert_eq!(refused, Some(unreadable.to_string()));
    }
}
