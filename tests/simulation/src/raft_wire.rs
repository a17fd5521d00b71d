//! Raft's messages between nodes: lost, doubled, late and out of order; a snapshot travels with its file.

use raft::eraftpb::{Entry, Message, MessageType};
use stepcast_cluster::consensus::log::Position;
use stepcast_cluster::consensus::{Delivery, Event};

use crate::faults;
use crate::kernel::{Host, MS};
use crate::members;
use crate::node::{self, snapshots};
use crate::world::World;

/// Sends these to whom they are for.
pub(crate) fn send(world: &mut World, messages: Vec<Message>) {
    for message in messages {
        world.checks.count("raft messages");
        if message.get_msg_type() == MessageType::MsgSnapshot {
            send_snapshot(world, message);
            continue;
        }
        let (from, to) = (message.from, message.to);
        if let Some(forged) = members::forged(world, &message) {
            node::receive(world, to, vec![forged]);
        }
        if message.get_msg_type() == MessageType::MsgAppend {
            shown(world, from, message.get_entries());
        }
        if message.get_msg_type() == MessageType::MsgRequestVoteResponse && !message.reject {
            faults::at_a_vote(world, from, to);
        }
        for arrives in world.network.datagram(&world.kernel).into_iter().flatten() {
            let message = message.clone();
            world.kernel.after(arrives, move |world| {
                if !world.network.is_cut(Host::Node(from), Host::Node(to))
                    && members::admits(world, to, from)
                {
                    world.checks.mix(message.index ^ (message.term << 32));
                    world.checks.note("raft", || words(&message));
                    node::receive(world, to, vec![message]);
                }
            });
        }
    }
}

/// A node shows these entries, to its disk or to another node: each is the same wherever it is shown.
pub(crate) fn shown(world: &World, id: u64, entries: &[Entry]) {
    let mut logs = world.checks.logs.lock();
    for entry in entries {
        world.checks.judge(logs.writes(id, entry));
    }
}

/// A message in one line.
fn words(message: &Message) -> String {
    let entries: Vec<(u64, u64)> = message
        .get_entries()
        .iter()
        .map(|entry| (entry.index, entry.term))
        .collect();
    format!(
        "{} to {}: {:?} of term {}, at ({}, {}), commit {}, entries {entries:?}{}",
        message.from,
        message.to,
        message.get_msg_type(),
        message.term,
        message.index,
        message.log_term,
        message.commit,
        if message.reject { ", rejected" } else { "" }
    )
}

fn others(world: &World, id: u64) -> Vec<u64> {
    let mut others = world.node_ids();
    others.retain(|other| *other != id);
    others
}

/// A process ends, and its connections with it: whoever is not cut off from its host learns of it soon, or never.
pub(crate) fn hangs_up(world: &mut World, id: u64) {
    for other in others(world, id) {
        let (soon, lost) = world
            .kernel
            .roll(|dice| (dice.between(200, 30 * MS), dice.per_mille(100)));
        if lost {
            continue;
        }
        world.kernel.after(soon, move |world| {
            if !world.network.is_cut(Host::Node(id), Host::Node(other)) {
                node::hear_of(world, other, Event::HungUp(id));
            }
        });
    }
}

/// A node is there: it reaches the others, and they reach it, once their wires let them.
pub(crate) fn connects(world: &mut World, id: u64) {
    for other in others(world, id) {
        reach(world, other, id);
        reach(world, id, other);
    }
}

/// One node connects to another, sooner or later.
fn reach(world: &mut World, from: u64, to: u64) {
    let soon = world.kernel.roll(|dice| dice.between(10 * MS, 200 * MS));
    world.kernel.after(soon, move |world| {
        let up = world.nodes.get(&to).is_some_and(node::Machine::is_up);
        let cut = world.network.is_cut(Host::Node(from), Host::Node(to))
            || world.network.is_cut(Host::Node(to), Host::Node(from));
        if up && !cut {
            node::hear_of(world, from, Event::Reached(to));
        } else if up {
            reach(world, from, to);
        }
    });
}

/// Every connection to a node breaks, though it lives: the others take it for gone until they reach it again.
pub(crate) fn breaks(world: &mut World, id: u64) {
    world.checks.count("connections broken");
    world
        .checks
        .note("raft", || format!("{id} loses its connections"));
    hangs_up(world, id);
    world.kernel.after(30 * MS, move |world| {
        for other in others(world, id) {
            reach(world, other, id);
        }
    });
}

/// The file is streamed; how that ended is always said.
fn send_snapshot(world: &mut World, message: Message) {
    let (from, to) = (message.from, message.to);
    let meta = message.get_snapshot().get_metadata();
    let at = Position {
        index: meta.index,
        term: meta.term,
    };
    let kept = world
        .nodes
        .get(&from)
        .and_then(|machine| machine.snapshots.iter().find(|kept| kept.at == at).cloned());
    let takes = world.kernel.roll(|dice| dice.between(2 * MS, 800 * MS));
    world.checks.note("snapshot", || {
        format!("of entry {} from {from} to {to}", at.index)
    });
    world.kernel.after(takes, move |world| {
        let cut = world.network.is_cut(Host::Node(from), Host::Node(to))
            || world.network.is_cut(Host::Node(to), Host::Node(from));
        let there = world.nodes.get(&to).is_some_and(node::Machine::is_up);
        let arrives = !cut && there;
        let ended = match kept {
            None => Delivery::Unusable(at),
            Some(kept) if arrives => {
                snapshots::receive(world, to, message, kept);
                Delivery::Arrived
            }
            Some(_) => Delivery::Failed,
        };
        snapshots::sent(world, from, to, ended);
    });
}
