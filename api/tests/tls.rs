//! The port with a certificate of the operator's own: who trusts it is served, and nobody else learns anything.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use stepcast_api::{ApiConfig, Probes};
use stepcast_cluster::Tasks;
use stepcast_proto::certificate::{Files, Shown};
use stepcast_proto::v1::ListJobsRequest;
use tonic::transport::Endpoint;

use crate::support::{Server, endpoint};

/// A certificate for this host that vouches for itself, and its key, as files.
fn certificate(dir: &Path, name: &str) -> Files {
    let made = rcgen::generate_simple_self_signed([String::from("localhost")]).unwrap();
    let files = Files {
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    };
    let key = made.signing_key.serialized_der();
    std::fs::write(&files.certificate, pem("CERTIFICATE", made.cert.der())).unwrap();
    std::fs::write(&files.key, pem("PRIVATE KEY", key)).unwrap();
    files
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64);
    let lines: Vec<&str> = lines.map(|l| std::str::from_utf8(l).unwrap()).collect();
    let body = lines.join("\n");
    format!("-----BEGIN {what}-----\n{body}\n-----END {what}-----\n")
}

#[tokio::test]
async fn who_trusts_the_certificate_is_served_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let api = |name| ApiConfig {
        tls: Some(Shown::read(certificate(dir.path(), name)).unwrap()),
        ..ApiConfig::default()
    };
    let server = Server::with(api("ours")).await;
    let jobs = server.jobs().list_jobs(ListJobsRequest::default()).await;
    assert!(jobs.unwrap().into_inner().jobs.is_empty());
    // Somebody who trusts another certificate of the same name, and somebody who speaks no TLS.
    let other = endpoint(&api("other"), server.port).connect().await;
    assert!(format!("{:?}", other.unwrap_err()).contains("InvalidCertificate"));
    let plain = format!("http://127.0.0.1:{}", server.port);
    let plain = Endpoint::from_shared(plain).unwrap().connect().await;
    let answered = match plain {
        Ok(channel) => {
            let mut jobs = stepcast_proto::v1::jobs_service_client::JobsServiceClient::new(channel);
            jobs.list_jobs(ListJobsRequest::default()).await.is_ok()
        }
        Err(_) => false,
    };
    assert!(!answered);
    server.stop().await;
}

#[tokio::test]
async fn a_running_server_shows_the_certificate_that_its_files_have_become() {
    let dir = tempfile::tempdir().unwrap();
    let shown = Shown::read(certificate(dir.path(), "ours")).unwrap();
    let api = || ApiConfig {
        tls: Some(Arc::clone(&shown)),
        ..ApiConfig::default()
    };
    let server = Server::with(api()).await;
    // Who trusts what is in the files is served, and who trusts what was in them is not any more.
    let before = endpoint(&api(), server.port);
    certificate(dir.path(), "ours");
    let after = endpoint(&api(), server.port);
    assert!(before.connect().await.is_ok() && after.connect().await.is_err());
    shown.look();
    shown.look();
    assert!(before.connect().await.is_err() && after.connect().await.is_ok());
    // A key without its certificate changes nothing.
    let other = certificate(dir.path(), "other");
    std::fs::copy(other.key, &shown.files().key).unwrap();
    shown.look();
    shown.look();
    assert!(after.connect().await.is_ok());
    // Who was served before is served on.
    let jobs = server.jobs().list_jobs(ListJobsRequest::default()).await;
    assert!(jobs.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn metrics_are_answered_by_tls_too() {
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    let dir = tempfile::tempdir().unwrap();
    let own = stepcast_api::own_certificate(dir.path(), &["localhost".to_owned()]).unwrap();
    let shown = Shown::read(own.files).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::default();
    let _probes = Probes::start(listener, Some(&shown), &tasks).unwrap();

    let trusted = CertificateDer::from_pem_file(&shown.files().certificate).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let ask = b"GET /livez HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("alive\n"),
        "{answer}"
    );

    // Who speaks no TLS gets nothing that could be an answer.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(ask).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(
        !String::from_utf8_lossy(&answer).contains("HTTP"),
        "{answer:?}"
    );
}
