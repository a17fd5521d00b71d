//! Which nodes the state was told of, and the secrets that only they know.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Secrets of the past that are kept, with the present one: by them a node that lags behind knows another one for a member,
/// that has come since. Nobody is let in by them.
pub const SECRETS_KEPT: usize = 8;

/// Random bytes that every node of the cluster knows and nobody else. Never shown.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A time of the cluster's life, from one removal of a node to the next: what is derived from its secret ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// One more than that of the one before.
    pub number: u64,
    /// What is derived from.
    pub secret: Secret,
}

/// The nodes of the cluster as of an entry of the log, as its leader has said, and the generations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// The entry.
    pub(crate) as_of: u64,
    /// Who belongs to it, each with whether it votes.
    pub(crate) votes: BTreeMap<u64, bool>,
    /// Oldest first; the last is the present one. Empty before the first word of a leader, and only then.
    pub(crate) generations: Vec<Generation>,
}

impl Nodes {
    /// Who belongs to the cluster as far as the state was told, each with whether it votes.
    #[must_use]
    pub const fn votes(&self) -> &BTreeMap<u64, bool> {
        &self.votes
    }

    /// The present generation; `None` in a log that knows none yet.
    #[must_use]
    pub fn generation(&self) -> Option<&Generation> {
        self.generations.last()
    }

    /// The generations that are kept, oldest first.
    #[must_use]
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// Begins another generation with this secret.
    pub(crate) fn begin(&mut self, secret: Secret) {
        let number = self.generation().map_or(1, |last| last.number + 1);
        if self.generations.len() == SECRETS_KEPT {
            self.generations.remove(0);
        }
        self.generations.push(Generation { number, secret });
    }

    /// Whether it is what commands can lead to.
    pub(crate) fn is_sound(&self) -> bool {
        let generations = &self.generations;
        let follow = generations.is_sorted_by(|a, b| a.number.checked_add(1) == Some(b.number));
        (1..=SECRETS_KEPT).contains(&generations.len()) && generations[0].number > 0 && follow
    }
}
