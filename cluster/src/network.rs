//! How a node reaches the others of its cluster.

use std::fmt;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use crate::config::Config;
use crate::consensus::{Alone, Transport};
use crate::error::StartError;
use crate::identity::Identity;
use crate::peers::{Credentials, Peers, PeersConfig};
use crate::snapshot::Snapshots;
use crate::tasks::Ended;

/// How a node reaches the others.
pub enum Network {
    /// Not at all: a cluster of one that nobody can join.
    Alone,
    /// Over a port of its own, by TLS with the cluster's own certificates.
    Port(PeerPort),
    /// In some other way, as tests do.
    Other(Arc<dyn Transport>),
}

/// A node's port for other nodes.
#[derive(Debug)]
pub struct PeerPort {
    /// Where it listens, already open.
    pub listener: TcpListener,
    /// `HOST:PORT` where other nodes reach it.
    pub peer_address: String,
    /// URL where people and workers reach this node.
    pub client_address: String,
    /// `HOST:PORT` where members may be, beside where they were last known to be. Who is there proves who it is as everywhere.
    pub seek_at: Vec<String>,
}

/// The way of a running node to the others.
pub(crate) struct Way {
    pub(crate) transport: Arc<dyn Transport>,
    /// The same, if it is a port of this node's own.
    pub(crate) peers: Option<Arc<Peers>>,
}

impl Network {
    /// Makes what a node proves itself with, if it is new: before it has a log, since it is never made again after that.
    pub(crate) fn prepare(&self, data_dir: &Path, identity: &Identity) -> Result<(), StartError> {
        if matches!(self, Self::Port(_)) {
            Credentials::open(data_dir, identity)?;
        }
        Ok(())
    }

    /// Opens the way of a node with these settings. Until [`Transport::attach`] nothing comes in.
    pub(crate) fn open(
        self,
        config: &Config,
        identity: &Identity,
        snapshots: &Snapshots,
    ) -> Result<Way, StartError> {
        let port = match self {
            Self::Alone => return Ok(Way::other(Arc::new(Alone))),
            Self::Other(transport) => return Ok(Way::other(transport)),
            Self::Port(port) => port,
        };
        let peers = Peers::start(PeersConfig {
            node_id: identity.node_id,
            cluster_id: identity.cluster_id,
            credentials: Credentials::open(&config.data_dir, identity)?,
            listener: port.listener,
            peer_address: port.peer_address,
            client_address: port.client_address,
            seek_at: port.seek_at,
            log_format: u32::from(config.log_format),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            known: identity.known(),
            snapshots: Arc::new(snapshots.clone()),
        })?;
        Ok(Way {
            transport: Arc::clone(&peers) as _,
            peers: Some(peers),
        })
    }
}

impl Way {
    pub(crate) fn other(transport: Arc<dyn Transport>) -> Self {
        Self {
            transport,
            peers: None,
        }
    }

    /// Waits until the port has ended by itself; for ever without one.
    pub(crate) async fn ended(&self) -> Ended {
        match &self.peers {
            Some(peers) => peers.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Closes the port and every connection.
    pub(crate) async fn close(&self) {
        if let Some(peers) = &self.peers {
            peers.shutdown().await;
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alone => "Alone",
            Self::Port(_) => "Port",
            Self::Other(_) => "Other",
        })
    }
}
