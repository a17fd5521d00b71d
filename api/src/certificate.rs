//! The certificate that a port shows: its operator's, or one that vouches for itself.

mod own;

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use self::own::{Own, own};
use crate::config::Tls;
use crate::server::Error;

/// What a connection may be: HTTP/2, as gRPC is, or HTTP/1.1.
pub(crate) const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How a port greets, with the certificate and the key in these files, that speaks these protocols.
pub(crate) fn server(tls: &Tls, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, Error> {
    let unreadable = |path: &Path, error: rustls::pki_types::pem::Error| Error::Certificate {
        path: path.to_owned(),
        source: match error {
            rustls::pki_types::pem::Error::Io(error) => error,
            other => std::io::Error::other(other),
        },
    };
    let chain = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(&tls.certificate, error))?;
    let key =
        PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| unreadable(&tls.key, error))?;
    // More than one library of primitives is linked, as the tables' object store brings its own.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}
