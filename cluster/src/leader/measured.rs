//! What plans go by: forecasts from outside, and of attempts that run what their own steps have shown.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use stepcast_records::Hardware;
use stepcast_scheduler::course::Course;
use stepcast_scheduler::ids::WorkerId;
use stepcast_scheduler::model::{Attempt, Job, JobSpec};
use stepcast_scheduler::placement::{Forecast, ForecastSource};

use super::live::LiveBoard;

/// Forecasts, and the time that is left of attempts as it was measured by one moment.
pub struct Measured {
    forecast: Arc<dyn ForecastSource + Send + Sync>,
    live: Arc<LiveBoard>,
    /// Workers that take longer or less than others of their kind.
    drifting: Arc<BTreeMap<WorkerId, u32>>,
    /// The moment by the leader's clock, and by stamp.
    now_ms: u64,
    stamp_ms: u64,
}

impl Measured {
    /// As of a time of the leader's monotonic clock, which is a stamp in the log's time.
    pub(crate) fn new(
        forecast: Arc<dyn ForecastSource + Send + Sync>,
        live: Arc<LiveBoard>,
        now: Duration,
        stamp_ms: u64,
    ) -> Self {
        Self {
            forecast,
            drifting: live.drifting(),
            live,
            now_ms: millis(now),
            stamp_ms,
        }
    }
}

impl ForecastSource for Measured {
    fn forecast(&self, spec: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        self.forecast.forecast(spec, hardware)
    }

    fn course(&self, spec: &JobSpec, hardware: Hardware) -> Option<Course> {
        self.forecast.course(spec, hardware)
    }

    fn left(&self, job: &Job, attempt: &Attempt, now_ms: u64) -> Option<Forecast> {
        let Some(left) = self.live.left(job.id, attempt.epoch, self.now_ms) else {
            return self.forecast.left(job, attempt, now_ms);
        };
        // Who runs the cluster forward asks about a time to come, in which nothing more will have been heard.
        let ahead_ms = now_ms.saturating_sub(self.stamp_ms);
        Some(Forecast {
            run_ms_p50: left.p50.saturating_sub(ahead_ms),
            run_ms_p90: left.p90.saturating_sub(ahead_ms),
        })
    }

    fn version(&self) -> Option<u64> {
        self.forecast.version()
    }

    fn drift(&self, worker: WorkerId) -> u32 {
        let known = self.drifting.get(&worker).copied();
        known.unwrap_or_else(|| self.forecast.drift(worker))
    }

    fn least_drift(&self) -> u32 {
        let others = self.forecast.least_drift();
        let known = self.drifting.values();
        known.fold(others, |least, drift| least.min(*drift))
    }
}

impl fmt::Debug for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measured")
            .field("now_ms", &self.now_ms)
            .finish_non_exhaustive()
    }
}

/// What the board's clock shows when the leader's begins, which may be with its process: attempts began before that, but none
/// a century before.
const BEFORE_MS: u64 = 100 * 365 * 86_400_000;

/// A time of the leader's monotonic clock in milliseconds of the board's.
pub(crate) fn millis(time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    millis.saturating_add(BEFORE_MS)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use stepcast_records::Quantiles;
    use stepcast_scheduler::ids::{Epoch, JobId};

    use super::*;
    use crate::leader::live::Begun;
    use crate::session::{Phase, Progress};

    #[test]
    fn an_attempt_that_is_older_than_the_leader_s_process_has_begun_when_it_did() {
        const MINUTE_MS: u64 = 60_000;
        let exactly = |ms| Quantiles {
            p10: ms,
            p50: ms,
            p90: ms,
        };
        let course = Course {
            set_up_ms: exactly(60 * MINUTE_MS),
            step_ms: Some(exactly(1_000)),
            steps: 600,
            ..Course::default()
        };
        let now_ms = millis(Duration::from_mins(1));
        let board = LiveBoard::default();
        let begun = Begun {
            worker: WorkerId(1),
            hardware: "h100".parse().unwrap(),
            course: Some(course),
            at_ms: now_ms.saturating_sub(50 * MINUTE_MS),
            step: 0,
        };
        board.begin(JobId(1), Epoch(1), begun);
        let caching = Progress {
            step: 0,
            steps_total: 600,
            step_ms: None,
            phase: Phase::Caching,
        };
        let left = board.progress(JobId(1), Epoch(1), caching, now_ms).unwrap();
        assert_eq!(left.p50, 20 * MINUTE_MS, "ten of setting up, ten of steps");
    }
}
