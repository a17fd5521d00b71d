//! Files that are replaced one after the other, half written and taken away, and what a port shows meanwhile.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertifiedKey as Made, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

use super::*;

fn made() -> Made<KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
}

fn certificate_of(made: &Made<KeyPair>) -> String {
    pem("CERTIFICATE", made.cert.der())
}

fn key_of(made: &Made<KeyPair>) -> String {
    pem("PRIVATE KEY", made.signing_key.serialized_der())
}

fn put(files: &Files, made: &Made<KeyPair>) {
    fs::write(&files.certificate, certificate_of(made)).unwrap();
    fs::write(&files.key, key_of(made)).unwrap();
}

/// A folder, the files in it, and what is shown of the first pair.
fn shown() -> (tempfile::TempDir, Files, Made<KeyPair>, Arc<Shown>) {
    let dir = tempfile::tempdir().unwrap();
    let files = Files {
        certificate: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    };
    let first = made();
    put(&files, &first);
    let shown = Shown::read(files.clone()).unwrap();
    (dir, files, first, shown)
}

/// What a caller sees of a port that was opened once.
fn seen(port: &Arc<ServerConfig>, trusted: &Made<KeyPair>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(port)).unwrap();
    while client.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}

#[test]
fn an_open_port_shows_the_pair_that_its_files_have_become() {
    let (_dir, files, first, shown) = shown();
    let port = shown.greeting(&[]).unwrap();
    shown.look();
    assert!(seen(&port, &first));
    let second = made();
    put(&files, &second);
    shown.look();
    assert!(seen(&port, &first), "it may be half written");
    shown.look();
    assert!(seen(&port, &second) && !seen(&port, &first));
    assert_eq!(shown.pem(), fs::read(&files.certificate).unwrap());
}

#[test]
fn what_is_no_pair_leaves_the_one_before_until_it_is_one() {
    let (_dir, files, first, shown) = shown();
    let port = shown.greeting(&[]).unwrap();
    let looks = || {
        for _ in 0..3 {
            shown.look();
        }
    };
    let second = made();
    // The certificate without its key.
    fs::write(&files.certificate, certificate_of(&second)).unwrap();
    looks();
    assert!(seen(&port, &first));
    // A part of it, nothing, too much, and no file at all.
    let whole = certificate_of(&second);
    for content in [&whole[..whole.len() / 2], "", &"-".repeat(2 << 20)] {
        put(&files, &second);
        fs::write(&files.certificate, content).unwrap();
        looks();
        assert!(seen(&port, &first), "{} bytes", content.len());
    }
    fs::remove_file(&files.key).unwrap();
    looks();
    assert!(seen(&port, &first));
    put(&files, &second);
    looks();
    assert!(seen(&port, &second));
}

#[test]
fn a_pair_that_cannot_be_shown_at_a_start_is_an_error() {
    let (_dir, files, _, _) = shown();
    fs::write(&files.key, key_of(&made())).unwrap();
    let refused = Shown::read(files.clone());
    assert!(matches!(refused, Err(Error::Unusable(_))));
    fs::remove_file(&files.key).unwrap();
    let refused = Shown::read(files.clone()).unwrap_err();
    let Error::Unreadable { path, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!(path, files.key);
}
