//! TLS between nodes: 1.3 only, both sides by certificates of the cluster's authority, but for who asks to join.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use sha2::{Digest, Sha256};

use super::authority::{key_hash, node_name};
use super::credentials::Credentials;
use super::token::JoinToken;

/// What is spoken inside.
const PROTOCOL: &[u8] = b"h2";

/// TLS cannot be set up with these keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library refuses the keys or certificates.
    #[error("the node's certificate cannot be used")]
    Tls(#[from] rustls::Error),
    /// The authority's certificate is none.
    #[error("the authority's certificate cannot be used")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// For the listener. A caller without a certificate is let through, as it may be a node that asks to join; one with a
/// certificate of another authority is not.
pub(super) fn server(credentials: &Credentials) -> Result<Arc<ServerConfig>, Error> {
    let roots = Arc::new(roots(credentials.authority().certificate())?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(credentials), key(credentials).into())?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Every connection shows its certificate again: a resumed one would not.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For calls to members: the name to ask for is [`node_name`].
pub(super) fn client(credentials: &Credentials) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(credentials.authority().certificate())?)
        .with_client_auth_cert(chain(credentials), key(credentials).into())?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For a node that asks to join: whoever has a certificate of the authority that the token names is trusted.
pub(super) fn joiner(token: &JoinToken) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(AnyNode {
        of: Trusted::Named(token.clone()),
        provider: provider(),
    });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For a look at who is somewhere: any node of the cluster's may be.
pub(super) fn seeker(credentials: &Credentials) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(AnyNode {
        of: Trusted::Known(credentials.authority().certificate().clone()),
        provider: provider(),
    });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain(credentials), key(credentials).into())?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// SHA-256 of the public key in a certificate that TLS has verified.
pub(super) fn key_of(certificate: &CertificateDer<'_>) -> Result<[u8; 32], rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(key_hash(&parsed.subject_public_key_info()))
}

/// Whether a certificate that TLS has verified is this node's, by the name in it.
pub(super) fn is_of(certificate: &CertificateDer<'_>, node_id: u64, cluster_id: u64) -> bool {
    let name = ServerName::try_from(node_name(node_id, cluster_id));
    match (ParsedCertificate::try_from(certificate), name) {
        (Ok(parsed), Ok(name)) => verify_server_name(&parsed, &name).is_ok(),
        _ => false,
    }
}

/// Whether a certificate is this authority's, as every other node will see it.
pub(super) fn is_signed_by(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'static>,
) -> Result<(), rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let algorithms = provider().signature_verification_algorithms.all;
    let roots = roots(authority)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], UnixTime::now(), algorithms)
}

/// Trusts whoever has a certificate of an authority, whatever the name in it.
#[derive(Debug)]
struct AnyNode {
    of: Trusted,
    provider: Arc<CryptoProvider>,
}

/// The authority that is trusted.
#[derive(Debug)]
enum Trusted {
    /// The one whose fingerprint the token has, which the server sends with its own certificate.
    Named(JoinToken),
    /// This one.
    Known(CertificateDer<'static>),
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = match &self.of {
            Trusted::Named(token) => {
                let mut others = others.iter();
                let named = others.find(|other| token.names(&Sha256::digest(other).into()));
                named
                    .ok_or(CertificateError::UnknownIssuer)?
                    .clone()
                    .into_owned()
            }
            Trusted::Known(authority) => authority.clone(),
        };
        let roots = roots(&authority)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Said by name: more than one library of primitives is linked, so rustls has no default of its own.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(roots)
}

/// The authority goes along for those who know only its fingerprint.
fn chain(credentials: &Credentials) -> Vec<CertificateDer<'static>> {
    vec![
        credentials.certificate().clone(),
        credentials.authority().certificate().clone(),
    ]
}

fn key(credentials: &Credentials) -> PrivatePkcs8KeyDer<'static> {
    credentials.key().to_vec().into()
}
