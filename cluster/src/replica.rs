//! The state that every node keeps alike: committed entries go in, replies and effects come out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use stepcast_scheduler::{Command, Effect, Envelope, Rejection, Reply, State, codec};

use crate::consensus::log::Position;
use crate::consensus::{Committed, Machine, Role, UNREADABLE};
use crate::members::Members;

/// Entries applied under one hold of the lock, so that readers wait for a moment at most.
const ENTRIES_PER_HOLD: usize = 256;

/// What follows from applied entries outside of the state. Called on the apply thread: it only takes note.
pub trait Follow: Send + Sync + 'static {
    /// Something about a job has changed. Called on every node, in the order of the log.
    fn changed(&self, effects: &[Effect]);

    /// Effects of entries that this node has proposed as the leader; never those of a replay.
    fn lead(&self, effects: &[Effect]);

    /// One command was applied, in this time.
    fn applied(&self, command: &Command, took: Duration);

    /// This many entries of so many bytes were applied.
    fn grown(&self, entries: u64, bytes: u64);

    /// The state was replaced as a whole, by the snapshot of this entry: whoever follows it has to look again.
    fn replaced(&self, at: Position);
}

/// Snapshots that come from other nodes.
pub trait Received: Send + 'static {
    /// The state in the snapshot of this entry, which has come in whole; from now on a start finds it as well.
    fn take(&self, at: Position) -> Result<State, String>;
}

/// The state and the entry it is as of, for everybody who reads it.
pub struct Replicated {
    core: RwLock<Core>,
    /// The state's format, for whoever writes an entry: looked at without waiting for the log.
    format: AtomicU16,
    /// The state's newest stamp, for the same.
    newest_stamp_ms: AtomicU64,
}

struct Core {
    state: State,
    members: Members,
    applied: Position,
}

impl Replicated {
    /// This state and these members, as of this entry.
    pub fn new(state: State, members: Members, applied: Position) -> Self {
        Self {
            format: AtomicU16::new(state.format()),
            newest_stamp_ms: AtomicU64::new(state.newest_stamp_ms()),
            core: RwLock::new(Core {
                state,
                members,
                applied,
            }),
        }
    }

    /// The format of the log that every node reads: what is proposed is written in it.
    pub fn format(&self) -> u16 {
        self.format.load(Ordering::Acquire)
    }

    /// The newest stamp that is applied, in milliseconds since 1970: no entry has a time before it.
    pub fn newest_stamp_ms(&self) -> u64 {
        self.newest_stamp_ms.load(Ordering::Acquire)
    }

    /// Reads the state as it is now. The log waits meanwhile, so `read` must be quick.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.core.read().state)
    }

    /// Reads the state and the members together with the entry they are as of.
    pub fn read_at<T>(&self, read: impl FnOnce(&State, &Members, Position) -> T) -> T {
        let core = self.core.read();
        read(&core.state, &core.members, core.applied)
    }

    fn note(&self, state: &State) {
        self.format.store(state.format(), Ordering::Release);
        let newest = state.newest_stamp_ms();
        self.newest_stamp_ms.store(newest, Ordering::Release);
    }

    /// Who belongs to the cluster, as of the newest applied entry.
    pub fn members(&self) -> Members {
        self.core.read().members.clone()
    }
}

/// Applies the log to the state.
pub struct Replica<F, S> {
    replicated: Arc<Replicated>,
    follow: Arc<F>,
    received: S,
    /// The term in which this node leads.
    leading: Option<u64>,
    /// The newest format of the log that this node goes along with.
    newest: u16,
}

impl<F: Follow, S: Received> Replica<F, S> {
    /// Keeps this state up to date, as long as the log is in no newer format than this.
    pub fn new(replicated: Arc<Replicated>, follow: Arc<F>, received: S, newest: u16) -> Self {
        Self {
            replicated,
            follow,
            received,
            leading: None,
            newest,
        }
    }

    /// A node that is held at an older format stops where a program that knows no other would stop.
    fn read(&self, data: &[u8]) -> Result<Envelope, String> {
        let envelope = codec::decode(data).map_err(unreadable)?;
        let format = match envelope.command {
            Command::Barrier { version } => version.max(envelope.version),
            _ => envelope.version,
        };
        self.goes_along(format)?;
        Ok(envelope)
    }

    fn goes_along(&self, format: u16) -> Result<(), String> {
        let newest = self.newest;
        (format <= newest).then_some(()).ok_or_else(|| {
            format!(
                "it is written in format {format}, and this node is held at format {newest}: start it without --hold-format"
            )
        })
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
            let _span = tracing::debug_span!("apply", index = entry.at.index).entered();
            let begun = Instant::now();
            let applied = core.state.apply(entry.at.index, envelope);
            self.follow.applied(&envelope.command, begun.elapsed());
            replies.push(applied.reply);
            if !applied.effects.is_empty() {
                effects.push((entry.at.term, applied.effects));
            }
            core.applied = entry.at;
        }
        self.replicated.note(&core.state);
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

/// Why an entry cannot be read, and what to do.
fn unreadable(error: codec::Error) -> String {
    match error {
        codec::Error::UpgradeRequired { .. } => error.to_string(),
        codec::Error::Malformed(_) => format!("{error}: {UNREADABLE}"),
    }
}

impl<F: Follow, S: Received> Machine for Replica<F, S> {
    type Reply = Result<Reply, Rejection>;

    fn apply(
        &mut self,
        entries: &[Committed],
        replies: &mut Vec<Self::Reply>,
    ) -> Result<(), String> {
        let mut envelopes = Vec::with_capacity(entries.len());
        let mut unreadable = Ok(());
        for entry in entries {
            match self.read(&entry.data) {
                Ok(envelope) => envelopes.push(envelope),
                // What came before it was committed and can be read here all the same.
                Err(error) => {
                    let index = entry.at.index;
                    unreadable = Err(format!("log entry {index} cannot be applied: {error}"));
                    break;
                }
            }
        }
        let entries = &entries[..envelopes.len()];
        let mut effects = Vec::new();
        for (entries, envelopes) in entries
            .chunks(ENTRIES_PER_HOLD)
            .zip(envelopes.chunks(ENTRIES_PER_HOLD))
        {
            self.apply_some(entries, envelopes, replies, &mut effects);
            self.forward(&mut effects);
        }
        self.follow.grown(
            entries.len() as u64,
            entries.iter().map(|e| e.data.len() as u64).sum(),
        );
        unreadable
    }

    fn members(&mut self, members: &Members, at: Position) {
        let mut core = self.replicated.core.write();
        core.members.clone_from(members);
        core.applied = at;
    }

    fn install(&mut self, at: Position, members: &Members) -> Result<(), String> {
        let state = self.received.take(at).map_err(|why| {
            format!("what another node has sent cannot be taken up: {why}: look at this node's disk, and start it again")
        })?;
        self.goes_along(state.format())?;
        let old = {
            let mut core = self.replicated.core.write();
            core.members.clone_from(members);
            core.applied = at;
            self.replicated.note(&state);
            std::mem::replace(&mut core.state, state)
        };
        self.follow.replaced(at);
        // A large one takes a while, and nobody has to wait for that.
        drop(old);
        Ok(())
    }

    fn advanced(&mut self, to: Position) {
        self.replicated.core.write().applied = to;
    }

    fn role(&mut self, role: Role) {
        self.leading = role.leads.then_some(role.term);
    }
}
