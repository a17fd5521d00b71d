//! The threads of a node as the world plays them: ticks and turns of the Raft thread, and the apply thread.

use raft::eraftpb::{Entry, Message};
use stepcast_cluster::Outcome;
use stepcast_cluster::consensus::{ELECTION_TICKS, Effect, Event, TICK, Task};
use stepcast_cluster::members::Members;

use super::{Job, running, snapshots, within, writing};
use crate::checks::Check;
use crate::kernel::{MS, Micros};
use crate::members;
use crate::mutant::Mutant;
use crate::world::World;

/// The state is compared between nodes after every entry whose index is a multiple of this: it costs more than applying.
const COMPARE_EVERY: u64 = 8;

/// The Raft clock.
pub(super) fn tick(world: &mut World, id: u64, life: u64) {
    let Some(machine) = world.nodes.get(&id).filter(|m| m.life == life) else {
        return;
    };
    let period = Micros::try_from(TICK.as_micros()).unwrap_or(50 * MS);
    let late = world.kernel.roll(|dice| dice.roll(2 * MS));
    let wait = machine.clock.truly(period) + late;
    world.kernel.after(wait, move |world| {
        // A late thread ticks once, not once for each tick it missed.
        if let Some(running) = running(world, id).filter(|running| !running.paused) {
            running.bare.tick();
            election(world, id);
            turn_soon(world, id);
        }
        tick(world, id, life);
    });
}

/// When a node campaigns follows from the seed.
pub(super) fn election(world: &mut World, id: u64) {
    let seed = world.options.seed;
    if let Some(running) = running(world, id) {
        let term = running.bare.core().role().term;
        let mixed =
            (seed ^ id.wrapping_mul(0x9e37_79b9)).wrapping_add(term.wrapping_mul(0x85eb_ca6b));
        let spread = usize::try_from((mixed ^ (mixed >> 15)) % ELECTION_TICKS as u64).unwrap_or(0);
        running.bare.set_election_timeout(ELECTION_TICKS + spread);
    }
}

/// Messages have come over the wire.
pub(crate) fn receive(world: &mut World, id: u64, messages: Vec<Message>) {
    let Some(life) = world.nodes.get(&id).map(|machine| machine.life) else {
        return;
    };
    within(world, id, life, move |world| {
        if let Some(running) = running(world, id) {
            running.bare.tell(Event::Received(messages));
            turn_soon(world, id);
        }
    });
}

/// The way to another node: its other end has closed the connection, or there is one again.
pub(crate) fn hear_of(world: &mut World, id: u64, event: Event<Outcome>) {
    let Some(life) = world.nodes.get(&id).map(|machine| machine.life) else {
        return;
    };
    within(world, id, life, move |world| {
        if let Some(running) = running(world, id) {
            running.bare.tell(event);
            turn_soon(world, id);
        }
    });
}

/// The Raft thread takes its turn soon, if it is not about to.
pub(crate) fn turn_soon(world: &mut World, id: u64) {
    let Some(life) = world.nodes.get(&id).map(|machine| machine.life) else {
        return;
    };
    let Some(running) = running(world, id).filter(|running| !running.turning) else {
        return;
    };
    running.turning = true;
    let wait = world.kernel.roll(|dice| dice.between(5, 120));
    world.kernel.after(wait, move |world| {
        within(world, id, life, move |world| turn(world, id));
    });
}

fn turn(world: &mut World, id: u64) {
    let mut effects = Vec::new();
    let Some(running) = running(world, id) else {
        return;
    };
    running.turning = false;
    let going = running.bare.turn(&mut effects);
    snapshots::decided(world, id);
    election(world, id);
    for effect in effects {
        act(world, id, effect);
    }
    if !going && !world.removed.contains(&id) {
        let why = "it says that it cannot go on".to_owned();
        stopped(world, id, &why);
    }
}

fn act(world: &mut World, id: u64, effect: Effect<Outcome>) {
    match effect {
        Effect::Send(messages) => crate::raft_wire::send(world, messages),
        Effect::Write(write) => {
            writing::push(world, id, Job::Write(write));
        }
        Effect::Compact(to) => writing::push(world, id, Job::Compact(to)),
        Effect::Apply(task) => apply_later(world, id, task),
        Effect::Role(role) => {
            world.checks.mix(role.term);
            if role.leads {
                world.checks.count("terms led");
                world
                    .checks
                    .note("node", || format!("{id} leads term {}", role.term));
                let found = world.checks.logs.lock().leads(id, role.term);
                world.checks.judge(found);
                hurry(world, id);
            }
            if let Some(running) = running(world, id) {
                running.role = role;
            }
            apply_later(world, id, Task::Role(role));
        }
        Effect::Members(members) => members::seen(world, &members),
        Effect::SnapshotWanted => snapshots::take(world, id),
        Effect::Fail(_) if world.removed.contains(&id) => super::retire(world, id),
        Effect::Fail(why) => stopped(world, id, &why),
    }
}

/// A deliberate bug: the clock of a new leader shows a term too much, so that it takes every lease for an old one.
fn hurry(world: &mut World, id: u64) {
    if world.options.mutant != Some(Mutant::NewLeaderHurries) {
        return;
    }
    world.kernel.after(400 * MS, move |world| {
        if let Some(machine) = world.nodes.get(&id) {
            machine.clock.leap(15_000 * MS);
        }
    });
}

pub(super) fn stopped(world: &mut World, id: u64, why: &str) {
    world
        .checks
        .fail(Check::NodesRestart, format!("node {id} stops: {why}"));
}

fn apply_later(world: &mut World, id: u64, task: Task<Outcome>) {
    if let Some(running) = running(world, id) {
        running.to_apply.push_back(task);
        apply_soon(world, id);
    }
}

fn apply_soon(world: &mut World, id: u64) {
    let Some(life) = world.nodes.get(&id).map(|machine| machine.life) else {
        return;
    };
    let Some(running) = running(world, id).filter(|running| !running.applying) else {
        return;
    };
    running.applying = true;
    let wait = world.kernel.roll(|dice| {
        if dice.per_mille(20) {
            dice.between(MS, 30 * MS)
        } else {
            dice.between(5, 150)
        }
    });
    world.kernel.after(wait, move |world| {
        within(world, id, life, move |world| apply(world, id));
    });
}

/// The apply thread does what waits, one entry at a time.
fn apply(world: &mut World, id: u64) {
    let Some(running) = running(world, id) else {
        return;
    };
    running.applying = false;
    let tasks: Vec<Task<Outcome>> = running.to_apply.drain(..).collect();
    for task in tasks {
        match task {
            Task::Apply { entries, changes } => {
                let mut changes = changes.into_iter().peekable();
                for entry in entries {
                    let mut mine = Vec::new();
                    while let Some(change) = changes.next_if(|(index, _)| *index == entry.index) {
                        mine.push(change);
                    }
                    apply_one(world, id, entry, mine);
                }
            }
            task => do_task(world, id, task),
        }
    }
    turn_soon(world, id);
    snapshots::take_if_due(world, id);
}

fn do_task(world: &mut World, id: u64, task: Task<Outcome>) {
    let installs = match &task {
        Task::Install { at, .. } => Some(*at),
        _ => None,
    };
    let Some(running) = running(world, id) else {
        return;
    };
    if let Err(why) = running.bare.apply(task) {
        stopped(world, id, &why);
        return;
    }
    if let Some(at) = installs {
        snapshots::installed(world, id, at);
    }
}

fn apply_one(world: &mut World, id: u64, entry: Entry, changes: Vec<(u64, Members)>) {
    let (first, found) = world.checks.logs.lock().applies(id, &entry);
    world.checks.judge(found);
    let (index, data) = (entry.index, entry.data.clone());
    let entries = spoiled(world, id, entry);
    do_task(world, id, Task::Apply { entries, changes });
    let Some(running) = running(world, id) else {
        return;
    };
    running.since_snapshot += 1;
    if first {
        world.checks.count("entries committed");
        crate::follow::entry(world, id, index, &data);
    }
    if index.is_multiple_of(COMPARE_EVERY) {
        crate::follow::state(world, id, index);
    }
}

/// A deliberate bug: after a restart, an entry that carries nothing carries once more what the last one before did.
fn spoiled(world: &mut World, id: u64, entry: Entry) -> Vec<Entry> {
    let again = running(world, id).and_then(|running| {
        let last = running.replayed.as_ref()?;
        (entry.data.is_empty() && entry.index > last.index).then(|| running.replayed.take())?
    });
    match again {
        Some(last) => vec![Entry {
            index: entry.index,
            term: entry.term,
            ..last
        }],
        None => vec![entry],
    }
}
