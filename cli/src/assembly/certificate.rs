//! The certificates of a node's ports: its operator's, or one that it makes for itself where others can reach it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use stepcast_api::{Error, own_certificate};
use stepcast_proto::certificate::{Files, Shown};

use super::refused;
use crate::command::server::ServerConfig;
use crate::failure::Failure;

/// Where the certificate lies that a node has made for itself, in its data folder.
const FOLDER: &str = "tls";

/// Where Linux says what this host is called.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// What the ports show.
pub(super) struct Certificates {
    /// People and workers.
    pub(super) client: Option<Arc<Shown>>,
    /// Machines that scrape and probe.
    pub(super) metrics: Option<Arc<Shown>>,
    /// What to print of a certificate that the node has made; empty otherwise.
    pub(super) greeting: String,
}

/// Whether a port is to speak TLS: with the operator's certificate always, and where others can reach it unless plain
/// text was asked for.
pub(super) fn is_encrypted(config: &ServerConfig, address: SocketAddr) -> bool {
    config.tls.is_some() || (!address.ip().is_loopback() && !config.allow_plain_text)
}

/// Refuses what the operator has given if no port can show it, before a folder is made or an address is told.
pub(super) fn check(config: &ServerConfig) -> Result<(), Failure> {
    given(config).map_or(Ok(()), |files| read(files).map(drop))
}

fn read(files: Files) -> Result<Arc<Shown>, Failure> {
    Shown::read(files).map_err(|error| {
        refused("the certificate cannot be used", &Error::from(error))
            .hint("--tls-cert and --tls-key name a certificate and its key, each in a PEM file")
    })
}

/// What the operator has given.
fn given(config: &ServerConfig) -> Option<Files> {
    let (certificate, key) = config.tls.clone()?;
    Some(Files { certificate, key })
}

impl Certificates {
    /// Those of this node. Its data folder is there by now.
    pub(super) fn of(config: &ServerConfig) -> Result<Self, Failure> {
        // Metrics on loopback are for this host's own programs, which know no certificate.
        let metrics = config
            .metrics_listen
            .filter(|address| !address.ip().is_loopback());
        let (client, metrics) = (
            is_encrypted(config, config.listen),
            metrics.is_some_and(|address| is_encrypted(config, address)),
        );
        let mut greeting = String::new();
        let files = match given(config) {
            Some(files) => Some(files),
            None if client || metrics => {
                let own = own_certificate(&config.data.join(FOLDER), &names(config));
                let own = own.map_err(|error| {
                    refused("no certificate can be made", &error)
                        .hint("give one with --tls-cert and --tls-key")
                })?;
                let (fingerprint, file) = (&own.fingerprint, own.files.certificate.display());
                // Writing into a string cannot fail.
                let _ = writeln!(
                    greeting,
                    "certificate of its own: SHA-256 {fingerprint}\nwho calls trusts it with --ca-file {file}"
                );
                Some(own.files)
            }
            None => None,
        };
        // Read once for both ports: what is wrong with it later is told once.
        let shown = files.map(read).transpose()?;
        Ok(Self {
            client: shown.clone().filter(|_| client),
            metrics: shown.filter(|_| metrics),
            greeting,
        })
    }

    /// What is shown by whichever port shows it.
    pub(super) fn shown(&self) -> Option<&Arc<Shown>> {
        self.client.as_ref().or(self.metrics.as_ref())
    }
}

/// What the node may be called by: the name that others are told, where it listens, and this host.
fn names(config: &ServerConfig) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        let fits = !name.is_empty()
            && name
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || ".-:".contains(letter));
        if fits && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    if let Some(url) = &config.client_address {
        add(host(url));
    }
    for address in [Some(config.listen), config.metrics_listen]
        .into_iter()
        .flatten()
    {
        if !address.ip().is_unspecified() {
            add(&address.ip().to_string());
        }
    }
    // A host without a name is called by its address alone.
    add(std::fs::read_to_string(HOST_NAME)
        .unwrap_or_default()
        .trim());
    ["localhost", "127.0.0.1", "::1"].into_iter().for_each(add);
    names
}

/// The host in a URL that was checked when it was read.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_stands_before_the_port() {
        for (url, name) in [
            ("https://node1.example.org:7070", "node1.example.org"),
            ("https://[::1]:7070", "::1"),
            ("http://10.0.0.1:1", "10.0.0.1"),
        ] {
            assert_eq!(host(url), name);
        }
    }
}
