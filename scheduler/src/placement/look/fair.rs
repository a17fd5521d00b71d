//! Turns by fair shares: the job goes first that has had the least of what is due to it.

use super::Look;
use super::entry::{Entry, Whom};
use crate::policy::Aim;
use crate::policy::balance::{Work, balance};

/// Time that everybody is taken to have had, in milliseconds, so that who has just come is not infinitely behind.
const BEGUN_MS: f64 = 60_000.0;

impl<'a> Look<'a> {
    pub(super) fn fairly(&mut self) {
        // GPUs are kept for nobody else here.
        self.start_elsewhere(|_, _| true);
        let (running, _) = self.running();
        let (mut entries, _) = self.waiting(Whom::MayStart);
        entries.extend(running);
        let shares = self.shares(&entries);
        let mut turns: Vec<(f64, usize, usize)> = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            for (model, share) in shares[index].iter().enumerate() {
                if *share > 1e-6 {
                    turns.push((share / self.had(entry, model), index, model));
                }
            }
        }
        turns.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut has_turn = vec![false; entries.len()];
        for (_, index, model) in turns {
            if self.is_over() {
                break;
            }
            if !has_turn[index] {
                has_turn[index] = self.claim(&entries[index], model);
            }
        }
        for index in (0..entries.len())
            .filter(|index| !has_turn[*index])
            .collect::<Vec<_>>()
        {
            if self.is_over() {
                break;
            }
            let entry = &entries[index];
            let mut models: Vec<usize> = (0..self.models.len()).collect();
            models.sort_by(|a, b| entry.taste(*a).total_cmp(&entry.taste(*b)));
            has_turn[index] = models.into_iter().any(|model| self.claim(entry, model));
        }
        self.evict(&entries);
    }

    /// The part of the time that each job is due on each model.
    fn shares(&self, entries: &[Entry<'a>]) -> Vec<Vec<f64>> {
        let capacity: Vec<f64> = self
            .models
            .iter()
            .map(|model| f64::from(self.pool.count_of(*model)))
            .collect();
        let work: Vec<Work> = entries
            .iter()
            .map(|entry| {
                fair_work(
                    &self.speeds(entry),
                    entry.width(),
                    1.0,
                    &capacity,
                    entries.len(),
                )
            })
            .collect();
        let found = balance(&work, &capacity);
        let part = |hours: &f64| hours / found.horizon.max(f64::MIN_POSITIVE);
        found
            .shares
            .iter()
            .map(|row| row.iter().map(part).collect())
            .collect()
    }

    /// How fast a job is on each model; 0 where it cannot run.
    fn speeds(&self, entry: &Entry<'a>) -> Vec<f64> {
        let speed = |left: &Option<crate::placement::left::Left>| match left {
            Some(_) if self.policy.aim == Aim::FairBlind => 1.0,
            Some(left) => 1.0 / left.p50_ms.max(1.0),
            None => 0.0,
        };
        entry.left.iter().map(speed).collect()
    }

    /// The part of its time that a job has had on a model.
    fn had(&self, entry: &Entry<'a>, model: usize) -> f64 {
        let on_model = entry
            .job
            .attempts
            .iter()
            .filter(|attempt| attempt.gpu == self.models[model]);
        let ran_ms: u64 = on_model
            .map(|attempt| {
                let until_ms = attempt.ended_ms.unwrap_or(self.now_ms);
                until_ms.saturating_sub(attempt.placed_ms)
            })
            .sum();
        let age_ms = self.now_ms.saturating_sub(entry.job.submitted_ms) as f64;
        (ran_ms as f64 + BEGUN_MS) / (age_ms + BEGUN_MS)
    }
}

/// The work whose shortest horizon gives the fairest shares: for one unit of service, a job that an equal share of every
/// model would serve at speed `e` needs `weight * e / (width * speed)` on a model (Gavel's policy in one formula).
pub(crate) fn fair_work(
    speeds: &[f64],
    width: f64,
    weight: f64,
    capacity: &[f64],
    jobs: usize,
) -> Work {
    let gpus: f64 = capacity.iter().map(|gpus| gpus / jobs.max(1) as f64).sum();
    let scale = if gpus > 1.0 { 1.0 / gpus } else { 1.0 };
    let equal: f64 = speeds
        .iter()
        .zip(capacity)
        .map(|(speed, gpus)| speed * gpus / jobs.max(1) as f64 * scale)
        .sum();
    let hours = |speed: &f64| {
        if *speed > 0.0 {
            weight * equal / (width * speed)
        } else {
            f64::INFINITY
        }
    };
    Work {
        width,
        count: 1.0,
        hours: speeds.iter().map(hours).collect(),
    }
}
