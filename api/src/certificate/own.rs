//! A certificate that a server makes for itself when it was given none: whoever calls it must be given the file, or compare
//! the fingerprint.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use stepcast_proto::certificate::Files;

use crate::server::Error;

/// A server's own certificate.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its files.
    pub files: Files,
    /// SHA-256 of the certificate, as browsers and `openssl x509 -fingerprint -sha256` write it.
    pub fingerprint: String,
}

/// Columns of a PEM file (RFC 7468).
const COLUMNS: usize = 64;

/// The certificate in this folder; a new one for these names, if there is none or it is for others. Whoever trusts the file
/// goes on to, as long as the names stay the same.
///
/// # Errors
/// When the folder cannot be used, or no certificate can be made.
pub fn own(folder: &Path, names: &[String]) -> Result<Own, Error> {
    let files = Files {
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
    };
    let unusable = |source: io::Error| Error::Certificate {
        path: folder.to_owned(),
        source,
    };
    let listed = folder.join("names");
    let names_text = names
        .iter()
        .map(|name| format!("{name}\n"))
        .collect::<String>();
    let known = fs::read_to_string(&listed).is_ok_and(|known| known == names_text);
    if !known || !files.certificate.is_file() || !files.key.is_file() {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(folder).map_err(unusable)?;
        let (certificate, key) = made(names)?;
        // The names last: without them a half-written pair is made anew.
        write(&files.key, &pem("PRIVATE KEY", &key)).map_err(unusable)?;
        write(&files.certificate, &pem("CERTIFICATE", &certificate)).map_err(unusable)?;
        write(&listed, &names_text).map_err(unusable)?;
    }
    let shown = CertificateDer::from_pem_file(&files.certificate)
        .map_err(|error| unusable(io::Error::other(error)))?;
    Ok(Own {
        fingerprint: fingerprint(&shown),
        files,
    })
}

/// The certificate and its key (PKCS#8), in DER.
fn made(names: &[String]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    // Dates of certificates are no secret of when a server began, and clocks may be wrong by years.
    parameters.not_before = date_time_ymd(2024, 1, 1);
    parameters.not_after = date_time_ymd(2124, 1, 1);
    parameters
        .distinguished_name
        .push(DnType::CommonName, "Stepcast");
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in names {
        let name = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        };
        parameters.subject_alt_names.push(name);
    }
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.der().to_vec(), key.serialized_der().to_vec()))
}

fn fingerprint(certificate: &[u8]) -> String {
    let digits = Sha256::digest(certificate);
    let digits = digits.iter().map(|byte| format!("{byte:02X}"));
    digits.collect::<Vec<_>>().join(":")
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = String::new();
    for (at, letter) in text.char_indices() {
        if at > 0 && at % COLUMNS == 0 {
            lines.push('\n');
        }
        lines.push(letter);
    }
    format!("-----BEGIN {what}-----\n{lines}\n-----END {what}-----\n")
}

/// Writes a file that its user alone may read.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use stepcast_proto::certificate::Shown;

    use super::*;

    #[test]
    fn the_same_names_have_the_same_certificate_and_others_another() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tls");
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let first = own(&folder, &names(&["node1.example.org", "10.0.0.1", "::1"])).unwrap();
        assert_eq!(first.fingerprint.len(), 32 * 3 - 1);
        assert!(Shown::read(first.files.clone()).is_ok());
        let again = own(&folder, &names(&["node1.example.org", "10.0.0.1", "::1"])).unwrap();
        assert_eq!(again.fingerprint, first.fingerprint);
        let other = own(&folder, &names(&["node2.example.org"])).unwrap();
        assert_ne!(other.fingerprint, first.fingerprint);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&other.files.key), mode(&folder)), (0o600, 0o700));
        // A pair that is not whole is made anew.
        fs::remove_file(&other.files.key).unwrap();
        let whole = own(&folder, &names(&["node2.example.org"])).unwrap();
        assert!(Shown::read(whole.files).is_ok());
        assert!(own(&folder, &names(&["näme"])).is_err());
    }
}
