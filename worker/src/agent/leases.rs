//! Lease arithmetic: when to ask again, and until when a trainer may run by this host's own clock.

use std::collections::BTreeMap;

use super::Epoch;

/// Renewals remembered while their answers are out. At three a term, an answer older than eight is worth nothing.
const MAX_UNANSWERED: usize = 8;

/// Part of a term that is kept back: a trainer is dead this much before the leader may give its GPUs away.
const MARGIN_DIVISOR: u64 = 10;

/// Bounds of the margin: clocks that tick at slightly different speeds need little, long terms need no more than this.
const MARGIN_MS: std::ops::RangeInclusive<u64> = 100..=10_000;

/// The renewals this worker has asked for.
#[derive(Debug, Default)]
pub(super) struct Leases {
    next_number: u64,
    next_at: Option<u64>,
    unanswered: BTreeMap<u64, Asked>,
}

/// One renewal that was sent.
#[derive(Debug)]
pub(super) struct Asked {
    /// This host's clock when it was sent: a lease is counted from here, for the leader counts from later.
    pub(super) sent_ms: u64,
    /// The epochs it named.
    pub(super) epochs: Vec<Epoch>,
}

impl Leases {
    /// Lets the next [`Leases::ask`] go out whatever the time.
    pub(super) fn due_at_once(&mut self) {
        self.next_at = None;
    }

    /// The number of a new renewal if one is due.
    pub(super) fn ask(&mut self, epochs: &[Epoch], term_ms: u64, now: u64) -> Option<u64> {
        if self.next_at.is_some_and(|at| now < at) {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.next_at = Some(now + (term_ms / 3).max(1));
        while self.unanswered.len() >= MAX_UNANSWERED {
            self.unanswered.pop_first();
        }
        self.unanswered.insert(
            number,
            Asked {
                sent_ms: now,
                epochs: epochs.to_vec(),
            },
        );
        Some(number)
    }

    /// What an answered renewal asked for; an unknown or repeated answer gives nothing.
    pub(super) fn answered(&mut self, number: u64, term_ms: u64) -> Option<Asked> {
        let asked = self.unanswered.remove(&number)?;
        let next = asked.sent_ms + (term_ms / 3).max(1);
        self.next_at = self.next_at.map(|at| at.min(next));
        Some(asked)
    }

    /// When the next renewal is due; none means now.
    pub(super) fn next_renewal(&self) -> Option<u64> {
        Some(self.next_at.unwrap_or(0))
    }
}

/// The moment by which a trainer must be gone, for a renewal sent at `sent_ms`.
pub(super) fn deadline(sent_ms: u64, term_ms: u64) -> u64 {
    sent_ms + term_ms.saturating_sub(margin(term_ms))
}

/// How long before the deadline a trainer is asked to end, so that it may still end by itself.
pub(super) fn margin(term_ms: u64) -> u64 {
    (term_ms / MARGIN_DIVISOR).clamp(*MARGIN_MS.start(), *MARGIN_MS.end())
}
