//! Disks that hang: a write is handed out and nothing comes back, neither a word that it is done nor an error. And disks that
//! are slow, all of them and for good.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::Message;
use tokio::sync::oneshot;

use super::super::log::{Loaded, ORIGIN};
use super::super::{
    Begin, Core, ELECTION_TICKS, Effect, Event, HANGS_TICKS, Refused, Task, Waiter, Write,
};
use crate::members::Members;

/// From the first write that does not come back until somebody else leads: the wait, what is left of the election timeout in
/// steps of which a leader looks after itself, and the new leader's first word.
const REPLACED_TICKS: u64 = HANGS_TICKS + ELECTION_TICKS as u64 + 2;

struct Node {
    core: Core<()>,
    /// What its disk has been given and has not written.
    to_write: VecDeque<Write>,
    /// What it writes, in one sync that is done at this tick.
    writes: Option<(u64, Vec<Write>)>,
    hangs: bool,
    is_away: bool,
    applied: u64,
}

struct World {
    nodes: Vec<Node>,
    ticks: u64,
    /// Ticks that a sync takes.
    sync: u64,
}

impl World {
    fn of(nodes: u64) -> Self {
        Self::slow(nodes, 0)
    }

    /// One whose disks take so many ticks for a sync.
    fn slow(nodes: u64, sync: u64) -> Self {
        let nodes = (1..=nodes).map(|id| {
            let begin = Begin {
                id,
                loaded: Loaded::new_cluster(),
                applied: ORIGIN.index,
                members: Members {
                    voters: (1..=nodes).collect(),
                    last_id: nodes,
                    ..Members::default()
                },
                snapshot: None,
            };
            Node {
                core: Core::new(begin, id).unwrap(),
                to_write: VecDeque::new(),
                writes: None,
                hangs: false,
                is_away: false,
                applied: ORIGIN.index,
            }
        });
        let mut world = Self {
            nodes: nodes.collect(),
            ticks: 0,
            sync,
        };
        while world.leader().is_none() {
            assert!(world.ticks < 1_000, "nobody leads");
            world.tick();
        }
        (0..ELECTION_TICKS).for_each(|_| world.tick());
        world
    }

    /// The node that leads by the newest term.
    fn leader(&self) -> Option<usize> {
        let leads = |node: &&Node| node.core.role().leads;
        let newest = self.nodes.iter().filter(leads);
        let newest = newest.max_by_key(|node| node.core.role().term)?;
        Some(newest.core.peer().id() as usize - 1)
    }

    fn term(&self) -> u64 {
        self.nodes
            .iter()
            .map(|node| node.core.role().term)
            .max()
            .unwrap()
    }

    fn propose(&mut self, number: usize) -> oneshot::Receiver<Result<(), Refused>> {
        let (waiter, waiting) = Waiter::new();
        let core = &mut self.nodes[number].core;
        core.handle(Event::Propose(Bytes::from("something"), waiter));
        self.settle();
        waiting
    }

    /// One tick everywhere, and then everything that follows from it.
    fn tick(&mut self) {
        self.ticks += 1;
        self.nodes.iter_mut().for_each(|node| node.core.tick());
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let mut sent = Vec::new();
            for node in &mut self.nodes {
                node.act(&mut sent, (self.ticks, self.sync));
            }
            if sent.is_empty() {
                return;
            }
            for message in sent {
                let (from, to) = (message.from as usize - 1, message.to as usize - 1);
                if !self.nodes[from].is_away && !self.nodes[to].is_away {
                    self.nodes[to].core.handle(Event::Received(vec![message]));
                }
            }
        }
    }
}

impl Node {
    /// Does what its core says until it says nothing more. Its disk writes everything at once that it was given, unless it
    /// hangs.
    fn act(&mut self, sent: &mut Vec<Message>, (now, sync): (u64, u64)) {
        loop {
            if !self.hangs {
                self.write(sent, now, sync);
            }
            // What would be drawn by chance.
            let spread = (self.core.role().term * 7 + self.core.peer().id() * 3) % 10;
            if sync > 0 {
                let ticks = ELECTION_TICKS + spread as usize;
                self.core.set_election_timeout(ticks);
            }
            let mut effects = Vec::new();
            self.core.effects(&mut effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Send(messages) => sent.extend(messages),
                    Effect::Write(write) => self.to_write.push_back(write),
                    Effect::Apply(Task::Apply { entries, .. }) => {
                        self.applied = entries.last().unwrap().index;
                        self.core.handle(Event::Applied(self.applied));
                    }
                    Effect::Fail(why) => panic!("{why}"),
                    _ => {}
                }
            }
        }
    }

    fn write(&mut self, sent: &mut Vec<Message>, now: u64, sync: u64) {
        if let Some((_, writes)) = self.writes.take_if(|(done, _)| *done <= now) {
            self.wrote(writes, sent);
        }
        if self.writes.is_none() && !self.to_write.is_empty() {
            let writes: Vec<Write> = self.to_write.drain(..).collect();
            if sync > 0 && writes.iter().any(|write| write.sync) {
                self.writes = Some((now + sync, writes));
            } else {
                self.wrote(writes, sent);
            }
        }
    }

    fn wrote(&mut self, writes: Vec<Write>, sent: &mut Vec<Message>) {
        for write in writes {
            sent.extend(write.then_send);
            self.core.handle(Event::Persisted(write.number));
        }
    }

    /// The disk answers for a moment.
    fn writes_once(world: &mut World, number: usize) {
        world.nodes[number].hangs = false;
        world.settle();
        world.nodes[number].hangs = true;
    }
}

#[test]
fn a_leader_whose_disk_never_answers_is_replaced_and_the_others_write_on() {
    for nodes in [3, 5] {
        let mut world = World::of(nodes);
        let (before, term) = (world.leader().unwrap(), world.term());
        world.nodes[before].hangs = true;
        drop(world.propose(before));
        let begun = world.ticks;
        while world.leader() == Some(before) {
            assert!(world.ticks - begun <= REPLACED_TICKS, "it leads on");
            world.tick();
        }
        (0..ELECTION_TICKS).for_each(|_| world.tick());
        let after = world.leader().unwrap();
        assert!(!world.nodes[before].core.role().leads);
        assert_eq!(world.term(), term + 1, "one change of leaders is enough");
        assert!(world.nodes[before].core.disk_hangs().is_some());
        let applied = world.nodes[after].applied;
        drop(world.propose(after));
        assert_eq!(world.nodes[after].applied, applied + 1);
        // It never comes back: nothing changes any more.
        (0..500).for_each(|_| world.tick());
        assert_eq!((world.leader(), world.term()), (Some(after), term + 1));
        // And if it does, the node has everything and leads no more.
        world.nodes[before].hangs = false;
        (0..50).for_each(|_| world.tick());
        assert_eq!((world.leader(), world.term()), (Some(after), term + 1));
        assert_eq!(world.nodes[before].applied, world.nodes[after].applied);
        assert_eq!(world.nodes[before].core.disk_hangs(), None);
    }
}

#[test]
fn a_disk_that_is_slow_for_a_moment_again_and_again_moves_no_leadership() {
    let mut world = World::of(3);
    let (leader, term) = (world.leader().unwrap(), world.term());
    world.nodes[leader].hangs = true;
    for tick in 1..2_000 {
        if tick % 5 == 0 {
            drop(world.propose(leader));
        }
        if tick % (HANGS_TICKS - 1) == 0 {
            Node::writes_once(&mut world, leader);
        }
        world.tick();
        assert_eq!(world.leader(), Some(leader), "after {tick} ticks");
    }
    assert_eq!(world.term(), term);
}

/// Somebody else who leads would write no more than this one.
#[test]
fn a_leader_whose_disk_hangs_leads_on_where_the_others_cannot_write_without_it() {
    let mut world = World::of(3);
    let (leader, term) = (world.leader().unwrap(), world.term());
    let other = (leader + 1) % 3;
    world.nodes[other].is_away = true;
    world.nodes[leader].hangs = true;
    drop(world.propose(leader));
    (0..500).for_each(|_| world.tick());
    assert_eq!((world.leader(), world.term()), (Some(leader), term));
    assert!(world.nodes[leader].core.disk_hangs().is_some());
    world.nodes[leader].hangs = false;
    (0..5).for_each(|_| world.tick());
    assert_eq!(world.leader(), Some(leader));
    assert_eq!(world.nodes[leader].core.disk_hangs(), None);
    assert_eq!(
        world.nodes[leader].applied,
        world.nodes[leader].core.last_index()
    );
}

/// Half a second, a whole one and more, beside an election timeout of half a second.
#[test]
fn disks_that_are_slow_for_good_make_a_cluster_slow_and_leave_it_its_leader() {
    for sync in [6, 12, 20, 30] {
        let mut world = World::slow(3, sync);
        // Whoever leads at the end of the first tries leads on.
        (0..500).for_each(|_| world.tick());
        let (leader, term) = (world.leader().unwrap(), world.term());
        let applied = world.nodes[leader].applied;
        for tick in 0..3_000 {
            if tick % 10 == 0 {
                drop(world.propose(leader));
            }
            world.tick();
            assert_eq!(world.leader(), Some(leader), "after {tick} ticks at {sync}");
        }
        assert_eq!(world.term(), term);
        assert!(world.nodes[leader].applied > applied + 250);
    }
}
