//! Names of things: short for people, fixed in width for the log, and never usable for one another.

mod alphabet;
mod hex;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use hex::{InstanceId, OutputsId, RequestId, StagingId, TokenHash};

/// The text is no id of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {expected}")]
pub struct Error {
    /// What it should have been, with its article.
    pub(crate) expected: &'static str,
}

macro_rules! short_id {
    ($name:ident, $prefix:literal, $expected:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{}{}", $prefix, alphabet::write(self.0)))
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                text.strip_prefix($prefix)
                    .and_then(alphabet::read)
                    .map(Self)
                    .ok_or(Error {
                        expected: $expected,
                    })
            }
        }
    };
}

short_id!(
    JobId,
    'j',
    "a job id",
    "A job. Written as `j` and at least four letters."
);
short_id!(
    WorkerId,
    'w',
    "a worker id",
    "A worker. Written as `w` and at least four letters."
);
short_id!(
    TokenId,
    't',
    "a token id",
    "A worker's token, not its secret. Written as `t` and at least four letters."
);

short_id!(
    TeamId,
    'g',
    "a team id",
    "A team. Written as `g` and at least four letters; people call teams by their names."
);

short_id!(
    OrgId,
    'o',
    "an organisation id",
    "An organisation that jobs belong to. Written as `o` and at least four letters."
);
short_id!(
    UserId,
    'u',
    "a user id",
    "Somebody who submits jobs: a number, not who it is. Written as `u` and at least four letters."
);

impl TeamId {
    /// The team of who has none.
    pub const DEFAULT: Self = Self(0);
}

impl Default for TeamId {
    fn default() -> Self {
        Self::DEFAULT
    }
}

short_id!(
    KeyId,
    'k',
    "a token id",
    "A person's long-lived token, not its secret. Written as `k` and at least four letters."
);

/// The fencing token of one attempt: where its placement stands in the log. A later one is always greater.
///
/// It is the index of the `Place` entry times [`Epoch::PLACEMENTS_MAX`], plus the position in that entry, since one
/// entry may place several jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Most placements in one entry: one round for a large cluster, and still a small entry.
    pub const PLACEMENTS_MAX: u64 = 256;

    /// The epoch of the placement at `position` in the entry at `index`.
    #[must_use]
    pub const fn new(index: u64, position: u8) -> Self {
        Self(index * Self::PLACEMENTS_MAX + position as u64)
    }

    /// The index of the entry that placed the attempt.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.0 / Self::PLACEMENTS_MAX
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which try of a job an attempt is, from 1.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct AttemptNumber(pub u32);

impl fmt::Display for AttemptNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
