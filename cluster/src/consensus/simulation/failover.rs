//! How long a cluster is without a leader when one falls silent: counted in ticks, with all clocks in step, which is the
//! worst case for a split vote.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use raft::eraftpb::{Message, MessageType};

use super::super::log::{Loaded, ORIGIN};
use super::super::{Begin, ELECTION_TICKS, Output, Peer};
use crate::members::Members;

struct World {
    peers: BTreeMap<u64, Peer>,
    silent: Option<u64>,
    /// Hears nobody who leads, and is heard itself.
    deaf: Option<u64>,
}

impl World {
    fn of(nodes: u64) -> Self {
        let peers = (1..=nodes).map(|id| {
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
            (id, Peer::new(begin).unwrap())
        });
        Self {
            peers: peers.collect(),
            silent: None,
            deaf: None,
        }
    }

    /// One tick everywhere, and then everything that follows from it.
    fn tick(&mut self) {
        self.peers.values_mut().for_each(Peer::tick);
        loop {
            let mut sent: Vec<Message> = Vec::new();
            for peer in self.peers.values_mut() {
                let mut outputs = Vec::new();
                peer.outputs(&mut outputs);
                for output in outputs {
                    match output {
                        Output::Send(messages) => sent.extend(messages),
                        Output::Persist(write) => {
                            sent.extend(write.then_send);
                            peer.persisted(write.number);
                        }
                        Output::Apply { entries, .. } => {
                            entries.last().iter().for_each(|e| peer.applied(e.index));
                        }
                        _ => {}
                    }
                }
            }
            if sent.is_empty() {
                return;
            }
            for message in sent {
                let mute = [Some(message.from), Some(message.to)].contains(&self.silent)
                    || (self.deaf == Some(message.to)
                        && message.get_msg_type() == MessageType::MsgHeartbeat);
                if let Some(peer) = self.peers.get_mut(&message.to).filter(|_| !mute) {
                    peer.step(message);
                }
            }
        }
    }

    fn leader(&self) -> Option<u64> {
        let leads = |(id, peer): (&u64, &Peer)| peer.role().leads.then_some(*id);
        let mut others = self
            .peers
            .iter()
            .filter(|(id, _)| Some(**id) != self.silent);
        others.find_map(leads)
    }

    fn ticks_until_led(&mut self) -> usize {
        for ticks in 0..1_000 {
            if self.leader().is_some() {
                return ticks;
            }
            self.tick();
        }
        panic!("nobody leads");
    }
}

#[test]
fn a_silent_leader_is_replaced_at_the_first_try_whoever_it_is() {
    for nodes in [3, 5] {
        for dead in 1..=nodes {
            let mut world = World::of(nodes);
            world.ticks_until_led();
            let leader = world.leader().unwrap();
            if leader != dead {
                world
                    .peers
                    .get_mut(&leader)
                    .unwrap()
                    .transfer(Some(dead))
                    .unwrap();
                world.tick();
            }
            assert_eq!(world.leader(), Some(dead));
            (0..5).for_each(|_| world.tick());
            world.silent = Some(dead);
            let ticks = world.ticks_until_led();
            assert!(
                ticks <= ELECTION_TICKS + 1,
                "{ticks} ticks without node {dead} of {nodes}"
            );
        }
    }
}

#[test]
fn without_the_first_in_turn_the_second_is_not_much_later() {
    let mut world = World::of(5);
    world.ticks_until_led();
    let leader = world.leader().unwrap();
    let first = if leader == 5 { 4 } else { 5 };
    world.peers.remove(&first);
    (0..5).for_each(|_| world.tick());
    world.silent = Some(leader);
    assert!(world.ticks_until_led() <= ELECTION_TICKS + 4);
}

/// The followers learn that their leader's process is gone, some of them this many ticks later than the first.
fn ticks_after_hanging_up(nodes: u64, late: impl Fn(u64) -> usize) -> usize {
    let mut world = World::of(nodes);
    world.ticks_until_led();
    let leader = world.leader().unwrap();
    (0..5).for_each(|_| world.tick());
    world.silent = Some(leader);
    for ticks in 0..1_000 {
        if world.leader().is_some() {
            return ticks;
        }
        for (id, peer) in &mut world.peers {
            if *id != leader && late(*id) == ticks {
                peer.hung_up(leader);
            }
        }
        world.tick();
    }
    panic!("nobody leads");
}

#[test]
fn a_leader_whose_process_is_gone_is_replaced_in_half_the_time() {
    for nodes in [3, 5] {
        let ticks = ticks_after_hanging_up(nodes, |_| 0);
        assert!(ticks <= ELECTION_TICKS / 2, "{ticks} ticks with {nodes}");
        // Who knows it first asks too early, and once more.
        for first in 1..=nodes {
            let ticks = ticks_after_hanging_up(nodes, |id| if id == first { 0 } else { 3 });
            assert!(ticks < ELECTION_TICKS, "{ticks} ticks with {nodes}");
        }
    }
}

#[test]
fn a_leader_that_is_heard_leads_on_though_it_is_said_to_have_hung_up() {
    let mut world = World::of(3);
    world.ticks_until_led();
    let leader = world.leader().unwrap();
    let term = world.peers[&leader].role().term;
    for peer in world.peers.values_mut() {
        peer.hung_up(leader);
    }
    (0..500).for_each(|_| world.tick());
    assert_eq!(world.leader(), Some(leader));
    assert_eq!(world.peers[&leader].role().term, term);
}

#[test]
fn one_who_alone_has_lost_the_leader_s_connection_deposes_nobody() {
    let mut world = World::of(3);
    world.ticks_until_led();
    let leader = world.leader().unwrap();
    let term = world.peers[&leader].role().term;
    let lonely = if leader == 1 { 2 } else { 1 };
    world.deaf = Some(lonely);
    world.peers.get_mut(&lonely).unwrap().hung_up(leader);
    (0..500).for_each(|_| world.tick());
    world.deaf = None;
    (0..5).for_each(|_| world.tick());
    for peer in world.peers.values() {
        assert_eq!((peer.role().leader, peer.role().term), (Some(leader), term));
    }
}
