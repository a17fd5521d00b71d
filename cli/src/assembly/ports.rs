//! The ports of a node, and where others are told to reach them.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener as PeerListener};

use stepcast_cluster::PeerPort;
use tokio::net::TcpListener;

use super::certificate::is_encrypted;
use super::refused;
use crate::command::server::ServerConfig;
use crate::failure::Failure;

/// The open ports of a node.
pub(super) struct Ports {
    /// For people and workers.
    pub(super) client: TcpListener,
    /// What they give `--server` on this host.
    pub(super) address: String,
    /// For other nodes.
    pub(super) peers: PeerPort,
    /// For machines that scrape and probe.
    pub(super) metrics: Option<TcpListener>,
}

impl Ports {
    /// Opens all of them: they are what is most often taken.
    pub(super) async fn open(config: &ServerConfig) -> Result<Self, Failure> {
        let client = listen(config.listen, "--listen").await?;
        let listens = local(client.local_addr())?;
        let metrics = match config.metrics_listen {
            Some(address) => Some(listen(address, "--metrics-listen").await?),
            None => None,
        };
        let scheme = if is_encrypted(config, listens) {
            "https"
        } else {
            "http"
        };
        let address = format!("{scheme}://{listens}");
        let (listener, peers) = listen_to_peers(config, listens)?;
        Ok(Self {
            client,
            peers: PeerPort {
                listener,
                peer_address: config
                    .peer_address
                    .clone()
                    .unwrap_or_else(|| reachable(peers, peers.to_string())),
                client_address: config
                    .client_address
                    .clone()
                    .unwrap_or_else(|| reachable(listens, address.clone())),
                seek_at: config
                    .join
                    .as_ref()
                    .map_or_else(Vec::new, |join| join.servers.clone()),
            },
            address,
            metrics,
        })
    }
}

async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| taken(address, &error, flag))
}

fn taken(address: SocketAddr, error: &std::io::Error, flag: &str) -> Failure {
    let why = match error.kind() {
        ErrorKind::AddrInUse => "is another server running? ",
        ErrorKind::AddrNotAvailable => "this host has no such address; ",
        ErrorKind::PermissionDenied => "this user may not listen on a port below 1024; ",
        _ => "",
    };
    refused(&format!("{address} cannot be listened on"), error)
        .hint(format!("{why}choose another with {flag}"))
}

fn local(address: std::io::Result<SocketAddr>) -> Result<SocketAddr, Failure> {
    address.map_err(|error| refused("the port cannot be told", &error))
}

/// The port that was chosen. Otherwise the one after the clients', or any that is free where that one is taken: a node
/// alone needs none in particular, and the others hear of a new one.
fn listen_to_peers(
    config: &ServerConfig,
    clients: SocketAddr,
) -> Result<(PeerListener, SocketAddr), Failure> {
    let listener = match config.peer_listen {
        Some(address) => {
            PeerListener::bind(address).map_err(|error| taken(address, &error, "--peer-listen"))?
        }
        None => {
            let any = SocketAddr::new(clients.ip(), 0);
            let next = match config.listen.port() {
                0 => any,
                port => SocketAddr::new(clients.ip(), port.checked_add(1).unwrap_or(0)),
            };
            PeerListener::bind(next)
                .or_else(|error| {
                    tracing::warn!(%next, %error, "the usual port for other nodes is taken; any free one is used");
                    PeerListener::bind(any)
                })
                .map_err(|error| taken(next, &error, "--peer-listen"))?
        }
    };
    let address = local(listener.local_addr())?;
    Ok((listener, address))
}

/// An address that others can use, or nothing: no host is called 0.0.0.0.
fn reachable(listens: SocketAddr, address: String) -> String {
    if listens.ip().is_unspecified() {
        String::new()
    } else {
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_an_address_cannot_be_listened_on_is_said_as_it_is() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        for (kind, words) in [
            (ErrorKind::AddrInUse, "is another server running?"),
            (ErrorKind::AddrNotAvailable, "no such address"),
            (ErrorKind::PermissionDenied, "below 1024"),
            (ErrorKind::Other, "choose another with --listen"),
        ] {
            let hint = taken(address, &kind.into(), "--listen").hint;
            let hint = hint.expect("a hint");
            assert!(hint.contains(words), "{hint}");
            let other = kind != ErrorKind::AddrInUse;
            assert_eq!(!hint.contains("another server"), other, "{hint}");
        }
    }
}
