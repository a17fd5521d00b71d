//! How long a workload is expected to take on given hardware: the one thing the policy asks of outside.

use stepcast_records::{Hardware, UsdMicros, units};

use crate::command::PlacementNote;
use crate::course::Course;
use crate::drift::AS_EXPECTED;
use crate::ids::WorkerId;
use crate::model::{Attempt, Job, JobSpec};

/// Where forecasts come from. Asked many times in one plan, so an answer must be quick.
pub trait ForecastSource {
    /// What is expected of the whole of a job on this hardware; `None` without any history to tell from.
    fn forecast(&self, spec: &JobSpec, hardware: Hardware) -> Option<Forecast>;

    /// What the parts of a job are expected to take on this hardware; `None` without any history to tell from.
    fn course(&self, spec: &JobSpec, hardware: Hardware) -> Option<Course> {
        let _ = (spec, hardware);
        None
    }

    /// What is left of a job that runs in an attempt, by how far it has come; `None` where only time can tell.
    fn left(&self, job: &Job, attempt: &Attempt, now_ms: u64) -> Option<Forecast> {
        let _ = (job, attempt, now_ms);
        None
    }

    /// Which answers these are: as long as it is the same, a question about a job that waits has the same answer. `None`
    /// if nobody can tell, and then nothing is kept from one look to the next.
    fn version(&self) -> Option<u64> {
        None
    }

    /// How long a worker takes for what others with the same hardware take [`AS_EXPECTED`] for.
    fn drift(&self, worker: WorkerId) -> u32 {
        let _ = worker;
        AS_EXPECTED
    }

    /// A number that [`Self::drift`] says less than of no worker.
    fn least_drift(&self) -> u32 {
        AS_EXPECTED
    }
}

/// What is expected of one run, loading and saving included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// Half of such runs take at most this long, in milliseconds.
    pub run_ms_p50: u64,
    /// Nine in ten such runs take at most this long, in milliseconds.
    pub run_ms_p90: u64,
}

/// A source that knows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoForecast;

impl ForecastSource for NoForecast {
    fn version(&self) -> Option<u64> {
        Some(0)
    }

    fn forecast(&self, _: &JobSpec, _: Hardware) -> Option<Forecast> {
        None
    }
}

impl Forecast {
    /// What half of such runs cost at most, at a price for all the GPUs together.
    #[must_use]
    pub fn cost_p50(self, price_per_hour: UsdMicros) -> UsdMicros {
        units::cost(self.run_ms_p50, price_per_hour)
    }

    /// What nine in ten such runs cost at most, at a price for all the GPUs together.
    #[must_use]
    pub fn cost_p90(self, price_per_hour: UsdMicros) -> UsdMicros {
        units::cost(self.run_ms_p90, price_per_hour)
    }

    /// The note a placement carries.
    #[must_use]
    pub fn note(self, price_per_hour: Option<UsdMicros>) -> PlacementNote {
        PlacementNote {
            run_ms_p50: Some(self.run_ms_p50),
            run_ms_p90: Some(self.run_ms_p90),
            cost_p50: price_per_hour.map(|price| self.cost_p50(price)),
        }
    }
}
