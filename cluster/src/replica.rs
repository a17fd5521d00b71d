//! The state that every node keeps alike: committed entries go in, replies and effects come out.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use stepcast_scheduler::{Effect, Envelope, Rejection, Reply, State, codec};

use crate::consensus::log::Position;
use crate::consensus::{Committed, Machine, Role};
use crate::members::Members;
use crate::metrics::Metrics;
use crate::snapshotter::Due;

/// Entries applied under one hold of the lock, so that readers wait for a moment at most.
const ENTRIES_PER_HOLD: usize = 256;

/// What follows from applied entries outside of the state. Called on the apply thread: it only takes note.
pub(crate) trait Follow: Send + Sync + 'static {
    /// Something about a job has changed. Called on every node, in the order of the log.
    fn changed(&self, effects: &[Effect]);

    /// Effects of entries that this node has proposed as the leader; never those of a replay.
    fn lead(&self, effects: &[Effect]);
}

/// The state and the entry it is as of, for everybody who reads it.
pub(crate) struct Replicated {
    core: RwLock<Core>,
}

struct Core {
    state: State,
    members: Members,
    applied: Position,
}

impl Replicated {
    pub(crate) fn new(state: State, members: Members, applied: Position) -> Self {
        Self {
            core: RwLock::new(Core {
                state,
                members,
                applied,
            }),
        }
    }

    /// Reads the state as it is now. The log waits meanwhile, so `read` must be quick.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.core.read().state)
    }

    /// Reads the state and the members together with the entry they are as of.
    pub(crate) fn read_at<T>(&self, read: impl FnOnce(&State, &Members, Position) -> T) -> T {
        let core = self.core.read();
        read(&core.state, &core.members, core.applied)
    }

    /// Who belongs to the cluster, as of the newest applied entry.
    pub(crate) fn members(&self) -> Members {
        self.core.read().members.clone()
    }
}

/// Applies the log to the state.
pub(crate) struct Replica<F> {
    replicated: Arc<Replicated>,
    follow: Arc<F>,
    metrics: Arc<Metrics>,
    due: Arc<Due>,
    /// The term in which this node leads.
    leading: Option<u64>,
}

impl<F: Follow> Replica<F> {
    pub(crate) fn new(
        replicated: Arc<Replicated>,
        follow: Arc<F>,
        metrics: Arc<Metrics>,
        due: Arc<Due>,
    ) -> Self {
        Self {
            replicated,
            follow,
            metrics,
            due,
            leading: None,
        }
    }

    fn apply_some(
        &self,
        entries: &[Committed],
        envelopes: &[Envelope],
        replies: &mut Vec<Result<Reply, Rejection>>,
        effects: &mut Vec<(u64, Vec<Effect>)>,
    ) {
        let mut core = self.replicated.core.write();
        for (entry, envelope) in entries.iter().zip(envelopes) {
            let begun = Instant::now();
            let applied = core.state.apply(entry.at.index, envelope);
            self.metrics.applied(&envelope.command, begun.elapsed());
            replies.push(applied.reply);
            if !applied.effects.is_empty() {
                effects.push((entry.at.term, applied.effects));
            }
            core.applied = entry.at;
        }
    }

    fn forward(&self, effects: &mut Vec<(u64, Vec<Effect>)>) {
        for (term, effects) in effects.drain(..) {
            self.follow.changed(&effects);
            // An entry of this leader's own term was proposed by it. Older ones may have been acted upon by another
            // leader, or by this node before it was restarted: the duties look at the state and repair what was not.
            if self.leading == Some(term) {
                self.follow.lead(&effects);
            }
        }
    }
}

impl<F: Follow> Machine for Replica<F> {
    type Reply = Result<Reply, Rejection>;

    fn apply(
        &mut self,
        entries: &[Committed],
        replies: &mut Vec<Self::Reply>,
    ) -> Result<(), String> {
        let mut envelopes = Vec::with_capacity(entries.len());
        for entry in entries {
            let envelope = codec::decode(&entry.data).map_err(|error| {
                format!("log entry {} cannot be applied: {error}", entry.at.index)
            })?;
            envelopes.push(envelope);
        }
        let mut effects = Vec::new();
        for (entries, envelopes) in entries
            .chunks(ENTRIES_PER_HOLD)
            .zip(envelopes.chunks(ENTRIES_PER_HOLD))
        {
            self.apply_some(entries, envelopes, replies, &mut effects);
            self.forward(&mut effects);
        }
        self.due.applied(
            entries.len() as u64,
            entries.iter().map(|e| e.data.len() as u64).sum(),
        );
        Ok(())
    }

    fn advanced(&mut self, to: Position) {
        self.replicated.core.write().applied = to;
    }

    fn role(&mut self, role: Role) {
        self.leading = role.leads.then_some(role.term);
    }
}
