//! Ends what is not to go on: leases that were not renewed, workers that stay away, and whatever is over its time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use stepcast_scheduler::Command;
use stepcast_scheduler::ids::{InstanceId, WorkerId};
use stepcast_scheduler::model::limits::EXPIRED_MAX;

use super::context::Leader;
use super::leases::Held;
use super::view;
use crate::session::Parting;

/// Leases that end within a moment of each other are ended together.
const MOMENT: Duration = Duration::from_millis(5);

/// Workers given up at once, which go into the log together.
const AT_ONCE: usize = 256;

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
    let mut lost = leader.replicated.read(view::present_workers);
    lost.retain(|(worker, _)| silent.contains(worker));
    lose_all(leader, &lost).await;
    let count = expired.len();
    tracing::info!(count, "leases have ended without a word from their workers");
    for (count, command) in commands(expired) {
        expire(leader, count, command).await;
    }
}

/// What ends these leases, and how many of them each: no more at once than the log takes. After a new election all that were
/// there end together.
fn commands(expired: Vec<Held>) -> Vec<(usize, Command)> {
    let (parts, whole): (Vec<Held>, Vec<Held>) =
        expired.into_iter().partition(|held| held.rank.is_some());
    let whole = whole.chunks(EXPIRED_MAX).map(|some| {
        let expired = some.iter().map(|held| (held.job, held.epoch)).collect();
        (some.len(), Command::ExpireLeases { expired })
    });
    let parts = parts.chunks(EXPIRED_MAX).map(|some| {
        let expired = some.iter().map(|held| (held.job, held.epoch, held.worker));
        let expired = expired.collect();
        (some.len(), Command::ExpireParts { expired })
    });
    whole.chain(parts).collect()
}

async fn expire(leader: &Leader, count: usize, command: Command) {
    match leader.proposer.propose(command, None).await {
        Ok(_) => leader.metrics.leases_expired(count),
        // Proposed again after a while: the table remembers.
        Err(error) => tracing::warn!(%error, count, "the end of leases was not taken into the log"),
    }
}

/// Gives up who has stayed away for a lease, and who leaves and was not given up when it said so.
async fn lose_workers(leader: &Leader) {
    let mut present = leader.replicated.read(view::present_workers);
    let ids: Vec<_> = present.iter().map(|(worker, _)| *worker).collect();
    let away = leader
        .sessions
        .away_for(&ids, leader.config.lease_term, leader.now());
    present.retain(|(worker, _)| away.contains(worker));
    lose_all(leader, &present).await;
}

/// Has workers take part no more, some at once: after a loss of power they may be most of a cluster.
async fn lose_all(leader: &Leader, workers: &[(WorkerId, InstanceId)]) {
    for some in workers.chunks(AT_ONCE) {
        let lost = some.iter();
        join_all(lost.map(|(worker, instance)| lose(leader, *worker, *instance))).await;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use stepcast_scheduler::ids::{Epoch, JobId};

    use super::*;

    #[test]
    fn however_many_leases_end_together_the_log_takes_their_end() {
        let held = |epoch: u64| Held {
            epoch: Epoch(epoch),
            job: JobId(epoch),
            worker: WorkerId(7),
            rank: epoch.is_multiple_of(2).then_some(0),
        };
        let many = 5 * EXPIRED_MAX as u64;
        let (mut ended, mut counted) = (BTreeSet::new(), 0);
        for (count, command) in commands((0..many).map(held).collect()) {
            let epochs: Vec<Epoch> = match command {
                Command::ExpireLeases { expired } => expired.iter().map(|(_, of)| *of).collect(),
                Command::ExpireParts { expired } => expired.iter().map(|(_, of, _)| *of).collect(),
                other => panic!("{other:?}"),
            };
            assert!(epochs.len() <= EXPIRED_MAX && epochs.len() == count);
            counted += count;
            ended.extend(epochs);
        }
        assert_eq!(ended, (0..many).map(Epoch).collect());
        assert_eq!(counted, ended.len());
        assert!(commands(Vec::new()).is_empty());
    }
}
