//! What to send, persist and apply, in which order: Raft for one node, without any I/O.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType};
use raft::{Config, RawNode, ReadOnlyOption, StateRole};

use super::log::{Batch, Loaded, Position};
use super::storage::LiveLog;

/// Ticks without a leader's word before a follower campaigns; the driver ticks every 100 ms.
pub const ELECTION_TICKS: usize = 10;

/// Ticks between a leader's heartbeats.
pub const HEARTBEAT_TICKS: usize = 2;

/// Bytes of entries in one message. The default of Raft's library is one entry a message.
const MESSAGE_BYTES: u64 = 512 << 10;

/// Bytes of entries handed to apply at once: enough to work in batches, little enough to let readers in between.
const APPLY_BYTES: u64 = 2 << 20;

/// Bytes of entries proposed but not committed; beyond it proposals are dropped. The handle's own bound is lower, so
/// this is met only when a follower's proposals pile up.
const UNCOMMITTED_BYTES: u64 = 128 << 20;

/// Messages on their way to one follower.
const IN_FLIGHT_MESSAGES: usize = 64;

/// One node's Raft.
pub struct Peer {
    raw: RawNode<LiveLog>,
    role: Role,
}

/// What this node is in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// The term.
    pub term: u64,
    /// Who leads it, if known.
    pub leader: Option<u64>,
    /// Whether that is this node.
    pub leads: bool,
}

/// Entries that were appended for a proposal: `first_index` and those after it, all of one term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposed {
    /// Index and term of the first.
    pub first: Position,
}

/// A proposal was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// This node does not lead.
    NotLeader,
    /// Too much is uncommitted, or leadership is being handed over: try again.
    Busy,
}

/// What the driver has to do, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send at once.
    Send(Vec<Message>),
    /// Put on disk; the turns' numbers come back in order through [`Peer::persisted`].
    Persist(Write),
    /// Apply these committed entries.
    Apply(Vec<Entry>),
    /// Every write acknowledged before this read was asked for is at or below `index`.
    ReadAt {
        /// The number given to [`Peer::read`].
        read: u64,
        /// The index to have applied first.
        index: u64,
    },
    /// Term, leader or both have changed.
    Role(Role),
}

/// One turn's share of the log.
#[derive(Debug)]
pub struct Write {
    /// The turn's number.
    pub number: u64,
    /// What to write; may be empty.
    pub batch: Batch,
    /// Whether it must be on disk before it counts.
    pub sync: bool,
    /// What may be sent only after that.
    pub then_send: Vec<Message>,
}

/// Raft refuses its input.
#[derive(Debug, thiserror::Error)]
#[error("raft refuses what is stored")]
pub struct Error(#[from] raft::Error);

impl Peer {
    /// Starts from what is on disk. `applied` is the entry the state is restored to, and `conf_state` who votes as of it.
    pub fn new(
        id: u64,
        loaded: Loaded,
        conf_state: ConfState,
        applied: u64,
    ) -> Result<Self, Error> {
        let config = Config {
            id,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied,
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: IN_FLIGHT_MESSAGES,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            batch_append: true,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            max_committed_size_per_ready: APPLY_BYTES,
            ..Config::default()
        };
        config.validate()?;
        let logger = super::logger::to_tracing();
        let raw = RawNode::new(&config, LiveLog::new(loaded, conf_state), &logger)?;
        Ok(Self {
            raw,
            role: Role::default(),
        })
    }

    /// Elects this node at once if nobody else votes, instead of after the first timeout.
    pub fn start(&mut self) -> Result<(), Error> {
        if self.voters() == [self.raw.raft.id] {
            self.raw.campaign()?;
        }
        Ok(())
    }

    /// A tick has passed.
    pub fn tick(&mut self) {
        self.raw.tick();
    }

    /// A message came from another node. What no peer has business sending is dropped.
    pub fn step(&mut self, message: Message) {
        let stranger = self.raw.raft.prs().get(message.from).is_none();
        let unfit = match message.get_msg_type() {
            // Proposals go to the leader through its own front door, so that they are counted and answered there.
            MessageType::MsgPropose => true,
            MessageType::MsgTimeoutNow | MessageType::MsgTransferLeader => stranger,
            _ => message.to != self.raw.raft.id,
        };
        if unfit {
            return;
        }
        if let Err(error) = self.raw.step(message) {
            tracing::debug!(%error, "a raft message was refused");
        }
    }

    /// Appends these entries in one go, if this node leads.
    pub fn propose(&mut self, data: Vec<Bytes>) -> Result<Proposed, Dropped> {
        if self.raw.raft.state != StateRole::Leader || data.is_empty() {
            return Err(Dropped::NotLeader);
        }
        let index = self.raw.raft.raft_log.last_index() + 1;
        let term = self.raw.raft.term;
        let entries: Vec<Entry> = data
            .into_iter()
            .map(|data| Entry {
                data,
                ..Entry::default()
            })
            .collect();
        let mut message = Message {
            from: self.raw.raft.id,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        self.raw.step(message).map_err(|_| Dropped::Busy)?;
        Ok(Proposed {
            first: Position { index, term },
        })
    }

    /// Asks how far the log must be applied for a read to see every acknowledged write. False while this node cannot
    /// say: it does not lead, or has not committed an entry of its own term yet.
    pub fn read(&mut self, number: u64) -> bool {
        if self.raw.raft.state != StateRole::Leader || !self.raw.raft.commit_to_current_term() {
            return false;
        }
        self.raw.read_index(number.to_le_bytes().to_vec());
        true
    }

    /// Every turn up to this number is on disk.
    pub fn persisted(&mut self, number: u64) {
        self.raw.on_persist_ready(number);
    }

    /// Every entry up to this index is applied.
    pub fn applied(&mut self, index: u64) {
        if index > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(index);
        }
    }

    /// Forgets the log up to `index`, which is in a snapshot. Says where it then begins, for the log on disk.
    pub fn compact(&mut self, index: u64) -> Option<Position> {
        let applied = self.raw.raft.raft_log.applied;
        self.raw.mut_store().compact(index.min(applied))
    }

    /// Moves what must be done into `out`.
    pub fn outputs(&mut self, out: &mut Vec<Output>) {
        while self.raw.has_ready() {
            self.turn(out);
        }
        let role = self.role();
        if role != self.role {
            self.role = role;
            out.push(Output::Role(role));
        }
    }

    /// Term and leader, now.
    pub fn role(&self) -> Role {
        let raft = &self.raw.raft;
        Role {
            term: raft.term,
            leader: (raft.leader_id != 0).then_some(raft.leader_id),
            leads: raft.state == StateRole::Leader,
        }
    }

    /// Highest committed index.
    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// The log's last entry.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// Who votes, in order.
    pub fn voters(&self) -> Vec<u64> {
        let mut voters = self.conf_state().voters;
        voters.sort_unstable();
        voters
    }

    /// Who votes and learns, as a snapshot keeps it.
    pub fn conf_state(&self) -> ConfState {
        self.raw.raft.prs().conf().to_conf_state()
    }

    /// Takes the only chance out of Raft's library: when a simulated node campaigns follows from the seed.
    #[cfg(test)]
    pub(super) fn set_election_timeout(&mut self, ticks: usize) {
        self.raw
            .raft
            .set_randomized_election_timeout(ticks.clamp(ELECTION_TICKS, 2 * ELECTION_TICKS - 1));
    }

    fn turn(&mut self, out: &mut Vec<Output>) {
        let mut ready = self.raw.ready();
        // Only a leader has any: it may send entries while it writes them itself.
        let messages = ready.take_messages();
        if !messages.is_empty() {
            out.push(Output::Send(messages));
        }
        let entries = ready.take_entries();
        self.raw.mut_store().append(&entries);
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().set_hard_state(hard_state.clone());
        }
        for state in ready.take_read_states() {
            if let Ok(number) = <[u8; 8]>::try_from(state.request_ctx.as_slice()) {
                out.push(Output::ReadAt {
                    read: u64::from_le_bytes(number),
                    index: state.index,
                });
            }
        }
        let committed = ready.take_committed_entries();
        let write = Write {
            number: ready.number(),
            batch: Batch::new(entries, ready.hs().cloned()),
            sync: ready.must_sync(),
            then_send: ready.take_persisted_messages(),
        };
        self.raw.advance_append_async(ready);
        out.push(Output::Persist(write));
        if !committed.is_empty() {
            self.change_members(&committed);
            out.push(Output::Apply(committed));
        }
    }

    fn change_members(&mut self, committed: &[Entry]) {
        for entry in committed {
            let changed = match entry.get_entry_type() {
                EntryType::EntryNormal => continue,
                EntryType::EntryConfChange => ConfChange::parse_from_bytes(&entry.data)
                    .map_err(raft::Error::from)
                    .and_then(|change| self.raw.apply_conf_change(&change)),
                EntryType::EntryConfChangeV2 => ConfChangeV2::parse_from_bytes(&entry.data)
                    .map_err(raft::Error::from)
                    .and_then(|change| self.raw.apply_conf_change(&change)),
            };
            if let Err(error) = changed {
                tracing::error!(%error, index = entry.index, "a change of members was not understood");
            }
        }
    }
}
