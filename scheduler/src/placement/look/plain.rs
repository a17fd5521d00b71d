//! Jobs in the order in which they came: each takes the best of what is free.

use super::Look;
use super::entry::{Entry, Whom};
use crate::ids::JobId;
use crate::model::Job;
use crate::policy::Aim;

impl<'a> Look<'a> {
    pub(super) fn plainly(&mut self) {
        let (mut entries, _) = self.waiting(Whom::MayStart);
        entries.sort_by_key(|entry| self.plain_place(entry.job));
        for entry in &entries {
            // Without a free GPU nothing more starts in this look, however long the queue is and whatever is kept.
            if self.is_over() {
                break;
            }
            let place = self.plain_place(entry.job);
            self.start_elsewhere(|look, job| look.plain_place(job) < place);
            self.turn(entry);
        }
        self.start_elsewhere(|_, _| true);
    }

    fn plain_place(&self, job: &Job) -> (i64, JobId) {
        match self.policy.aim {
            Aim::Fifo => (0, job.id),
            _ => self.place(job),
        }
    }

    /// One turn: the best of what is free, or something kept.
    fn turn(&mut self, entry: &Entry<'a>) {
        let mut models: Vec<usize> = (0..self.models.len()).collect();
        if self.policy.aim == Aim::Priority {
            let taste = |model: usize| entry.taste(model);
            models.sort_by(|a, b| taste(*a).total_cmp(&taste(*b)));
        } else {
            // Blind to what the hardware does for it: where the most is free.
            models.sort_by_key(|model| std::cmp::Reverse(self.pool.free_of(self.models[*model])));
        }
        let starts = models.into_iter().any(|model| self.claim(entry, model));
        if !starts && self.is_due(entry.job, &entry.left) {
            let all: Vec<usize> = (0..self.models.len()).collect();
            self.keep(entry.job, &all);
        }
    }
}
