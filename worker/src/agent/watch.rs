//! How long a trainer may be silent: each phase has its own patience.

use super::Phase;

/// Silence allowed while stepping, at least: a garbage collection or a slow disk must not end a run.
const STEP_SILENCE_MS: u64 = 10 * 60_000;

/// Silence allowed while stepping, in median steps.
const STEP_SILENCE_STEPS: f64 = 20.0;

/// Silence allowed before the first step and while validating or saving. Downloads, compilation and large uploads print
/// little, so this is an hour.
const QUIET_PHASE_MS: u64 = 60 * 60_000;

/// Silence allowed after `training_complete`: the interpreter only has to end.
const EXIT_SILENCE_MS: u64 = 10 * 60_000;

/// Step times kept for the median.
const RECENT_STEPS: usize = 31;

/// When something was last heard, and how long steps usually take.
#[derive(Debug)]
pub(super) struct Watch {
    heard_ms: u64,
    recent: Vec<f64>,
    next: usize,
}

impl Watch {
    pub(super) fn new(now: u64) -> Self {
        Self {
            heard_ms: now,
            recent: Vec::with_capacity(RECENT_STEPS),
            next: 0,
        }
    }

    pub(super) fn heard(&mut self, now: u64) {
        self.heard_ms = self.heard_ms.max(now);
    }

    pub(super) fn step(&mut self, step_ms: f64) {
        if !step_ms.is_finite() || step_ms < 0.0 {
            return;
        }
        if self.recent.len() < RECENT_STEPS {
            self.recent.push(step_ms);
        } else {
            self.recent[self.next] = step_ms;
            self.next = (self.next + 1) % RECENT_STEPS;
        }
    }

    /// The moment from which silence in this phase counts as stuck.
    pub(super) fn stuck_at(&self, phase: Phase) -> u64 {
        self.heard_ms.saturating_add(match phase {
            // The trainer says that it is ready before the first step, which may have to compile the model.
            Phase::Training if !self.recent.is_empty() => self.step_silence_ms(),
            Phase::Complete => EXIT_SILENCE_MS,
            Phase::Starting
            | Phase::Training
            | Phase::Caching
            | Phase::Loading
            | Phase::Validating
            | Phase::Saving => QUIET_PHASE_MS,
        })
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates; steps are not negative"
    )]
    fn step_silence_ms(&self) -> u64 {
        let mut sorted = self.recent.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        STEP_SILENCE_MS.max((median * STEP_SILENCE_STEPS) as u64)
    }
}
