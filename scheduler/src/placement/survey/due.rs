//! Lines whose first job was passed for long enough, in the order of the queue. Time moves them here as it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::line::Known;
use super::queue::LineId;
use crate::ids::{JobId, TeamId};
use crate::placement::look::LOST_MS;

/// A line by the place in the queue of its first job.
pub(in crate::placement) type LinePlace = (i64, JobId, LineId);

/// All lines that have a turn.
#[derive(Default)]
pub(in crate::placement) struct Due {
    now_ms: u64,
    /// Those that are not due yet, by when they are.
    ahead: BTreeSet<(u64, LineId)>,
    /// Those that are due, by their teams.
    ripe: BTreeMap<TeamId, BTreeSet<LinePlace>>,
    /// The same by their needs.
    ripe_in: BTreeSet<(u32, i64, JobId, LineId)>,
    /// Those of them that have lost their worker.
    lost: BTreeSet<LinePlace>,
    /// How many of them are of which priority.
    priorities: BTreeMap<i8, usize>,
}

impl Due {
    /// Takes a line in.
    pub(super) fn add(&mut self, id: LineId, known: &Known) {
        if known.due_ms > self.now_ms {
            self.ahead.insert((known.due_ms, id));
            return;
        }
        let (order, first) = known.head;
        let team = self.ripe.entry(known.team).or_default();
        team.insert((order, first, id));
        self.ripe_in.insert((known.bucket, order, first, id));
        if known.due_ms == LOST_MS {
            self.lost.insert((order, first, id));
        }
        *self.priorities.entry(known.priority).or_default() += 1;
    }

    /// Takes a line out, as it was taken in.
    pub(super) fn remove(&mut self, id: LineId, known: &Known) {
        if self.ahead.remove(&(known.due_ms, id)) {
            return;
        }
        let (order, first) = known.head;
        if let Some(team) = self.ripe.get_mut(&known.team) {
            team.remove(&(order, first, id));
            if team.is_empty() {
                self.ripe.remove(&known.team);
            }
        }
        self.ripe_in.remove(&(known.bucket, order, first, id));
        self.lost.remove(&(order, first, id));
        if let Some(count) = self.priorities.get_mut(&known.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&known.priority);
            }
        }
    }

    /// Has it be so late, with lines as they are known.
    pub(super) fn go_on(&mut self, now_ms: u64, lines: &[Option<Known>]) {
        let line = |id: LineId| lines.get(id as usize).and_then(Option::as_ref);
        if now_ms < self.now_ms {
            let early = self.ripe.values().flatten().map(|(_, _, id)| *id);
            let early = early.filter(|id| line(*id).is_some_and(|known| known.due_ms > now_ms));
            for id in early.collect::<Vec<_>>() {
                if let Some(known) = line(id) {
                    self.remove(id, known);
                    self.ahead.insert((known.due_ms, id));
                }
            }
        }
        self.now_ms = now_ms;
        while let Some((due_ms, id)) = self.ahead.first().copied()
            && due_ms <= now_ms
        {
            self.ahead.pop_first();
            if let Some(known) = line(id) {
                self.add(id, known);
            }
        }
    }

    /// The lowest priority of those that are due.
    pub(in crate::placement) fn lowest(&self) -> Option<i8> {
        self.priorities.keys().next().copied()
    }

    /// Those that are due, by their teams.
    pub(in crate::placement) fn by_team(
        &self,
    ) -> impl Iterator<Item = (TeamId, impl Iterator<Item = LinePlace>)> {
        let teams = self.ripe.iter();
        teams.map(|(team, lines)| (*team, lines.iter().copied()))
    }

    /// Those of them with the same needs, behind a place.
    pub(in crate::placement) fn behind(
        &self,
        bucket: u32,
        (order, first, id): LinePlace,
    ) -> impl Iterator<Item = LinePlace> {
        let last = (bucket, i64::MAX, JobId(u64::MAX), LineId::MAX);
        let behind = (
            Bound::Excluded((bucket, order, first, id)),
            Bound::Included(last),
        );
        let behind = self.ripe_in.range(behind);
        behind.map(|(_, order, first, id)| (*order, *first, *id))
    }

    /// Those that have lost their worker.
    pub(in crate::placement) fn lost(&self) -> impl Iterator<Item = LinePlace> {
        self.lost.iter().copied()
    }
}
