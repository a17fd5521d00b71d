//! Begins a leader's duties when this node comes to lead, and ends them when it no longer does.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select, select_all};
use tokio::sync::watch;

use super::context::{Leader, Parts};
use super::{dispatcher, expiry, handover, membership, orphans, planner, prices, sweeps};
use crate::consensus::Role;

/// Between two tries to learn that this node really leads.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// The present leadership, if there is one, and every change of it.
pub(crate) type Slot = Arc<watch::Sender<Option<Arc<Leader>>>>;

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
            parts.runtime.sleep(TRY_AGAIN).await;
        }
        if *role.borrow() == now {
            lead(&parts, &slot, &mut role, now).await;
        }
    }
}

async fn lead(parts: &Parts, slot: &Slot, role: &mut watch::Receiver<Role>, now: Role) {
    tracing::info!(term = now.term, "this node leads");
    let leader = Arc::new(Leader::new(parts.clone()));
    leader.ports.staging.lines_change_hands();
    slot.send_replace(Some(Arc::clone(&leader)));
    // Dropped at the end of this leadership, which ends every duty.
    let duties: [BoxFuture<'_, ()>; 8] = [
        dispatcher::run(Arc::clone(&leader)).boxed(),
        planner::run(Arc::clone(&leader)).boxed(),
        expiry::run(Arc::clone(&leader)).boxed(),
        sweeps::run(Arc::clone(&leader)).boxed(),
        orphans::run(Arc::clone(&leader)).boxed(),
        membership::run(Arc::clone(&leader)).boxed(),
        handover::run(Arc::clone(&leader)).boxed(),
        prices::run(Arc::clone(&leader)).boxed(),
    ];
    let duties = duties.map(|duty| AssertUnwindSafe(duty).catch_unwind());
    let ended = Ending {
        slot: Arc::clone(slot),
        leader,
    };
    let changed = async { drop(role.wait_for(|role| *role != now).await) };
    let failed = matches!(
        select(pin!(changed), select_all(duties)).await,
        Either::Right(_)
    );
    if failed {
        // What it said when it failed is in the log already.
        tracing::error!("a duty has ended; all of them begin anew");
        // Whatever ended it may still be there: not in a tight circle.
        parts.runtime.sleep(TRY_AGAIN).await;
    } else {
        tracing::info!(term = now.term, "this node no longer leads");
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
        self.slot.send_replace(None);
        self.leader.end();
        self.leader.ports.staging.lines_change_hands();
    }
}
