//! Turns of what must start now to be done when everything can be done, where a great many wait: the longest first.
//!
//! Only lines are gone through for whom there is room on hardware that all work is best spread to, group by group and by
//! what they need: what finds no room any more is left at its first line, however many stand behind it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Look;
use super::crowd::{Walk, Where, place};
use super::staged::{SHARE, Turn};
use crate::ids::JobId;
use crate::placement::survey::{Group, LineId, ordered};
use crate::policy::Aim;

/// Late lines that are looked at: more than could start on what is free.
const LATE_MAX: usize = 4_096;

/// The next line of a cursor: how much it needs, its place in the queue, and which cursor it is.
type First = (u64, Reverse<((i64, JobId), LineId)>, usize);

/// Lines of one group with the same needs.
struct Cursor<I> {
    group: usize,
    bucket: u32,
    lines: I,
}

impl Look<'_> {
    /// What must start now to be done when everything can be done, the longest first.
    pub(super) fn late_of(&mut self, walk: &mut Walk<'_>) {
        if self.is_over() || !matches!(self.policy.aim, Aim::Balanced | Aim::Makespan) {
            return;
        }
        let queue = walk.queue;
        let highest = queue.priorities().next();
        let groups = std::mem::take(&mut walk.groups);
        let may_be_late = |(index, group): &(usize, &Group<'_>)| {
            let most_ms =
                walk.outlook.needs_ms(*index) * (group.most_ms / group.mean_ms().max(1.0));
            let width = group.work.width as u8;
            self.policy.aim == Aim::Makespan || walk.outlook.is_late_at(most_ms, width)
        };
        let late: Vec<(usize, &Group<'_>)> =
            groups.iter().enumerate().filter(may_be_late).collect();
        if late.is_empty() {
            return;
        }
        let models = 0..self.models.len();
        // What a team has beyond its share it has not for being late.
        let within = |bucket: &&u32| self.shares.late_ms(queue.team_of(**bucket)) == 0;
        let rooms = walk.live.iter().filter(within).map(|bucket| {
            let has_room = |model: &usize| self.has_room_for(queue, *bucket, |at| at == *model);
            (*bucket, models.clone().filter(has_room).collect::<Vec<_>>())
        });
        let rooms: Vec<(u32, Vec<usize>)> = rooms.collect();
        let mut cursors = Vec::new();
        for (index, group) in late {
            let may = |model: &usize| self.may_be_on(walk, index, *model);
            let open = rooms.iter().filter(|(_, models)| models.iter().any(may));
            cursors.extend(open.map(|(bucket, _)| Cursor {
                group: index,
                bucket: *bucket,
                lines: group.lines_in(*bucket),
            }));
        }
        let mut firsts = BinaryHeap::new();
        for at in 0..cursors.len() {
            self.push_late(walk, &groups, &mut cursors, at, &mut firsts);
        }
        for _ in 0..LATE_MAX {
            let Some((_, Reverse((_, line)), at)) = firsts.pop() else {
                break;
            };
            if self.is_over() {
                break;
            }
            let Cursor { group, bucket, .. } = cursors[at];
            if !self.has_room_for(queue, bucket, |model| self.may_be_on(walk, group, model)) {
                // Those behind it in this order find no room either.
                continue;
            }
            self.push_late(walk, &groups, &mut cursors, at, &mut firsts);
            let known = queue.line(line);
            let is_first = self.policy.aim == Aim::Makespan || Some(known.priority) == highest;
            while is_first && !self.is_over() {
                let after = walk.served.get(&line).copied();
                let Some(job) = self.next_in(walk, line, after) else {
                    break;
                };
                let entry = self.entry_of(walk, known, job);
                if !self.claims(walk, &entry, Where::Late(group)) {
                    break;
                }
                walk.served.insert(line, place(job));
            }
        }
    }

    /// Puts the next line of a cursor among the first of all, if it is late: by what it needs where it is best done, times
    /// its width, the most first.
    fn push_late<I: Iterator<Item = (f64, LineId)>>(
        &self,
        walk: &Walk<'_>,
        groups: &[Group<'_>],
        cursors: &mut [Cursor<I>],
        at: usize,
        firsts: &mut BinaryHeap<First>,
    ) {
        let cursor = &mut cursors[at];
        let Some((ms, line)) = cursor.lines.next() else {
            return;
        };
        let group = &groups[cursor.group];
        let needs_ms = walk.outlook.needs_ms(cursor.group) * (ms / group.mean_ms().max(1.0));
        let width = group.work.width;
        let (is_late, weight) = match self.policy.aim {
            Aim::Makespan => (true, width),
            _ => (walk.outlook.is_late_at(needs_ms, width as u8), width.sqrt()),
        };
        if is_late {
            let most = ordered(needs_ms * weight);
            firsts.push((most, Reverse((walk.queue.line(line).head, line)), at));
        }
    }

    /// The models that a late job takes, the best first.
    pub(super) fn late_models(&self, walk: &Walk<'_>, turn: &Turn, group: usize) -> Vec<usize> {
        let mut models: Vec<usize> = (0..self.models.len()).collect();
        if !self.goes_by_share(walk) {
            models.retain(|model| turn.cost[*model].is_finite());
            models.sort_by(|a, b| turn.cost[*a].total_cmp(&turn.cost[*b]));
            return models;
        }
        let share = walk.outlook.share(group);
        models.retain(|model| self.may_be_on(walk, group, *model));
        models.sort_by(|a, b| share[*b].total_cmp(&share[*a]));
        models
    }

    /// Whether late work goes where all work is best spread: if there is room for all, everybody goes where they like.
    fn goes_by_share(&self, walk: &Walk<'_>) -> bool {
        walk.outlook.is_crowded() || self.policy.aim == Aim::Makespan
    }

    /// Whether late work of a group goes on a model.
    fn may_be_on(&self, walk: &Walk<'_>, group: usize, model: usize) -> bool {
        !self.goes_by_share(walk)
            || walk.outlook.share(group)[model] > SHARE * walk.outlook.balance.horizon
    }
}
