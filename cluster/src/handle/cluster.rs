//! What an operator asks of a node about its cluster: who belongs to it, who leads it, who may join.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::Handle;
use crate::consensus::{Change, ChangeError, Refused};
use crate::leader::nodes;
use crate::members::{Member, Members};
use crate::peers::Seen;

/// How often a removal looks how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often a wait for a leader looks whether the one that is known is reached again.
const REACHED_EVERY: Duration = Duration::from_millis(100);

/// What keeps a removal from beginning and may be over in a moment is waited for: a leader that has only just come to lead
/// does not know yet how far the others are, nor has it written anything.
const BEGUN_WITHIN: Duration = Duration::from_secs(1);

/// A removal that takes longer goes on without anybody waiting for it: the leader's duties end it.
const REMOVED_WITHIN: Duration = Duration::from_secs(30);

impl Handle {
    /// Who belongs to the cluster, as of the newest entry that is applied here.
    pub fn members(&self) -> Members {
        self.0.replicated.members()
    }

    /// Where a node of the cluster is, as far as this one knows.
    pub fn member(&self, id: u64) -> Option<Member> {
        self.0
            .replicated
            .read_at(|_, members, _| members.node(id).cloned())
    }

    /// By how many milliseconds this host's wall clock is ahead of the cluster's time, negative where it is behind: to a second
    /// or two, since it is what the leader has said lately. Nothing while nobody leads, and before the leader has said its time.
    pub fn clock_ahead_ms(&self) -> Option<i64> {
        self.0.consensus.role().borrow().leader?;
        self.0.proposer.clock_ahead_ms()
    }

    /// What this node sees of the others; nothing without a port for them.
    pub fn peers(&self) -> Vec<Seen> {
        let peers = self.0.way.peers.as_ref();
        peers.map_or_else(Vec::new, |peers| peers.seen())
    }

    /// Waits until somebody leads who can be asked, but no longer than this: whoever comes in the middle of an election
    /// need not be sent away to ask again and again.
    pub async fn somebody_leads(&self, at_most: Duration) {
        let mut role = self.0.consensus.role();
        let mut slot = self.0.slot.subscribe();
        let waiting = async {
            while !self.knows_who_leads() {
                tokio::select! {
                    _ = role.changed() => {}
                    _ = slot.changed() => {}
                    () = sleep(REACHED_EVERY) => {}
                }
            }
        };
        let _ = timeout(at_most, waiting).await;
    }

    /// Whether this node leads and its duties have begun, or it knows of another that does and reaches it.
    fn knows_who_leads(&self) -> bool {
        let leader = self.0.consensus.role().borrow().leader;
        leader.is_some_and(|leader| {
            if leader == self.0.identity.node_id {
                return self.leads();
            }
            let peers = self.0.way.peers.as_ref();
            peers.is_none_or(|peers| peers.is_reached(leader))
        })
    }

    /// `HOST:PORT` where other nodes reach this one, as it tells them; nothing without a port for them.
    pub fn peer_address(&self) -> Option<String> {
        Some(self.0.way.peers.as_ref()?.me().peer_address)
    }

    /// A key for one purpose that every node of the cluster derives for itself for good, and whoever has had a node's folder; it
    /// is written nowhere. [`Self::present_key`] makes one of it that ends. Nothing without a port for nodes.
    pub fn key_for(&self, purpose: &[u8]) -> Option<[u8; 32]> {
        Some(self.0.way.peers.as_ref()?.key_for(purpose))
    }

    /// Hands leadership to this node, or to the one that fits best, and waits until it has taken over. On the leader
    /// only. Answers with the new leader.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<u64, ChangeError> {
        let role = *self.0.consensus.role().borrow();
        if role.leads && to == Some(self.0.identity.node_id) {
            return Ok(self.0.identity.node_id);
        }
        self.0.consensus.transfer(to).await
    }

    /// Takes a node out of the cluster, in two steps: it loses its vote, and once it knows that it is let go. On the
    /// leader only; a leader that is to go itself hands leadership over and says to whom. Answers with who is left. It is
    /// safe to ask again.
    pub async fn remove_node(&self, id: u64) -> Result<Members, ChangeError> {
        let begun = Instant::now();
        while begun.elapsed() < REMOVED_WITHIN {
            let role = *self.0.consensus.role().borrow();
            if !role.leads {
                let leader = role.leader;
                return Err(ChangeError::NotLeader { leader });
            }
            // What is applied here may be from before this leadership.
            match self.0.consensus.read().await {
                Ok(()) => {}
                Err(Refused::Stopped(why)) => return Err(ChangeError::Stopped(why)),
                Err(_) => {
                    sleep(LOOK_EVERY).await;
                    continue;
                }
            }
            let members = self.members();
            if !members.contains(id) {
                // It may be gone by what another leader was asked, who could not say so any more.
                if !members.removed(id) {
                    return Err(ChangeError::Unknown(id));
                }
                // Whoever hears that it is gone may rely on it that what it knew is of no use any more.
                if nodes::tell(&self.0.replicated, &self.0.proposer).await {
                    return Ok(members);
                }
                sleep(LOOK_EVERY).await;
                continue;
            }
            // Had nobody written down that it came, nobody would see that it went, and what it knows would count on.
            if !nodes::tell(&self.0.replicated, &self.0.proposer).await {
                sleep(LOOK_EVERY).await;
                continue;
            }
            let step = if members.voters.contains(&id) {
                Some(Change::Demote(id))
            } else if members.leaving.contains(&id) {
                // The leader's duties let it go.
                None
            } else {
                Some(Change::Remove(id))
            };
            let outcome = match step {
                Some(step) => self.0.consensus.change(step).await.map(drop),
                None => Ok(()),
            };
            match outcome {
                Ok(()) | Err(ChangeError::UnderWay | ChangeError::Busy) => sleep(LOOK_EVERY).await,
                Err(ChangeError::TooFewHere(_)) if begun.elapsed() < BEGUN_WITHIN => {
                    sleep(LOOK_EVERY).await;
                }
                Err(ChangeError::Leads(_)) => {
                    let leader = Some(self.0.consensus.transfer(None).await?);
                    return Err(ChangeError::NotLeader { leader });
                }
                Err(error) => return Err(error),
            }
        }
        Err(ChangeError::OutcomeUnknown)
    }
}
