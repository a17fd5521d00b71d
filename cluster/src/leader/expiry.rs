//! Ends what is not to go on: leases that were not renewed, workers that stay away, and whatever is over its time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use stepcast_scheduler::Command;
use stepcast_scheduler::ids::{InstanceId, WorkerId};

use super::context::Leader;
use super::leases::Held;
use super::view;
use crate::session::Parting;

/// Leases that end within a moment of each other are ended together.
const MOMENT: Duration = Duration::from_millis(5);

/// Looks at leases, workers and limits until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    loop {
        leader.runtime.sleep(until_next(&leader)).await;
        expire_leases(&leader).await;
        lose_workers(&leader).await;
        sweep(&leader).await;
        forget_ended(&leader);
        // Orders that were missed for whatever reason are given now.
        leader.look_at_all();
    }
}

/// A lease is ended when it is over and not with the next look: its job is to start elsewhere within a second.
fn until_next(leader: &Leader) -> Duration {
    let every = leader.config.lease_check_every;
    let next = leader.leases.lock().next_end();
    next.map_or(every, |end| {
        end.saturating_sub(leader.now()).max(MOMENT).min(every)
    })
}

async fn expire_leases(leader: &Leader) {
    let live = leader.replicated.read(view::live_attempts);
    let (expired, silent) = {
        let mut leases = leader.leases.lock();
        let now = leader.now();
        leases.align(&live, now);
        let expired = leases.expired(now);
        let silent = leases.silent(&expired, now);
        (expired, silent)
    };
    if expired.is_empty() {
        return;
    }
    // First, or the jobs would be given to the same workers again at once. One that is alive after all attaches anew.
    for worker in &silent {
        leader
            .sessions
            .part(*worker, Parting::TooSlow, leader.now());
    }
    let present = leader.replicated.read(view::present_workers);
    let lost = present.into_iter();
    join_all(
        lost.filter(|(worker, _)| silent.contains(worker))
            .map(|(worker, instance)| lose(leader, worker, instance)),
    )
    .await;
    let count = expired.len();
    tracing::info!(count, "leases have ended without a word from their workers");
    let (parts, whole): (Vec<Held>, Vec<Held>) =
        expired.into_iter().partition(|held| held.rank.is_some());
    let whole = whole.iter().map(|held| (held.job, held.epoch)).collect();
    let parts = parts
        .iter()
        .map(|held| (held.job, held.epoch, held.worker))
        .collect();
    expire(leader, Command::ExpireLeases { expired: whole }).await;
    expire(leader, Command::ExpireParts { expired: parts }).await;
}

async fn expire(leader: &Leader, command: Command) {
    let count = match &command {
        Command::ExpireLeases { expired } => expired.len(),
        Command::ExpireParts { expired } => expired.len(),
        _ => 0,
    };
    if count == 0 {
        return;
    }
    match leader.proposer.propose(command, None).await {
        Ok(_) => leader.metrics.leases_expired(count),
        // Proposed again after a while: the table remembers.
        Err(error) => tracing::warn!(%error, count, "the end of leases was not taken into the log"),
    }
}

/// Gives up who has stayed away for a lease, and who leaves and was not given up when it said so.
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
        lose(leader, worker, instance).await;
    }
}

/// Has a worker take part no more: what it runs keeps its leases, and nothing new is placed there.
pub(super) async fn lose(leader: &Leader, worker: WorkerId, instance: InstanceId) {
    let lost = Command::LoseWorker { worker, instance };
    if let Err(error) = leader.proposer.propose(lost, None).await {
        tracing::warn!(%error, %worker, "the loss of a worker was not taken into the log");
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
    leader.live.forget_ended(|epoch| leases.is_held(epoch));
}
