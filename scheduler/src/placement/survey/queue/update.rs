//! How a line goes on when jobs of it have come, gone or changed.

use std::collections::BTreeSet;

use super::{Jobs, LineId, Queue};
use crate::placement::look::due_ms;
use crate::placement::survey::Scene;
use crate::state::Line;

impl Queue {
    /// Has a line be what it is by now.
    pub(in crate::placement::survey) fn update(&mut self, scene: Scene<'_>, line: Line) {
        let jobs = scene.state.line(line);
        let first = jobs.and_then(BTreeSet::first);
        match (self.by_line.get(&line).copied(), jobs) {
            (Some(id), jobs) if self.only_counts(scene, id, jobs) => {}
            (Some(id), Some(_)) if self.line(id).waits.is_some() => self.look_again(id),
            (Some(id), Some(jobs)) => self.begin_anew(scene, id, jobs),
            (Some(id), None) => _ = self.remove(id),
            (None, _) => self
                .unseen
                .extend(first.map(|(order, job)| (*order, *job, line))),
        }
    }

    /// Whether a line still begins with the same job and nothing about it is another: then how many stand in it is all
    /// that has changed.
    fn only_counts(&mut self, scene: Scene<'_>, id: LineId, jobs: Option<&Jobs>) -> bool {
        let Some((known, jobs)) = self.known[id as usize].as_mut().zip(jobs) else {
            return false;
        };
        let first = jobs.first().filter(|first| **first == known.head);
        let job = first.and_then(|(_, job)| scene.state.open_job(*job));
        let is_same = job.is_some_and(|job| {
            let waits = known.waits.is_some() && jobs.len() > 1;
            !waits
                && job.spec.priority == known.priority
                && due_ms(job, known.to_do()) == known.due_ms
        });
        // What has no turn is in no class.
        if is_same && known.left.iter().any(Option::is_some) {
            self.classes.recount(known, jobs.len());
        }
        if is_same {
            known.count = jobs.len();
        }
        is_same
    }

    /// Has a line begin with another job. They ask for the same, so nothing else that is known of it changes.
    fn begin_anew(&mut self, scene: Scene<'_>, id: LineId, jobs: &Jobs) {
        let first = jobs.first().copied();
        let job = first.and_then(|(_, job)| scene.state.open_job(job));
        let known = self.known[id as usize].take();
        let Some(((head, job), mut known)) = first.zip(job).zip(known) else {
            unreachable!("a line that has a number has a job that is not over");
        };
        self.leave(id, &known);
        known.head = head;
        known.count = jobs.len();
        known.priority = job.spec.priority;
        known.due_ms = due_ms(job, known.to_do());
        self.enter(id, &known);
        self.known[id as usize] = Some(known);
    }
}
