//! Calibration: what p10, p50 and p90 of the predictive distribution have to be, by what left-out measurements did.
//!
//! A split conformal correction whose held-out part is every measurement in turn, kept apart by how new a question
//! is. Few measurements move the quantiles little: those of a normal distribution count as [`NORMAL_WEIGHT`] more.

use stepcast_records::Basis;

/// p90 of a standard normal distribution.
pub(super) const NORMAL_P90: f64 = 1.281_6;
/// So many measurements of the kind speak as loud as the normal distribution.
const NORMAL_WEIGHT: f64 = 20.0;
/// Deviations beyond which a quantile is not believed.
const REACH_MAX: f64 = 4.0;

/// What of a question was measured before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Novelty {
    /// Its recipe on its hardware.
    Known,
    /// Its recipe, on other hardware.
    OtherHardware,
    /// Its hardware, with other recipes.
    OtherRecipe,
    /// Neither.
    New,
}

impl Novelty {
    /// What an answer to such a question rests on.
    pub(crate) const fn basis(self) -> Basis {
        match self {
            Self::Known => Basis::Near,
            Self::OtherHardware | Self::OtherRecipe | Self::New => Basis::Rough,
        }
    }
}

/// The error of the answer to a measurement that was left out, in deviations of that answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeftOut {
    novelty: Novelty,
    error: f64,
}

/// Where p10, p50 and p90 lie, in deviations from the middle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    pub(super) low: f64,
    pub(super) middle: f64,
    pub(super) high: f64,
}

/// The quantiles by novelty.
#[derive(Debug, Clone)]
pub(super) struct Calibration([Reach; 4]);

impl LeftOut {
    pub(super) const fn new(novelty: Novelty, error: f64) -> Self {
        Self { novelty, error }
    }

    #[cfg(test)]
    pub(super) const fn error(self) -> f64 {
        self.error
    }
}

impl Calibration {
    pub(super) fn of(left_out: &[LeftOut]) -> Self {
        let kinds = [
            Novelty::Known,
            Novelty::OtherHardware,
            Novelty::OtherRecipe,
            Novelty::New,
        ];
        Self(kinds.map(|kind| {
            let errors = left_out.iter().filter(|left_out| left_out.novelty == kind);
            let mut errors: Vec<f64> = errors.map(|left_out| left_out.error).collect();
            errors.retain(|error| error.is_finite());
            errors.sort_by(f64::total_cmp);
            Reach::of(&errors)
        }))
    }

    pub(super) const fn reach(&self, novelty: Novelty) -> Reach {
        self.0[novelty as usize]
    }
}

impl Reach {
    fn of(sorted: &[f64]) -> Self {
        let at = |share: f64, normal: f64| {
            let count = sorted.len() as f64;
            if sorted.is_empty() {
                return normal;
            }
            // The conformal quantile: one more than there are, so that the next one is covered.
            let place = ((count + 1.0) * share - 1.0).clamp(0.0, count - 1.0);
            let (below, above) = (
                sorted[place.floor() as usize],
                sorted[place.ceil() as usize],
            );
            let found = below + (above - below) * place.fract();
            let found = found.clamp(-REACH_MAX, REACH_MAX);
            (found * count + normal * NORMAL_WEIGHT) / (count + NORMAL_WEIGHT)
        };
        let middle = at(0.5, 0.0);
        Self {
            low: at(0.1, -NORMAL_P90).min(middle),
            middle,
            high: at(0.9, NORMAL_P90).max(middle),
        }
    }
}
