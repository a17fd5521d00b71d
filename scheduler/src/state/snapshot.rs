//! The whole state as bytes and back: a version, a checksum, and the same bytes for the same log on every node.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::requests::Remembered;
use super::{Indexes, Requests, State};
use crate::codec;
use crate::ids::{JobId, RequestId, TokenHash, WorkerId};
use crate::invariants;
use crate::model::{Job, Token, Worker};

/// The format this version writes, and the newest it reads.
pub const SNAPSHOT_VERSION: u16 = 1;

/// Tells a snapshot from any other file.
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

/// What a snapshot keeps. Indexes are made anew.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    applied_index: u64,
    now_ms: u64,
    format: u16,
    last_job: u64,
    last_worker: u64,
    last_token: u64,
    jobs: Cow<'a, BTreeMap<JobId, Job>>,
    workers: Cow<'a, BTreeMap<WorkerId, Worker>>,
    tokens: Cow<'a, BTreeMap<TokenHash, Token>>,
    replies: Cow<'a, BTreeMap<RequestId, Remembered>>,
}

impl State {
    /// The state as bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let kept = Kept {
            applied_index: self.applied_index,
            now_ms: self.now_ms,
            format: self.format,
            last_job: self.last_job,
            last_worker: self.last_worker,
            last_token: self.last_token,
            jobs: Cow::Borrowed(&self.jobs),
            workers: Cow::Borrowed(&self.workers),
            tokens: Cow::Borrowed(&self.tokens),
            replies: Cow::Borrowed(self.requests.replies()),
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 512 * self.jobs.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let mut bytes = match postcard::to_extend(&kept, bytes) {
            Ok(bytes) => bytes,
            // Memory grows as needed and every length is known beforehand, so there is nothing left that could fail.
            Err(error) => unreachable!("a state is always encodable: {error}"),
        };
        let checksum = xxh3_64(&bytes[HEADER_BYTES..]);
        bytes[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The state of such bytes.
    ///
    /// # Errors
    /// When a newer version is needed, or the bytes are damaged in any way.
    pub fn restore(bytes: &[u8]) -> Result<Self, Error> {
        let body = body(bytes)?;
        let (kept, rest): (Kept<'_>, _) = postcard::take_from_bytes(body).map_err(damaged)?;
        if !rest.is_empty() {
            return Err(damaged("it is too long"));
        }
        if kept.format > codec::VERSION {
            return Err(Error::UpgradeRequired { found: kept.format });
        }
        let jobs = kept.jobs.into_owned();
        let state = Self {
            applied_index: kept.applied_index,
            now_ms: kept.now_ms,
            format: kept.format,
            last_job: kept.last_job,
            last_worker: kept.last_worker,
            last_token: kept.last_token,
            indexes: Indexes::of(jobs.values()),
            jobs,
            workers: kept.workers.into_owned(),
            tokens: kept.tokens.into_owned(),
            requests: Requests::from_replies(kept.replies.into_owned()),
        };
        match invariants::check(&state).into_iter().next() {
            None => Ok(state),
            Some(violation) => Err(damaged(violation)),
        }
    }
}

/// What follows the header, if the header is right.
fn body(bytes: &[u8]) -> Result<&[u8], Error> {
    let (magic, rest) = bytes
        .split_first_chunk()
        .ok_or_else(|| damaged("it is too short"))?;
    if *magic != MAGIC {
        return Err(damaged("it does not begin like one"));
    }
    let (version, rest) = rest
        .split_first_chunk()
        .ok_or_else(|| damaged("it is too short"))?;
    let version = u16::from_le_bytes(*version);
    if version > SNAPSHOT_VERSION {
        return Err(Error::UpgradeRequired { found: version });
    }
    if version == 0 {
        return Err(damaged("it has no version"));
    }
    let (checksum, body) = rest
        .split_first_chunk()
        .ok_or_else(|| damaged("it is too short"))?;
    if u64::from_le_bytes(*checksum) != xxh3_64(body) {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(body)
}

fn damaged(why: impl ToString) -> Error {
    Error::Damaged(why.to_string())
}
