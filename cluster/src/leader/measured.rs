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
}

impl fmt::Debug for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measured")
            .field("now_ms", &self.now_ms)
            .finish_non_exhaustive()
    }
}

/// A time of the monotonic clock in milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
