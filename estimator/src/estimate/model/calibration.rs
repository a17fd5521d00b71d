//! Calibration: what p10, p50 and p90 of the predictive distribution have to be, by what left-out measurements did.
//!
//! A split conformal correction whose held-out part is every measurement in turn, kept apart by how new a question
//! is. Few measurements move the quantiles little: those of a normal distribution count as [`NORMAL_WEIGHT`] more.
//!
//! What was measured of one recipe errs alike. So the quantiles for a recipe of which nothing is known are those of
//! recipes and not of measurements, each of which counts once (hierarchical conformal prediction, Dunn, Wasserman and
//! Ramdas 2023); so are those for a GPU of which nothing is known, of GPUs; and a GPU's own p10 and p90 for recipes that
//! were measured on others, around what holds for all GPUs: where a few recipes alone tie a GPU to the others, little is
//! said of it with certainty.

use std::collections::HashMap;

use stepcast_records::Basis;

/// p90 of a standard normal distribution.
pub(super) const NORMAL_P90: f64 = 1.281_6;
/// So many measurements of the kind speak as loud as the normal distribution.
const NORMAL_WEIGHT: f64 = 20.0;
/// What holds for all GPUs speaks as loud as so many recipes of one.
const ALL_GPUS_WEIGHT: f64 = 5.0;
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
    /// The GPU that was asked about, and which part of a recipe on it this is: what was left out together counts once.
    gpu: u64,
    part: f64,
}

/// Where p10, p50 and p90 lie, in deviations from the middle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    pub(super) low: f64,
    pub(super) middle: f64,
    pub(super) high: f64,
}

/// The quantiles by novelty, and by GPU of recipes that were measured elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Calibration {
    kinds: [Reach; 4],
    elsewhere: HashMap<u64, Reach>,
}

impl LeftOut {
    /// A measurement that was left out alone.
    pub(super) const fn alone(error: f64, gpu: u64) -> Self {
        Self::among(Novelty::Known, error, gpu, 1.0)
    }

    /// One of those that were left out together, which part of them it is.
    pub(super) const fn among(novelty: Novelty, error: f64, gpu: u64, part: f64) -> Self {
        Self {
            novelty,
            error,
            gpu,
            part,
        }
    }

    /// How much it counts for all GPUs together. Of other hardware each measurement speaks: which recipes err there is
    /// what the GPU's own quantiles say.
    fn counts(self) -> f64 {
        if self.novelty == Novelty::OtherHardware {
            1.0
        } else {
            self.part
        }
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
        let of_kind = |kind| {
            let some = left_out.iter();
            some.filter(move |some| some.novelty == kind && some.error.is_finite())
        };
        let kinds = kinds.map(|kind| {
            let errors = of_kind(kind).map(|left_out| (left_out.error, left_out.counts()));
            Reach::of(errors.collect(), &Reach::NORMAL, NORMAL_WEIGHT)
        });
        let mut gpus: HashMap<u64, Vec<(f64, f64)>> = HashMap::new();
        for some in of_kind(Novelty::OtherHardware) {
            let errors = gpus.entry(some.gpu).or_default();
            errors.push((some.error, some.part));
        }
        let all = kinds[Novelty::OtherHardware as usize];
        let own = gpus.into_iter().map(|(gpu, errors)| {
            let own = Reach::of(errors, &all, ALL_GPUS_WEIGHT);
            // The middle of a few recipes says more of them than of the GPU.
            let reach = Reach {
                low: own.low.min(all.middle),
                middle: all.middle,
                high: own.high.max(all.middle),
            };
            (gpu, reach)
        });
        Self {
            elsewhere: own.collect(),
            kinds,
        }
    }

    /// For a question about a GPU.
    pub(super) fn reach(&self, novelty: Novelty, gpu: u64) -> Reach {
        let own = self.elsewhere.get(&gpu);
        let own = own.filter(|_| novelty == Novelty::OtherHardware);
        *own.unwrap_or(&self.kinds[novelty as usize])
    }
}

impl Reach {
    const NORMAL: Self = Self {
        low: -NORMAL_P90,
        middle: 0.0,
        high: NORMAL_P90,
    };

    /// Of errors that each count so much, and of what is expected of them, which counts so much beside.
    fn of(mut errors: Vec<(f64, f64)>, expected: &Self, weight: f64) -> Self {
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count: f64 = errors.iter().map(|(_, counts)| counts).sum();
        let at = |share: f64, expected: f64| {
            let Some(found) = conformal(&errors, share * (count + 1.0)) else {
                return expected;
            };
            let found = found.clamp(-REACH_MAX, REACH_MAX);
            (found * count + expected * weight) / (count + weight)
        };
        let middle = at(0.5, expected.middle);
        Self {
            low: at(0.1, expected.low).min(middle),
            middle,
            high: at(0.9, expected.high).max(middle),
        }
    }
}

/// The error below which sorted errors of such a weight lie, between neighbours. With a share of one question more than
/// there are it is the conformal quantile, which covers the next one.
fn conformal(sorted: &[(f64, f64)], wanted: f64) -> Option<f64> {
    let mut passed = 0.0;
    let mut last: Option<(f64, f64)> = None;
    for &(error, counts) in sorted {
        passed += counts;
        if passed >= wanted {
            return Some(last.map_or(error, |(before, at)| {
                at + (error - at) * (wanted - before) / (passed - before)
            }));
        }
        last = Some((passed, error));
    }
    last.map(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors of recipes on a GPU, each measured so often.
    fn recipes(gpu: u64, errors: &[f64], times: usize) -> Vec<LeftOut> {
        let each = errors.iter().flat_map(|&error| {
            let one = LeftOut::among(Novelty::OtherHardware, error, gpu, 1.0 / times as f64);
            std::iter::repeat_n(one, times)
        });
        each.collect()
    }

    #[test]
    fn nothing_left_out_is_a_normal_distribution() {
        let reach = Calibration::of(&[]).reach(Novelty::New, 1);
        assert_eq!(
            (reach.low, reach.middle, reach.high),
            (-NORMAL_P90, 0.0, NORMAL_P90)
        );
    }

    #[test]
    fn a_recipe_counts_once_however_often_it_was_measured() {
        let errors = [-1.0, -0.5, 0.0, 0.5, 3.0];
        let high = |times| Calibration::of(&recipes(1, &errors, times)).elsewhere[&1].high;
        // The conformal p90 of five is the largest of them; all GPUs have it from as many measurements.
        let all = |count: f64, found: f64| {
            (found * count + NORMAL_P90 * NORMAL_WEIGHT) / (count + NORMAL_WEIGHT)
        };
        let own = |all: f64| (3.0 * 5.0 + all * ALL_GPUS_WEIGHT) / (5.0 + ALL_GPUS_WEIGHT);
        assert!((high(1) - own(all(5.0, 3.0))).abs() < 1e-9, "{}", high(1));
        assert!(
            (high(100) - own(all(500.0, 3.0))).abs() < 1e-9,
            "{}",
            high(100)
        );
    }

    #[test]
    fn an_unknown_recipe_is_as_uncertain_as_recipes_and_not_as_measurements() {
        // Nine recipes of which little is known err by much; one that was measured a thousand times does not.
        let of = |error, times: usize| {
            let part = 1.0 / times as f64;
            let one = LeftOut::among(Novelty::OtherRecipe, error, 1, part);
            std::iter::repeat_n(one, times)
        };
        let mut left_out: Vec<LeftOut> = of(0.0, 1_000).collect();
        left_out.extend(
            [-4.0, -3.0, -2.5, -2.0, 2.0, 2.5, 3.0, 4.0, 4.0]
                .map(|error| LeftOut::among(Novelty::OtherRecipe, error, 1, 1.0)),
        );
        let reach = Calibration::of(&left_out).reach(Novelty::OtherRecipe, 1);
        assert!(reach.low < -1.9 && reach.high > 1.9, "{reach:?}");
    }

    #[test]
    fn a_gpu_that_errs_more_is_less_certain_than_others() {
        let mut left_out = recipes(1, &[-0.3, -0.1, 0.0, 0.1, 0.3], 4);
        left_out.extend(recipes(2, &[-0.5, 0.5, 1.0, 2.0, 3.0], 4));
        let calibration = Calibration::of(&left_out);
        let reach = |gpu| calibration.reach(Novelty::OtherHardware, gpu);
        let unheard_of = reach(3).high;
        assert!(reach(1).high < unheard_of && unheard_of < reach(2).high);
        assert_eq!(reach(1).middle, reach(2).middle);
        // Of its own recipes, which were measured there, it says the same as anybody.
        let known = |gpu| calibration.reach(Novelty::Known, gpu).high;
        assert_eq!(known(1), known(2));
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let errors: Vec<(f64, f64)> = (1..=9).map(|n| (f64::from(n), 1.0)).collect();
        assert_eq!(conformal(&errors, 9.0), Some(9.0));
        assert_eq!(conformal(&errors, 4.5), Some(4.5));
        assert_eq!(conformal(&errors, 0.2), Some(1.0));
        assert_eq!(conformal(&errors, 99.0), Some(9.0));
        assert_eq!(conformal(&[], 1.0), None);
    }
}
