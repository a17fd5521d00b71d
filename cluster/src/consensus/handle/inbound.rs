//! What other nodes say to consensus, and what they are told of this one.

use std::sync::atomic::Ordering;

use raft::eraftpb::Message;
use tokio::sync::oneshot;

use super::super::core::weight;
use super::super::event::{Delivery, Event};
use super::super::transport::{Inbound, Standing};
use super::{Handle, Input, State};

/// What other nodes say. A node that has stopped hears nothing.
impl<R: Send + 'static> Inbound for Handle<R> {
    fn receive(&self, messages: Vec<Message>) {
        // Without room they are dropped: Raft copes with lost messages.
        if let Some(permit) = self.shared.received.enter(weight(&messages)) {
            let _ = self.shared.inbox.push(Input::Received(messages, permit));
        }
    }

    fn receive_snapshot(&self, message: Message) -> oneshot::Receiver<bool> {
        let (answer, taken) = oneshot::channel();
        let _ = self.shared.tell(Event::SnapshotReceived(message, answer));
        taken
    }

    fn unreachable(&self, node: u64) {
        let _ = self.shared.tell(Event::Unreachable(node));
    }

    fn hung_up(&self, node: u64) {
        let _ = self.shared.tell(Event::HungUp(node));
    }

    fn reached(&self, node: u64) {
        let _ = self.shared.tell(Event::Reached(node));
    }

    fn snapshot_sent(&self, node: u64, ended: Delivery) {
        let _ = self.shared.tell(Event::SnapshotSent { node, ended });
    }

    fn standing(&self) -> Standing {
        let stalled = matches!(*self.shared.state.read(), State::Stalled(_));
        let hangs = self.disk_hangs().is_some();
        let leads = self.leads().is_ok();
        let time = self.shared.time.get().and_then(|time| time(leads));
        Standing {
            committed: self.shared.committed.load(Ordering::Acquire),
            has_room: self.shared.has_room.load(Ordering::Relaxed) && !stalled && !hangs,
            time_ms: time.filter(|_| leads),
            // Of one who follows it is hearsay.
            followed_ms: time.filter(|_| !leads),
        }
    }

    fn removed(&self) {
        let _ = self.shared.tell(Event::Removed);
    }
}
