//! What the listener and the links of a node share.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::ClientConfig;
use stepcast_proto::raft::v1::Hello;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::admission::Admission;
use super::broken_off::BrokenOff;
use super::credentials::Credentials;
use super::link::{self, Link};
use super::proof;
use super::receiving::Unkept;
use super::roster::Roster;
use super::snapshots::SnapshotFiles;
use crate::consensus::Inbound;
use crate::members::{Member, Members};
use crate::tasks::{Ended, Tasks};

/// Peers that are spoken to at most: a cluster has three to five nodes, and twice that while it is changed.
pub(super) const LINKS_MAX: usize = 32;

/// See [`super::Peers`].
pub(super) struct Shared {
    pub(super) me: Member,
    pub(super) cluster_id: u64,
    pub(super) log_format: u32,
    pub(super) version: String,
    pub(super) credentials: Credentials,
    /// For calls to members.
    pub(super) tls: Arc<ClientConfig>,
    pub(super) roster: Roster,
    pub(super) snapshots: Arc<dyn SnapshotFiles>,
    pub(super) unkept: Unkept,
    pub(super) broken_off: BrokenOff,
    pub(super) runtime: Handle,
    /// Whether it knows no more of snapshots than older versions do.
    #[cfg(test)]
    pub(super) is_older: std::sync::atomic::AtomicBool,
    /// Whether callers' connections are to end.
    pub(super) closing: watch::Sender<bool>,
    attached: RwLock<Option<Attached>>,
    links: Mutex<BTreeMap<u64, Running>>,
    /// What keeps each link: one that is not kept any more would leave a peer unheard of for good.
    kept: Tasks,
}

/// The node behind.
#[derive(Clone)]
pub(super) struct Attached {
    pub(super) inbound: Arc<dyn Inbound>,
    pub(super) admission: Arc<dyn Admission>,
}

struct Running {
    link: Arc<Link>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What [`Shared::new`] needs.
pub(super) struct Parts {
    pub(super) me: Member,
    pub(super) cluster_id: u64,
    pub(super) log_format: u32,
    pub(super) version: String,
    pub(super) credentials: Credentials,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) met: Vec<Member>,
    pub(super) snapshots: Arc<dyn SnapshotFiles>,
    pub(super) runtime: Handle,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            roster: Roster::new(parts.me.id, parts.cluster_id, parts.met),
            me: parts.me,
            cluster_id: parts.cluster_id,
            log_format: parts.log_format,
            version: parts.version,
            credentials: parts.credentials,
            tls: parts.tls,
            snapshots: parts.snapshots,
            unkept: Unkept::default(),
            broken_off: BrokenOff::default(),
            runtime: parts.runtime,
            #[cfg(test)]
            is_older: std::sync::atomic::AtomicBool::default(),
            closing: watch::Sender::new(false),
            attached: RwLock::new(None),
            links: Mutex::new(BTreeMap::new()),
            kept: Tasks::default(),
        }
    }

    pub(super) fn attach(&self, attached: Option<Attached>) {
        *self.attached.write() = attached;
    }

    pub(super) fn attached(&self) -> Option<Attached> {
        self.attached.read().clone()
    }

    /// Tells the node behind, if it has started.
    pub(super) fn tell(&self, tell: impl FnOnce(&dyn Inbound)) {
        if let Some(attached) = self.attached() {
            tell(&*attached.inbound);
        }
    }

    /// Who this node is, to that one.
    pub(super) fn hello(&self, to: u64) -> Hello {
        let attached = self.attached();
        let generations = attached.map_or_else(Vec::new, |node| node.admission.generations());
        let authority = self.credentials.authority();
        let proofs = proof::of(authority, &generations, (self.me.id, to), &self.me.key);
        Hello {
            cluster_id: self.cluster_id,
            from: self.me.id,
            to,
            log_format: self.log_format,
            version: self.version.clone(),
            peer_address: self.me.peer_address.clone(),
            client_address: self.me.client_address.clone(),
            proofs,
        }
    }

    pub(super) fn link(&self, node: u64) -> Option<Arc<Link>> {
        let links = self.links.lock();
        links.get(&node).map(|running| Arc::clone(&running.link))
    }

    /// Every link, by node.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        let links = self.links.lock();
        links.values().map(|r| Arc::clone(&r.link)).collect()
    }

    /// A link to this node, which is said to be there; begins one if there is none.
    pub(super) fn connect(self: &Arc<Self>, node: u64, address: &str) {
        if node == self.me.id || address.is_empty() {
            return;
        }
        let mut links = self.links.lock();
        if *self.closing.borrow() {
            return;
        }
        if let Some(running) = links.get(&node) {
            running.link.is_at(address);
        } else if links.len() < LINKS_MAX {
            let link = Arc::new(Link::new(node, address));
            let keeping = link::run(Arc::clone(self), Arc::clone(&link));
            let task = self
                .kept
                .spawn_on(&self.runtime, "link to another node", keeping);
            links.insert(node, Running { link, task });
        } else {
            tracing::warn!(node, "too many peers: this one is not spoken to");
        }
    }

    /// The members have changed: links to those who are gone end, and those who are new or have moved are reached.
    pub(super) fn update(self: &Arc<Self>, members: &Members) {
        let before = self.roster.others();
        self.roster.update(members);
        self.links
            .lock()
            .retain(|node, _| self.roster.belongs(*node));
        for (node, address) in self.roster.others() {
            // An address that is no news may be older than what the node itself has said since.
            if self.link(node).is_none() || before.get(&node) != Some(&address) {
                self.connect(node, &address);
            }
        }
    }

    /// Waits until a link is kept no more though it should be, and says why.
    pub(super) async fn ended(&self) -> Ended {
        self.kept.ended().await
    }

    /// Ends every link and every caller's connection, and forgets the node behind.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
        self.links.lock().clear();
        self.attach(None);
    }
}
