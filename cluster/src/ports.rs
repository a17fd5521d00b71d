//! What a node needs from outside: a clock, forecasts, prices, a place for records, the staging area and a keeper of
//! credentials.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use stepcast_records::{Quantiles, Sample};
use stepcast_scheduler::ids::{Epoch, JobId, StagingId};
use stepcast_scheduler::model::Prices;
use stepcast_scheduler::placement::ForecastSource;

use crate::credentials::Keeper;
use crate::session::Progress;

/// Everything a node asks of the world. Each port is shared by several tasks, so all of them are cheap to call at once.
#[derive(Clone)]
pub struct Ports {
    /// How long and how dear a workload is on given hardware.
    pub forecast: Arc<dyn ForecastSource + Send + Sync>,
    /// What GPUs cost whose worker does not say.
    pub prices: Arc<dyn Pricing>,
    /// Where samples become records.
    pub recorder: Arc<dyn RecordSink>,
    /// Where the files of submitted jobs wait.
    pub staging: Arc<dyn Staging>,
    /// Where the credentials of jobs are held.
    pub credentials: Arc<dyn Keeper>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What the operator says that GPUs cost, for workers that say nothing themselves.
pub trait Pricing: Send + Sync {
    /// What one GPU of each model costs an hour at a moment, in milliseconds since 1970, of those of which the operator has
    /// said anything. `None` while that is not known: what the log says then stays. A leader asks every second.
    fn prices(&self, now_ms: u64) -> Option<Prices>;
}

/// An operator of whose prices nothing is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPrices;

impl Pricing for NoPrices {
    fn prices(&self, _: u64) -> Option<Prices> {
        None
    }
}

/// A worker's samples, sent as one unit. There is no job, attempt, worker or organisation in it, and none may be added.
#[derive(Debug, Clone, PartialEq)]
pub struct Contribution {
    /// 128 random bits drawn by the worker: the same contribution sent twice carries the same ones.
    pub id: [u8; 16],
    /// What was measured.
    pub samples: Vec<Sample>,
}

/// Turns contributions into stored records.
pub trait RecordSink: Send + Sync {
    /// Stores the contributions, each exactly once by its id however often it is sent. After `Ok` they are durable, and
    /// after an error those that it names.
    fn record(&self, contributions: Vec<Contribution>) -> BoxFuture<'_, Result<(), NotRecorded>>;
}

/// Contributions could not be recorded, or not all of them.
#[derive(Debug, thiserror::Error)]
#[error("contributions could not be recorded")]
pub struct NotRecorded {
    /// What was wrong with the others.
    #[source]
    pub error: PortError,
    /// Ids of those that are durable all the same.
    pub kept: Vec<[u8; 16]>,
}

impl From<PortError> for NotRecorded {
    /// None is durable as far as is known.
    fn from(error: PortError) -> Self {
        let kept = Vec::new();
        Self { error, kept }
    }
}

/// The area where a job's files wait until the job is terminal.
pub trait Staging: Send + Sync {
    /// Deletes the files of one submission; deleting what is not there succeeds.
    fn delete(&self, staging: StagingId) -> BoxFuture<'_, Result<(), PortError>>;

    /// Submissions put there longer ago than `age`, at most `limit` of them: the ones after those of the last call, so that
    /// calls in a row see all of them.
    fn older_than(
        &self,
        age: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StagingId>, PortError>>;

    /// Takes lines that a job's trainer has printed, redacted, to be kept for as long as the job is known. Returns at
    /// once; what cannot be kept is lost, and a place that keeps none need not do anything.
    fn keep_lines(&self, _job: JobId, _epoch: Epoch, _lines: &[String]) {}

    /// Takes how far a job's attempt is and how long it still takes, for those who read its lines.
    fn keep_progress(
        &self,
        _job: JobId,
        _epoch: Epoch,
        _progress: &Progress,
        _left: Option<Quantiles>,
    ) {
    }

    /// This node begins to lead, or no longer does: other nodes may keep lines of the same jobs, before the next or from now on,
    /// and these stand behind all that was kept until then.
    fn lines_change_hands(&self) {}

    /// Jobs of which lines are kept, at most `limit` of them: the ones after those of the last call.
    fn jobs_with_lines(&self, _limit: usize) -> BoxFuture<'_, Result<Vec<JobId>, PortError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Deletes the lines of a job; deleting what is not there succeeds.
    fn forget_lines(&self, _job: JobId) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A port could not do what it was asked; the duty that asked tries again.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PortError(pub Box<dyn std::error::Error + Send + Sync>);

impl PortError {
    /// Wraps whatever went wrong behind the port.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// The two times a node knows.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 by the host's wall clock, which may jump.
    fn wall_ms(&self) -> u64;

    /// Time since some fixed moment, which never goes back. Leases are measured by it.
    fn monotonic(&self) -> Duration;

    /// Time since some fixed moment, which never goes back and goes on while the host is suspended, as [`Self::monotonic`]
    /// need not do. The log's time is measured by it.
    fn passed(&self) -> Duration {
        self.monotonic()
    }
}

/// The host's clocks.
#[derive(Debug)]
pub struct HostClock {
    started: Instant,
}

impl HostClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn wall_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            })
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    #[cfg(target_os = "linux")]
    fn passed(&self) -> Duration {
        let since_boot = nix::time::ClockId::CLOCK_BOOTTIME.now();
        // A system without that clock has none at any time.
        since_boot.map_or_else(|_| self.monotonic(), Duration::from)
    }
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}
