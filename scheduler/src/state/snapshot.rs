//! The whole state as bytes and back, in chunks: the same bytes for the same log on every node, however it got there.

mod accounts;
mod first;
mod restoring;
mod view;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::State;
use crate::policy::Policy;

pub use restoring::Restoring;
pub use view::View;

/// The format this version writes, and the newest it reads.
pub const SNAPSHOT_VERSION: u16 = 3;

/// The format that a state is written in: while its log is of an older one, so that older nodes read it.
const fn version_of(format: u16) -> u16 {
    if format < 3 { 2 } else { SNAPSHOT_VERSION }
}

/// Most bytes of one chunk: what a reader needs room for at a time.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Tells a snapshot from any other bytes.
const MAGIC: [u8; 4] = *b"SCSN";

/// Magic, version and checksum.
const HEADER_BYTES: usize = 4 + 2 + 8;

/// The bytes are no snapshot that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A newer version of this program wrote it, or what follows it in the log.
    #[error("the snapshot needs format {found}, and this version knows less: upgrade this node")]
    UpgradeRequired {
        /// The format it needs.
        found: u16,
    },
    /// It is not a snapshot, or was cut or changed.
    #[error("the snapshot is damaged: {0}")]
    Damaged(String),
}

/// What a chunk holds. They come in this order; all but the head may be missing or come several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Section {
    /// The version, and what is there once.
    Head,
    /// Tokens by their hash.
    Tokens,
    /// Workers by id.
    Workers,
    /// Jobs by id.
    Jobs,
    /// Replies by when they were given.
    Replies,
    /// Teams by id, from version 3 on.
    Teams,
    /// Organisations, people, their tokens and the audit trail, from version 3 on.
    Accounts,
    /// Where workers that take part in gangs are reached, from version 3 on.
    Addresses,
    /// Whom teams are for, of those that are not for everybody, from version 3 on.
    Members,
    /// What the operator says that GPUs cost, from version 3 on.
    Prices,
    /// Which folders workers put results into, from version 3 on.
    Outputs,
    /// The cluster's nodes and their secrets, from version 3 on.
    Nodes,
}

impl Section {
    /// In their order, which is their number.
    const ALL: [Self; 12] = [
        Self::Head,
        Self::Tokens,
        Self::Workers,
        Self::Jobs,
        Self::Replies,
        Self::Teams,
        Self::Accounts,
        Self::Addresses,
        Self::Members,
        Self::Prices,
        Self::Outputs,
        Self::Nodes,
    ];
}

/// What there is once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    applied_index: u64,
    now_ms: u64,
    format: u16,
    last_job: u64,
    last_worker: u64,
    last_token: u64,
    /// How many entries each section has, so that none can be missing.
    tokens: u64,
    workers: u64,
    jobs: u64,
    replies: u64,
}

/// What there is once from version 3 on, behind the head. Behind it stand how many workers have an address, how many teams are
/// not for everybody, how many prices there are, how many workers say where they put results and whether it was said who the
/// nodes are, each where there are any or something stands behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct More {
    policy: Policy,
    last_team: u64,
    teams: u64,
    accounts: accounts::Head,
}

impl State {
    /// The state as bytes, all at once: for a state that is known to be small. A large one is taken by its
    /// [`State::view`].
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&version_of(self.format).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        for chunk in self.view().chunks() {
            bytes.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&chunk);
        }
        let checksum = xxh3_64(&bytes[HEADER_BYTES..]);
        bytes[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The state of such bytes, or of those that the first version of this program kept.
    ///
    /// # Errors
    /// When a newer version is needed, or the bytes are damaged in any way.
    pub fn restore(bytes: &[u8]) -> Result<Self, Error> {
        let (version, mut body) = body(bytes)?;
        if version == first::VERSION {
            return first::restore(body);
        }
        let mut restoring = Restoring::default();
        while !body.is_empty() {
            let (length, rest) = body
                .split_first_chunk()
                .ok_or_else(|| damaged("it is too short"))?;
            let length = u32::from_le_bytes(*length) as usize;
            let (chunk, rest) = rest
                .split_at_checked(length)
                .ok_or_else(|| damaged("it is too short"))?;
            restoring.take(chunk)?;
            body = rest;
        }
        let state = restoring.finish()?;
        // The checksum is of what follows.
        if version_of(state.format) != version {
            return Err(damaged("it is in another version than it says"));
        }
        Ok(state)
    }
}

/// The version, and what follows the header, if the header is right.
fn body(bytes: &[u8]) -> Result<(u16, &[u8]), Error> {
    let (magic, rest) = bytes
        .split_first_chunk()
        .ok_or_else(|| damaged("it is too short"))?;
    if *magic != MAGIC {
        return Err(damaged("it does not begin like one"));
    }
    let (version, rest) = rest
        .split_first_chunk()
        .ok_or_else(|| damaged("it is too short"))?;
    let version = known(u16::from_le_bytes(*version))?;
    let (checksum, body) = rest
        .split_first_chunk()
        .ok_or_else(|| damaged("it is too short"))?;
    if u64::from_le_bytes(*checksum) != xxh3_64(body) {
        return Err(damaged("its checksum is wrong"));
    }
    Ok((version, body))
}

/// The version, if it is one that can be read.
fn known(version: u16) -> Result<u16, Error> {
    match version {
        0 => Err(damaged("it has no version")),
        1..=SNAPSHOT_VERSION => Ok(version),
        found => Err(Error::UpgradeRequired { found }),
    }
}

fn damaged(why: impl ToString) -> Error {
    Error::Damaged(why.to_string())
}
