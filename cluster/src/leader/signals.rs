//! What the apply thread tells the leader's duties: which workers, which queue and which files to look at again.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use stepcast_scheduler::ids::{StagingId, WorkerId};
use stepcast_scheduler::model::limits::Bounds;
use tokio::sync::Notify;

/// Signals carry no facts, only where to look: the duties read the state. So a signal may be given twice, and a set of
/// them cannot grow beyond what it points at.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    workers: Mutex<BTreeSet<WorkerId>>,
    dropped: Mutex<BTreeSet<StagingId>>,
    look: Notify,
    /// The queue or the free GPUs have changed: plan.
    pub(crate) plan: Notify,
    /// Files in the staging area are no longer needed: sweep.
    pub(crate) sweep: Notify,
}

/// Dropped submissions that are remembered: as many as there may be jobs that are not over. The periodic sweep finds
/// others by their age.
const DROPPED: usize = Bounds::NEWEST.unfinished_jobs;

impl Signals {
    /// Something about this worker's attempts has changed.
    pub(crate) fn worker(&self, worker: WorkerId) {
        self.workers.lock().insert(worker);
        self.look.notify_one();
    }

    /// The workers to look at, once there are any.
    pub(crate) async fn workers(&self) -> BTreeSet<WorkerId> {
        loop {
            let workers = std::mem::take(&mut *self.workers.lock());
            if !workers.is_empty() {
                return workers;
            }
            self.look.notified().await;
        }
    }

    /// The files of this submission are no longer needed.
    pub(crate) fn dropped(&self, staging: StagingId) {
        let mut dropped = self.dropped.lock();
        if dropped.len() < DROPPED {
            dropped.insert(staging);
        }
        self.sweep.notify_one();
    }

    /// The submissions dropped since the last time.
    pub(crate) fn take_dropped(&self) -> BTreeSet<StagingId> {
        std::mem::take(&mut *self.dropped.lock())
    }
}
