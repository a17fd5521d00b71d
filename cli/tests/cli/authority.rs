//! Whom a person's program trusts: the authorities of the host, and one that is named.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::{Ring, Said};

/// A certificate of this host that vouches for itself, as a file beside its key's.
fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = made.signing_key.serialized_der();
    for (name, what, der) in [
        ("host.pem", "CERTIFICATE", made.cert.der().as_ref()),
        ("host.key", "PRIVATE KEY", key),
    ] {
        let body = STANDARD.encode(der);
        let pem = format!("-----BEGIN {what}-----\n{body}\n-----END {what}-----\n");
        std::fs::write(folder.join(name), pem).unwrap();
    }
}

#[test]
fn the_host_s_authorities_are_trusted_and_the_one_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let tls = ["--tls-cert", "host.pem", "--tls-key", "host.key"];
    let ring = Ring::over(folder, &tls, &[]);
    assert!(ring.address.starts_with("https://"), "{}", ring.address);
    let named = ring.call(&["jobs", "--json", "--ca-file", "host.pem"]);
    assert_eq!(named.json()["jobs"], serde_json::json!([]));
    let mut call = ring.command(&["jobs", "--json"]);
    let system: Said = call
        .env("SSL_CERT_FILE", "host.pem")
        .output()
        .unwrap()
        .into();
    assert_eq!(system.json()["jobs"], serde_json::json!([]));
    let stranger = ring.call(&["jobs"]);
    // A host without any authorities has nobody to trust, which is another refusal.
    assert!([1, 4].contains(&stranger.code), "{}", stranger.stderr);
    assert!(stranger.stderr.contains("--ca-file"), "{}", stranger.stderr);
    let plain = ring.address.replace("https://", "http://");
    let plain = ring.call(&["jobs", "--server", &plain]);
    assert_eq!(plain.code, 4, "{}", plain.stderr);
    assert!(
        plain.stderr.contains("begins with https://"),
        "{}",
        plain.stderr
    );
}
