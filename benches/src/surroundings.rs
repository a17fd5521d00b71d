//! What the rates of a node share: surroundings that cost nothing, and how times are told.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use stepcast_cluster::credentials::MemoryKeeper;
use stepcast_cluster::{
    Contribution, HostClock, NoPrices, NotRecorded, PortError, Ports, RecordSink, Staging,
};
use stepcast_scheduler::ids::StagingId;
use stepcast_scheduler::placement::NoForecast;

/// Nothing is recorded or staged here.
struct Nowhere;

impl RecordSink for Nowhere {
    fn record(&self, _: Vec<Contribution>) -> BoxFuture<'_, Result<(), NotRecorded>> {
        Box::pin(async { Ok(()) })
    }
}

impl Staging for Nowhere {
    fn delete(&self, _: StagingId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async { Ok(()) })
    }

    fn older_than(
        &self,
        _: Duration,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<StagingId>, PortError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// A world that answers at once.
pub fn ports() -> Ports {
    Ports {
        forecast: Arc::new(NoForecast),
        prices: Arc::new(NoPrices),
        recorder: Arc::new(Nowhere),
        staging: Arc::new(Nowhere),
        credentials: Arc::new(MemoryKeeper::default()),
        clock: Arc::new(HostClock::new()),
    }
}

/// Times of one run.
pub struct Latencies {
    sorted: Vec<Duration>,
    elapsed: Duration,
}

impl Latencies {
    /// These times, all of them within `elapsed`.
    pub fn new(mut took: Vec<Duration>, elapsed: Duration) -> Self {
        took.sort_unstable();
        Self {
            sorted: took,
            elapsed,
        }
    }

    /// How many there were a second.
    pub fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The time in milliseconds that this share of them stays within.
    pub fn ms(&self, share: f64) -> f64 {
        let at = self.sorted.len().saturating_sub(1) as f64 * share;
        self.sorted
            .get(at as usize)
            .map_or(0.0, |took| took.as_secs_f64() * 1e3)
    }
}
