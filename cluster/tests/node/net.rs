//! Several nodes in one process, each on its own disk, over a network that a test can cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use raft::eraftpb::{Message, MessageType};
use stepcast_cluster::consensus::log::Position;
use stepcast_cluster::consensus::{Delivery, Inbound, Transport, Word};
use stepcast_cluster::members::{Member, Members};
use stepcast_cluster::peers::{Admission, Admitted, Applicant, Joined, NotAdmitted};
use stepcast_cluster::snapshot::{Outgoing, Snapshots};
use stepcast_cluster::{Config, Handle, Network, Node, Places};
use stepcast_scheduler::codec;

use crate::support::{World, config, until};

/// What connects the nodes.
#[derive(Default)]
pub(crate) struct Net {
    ports: Mutex<BTreeMap<u64, Port>>,
    /// Who does not reach whom.
    cut: Mutex<BTreeSet<(u64, u64)>>,
    /// Snapshots that have gone over, by receiver.
    pub(crate) snapshots: Mutex<Vec<u64>>,
    /// Whether snapshots are on their way for as long as this is so.
    held: Mutex<bool>,
    released: Condvar,
}

#[derive(Clone)]
struct Port {
    inbound: Arc<dyn Inbound>,
    admission: Arc<dyn Admission>,
    files: Snapshots,
    members: Arc<Mutex<Members>>,
    /// One snapshot at a time comes in.
    receiving: Arc<Mutex<()>>,
}

/// One node's end.
struct Plug {
    net: Arc<Net>,
    me: Member,
    files: Snapshots,
    members: Arc<Mutex<Members>>,
}

impl Net {
    /// From now on nothing passes between this node and the others.
    pub(crate) fn isolate(&self, node: u64) {
        let mut cut = self.cut.lock();
        for other in 1..=9 {
            cut.insert((node, other));
            cut.insert((other, node));
        }
    }

    /// Everything passes again.
    pub(crate) fn heal(&self) {
        self.cut.lock().clear();
    }

    /// From now on snapshots stay on their way.
    pub(crate) fn hold_snapshots(&self) {
        *self.held.lock() = true;
    }

    /// Snapshots arrive again.
    pub(crate) fn release_snapshots(&self) {
        *self.held.lock() = false;
        self.released.notify_all();
    }

    fn port(&self, from: u64, to: u64) -> Option<Port> {
        if self.cut.lock().contains(&(from, to)) {
            return None;
        }
        self.ports.lock().get(&to).cloned()
    }

    fn unplug(&self, node: u64) {
        self.ports.lock().remove(&node);
    }
}

impl Plug {
    /// Carries the whole file, on a thread of its own as a real transport would.
    fn send_snapshot(&self, message: Message) {
        let (net, files, me) = (Arc::clone(&self.net), self.files.clone(), self.me.id);
        std::thread::spawn(move || {
            let to = message.to;
            {
                let mut held = net.held.lock();
                net.released.wait_while(&mut held, |held| *held);
            }
            let ended = carry(&net, &files, me, message);
            if ended == Delivery::Arrived {
                net.snapshots.lock().push(to);
            }
            if let Some(mine) = net.ports.lock().get(&me) {
                mine.inbound.snapshot_sent(to, ended);
            }
        });
    }
}

fn carry(net: &Net, files: &Snapshots, from: u64, message: Message) -> Delivery {
    let metadata = message.get_snapshot().get_metadata();
    let at = Position {
        index: metadata.index,
        term: metadata.term,
    };
    let Some(port) = net.port(from, message.to) else {
        return Delivery::Failed;
    };
    let Some(outgoing) = files.open_at(at).unwrap() else {
        return Delivery::Unusable(at);
    };
    if receive(&port, at, outgoing, message).is_none() {
        files.doubt(at);
        return Delivery::Failed;
    }
    Delivery::Arrived
}

fn receive(port: &Port, at: Position, mut outgoing: Outgoing, message: Message) -> Option<()> {
    let _alone = port.receiving.lock();
    let mut incoming = port.files.receive(at).unwrap();
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = outgoing.file.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        incoming.write(&piece[..read]).ok()?;
    }
    incoming.finish().ok()?;
    if port.inbound.receive_snapshot(message).blocking_recv() == Ok(false) {
        port.files.discard(at).unwrap();
    }
    Some(())
}

impl Transport for Plug {
    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            let to = message.to;
            let Some(port) = self.net.port(self.me.id, to) else {
                if let Some(mine) = self.net.ports.lock().get(&self.me.id) {
                    mine.inbound.unreachable(to);
                }
                continue;
            };
            if port.members.lock().removed(self.me.id) {
                if let Some(mine) = self.net.ports.lock().get(&self.me.id) {
                    mine.inbound.removed();
                }
            } else if message.get_msg_type() == MessageType::MsgSnapshot {
                self.send_snapshot(message);
            } else {
                port.inbound.receive(vec![message]);
            }
        }
    }

    fn members(&self, members: &Members) {
        self.members.lock().clone_from(members);
    }

    fn attach(&self, inbound: Arc<dyn Inbound>, admission: Arc<dyn Admission>) {
        let port = Port {
            inbound,
            admission,
            files: self.files.clone(),
            members: Arc::clone(&self.members),
            receiving: Arc::default(),
        };
        self.net.ports.lock().insert(self.me.id, port);
    }

    fn me(&self) -> Option<Member> {
        Some(self.me.clone())
    }

    fn log_format(&self, _: u64) -> Option<u32> {
        Some(u32::from(codec::VERSION))
    }

    fn standing(&self, node: u64) -> Word {
        let port = self.net.port(self.me.id, node);
        port.map_or(Word::Awaited, |port| Word::Said(port.inbound.standing()))
    }
}

/// Nodes on one network.
pub(crate) struct Cluster {
    pub(crate) net: Arc<Net>,
    pub(crate) world: Arc<World>,
    dir: tempfile::TempDir,
    tune: fn(&mut Config),
    nodes: BTreeMap<u64, Handle>,
}

impl Cluster {
    /// A cluster of so many, all of which vote.
    pub(crate) async fn of(nodes: u64) -> Self {
        Self::tuned(nodes, |_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn tuned(nodes: u64, tune: fn(&mut Config)) -> Self {
        let mut cluster = Self {
            net: Arc::default(),
            world: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            tune,
            nodes: BTreeMap::new(),
        };
        cluster.start(1);
        assert!(cluster.node(1).leading().await);
        for _ in 1..nodes {
            cluster.join().await;
        }
        cluster.voting((1..=nodes).collect()).await;
        cluster
    }

    pub(crate) fn node(&self, id: u64) -> &Handle {
        &self.nodes[&id]
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Handle> {
        self.nodes.values()
    }

    pub(crate) fn data(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    /// Starts a node whose directory is there, or the founder.
    pub(crate) fn start(&mut self, id: u64) {
        let mut config = Config {
            places: Some(places()),
            ..config(&self.data(id))
        };
        (self.tune)(&mut config);
        let plug = Plug {
            net: Arc::clone(&self.net),
            me: member(id),
            files: Snapshots::open(&self.data(id).join("snapshots")).unwrap(),
            members: Arc::default(),
        };
        let network = Network::Other(Arc::new(plug));
        let node = Node::start_in(config, self.world.ports(), network).unwrap();
        self.nodes.insert(id, node);
    }

    /// Lets one more node in and starts it.
    pub(crate) async fn join(&mut self) -> u64 {
        let admitted = loop {
            // The id is not known yet, but the test's addresses and keys are made of it.
            let next = self.leader().await.members().last_id + 1;
            let leader = self.leader().await.status().node_id;
            let admission = self.admission(leader);
            match admission.admit(applicant(next)).await {
                Ok(admitted) => break admitted,
                Err(NotAdmitted::NotLeader { .. } | NotAdmitted::Later(_)) => {}
                Err(refused) => panic!("{refused}"),
            }
        };
        let id = admitted.node_id;
        let cluster_id = self.leader().await.status().cluster_id;
        joined(admitted, cluster_id).write(&self.data(id)).unwrap();
        self.start(id);
        id
    }

    /// Who leads, once somebody does whom the majority follows.
    pub(crate) async fn leader(&self) -> &Handle {
        let mut found = None;
        until("a leader", || {
            let leads = self.nodes.values().filter(|node| node.status().leading);
            // An isolated one may still think that it leads, in an older term.
            found = leads.max_by_key(|node| node.status().term);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Where newcomers ask a node.
    pub(crate) fn admission(&self, id: u64) -> Arc<dyn Admission> {
        Arc::clone(&self.net.ports.lock()[&id].admission)
    }

    /// Waits until exactly these vote, as all of them know.
    pub(crate) async fn voting(&self, voters: Vec<u64>) {
        until("the voters", || {
            voters.iter().all(|id| {
                self.nodes.get(id).is_some_and(|node| {
                    let members = node.members();
                    members.outgoing.is_empty() && members.voters.iter().eq(&voters)
                })
            })
        })
        .await;
    }

    /// Waits until all of these have applied the same, and gives its place.
    pub(crate) async fn level(&self) -> u64 {
        let mut at = 0;
        until("all at the same entry", || {
            let applied: Vec<u64> = self.nodes().map(|n| n.status().applied_index).collect();
            at = applied[0];
            let last = self.nodes().map(|n| n.status().last_index).max();
            applied.iter().all(|index| *index == at) && last == Some(at)
        })
        .await;
        at
    }

    /// Stops a node in good order.
    pub(crate) async fn stop(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        node.shutdown().await;
        self.net.unplug(id);
    }

    /// Cuts a node off and stops it, so that it can hand nothing over and say nothing more.
    pub(crate) async fn kill(&mut self, id: u64) {
        self.net.isolate(id);
        self.stop(id).await;
        self.net.heal();
    }

    pub(crate) async fn shutdown(mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            self.kill(id).await;
        }
    }
}

fn places() -> Places {
    Places {
        store: "s3://tables".to_owned(),
        staging: "s3://files".to_owned(),
    }
}

fn member(id: u64) -> Member {
    Member {
        id,
        peer_address: format!("host-{id}:7071"),
        client_address: format!("https://host-{id}:7070"),
        key: [id as u8; 32],
    }
}

/// Asks as the node with this id will be.
pub(crate) fn applicant(id: u64) -> Applicant {
    let Member {
        peer_address,
        client_address,
        key,
        ..
    } = member(id);
    Applicant {
        key,
        peer_address,
        client_address,
        log_format: u32::from(codec::VERSION),
        store: places().store,
        staging: places().staging,
    }
}

fn joined(admitted: Admitted, cluster_id: u64) -> Joined {
    let Admitted { node_id, members } = admitted;
    let others = members.nodes.into_values();
    Joined {
        node_id,
        cluster_id,
        others: others.filter(|member| member.id != node_id).collect(),
    }
}

/// Within this time a new leader is there, however slow the machine.
pub(crate) const FAILOVER: Duration = Duration::from_secs(20);
