//! Has the queue looked at whenever something could start, and proposes what the policy says.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use stepcast_scheduler::command::{Placement, Preemption};
use stepcast_scheduler::model::limits::PREEMPTIONS_PER_COMMAND;
use stepcast_scheduler::placement::{ForecastSource, Plan, Planner, Portion, Question};
use stepcast_scheduler::{Command, Reply, State};
use tokio::sync::oneshot;
use tracing::Instrument;

use super::context::Leader;
use super::{credentials, prices};
use crate::runtime::timeout;

/// Placements in one command: a small log entry.
const PLACEMENTS: usize = 256;

/// Commands of one look, which go into the log together: where many start at once, what a look costs besides is paid once
/// for all of them, and the way through the log is gone once. More would have the log wait longer for the look.
const COMMANDS: usize = 4;

/// Rounds in a row before the planner waits again. Each round that proposes something may make room for another.
const ROUNDS: usize = 64;

/// After planning, the planner rests for this many times as long as its longest look took: a look at a long queue holds
/// the state, and the log needs it more. It looks every so often all the same, whatever a look seems to have taken: a
/// clock may leap.
const REST: u32 = 4;

/// And at least this long, so that a burst of submissions is planned together.
const REST_AT_LEAST: Duration = Duration::from_millis(2);

/// Plans until the leadership ends. A job whose credentials are gone is known for one before the first look, and so are the
/// operator's prices, as soon as the log knows any.
pub(crate) async fn run(leader: Arc<Leader>) {
    let planner = Arc::new(Mutex::new(Planner::in_portions(Portion::OF_A_LOOK)));
    credentials::settle(&leader).await;
    let mut format = 0;
    let mut is_behind = false;
    loop {
        if !is_behind {
            let called = leader.signals.plan.notified();
            // Called or not, it looks.
            let _ = timeout(leader.runtime.as_ref(), leader.config.plan_every, called).await;
        }
        is_behind = false;
        let mut longest = Duration::ZERO;
        for _ in 0..ROUNDS {
            let now = leader.replicated.read(State::format);
            if format != now {
                // A newer log may know prices where the older one did not.
                prices::settle(&leader).await;
                format = now;
            }
            let Some(round) = round(&leader, &planner, format).await else {
                break;
            };
            longest = longest.max(round.took);
            is_behind = round.is_behind;
            if !round.may_place_more {
                break;
            }
        }
        leader
            .runtime
            .sleep(
                (longest * REST)
                    .min(leader.config.plan_every)
                    .max(REST_AT_LEAST),
            )
            .await;
    }
}

/// One look at the queue.
struct Round {
    took: Duration,
    may_place_more: bool,
    /// Not everything is found out yet.
    is_behind: bool,
}

/// Looks at the queue and proposes what the policy says, unless the log's format is another one meanwhile; `None` if the look
/// was broken off, by a node that is stopping or by a fault of the planner's, of which the next look knows nothing.
async fn round(leader: &Arc<Leader>, planner: &Arc<Mutex<Planner>>, format: u16) -> Option<Round> {
    let (planning, planner) = (Arc::clone(leader), Arc::clone(planner));
    let (planned, plans) = oneshot::channel();
    let work = Box::new(move || drop(planned.send(plan(&planning, &planner))));
    if !leader.runtime.blocking(work).await {
        tracing::error!(
            "a look at the queue has failed and nothing was planned; the next one begins anew"
        );
    }
    let (plan, mut round) = plans.await.ok()?;
    let is_full = plan.placements.len() == PLACEMENTS * COMMANDS;
    let is_in = || leader.replicated.read(State::format) == format;
    let placed = leader.format.kept(is_in, async {
        preempt(leader, plan.preemptions).await;
        join_all(commands(plan.placements).map(|command| place(leader, command))).await
    });
    round.may_place_more = match placed.await {
        Some(placed) => is_full && placed.into_iter().all(|placed| placed),
        None => true,
    };
    Some(round)
}

/// Placements as commands.
fn commands(placements: Vec<Placement>) -> impl Iterator<Item = Vec<Placement>> {
    let mut left = placements.into_iter();
    let next = move || Some(left.by_ref().take(PLACEMENTS).collect::<Vec<_>>());
    std::iter::from_fn(next).take_while(|placements| !placements.is_empty())
}

/// Proposes placements; whether the log has taken them.
async fn place(leader: &Leader, placements: Vec<Placement>) -> bool {
    let count = placements.len();
    let command = Command::Place { placements };
    let span = tracing::debug_span!("place", count);
    let placing = leader.proposer.propose(command, None).instrument(span);
    match placing.await {
        Ok(reply) => {
            tracing::debug!(count, "placed");
            note_waits(leader, &reply);
            true
        }
        // The next look sees what came of it.
        Err(error) => {
            tracing::debug!(%error, count, "placements were not taken");
            false
        }
    }
}

/// Has running jobs yield. What of it is not taken now is seen by the next look, as is that they have stopped.
async fn preempt(leader: &Leader, mut preemptions: Vec<Preemption>) {
    preemptions.truncate(PREEMPTIONS_PER_COMMAND);
    let count = preemptions.len();
    if count == 0 {
        return;
    }
    let command = Command::Preempt { preemptions };
    match leader.proposer.propose(command, None).await {
        Ok(_) => tracing::debug!(count, "asked to yield"),
        Err(error) => tracing::debug!(%error, count, "nobody was asked to yield"),
    }
}

/// How long the jobs that now hold a lease were in the queue.
fn note_waits(leader: &Leader, reply: &Reply) {
    let Reply::Placed { outcomes } = reply else {
        return;
    };
    leader.replicated.read(|state| {
        for epoch in outcomes.iter().flatten() {
            if let Some((job, attempt)) = state.live_attempt(*epoch) {
                leader.metrics.waited(Duration::from_millis(
                    attempt.placed_ms.saturating_sub(job.queued_ms),
                ));
            }
        }
    });
}

fn plan(leader: &Leader, planner: &Mutex<Planner>) -> (Plan, Round) {
    let now_ms = leader.proposer.now_ms();
    let measured = leader.measured();
    let mut planner = planner.lock();
    // Asked before, so that the answers are there when the log waits for the look.
    let questions = leader
        .replicated
        .read(|state| planner.questions(state, &measured, now_ms));
    for Question { spec, hardware } in &questions {
        for hardware in hardware {
            let _ = measured.forecast(spec, *hardware);
        }
    }
    let begun = leader.now();
    let plan = leader
        .replicated
        .read(|state| planner.plan(state, &measured, now_ms, PLACEMENTS * COMMANDS));
    let took = leader.now().saturating_sub(begun);
    leader.metrics.planned(took);
    let round = Round {
        took,
        may_place_more: false,
        is_behind: planner.is_behind(),
    };
    (plan, round)
}
