//! The log thread and the disk under it: one merged write after the other, quick or slow, failing or torn.

use raft::eraftpb::Message;
use stepcast_cluster::consensus::log::{Batch, LogStore};
use stepcast_cluster::consensus::{Event, Stall};

use super::{Disk, Job, RETRY, running, threads, within};
use crate::kernel::{MS, Micros};
use crate::mutant::Mutant;
use crate::world::World;

pub(super) fn push(world: &mut World, id: u64, job: Job) {
    let early = world.options.mutant == Some(Mutant::AckBeforeSync);
    let Some(running) = running(world, id) else {
        return;
    };
    // A deliberate bug: what may be said only after the sync is said before it.
    if let (true, Job::Write(write)) = (early, &job) {
        running.bare.tell(Event::Persisted(write.number));
        let messages = write.then_send.clone();
        crate::raft_wire::send(world, messages);
        threads::turn_soon(world, id);
    }
    if let Some(running) = super::running(world, id) {
        running.to_write.push_back(job);
        if !running.writing {
            running.writing = true;
            write_soon(world, id, 0);
        }
    }
}

/// The log thread takes what waits, soon.
fn write_soon(world: &mut World, id: u64, wait: Micros) {
    let Some(life) = world.nodes.get(&id).map(|machine| machine.life) else {
        return;
    };
    let wait = wait + world.kernel.roll(|dice| dice.between(5, 80));
    world.kernel.after(wait, move |world| {
        within(world, id, life, move |world| write(world, id, life));
    });
}

/// Merges every write that waits into one, begins it, and has it done once the disk is.
fn write(world: &mut World, id: u64, life: u64) {
    let Some(machine) = world.nodes.get_mut(&id) else {
        return;
    };
    let disk = machine.disk;
    let Some(running) = &mut machine.running else {
        return;
    };
    while let Some(Job::Compact(to)) = running.to_write.front() {
        let _ = running.log.compact(*to);
        running.to_write.pop_front();
    }
    let mut batch = Batch::default();
    let (mut number, mut sync, mut then_send) = (0, false, Vec::new());
    for job in &running.to_write {
        let Job::Write(write) = job else { break };
        batch.merge(write.batch.clone());
        number = write.number;
        sync |= write.sync;
        then_send.extend(write.then_send.iter().cloned());
    }
    if number == 0 {
        running.writing = false;
        return;
    }
    if matches!(disk, Disk::Failing | Disk::Full) && !batch.is_empty() {
        let stall = if disk == Disk::Full {
            Stall::Full
        } else {
            Stall::Failing("the simulated disk refuses".to_owned())
        };
        running.bare.stalled(Some(stall));
        let wait = running.retry;
        running.retry = (running.retry * 2).min(RETRY.1);
        world.checks.count("writes that failed");
        threads::turn_soon(world, id);
        write_soon(world, id, wait);
        return;
    }
    if running.retry > RETRY.0 {
        running.retry = RETRY.0;
        running.bare.stalled(None);
    }
    while let Some(Job::Write(_)) = running.to_write.front() {
        running.to_write.pop_front();
    }
    // On its way to the disk: a crash in between leaves all of it or nothing, as its checksum says.
    let _ = running.log.write(&batch, false);
    let takes = match (disk, sync) {
        (_, false) => 20,
        (Disk::Slow, true) => world.kernel.roll(|dice| dice.between(20 * MS, 900 * MS)),
        (_, true) => world.kernel.roll(|dice| dice.between(100, 4 * MS)),
    };
    let entries = batch.entries().to_vec();
    world.checks.count("writes to disk");
    world.kernel.after(takes, move |world| {
        within(world, id, life, move |world| {
            // From here on it counts: what a crash takes before has never been.
            crate::raft_wire::shown(world, id, &entries);
            write_done(world, id, number, sync, then_send);
        });
    });
}

fn write_done(world: &mut World, id: u64, number: u64, sync: bool, then_send: Vec<Message>) {
    let early = world.options.mutant == Some(Mutant::AckBeforeSync);
    let Some(running) = running(world, id) else {
        return;
    };
    if sync {
        let _ = running.log.write(&Batch::default(), true);
    }
    if !early {
        running.bare.tell(Event::Persisted(number));
        crate::raft_wire::send(world, then_send);
    }
    threads::turn_soon(world, id);
    write_soon(world, id, 0);
}
