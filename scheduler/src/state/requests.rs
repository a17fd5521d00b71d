//! Replies kept for callers that ask again with the same request id.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::command::Command;
use crate::ids::RequestId;
use crate::model::limits::{REQUEST_RETENTION_MS, REQUESTS_MAX};
use crate::rejection::Rejection;
use crate::reply::Reply;

/// Old replies forgotten with each new one: more than come in, and few enough to be quick.
const FORGET_PER_REQUEST: usize = 8;

/// The replies of a day. Only those of commands that were taken: a refused one has changed nothing, and may succeed later.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Requests {
    replies: BTreeMap<RequestId, Remembered>,
    oldest: BTreeSet<(u64, RequestId)>,
}

/// A reply that was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    stamp_ms: u64,
    command_hash: u64,
    reply: Reply,
}

/// A command as it is told apart from others under the same request id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn of(command: &Command) -> Self {
        // A command is always encodable; the hash of nothing would only make a repeated request a new one's twin.
        Self(xxh3_64(
            &postcard::to_extend(command, Vec::with_capacity(256)).unwrap_or_default(),
        ))
    }
}

impl Requests {
    /// The reply that was given to this request before, if any.
    pub(crate) fn recall(
        &self,
        id: RequestId,
        print: Fingerprint,
        now_ms: u64,
    ) -> Option<Result<Reply, Rejection>> {
        let known = self
            .replies
            .get(&id)
            .filter(|known| !known.is_over(now_ms))?;
        Some(if known.command_hash == print.0 {
            Ok(known.reply.clone())
        } else {
            Err(Rejection::RequestIdReused)
        })
    }

    /// Makes room for one more; false if there is none within the day.
    pub(crate) fn make_room(&mut self, now_ms: u64) -> bool {
        for _ in 0..FORGET_PER_REQUEST {
            let Some(&(stamp_ms, id)) = self.oldest.first() else {
                break;
            };
            if self
                .replies
                .get(&id)
                .is_some_and(|known| !known.is_over(now_ms))
            {
                break;
            }
            self.oldest.remove(&(stamp_ms, id));
            self.replies.remove(&id);
        }
        self.replies.len() < REQUESTS_MAX
    }

    /// Keeps a reply.
    pub(crate) fn remember(
        &mut self,
        id: RequestId,
        print: Fingerprint,
        reply: &Reply,
        stamp_ms: u64,
    ) {
        let remembered = Remembered {
            stamp_ms,
            command_hash: print.0,
            reply: reply.clone(),
        };
        if let Some(before) = self.replies.insert(id, remembered) {
            self.oldest.remove(&(before.stamp_ms, id));
        }
        self.oldest.insert((stamp_ms, id));
    }

    /// Forgets up to `limit` replies that are over; gives back how many.
    pub(crate) fn forget(&mut self, limit: usize, now_ms: u64) -> usize {
        let over: Vec<_> = self
            .oldest
            .iter()
            .take(limit)
            .take_while(|(stamp, _)| is_over(*stamp, now_ms))
            .copied()
            .collect();
        for (stamp_ms, id) in &over {
            self.oldest.remove(&(*stamp_ms, *id));
            self.replies.remove(id);
        }
        over.len()
    }

    /// Whether a reply is to be forgotten.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.oldest
            .first()
            .is_some_and(|(stamp_ms, _)| is_over(*stamp_ms, now_ms))
    }

    /// How many replies are kept.
    pub(crate) fn len(&self) -> usize {
        self.replies.len()
    }

    /// What a snapshot keeps.
    pub(crate) const fn replies(&self) -> &BTreeMap<RequestId, Remembered> {
        &self.replies
    }

    /// From what a snapshot has kept.
    pub(crate) fn from_replies(replies: BTreeMap<RequestId, Remembered>) -> Self {
        let oldest = replies
            .iter()
            .map(|(id, known)| (known.stamp_ms, *id))
            .collect();
        Self { replies, oldest }
    }
}

impl Remembered {
    const fn is_over(&self, now_ms: u64) -> bool {
        is_over(self.stamp_ms, now_ms)
    }
}

const fn is_over(stamp_ms: u64, now_ms: u64) -> bool {
    now_ms >= stamp_ms.saturating_add(REQUEST_RETENTION_MS)
}
