//! What a leader knows of the others: how far each is, who could take over, and what they still need of the log.

use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, SnapshotStatus, StateRole};

use super::Peer;
use crate::consensus::event::Delivery;
use crate::consensus::log::Position;

/// Bytes of the log in memory. Entries that a follower still needs are kept up to this; one that is further behind gets a
/// snapshot.
const KEPT_BYTES: usize = 192 << 20;

/// A node that is no further behind than this has caught up: what is on its way to it at a busy moment.
const CAUGHT_UP_ENTRIES: u64 = 2_000;

/// A node as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeProgress {
    /// The node.
    pub id: u64,
    /// Everything up to here is in its log.
    pub matched: u64,
    /// What it is being sent.
    pub sending: Sending,
    /// Whether it was heard within the last election timeout.
    pub active: bool,
}

impl NodeProgress {
    /// Whether it answers and has next to everything up to `committed`, so that its vote counts for what is written now. One
    /// that is heard may be far behind: it answers for nothing new before it has what came before.
    pub fn is_near(&self, committed: u64) -> bool {
        let behind = match self.sending {
            Sending::Log => CAUGHT_UP_ENTRIES,
            // Where a snapshot was all that it needed, nothing is sent to it until there is something new.
            Sending::Probe => 0,
            Sending::Snapshot => return false,
        };
        self.active && self.matched.saturating_add(behind) >= committed
    }
}

/// What a leader sends to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// One message at a time, to find out where its log ends.
    Probe,
    /// Entries, as they come.
    Log,
    /// A snapshot, and nothing else until it is there.
    Snapshot,
}

impl Peer {
    /// Everybody else, by id, as this leader sees them; nobody on a node that does not lead. `active` says who was heard
    /// lately.
    pub fn followers(&self, active: impl Fn(u64) -> bool) -> Vec<NodeProgress> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return Vec::new();
        }
        let others = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        let mut followers: Vec<NodeProgress> = others
            .map(|(id, progress)| NodeProgress {
                id: *id,
                matched: progress.matched,
                sending: match progress.state {
                    ProgressState::Probe => Sending::Probe,
                    ProgressState::Replicate => Sending::Log,
                    ProgressState::Snapshot => Sending::Snapshot,
                },
                active: active(*id),
            })
            .collect();
        followers.sort_unstable_by_key(|follower| follower.id);
        followers
    }

    /// The voter with most of the log that takes part right now.
    pub(super) fn successor(&self) -> Option<u64> {
        let raft = &self.raw.raft;
        raft.prs()
            .iter()
            .filter(|(id, progress)| {
                **id != raft.id
                    && self.members.voters.contains(id)
                    && progress.state == ProgressState::Replicate
            })
            .max_by_key(|(id, progress)| (progress.matched, **id))
            .map(|(id, _)| *id)
    }

    /// Forgets the log up to `index`, which is in a snapshot, but for what those who are `active` still need, up to a
    /// bound. Says where it then begins, for the log on disk.
    pub fn compact(&mut self, index: u64, active: impl Fn(u64) -> bool) -> Option<Position> {
        let raft = &self.raw.raft;
        let mut to = index.min(raft.raft_log.applied);
        if raft.state == StateRole::Leader && self.raw.store().bytes() <= KEPT_BYTES {
            let others = raft.prs().iter().filter(|(id, _)| **id != raft.id);
            for (_, progress) in others.filter(|(id, _)| active(**id)) {
                to = to.min(match progress.state {
                    // It goes on from there once the snapshot is in.
                    ProgressState::Snapshot => progress.pending_snapshot,
                    ProgressState::Probe | ProgressState::Replicate => progress.matched,
                });
            }
        }
        self.raw.mut_store().compact(to)
    }

    /// Messages to this node got lost.
    pub fn unreachable(&mut self, node: u64) {
        self.raw.report_unreachable(node);
    }

    /// How sending a snapshot to this node ended. Raft hears of a failure only when it is time for the next try, and sends
    /// it nothing until then: it asks for the newest snapshot that there is, from which the log goes on.
    pub fn snapshot_sent(&mut self, node: u64, ended: Delivery) {
        if let Delivery::Unusable(at) = ended {
            // Without another one Raft asks for it, and it is taken.
            self.raw.mut_store().forget_snapshot(at);
        }
        if ended == Delivery::Arrived {
            self.retries.arrived(node);
            self.raw.report_snapshot(node, SnapshotStatus::Finish);
        } else if self.raw.raft.prs().get(node).is_some() {
            self.retries.failed(node);
        }
    }

    /// A snapshot has come in from another node, whole. Says whether Raft takes it up, now or as one that came before: its
    /// file is of no use otherwise.
    pub fn snapshot_received(&mut self, message: Message) -> bool {
        let metadata = message.get_snapshot().get_metadata();
        let at = (metadata.index, metadata.term);
        self.step(message);
        let raft = &self.raw.raft;
        let taken = raft.snap().map(|snapshot| snapshot.get_metadata());
        let installing = at.0 == self.installed && raft.raft_log.applied < self.installed;
        installing || taken.is_some_and(|taken| (taken.index, taken.term) == at)
    }

    /// Raft sends these.
    pub(super) fn snapshots_begin(&mut self, messages: &[Message]) {
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.retries.begun(message.to);
            }
        }
    }

    /// A tick has passed: who has waited long enough for a snapshot is tried again.
    pub(super) fn retry_snapshots(&mut self) {
        for node in self.retries.tick() {
            self.raw.report_snapshot(node, SnapshotStatus::Failure);
        }
    }
}
