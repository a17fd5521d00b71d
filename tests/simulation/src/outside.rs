//! What a node asks of the world: an object store of records that is slow and fails, a staging area with what trainers have
//! printed, and a book of prices.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use stepcast_cluster::{Contribution, NotRecorded, PortError, Pricing, RecordSink, Staging};
use stepcast_records::{GpuModel, UsdMicros};
use stepcast_scheduler::ids::{JobId, StagingId};
use stepcast_scheduler::model::Prices;

use crate::checks::{Check, Checks};
use crate::kernel::{Kernel, MS};

/// The object store. Every contribution is one transaction by its id.
#[derive(Default)]
pub(crate) struct Store {
    inner: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    stored: BTreeSet<[u8; 16]>,
    /// Calls in a thousand that fail.
    failing: u64,
}

impl Store {
    /// How often it fails from now on, in a thousand.
    pub(crate) fn fails(&self, per_mille: u64) {
        self.inner.lock().failing = per_mille;
    }
}

/// One node's way to the outside.
pub(crate) struct Outside {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) store: Arc<Store>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) node: u64,
}

impl RecordSink for Outside {
    fn record(&self, contributions: Vec<Contribution>) -> BoxFuture<'_, Result<(), NotRecorded>> {
        let failing = self.store.inner.lock().failing;
        let (takes, fails_before, fails_after) = self.kernel.roll(|dice| {
            (
                dice.between(5 * MS, 200 * MS),
                dice.per_mille(failing / 2),
                dice.per_mille(failing / 2),
            )
        });
        let written = self.kernel.sleep(takes);
        async move {
            written.await;
            if fails_before {
                return Err(PortError::new("the simulated store is away").into());
            }
            {
                let mut shelf = self.store.inner.lock();
                for contribution in &contributions {
                    shelf.stored.insert(contribution.id);
                    self.checks.histories.lock().stored(contribution.id);
                }
            }
            self.checks.mix(self.node);
            if fails_after {
                let why = "the simulated store did not say what it did";
                return Err(PortError::new(why).into());
            }
            Ok(())
        }
        .boxed()
    }
}

/// For how long a price holds.
const PRICE_HOLDS_MS: u64 = 10_000;

impl Pricing for Outside {
    /// Another price every ten seconds, once in a while none, and on each node another one: their books differ.
    fn prices(&self, now_ms: u64) -> Option<Prices> {
        let dollars = now_ms / PRICE_HOLDS_MS % 4;
        let gpu: GpuModel = "h100".parse().ok()?;
        let said = (dollars > 0).then(|| (gpu, UsdMicros(dollars * 1_000_000 + self.node)));
        Some(said.into_iter().collect())
    }
}

impl Staging for Outside {
    fn delete(&self, _: StagingId) -> BoxFuture<'_, Result<(), PortError>> {
        async { Ok(()) }.boxed()
    }

    fn older_than(
        &self,
        _: Duration,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<StagingId>, PortError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    /// Every job that was acknowledged has lines, whoever let it in: all nodes look into one area.
    fn jobs_with_lines(&self, _: usize) -> BoxFuture<'_, Result<Vec<JobId>, PortError>> {
        let jobs = self.checks.histories.lock().jobs().collect();
        async { Ok(jobs) }.boxed()
    }

    /// No job is so old that it is forgotten.
    fn forget_lines(&self, job: JobId) -> BoxFuture<'_, Result<(), PortError>> {
        let lost = format!("node {} deletes what job {job} has printed", self.node);
        self.checks.fail(Check::AcknowledgedIsKept, lost);
        async { Ok(()) }.boxed()
    }
}
