//! Snapshots of the first version: everything in one piece, replies in the order of their ids.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::requests::Given;
use super::super::{Indexes, Jobs, Requests, State};
use super::{Error, damaged};
use crate::accounts::Accounts;
use crate::codec;
use crate::ids::{JobId, RequestId, TokenHash, WorkerId};
use crate::invariants;
use crate::model::{Job, Token, Worker};
use crate::policy::Policy;
use crate::reply::Reply;

/// Its number.
pub(super) const VERSION: u16 = 1;

/// All of it.
#[derive(Serialize, Deserialize)]
struct Kept {
    applied_index: u64,
    now_ms: u64,
    format: u16,
    last_job: u64,
    last_worker: u64,
    last_token: u64,
    jobs: BTreeMap<JobId, Job>,
    workers: BTreeMap<WorkerId, Worker>,
    tokens: BTreeMap<TokenHash, Token>,
    replies: BTreeMap<RequestId, Remembered>,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    stamp_ms: u64,
    command_hash: u64,
    reply: Reply,
}

/// The state of what follows the header.
pub(super) fn restore(body: &[u8]) -> Result<State, Error> {
    let (kept, rest): (Kept, _) = postcard::take_from_bytes(body).map_err(damaged)?;
    if !rest.is_empty() {
        return Err(damaged("it is too long"));
    }
    if kept.format > codec::VERSION {
        return Err(Error::UpgradeRequired { found: kept.format });
    }
    let mut requests = Requests::default();
    for (
        id,
        Remembered {
            stamp_ms,
            command_hash,
            reply,
        },
    ) in kept.replies
    {
        requests.insert(
            stamp_ms,
            id,
            Given {
                command_hash,
                reply,
            },
        );
    }
    let indexes = Indexes::of(kept.jobs.values());
    let mut jobs = Jobs::default();
    for (id, job) in kept.jobs {
        if id != job.id {
            return Err(damaged("a job is under another one's id"));
        }
        jobs.insert(job);
    }
    let state = State {
        applied_index: kept.applied_index,
        now_ms: kept.now_ms,
        format: kept.format,
        last_job: kept.last_job,
        last_worker: kept.last_worker,
        last_token: kept.last_token,
        last_team: 0,
        policy: Policy::default(),
        teams: Arc::default(),
        accounts: Accounts::default(),
        prices: Arc::default(),
        nodes: Arc::default(),
        jobs,
        workers: Arc::new(kept.workers),
        tokens: Arc::new(kept.tokens),
        requests,
        indexes,
    };
    match invariants::check(&state).into_iter().next() {
        None => Ok(state),
        Some(violation) => Err(damaged(violation)),
    }
}
