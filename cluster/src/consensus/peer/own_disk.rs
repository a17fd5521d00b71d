//! How long the disk under this node's own log has not answered: one that hangs says nothing, not even that it fails.

use raft::eraftpb::{Message, MessageType};

use super::Peer;

/// Ticks without an answer after which a disk is said to hang, and a leader whose followers have written meanwhile what it
/// has not hands over: two seconds. A busy disk takes some tenths of one for a sync, and what waits for the leader meanwhile
/// (leases, submissions) has more patience than this.
pub const HANGS_TICKS: u64 = 40;

/// What was heard of it, in ticks.
#[derive(Debug, Default)]
pub(super) struct OwnDisk {
    /// Since it was heard last, while something is to be written.
    silent: u64,
    /// Of these, those in which others had more of the committed log than this node.
    missed: u64,
}

impl OwnDisk {
    /// It has written something.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }
}

impl Peer {
    /// A tick has passed.
    pub(super) fn watch_disk(&mut self) {
        if self.persisted >= self.handed {
            self.own_disk.answered();
            return;
        }
        let log = &self.raw.raft.raft_log;
        let is_missed = log.committed > log.persisted;
        let disk = &mut self.own_disk;
        disk.silent += 1;
        // What is committed stays so, and what is written ends the count: these are ticks in a row.
        disk.missed += u64::from(is_missed);
    }

    /// Whether this may be sent before what comes before it is on disk. A question promises nothing. An answer to a heartbeat
    /// says only that its term is this node's, which must be on disk: if it waited behind every sync, no leader whose
    /// followers' disks are slow would hear from them in time. Of a disk that hangs it waits, so that the leader learns that it
    /// cannot count on this node.
    pub(super) fn needs_no_disk(&self, message: &Message) -> bool {
        match message.get_msg_type() {
            MessageType::MsgReadIndex => true,
            MessageType::MsgHeartbeatResponse => {
                self.persisted >= self.term.1 && self.disk_hangs().is_none()
            }
            _ => false,
        }
    }

    /// For how many ticks the disk has not answered, if it is said to hang.
    pub fn disk_hangs(&self) -> Option<u64> {
        let silent = self.own_disk.silent;
        (silent >= HANGS_TICKS).then_some(silent)
    }

    /// Whether this node's disk alone hangs: the others have written for so long what it has not. Where nobody can write,
    /// nobody else would lead better.
    pub(in crate::consensus) fn is_outwritten(&self) -> bool {
        self.own_disk.missed >= HANGS_TICKS
    }
}
