//! What one node decides about its log: proposals in batches, reads, changes of members, and who is told what in which
//! order. Pure: no thread, no clock, no disk and no network, so that many of them can run in one thread from a seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use raft::eraftpb::Message;

use super::change::{Change, ChangeError};
use super::event::{ChangeWaiter, Event, Task, Waiter};
use super::handle::Refused;
use super::log::Position;
use super::peer::{self, Begin, Dropped, ELECTION_TICKS, NodeProgress, Output, Peer, Role, Write};
use super::reads::Reads;
use crate::members::Members;

/// Entries in one proposal message; more are split, so that one turn's work stays in the cache.
const PROPOSE_AT_ONCE: usize = 4096;

/// What a node is told that was removed.
const REMOVED: &str = "this node was removed from the cluster; to take part again it has to join with an empty data \
                       directory";

/// One node's decisions. Told what happened with [`Core::handle`] and [`Core::tick`], it says with [`Core::effects`] what
/// is to be done about it.
pub struct Core<R> {
    peer: Peer,
    reads: Reads,
    ticks: u64,
    /// When each other node was last heard.
    heard: BTreeMap<u64, u64>,
    stalled: bool,
    data: Vec<Bytes>,
    waiters: Vec<Waiter<R>>,
    effects: Vec<Effect<R>>,
    outputs: Vec<Output>,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect<R> {
    /// Send these.
    Send(Vec<Message>),
    /// Put this on disk after everything before it, send what it says after that, and report it as persisted. Several
    /// may be merged into one write.
    Write(Write),
    /// The log on disk begins behind this entry from now on.
    Compact(Position),
    /// For the apply side.
    Apply(Task<R>),
    /// Term or leader have changed.
    Role(Role),
    /// Who belongs to the cluster has changed.
    Members(Members),
    /// Take a snapshot, as another node needs one.
    SnapshotWanted,
    /// Stop for good, and why.
    Fail(String),
}

impl<R> Core<R> {
    /// Begins from what is on disk. `life` is drawn at random, so that late answers to an earlier life's reads are not
    /// taken for answers to this one's.
    pub fn new(begin: Begin, life: u64) -> Result<Self, peer::Error> {
        let reads = Reads::new(begin.id, life);
        let mut peer = Peer::new(begin)?;
        peer.start()?;
        Ok(Self {
            peer,
            reads,
            ticks: 0,
            heard: BTreeMap::new(),
            stalled: false,
            data: Vec::new(),
            waiters: Vec::new(),
            effects: Vec::new(),
            outputs: Vec::new(),
        })
    }

    /// Takes one event in. What follows from it comes out of [`Core::effects`], which is to be called once all events at
    /// hand are in, so that they share messages and writes.
    pub fn handle(&mut self, event: Event<R>) {
        match event {
            Event::Propose(data, waiter) => {
                self.data.push(data);
                self.waiters.push(waiter);
                if self.data.len() == PROPOSE_AT_ONCE {
                    self.propose();
                }
            }
            Event::Read(waiter) => self.reads.add(waiter, self.ticks),
            Event::Change(change, waiter) => self.change(&change, waiter),
            Event::Transfer(to, answer) => {
                let _ = answer.send(self.peer.transfer(to));
            }
            Event::Received(messages) => messages.into_iter().for_each(|m| self.receive(m)),
            Event::Unreachable(node) => self.peer.unreachable(node),
            Event::HungUp(node) => self.peer.hung_up(node),
            Event::Reached(node) => self.peer.reached(node),
            Event::SnapshotSent { node, ended } => self.peer.snapshot_sent(node, ended),
            Event::SnapshotReceived(message, answer) => {
                self.note_heard(message.from);
                let _ = answer.send(self.peer.snapshot_received(message));
            }
            Event::Persisted(number) => self.peer.persisted(number),
            Event::Stalled(stalled) => {
                self.stalled = stalled;
                self.hand_over();
            }
            Event::Applied(index) => self.peer.applied(index),
            Event::SnapshotTaken(at, members) => self.peer.snapshot_taken(at, members),
            Event::Compact(index) => {
                let active = active(&self.heard, self.ticks);
                if let Some(to) = self.peer.compact(index, active) {
                    self.effects.push(Effect::Compact(to));
                }
            }
            Event::Removed => self.effects.push(Effect::Fail(REMOVED.to_owned())),
        }
    }

    /// A tick of the clock has passed.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.peer.tick();
        self.reads.tick(self.peer.role().leader, self.ticks);
        if self.ticks.is_multiple_of(ELECTION_TICKS as u64) {
            self.hand_over();
        }
    }

    /// Moves everything that is to be done into `out`.
    pub fn effects(&mut self, out: &mut Vec<Effect<R>>) {
        self.propose();
        self.flush(out);
        self.answer_riding(out);
        // After the answers to earlier questions, which make room for new ones.
        if self.reads.ask(&mut self.peer, self.ticks) {
            self.flush(out);
        }
        if self.peer.members().removed(self.peer.id()) {
            out.push(Effect::Fail(REMOVED.to_owned()));
        }
    }

    fn flush(&mut self, out: &mut Vec<Effect<R>>) {
        out.append(&mut self.effects);
        let mut outputs = std::mem::take(&mut self.outputs);
        self.peer.outputs(&mut outputs);
        out.extend(outputs.drain(..).filter_map(|output| self.effect(output)));
        self.outputs = outputs;
    }

    /// Reads that wait for entries of this leader are safe once those are committed.
    fn answer_riding(&mut self, out: &mut Vec<Effect<R>>) {
        let role = self.peer.role();
        let committed = Position {
            index: self.peer.committed(),
            term: role.term,
        };
        while role.leads
            && let Some((index, waiters)) = self.reads.committed(committed)
        {
            out.push(Effect::Apply(Task::ReadAt { index, waiters }));
        }
    }

    fn effect(&mut self, output: Output) -> Option<Effect<R>> {
        Some(match output {
            Output::Send(messages) => Effect::Send(messages),
            Output::Persist(write) => Effect::Write(write),
            Output::Apply { entries, changes } => Effect::Apply(Task::Apply { entries, changes }),
            Output::Install { at, members } => Effect::Apply(Task::Install { at, members }),
            Output::ReadAt { read, index } => {
                let waiters = self.reads.answered(read)?;
                Effect::Apply(Task::ReadAt { index, waiters })
            }
            Output::Role(role) => {
                self.reads.leader_changed();
                Effect::Role(role)
            }
            Output::Members(members) => Effect::Members(members),
            Output::SnapshotWanted => Effect::SnapshotWanted,
            Output::Fail(why) => Effect::Fail(why),
        })
    }

    fn receive(&mut self, message: Message) {
        self.note_heard(message.from);
        self.peer.step(message);
    }

    fn note_heard(&mut self, node: u64) {
        if self.peer.members().contains(node) {
            self.heard.insert(node, self.ticks);
        }
    }

    fn propose(&mut self) {
        if self.data.is_empty() {
            return;
        }
        let (data, waiters) = (
            std::mem::take(&mut self.data),
            std::mem::take(&mut self.waiters),
        );
        match self.peer.propose(data) {
            // Ahead of the entries themselves, which go the same way once committed.
            Ok(proposed) => {
                // Who votes alone needs to ask nobody.
                if !self.peer.votes_alone() {
                    self.reads.ride(proposed.first, self.ticks);
                }
                self.effects.push(Effect::Apply(Task::Appended {
                    first: proposed.first,
                    waiters,
                }));
            }
            Err(dropped) => {
                let refused = match dropped {
                    Dropped::NotLeader => Refused::NotLeader {
                        leader: self.peer.role().leader,
                    },
                    Dropped::Busy => Refused::Busy,
                };
                waiters
                    .into_iter()
                    .for_each(|w| w.answer(Err(refused.clone())));
            }
        }
    }

    fn change(&mut self, change: &Change, waiter: ChangeWaiter) {
        // What came before it is before it in the log.
        self.propose();
        let (me, committed) = (self.peer.id(), self.peer.committed());
        let near = self.followers().into_iter();
        let near: BTreeSet<u64> = near
            .filter(|node| node.is_near(committed))
            .map(|node| node.id)
            .collect();
        let can_write = |node| node == me || near.contains(&node);
        let enough = match self.peer.role().leads {
            true => change.leaves_enough(self.peer.members(), can_write),
            // Who does not lead hears nobody, and says who does.
            false => Ok(()),
        };
        match enough.and_then(|()| self.peer.propose_change(change)) {
            Ok(at) => self
                .effects
                .push(Effect::Apply(Task::ChangeAppended { at, waiter })),
            Err(refused) => {
                let _ = waiter.send(Err(refused));
            }
        }
    }

    /// A leader that cannot write acknowledges nothing, nor does one whose disk does not answer, though the others write on.
    /// And one that has lost its vote would lead for ever, since nobody lets itself go: it may have come to lead after its
    /// going was asked of the leader before. Somebody else must lead. Tried again as long as it has to be.
    fn hand_over(&mut self) {
        let members = self.peer.members();
        let leaves = members.outgoing.is_empty() && !members.voters.contains(&self.peer.id());
        let hangs = self.peer.is_outwritten();
        if !(self.stalled || hangs || leaves) || !self.peer.role().leads {
            return;
        }
        match self.peer.transfer(None) {
            Ok(to) => tracing::info!(
                to,
                stalled = self.stalled,
                hangs,
                leaves,
                "leadership is handed over"
            ),
            Err(ChangeError::NoSuccessor) => {}
            Err(error) => tracing::debug!(%error, "leadership stays here"),
        }
    }

    /// Term and leader, now.
    pub fn role(&self) -> Role {
        self.peer.role()
    }

    /// Highest committed index.
    pub fn committed(&self) -> u64 {
        self.peer.committed()
    }

    /// The log's last entry.
    pub fn last_index(&self) -> u64 {
        self.peer.last_index()
    }

    /// Who belongs to the cluster, as of the newest entry that was handed out to be applied.
    pub fn members(&self) -> &Members {
        self.peer.members()
    }

    /// How far everybody else is, as this leader sees it; nobody on a node that does not lead.
    pub fn followers(&self) -> Vec<NodeProgress> {
        self.peer.followers(active(&self.heard, self.ticks))
    }

    /// For how many ticks the disk under the log has not answered, if it is said to hang.
    pub fn disk_hangs(&self) -> Option<u64> {
        self.peer.disk_hangs()
    }

    /// Raft itself, for what a simulation wants to look at.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// See [`Peer::set_election_timeout`].
    pub fn set_election_timeout(&mut self, ticks: usize) {
        self.peer.set_election_timeout(ticks);
    }
}

/// Who was heard within the last election timeout.
fn active(heard: &BTreeMap<u64, u64>, now: u64) -> impl Fn(u64) -> bool {
    move |node| {
        heard
            .get(&node)
            .is_some_and(|at| now - at <= ELECTION_TICKS as u64)
    }
}

/// Bytes that received messages take while they wait, about.
pub(super) fn weight(messages: &[Message]) -> usize {
    /// What a message without entries takes.
    const ENVELOPE: usize = 128;
    let entries = messages.iter().flat_map(|message| message.get_entries());
    messages.len() * ENVELOPE + entries.map(super::log::entry_bytes).sum::<usize>()
}
