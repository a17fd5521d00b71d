//! What the leader says of the cluster's nodes: who has come or gone is written down, and who has gone knows no secret of
//! what comes after.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::State;
use super::apply::Entry;
use crate::accounts::{Action, Actor};
use crate::model::{Nodes, Secret};
use crate::rejection::Rejection;
use crate::reply::Reply;

impl State {
    /// The cluster's nodes and what only they know, as far as the state was told.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Forgets the nodes and every secret of theirs, where a new cluster begins with the state of another one: it gets a secret of
    /// its own, that nobody knows who has the backup.
    pub fn leave_nodes(&mut self) {
        self.nodes = Arc::default();
    }

    /// Takes who belongs to the cluster as of an entry. With somebody gone another generation begins, and so does the first.
    pub(super) fn note_nodes(
        &mut self,
        entry: &Entry,
        as_of: u64,
        votes: &BTreeMap<u64, bool>,
        secret: Secret,
    ) -> Reply {
        let is_first = self.nodes.generations.is_empty();
        // Two words of one leader may pass each other on their way.
        if as_of < self.nodes.as_of {
            return Reply::Done;
        }
        let nodes = Arc::make_mut(&mut self.nodes);
        let before = std::mem::replace(&mut nodes.votes, votes.clone());
        nodes.as_of = as_of;
        let is_one_gone = before.keys().any(|id| !votes.contains_key(id));
        if is_first || is_one_gone {
            nodes.begin(secret);
        }
        // Who was there before anybody said so has not come now.
        if !is_first {
            self.write_down_nodes(entry, &before, votes);
        }
        Reply::Done
    }

    /// Begins another generation because somebody asks for it.
    pub(super) fn renew_secret(&mut self, secret: Secret) -> Result<Reply, Rejection> {
        if self.nodes.generations.is_empty() {
            return Err(Rejection::NotYet);
        }
        Arc::make_mut(&mut self.nodes).begin(secret);
        Ok(Reply::Done)
    }

    /// Nobody has asked for these here and now: they were let in by a token, or somebody's removal has come about.
    fn write_down_nodes(
        &mut self,
        entry: &Entry,
        before: &BTreeMap<u64, bool>,
        now: &BTreeMap<u64, bool>,
    ) {
        let trail = &mut self.accounts.trail;
        let mut note = |id: u64, what: &str| {
            let subject = format!("nodes/{id}/{what}");
            trail.add(entry.now_ms, Actor::OPERATOR, Action::ChangeNodes, subject);
        };
        for (id, votes) in now {
            if !before.contains_key(id) {
                note(*id, "joined");
            }
            if *votes && before.get(id) != Some(&true) {
                note(*id, "vote");
            }
        }
        for id in before.keys().filter(|id| !now.contains_key(id)) {
            note(*id, "removed");
        }
    }
}
