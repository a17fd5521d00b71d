//! What the core is told, and who waits for what comes of it.

use bytes::Bytes;
use raft::eraftpb::{Entry, Message};
use tokio::sync::oneshot;

use super::admission::Permit;
use super::change::{Change, ChangeError};
use super::handle::Refused;
use super::log::Position;
use super::peer::Role;
use crate::members::Members;

/// Something the core has to decide upon. `R` is the answer to a proposal.
#[derive(Debug)]
pub enum Event<R> {
    /// Somebody wants these bytes in the log.
    Propose(Bytes, Waiter<R>),
    /// Somebody wants to read what was acknowledged.
    Read(ReadWaiter),
    /// Somebody wants the members changed.
    Change(Change, ChangeWaiter),
    /// Leadership is to be handed to this node, or to whoever fits best. The answer says to whom it is being handed.
    Transfer(Option<u64>, oneshot::Sender<Result<u64, ChangeError>>),
    /// Another node sent these.
    Received(Vec<Message>),
    /// Messages to this node got lost.
    Unreachable(u64),
    /// The other end has closed the connection to this node: as a rule its process is gone.
    HungUp(u64),
    /// There is a connection to this node again.
    Reached(u64),
    /// Sending a snapshot to this node has ended.
    SnapshotSent {
        /// The node.
        node: u64,
        /// How.
        ended: Delivery,
    },
    /// A snapshot from another node is on disk, with the message that it came with. The answer says whether it is taken up:
    /// its file is of no use otherwise.
    SnapshotReceived(Message, oneshot::Sender<bool>),
    /// Every write up to this number is on disk.
    Persisted(u64),
    /// The log can no longer be written, or can be again.
    Stalled(bool),
    /// Every entry up to this index is applied.
    Applied(u64),
    /// A snapshot of this entry is on disk.
    SnapshotTaken(Position, Members),
    /// Everything up to this index is in snapshots and may be forgotten.
    Compact(u64),
    /// A member says that this node was removed.
    Removed,
}

/// How sending a snapshot to another node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The node has all of it on its disk.
    Arrived,
    /// The way there or the node has failed: the same one may be sent again.
    Failed,
    /// There is no whole snapshot of this entry on this node's disk any more: another one is to be sent.
    Unusable(Position),
}

/// What the apply side is told, in this order.
#[derive(Debug)]
pub enum Task<R> {
    /// These wait for `first` and the entries after it.
    Appended {
        /// Index and term of the first one's entry.
        first: Position,
        /// Who waits, in the order of the entries.
        waiters: Vec<Waiter<R>>,
    },
    /// This one waits for a change of the members.
    ChangeAppended {
        /// Its entry.
        at: Position,
        /// Who waits.
        waiter: ChangeWaiter,
    },
    /// Apply these committed entries.
    Apply {
        /// In order, without a gap.
        entries: Vec<Entry>,
        /// Who belongs to the cluster after each of them that changes it, by its index.
        changes: Vec<(u64, Members)>,
    },
    /// Replace the state by the snapshot that has come in.
    Install {
        /// The last entry that is in it.
        at: Position,
        /// Who belongs to the cluster as of it.
        members: Members,
    },
    /// These reads are safe once everything up to `index` is applied.
    ReadAt {
        /// The index.
        index: u64,
        /// Who waits.
        waiters: Vec<ReadWaiter>,
    },
    /// Term or leader have changed.
    Role(Role),
}

/// Somebody waiting for the outcome of a proposal.
#[derive(Debug)]
pub struct Waiter<R> {
    answer: oneshot::Sender<Result<R, Refused>>,
    _permit: Option<Permit>,
}

/// Somebody waiting until a read is safe.
#[derive(Debug)]
pub struct ReadWaiter {
    answer: oneshot::Sender<Result<(), Refused>>,
    _permit: Option<Permit>,
}

/// Somebody waiting until the members have changed; the answer is who belongs to the cluster then.
pub type ChangeWaiter = oneshot::Sender<Result<Members, ChangeError>>;

impl<R> Waiter<R> {
    /// One who waits, and where the outcome comes.
    #[must_use]
    pub fn new() -> (Self, oneshot::Receiver<Result<R, Refused>>) {
        Self::within(None)
    }

    /// The same, counted until it is answered.
    pub(super) fn within(permit: Option<Permit>) -> (Self, oneshot::Receiver<Result<R, Refused>>) {
        let (answer, outcome) = oneshot::channel();
        let waiter = Self {
            answer,
            _permit: permit,
        };
        (waiter, outcome)
    }

    /// Gives the outcome; the receiver may have gone.
    pub(super) fn answer(self, outcome: Result<R, Refused>) {
        let _ = self.answer.send(outcome);
    }
}

impl ReadWaiter {
    /// One who waits, and where the word comes that the read is safe.
    #[must_use]
    pub fn new() -> (Self, oneshot::Receiver<Result<(), Refused>>) {
        Self::within(None)
    }

    /// The same, counted until it is answered.
    pub(super) fn within(permit: Option<Permit>) -> (Self, oneshot::Receiver<Result<(), Refused>>) {
        let (answer, outcome) = oneshot::channel();
        let waiter = Self {
            answer,
            _permit: permit,
        };
        (waiter, outcome)
    }

    pub(super) fn answer(self, outcome: Result<(), Refused>) {
        let _ = self.answer.send(outcome);
    }

    /// Whether nobody waits any more.
    pub(super) fn gone(&self) -> bool {
        self.answer.is_closed()
    }
}
