//! Whoever plans again and again: what is known of the cluster is kept from one look to the next.

use super::forecast::ForecastSource;
use super::look::Look;
use super::plan::Plan;
use super::survey::{ONE_BY_ONE, Scene, Survey};
pub use super::survey::{Portion, Question};
use crate::state::State;

/// A planner. One that finds out everything decides what [`plan`](super::plan()) decides, whatever it has seen before: only
/// how long it takes differs. One that finds out in portions does so as soon as it is not behind.
pub struct Planner {
    survey: Survey,
    one_by_one: usize,
    portion: Portion,
}

impl Default for Planner {
    /// One that finds out everything with each look.
    fn default() -> Self {
        Self {
            survey: Survey::default(),
            one_by_one: ONE_BY_ONE,
            portion: Portion::ALL,
        }
    }
}

impl Planner {
    /// One that finds out so much in one look where a great many wait, so that no look takes long. Until it has seen all
    /// lines it plans as if those it has not seen were not there, and until it knows all by the newest forecasts it goes by
    /// the older ones: still nothing but what follows from the states and forecasts that it was shown.
    #[must_use]
    pub fn in_portions(portion: Portion) -> Self {
        Self {
            portion,
            ..Self::default()
        }
    }

    /// The same, but more than so many lines of waiting jobs and running attempts are a crowd, so that a test sees with few
    /// of them what happens with many.
    #[must_use]
    pub const fn with_crowds_above(mut self, one_by_one: usize) -> Self {
        self.one_by_one = one_by_one;
        self
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
        let whole = Scene::of(state, forecast, now_ms);
        let scene = Scene {
            one_by_one: self.one_by_one,
            // Without a version nothing is kept, and what is put off would be put off for ever.
            portion: whole.version.map_or(Portion::ALL, |_| self.portion),
            ..whole
        };
        // A look that fails takes what is known along, so that the next one begins anew and not with a part of it.
        let mut survey = std::mem::take(&mut self.survey);
        let mut look = Look::following(&mut survey, scene);
        let plan = look.run(max);
        look.end(&mut survey);
        self.survey = survey;
        plan
    }

    /// What the next look will ask of the forecasts, at most: a source that remembers its answers can be asked before,
    /// while nobody holds the state. For a planner that finds out in portions.
    #[must_use]
    pub fn questions(
        &mut self,
        state: &State,
        forecast: &dyn ForecastSource,
        now_ms: u64,
    ) -> Vec<Question> {
        let whole = Scene::of(state, forecast, now_ms.max(state.newest_stamp_ms()));
        if whole.version.is_none() {
            return Vec::new();
        }
        let mut survey = std::mem::take(&mut self.survey);
        survey.follow(Scene {
            one_by_one: self.one_by_one,
            portion: Portion { new: 0, again: 0 },
            ..whole
        });
        let questions = survey.questions(state, self.portion);
        self.survey = survey;
        questions
    }

    /// Whether the last look has left something to find out.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.survey.is_behind()
    }
}
