//! Ends what is not to go on: leases that were not renewed, workers that stay away, and whatever is over its time.

use std::sync::Arc;

use stepcast_scheduler::Command;

use super::context::Leader;
use super::view;

/// Looks at leases, workers and limits until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    loop {
        leader.runtime.sleep(leader.config.lease_check_every).await;
        expire_leases(&leader).await;
        lose_workers(&leader).await;
        sweep(&leader).await;
        forget_ended(&leader);
        // Orders that were missed for whatever reason are given now.
        leader.look_at_all();
    }
}

async fn expire_leases(leader: &Leader) {
    let live = leader.replicated.read(view::live_attempts);
    let expired = {
        let mut leases = leader.leases.lock();
        let now = leader.now();
        leases.align(&live, now);
        leases.expired(now)
    };
    if expired.is_empty() {
        return;
    }
    let count = expired.len();
    tracing::info!(count, "leases have ended without a word from their workers");
    match leader
        .proposer
        .propose(Command::ExpireLeases { expired }, None)
        .await
    {
        Ok(_) => leader.metrics.leases_expired(count),
        // Proposed again after a while: the table remembers.
        Err(error) => tracing::warn!(%error, count, "the end of leases was not taken into the log"),
    }
}

async fn lose_workers(leader: &Leader) {
    let present = leader.replicated.read(view::present_workers);
    let ids: Vec<_> = present.iter().map(|(worker, _)| *worker).collect();
    let away = leader
        .sessions
        .away_for(&ids, leader.config.lease_term, leader.now());
    for (worker, instance) in present
        .into_iter()
        .filter(|(worker, _)| away.contains(worker))
    {
        if let Err(error) = leader
            .proposer
            .propose(Command::LoseWorker { worker, instance }, None)
            .await
        {
            tracing::warn!(%error, %worker, "the loss of a worker was not taken into the log");
        }
    }
}

/// Limits on time and money, and retention: asked for only while there is something to do, so that an idle log stays as
/// it is.
async fn sweep(leader: &Leader) {
    let now_ms = leader.proposer.now_ms();
    if !leader.replicated.read(|state| state.is_sweep_due(now_ms)) {
        return;
    }
    if let Err(error) = leader.proposer.propose(Command::Sweep, None).await {
        tracing::warn!(%error, "a sweep was not taken into the log");
    }
}

fn forget_ended(leader: &Leader) {
    let leases = leader.leases.lock();
    leader
        .live
        .forget_ended(|epoch| leases.held(epoch).is_some());
}
