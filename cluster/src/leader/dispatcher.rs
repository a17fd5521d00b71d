//! Tells each attached worker what the state wants of it, and no more than it has not been told yet.

use std::sync::Arc;

use stepcast_scheduler::State;
use stepcast_scheduler::ids::WorkerId;

use super::context::Leader;
use super::orders::Told;
use super::view::{self, Wanted};
use crate::session::{Assignment, Order};

/// A trainer that is asked to stop may take this long to save a checkpoint.
const GRACE_MS: u64 = 60_000;

/// Dispatches until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    loop {
        for worker in leader.signals.workers().await {
            look(&leader, worker);
        }
    }
}

/// Brings one worker's session in line with the state.
pub(crate) fn look(leader: &Leader, worker: WorkerId) {
    let now = leader.now();
    leader.replicated.read(|state| {
        // The lease begins before the worker hears of it, so the leader's end is never the earlier one.
        let live = view::live_attempts_on(state, worker);
        leader.leases.lock().grant(&live, now);
        leader.sessions.tell(worker, |told| orders(leader, state, worker, told), now);
    });
}

fn orders(leader: &Leader, state: &State, worker: WorkerId, told: &mut Told) -> Vec<Order> {
    let mut orders = Vec::new();
    if view::is_draining(state, worker) {
        if !told.drained {
            orders.push(Order::Drain { grace_ms: GRACE_MS });
        }
        told.drained = true;
    } else {
        told.drained = false;
    }
    let wanted = view::wanted_on(state, worker);
    for attempt in &wanted {
        match attempt.wanted {
            Wanted::Run => {
                if told.assigned.insert(attempt.epoch) {
                    orders.extend(assign(leader, state, attempt));
                }
            }
            Wanted::Stop(why) => {
                if told.stopped.insert(attempt.epoch) {
                    let job = Some(attempt.job);
                    orders.push(Order::Stop { job, epoch: attempt.epoch, why, grace_ms: GRACE_MS });
                }
            }
        }
    }
    told.forget_all_but(&wanted.iter().map(|attempt| attempt.epoch).collect());
    orders
}

fn assign(leader: &Leader, state: &State, attempt: &view::Attempt) -> Option<Order> {
    let spec = view::spec(state, attempt.job)?;
    Some(Order::Assign(Box::new(Assignment {
        job: attempt.job,
        attempt: attempt.number,
        epoch: attempt.epoch,
        spec,
        gpus: attempt.gpus.clone(),
        lease_term_ms: leader.lease_term_ms(),
    })))
}
