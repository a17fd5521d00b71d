//! Learning: the search for host and compute shares, and the deviations that the data ask for.

use std::collections::HashSet;

use super::calibration::Calibration;
use super::exact;
use super::group::{DEVIATIONS, Group};
use super::large;
use super::point::Point;
use super::{Model, Places, joined};

/// Degrees of freedom of the likelihood: a measurement five deviations off weighs a fifth of a good one.
pub(super) const FREEDOM: f64 = 4.0;
/// Rounds in which the shares move from one half to what the effects say.
const ROUNDS_MOVING: usize = 4;
/// Rounds after that.
const ROUNDS: usize = 8;
/// How far the first rounds go: the first effects are far from zero.
const PACE_FIRST: f64 = 0.7;
/// How often a step that explains less is halved before it is not taken.
const HALVINGS: usize = 6;
/// As much as so many features of a group speak for the deviation it begins with.
const PRIOR_WEIGHT: f64 = 10.0;
/// The deviation of a measurement to begin with.
const NOISE_FIRST: f64 = 0.05;
/// No measurement is better known than this: two runs of one key differ at least so much.
const NOISE_LEAST: f64 = 0.01;
/// With more points than this the sums are solved step by step, and no two points are looked at together.
pub(super) const EXACT_MAX: usize = 1_024;

/// A measurement.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    pub(crate) point: Point,
    /// The logarithm of milliseconds.
    pub(crate) ln_ms: f64,
    /// How much it counts beside others; 1 is usual.
    pub(crate) weight: f64,
    /// The share of that with which it begins, before it is seen whether others agree: [`Model::belief`].
    pub(crate) belief: f64,
}

/// Observations as sparse rows: which effects they have, and how a small change of each changes the logarithm.
pub(super) struct Rows {
    pub(super) slopes: Vec<Vec<(u32, f64)>>,
    pub(super) features: usize,
}

/// What solving for the effects gives.
pub(super) struct Solved {
    pub(super) effects: Vec<f64>,
    /// Posterior variances of the effects.
    pub(super) variances: Vec<f64>,
    /// Posterior variances of the expectations of the observations.
    pub(super) fitted: Vec<f64>,
}

pub(super) fn fit(observations: &[Observation]) -> Option<Model> {
    if observations.is_empty() {
        return None;
    }
    let mut fit = Fit::new(observations);
    for round in 0..ROUNDS_MOVING + ROUNDS {
        fit.step(round)?;
    }
    Some(fit.finished())
}

struct Fit<'a> {
    observations: &'a [Observation],
    places: Places,
    groups: Vec<Group>,
    members: [f64; Group::COUNT],
    effects: Vec<f64>,
    variances: [f64; Group::COUNT],
    noise: f64,
    weights: Vec<f64>,
}

impl<'a> Fit<'a> {
    fn new(observations: &'a [Observation]) -> Self {
        let mut places = Places::default();
        let mut groups = Vec::new();
        let mut members = [0.0; Group::COUNT];
        for feature in observations.iter().flat_map(|seen| &seen.point.features) {
            places.entry(feature.id).or_insert_with(|| {
                let place = groups.len() as u32;
                groups.extend([feature.group].into_iter().chain(feature.group.compute()));
                place
            });
        }
        for group in &groups {
            members[group.place()] += 1.0;
        }
        Self {
            observations,
            effects: vec![0.0; groups.len()],
            places,
            groups,
            members,
            variances: DEVIATIONS.map(|deviation| deviation * deviation),
            noise: NOISE_FIRST * NOISE_FIRST,
            weights: observations
                .iter()
                .map(|seen| seen.weight * seen.belief)
                .collect(),
        }
    }

    /// The expectation of an observation and its compute share.
    fn expected(&self, point: &Point) -> (f64, f64) {
        let (mut host, mut compute, mut whole) = (point.host, point.compute, 0.0);
        for feature in &point.features {
            let place = self.places[&feature.id] as usize;
            let by = self.effects[place] * feature.value;
            if feature.group.is_pair() {
                host += by;
                compute += self.effects[place + 1] * feature.value;
            } else {
                whole += by;
            }
        }
        let (ln, share) = joined(host, compute);
        (ln + whole, share)
    }

    /// Slopes at the shares, moved towards one half by `held`, and the expectations.
    fn rows(&self, held: f64) -> (Rows, Vec<f64>) {
        let mut expectations = Vec::with_capacity(self.observations.len());
        let slopes = self.observations.iter().map(|seen| {
            let (expected, share) = self.expected(&seen.point);
            expectations.push(expected);
            let share = 0.5 * held + share * (1.0 - held);
            let place_of = |id| self.places[&id];
            seen.point.slopes(share, place_of)
        });
        let rows = Rows {
            slopes: slopes.collect(),
            features: self.groups.len(),
        };
        (rows, expectations)
    }

    fn priors(&self) -> Vec<f64> {
        let groups = self.groups.iter();
        groups.map(|group| self.variances[group.place()]).collect()
    }

    fn noises(&self) -> Vec<f64> {
        self.weights
            .iter()
            .map(|weight| self.noise / weight)
            .collect()
    }

    /// What the effects would have to explain, were the slopes exact.
    fn targets(&self, rows: &Rows, expectations: &[f64]) -> Vec<f64> {
        let observations = self.observations.iter();
        let each = observations.zip(&rows.slopes).zip(expectations);
        each.map(|((seen, slopes), expected)| {
            let linear: f64 = slopes
                .iter()
                .map(|&(place, slope)| slope * self.effects[place as usize])
                .sum();
            seen.ln_ms - expected + linear
        })
        .collect()
    }

    fn step(&mut self, round: usize) -> Option<()> {
        let held = 1.0 - (round as f64 / ROUNDS_MOVING as f64).min(1.0);
        // The first effects are far from zero, so their shares are found in two steps.
        for _ in 0..if round == 0 { 2 } else { 1 } {
            let (rows, expectations) = self.rows(held);
            let targets = self.targets(&rows, &expectations);
            let (priors, noises) = (self.priors(), self.noises());
            let solved = if self.observations.len() <= EXACT_MAX {
                exact::solve(&rows, &targets, &priors, &noises)?
            } else {
                large::solve(&rows, &targets, &priors, &noises, &self.effects)
            };
            let held = (held > 0.0).then_some(if round > 1 { 1.0 } else { PACE_FIRST });
            self.walk(&solved.effects, &priors, &noises, held);
            if round >= ROUNDS_MOVING {
                self.maximise(&solved);
            }
        }
        Some(())
    }

    /// Goes towards other effects, as far as that explains more. While the shares are held the way is no descent, and
    /// a part of it is gone in any case.
    fn walk(&mut self, to: &[f64], priors: &[f64], noises: &[f64], held: Option<f64>) {
        let from = self.effects.clone();
        let unexplained = self.unexplained(priors, noises);
        let mut pace = held.unwrap_or(1.0);
        for _ in 0..HALVINGS {
            for (effect, (from, to)) in self.effects.iter_mut().zip(from.iter().zip(to)) {
                *effect = from + (to - from) * pace;
            }
            if held.is_some() || self.unexplained(priors, noises) <= unexplained {
                return;
            }
            pace /= 2.0;
        }
        self.effects = from;
    }

    /// What the posterior's logarithm lacks, twice: errors and effects, each beside its variance.
    fn unexplained(&self, priors: &[f64], noises: &[f64]) -> f64 {
        let errors = self.observations.iter().zip(noises).map(|(seen, noise)| {
            let error = seen.ln_ms - self.expected(&seen.point).0;
            error * error / noise
        });
        let effects = self.effects.iter().zip(priors);
        errors.sum::<f64>()
            + effects
                .map(|(effect, prior)| effect * effect / prior)
                .sum::<f64>()
    }

    /// Deviations and weights that make what was found most likely.
    fn maximise(&mut self, solved: &Solved) {
        let mut squares = [0.0; Group::COUNT];
        for ((effect, variance), group) in
            self.effects.iter().zip(&solved.variances).zip(&self.groups)
        {
            squares[group.place()] += effect * effect + variance;
        }
        for (place, deviation) in DEVIATIONS.iter().enumerate() {
            let group = Group::at(place);
            if group.is_own() && !group.is_pair() {
                // Boards of one name differ by little, whatever times they would explain: otherwise two records of a slow
                // host may as well be of a GPU that computes ten times as long, and the search may end there.
                continue;
            }
            let sum = squares[place] + PRIOR_WEIGHT * deviation * deviation;
            self.variances[place] = sum / (self.members[place] + PRIOR_WEIGHT);
        }
        let mut sum = 0.0;
        let mut weights = Vec::with_capacity(self.weights.len());
        for (seen, variance) in self.observations.iter().zip(&solved.fitted) {
            let error = seen.ln_ms - self.expected(&seen.point).0;
            let square = error * error + variance;
            let weight =
                seen.weight * (FREEDOM + 1.0) / (FREEDOM + seen.weight * square / self.noise);
            sum += weight * square;
            weights.push(weight);
        }
        self.weights = weights;
        self.noise = (sum / self.observations.len() as f64).max(NOISE_LEAST * NOISE_LEAST);
    }

    fn finished(self) -> Model {
        let (rows, expectations) = self.rows(0.0);
        let targets = self.targets(&rows, &expectations);
        let (priors, noises) = (self.priors(), self.noises());
        let points: Vec<&Point> = self.observations.iter().map(|seen| &seen.point).collect();
        let mut variances = large::variances(&rows, &priors, &noises);
        let is_exact = self.observations.len() <= EXACT_MAX;
        // What own hosts do is one or two effects for all questions, whose errors are not in the calibration, and a few
        // records may tell as much of a recipe: so of these alone the variance is kept that leaves the others unknown.
        if is_exact && self.groups.iter().any(|group| group.is_own()) {
            let solved = exact::solve(&rows, &targets, &priors, &noises);
            let known = solved.map(|solved| solved.variances).unwrap_or_default();
            let own = self.groups.iter().zip(known).zip(&mut variances);
            for ((_, known), variance) in own.filter(|((group, _), _)| group.is_own()) {
                *variance = known;
            }
        }
        let left_out = if is_exact {
            exact::left_out(&rows, &targets, &priors, &noises, self.noise, &points)
        } else {
            large::left_out(&rows, &targets, &self.effects, &variances, &noises, &points)
        };
        let calibration = Calibration::of(&left_out);
        let pairs: HashSet<(u64, u64)> = points.iter().map(|p| (p.recipe, p.gpu)).collect();
        Model {
            places: self.places,
            effects: self.effects,
            certainty: variances,
            variances: self.variances,
            noise: self.noise,
            calibration,
            recipes: pairs.iter().map(|pair| pair.0).collect(),
            gpus: pairs.iter().map(|pair| pair.1).collect(),
            pairs,
        }
    }
}
