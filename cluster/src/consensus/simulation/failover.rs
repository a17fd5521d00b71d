//! How long a cluster is without a leader when one falls silent: counted in ticks, with all clocks in step, which is the
//! worst case for a split vote.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use raft::eraftpb::Message;

use super::super::log::{Loaded, ORIGIN};
use super::super::{Begin, ELECTION_TICKS, Output, Peer};
use crate::members::Members;

struct World {
    peers: BTreeMap<u64, Peer>,
    silent: Option<u64>,
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
                let mute = [Some(message.from), Some(message.to)].contains(&self.silent);
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
