//! One of several worlds: in each a run takes another time, within what its forecast says.

use stepcast_records::Hardware;

use super::normal::{below, quantile};
use super::prior::{Belief, Prior};
use crate::forward::Truth;
use crate::ids::JobId;
use crate::model::{Attempt, Job};
use crate::placement::{ForecastSource, begun, part_of};
use crate::policy::Policy;

/// A world.
pub(super) struct World<'a> {
    pub(super) forecast: &'a dyn ForecastSource,
    /// What runs tell of each other.
    pub(super) prior: &'a Prior,
    pub(super) policy: Policy,
    /// Which, from 0.
    pub(super) number: usize,
    /// How many there are.
    pub(super) of: usize,
}

/// What has run longer than it could is taken to need this part of the whole run still.
const OVERDUE: f64 = 0.02;

/// The part of the variance of runs that all of a world have in common: what estimates get wrong they get wrong together,
/// and work goes first where they are too low.
const TOGETHER: f64 = 0.2;

/// Beyond this part of a distribution nothing is known of it.
const FARTHEST: f64 = 0.999;

impl World<'_> {
    /// The part of its runs that take less than a job's run in this world. Over all worlds each job meets every part of its
    /// own distribution once, in an order of its own.
    fn part(&self, JobId(job): JobId) -> f64 {
        let (number, of) = (self.number as u64, self.of as u64);
        let shift = job.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        // Odd, so that with a power of two of worlds every part comes once.
        let step = (job.wrapping_mul(0xd1b5_4a32_d192_ed03) >> 48) | 1;
        let middle_of = |part: u64| (part as f64 + 0.5) / of as f64;
        let own = quantile(middle_of((number * step + shift) % of));
        let common = quantile(middle_of(number));
        below(TOGETHER.sqrt() * common + (1.0 - TOGETHER).sqrt() * own)
    }

    /// How long a run takes that is known to take at least `least_ms`.
    fn drawn_ms(&self, belief: Belief, job: JobId, least_ms: f64) -> f64 {
        let Belief { mean, deviation } = belief;
        if deviation <= 0.0 {
            return mean.exp();
        }
        let passed = if least_ms > 0.0 {
            below((least_ms.ln() - mean) / deviation).min(FARTHEST)
        } else {
            0.0
        };
        let part = passed + (1.0 - passed) * self.part(job);
        (mean + deviation * quantile(part)).exp()
    }

    fn believed(&self, job: &Job, hardware: Hardware) -> Option<Belief> {
        self.prior.believed(&job.spec, hardware, self.forecast)
    }
}

impl Truth for World<'_> {
    fn run_ms(&self, job: &Job, hardware: Hardware) -> Option<u64> {
        let belief = self.believed(job, hardware)?;
        Some(self.drawn_ms(belief, job.id, 0.0).round() as u64)
    }

    fn restart_ms(&self) -> u64 {
        self.policy.restart_ms
    }

    fn left_ms(&self, job: &Job, attempt: &Attempt, now_ms: u64) -> Option<u64> {
        if let Some(left) = self.forecast.left(job, attempt, now_ms) {
            return Some(self.drawn_ms(Belief::of(left), job.id, 0.0).round() as u64);
        }
        if attempt.gang.is_some() {
            return None;
        }
        let count = u8::try_from(attempt.gpus.len()).ok()?;
        let hardware = Hardware::new(attempt.gpu, count)?;
        let belief = self.believed(job, hardware)?;
        // What was done before, and how long the rest has been running.
        let begun = begun(job, attempt);
        let again_ms = if job.attempts.len() > 1 {
            self.policy.restart_ms
        } else {
            0
        };
        let since_ms = attempt.started_ms.unwrap_or(attempt.placed_ms);
        let ran_ms = now_ms.saturating_sub(since_ms.saturating_add(again_ms)) as f64;
        let least_ms = ran_ms / (1.0 - begun).max(OVERDUE);
        let whole_ms = self.drawn_ms(belief, job.id, least_ms).round();
        // A whole number of milliseconds, as a run that begins now takes.
        let by_time = (whole_ms * (1.0 - begun)).ceil() - ran_ms;
        // A checkpoint may tell of more than the time does.
        let by_steps = whole_ms * (1.0 - part_of(job, attempt.checkpoint_step));
        let left_ms = by_time.min(by_steps);
        let left_ms = if left_ms > 0.0 {
            left_ms
        } else {
            whole_ms * OVERDUE
        };
        Some(left_ms.round() as u64)
    }
}
