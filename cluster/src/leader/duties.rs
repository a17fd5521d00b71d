//! Begins a leader's duties when this node comes to lead, and ends them when it no longer does.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::context::{Leader, Parts};
use super::{dispatcher, expiry, planner, sweeps};
use crate::consensus::Role;

/// Between two tries to learn that this node really leads.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// The present leadership, if there is one.
pub(crate) type Slot = Arc<RwLock<Option<Arc<Leader>>>>;

/// Runs until the node stops.
pub(crate) async fn run(parts: Parts, slot: Slot, mut role: watch::Receiver<Role>) {
    loop {
        let Ok(now) = role.wait_for(|role| role.leads).await.map(|role| *role) else {
            return;
        };
        // Only once everything before this leadership is applied does the state show what there is to do.
        while parts.proposer.confirm_read().await.is_err() {
            if !role.borrow().leads {
                break;
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
        if *role.borrow() == now {
            lead(&parts, &slot, &mut role, now).await;
        }
    }
}

async fn lead(parts: &Parts, slot: &Slot, role: &mut watch::Receiver<Role>, now: Role) {
    tracing::info!(term = now.term, "this node leads");
    let leader = Arc::new(Leader::new(parts.clone()));
    *slot.write() = Some(Arc::clone(&leader));
    // Dropped at the end of this leadership, which ends every duty.
    let mut duties = JoinSet::new();
    duties.spawn(dispatcher::run(Arc::clone(&leader)));
    duties.spawn(planner::run(Arc::clone(&leader)));
    duties.spawn(expiry::run(Arc::clone(&leader)));
    duties.spawn(sweeps::run(Arc::clone(&leader)));
    let ended = Ending {
        slot: Arc::clone(slot),
        leader,
    };
    let failed = tokio::select! {
        _ = role.wait_for(|role| *role != now) => None,
        failed = duties.join_next() => Some(failed),
    };
    match failed {
        None => tracing::info!(term = now.term, "this node no longer leads"),
        Some(failed) => {
            tracing::error!(?failed, "a duty has ended; all of them begin anew");
            // Whatever ended it may still be there: not in a tight circle.
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
    drop(ended);
}

/// Ends a leadership however its task ends.
struct Ending {
    slot: Slot,
    leader: Arc<Leader>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.slot.write().take();
        self.leader.end();
    }
}
