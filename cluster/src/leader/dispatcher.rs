//! Tells each attached worker what the state wants of it, and no more than it has not been told yet.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use stepcast_scheduler::State;
use stepcast_scheduler::ids::{Epoch, WorkerId};

use super::context::Leader;
use super::orders::Told;
use super::view::{self, Wanted};
use crate::session::{Assignment, Order, Parting, StopReason};

/// A trainer that is asked to stop may take this long to save a checkpoint.
const GRACE_MS: u64 = 60_000;

/// Between two tries to learn that this node still leads.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Dispatches until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    loop {
        let workers = leader.signals.workers().await;
        // A node that was paused, or is cut off, may have been deposed without knowing: what its state says may be over,
        // and an order that is long out of date would have an attempt run beside the one that took its place.
        while leader.proposer.confirm_read().await.is_err() {
            leader.runtime.sleep(TRY_AGAIN).await;
        }
        for worker in workers {
            look(&leader, worker);
            welcome_back(&leader, worker);
        }
    }
}

/// Has a worker take part again that was given up as lost and has a session all the same, unless it leaves.
fn welcome_back(leader: &Arc<Leader>, worker: WorkerId) {
    let Some(command) = leader
        .replicated
        .read(|state| view::comeback(state, worker))
    else {
        return;
    };
    if !leader.sessions.stays(worker) {
        return;
    }
    let leader = Arc::clone(leader);
    // Beside the dispatcher, which has other workers to tell; what fails is tried again with the next look.
    let runtime = Arc::clone(&leader.runtime);
    let return_of_it = async move {
        match leader.proposer.propose(command, None).await {
            Ok(_) => tracing::info!(%worker, "a worker that was given up is back"),
            Err(error) => {
                tracing::warn!(%error, %worker, "a worker's return was not taken into the log")
            }
        }
    };
    runtime.spawn(return_of_it.boxed());
}

/// Brings one worker's session in line with the state.
pub(crate) fn look(leader: &Leader, worker: WorkerId) {
    let now = leader.now();
    leader.replicated.read(|state| {
        match view::instance(state, worker) {
            None => leader.sessions.part(worker, Parting::Revoked, now),
            Some(instance) if leader.sessions.is_of_another(worker, instance) => {
                leader.sessions.part(worker, Parting::Replaced, now);
            }
            Some(_) => {}
        }
        // The lease begins before the worker hears of it, so the leader's end is never the earlier one.
        let on = view::on(state, worker);
        let held = view::held_on(&on, worker);
        leader.leases.lock().grant(&held, now);
        let wanted = view::wanted_on(state, &on, worker);
        leader
            .sessions
            .tell(worker, |told| orders(leader, state, &wanted, told), now);
    });
}

fn orders(leader: &Leader, state: &State, wanted: &[view::Attempt], told: &mut Told) -> Vec<Order> {
    let mut orders = Vec::new();
    for attempt in wanted {
        match attempt.wanted {
            Wanted::Run => {
                if told.assigned.insert(attempt.epoch) {
                    orders.extend(assign(leader, state, attempt));
                }
            }
            Wanted::Stop(why) => {
                if told.stopped.insert(attempt.epoch) {
                    let job = Some(attempt.job);
                    orders.push(Order::Stop {
                        job,
                        epoch: attempt.epoch,
                        why,
                        grace_ms: grace_ms(why),
                    });
                }
            }
        }
    }
    // They come by their epochs.
    let is_wanted = |epoch: &Epoch| wanted.binary_search_by_key(epoch, |one| one.epoch).is_ok();
    told.forget_all_but(is_wanted);
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
        resume_step: attempt.resume_step,
        gang: attempt.place.clone(),
        lease_term_ms: leader.lease_term_ms(),
    })))
}

/// Whoever may no longer take part has nothing to save, and a gang without one of its parts cannot.
const fn grace_ms(why: StopReason) -> u64 {
    match why {
        StopReason::Revoked | StopReason::LeaseLost | StopReason::PartOver => 0,
        StopReason::Cancelled
        | StopReason::Preempted
        | StopReason::Draining
        | StopReason::MaxRuntime
        | StopReason::BudgetSpent => GRACE_MS,
    }
}
