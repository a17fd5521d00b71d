//! The way between nodes: a port of their own, TLS by the cluster's own certificates, and bounded queues.
//!
//! [`Peers`] is a [`Transport`]. To each member it keeps one connection with one stream of messages; nothing ever waits
//! for it, what cannot be sent is dropped, and Raft sends it again. A peer is who its certificate says if the cluster's
//! authority has signed it and the log's members know its key. Who has no certificate can do one thing: ask to join, with
//! a [`JoinToken`].

mod admission;
mod authority;
mod broken_off;
mod credentials;
mod dial;
mod flow;
mod greetings;
mod join;
mod link;
mod listener;
mod outbox;
mod proof;
mod receiving;
mod refusal;
mod roster;
mod seats;
mod seeking;
mod sending;
mod service;
mod shared;
mod snapshots;
#[cfg(test)]
mod tests;
mod tls;
mod token;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use raft::eraftpb::{Message, MessageType};
use stepcast_proto::raft::v1::peer_service_server::PeerServiceServer;
use stepcast_scheduler::model::Generation;
use tokio::runtime::Handle;
use tonic::transport::Server;

pub use self::admission::{Admission, Admitted, Applicant, NotAdmitted};
pub(crate) use self::credentials::Credentials;
pub use self::credentials::Error as CredentialsError;
pub use self::join::{Error as JoinError, JoinConfig, Joined, join};
pub use self::link::Seen;
pub use self::snapshots::{Receiving, SnapshotFiles};
pub use self::token::{Error as TokenError, JoinToken};
use crate::consensus::{Inbound, Transport, Word};
use crate::members::{Member, Members};
use crate::proposer::MAX_COMMAND_BYTES;
use crate::tasks::{Ended, Tasks};

/// The largest frame: one that was nearly full, and a last message of one frame and one entry more.
const FRAME_BYTES_MAX: usize = 2 * outbox::FRAME_BYTES + MAX_COMMAND_BYTES + (64 << 10);

/// Streams of one connection at once.
const STREAMS_PER_CONNECTION: u32 = 16;

/// Bytes of one call's headers.
const HEADER_BYTES: u32 = 16 << 10;

/// An idle connection is asked whether it is still there this often, and given up without an answer in this time.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// Why the way between nodes cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener cannot be used.
    #[error("the port for other nodes cannot be used")]
    Listener(#[source] io::Error),
    /// The keys and certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Called outside of a tokio runtime.
    #[error("the way between nodes needs a tokio runtime")]
    Runtime,
}

/// What a node's peers are reached with.
pub(crate) struct PeersConfig {
    /// This node.
    pub(crate) node_id: u64,
    /// Its cluster.
    pub(crate) cluster_id: u64,
    /// What it proves itself with.
    pub(crate) credentials: Credentials,
    /// Where other nodes call.
    pub(crate) listener: std::net::TcpListener,
    /// `HOST:PORT` where other nodes reach it.
    pub(crate) peer_address: String,
    /// URL where people and workers reach it.
    pub(crate) client_address: String,
    /// `HOST:PORT` where members may be, beside where they were last known to be.
    pub(crate) seek_at: Vec<String>,
    /// The newest log format that it reads.
    pub(crate) log_format: u32,
    /// Its version, for people.
    pub(crate) version: String,
    /// Who was met at joining.
    pub(crate) known: Vec<Member>,
    /// Its snapshots.
    pub(crate) snapshots: Arc<dyn SnapshotFiles>,
}

/// A node's peers.
pub struct Peers {
    shared: Arc<shared::Shared>,
    /// What accepts callers and what serves them.
    tasks: Tasks,
}

impl Peers {
    /// Opens the port and begins to reach the peers that are known. Inside a tokio runtime. Until [`Self::attach`] calls
    /// are put off.
    pub(crate) fn start(config: PeersConfig) -> Result<Arc<Self>, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::Runtime)?;
        let server_tls = tls::server(&config.credentials)?;
        let client_tls = tls::client(&config.credentials)?;
        let seeker_tls = tls::seeker(&config.credentials)?;
        config
            .listener
            .set_nonblocking(true)
            .map_err(Error::Listener)?;
        let listener =
            tokio::net::TcpListener::from_std(config.listener).map_err(Error::Listener)?;
        let me = Member {
            id: config.node_id,
            peer_address: config.peer_address,
            client_address: config.client_address,
            key: config.credentials.key_hash(),
        };
        let shared = Arc::new(shared::Shared::new(shared::Parts {
            me,
            cluster_id: config.cluster_id,
            log_format: config.log_format,
            version: config.version,
            credentials: config.credentials,
            tls: client_tls,
            met: config.known,
            snapshots: config.snapshots,
            runtime: runtime.clone(),
        }));
        let service = PeerServiceServer::new(service::Service::new(Arc::clone(&shared)))
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        let (connections, accepting) =
            listener::connections(listener, server_tls, Arc::clone(&shared));
        let serving = Server::builder()
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .http2_max_header_list_size(HEADER_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .initial_stream_window_size(dial::WINDOW_BYTES)
            .initial_connection_window_size(dial::WINDOW_BYTES)
            .add_service(service)
            .serve_with_incoming(connections);
        let tasks = Tasks::default();
        tasks.spawn("port for other nodes", accepting);
        tasks.spawn("server of other nodes", async move {
            if let Err(error) = serving.await {
                tracing::error!(
                    error = dial::chain(&error),
                    "the port for other nodes is closed"
                );
            }
        });
        for (node, address) in shared.roster.others() {
            shared.connect(node, &address);
        }
        if !config.seek_at.is_empty() {
            let seeking = seeking::run(Arc::clone(&shared), seeker_tls, config.seek_at);
            tasks.spawn("search for other nodes", seeking);
        }
        Ok(Arc::new(Self { shared, tasks }))
    }

    /// From now on calls reach this node.
    pub(crate) fn attach(&self, inbound: Arc<dyn Inbound>, admission: Arc<dyn Admission>) {
        self.shared
            .attach(Some(shared::Attached { inbound, admission }));
    }

    /// This node, as the log should know it.
    pub(crate) fn me(&self) -> Member {
        self.shared.me.clone()
    }

    /// What is known of every peer, by id.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let links = self.shared.links();
        links.iter().map(|link| link.seen()).collect()
    }

    /// Whether this peer answers.
    pub(crate) fn is_reached(&self, node: u64) -> bool {
        self.shared.link(node).is_some_and(|link| link.is_reached())
    }

    /// Makes a token with which a node can join within this time, in this generation.
    pub(crate) fn mint_token(
        &self,
        generation: Option<&Generation>,
        valid_for: Duration,
    ) -> io::Result<JoinToken> {
        let authority = self.shared.credentials.authority();
        JoinToken::mint(authority, generation, SystemTime::now(), valid_for)
    }

    /// A key for one purpose: every node of the cluster has the same one, and nobody else who has never had a node's folder.
    pub(crate) fn key_for(&self, purpose: &[u8]) -> [u8; 32] {
        token::derived(self.shared.credentials.authority(), purpose)
    }

    /// Closes the port and every connection.
    pub(crate) async fn shutdown(&self) {
        self.shared.close();
        self.tasks.shutdown().await;
    }

    /// Waits until the port or a link to a peer has ended by itself, and says why.
    pub(crate) async fn ended(&self) -> Ended {
        tokio::select! {
            ended = self.tasks.ended() => ended,
            ended = self.shared.ended() => ended,
        }
    }
}

impl Transport for Peers {
    fn send(&self, messages: Vec<Message>) {
        let mut messages = messages.into_iter().peekable();
        while let Some(first) = messages.next() {
            if first.get_msg_type() == MessageType::MsgSnapshot {
                sending::begin(&self.shared, first);
                continue;
            }
            let to = first.to;
            let run = std::iter::once(first).chain(std::iter::from_fn(|| {
                messages.next_if(|next| {
                    next.to == to && next.get_msg_type() != MessageType::MsgSnapshot
                })
            }));
            let taken = match self.shared.link(to) {
                Some(link) => link.push(run),
                None => run.count() == 0,
            };
            if !taken {
                self.shared.tell(|inbound| inbound.unreachable(to));
            }
        }
    }

    fn members(&self, members: &Members) {
        self.shared.update(members);
    }

    fn attach(&self, inbound: Arc<dyn Inbound>, admission: Arc<dyn Admission>) {
        Self::attach(self, inbound, admission);
    }

    fn me(&self) -> Option<Member> {
        Some(Self::me(self))
    }

    fn log_format(&self, node: u64) -> Option<u32> {
        self.shared.link(node)?.seen().log_format
    }

    fn said(&self, node: u64) -> Option<Member> {
        self.shared.link(node)?.said()
    }

    fn standing(&self, node: u64) -> Word {
        let link = self.shared.link(node);
        link.map_or(Word::Awaited, |link| link.standing())
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers")
            .field("me", &self.shared.me)
            .finish_non_exhaustive()
    }
}
