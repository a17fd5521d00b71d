//! What waits to be sent to one node: bounded in number and bytes, and emptied a frame at a time.

use std::collections::VecDeque;

use parking_lot::Mutex;
use raft::eraftpb::{Message, MessageType};
use tokio::sync::Notify;

/// Bytes of messages in one frame: large enough that frames cost little, small enough that a heartbeat behind one does
/// not wait long.
pub(super) const FRAME_BYTES: usize = 1 << 20;

/// Messages that wait at most. Raft has 64 appends on their way to a follower; what is beyond them is heartbeats and
/// answers.
const MESSAGES_MAX: usize = 4096;

/// Bytes that wait at most: twice what Raft has on its way to a follower (64 appends of half a mebibyte).
const BYTES_MAX: usize = 64 << 20;

/// What a message takes beside its entries' data.
const MESSAGE_OVERHEAD: usize = 96;

/// What an entry takes beside its data.
const ENTRY_OVERHEAD: usize = 24;

/// A queue with many writers, that never wait, and one reader: the newest stream to the node.
#[derive(Debug)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    filled: Notify,
}

#[derive(Debug)]
struct Inner {
    queue: VecDeque<Message>,
    bytes: usize,
    /// While nobody reads, nothing is taken in: by the time somebody does it would be old news.
    open: bool,
    reader: u64,
}

impl Outbox {
    /// An empty one that takes messages in: its node is about to be reached for the first time.
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                queue: VecDeque::new(),
                bytes: 0,
                open: true,
                reader: 0,
            }),
            filled: Notify::new(),
        }
    }

    /// Takes these in, as far as there is room. Says how many were dropped.
    pub(super) fn push(&self, messages: impl IntoIterator<Item = Message>) -> usize {
        let mut dropped = 0;
        {
            let mut inner = self.inner.lock();
            for message in messages {
                let bytes = size(&message);
                let room = inner.queue.len() < MESSAGES_MAX && inner.bytes + bytes <= BYTES_MAX;
                if inner.open && (room || inner.queue.is_empty()) {
                    inner.bytes += bytes;
                    inner.queue.push_back(message);
                } else {
                    dropped += 1;
                }
            }
        }
        self.filled.notify_one();
        dropped
    }

    /// Lets messages in for a new reader; the one before gets nothing more.
    pub(super) fn open(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.open = true;
        inner.reader += 1;
        inner.reader
    }

    /// Drops what waits and takes nothing in until [`Self::open`].
    pub(super) fn close(&self) {
        let dropped = {
            let mut inner = self.inner.lock();
            inner.open = false;
            inner.bytes = 0;
            std::mem::take(&mut inner.queue)
        };
        drop(dropped);
        // The reader learns that it is none any more.
        self.filled.notify_one();
    }

    /// The next frame's messages, once there are some; `None` for a reader that is not the newest.
    pub(super) async fn frame(&self, reader: u64) -> Option<Vec<Message>> {
        loop {
            {
                let mut inner = self.inner.lock();
                if !inner.open || inner.reader != reader {
                    return None;
                }
                let frame = inner.take();
                if !frame.is_empty() {
                    return Some(frame);
                }
            }
            self.filled.notified().await;
        }
    }
}

impl Inner {
    fn take(&mut self) -> Vec<Message> {
        let mut frame = Vec::new();
        let mut bytes = 0;
        while bytes < FRAME_BYTES {
            let Some(mut message) = self.queue.pop_front() else {
                break;
            };
            self.bytes -= size(&message);
            if let Some(rest) = split(&mut message, FRAME_BYTES) {
                self.bytes += size(&rest);
                self.queue.push_front(rest);
            }
            bytes += size(&message);
            frame.push(message);
        }
        frame
    }
}

/// Bytes that a message takes, near enough.
fn size(message: &Message) -> usize {
    let entries: usize = message
        .entries
        .iter()
        .map(|entry| entry.data.len() + entry.context.len() + ENTRY_OVERHEAD)
        .sum();
    MESSAGE_OVERHEAD + message.context.len() + entries
}

/// Cuts an append after the entry with which it has this many bytes, and gives what is behind. Raft gathers everything
/// of a turn into one append, however much it is; two appends in a row say the same as one.
fn split(message: &mut Message, bytes: usize) -> Option<Message> {
    if message.get_msg_type() != MessageType::MsgAppend {
        return None;
    }
    let mut sum = MESSAGE_OVERHEAD;
    let keep = message.entries.iter().take_while(|entry| {
        let room = sum < bytes;
        sum += entry.data.len() + entry.context.len() + ENTRY_OVERHEAD;
        room
    });
    let keep = keep.count().max(1);
    if keep >= message.entries.len() {
        return None;
    }
    let mut entries: Vec<_> = message.take_entries().into();
    let behind = entries.split_off(keep);
    let (index, term) = entries.last().map(|last| (last.index, last.term))?;
    message.set_entries(entries.into());
    let mut rest = message.clone();
    rest.index = index;
    rest.log_term = term;
    rest.set_entries(behind.into());
    Some(rest)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    fn append(first: u64, sizes: &[usize]) -> Message {
        let entries = sizes.iter().enumerate().map(|(n, size)| Entry {
            index: first + n as u64,
            term: 3,
            data: vec![7; *size].into(),
            ..Entry::default()
        });
        let mut message = Message {
            index: first - 1,
            log_term: 2,
            commit: 50,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgAppend);
        message.set_entries(entries.collect::<Vec<_>>().into());
        message
    }

    fn indices(message: &Message) -> (u64, u64, Vec<u64>) {
        let entries = message.entries.iter().map(|e| e.index).collect();
        (message.index, message.log_term, entries)
    }

    #[tokio::test]
    async fn frames_are_about_a_mebibyte_and_keep_the_order() {
        let outbox = Outbox::new();
        let reader = outbox.open();
        let third = FRAME_BYTES / 3;
        assert_eq!(outbox.push((0..5).map(|n| append(n * 10 + 1, &[third]))), 0);
        let first = outbox.frame(reader).await.unwrap();
        let second = outbox.frame(reader).await.unwrap();
        let of = |frame: &[Message]| frame.iter().map(|m| m.index).collect::<Vec<_>>();
        assert_eq!((of(&first), of(&second)), (vec![0, 10, 20], vec![30, 40]));
        assert_eq!(outbox.inner.lock().bytes, 0);
    }

    #[tokio::test]
    async fn an_append_beyond_a_frame_goes_in_parts_that_follow_each_other() {
        let outbox = Outbox::new();
        let reader = outbox.open();
        outbox.push([append(11, &[FRAME_BYTES / 2; 5])]);
        let mut parts = Vec::new();
        while outbox.inner.lock().bytes > 0 {
            let frame = outbox.frame(reader).await.unwrap();
            assert!(frame.iter().map(size).sum::<usize>() < 2 * FRAME_BYTES);
            parts.extend(frame.iter().map(indices));
        }
        assert_eq!(
            parts,
            [
                (10, 2, vec![11, 12]),
                (12, 3, vec![13, 14]),
                (14, 3, vec![15])
            ]
        );
    }

    #[test]
    fn what_is_too_much_is_dropped_and_counted() {
        let outbox = Outbox::new();
        let many = (0..MESSAGES_MAX as u64 + 3).map(|n| append(n + 1, &[]));
        assert_eq!(outbox.push(many), 3);
        outbox.close();
        assert_eq!(outbox.inner.lock().bytes, 0);
        assert_eq!(outbox.push([append(1, &[])]), 1, "nobody reads");
        outbox.open();
        assert_eq!(outbox.push([append(1, &[BYTES_MAX - 1000])]), 0);
        assert_eq!(outbox.push([append(2, &[2000])]), 1, "too many bytes");
        assert_eq!(outbox.push([append(2, &[100])]), 0);
    }

    #[tokio::test]
    async fn only_the_newest_reader_gets_anything() {
        let outbox = Outbox::new();
        let old = outbox.open();
        let new = outbox.open();
        outbox.push([append(1, &[])]);
        assert!(outbox.frame(old).await.is_none());
        assert_eq!(outbox.frame(new).await.unwrap().len(), 1);
        outbox.close();
        assert!(outbox.frame(new).await.is_none());
    }
}
