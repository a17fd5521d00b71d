//! Who may speak as which node: the members of the log's last change, and who was met at joining.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use rustls::pki_types::CertificateDer;

use super::shared::LINKS_MAX;
use super::tls;
use crate::members::{Member, Members};

/// Why a caller is not heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stranger {
    #[error("nodes are known by their certificates, and this call came without one")]
    NoCertificate,
    #[error("the caller belongs to cluster {theirs:016x}, this node to cluster {ours:016x}")]
    OtherCluster { theirs: u64, ours: u64 },
    #[error("the call was meant for node {meant}, but this is node {me}")]
    OtherNode { meant: u64, me: u64 },
    #[error("the certificate is not node {node}'s")]
    OtherName { node: u64 },
    #[error(
        "node {node} was removed from the cluster: empty its data directory and let it join under a new id"
    )]
    Removed { node: u64 },
}

/// What a node knows of who its peers are.
#[derive(Debug)]
pub(super) struct Roster {
    me: u64,
    cluster_id: u64,
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    members: Members,
    /// From before the log said anything.
    met: BTreeMap<u64, Member>,
}

impl Roster {
    pub(super) fn new(me: u64, cluster_id: u64, met: Vec<Member>) -> Self {
        Self {
            me,
            cluster_id,
            inner: RwLock::new(Inner {
                members: Members::default(),
                met: met.into_iter().map(|member| (member.id, member)).collect(),
            }),
        }
    }

    /// The log's word from now on.
    pub(super) fn update(&self, members: &Members) {
        self.inner.write().members = members.clone();
    }

    /// Whether the node belongs to the cluster, as far as this node can tell: an id that was given after all that this
    /// node has heard of is a newer member's, as its certificate says, if it knows what members know.
    pub(super) fn belongs(&self, node: u64) -> bool {
        let inner = self.inner.read();
        !inner.members.removed(node)
    }

    /// Everybody else of whom something is known, with where they were said to be.
    pub(super) fn others(&self) -> BTreeMap<u64, String> {
        let inner = self.inner.read();
        let mut others: BTreeMap<u64, String> = BTreeMap::new();
        for member in inner.met.values().chain(inner.members.nodes.values()) {
            let belongs = inner.members.contains(member.id) || member.id > inner.members.last_id;
            if member.id != self.me && belongs {
                others.insert(member.id, member.peer_address.clone());
            }
        }
        others
    }

    /// Whether this certificate, which TLS has verified, is that of this node, still a member.
    pub(super) fn is(&self, node: u64, certificate: &CertificateDer<'_>) -> Result<(), Stranger> {
        if !tls::is_of(certificate, node, self.cluster_id) {
            return Err(Stranger::OtherName { node });
        }
        if !self.belongs(node) {
            return Err(Stranger::Removed { node });
        }
        let inner = self.inner.read();
        let member = inner.members.node(node).or_else(|| inner.met.get(&node));
        let expected = member.map(|member| member.key).unwrap_or_default();
        // Newer than what this node knows, or never told: the certificate speaks for it, and what it knows.
        if expected == [0; 32] || tls::key_of(certificate).ok() == Some(expected) {
            Ok(())
        } else {
            Err(Stranger::OtherName { node })
        }
    }

    /// Whether this certificate, which TLS has verified, is a member's whose key is known here. Of nobody else it says more
    /// than that a member has made it once.
    pub(super) fn names(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(key) = tls::key_of(certificate) else {
            return false;
        };
        let id = {
            let inner = self.inner.read();
            let mut known = inner.members.nodes.values().chain(inner.met.values());
            known.find(|of| of.key == key).map(|of| of.id)
        };
        id.is_some_and(|id| self.is(id, certificate).is_ok())
    }

    /// Whether the key of this node is known here: only its own certificate speaks for it.
    pub(super) fn knows(&self, node: u64) -> bool {
        let inner = self.inner.read();
        let member = inner.members.node(node).or_else(|| inner.met.get(&node));
        member.is_some_and(|member| member.key != [0; 32])
    }

    /// Whose certificate this is, which TLS has verified: that of a member, or of one of the next ids, which this node may
    /// not have heard of yet. Never this node.
    pub(super) fn who(&self, certificate: &CertificateDer<'_>) -> Option<u64> {
        let known = self.others();
        let last = self.inner.read().members.last_id;
        let last = known.keys().next_back().map_or(last, |id| last.max(*id));
        let newer = (1..=LINKS_MAX as u64).map(|further| last.saturating_add(further));
        let mut ids = known.into_keys().chain(newer);
        ids.find(|id| *id != self.me && self.is(*id, certificate).is_ok())
    }

    /// Whether a caller is who it says, and means this node.
    pub(super) fn admit(
        &self,
        cluster_id: u64,
        from: u64,
        to: u64,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Result<(), Stranger> {
        let certificate = certificate.ok_or(Stranger::NoCertificate)?;
        if cluster_id != self.cluster_id {
            return Err(Stranger::OtherCluster {
                theirs: cluster_id,
                ours: self.cluster_id,
            });
        }
        if to != self.me {
            return Err(Stranger::OtherNode {
                meant: to,
                me: self.me,
            });
        }
        self.is(from, certificate)
    }
}
