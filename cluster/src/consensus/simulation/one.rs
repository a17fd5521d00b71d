//! One node on a pretend disk, crashed at random moments from a seed: what was acknowledged is there afterwards.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::log::{Batch, LogStore, MemLog, MemLogDisk, ORIGIN, Position};
use super::super::waiters::Waiters;
use super::super::{Begin, Output, Peer, Write};
use super::Dice;
use crate::members::Members;

const SEEDS: u64 = 2_000;
const STEPS: usize = 300;

/// What a client knows, and so what no crash may undo.
#[derive(Default)]
struct Promises {
    /// Index and number of each acknowledged proposal.
    acknowledged: Vec<(u64, u64)>,
    /// Everything that was ever applied, in order: every life of the node has to repeat it.
    applied: Vec<(Position, u64)>,
}

/// One life of the node, between two crashes.
struct Life {
    peer: Peer,
    log: MemLog,
    waiters: Waiters<u64>,
    to_write: VecDeque<Write>,
    to_apply: VecDeque<raft::eraftpb::Entry>,
    applied: u64,
    /// Where in [`Promises::applied`] this life's replay stands.
    replayed: usize,
}

impl Life {
    fn begin(disk: &MemLogDisk) -> Self {
        let mut log = disk.open();
        let loaded = log.load().unwrap();
        let mut peer = Peer::new(Begin {
            id: 1,
            loaded,
            applied: ORIGIN.index,
            members: Members::founder(1),
            snapshot: None,
        })
        .unwrap();
        peer.start().unwrap();
        let (to_write, to_apply) = (VecDeque::new(), VecDeque::new());
        Self {
            peer,
            log,
            waiters: Waiters::new(),
            to_write,
            to_apply,
            applied: ORIGIN.index,
            replayed: 0,
        }
    }

    fn flush(&mut self) {
        let mut outputs = Vec::new();
        self.peer.outputs(&mut outputs);
        for output in outputs {
            match output {
                Output::Persist(write) => self.to_write.push_back(write),
                Output::Apply { entries, .. } => self.to_apply.extend(entries),
                Output::Send(messages) => assert!(messages.is_empty()),
                _ => {}
            }
        }
    }

    fn propose(&mut self, first_number: u64, count: u64) {
        let data = (first_number..first_number + count)
            .map(|n| Bytes::copy_from_slice(&n.to_le_bytes()))
            .collect();
        if let Ok(proposed) = self.peer.propose(data) {
            let lost = self.waiters.appended(
                proposed.first,
                (first_number..first_number + count).collect(),
            );
            assert!(
                lost.is_empty(),
                "a single voter never replaces its own entries"
            );
        }
    }

    /// As the log thread does: merge, write, sync if any of it asks for it, report.
    fn write(&mut self, count: usize) {
        let mut batch = Batch::default();
        let (mut sync, mut number) = (false, 0);
        for write in self.to_write.drain(..count.min(self.to_write.len())) {
            batch.merge(write.batch);
            sync |= write.sync;
            number = write.number;
        }
        if number > 0 && self.log.write(&batch, sync).is_ok() {
            self.peer.persisted(number);
        }
    }

    fn apply(&mut self, count: usize, promises: &mut Promises) {
        for entry in self.to_apply.drain(..count.min(self.to_apply.len())) {
            assert_eq!(
                entry.index,
                self.applied + 1,
                "applied in order, without a gap"
            );
            self.applied = entry.index;
            if entry.data.is_empty() {
                continue;
            }
            let number = u64::from_le_bytes(entry.data[..].try_into().unwrap());
            let at = Position {
                index: entry.index,
                term: entry.term,
            };
            match promises.applied.get(self.replayed) {
                Some(before) => assert_eq!(
                    *before,
                    (at, number),
                    "a replay repeats what was applied before"
                ),
                None => promises.applied.push((at, number)),
            }
            self.replayed += 1;
            if let Some(waiting) = self.waiters.applied(at).mine {
                assert_eq!(waiting, number, "an answer goes to who asked");
                promises.acknowledged.push((entry.index, number));
            }
        }
        self.peer.applied(self.applied);
    }

    fn finish(&mut self, promises: &mut Promises) {
        for _ in 0..10 {
            self.flush();
            self.write(usize::MAX);
            self.flush();
            self.apply(usize::MAX, promises);
        }
    }
}

fn run(seed: u64) -> (Promises, usize) {
    let mut dice = Dice(seed);
    let disk = MemLogDisk::default();
    let mut promises = Promises::default();
    let mut life = Life::begin(&disk);
    let (mut next, mut crashes) = (0, 0);
    for _ in 0..STEPS {
        life.flush();
        match dice.roll(20) {
            0..=6 => {
                let count = dice.roll(5) + 1;
                life.propose(next, count);
                next += count;
            }
            7..=11 => life.write(dice.roll(4) as usize),
            12..=16 => life.apply(dice.roll(8) as usize, &mut promises),
            17 => life.peer.tick(),
            18 => {
                disk.refuse(true);
                let write = life
                    .to_write
                    .front()
                    .map(|w| w.batch.clone())
                    .unwrap_or_default();
                assert!(life.log.write(&write, true).is_err());
                disk.refuse(false);
            }
            _ => {
                crashes += 1;
                // A write that was under way may be lost in part, and what was not synced in any number.
                if let Some(write) = life.to_write.front().filter(|_| dice.roll(2) == 0) {
                    life.log.write(&write.batch, false).unwrap();
                }
                disk.crash(dice.roll(disk.unsynced() as u64 + 1) as usize);
                life = Life::begin(&disk);
            }
        }
    }
    disk.crash(0);
    let mut last = Life::begin(&disk);
    last.finish(&mut promises);
    assert!(
        last.replayed >= promises.acknowledged.len(),
        "the last life has applied it all"
    );
    for promise in &promises.acknowledged {
        let found = promises
            .applied
            .binary_search_by_key(&promise.0, |(at, _)| at.index);
        assert_eq!(
            found.ok().map(|at| promises.applied[at].1),
            Some(promise.1),
            "an acknowledged proposal is there"
        );
    }
    assert_eq!(
        last.replayed,
        promises.applied.len(),
        "nothing that was applied is gone"
    );
    (promises, crashes)
}

#[test]
fn what_was_acknowledged_survives_any_crash() {
    let (mut acknowledged, mut crashes) = (0, 0);
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let (promises, crashed) = outcome.unwrap_or_else(|_| panic!("seed {seed} fails"));
        acknowledged += promises.acknowledged.len();
        crashes += crashed;
    }
    // The world is lively enough for the checks to mean something.
    assert!(acknowledged > 40_000, "{acknowledged} acknowledged");
    assert!(crashes > 10_000, "{crashes} crashes");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let (once, again) = (run(seed).0, run(seed).0);
        assert_eq!(once.applied, again.applied);
        assert_eq!(once.acknowledged, again.acknowledged);
    }
}
