//! Whoever plans again and again: what is known of the cluster is kept from one look to the next.

use super::forecast::ForecastSource;
use super::look::Look;
use super::plan::Plan;
use super::survey::{ONE_BY_ONE, Survey};
use crate::state::State;

/// A planner. It decides what [`plan`](super::plan()) decides, whatever it has seen before: only how long it takes
/// differs.
pub struct Planner {
    survey: Survey,
    one_by_one: usize,
}

impl Default for Planner {
    fn default() -> Self {
        Self {
            survey: Survey::default(),
            one_by_one: ONE_BY_ONE,
        }
    }
}

impl Planner {
    /// One that takes more than so many lines of waiting jobs and running attempts for a crowd, so that a test sees with
    /// few of them what happens with many.
    #[must_use]
    pub fn with_crowds_above(one_by_one: usize) -> Self {
        Self {
            one_by_one,
            ..Self::default()
        }
    }

    /// What to do at `now_ms`; at most `max` jobs start. Changes nothing: the state looks at everything again.
    #[must_use]
    pub fn plan(
        &mut self,
        state: &State,
        forecast: &dyn ForecastSource,
        now_ms: u64,
        max: usize,
    ) -> Plan {
        let now_ms = now_ms.max(state.newest_stamp_ms());
        let (survey, one_by_one) = (&mut self.survey, self.one_by_one);
        let mut look = Look::following(survey, state, forecast, now_ms, one_by_one);
        let plan = look.run(max);
        look.end(&mut self.survey);
        plan
    }
}
