//! The cluster's authority: it signs the certificates by which nodes know each other.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate of the cluster cannot be made")]
pub struct Error(#[from] rcgen::Error);

/// Whoever holds it lets nodes in. Every node of the cluster does.
pub(crate) struct Authority {
    cluster_id: u64,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    /// The authority of a new cluster.
    pub(crate) fn found(cluster_id: u64) -> Result<Self, Error> {
        let key = new_key()?;
        let certificate = authority_parameters(cluster_id).self_signed(&key)?.into();
        Ok(Self {
            cluster_id,
            certificate,
            key,
        })
    }

    /// The authority of a cluster that exists, from its certificate (DER) and its key (PKCS#8, DER).
    pub(crate) fn of(cluster_id: u64, certificate: Vec<u8>, key: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            cluster_id,
            certificate: certificate.into(),
            key: read_key(key)?,
        })
    }

    /// Signs that this key is this node's. The same question has the same answer, byte for byte.
    pub(crate) fn certify(
        &self,
        node_id: u64,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, Error> {
        let issuer = Issuer::new(authority_parameters(self.cluster_id), &self.key);
        let signed = node_parameters(node_id, self.cluster_id)?.signed_by(key, &issuer)?;
        Ok(signed.into())
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// PKCS#8, DER. A secret.
    pub(crate) fn key(&self) -> &[u8] {
        self.key.serialized_der()
    }

    /// SHA-256 of the certificate: what a join token names it by.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate).into()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cluster_id", &format_args!("{:016x}", self.cluster_id))
            .finish_non_exhaustive()
    }
}

/// A node's public key, as it comes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo; nothing but Ed25519 is one here.
    pub(crate) fn from_info(info: &[u8]) -> Option<Self> {
        let key = info.strip_prefix(&ED25519_PREFIX)?;
        Some(Self(key.try_into().ok()?))
    }

    /// What [`Member::key`](crate::members::Member::key) holds.
    pub(crate) fn hash(&self) -> [u8; 32] {
        key_hash(&self.subject_public_key_info())
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// SHA-256 of a SubjectPublicKeyInfo.
pub(crate) fn key_hash(info: &[u8]) -> [u8; 32] {
    Sha256::digest(info).into()
}

/// The name in a node's certificate.
pub(crate) fn node_name(node_id: u64, cluster_id: u64) -> String {
    format!("n{node_id}.{cluster_id:016x}.stepcast")
}

pub(crate) fn new_key() -> Result<KeyPair, Error> {
    Ok(KeyPair::generate_for(&PKCS_ED25519)?)
}

pub(crate) fn read_key(pkcs8: &[u8]) -> Result<KeyPair, Error> {
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(
        &PrivatePkcs8KeyDer::from(pkcs8),
        &PKCS_ED25519,
    )?)
}

/// Fixed, so that a node rebuilds the issuer from the key without reading the certificate.
fn authority_parameters(cluster_id: u64) -> CertificateParams {
    let mut parameters = dated();
    let name = format!("Stepcast cluster {cluster_id:016x}");
    parameters
        .distinguished_name
        .push(DnType::CommonName, name.as_str());
    // Signs nodes, never another authority.
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn node_parameters(node_id: u64, cluster_id: u64) -> Result<CertificateParams, Error> {
    let mut parameters = dated();
    let name = node_name(node_id, cluster_id);
    parameters.subject_alt_names = vec![SanType::DnsName(name.as_str().try_into()?)];
    parameters
        .distinguished_name
        .push(DnType::CommonName, name.as_str());
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A node answers and calls.
    parameters.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

/// From well before any clock that is only a little wrong, and without an end (RFC 5280 §4.1.2.5): what ends a
/// certificate is that its node is removed, and a cluster must not stop on an anniversary.
fn dated() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(9999, 12, 31);
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_has_the_same_answer_from_every_node_s_copy() {
        let authority = Authority::found(7).unwrap();
        let copy = Authority::of(7, authority.certificate().to_vec(), authority.key()).unwrap();
        let key = new_key().unwrap();
        let signed = authority.certify(3, &key).unwrap();
        assert_eq!(copy.certify(3, &key).unwrap(), signed);
        assert_eq!(copy.fingerprint(), authority.fingerprint());
        assert_ne!(copy.certify(4, &key).unwrap(), signed);
    }

    #[test]
    fn a_public_key_travels_as_its_info_and_nothing_else_is_taken() {
        let key = new_key().unwrap();
        let info = key.subject_public_key_info();
        let read = PublicKey::from_info(&info).unwrap();
        assert_eq!(read.subject_public_key_info(), info);
        assert_eq!(read.hash(), key_hash(&info));
        assert_eq!(PublicKey::from_info(&info[..43]), None);
        assert_eq!(PublicKey::from_info(&[&info[..], &[0]].concat()), None);
        assert_eq!(PublicKey::from_info(&[]), None);
    }

    #[test]
    fn the_key_is_in_no_debug_output() {
        let authority = Authority::found(7).unwrap();
        assert_eq!(
            format!("{authority:?}"),
            "Authority { cluster_id: 0000000000000007, .. }"
        );
    }
}
