//! Tells the state who belongs to the cluster: so it stands in the audit log, and what a removed node knows counts no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use stepcast_scheduler::model::Secret;
use stepcast_scheduler::{Command, State};

use crate::members::Members;
use crate::proposer::Proposer;
use crate::replica::Replicated;

/// The format of the log that knows nodes and their secret.
pub(crate) const SINCE_FORMAT: u16 = 3;

/// Proposes who belongs to the cluster if that is news to the state; whether the state knows it now, with a secret that nobody
/// has who was removed. Whoever was removed is sent no entry any more when its removal is applied here, and so never the
/// next secret: a node that has the entry of it knows that the removal was committed before, and does not lead before it has
/// applied that.
pub(crate) async fn tell(replicated: &Replicated, proposer: &Arc<Proposer>) -> bool {
    let Some((as_of, votes)) = replicated.read_at(|state, members, at| {
        let votes = news(state, members)?;
        Some((at.index, votes))
    }) else {
        return true;
    };
    let Some(secret) = secret(proposer) else {
        return false;
    };
    let command = Command::NoteNodes {
        as_of,
        votes,
        secret,
    };
    match proposer.propose(command, None).await {
        Ok(_) => true,
        // It is tried again soon.
        Err(error) => {
            tracing::debug!(%error, "it was not written down who belongs to the cluster");
            false
        }
    }
}

/// A new secret; nothing where the system has no random bytes, which is told.
pub(crate) fn secret(proposer: &Proposer) -> Option<Secret> {
    let drawn = proposer.random();
    if drawn.is_none() {
        tracing::error!("the system has no random bytes, so the cluster gets no new secret");
    }
    drawn.map(Secret)
}

/// Whether the secret that the state has is none that somebody knows who was removed.
pub(crate) fn is_settled(state: &State, members: &Members) -> bool {
    let nodes = state.nodes();
    let mut known = nodes.votes().keys();
    state.format() < SINCE_FORMAT
        || (nodes.generation().is_some() && known.all(|id| members.contains(*id)))
}

/// Everybody, each with whether it votes, where the state knows something else.
fn news(state: &State, members: &Members) -> Option<BTreeMap<u64, bool>> {
    let votes = members.ids().map(|id| (id, members.voters.contains(&id)));
    let votes: BTreeMap<u64, bool> = votes.collect();
    let nodes = state.nodes();
    let is_news = nodes.generation().is_none() || *nodes.votes() != votes;
    (state.format() >= SINCE_FORMAT && is_news).then_some(votes)
}
