//! Everything that goes wrong while the troubled time lasts, one thing after the other and several at once.

use crate::kernel::{Host, MS, Micros, SECOND};
use crate::members;
use crate::node::{self, Disk};
use crate::worker;
use crate::world::World;

/// Nothing goes wrong before this, so that the cluster has begun.
const QUIET: Micros = 2 * SECOND;

/// Begins the trouble, which lasts until then.
pub(crate) fn begin(world: &mut World, until: Micros) {
    weather(world, until);
    // Some runs are calm, some are wild.
    let (every_node, every_worker) = world
        .kernel
        .roll(|dice| (dice.between(1_500, 12_000), dice.between(3_000, 15_000)));
    next(world, until, QUIET, every_node, at_a_node);
    next(world, until, QUIET, every_worker, at_a_worker);
    if world.options.changes {
        let every = world.kernel.roll(|dice| dice.between(2_000, 10_000));
        next(world, until, QUIET, every, members::change);
    }
}

/// Has something go wrong now and then.
fn next(world: &mut World, until: Micros, wait: Micros, every_ms: u64, what: fn(&mut World)) {
    let wait = wait + world.kernel.roll(|dice| dice.between(100, 2 * every_ms)) * MS;
    if world.kernel.now() + wait >= until {
        return;
    }
    world.kernel.after(wait, move |world| {
        what(world);
        next(world, until, 0, every_ms, what);
    });
}

/// How bad the wires and the store are; changes now and then.
fn weather(world: &mut World, until: Micros) {
    let (lost, doubled, late, late_at_most, store) = world.kernel.roll(|dice| {
        let wild = dice.per_mille(300);
        let scale = if wild { 10 } else { 1 };
        (
            dice.roll(20 * scale),
            dice.roll(20 * scale),
            dice.roll(30 * scale),
            dice.between(2 * MS, 60 * MS * scale),
            dice.roll(400),
        )
    });
    world.network.weather(lost, doubled, late, late_at_most);
    world.store.fails(store);
    let lasts = world
        .kernel
        .roll(|dice| dice.between(2 * SECOND, 20 * SECOND));
    if world.kernel.now() + lasts < until {
        world
            .kernel
            .after(lasts, move |world| weather(world, until));
    }
}

fn some_node(world: &World) -> u64 {
    let (leader, nodes) = (world.leader(), world.node_ids());
    world.kernel.roll(|dice| {
        // The leader is who things matter most to.
        match leader {
            Some(leader) if dice.per_mille(500) => leader,
            _ => {
                let place = usize::try_from(dice.roll(nodes.len() as u64)).unwrap_or(0);
                nodes[place]
            }
        }
    })
}

fn at_a_node(world: &mut World) {
    let id = some_node(world);
    let (kind, lasts) = world
        .kernel
        .roll(|dice| (dice.roll(100), dice.between(200 * MS, 12 * SECOND)));
    match kind {
        0..=24 => crash(world, id, lasts),
        25..=27 => crash_all(world, lasts),
        28..=44 => isolate(world, id, lasts),
        45..=56 => one_way(world, id, lasts),
        57..=66 => split(world, lasts),
        67..=78 => pause(world, id, lasts),
        79..=84 => disk(world, id, Disk::Slow, lasts),
        85..=87 => disk(world, id, Disk::Failing, lasts),
        88..=90 => disk(world, id, Disk::Full, lasts),
        91..=93 => wall_clock(world, id),
        94..=96 => crate::raft_wire::breaks(world, id),
        _ => transfer(world, id),
    }
}

fn crash(world: &mut World, id: u64, lasts: Micros) {
    node::crash(world, id);
    world
        .kernel
        .after(lasts, move |world| node::start(world, id));
}

/// A node has given its vote: the worst moment to lose it, and for whoever got it to be alone.
pub(crate) fn at_a_vote(world: &mut World, voter: u64, candidate: u64) {
    if world.is_in_peace() || !world.kernel.roll(|dice| dice.per_mille(60)) {
        return;
    }
    let (soon, lasts, alone) = world.kernel.roll(|dice| {
        (
            dice.between(100, 2 * MS),
            dice.between(50 * MS, 600 * MS),
            dice.between(SECOND, 4 * SECOND),
        )
    });
    world.kernel.after(soon, move |world| {
        crash(world, voter, lasts);
        let nodes = world.node_ids().into_iter();
        let nodes = nodes.filter(|id| *id != voter && *id != candidate);
        let wires = nodes.flat_map(|id| {
            let (other, led) = (Host::Node(id), Host::Node(candidate));
            [(other, led), (led, other)]
        });
        let wires = wires.collect();
        world.checks.count("votes lost in a crash");
        cut(world, wires, alone);
    });
}

fn crash_all(world: &mut World, lasts: Micros) {
    world.checks.count("power failures");
    for id in world.node_ids() {
        let more = world.kernel.roll(|dice| dice.roll(SECOND));
        crash(world, id, lasts + more);
    }
}

/// Everybody a node can talk to.
fn others(world: &World, id: u64) -> Vec<Host> {
    let nodes = world.node_ids().into_iter();
    let nodes = nodes.filter(|other| *other != id).map(Host::Node);
    let workers = world.workers.keys().map(|number| Host::Worker(*number));
    let people = (0..world.options.submitters + 3).map(Host::Person);
    nodes.chain(workers).chain(people).collect()
}

/// A node loses the other nodes, and sometimes everybody.
fn isolate(world: &mut World, id: u64, lasts: Micros) {
    let everybody = world.kernel.roll(|dice| dice.per_mille(400));
    let from: Vec<Host> = others(world, id)
        .into_iter()
        .filter(|host| everybody || matches!(host, Host::Node(_)))
        .collect();
    world.checks.count("partitions");
    world.checks.note("partition", || {
        format!("{id} is alone, from everybody: {everybody}")
    });
    let wires = from
        .into_iter()
        .flat_map(|other| [(Host::Node(id), other), (other, Host::Node(id))]);
    cut(world, wires.collect(), lasts);
}

/// A node hears others and is not heard, or the other way round.
fn one_way(world: &mut World, id: u64, lasts: Micros) {
    let (deaf, some) = world
        .kernel
        .roll(|dice| (dice.per_mille(500), dice.per_mille(500)));
    let mut wires = Vec::new();
    for other in others(world, id) {
        let chosen = !some || world.kernel.roll(|dice| dice.per_mille(500));
        if chosen && matches!(other, Host::Node(_)) {
            wires.push(if deaf {
                (other, Host::Node(id))
            } else {
                (Host::Node(id), other)
            });
        }
    }
    world.checks.count("one-way partitions");
    cut(world, wires, lasts);
}

/// The nodes fall apart in two halves.
fn split(world: &mut World, lasts: Micros) {
    let sides = world.kernel.roll(crate::dice::Dice::word);
    let side = |id: u64| sides >> id & 1;
    let mut wires = Vec::new();
    for a in world.node_ids() {
        for b in world.node_ids() {
            if side(a) != side(b) {
                wires.push((Host::Node(a), Host::Node(b)));
            }
        }
    }
    world.checks.count("partitions");
    cut(world, wires, lasts);
}

fn cut(world: &mut World, wires: Vec<(Host, Host)>, lasts: Micros) {
    for (from, to) in &wires {
        world.network.cut(*from, *to);
    }
    world.kernel.after(lasts, move |world| {
        for (from, to) in wires {
            world.network.mend(from, to);
        }
    });
}

fn pause(world: &mut World, id: u64, lasts: Micros) {
    let lasts = world.kernel.roll(|dice| {
        if dice.per_mille(400) {
            dice.between(8 * SECOND, 25 * SECOND)
        } else {
            lasts
        }
    });
    world.checks.count("pauses of nodes");
    node::pause(world, id);
    world
        .kernel
        .after(lasts, move |world| node::resume(world, id));
}

fn disk(world: &mut World, id: u64, how: Disk, lasts: Micros) {
    if let Some(machine) = world.nodes.get_mut(&id) {
        machine.disk = how;
    }
    world.checks.count("disks in trouble");
    world.checks.note("disk", || format!("of {id}: {how:?}"));
    world.kernel.after(lasts, move |world| {
        if let Some(machine) = world.nodes.get_mut(&id) {
            machine.disk = Disk::Fine;
        }
    });
}

fn wall_clock(world: &mut World, id: u64) {
    let by_ms = world.kernel.roll(|dice| {
        let far = if dice.per_mille(300) {
            3_600_000
        } else {
            40_000
        };
        i64::try_from(dice.roll(far)).unwrap_or(0) - i64::try_from(far / 2).unwrap_or(0)
    });
    world.checks.count("clock jumps");
    world
        .checks
        .note("clock", || format!("of {id} jumps by {by_ms} ms"));
    if let Some(machine) = world.nodes.get(&id) {
        machine.clock.jump(by_ms);
    }
}

fn transfer(world: &mut World, id: u64) {
    let Some(leader) = world.leader() else { return };
    world.checks.count("transfers of leadership");
    node::transfer(world, leader, id);
}

fn at_a_worker(world: &mut World) {
    let workers = world.options.workers;
    let (number, kind, lasts) = world.kernel.roll(|dice| {
        (
            dice.roll(workers) + 1,
            dice.roll(100),
            if dice.per_mille(300) {
                dice.between(10 * SECOND, 24 * SECOND)
            } else {
                dice.between(200 * MS, 10 * SECOND)
            },
        )
    });
    match kind {
        0..=19 => worker_down(world, number, lasts, worker::kill),
        20..=27 => worker_down(world, number, lasts, worker::cut_power),
        28..=44 => {
            world.checks.count("pauses of workers");
            worker::pause(world, number);
            world
                .kernel
                .after(lasts, move |world| worker::resume(world, number));
        }
        45..=64 => {
            world.checks.count("streams cut");
            worker::cut_stream(world, number);
        }
        65..=84 => {
            world.checks.count("partitions of workers");
            let wires = world.node_ids().into_iter().flat_map(|id| {
                let (node, host) = (Host::Node(id), Host::Worker(number));
                [(node, host), (host, node)]
            });
            cut(world, wires.collect(), lasts);
        }
        85..=92 => {
            let deaf = kind % 2 == 0;
            world.checks.count("one-way partitions");
            let wires = world.node_ids().into_iter().map(|id| {
                let (node, host) = (Host::Node(id), Host::Worker(number));
                if deaf { (node, host) } else { (host, node) }
            });
            cut(world, wires.collect(), lasts);
        }
        _ => {
            world.checks.count("clock jumps");
            let by_ms = world.kernel.roll(|dice| dice.roll(80_000));
            if let Some(machine) = world.workers.get(&number) {
                machine
                    .clock
                    .jump(i64::try_from(by_ms).unwrap_or(0) - 40_000);
            }
        }
    }
}

fn worker_down(world: &mut World, number: u64, lasts: Micros, how: fn(&mut World, u64)) {
    world.checks.count("crashes of workers");
    world
        .checks
        .note("worker", || format!("host {number} goes down"));
    how(world, number);
    world
        .kernel
        .after(lasts, move |world| worker::start(world, number));
}

/// Nothing goes wrong any more, and whatever is down comes up.
pub(crate) fn end(world: &mut World) {
    world.network.mend_all();
    world.store.fails(0);
    world.checks.note("peace", String::new);
    for id in world.node_ids() {
        if let Some(machine) = world.nodes.get_mut(&id) {
            machine.disk = Disk::Fine;
        }
        node::resume(world, id);
        node::start(world, id);
    }
    for number in 1..=world.options.workers {
        worker::resume(world, number);
        worker::start(world, number);
    }
}
