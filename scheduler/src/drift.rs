//! How much longer a worker takes for the same than others of its kind: a card that runs hot, a slow host.
//!
//! Each attempt tells one thing: what a step took beside what was expected of it, as a logarithm. Expectations are off by
//! themselves, and for all workers of a kind alike, so what counts is how far a worker's mean is from that of the others
//! with the same GPUs. It is drawn to nothing while there are few attempts, since each expectation may be off by more than
//! workers differ by; and small differences count for nothing, so that equals stay equals.

use std::collections::{BTreeMap, VecDeque};

use stepcast_records::GpuModel;

use crate::ids::{Epoch, WorkerId};
use crate::model::limits::Bounds;

/// Attempts that count of one worker: the newest, so that a repaired one is known for it.
const ATTEMPTS: usize = 16;

/// Workers that are known at once: as many as may take part. Beyond it the one that registered first is forgotten.
const WORKERS: usize = Bounds::NEWEST.workers;

/// Expectations of attempts spread by three times what workers differ by, so many attempts count for half.
const DOUBT: f64 = 9.0;

/// What is told is a multiple of this, in thousandths.
const STEP: u32 = 50;

/// Nothing is taken to be more times slower or faster than this.
const MOST: f64 = 4.0;

/// What a worker is that takes what is expected.
pub const AS_EXPECTED: u32 = 1_000;

/// What workers have shown.
#[derive(Debug, Clone, Default)]
pub struct Drifts {
    by_worker: BTreeMap<WorkerId, Shown>,
    /// What all workers of a kind have shown together.
    kinds: BTreeMap<GpuModel, Sum>,
}

/// What one worker has shown with GPUs of one model.
#[derive(Debug, Clone)]
struct Shown {
    gpu: GpuModel,
    /// The newest attempts, each with the logarithm in thousandths.
    attempts: VecDeque<(Epoch, i64)>,
    sum: Sum,
}

/// Logarithms in thousandths, so that what was added comes out again as it was.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u32,
    log: i64,
}

impl Drifts {
    /// Takes what an attempt on a worker has shown by now: what a step takes by what was expected of it. The same attempt
    /// may say so again. Gives back a worker that was forgotten for it.
    pub fn hear(
        &mut self,
        worker: WorkerId,
        gpu: GpuModel,
        epoch: Epoch,
        longer: f64,
    ) -> Option<WorkerId> {
        if !(longer.is_finite() && longer > 0.0) {
            return None;
        }
        let log = (longer.clamp(1.0 / MOST, MOST).ln() * 1_000.0).round() as i64;
        if self
            .by_worker
            .get(&worker)
            .is_some_and(|shown| shown.gpu != gpu)
        {
            self.forget(worker);
        }
        let kind = self.kinds.entry(gpu).or_default();
        let shown = self.by_worker.entry(worker).or_insert_with(|| Shown {
            gpu,
            attempts: VecDeque::new(),
            sum: Sum::default(),
        });
        let known = shown.attempts.iter_mut().find(|(known, _)| *known == epoch);
        let before = match known {
            Some((_, before)) => Some(std::mem::replace(before, log)),
            None => {
                shown.attempts.push_back((epoch, log));
                let is_full = shown.attempts.len() > ATTEMPTS;
                let oldest = is_full.then(|| shown.attempts.pop_front()).flatten();
                oldest.map(|(_, log)| log)
            }
        };
        for sum in [kind, &mut shown.sum] {
            sum.count += u32::from(before.is_none());
            sum.log += log - before.unwrap_or(0);
        }
        let is_full = self.by_worker.len() > WORKERS;
        let first = self
            .by_worker
            .keys()
            .copied()
            .find(|known| *known != worker);
        let forgotten = first.filter(|_| is_full)?;
        self.forget(forgotten);
        Some(forgotten)
    }

    /// Forgets a worker.
    fn forget(&mut self, worker: WorkerId) {
        if let Some(Shown { gpu, sum, .. }) = self.by_worker.remove(&worker)
            && let Some(kind) = self.kinds.get_mut(&gpu)
        {
            kind.count -= sum.count;
            kind.log -= sum.log;
        }
    }

    /// How long a worker takes for what others of its kind take [`AS_EXPECTED`] for.
    #[must_use]
    pub fn of(&self, worker: WorkerId) -> u32 {
        let Some(shown) = self.by_worker.get(&worker) else {
            return AS_EXPECTED;
        };
        let kind = self.kinds.get(&shown.gpu).copied().unwrap_or_default();
        let others = Sum {
            count: kind.count - shown.sum.count,
            log: kind.log - shown.sum.log,
        };
        let Some((own, theirs)) = shown.sum.mean().zip(others.mean()) else {
            return AS_EXPECTED;
        };
        let count = |sum: Sum| f64::from(sum.count);
        // Of few others the mean is as uncertain as its own.
        let known = 1.0 / (1.0 / count(shown.sum) + 1.0 / count(others));
        let log = (own - theirs) / 1_000.0 * known / (known + DOUBT);
        let steps = (log.exp() * f64::from(AS_EXPECTED) / f64::from(STEP)).round();
        steps as u32 * STEP
    }
}

impl Sum {
    fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.log as f64 / f64::from(self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(name: &str) -> GpuModel {
        name.parse().expect("a GPU")
    }

    /// Attempts on workers with the same GPUs: how much longer than expected each took.
    fn heard(attempts: &[(u64, f64)]) -> Drifts {
        let mut drifts = Drifts::default();
        for (epoch, (worker, longer)) in (1..).zip(attempts) {
            drifts.hear(WorkerId(*worker), gpu("h100"), Epoch(epoch), *longer);
        }
        drifts
    }

    #[test]
    fn a_slow_worker_is_known_after_some_attempts_and_a_repaired_one_too() {
        let mut attempts: Vec<(u64, f64)> = (0..40).map(|n| (n % 4, 1.0)).collect();
        attempts.push((7, 1.5));
        let first = heard(&attempts).of(WorkerId(7));
        assert_eq!(first, 1_050, "one attempt tells little");
        attempts.extend([(7, 1.5); 15]);
        let drifts = heard(&attempts);
        let slow = drifts.of(WorkerId(7));
        assert!((1_200..1_500).contains(&slow), "{slow}");
        assert!((0..4).all(|worker| drifts.of(WorkerId(worker)) <= AS_EXPECTED));
        attempts.extend([(7, 1.0); ATTEMPTS]);
        assert_eq!(heard(&attempts).of(WorkerId(7)), AS_EXPECTED);
    }

    #[test]
    fn what_is_expected_of_all_too_little_is_nobodys_fault() {
        let attempts: Vec<(u64, f64)> = (0..60).map(|n| (n % 3, 1.8)).collect();
        let drifts = heard(&attempts);
        assert!((0..3).all(|worker| drifts.of(WorkerId(worker)) == AS_EXPECTED));
        // Nor can anything be told of who is the only one.
        let alone = heard(&[(1, 3.0); 20]);
        assert_eq!(alone.of(WorkerId(1)), AS_EXPECTED);
        assert_eq!(alone.of(WorkerId(2)), AS_EXPECTED);
    }

    #[test]
    fn an_attempt_counts_once_however_often_it_says_so() {
        let mut drifts = heard(&[(1, 1.0), (2, 1.0), (1, 1.0), (2, 1.0)]);
        for longer in [9.0, 1.2, 1.1, f64::NAN, 0.0] {
            drifts.hear(WorkerId(1), gpu("h100"), Epoch(9), longer);
        }
        let once = heard(&[(1, 1.0), (2, 1.0), (1, 1.0), (2, 1.0), (1, 1.1)]);
        assert_eq!(drifts.of(WorkerId(1)), once.of(WorkerId(1)));
        assert_eq!(drifts.kinds[&gpu("h100")].count, 5);
        // Another card in the same place begins anew.
        drifts.hear(WorkerId(1), gpu("l40s"), Epoch(10), 1.0);
        assert_eq!(drifts.kinds[&gpu("h100")].count, 2);
        assert_eq!(drifts.of(WorkerId(1)), AS_EXPECTED);
    }

    #[test]
    fn no_more_workers_are_known_than_there_is_room_for() {
        let mut drifts = Drifts::default();
        let most = WORKERS as u64;
        let mut hear = |worker| drifts.hear(WorkerId(worker), gpu("h100"), Epoch(worker), 1.0);
        assert!((1..=most).all(|worker| hear(worker).is_none()));
        assert_eq!(hear(most + 1), Some(WorkerId(1)), "who registered first");
        assert_eq!(hear(1), Some(WorkerId(2)), "and nobody who is heard of now");
        assert_eq!(drifts.by_worker.len(), WORKERS);
        assert_eq!(drifts.kinds[&gpu("h100")].count as usize, WORKERS);
    }
}
