//! The plan: which waiting jobs start now, and where.
//!
//! Jobs get their turn in the order of the queue ([`Job::order`](crate::model::Job::order)) and take the best of what is
//! free by their own objective. A job for which too little is free is passed: those behind it may start. So that it is not
//! passed for ever, after [`PASSED_MAX_MS`] the GPUs it would have soonest are kept for it, on one worker, and nothing
//! behind it gets them. What runs there ends, what is ahead in the queue is finite, so its turn comes.

use super::forecast::ForecastSource;
use super::round::Round;
pub use super::round::{KEPT_MAX, PASSED_MAX_MS};
use crate::command::Placement;
use crate::state::State;

/// What to place at `now_ms`, at most `max`, in the order of the queue. Changes nothing: the state looks at each again.
#[must_use]
pub fn plan(
    state: &State,
    forecast: &dyn ForecastSource,
    now_ms: u64,
    max: usize,
) -> Vec<Placement> {
    let mut round = Round::new(state, forecast, now_ms.max(state.newest_stamp_ms()));
    let mut placements = Vec::new();
    for job in state.pending() {
        // Without a free GPU nothing more starts in this look, however long the queue is and whatever is kept for whom.
        if placements.len() >= max || !round.pool.has_room() {
            break;
        }
        placements.extend(round.visit(job));
    }
    placements
}
