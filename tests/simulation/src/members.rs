//! Nodes that are let in and taken out while everything else goes wrong, and who may still speak with whom.

use raft::eraftpb::{Message, MessageType};
use stepcast_cluster::consensus::{Change, Event};
use stepcast_cluster::members::Members;

use crate::kernel::{Host, MS};
use crate::mutant::Mutant;
use crate::node::{self, Machine};
use crate::world::World;

/// Voters that stay, if there were so many.
const VOTERS_LEAST: usize = 3;

/// Nodes at once.
const NODES_AT_ONCE: usize = 7;

/// An operator lets somebody in, or takes somebody out, by whoever leads.
pub(crate) fn change(world: &mut World) {
    let Some(leader) = world.leader() else { return };
    let Some(members) = as_seen_by(world, leader) else {
        return;
    };
    let (grows, another, pick) = world
        .kernel
        .roll(|dice| (dice.per_mille(550), dice.per_mille(300), dice.roll(1_000)));
    let room =
        members.last_id < world.options.most_nodes() && members.ids().count() < NODES_AT_ONCE;
    if grows && room {
        let id = members.last_id + 1;
        ask(world, leader, Change::Admit(node::member(id)));
        if another && id < world.options.most_nodes() {
            // Two that have caught up together are given their votes together.
            world.kernel.after(20 * MS, move |world| {
                ask(world, leader, Change::Admit(node::member(id + 1)));
            });
        }
        return;
    }
    let least = VOTERS_LEAST.min(usize::try_from(world.options.nodes).unwrap_or(1));
    let others: Vec<u64> = members.ids().filter(|id| *id != leader).collect();
    let Some(id) = others.get(usize::try_from(pick).unwrap_or(0) % others.len().max(1)) else {
        return;
    };
    if members.learners.contains(id) {
        ask(world, leader, Change::Remove(*id));
    } else if members.voters.len() > least {
        ask(world, leader, Change::Demote(*id));
    }
}

fn ask(world: &mut World, leader: u64, change: Change) {
    world.checks.count("changes of the members asked for");
    world
        .checks
        .note("members", || format!("{leader} is asked for {change:?}"));
    let (answer, _) = tokio::sync::oneshot::channel();
    node::hear_of(world, leader, Event::Change(change, answer));
}

/// A node knows that these belong to the cluster: whoever is new comes up a while later, with an empty disk.
pub(crate) fn seen(world: &mut World, members: &Members) {
    for id in 1..=members.last_id {
        if !members.contains(id) {
            world.removed.insert(id);
        } else if !world.nodes.contains_key(&id) {
            let machine = Machine::new(world, id);
            world.nodes.insert(id, machine);
            world.checks.count("nodes let in");
            let soon = world.kernel.roll(|dice| dice.between(MS, 1_500 * MS));
            world
                .kernel
                .after(soon, move |world| node::start(world, id));
        }
    }
}

/// Whether a node hears another: not one that it knows to be removed, which is told so.
pub(crate) fn admits(world: &mut World, to: u64, from: u64) -> bool {
    let hears = world.nodes.get(&to).and_then(Machine::bare);
    if !hears.is_some_and(|bare| bare.core().members().removed(from)) {
        return true;
    }
    let later = world.network.delay(&world.kernel);
    world.kernel.after(later, move |world| {
        if !world.network.is_cut(Host::Node(to), Host::Node(from)) {
            node::hear_of(world, from, Event::Removed);
        }
    });
    false
}

/// A deliberate bug: what a node acknowledges that is on its way out is taken for another one's, who has a vote.
pub(crate) fn forged(world: &World, message: &Message) -> Option<Message> {
    if world.options.mutant != Some(Mutant::RemovedNodeCounts)
        || message.get_msg_type() != MessageType::MsgAppendResponse
        || message.reject
    {
        return None;
    }
    let members = as_seen_by(world, message.to)?;
    if !members.leaving.contains(&message.from) {
        return None;
    }
    let voter = members.voters.iter().find(|id| **id != message.to)?;
    let mut forged = message.clone();
    forged.from = *voter;
    Some(forged)
}

/// Whether everybody who was let in has a vote, and everybody who was to go has gone.
pub(crate) fn is_settled(world: &World) -> bool {
    let members = world.leader().and_then(|leader| as_seen_by(world, leader));
    members.is_some_and(|members| members.learners.is_empty() && members.outgoing.is_empty())
}

fn as_seen_by(world: &World, id: u64) -> Option<Members> {
    let bare = world.nodes.get(&id)?.bare()?;
    Some(bare.read_at(|_, members, _| members.clone()))
}
