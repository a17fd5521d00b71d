//! What to send, persist and apply, in which order: Raft for one node, without any I/O.

mod changes;
mod election;
mod followers;
mod own_disk;
mod retries;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{Config, RawNode, ReadOnlyOption, Ready, StateRole};

use self::election::Leaderless;
pub use self::followers::{NodeProgress, Sending};
pub use self::own_disk::HANGS_TICKS;
use self::own_disk::OwnDisk;
use self::retries::Retries;
use super::log::{Batch, Loaded, Position};
use super::storage::LiveLog;
use crate::members::Members;

/// Ticks without a leader's word before a follower campaigns; the driver ticks every 50 ms.
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
    /// As of the newest entry that was handed out to be applied.
    members: Members,
    role: Role,
    /// Snapshots whose place in the log is being written, by the turn that writes it.
    installing: VecDeque<(u64, Position, Members)>,
    /// The newest of them: until it is applied this node must not campaign.
    installed: u64,
    /// Whom a snapshot has not reached.
    retries: Retries,
    /// The newest turn, and the newest that is on disk.
    handed: u64,
    persisted: u64,
    own_disk: OwnDisk,
    /// The newest term, and the turn that puts it on disk.
    term: (u64, u64),
    /// Whether somebody chooses when this node campaigns.
    chosen_timeout: bool,
    /// Members that have closed their connection and are not reached again.
    hung_up: BTreeSet<u64>,
    /// Whether this node campaigns, or is about to, because its leader is among them.
    hurries: bool,
    /// Decided between two turns.
    decided: Vec<Output>,
    /// How it fares without a leader.
    leaderless: Leaderless,
}

/// What a node begins with.
#[derive(Debug)]
pub struct Begin {
    /// This node, never 0.
    pub id: u64,
    /// What was read from its log.
    pub loaded: Loaded,
    /// The entry the state is restored to.
    pub applied: u64,
    /// Who belongs to the cluster as of that entry.
    pub members: Members,
    /// The newest snapshot on disk, to be sent to a node that is too far behind.
    pub snapshot: Option<(Position, Members)>,
}

/// The context of a read: unique among all nodes and all lives of each, since an answer may come late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId {
    /// Who asks.
    pub node: u64,
    /// In which of its lives: drawn at random at its start.
    pub life: u64,
    /// The question's number in this life.
    pub number: u64,
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
    Apply {
        /// In order, without a gap.
        entries: Vec<Entry>,
        /// Who belongs to the cluster after each of them that changes it, by its index.
        changes: Vec<(u64, Members)>,
    },
    /// Replace the state by the snapshot of this entry, which has come in. The log on disk begins behind it already.
    Install {
        /// The last entry that is in it.
        at: Position,
        /// Who belongs to the cluster as of it.
        members: Members,
    },
    /// Every write acknowledged before this read was asked for is at or below `index`.
    ReadAt {
        /// What was given to [`Peer::read`].
        read: ReadId,
        /// The index to have applied first.
        index: u64,
    },
    /// Term, leader or both have changed.
    Role(Role),
    /// Who belongs to the cluster has changed.
    Members(Members),
    /// A node is so far behind that it needs a snapshot, and there is none that would do: take one.
    SnapshotWanted,
    /// This node must not go on, and why.
    Fail(String),
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
    /// Starts from what is on disk.
    pub fn new(begin: Begin) -> Result<Self, Error> {
        let config = Config {
            id: begin.id,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: begin.applied,
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: IN_FLIGHT_MESSAGES,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            // Raft's library merges entries into a message that is still to be sent without a look at where that begins:
            // an empty probe of entry 82 and entries 77 to 82 became six entries behind 82, and the follower said that
            // it had 88. Proposals come in batches anyway.
            batch_append: false,
            // Followers learn how far the log is committed with what they are sent next: an entry, or the next heartbeat.
            // A message of its own for it would double the messages of every append.
            skip_bcast_commit: true,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            max_committed_size_per_ready: APPLY_BYTES,
            ..Config::default()
        };
        config.validate()?;
        let logger = super::logger::to_tracing();
        let term = begin.loaded.hard_state.term;
        let log = LiveLog::new(begin.loaded, &begin.members, begin.snapshot);
        Ok(Self {
            raw: RawNode::new(&config, log, &logger)?,
            members: begin.members,
            role: Role::default(),
            installing: VecDeque::new(),
            installed: 0,
            retries: Retries::default(),
            handed: 0,
            persisted: 0,
            own_disk: OwnDisk::default(),
            term: (term, 0),
            chosen_timeout: false,
            hung_up: BTreeSet::new(),
            hurries: false,
            decided: Vec::new(),
            leaderless: Leaderless::default(),
        })
    }

    /// Elects this node at once if nobody else votes, instead of after the first timeout.
    pub fn start(&mut self) -> Result<(), Error> {
        if self.votes_alone() {
            self.raw.campaign()?;
        }
        Ok(())
    }

    /// A message came from another node. What no peer has business sending is dropped.
    pub fn step(&mut self, message: Message) {
        let stranger = self.raw.raft.prs().get(message.from).is_none();
        let unfit = match message.get_msg_type() {
            // Only a question for a read has no term. The library takes anything else without one for its own doing,
            // and stops the process over such a vote.
            kind if message.term == 0 && kind != MessageType::MsgReadIndex => true,
            // Proposals and transfers go to the leader through its own front door, so that they are answered there.
            MessageType::MsgPropose | MessageType::MsgTransferLeader => true,
            MessageType::MsgTimeoutNow => stranger || self.must_not_campaign(),
            // Asked again by who asks; handed on, it could go in circles. Without its one entry, which is the question,
            // Raft's library stops the process.
            MessageType::MsgReadIndex => {
                self.raw.raft.state != StateRole::Leader || message.entries.len() != 1
            }
            MessageType::MsgAppend => !is_whole(&message),
            _ => false,
        };
        if unfit || message.to != self.raw.raft.id {
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

    /// Asks how far the log must be applied for a read to see every acknowledged write. False while nobody can say:
    /// there is no leader, or it is this node and has not committed an entry of its own term yet. A question to another
    /// node may get lost, in silence.
    pub fn read(&mut self, read: ReadId) -> bool {
        let raft = &self.raw.raft;
        let able = match raft.state {
            StateRole::Leader => raft.commit_to_current_term(),
            _ => self.role().leader.is_some(),
        };
        if able {
            self.raw.read_index(read.to_bytes());
        }
        able
    }

    /// Every turn up to this number is on disk.
    pub fn persisted(&mut self, number: u64) {
        self.persisted = number;
        self.own_disk.answered();
        self.raw.on_persist_ready(number);
        while let Some((turn, ..)) = self.installing.front()
            && *turn <= number
        {
            if let Some((_, at, members)) = self.installing.pop_front() {
                self.decided.push(Output::Install { at, members });
            }
        }
    }

    /// Every entry up to this index is applied.
    pub fn applied(&mut self, index: u64) {
        if index > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(index);
        }
    }

    /// A snapshot of this entry is on disk, and can be sent.
    pub fn snapshot_taken(&mut self, at: Position, members: Members) {
        self.raw.mut_store().set_snapshot(at, members);
    }

    /// Moves what must be done into `out`.
    pub fn outputs(&mut self, out: &mut Vec<Output>) {
        out.append(&mut self.decided);
        while self.raw.has_ready() {
            self.turn(out);
        }
        if self.raw.store().take_wanted() {
            out.push(Output::SnapshotWanted);
        }
        let role = self.role();
        if role != self.role {
            self.retries.clear();
            self.role = role;
            out.push(Output::Role(role));
        }
    }

    /// Term and leader, now.
    pub fn role(&self) -> Role {
        let raft = &self.raw.raft;
        Role {
            term: raft.term,
            leader: (raft.leader_id != 0 && !self.is_left()).then_some(raft.leader_id),
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

    /// This node.
    pub fn id(&self) -> u64 {
        self.raw.raft.id
    }

    /// Who belongs to the cluster, as of the newest committed entry that was handed out.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Whether this node is the only voter.
    pub(super) fn votes_alone(&self) -> bool {
        self.members.outgoing.is_empty() && self.members.voters.iter().eq([&self.raw.raft.id])
    }

    fn turn(&mut self, out: &mut Vec<Output>) {
        let mut ready = self.raw.ready();
        if let Some(hard_state) = ready.hs().filter(|hs| hs.term > self.term.0) {
            self.term = (hard_state.term, ready.number());
        }
        // Only a leader has any: it may send entries while it writes them itself.
        let mut leading = ready.take_messages();
        self.snapshots_begin(&leading);
        if !leading.is_empty() && self.persisted >= self.term.1 {
            out.push(Output::Send(std::mem::take(&mut leading)));
        }
        let mut reset = None;
        if !ready.snapshot().is_empty() {
            match self.restore(&ready) {
                Ok(at) => {
                    reset = Some(at);
                    out.push(Output::Members(self.members.clone()));
                }
                Err(why) => out.push(Output::Fail(why)),
            }
        }
        let entries = ready.take_entries();
        self.raw.mut_store().append(&entries);
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().set_hard_state(hard_state.clone());
        }
        for state in ready.take_read_states() {
            if let Some(read) = ReadId::from_bytes(&state.request_ctx) {
                let index = state.index;
                out.push(Output::ReadAt { read, index });
            }
        }
        let committed = ready.take_committed_entries();
        let (at_once, then_send): (Vec<_>, Vec<_>) = ready
            .take_persisted_messages()
            .into_iter()
            .partition(|message| self.needs_no_disk(message));
        if !at_once.is_empty() {
            out.push(Output::Send(at_once));
        }
        // Who votes alone leads before its term is on disk. A learner must not hear of it until then: after a crash the
        // same term would begin again, with other entries.
        leading.extend(then_send);
        let write = Write {
            number: ready.number(),
            batch: Batch::new(reset, entries, ready.hs().cloned()),
            sync: ready.must_sync(),
            then_send: leading,
        };
        self.handed = write.number;
        self.raw.advance_append_async(ready);
        out.push(Output::Persist(write));
        if !committed.is_empty() {
            let changes = self.change_members(&committed, out);
            out.push(Output::Apply {
                entries: committed,
                changes,
            });
        }
    }

    /// A snapshot takes the place of the log, in memory at once and on disk with this turn's write.
    fn restore(&mut self, ready: &Ready) -> Result<Position, String> {
        let metadata = ready.snapshot().get_metadata();
        let at = Position {
            index: metadata.index,
            term: metadata.term,
        };
        let members = Members::decode(ready.snapshot().get_data()).ok_or_else(|| {
            format!(
                "the members in the snapshot of entry {} cannot be read: upgrade this node",
                at.index
            )
        })?;
        self.raw.mut_store().restore(at, &members);
        self.members.clone_from(&members);
        self.installing.push_back((ready.number(), at, members));
        self.installed = at.index;
        Ok(at)
    }
}

impl ReadId {
    fn to_bytes(self) -> Vec<u8> {
        [self.node, self.life, self.number]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 24] = bytes.try_into().ok()?;
        let word = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        Some(Self {
            node: word(0)?,
            life: word(8)?,
            number: word(16)?,
        })
    }
}

/// Whether the entries of a message follow the one it names, one after the other, in terms that never fall and are not
/// beyond the sender's. Raft's library does not look: it would answer for entries that were never sent, and stops the
/// process over one of no term.
fn is_whole(message: &Message) -> bool {
    let mut before = (message.index, message.log_term.max(1));
    message.get_entries().iter().all(|entry| {
        let follows = before.0.checked_add(1) == Some(entry.index)
            && (before.1..=message.term).contains(&entry.term);
        before = (entry.index, entry.term);
        follows
    })
}
