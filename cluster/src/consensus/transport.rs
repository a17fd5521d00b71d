//! How Raft's messages reach other nodes, and what comes back from there.

use std::sync::Arc;

use raft::eraftpb::Message;
use tokio::sync::oneshot;

use super::event::Delivery;
use crate::members::{Member, Members};
use crate::peers::Admission;

/// Sends messages to other nodes. It never waits: what cannot be sent now is dropped, and Raft sends it again.
pub trait Transport: Send + Sync + 'static {
    /// Sends these, in order for each receiver. A message of type `MsgSnapshot` stands for the whole snapshot of the
    /// entry it names: the transport streams the file and then says how that went, through
    /// [`Inbound::snapshot_sent`], always; of one that is still under way it says nothing.
    fn send(&self, messages: Vec<Message>);

    /// Who belongs to the cluster from now on. Called once at the start and after every change.
    fn members(&self, members: &Members);

    /// From now on what comes in reaches this node.
    fn attach(&self, inbound: Arc<dyn Inbound>, admission: Arc<dyn Admission>);

    /// This node as the others should know it; nothing if nobody can reach it.
    fn me(&self) -> Option<Member>;

    /// The newest log format that this node reads, by its own word; `None` until it has been heard.
    fn log_format(&self, node: u64) -> Option<u32>;

    /// Where this node is by its own word, when it last proved who it is; `None` until then.
    fn said(&self, node: u64) -> Option<Member> {
        let _ = node;
        None
    }

    /// Where this node stood when it was last heard, by its own word.
    fn standing(&self, node: u64) -> Word {
        let _ = node;
        Word::Never
    }
}

/// What a node tells the others of itself, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Highest entry that it knows to be committed.
    pub committed: u64,
    /// Whether its disk has room for submissions.
    pub has_room: bool,
    /// The log's time as a leader puts it on commands, in milliseconds since 1970; nothing of any other node, and of an older
    /// version.
    pub time_ms: Option<u64>,
    /// The same on a node that follows, as it has it from a leader; nothing until one has said it, and of an older version.
    pub followed_ms: Option<u64>,
}

/// What is known of another node's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Word {
    /// It is not reached, or has not spoken yet since it is.
    #[default]
    Awaited,
    /// It does not tell: its version is older, or the way to it carries no such word.
    Never,
    /// It stood like this, at most a few pings ago.
    Said(Standing),
}

/// What a transport tells its node.
pub trait Inbound: Send + Sync + 'static {
    /// Messages came. Too many at once are dropped; Raft copes with lost messages.
    fn receive(&self, messages: Vec<Message>);

    /// A snapshot has come in: whole, checked and on disk, as
    /// [`Snapshots::receive`](crate::snapshot::Snapshots::receive) has left it; `message` is the `MsgSnapshot` it came with.
    /// The answer says whether it is taken up. If not, the transport removes the file, before another of the same entry may
    /// come in. A node that has stopped does not answer, and decides at its next start.
    fn receive_snapshot(&self, message: Message) -> oneshot::Receiver<bool>;

    /// Messages to this node were dropped or its connection is gone: Raft sends it less until it answers.
    fn unreachable(&self, node: u64);

    /// The other end has closed the connection to this node, as it does when a process ends. Whether that is so shows by
    /// itself: followers only wait less long for the word of a leader that has hung up.
    fn hung_up(&self, node: u64);

    /// There is a connection to this node.
    fn reached(&self, node: u64);

    /// How sending a snapshot to this node ended. Raft sends it nothing until this is said, and after a failure for a while
    /// longer.
    fn snapshot_sent(&self, node: u64, ended: Delivery);

    /// Where this node stands, to be told to the others.
    fn standing(&self) -> Standing;

    /// A member has refused this node because it was removed ([`Members::removed`]; a node that is merely not known yet
    /// is something else): it stops taking part and says so.
    fn removed(&self);
}

/// The transport of a cluster of one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Transport for Alone {
    fn send(&self, messages: Vec<Message>) {
        debug_assert!(
            messages.is_empty(),
            "a cluster of one has nobody to send to"
        );
    }

    fn members(&self, _members: &Members) {}

    fn attach(&self, _inbound: Arc<dyn Inbound>, _admission: Arc<dyn Admission>) {}

    fn me(&self) -> Option<Member> {
        None
    }

    fn log_format(&self, _node: u64) -> Option<u32> {
        None
    }
}
