//! How Raft's messages reach other nodes.

use raft::eraftpb::Message;

/// Sends messages to other nodes. It never waits: what cannot be sent now is dropped, and Raft sends it again.
pub trait Transport: Send + Sync + 'static {
    /// Sends these, in order for each receiver.
    fn send(&self, messages: Vec<Message>);
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
}
