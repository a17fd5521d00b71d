//! Three nodes that lose messages, writes and each other: they still agree on one log.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::eraftpb::{Entry, Message};

use super::super::log::{LogStore, MemLog, MemLogDisk, ORIGIN, Position};
use super::super::waiters::Waiters;
use super::super::{Begin, Output, Peer, Write};
use super::Dice;
use crate::members::Members;

const SEEDS: u64 = 200;
const STEPS: usize = 4_000;
const NODES: usize = 3;

struct Node {
    peer: Peer,
    disk: MemLogDisk,
    log: MemLog,
    waiters: Waiters<u64>,
    to_write: VecDeque<Write>,
    to_apply: VecDeque<Entry>,
    applied: u64,
}

/// What all nodes together may never contradict.
#[derive(Default)]
struct Truth {
    /// Who led each term.
    leaders: BTreeMap<u64, usize>,
    /// What any node applied at each index.
    applied: BTreeMap<u64, (u64, Bytes)>,
    /// Numbers of acknowledged proposals, by index.
    acknowledged: BTreeMap<u64, u64>,
    crashes: usize,
}

struct World {
    dice: Dice,
    nodes: Vec<Node>,
    network: Vec<Message>,
    /// `cut[from][to]`: nothing gets through.
    cut: [[bool; NODES]; NODES],
    truth: Truth,
    next: u64,
}

impl Node {
    fn begin(number: usize, disk: MemLogDisk) -> Self {
        let mut log = disk.open();
        let loaded = log.load().unwrap();
        let peer = Peer::new(Begin {
            id: number as u64 + 1,
            loaded,
            applied: ORIGIN.index,
            members: Members {
                voters: (1..=NODES as u64).collect(),
                last_id: NODES as u64,
                ..Members::default()
            },
            snapshot: None,
        })
        .unwrap();
        let (to_write, to_apply) = (VecDeque::new(), VecDeque::new());
        Self {
            peer,
            disk,
            log,
            waiters: Waiters::new(),
            to_write,
            to_apply,
            applied: ORIGIN.index,
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let nodes = (0..NODES)
            .map(|number| Node::begin(number, MemLogDisk::default()))
            .collect();
        let cut = [[false; NODES]; NODES];
        Self {
            dice: Dice(seed),
            nodes,
            network: Vec::new(),
            cut,
            truth: Truth::default(),
            next: 0,
        }
    }

    fn flush(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let role = node.peer.role();
        let spread = (role.term * 7 + number as u64 * 3) % 10;
        node.peer
            .set_election_timeout(super::super::ELECTION_TICKS + spread as usize);
        let mut outputs = Vec::new();
        node.peer.outputs(&mut outputs);
        for output in outputs {
            match output {
                Output::Send(messages) => self.network.extend(messages),
                Output::Persist(write) => node.to_write.push_back(write),
                Output::Apply { entries, .. } => node.to_apply.extend(entries),
                Output::Role(role) if role.leads => {
                    let first = *self.truth.leaders.entry(role.term).or_insert(number);
                    assert_eq!(first, number, "one leader in term {}", role.term);
                }
                Output::Role(_) => drop(node.waiters.take_all()),
                _ => {}
            }
        }
    }

    fn write(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let Some(write) = node.to_write.pop_front() else {
            return;
        };
        node.log.write(&write.batch, write.sync).unwrap();
        self.network.extend(write.then_send);
        node.peer.persisted(write.number);
    }

    fn apply(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let count = self.dice.roll(8) as usize;
        for entry in node.to_apply.drain(..count.min(node.to_apply.len())) {
            assert_eq!(entry.index, node.applied + 1);
            node.applied = entry.index;
            let known = self
                .truth
                .applied
                .entry(entry.index)
                .or_insert((entry.term, entry.data.clone()));
            assert_eq!(
                *known,
                (entry.term, entry.data.clone()),
                "all nodes apply the same entry {}",
                entry.index
            );
            let matched = node.waiters.applied(Position {
                index: entry.index,
                term: entry.term,
            });
            if let Some(asked) = matched.mine {
                assert_eq!(asked.to_le_bytes()[..], entry.data[..]);
                self.truth.acknowledged.insert(entry.index, asked);
            }
        }
        node.peer.applied(node.applied);
    }

    fn propose(&mut self, number: usize) {
        let first = self.next;
        self.next += 3;
        let node = &mut self.nodes[number];
        let data = (first..self.next)
            .map(|n| Bytes::copy_from_slice(&n.to_le_bytes()))
            .collect();
        if let Ok(proposed) = node.peer.propose(data) {
            drop(
                node.waiters
                    .appended(proposed.first, (first..self.next).collect()),
            );
        }
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = self.dice.roll(self.network.len() as u64) as usize;
        let lost = self.dice.roll(20) == 0;
        let twice = self.dice.roll(20) == 0;
        let message = self.network.swap_remove(at);
        let (from, to) = (message.from as usize - 1, message.to as usize - 1);
        if lost || self.cut[from][to] {
            return;
        }
        if twice {
            self.network.push(message.clone());
        }
        self.nodes[to].peer.step(message);
        self.flush(to);
    }

    fn crash(&mut self, number: usize) {
        self.truth.crashes += 1;
        let disk = self.nodes[number].disk.clone();
        disk.crash(self.dice.roll(disk.unsynced() as u64 + 1) as usize);
        self.nodes[number] = Node::begin(number, disk);
    }

    fn step(&mut self) {
        let number = self.dice.roll(NODES as u64) as usize;
        match self.dice.roll(400) {
            0..=119 => self.deliver(),
            120..=219 => self.write(number),
            220..=299 => self.apply(number),
            300..=359 => self.propose(number),
            360..=394 => self.nodes[number].peer.tick(),
            395..=396 => self.crash(number),
            397 => self.cut[number][self.dice.roll(NODES as u64) as usize] = true,
            _ => self.cut = [[false; NODES]; NODES],
        }
        // A busy network would grow for ever: what is too much is lost.
        self.network.truncate(200);
        self.flush(number);
    }

    /// With the faults over, everybody catches up.
    fn settle(&mut self) {
        self.cut = [[false; NODES]; NODES];
        for round in 0..400 {
            for number in 0..NODES {
                self.nodes[number].peer.tick();
                self.flush(number);
                while !self.nodes[number].to_write.is_empty() {
                    self.write(number);
                    self.flush(number);
                }
                while !self.nodes[number].to_apply.is_empty() {
                    self.apply(number);
                }
            }
            for message in std::mem::take(&mut self.network) {
                let to = message.to as usize - 1;
                self.nodes[to].peer.step(message);
                self.flush(to);
            }
            if round == 200 {
                (0..NODES).for_each(|number| self.propose(number));
            }
        }
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    let applied: Vec<u64> = world.nodes.iter().map(|node| node.applied).collect();
    assert!(
        applied.iter().all(|at| *at == applied[0]),
        "all caught up: {applied:?}"
    );
    assert!(
        applied[0] as usize == world.truth.applied.len() + 1,
        "nothing applied was lost"
    );
    for (index, number) in &world.truth.acknowledged {
        assert_eq!(
            world.truth.applied[index].1[..],
            number.to_le_bytes()[..],
            "entry {index} was acknowledged"
        );
    }
    world
}

#[test]
fn three_nodes_agree_whatever_is_lost() {
    let (mut acknowledged, mut crashes, mut terms) = (0, 0, 0);
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let world = outcome.unwrap_or_else(|_| panic!("seed {seed} fails"));
        acknowledged += world.truth.acknowledged.len();
        crashes += world.truth.crashes;
        terms += world.truth.leaders.len();
    }
    assert!(acknowledged > 10_000, "{acknowledged} acknowledged");
    assert!(crashes > 2_000, "{crashes} crashes");
    assert!(terms > 500, "{terms} terms with a leader");
}
