//! Snapshots on a node's disk: taken, kept, received from others, adopted and installed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use raft::eraftpb::Message;
use stepcast_cluster::consensus::log::Position;
use stepcast_cluster::consensus::{Delivery, Event};
use stepcast_scheduler::State;
use tokio::sync::oneshot;

use super::{Kept, Machine, running, threads, within};
use crate::kernel::MS;
use crate::mutant::Mutant;
use crate::world::World;

/// Applied entries between two snapshots of a node, at least.
const SNAPSHOT_ENTRIES: u64 = 20;

/// Entries that are kept in the log behind a snapshot.
const TAIL_ENTRIES: u64 = 5;

/// A snapshot that was received is taken for one's own only if the log was reset to it before the crash.
pub(super) fn adopt(machine: &mut Machine, truncated: Position) {
    let incoming = std::mem::take(&mut *machine.incoming.lock());
    if let Some(kept) = incoming.get(&truncated) {
        keep(machine, kept.clone());
    }
}

fn keep(machine: &mut Machine, kept: Kept) {
    machine.snapshots.retain(|known| known.at != kept.at);
    machine.snapshots.push(kept);
    let surplus = machine.snapshots.len().saturating_sub(2);
    machine.snapshots.drain(..surplus);
}

/// The state in a snapshot that has come in.
pub(super) fn received(
    incoming: &Mutex<BTreeMap<Position, Kept>>,
    at: Position,
) -> Result<State, String> {
    let kept = incoming.lock().get(&at).cloned();
    let kept = kept.ok_or_else(|| format!("no snapshot of entry {} has come in", at.index))?;
    State::restore(&kept.state).map_err(|error| error.to_string())
}

/// The state was replaced by the snapshot of this entry.
pub(super) fn installed(world: &mut World, id: u64, at: Position) {
    if let Some(machine) = world.nodes.get_mut(&id) {
        let kept = {
            let mut incoming = machine.incoming.lock();
            let later = incoming.split_off(&Position {
                index: at.index + 1,
                term: 0,
            });
            std::mem::replace(&mut *incoming, later).remove(&at)
        };
        if let Some(kept) = kept {
            keep(machine, kept);
        }
        if let Some(running) = &mut machine.running {
            running.since_snapshot = 0;
        }
        world.checks.count("snapshots installed");
    }
}

pub(super) fn take_if_due(world: &mut World, id: u64) {
    let due = running(world, id).is_some_and(|r| r.since_snapshot >= SNAPSHOT_ENTRIES);
    if due {
        take(world, id);
    }
}

/// Takes a snapshot, which is on disk a while later.
pub(super) fn take(world: &mut World, id: u64) {
    let Some(life) = world.nodes.get(&id).map(|machine| machine.life) else {
        return;
    };
    let bare = world.options.mutant == Some(Mutant::SnapshotWithoutMembers);
    let founders = world.options.nodes;
    let Some(running) = running(world, id) else {
        return;
    };
    running.since_snapshot = 0;
    let kept = running.bare.read_at(|state, members, at| Kept {
        at,
        // A deliberate bug: who belongs to the cluster is not in it, and is taken to be as it was in the beginning.
        members: if bare {
            super::founders(founders)
        } else {
            members.clone()
        },
        state: Arc::new(state.snapshot()),
    });
    let takes = world.kernel.roll(|dice| dice.between(MS, 300 * MS));
    world.kernel.after(takes, move |world| {
        within(world, id, life, move |world| {
            let Some(machine) = world.nodes.get_mut(&id) else {
                return;
            };
            if machine
                .snapshots
                .iter()
                .any(|known| known.at.index >= kept.at.index)
            {
                return;
            }
            let (at, members) = (kept.at, kept.members.clone());
            keep(machine, kept);
            let older = (machine.snapshots.len() > 1).then(|| machine.snapshots[0].at.index);
            if let Some(running) = &machine.running {
                running.bare.tell(Event::SnapshotTaken(at, members));
                if let Some(older) = older {
                    let to = older.min(at.index.saturating_sub(TAIL_ENTRIES));
                    running.bare.tell(Event::Compact(to));
                }
            }
            world.checks.count("snapshots taken");
            threads::turn_soon(world, id);
        });
    });
}

/// A snapshot has come in from another node, whole.
pub(crate) fn receive(world: &mut World, id: u64, message: Message, kept: Kept) {
    let Some(life) = world.nodes.get(&id).map(|machine| machine.life) else {
        return;
    };
    within(world, id, life, move |world| {
        if let Some(machine) = world.nodes.get_mut(&id) {
            let at = kept.at;
            machine.incoming.lock().insert(at, kept);
            if let Some(running) = &mut machine.running {
                let (answer, taken) = oneshot::channel();
                let received = Event::SnapshotReceived(message, answer);
                running.bare.tell(received);
                running.undecided.push((at, taken));
            }
        }
        threads::turn_soon(world, id);
    });
}

/// The node has decided about the snapshots that have come in: what it has no use for is removed.
pub(super) fn decided(world: &mut World, id: u64) {
    let Some(machine) = world.nodes.get_mut(&id) else {
        return;
    };
    let Some(running) = &mut machine.running else {
        return;
    };
    let (mut taken, mut ignored) = (BTreeSet::new(), BTreeSet::new());
    for (at, mut answer) in std::mem::take(&mut running.undecided) {
        match answer.try_recv() {
            Ok(true) => drop(taken.insert(at)),
            Ok(false) => drop(ignored.insert(at)),
            Err(oneshot::error::TryRecvError::Empty) => running.undecided.push((at, answer)),
            Err(oneshot::error::TryRecvError::Closed) => {}
        }
    }
    for at in ignored.difference(&taken) {
        machine.incoming.lock().remove(at);
        world.checks.count("snapshots ignored");
    }
}

/// How sending a snapshot has ended.
pub(crate) fn sent(world: &mut World, id: u64, to: u64, ended: Delivery) {
    if let Some(running) = running(world, id) {
        running.bare.tell(Event::SnapshotSent { node: to, ended });
        threads::turn_soon(world, id);
    }
}
