//! Where nodes listen and how others reach them: directly, through proxies of ours, or in network namespaces.

use std::net::TcpListener;
use std::sync::Arc;

use stepcast_tests::random::Random;

use crate::namespaces::Namespaces;
use crate::proxy::{Link, Network, Party};

/// Ports are taken from here: below what the kernel gives to those who do not care, so that a node that is down keeps its
/// own.
const PORTS: std::ops::Range<u64> = 20_000..32_000;

/// Where nodes listen for callers in their namespaces.
const CLIENT_PORT: u16 = 7070;

/// Where they listen for each other.
const PEER_PORT: u16 = 7071;

/// The network of one cluster.
#[derive(Debug)]
pub(crate) enum Wires {
    /// Nothing in between.
    Direct,
    /// A proxy before every port.
    Proxied(Arc<Network>),
    /// Namespaces on a bridge.
    Spaces(Namespaces),
}

/// Where one node is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// What it listens on for callers and workers.
    pub(crate) listen: String,
    /// What it listens on for other nodes.
    pub(crate) peer_listen: String,
    /// How callers and workers reach it.
    pub(crate) client_address: String,
    /// How other nodes reach it.
    pub(crate) peer_address: String,
    /// The namespace that it runs in.
    pub(crate) namespace: Option<String>,
}

impl Wires {
    /// Makes room for one more node.
    pub(crate) async fn place(&mut self, node: usize, random: &mut Random) -> Place {
        match self {
            Self::Direct => {
                let (client, peer) = (free_port(random), free_port(random));
                let (client, peer) = (local(client), local(peer));
                Place {
                    client_address: format!("http://{client}"),
                    peer_address: peer.clone(),
                    listen: client,
                    peer_listen: peer,
                    namespace: None,
                }
            }
            Self::Proxied(network) => {
                let (client, peer) = (free_port(random), free_port(random));
                let party = Party::Node(node);
                let before_client = network.before(party, client).await;
                Place {
                    listen: local(client),
                    peer_listen: local(peer),
                    client_address: format!("http://{before_client}"),
                    peer_address: network.before(party, peer).await.to_string(),
                    namespace: None,
                }
            }
            Self::Spaces(spaces) => {
                spaces.add(node);
                let host = spaces.address(node);
                let (client, peer) = (
                    format!("{host}:{CLIENT_PORT}"),
                    format!("{host}:{PEER_PORT}"),
                );
                Place {
                    client_address: format!("http://{client}"),
                    peer_address: peer.clone(),
                    listen: client,
                    peer_listen: peer,
                    namespace: Some(spaces.name(node)),
                }
            }
        }
    }

    /// Whether nodes can be reached from other hosts, so that they ask for a token.
    pub(crate) fn needs_access_token(&self) -> bool {
        matches!(self, Self::Spaces(_))
    }

    /// Says which process somebody is from now on.
    pub(crate) fn is_process(&self, party: Party, pid: u32) {
        if let Self::Proxied(network) = self {
            network.is_process(party, pid);
        }
    }

    /// Nothing comes from one node to another.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        match self {
            Self::Direct => {}
            Self::Proxied(network) => network.set(Party::Node(from), Party::Node(to), Link::cut()),
            Self::Spaces(spaces) => spaces.cut(from, to),
        }
    }

    /// A node is cut off from these, in both directions. In namespaces from everybody.
    pub(crate) fn isolate(&self, node: usize, from: &[Party]) {
        match self {
            Self::Direct => {}
            Self::Proxied(_) => self.change_all(node, from, Link::cut()),
            Self::Spaces(spaces) => spaces.isolate(node),
        }
    }

    /// Both directions between a node and these become so. Only proxies can.
    pub(crate) fn change_all(&self, node: usize, with: &[Party], link: Link) {
        let Self::Proxied(network) = self else {
            return;
        };
        for other in with {
            network.set(Party::Node(node), *other, link);
            network.set(*other, Party::Node(node), link);
        }
    }

    /// Every connection between a node and these is reset. Only proxies can.
    pub(crate) fn reset(&self, node: usize, with: &[Party]) {
        if let Self::Proxied(network) = self {
            for other in with {
                network.reset(Party::Node(node), *other);
            }
        }
    }

    /// Everything is as it was.
    pub(crate) fn heal(&self) {
        match self {
            Self::Direct => {}
            Self::Proxied(network) => network.heal(),
            Self::Spaces(spaces) => spaces.heal(),
        }
    }
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn free_port(random: &mut Random) -> u16 {
    // Not from the seed alone: two tests at once with one seed would want the same ports.
    let shift = u64::from(std::process::id());
    loop {
        let port = PORTS.start + (random.within(PORTS) + shift) % (PORTS.end - PORTS.start);
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
