//! Replies kept for callers that ask again with the same request id.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::pages::Pages;
use crate::codec::{self, Parts};
use crate::command::Command;
use crate::ids::RequestId;
use crate::model::Terms;
use crate::model::limits::REQUEST_RETENTION_MS;
use crate::rejection::Rejection;
use crate::reply::Reply;

/// Old replies forgotten with each new one: more than come in, and few enough to be quick.
const FORGET_PER_REQUEST: usize = 8;

/// The replies of a day. Only those of commands that were taken: a refused one has changed nothing, and may succeed later.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Requests {
    /// By when they were given: what is new comes last, and what is over is at the front.
    replies: Replies,
    /// When each was given.
    given: BTreeMap<RequestId, u64>,
}

/// Replies by when they were given, in milliseconds, and to what.
pub(crate) type Replies = Pages<(u64, RequestId), Given>;

/// A reply that was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) command_hash: u64,
    pub(crate) reply: Reply,
}

/// A command as it is told apart from others under the same request id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fingerprint {
    hash: u64,
    /// That of what a log before format 3 holds of it, if that is something else: a request that was taken by one may come
    /// again when the log has gone on in format 3.
    before_format_3: Option<u64>,
}

impl Fingerprint {
    pub(crate) fn of(command: &Command) -> Self {
        let before = match command {
            Command::SubmitJob { spec } => {
                let workload = spec.estimated_before_format_3();
                (workload != spec.workload).then(|| command.clone().for_format(codec::FIRST))
            }
            _ => None,
        };
        Self {
            hash: hash(command),
            before_format_3: before.as_ref().map(hash),
        }
    }
}

fn hash(command: &Command) -> u64 {
    // What a change comes to depends on what the job was, which is no part of the request.
    if let Command::ReviseJob { job, asked, .. } = command {
        let wish = postcard::to_extend(&("revise", job, asked), Vec::with_capacity(32));
        return xxh3_64(&wish.unwrap_or_default());
    }
    // A command is always encodable; the hash of nothing would only make a repeated request a new one's twin.
    let mut bytes = postcard::to_extend(command, Vec::with_capacity(256)).unwrap_or_default();
    // As what the job was seen stands behind the command.
    if let Command::ApproveJob { seq: Some(seq), .. } = command {
        bytes = postcard::to_extend(seq, bytes).unwrap_or_default();
    }
    // What the estimate says is no wish of the caller's, and may be something else when a request comes again.
    if let Some(spec) = command.spec() {
        let terms = Terms {
            expected_cost: None,
            ..spec.terms.clone()
        };
        let parts = Parts::behind(bytes).then_said(&terms);
        let parts = parts.and_then(|parts| parts.then_spec(spec));
        bytes = parts.map(Parts::end).unwrap_or_default();
    }
    xxh3_64(&bytes)
}

impl Requests {
    /// The reply that was given to this request before, if any.
    pub(crate) fn recall(
        &self,
        id: RequestId,
        print: Fingerprint,
        now_ms: u64,
    ) -> Option<Result<Reply, Rejection>> {
        let stamp_ms = *self.given.get(&id)?;
        if is_over(stamp_ms, now_ms) {
            return None;
        }
        let known = self.replies.get(&(stamp_ms, id))?;
        let prints = [Some(print.hash), print.before_format_3];
        Some(if prints.contains(&Some(known.command_hash)) {
            Ok(known.reply.clone())
        } else {
            Err(Rejection::RequestIdReused)
        })
    }

    /// Whether the reply to this request is known.
    pub(crate) fn remembers(&self, id: RequestId, now_ms: u64) -> bool {
        let given = self.given.get(&id);
        given.is_some_and(|stamp_ms| !is_over(*stamp_ms, now_ms))
    }

    /// Makes room for one more; false if there is none within the day.
    pub(crate) fn make_room(&mut self, max: usize, now_ms: u64) -> bool {
        self.forget(FORGET_PER_REQUEST, now_ms);
        self.len() < max
    }

    /// Keeps a reply.
    pub(crate) fn remember(
        &mut self,
        id: RequestId,
        print: Fingerprint,
        reply: &Reply,
        stamp_ms: u64,
    ) {
        let given = Given {
            command_hash: print.hash,
            reply: reply.clone(),
        };
        self.insert(stamp_ms, id, given);
    }

    /// Keeps a reply that was given then.
    pub(crate) fn insert(&mut self, stamp_ms: u64, id: RequestId, given: Given) {
        if let Some(before_ms) = self.given.insert(id, stamp_ms) {
            self.replies.remove(&(before_ms, id));
        }
        self.replies.insert((stamp_ms, id), given);
    }

    /// Forgets up to `limit` replies that are over; gives back how many.
    pub(crate) fn forget(&mut self, limit: usize, now_ms: u64) -> usize {
        let mut forgotten = 0;
        while forgotten < limit
            && let Some(((stamp_ms, id), _)) = self.replies.first()
            && is_over(stamp_ms, now_ms)
        {
            self.replies.remove(&(stamp_ms, id));
            self.given.remove(&id);
            forgotten += 1;
        }
        forgotten
    }

    /// Whether a reply is to be forgotten.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.replies
            .first()
            .is_some_and(|((stamp_ms, _), _)| is_over(stamp_ms, now_ms))
    }

    /// How many replies are kept.
    pub(crate) const fn len(&self) -> usize {
        self.replies.len()
    }

    /// What a snapshot keeps.
    pub(crate) const fn replies(&self) -> &Replies {
        &self.replies
    }
}

/// Whether a reply that was given then is to be forgotten.
const fn is_over(stamp_ms: u64, now_ms: u64) -> bool {
    now_ms >= stamp_ms.saturating_add(REQUEST_RETENTION_MS)
}
