//! Has the queue looked at whenever something could start, and proposes what the policy says.

use std::sync::Arc;
use std::time::Instant;

use stepcast_scheduler::Command;
use stepcast_scheduler::placement;
use tokio::task::spawn_blocking;

use super::context::Leader;

/// Placements in one command: a round's worth for a large cluster, and a small log entry.
const PLACEMENTS: usize = 256;

/// Rounds in a row before the planner waits again. Each round that proposes something may make room for another.
const ROUNDS: usize = 64;

/// Plans until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    loop {
        let _ =
            tokio::time::timeout(leader.config.plan_every, leader.signals.plan.notified()).await;
        for _ in 0..ROUNDS {
            if !round(&leader).await {
                break;
            }
        }
    }
}

/// One look at the queue; true if something was placed, so that another look may place more.
async fn round(leader: &Arc<Leader>) -> bool {
    let planning = Arc::clone(leader);
    let Ok(placements) = spawn_blocking(move || plan(&planning)).await else {
        return false;
    };
    if placements.is_empty() {
        return false;
    }
    let count = placements.len();
    match leader
        .proposer
        .propose(Command::Place { placements }, None)
        .await
    {
        Ok(_) => {
            tracing::debug!(count, "placed");
            count == PLACEMENTS
        }
        // The next look sees what came of it.
        Err(error) => {
            tracing::debug!(%error, count, "placements were not taken");
            false
        }
    }
}

fn plan(leader: &Leader) -> Vec<placement::Placement> {
    let begun = Instant::now();
    let now_ms = leader.proposer.now_ms();
    let placements = leader
        .replicated
        .read(|state| placement::plan(state, leader.ports.forecast.as_ref(), now_ms, PLACEMENTS));
    leader.metrics.planned(begun.elapsed());
    placements
}
