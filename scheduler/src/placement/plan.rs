//! The plan: which waiting jobs start now, and where, and which running ones are asked to yield.
//!
//! Jobs get their turn by the cluster's [`Policy`](crate::policy::Policy) and take what is free, or what a job that may
//! yield holds. A job for which too little is free is passed: those behind it may start. So that it is not passed for
//! ever, after [`PASSED_MAX_MS`] the GPUs it would have soonest are kept for it, on one worker, and nothing behind it gets
//! them. What runs there ends, what is ahead in the queue is finite, so its turn comes. A job that has lost its worker is not
//! passed at all.

use super::forecast::ForecastSource;
pub use super::look::{KEPT_MAX, PASSED_MAX_MS};
use super::planner::Planner;
use crate::command::{Placement, Preemption};
use crate::state::State;

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What starts, in the order of the turns.
    pub placements: Vec<Placement>,
    /// What is asked to yield.
    pub preemptions: Vec<Preemption>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.placements.is_empty() && self.preemptions.is_empty()
    }
}

/// What to do at `now_ms`; at most `max` jobs start. Changes nothing: the state looks at everything again.
#[must_use]
pub fn plan(state: &State, forecast: &dyn ForecastSource, now_ms: u64, max: usize) -> Plan {
    Planner::default().plan(state, forecast, now_ms, max)
}
