//! Endpoints of one cluster, what they were told, and a proxy that can stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use raft::eraftpb::{Entry, Message, MessageType};
use stepcast_scheduler::model::Generation;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::super::authority::{Authority, new_key};
use super::super::{
    Admission, Admitted, Applicant, Credentials, NotAdmitted, Peers, PeersConfig, SnapshotFiles,
};
use super::snapshot::Folder;
use crate::consensus::{Delivery, Inbound, Standing, Transport};
use crate::members::{Member, Members};

pub(super) const CLUSTER: u64 = 0xc1;

/// Everything here takes milliseconds; a busy machine may take its time.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// What a node was told by its peers.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) messages: Vec<Message>,
    pub(super) snapshots: Vec<Message>,
    pub(super) unreachable: Vec<u64>,
    pub(super) hung_up: Vec<u64>,
    pub(super) reached: Vec<u64>,
    pub(super) sent: Vec<(u64, Delivery)>,
    pub(super) removed: bool,
}

pub(super) struct Ear {
    told: watch::Sender<Told>,
    /// Whether it has no use for snapshots.
    pub(super) ignores: AtomicBool,
    /// Whether it cannot bear the word that a peer is not reached.
    pub(super) fails: AtomicBool,
    /// Where it says that it stands.
    pub(super) standing: Mutex<Standing>,
}

impl Default for Ear {
    fn default() -> Self {
        Self {
            told: watch::Sender::default(),
            ignores: AtomicBool::default(),
            fails: AtomicBool::default(),
            standing: Mutex::new(Standing {
                committed: 1,
                has_room: true,
                time_ms: None,
                followed_ms: None,
            }),
        }
    }
}

impl Ear {
    /// Waits until this holds.
    pub(super) async fn hears(&self, holds: impl Fn(&Told) -> bool) -> Told {
        let mut told = self.told.subscribe();
        let found = timeout(SOON, told.wait_for(holds)).await;
        let found = found.map(|found| found.unwrap().clone());
        found.unwrap_or_else(|_| panic!("never: {:?}", self.told.borrow().sent))
    }

    pub(super) fn now(&self) -> Told {
        self.told.borrow().clone()
    }
}

impl Inbound for Ear {
    fn receive(&self, messages: Vec<Message>) {
        self.told.send_modify(|told| told.messages.extend(messages));
    }

    fn receive_snapshot(&self, message: Message) -> oneshot::Receiver<bool> {
        self.told.send_modify(|told| told.snapshots.push(message));
        let (answer, taken) = oneshot::channel();
        answer.send(!self.ignores.load(Ordering::Relaxed)).unwrap();
        taken
    }

    fn unreachable(&self, node: u64) {
        assert!(!self.fails.load(Ordering::Relaxed), "not node {node}");
        self.told.send_modify(|told| told.unreachable.push(node));
    }

    fn hung_up(&self, node: u64) {
        self.told.send_modify(|told| told.hung_up.push(node));
    }

    fn reached(&self, node: u64) {
        self.told.send_modify(|told| told.reached.push(node));
    }

    fn snapshot_sent(&self, node: u64, ended: Delivery) {
        self.told.send_modify(|told| told.sent.push((node, ended)));
    }

    fn standing(&self) -> Standing {
        *self.standing.lock()
    }

    fn removed(&self) {
        self.told.send_modify(|told| told.removed = true);
    }
}

/// Lets nodes in, or answers what it is told to.
#[derive(Default)]
pub(super) struct Desk {
    members: Mutex<Members>,
    pub(super) instead: Mutex<Option<NotAdmitted>>,
    /// What the node behind knows, and what it learns when it asks the others.
    pub(super) generations: Mutex<Vec<Generation>>,
    pub(super) newest: Mutex<Option<Generation>>,
}

impl Admission for Desk {
    fn generations(&self) -> Vec<Generation> {
        self.generations.lock().clone()
    }

    fn newest_generation(&self) -> BoxFuture<'_, Result<Option<Generation>, NotAdmitted>> {
        Box::pin(async {
            match self.instead.lock().clone() {
                Some(NotAdmitted::Later(why)) => Err(NotAdmitted::Later(why)),
                _ => Ok(*self.newest.lock()),
            }
        })
    }

    fn admit(&self, applicant: Applicant) -> BoxFuture<'_, Result<Admitted, NotAdmitted>> {
        Box::pin(async move {
            if let Some(instead) = self.instead.lock().clone() {
                return Err(instead);
            }
            let mut members = self.members.lock();
            let known = members
                .nodes
                .values()
                .find(|node| node.key == applicant.key);
            let node_id = known.map_or(members.last_id + 1, |known| known.id);
            members.last_id = members.last_id.max(node_id);
            members.learners.insert(node_id);
            members.nodes.insert(
                node_id,
                Member {
                    id: node_id,
                    peer_address: applicant.peer_address,
                    client_address: applicant.client_address,
                    key: applicant.key,
                },
            );
            Ok(Admitted {
                node_id,
                members: members.clone(),
            })
        })
    }
}

/// Credentials of this node by this authority.
pub(super) fn credentials(authority: &Authority, node: u64, cluster: u64) -> Credentials {
    let key = new_key().unwrap();
    let certificate = authority.certify(node, &key).unwrap();
    Credentials::joined(copy(authority, cluster), key, certificate)
}

pub(super) fn copy(authority: &Authority, cluster: u64) -> Authority {
    Authority::of(cluster, authority.certificate().to_vec(), authority.key()).unwrap()
}

/// A node without anything behind its peers but an ear.
pub(super) struct Endpoint {
    pub(super) peers: Arc<Peers>,
    pub(super) ear: Arc<Ear>,
    pub(super) desk: Arc<Desk>,
    pub(super) folder: Arc<Folder>,
    pub(super) address: SocketAddr,
}

impl Endpoint {
    pub(super) fn start(node: u64, credentials: Credentials) -> Self {
        Self::start_at(node, credentials, (Ipv4Addr::LOCALHOST, 0).into())
    }

    pub(super) fn start_at(node: u64, credentials: Credentials, at: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(at).unwrap();
        let address = listener.local_addr().unwrap();
        Self::start_on(node, credentials, listener, address, None, Vec::new())
    }

    /// One that looks for others at these addresses, and at its own, as when all are told the same ones.
    pub(super) fn seeking(node: u64, credentials: Credentials, at: &[SocketAddr]) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let places = [&[address], at].concat();
        let places = places.iter().map(SocketAddr::to_string).collect();
        Self::start_on(node, credentials, listener, address, None, places)
    }

    /// One with snapshots of its own.
    pub(super) fn with(
        node: u64,
        credentials: Credentials,
        snapshots: Arc<dyn SnapshotFiles>,
    ) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        Self::start_on(
            node,
            credentials,
            listener,
            address,
            Some(snapshots),
            Vec::new(),
        )
    }

    /// One that others reach through a proxy only.
    pub(super) async fn behind(
        node: u64,
        credentials: Credentials,
        bytes: u64,
        then: Then,
    ) -> (Self, Proxy) {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap(), bytes, then).await;
        let at = proxy.address;
        let endpoint = Self::start_on(node, credentials, listener, at, None, Vec::new());
        (endpoint, proxy)
    }

    fn start_on(
        node: u64,
        credentials: Credentials,
        listener: std::net::TcpListener,
        address: SocketAddr,
        snapshots: Option<Arc<dyn SnapshotFiles>>,
        seek_at: Vec<String>,
    ) -> Self {
        let folder = Arc::new(Folder::new());
        let peers = Peers::start(PeersConfig {
            node_id: node,
            cluster_id: CLUSTER,
            credentials,
            listener,
            peer_address: address.to_string(),
            client_address: format!("http://node-{node}"),
            seek_at,
            log_format: 10 + u32::try_from(node).unwrap(),
            version: format!("0.{node}"),
            known: Vec::new(),
            snapshots: snapshots.unwrap_or_else(|| Arc::clone(&folder) as _),
        })
        .unwrap();
        let (ear, desk) = (Arc::new(Ear::default()), Arc::new(Desk::default()));
        peers.attach(Arc::clone(&ear) as _, Arc::clone(&desk) as _);
        Self {
            peers,
            ear,
            desk,
            folder,
            address,
        }
    }

    /// Waits until this peer is seen like this.
    pub(super) async fn sees(&self, node: u64, like: impl Fn(&super::super::Seen) -> bool) {
        let begun = Instant::now();
        loop {
            let seen = self.peers.seen();
            if seen.iter().any(|seen| seen.id == node && like(seen)) {
                return;
            }
            assert!(begun.elapsed() < SOON, "never: {seen:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    pub(super) fn members(&self, members: &Members) {
        self.desk.members.lock().clone_from(members);
        self.peers.members(members);
    }
}

/// As many endpoints of one cluster as there are, from node 1 on, that know each other.
pub(super) fn cluster(nodes: u64) -> (Authority, Vec<Endpoint>) {
    let authority = Authority::found(CLUSTER).unwrap();
    let endpoints: Vec<Endpoint> = (1..=nodes)
        .map(|node| Endpoint::start(node, credentials(&authority, node, CLUSTER)))
        .collect();
    acquaint(&endpoints);
    (authority, endpoints)
}

/// Lets everybody know everybody.
pub(super) fn acquaint<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint> + Clone) {
    let members = members(endpoints.clone());
    endpoints.into_iter().for_each(|e| e.members(&members));
}

/// Everybody, as the log would have it.
pub(super) fn members<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Members {
    let nodes = endpoints.into_iter().map(|e| e.peers.me());
    let nodes: std::collections::BTreeMap<u64, Member> = nodes.map(|m| (m.id, m)).collect();
    Members {
        voters: nodes.keys().copied().collect(),
        last_id: nodes.keys().copied().max().unwrap_or(0),
        nodes,
        ..Members::default()
    }
}

/// An append with one entry of this size; `index` tells it from others.
pub(super) fn append(from: u64, to: u64, index: u64, bytes: usize) -> Message {
    let mut message = Message {
        from,
        to,
        index,
        term: 7,
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgAppend);
    let entry = Entry {
        index: index + 1,
        term: 7,
        data: vec![index as u8; bytes].into(),
        ..Entry::default()
    };
    message.set_entries(vec![entry].into());
    message
}

pub(super) fn indices(told: &Told) -> Vec<u64> {
    told.messages.iter().map(|message| message.index).collect()
}

/// Stands before an endpoint: passes on so many bytes to it, and then nothing more, with the connections open or cut.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    passed: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

/// What a proxy does when it has passed on what it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Hang,
    Cut,
}

impl Proxy {
    async fn start(to: SocketAddr, bytes: u64, then: Then) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            passed: Arc::default(),
            most: Arc::new(AtomicU64::new(bytes)),
        };
        let (passed, most) = (Arc::clone(&proxy.passed), Arc::clone(&proxy.most));
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let Ok(there) = TcpStream::connect(to).await else {
                    continue;
                };
                tokio::spawn(pass(
                    from,
                    there,
                    Arc::clone(&passed),
                    Arc::clone(&most),
                    then,
                ));
            }
        });
        proxy
    }

    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// From now on as many, counted from the beginning.
    pub(super) fn may_pass(&self, bytes: u64) {
        self.most.store(bytes, Ordering::Relaxed);
    }
}

async fn pass(
    from: TcpStream,
    to: TcpStream,
    passed: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
    then: Then,
) {
    let (mut from_read, mut from_write) = from.into_split();
    let (mut to_read, mut to_write) = to.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut to_read, &mut from_write).await;
    });
    let mut piece = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from_read.read(&mut piece).await {
        if passed.load(Ordering::Relaxed) >= most.load(Ordering::Relaxed) {
            match then {
                Then::Hang => std::future::pending().await,
                Then::Cut => break,
            }
        }
        if to_write.write_all(&piece[..n]).await.is_err() {
            break;
        }
        passed.fetch_add(n as u64, Ordering::Relaxed);
    }
    back.abort();
}
