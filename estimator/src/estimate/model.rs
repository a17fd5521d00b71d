//! The model: a Bayesian log-linear regression of times on what is known of a step before it runs.
//!
//! The logarithm of a time is that of `hypot(host, compute)`, as in [`work`](super::work), times a remainder. Host,
//! compute and remainder each are a sum of effects with Gaussian priors around what physics say: of the family, the
//! recipe, the GPU, the quantisation, checkpointing, their pairs and so on. Which share of a step waits for the host
//! is thus learnt: of a recipe measured on one GPU the model knows how far it can be faster on another. For a given
//! share the posterior has a closed form (Gauss-Newton finds the shares, from one half each, so that neither
//! explanation is preferred to the other by where the search begins). Deviations of the priors and of the noise are
//! learnt by expectation-maximisation, that is by marginal likelihood, and outliers weigh less, by a Student-t
//! likelihood of [`fit::FREEDOM`] degrees. Of each effect the variance is kept that it would have if the others were
//! known: that is too small, by a factor that [`calibration`] sees, and takes a thousandth of the room and time of all
//! covariances.
//!
//! Published figures are of other people's hosts; records and questions are of one's own. These have one effect more for
//! each GPU, on host and arithmetic ([`Board::own`]): what is measured of a slow host thus says how much longer other
//! recipes, batches and resolutions wait for it, and nothing of what is said of others. Until there are records its
//! prior is as wide as hosts are known to differ by.
//!
//! Quantiles are those of the predictive distribution, corrected by how far left-out measurements fell from it: see
//! [`calibration`].

mod calibration;
mod dense;
mod exact;
mod fit;
mod group;
mod large;
mod point;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use calibration::Calibration;
pub(crate) use calibration::Novelty;
pub(crate) use fit::Observation;
use group::Group;
use point::Feature;
pub(crate) use point::{Board, Point, SETTINGS, Subject, Traits};

/// What was learnt.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    places: Places,
    /// Effects, in the order of `places`; the host's side of a pair before the arithmetic's.
    effects: Vec<f64>,
    /// The variance of each effect if the others were known.
    certainty: Vec<f64>,
    /// Prior variances by group.
    variances: [f64; Group::COUNT],
    /// Variance of a measurement around its expectation.
    noise: f64,
    calibration: Calibration,
    recipes: HashSet<u64>,
    gpus: HashSet<u64>,
    pairs: HashSet<(u64, u64)>,
}

/// Where the effect of a feature stands.
type Places = HashMap<u64, u32, BuildHasherDefault<AsIs>>;

/// An answer of the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Predicted {
    /// p10, p50 and p90 in milliseconds, calibrated.
    pub(crate) ms: [f64; 3],
    /// Variance of the logarithm, so that p10 and p90 are as far away as the calibrated ones on average; without that
    /// of this installation's own hosts.
    pub(crate) variance: f64,
    /// What this installation's own hosts make of it.
    pub(crate) own: Own,
    /// What of the question was measured before.
    pub(crate) novelty: Novelty,
}

/// What this installation's own hosts make of a time, beside those of whom figures are published.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Own {
    /// The logarithm of how many times as long it takes on them.
    pub(crate) ln: f64,
    /// How that grows with the effect on the host's part and with that on the GPU's.
    slopes: [f64; 2],
    /// How uncertain each effect is.
    variances: [f64; 2],
}

/// What a model thinks of a point.
struct Thought {
    ln_ms: f64,
    /// Of the expectation, without the noise and without what is not known of own hosts.
    variance: f64,
    /// How much of the time grows with arithmetic.
    share: f64,
    own: Own,
}

/// Effects added up, with how uncertain the sums are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums {
    host: f64,
    compute: f64,
    whole: f64,
    /// Variances of the three.
    variances: [f64; 3],
    /// What own hosts add to the first two, and the variances of that.
    own: [f64; 2],
    own_variances: [f64; 2],
}

impl Model {
    /// Learns from measurements; `None` without any.
    pub(crate) fn learn(observations: &[Observation]) -> Option<Self> {
        fit::fit(observations)
    }

    /// The answer to a question.
    pub(crate) fn predict(&self, point: &Point) -> Predicted {
        let novelty = self.novelty(point.recipe, point.gpu);
        self.answer(&self.thought(point), novelty, point.gpu)
    }

    /// What is thought of a subject on any hardware, for [`Model::predict_on`].
    pub(crate) fn begin(&self, subject: &Subject) -> Sums {
        let mut sums = Sums::of(subject.host);
        for feature in &subject.features {
            sums.add(self, *feature);
        }
        sums
    }

    /// The answer to a question about a subject of which the sums were begun. The same as that to the whole point.
    pub(crate) fn predict_on(
        &self,
        subject: &Subject,
        begun: Sums,
        board: &Board<'_>,
    ) -> Predicted {
        let mut sums = begun;
        sums.compute += board.ln_compute();
        let gpu = subject.each_on(board, |feature| sums.add(self, feature));
        self.answer(&sums.thought(), self.novelty(subject.recipe(), gpu), gpu)
    }

    fn answer(&self, thought: &Thought, novelty: Novelty, gpu: u64) -> Predicted {
        let deviation = (thought.variance + self.noise).sqrt();
        let reach = self.calibration.reach(novelty, gpu);
        let middle = thought.ln_ms + reach.middle * deviation;
        let own = calibration::NORMAL_P90 * thought.own.variance().sqrt();
        let away = |reach_to: f64| ((reach_to - reach.middle) * deviation).hypot(own);
        let at = |ln_ms: f64| ln_ms.clamp(-20.0, 40.0).exp();
        let wide = (reach.high - reach.low) / (2.0 * calibration::NORMAL_P90) * deviation;
        Predicted {
            ms: [
                at(middle - away(reach.low)),
                at(middle),
                at(middle + away(reach.high)),
            ],
            variance: wide * wide,
            own: thought.own,
            novelty,
        }
    }

    /// Takes in one more measurement: the posterior of each effect, in closed form, at the shares of host and
    /// arithmetic that are thought now and with the effects as independent as they are kept. The deviations of priors
    /// and noise and the calibration stay; [`Model::learn`] finds them anew.
    pub(crate) fn observe(&mut self, seen: &Observation) {
        let point = &seen.point;
        let thought = self.thought(point);
        let error = seen.ln_ms - thought.ln_ms;
        let noise = self.noise / seen.weight.max(1e-3);
        // An outlier weighs less, as it does where everything is learnt.
        let variance = thought.variance + thought.own.variance();
        let off = error * error / (variance + noise);
        let belief = thought.belief(error, noise);
        let noise = noise / belief * (fit::FREEDOM + off * belief) / (fit::FREEDOM + 1.0);
        let moved = error / (variance + noise);
        for feature in &point.features {
            self.place(*feature);
        }
        let own = point.features.iter().find(|feature| feature.group.is_own());
        let own = own.map(|feature| self.places[&feature.id]);
        for (place, slope) in point.slopes(thought.share, |id| self.places[&id]) {
            let known = &mut self.certainty[place as usize];
            self.effects[place as usize] += *known * slope * moved;
            // Of own hosts the variance is kept that leaves the others unknown: what hardly waits for its host, or is as
            // likely to be the recipe's doing, says little of it.
            let is_own = own.is_some_and(|own| place == own || place == own + 1);
            let others = if is_own {
                variance - *known * slope * slope
            } else {
                0.0
            };
            *known /= 1.0 + *known * slope * slope / (noise + others.max(0.0));
        }
        self.recipes.insert(point.recipe);
        self.gpus.insert(point.gpu);
        self.pairs.insert((point.recipe, point.gpu));
    }

    /// How much of its weight a measurement gets that nobody else has confirmed: all where what is not known explains it
    /// better than that it is an outlier, and what an outlier weighs otherwise.
    pub(crate) fn belief(&self, seen: &Observation) -> f64 {
        let thought = self.thought(&seen.point);
        let noise = self.noise / seen.weight.max(1e-3);
        thought.belief(seen.ln_ms - thought.ln_ms, noise)
    }

    /// Sees to it that a feature has its effects.
    fn place(&mut self, feature: Feature) {
        let next = self.effects.len() as u32;
        if *self.places.entry(feature.id).or_insert(next) < next {
            return;
        }
        let groups = [feature.group].into_iter().chain(feature.group.compute());
        for group in groups {
            self.effects.push(0.0);
            self.certainty.push(self.variances[group.place()]);
        }
    }

    /// What is thought of a question, before the noise and the calibration.
    fn thought(&self, point: &Point) -> Thought {
        let mut sums = Sums::of(point.host);
        sums.compute += point.compute;
        for feature in &point.features {
            sums.add(self, *feature);
        }
        sums.thought()
    }

    fn novelty(&self, recipe: u64, gpu: u64) -> Novelty {
        if self.pairs.contains(&(recipe, gpu)) {
            Novelty::Known
        } else if self.recipes.contains(&recipe) {
            Novelty::OtherHardware
        } else if self.gpus.contains(&gpu) {
            Novelty::OtherRecipe
        } else {
            Novelty::New
        }
    }
}

impl Sums {
    const fn of(host: f64) -> Self {
        Self {
            host,
            compute: 0.0,
            whole: 0.0,
            variances: [0.0; 3],
            own: [0.0; 2],
            own_variances: [0.0; 2],
        }
    }

    fn add(&mut self, model: &Model, feature: Feature) {
        let place = model.places.get(&feature.id).map(|place| *place as usize);
        // The effect and its variance, of the feature's first side or its second.
        let told = |side: usize, group: Group| {
            let unknown = (0.0, model.variances[group.place()]);
            let (effect, variance) = place.map_or(unknown, |place| {
                (model.effects[place + side], model.certainty[place + side])
            });
            (
                effect * feature.value,
                variance * feature.value * feature.value,
            )
        };
        let first = told(0, feature.group);
        if let Some(group) = feature.group.compute() {
            let second = told(1, group);
            if feature.group.is_own() {
                self.own = [first.0, second.0];
                self.own_variances = [first.1, second.1];
                return;
            }
            self.host += first.0;
            self.compute += second.0;
            self.variances[0] += first.1;
            self.variances[1] += second.1;
        } else {
            self.whole += first.0;
            self.variances[2] += first.1;
        }
    }

    fn thought(&self) -> Thought {
        let [host, compute] = self.own;
        let (ln_ms, share) = joined(self.host + host, self.compute + compute);
        let weights = [1.0 - share, share, 1.0];
        let each = self.variances.iter().zip(weights);
        Thought {
            ln_ms: ln_ms + self.whole,
            variance: each.map(|(v, weight)| v * weight * weight).sum(),
            share,
            own: Own {
                ln: ln_ms - joined(self.host, self.compute).0,
                slopes: [1.0 - share, share],
                variances: self.own_variances,
            },
        }
    }
}

impl Thought {
    /// [`Model::belief`] of what is so far off, with such a noise: the likelihoods of a normal distribution that is as
    /// wide as what is not known, and of a Student-t one of the noise alone, beside each other.
    fn belief(&self, error: f64, noise: f64) -> f64 {
        let square = error * error;
        let unknown = square / (self.variance + self.own.variance() + noise);
        let outlier = (fit::FREEDOM + 1.0) * (square / (fit::FREEDOM * noise)).ln_1p();
        if unknown <= outlier {
            1.0
        } else {
            (fit::FREEDOM + 1.0) / (fit::FREEDOM + square / noise)
        }
    }
}

impl Own {
    /// How uncertain it is, as a variance of the logarithm.
    pub(crate) fn variance(&self) -> f64 {
        self.beside(&Self::default(), true)
    }

    /// How uncertain it is beside another one: on the same GPU the same effects act on both.
    pub(crate) fn beside(&self, other: &Self, same_gpu: bool) -> f64 {
        let of = |slopes: [f64; 2], variances: [f64; 2]| -> f64 {
            let each = slopes.iter().zip(variances);
            each.map(|(slope, variance)| slope * slope * variance).sum()
        };
        if same_gpu {
            let [host, compute] = self.slopes;
            let slopes = [host - other.slopes[0], compute - other.slopes[1]];
            of(slopes, self.variances)
        } else {
            of(self.slopes, self.variances) + of(other.slopes, other.variances)
        }
    }
}

/// The logarithm of `hypot(host, compute)`, and the share of it that grows with compute.
fn joined(host: f64, compute: f64) -> (f64, f64) {
    let difference = 2.0 * (compute - host);
    let share = 1.0 / (1.0 + (-difference).exp());
    let larger = host.max(compute);
    let ln = larger + 0.5 * (-difference.abs()).exp().ln_1p();
    (ln, share)
}

/// Ids are hashes already.
#[derive(Debug, Clone, Copy, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
