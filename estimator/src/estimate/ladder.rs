//! The ladder: the time of one step or image from the nearest cell there is, and how far that is away.
//!
//! Rungs, best first: records of exactly the key; cells of the same recipe on the same hardware; cells of the
//! same family on any hardware; the ratings alone. Within a rung the candidate with the least variance wins, and
//! a published figure carries more of it than a record. Every candidate is carried over by the ratio of
//! [`Work`](super::work::Work), and leaves a note for each thing that differs. Of keys that nobody measured the
//! [`model`](super::model) has a word too: the cell says what the time rests on, both together what it is. Records of
//! exactly the key count alone as soon as they are of enough steps, and are drawn to the model until then.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use stepcast_records::{Basis, Cell, Family, Hardware, Note, Recipe};

use super::model::Model;
use super::shape::Shape;
use super::width;
use super::work::{Cost, Split};
use crate::index::{Index, Shelf};

/// Cells looked at before and after the place of the key on its own shelf. In key order the neighbours share
/// resolution and batch, so further ones are worse; the bound keeps a crowded shelf from costing milliseconds.
const NEIGHBOURS_OWN: usize = 256;
/// The same on each other shelf of the family.
const NEIGHBOURS_OTHER: usize = 8;
/// Shelves of relatives looked at, closest recipes first. A video family has hundreds of recipes, on every hardware.
const RELATIVES_MAX: usize = 512;
/// When the shape changes: batch and pixels fill a GPU that a small model left waiting. The bound on the host's part
/// is a compromise: 1.0 errs less on another batch (2 % in the middle instead of 4 %), but all figures of that are
/// of one heavy model; more errs less on another resolution and from other hardware.
const SPLIT_SHAPE: Split = Split {
    compute_min: 0.5,
    host_max: 1.3,
};
/// When the hardware changes: there a small model leaves the faster GPU waiting too, so nearly all of a time that
/// the arithmetic does not explain stays as it is (17 % in the middle, against 47 % with a bound of 1.0).
const SPLIT_HARDWARE: Split = Split {
    compute_min: 0.15,
    host_max: f64::INFINITY,
};
/// TFLOP/s that stand for a device without a rating. Only ratios on the same device are taken of it.
const SPEED_UNRATED: f64 = 0.5;
/// A step and an image on the pretend device when no recording of the kind was played before.
const REPLAY_MS: f64 = 1_000.0;

/// How alike the errors of the nearest cell and of the model are: both rest on the same measurements, and the model
/// on others besides.
const SHARED_EVIDENCE: f64 = 0.5;

/// With so many steps of exactly a key nothing else is asked.
const STEPS_ENOUGH: f64 = 100.0;
/// Degrees of freedom of what the model says beside a key's own records.
const MODEL_FREEDOM: f64 = 4.0;

/// Where the ladder stands: what was measured here, and what was published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ladder<'a> {
    pub(super) records: &'a Index,
    pub(super) published: &'a Index,
    /// What they teach about keys that nobody measured; `None` leaves the nearest cell alone.
    pub(super) model: Option<&'a Model>,
}

/// The time of one step or image.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Milliseconds in the middle.
    pub(super) ms: f64,
    /// Variance of the logarithm of the truth around it.
    pub(super) variance: f64,
    pub(super) basis: Basis,
    /// Contributions or published figures it rests on.
    pub(super) rows: u32,
    /// Steps or prompts that these observed; 0 for published figures, which mostly do not say.
    pub(super) observed: u64,
    pub(super) notes: Vec<Note>,
}

/// One shape's way up, for any number of hardwares.
pub(super) struct Rungs<'a, S> {
    ladder: Ladder<'a>,
    shape: S,
    relatives: OnceCell<Vec<Candidate<'a, S>>>,
}

/// A cell that may stand in.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a, S> {
    shape: S,
    hardware: Hardware,
    cell: &'a Cell,
    published: bool,
    /// Of everything but the hardware.
    variance: f64,
}

impl<'a> Ladder<'a> {
    /// The way up for one shape.
    pub(super) fn of<S: Shape>(self, shape: S) -> Rungs<'a, S> {
        let relatives = OnceCell::new();
        Rungs {
            ladder: self,
            shape,
            relatives,
        }
    }

    /// Records, then published figures.
    fn sources(self) -> [(&'a Index, bool); 2] {
        [(self.records, false), (self.published, true)]
    }
}

impl<'a, S: Shape> Rungs<'a, S> {
    /// The time on a hardware from the best rung; `None` when there is nothing to go by.
    pub(super) fn on(&self, hardware: Hardware) -> Option<Found> {
        if let Some(exact) = self.exact(hardware) {
            return Some(self.drawn(exact, hardware).on_replay(hardware));
        }
        let nearest = self.near(hardware).or_else(|| self.far(hardware));
        let nearest = nearest.or_else(|| self.rated(hardware))?;
        Some(self.with_model(nearest, hardware).on_replay(hardware))
    }

    /// A key's own records that are few, drawn to what the model would say: the posterior of the key's time, in closed
    /// form and the same whether the steps came in one run or in several. From [`STEPS_ENOUGH`] steps on the records
    /// count alone.
    fn drawn(&self, mut found: Found, hardware: Hardware) -> Found {
        let lack = STEPS_ENOUGH / (found.observed.max(1) as f64) - 1.0;
        let model = self.ladder.model.filter(|_| hardware.gpu.is_gpu());
        let model = model.filter(|_| lack > 0.0);
        let Some((model, point)) = model.zip(self.shape.point(hardware)) else {
            return found;
        };
        let answer = model.predict(&point);
        let disagreement = (found.ms.max(1e-3) / answer.ms[1].max(1e-3)).ln();
        let near = found.variance * lack;
        // A model that is off by several deviations knows less than it thinks: a Student-t prior.
        let off = disagreement * disagreement / (near + answer.variance);
        let far = answer.variance * (MODEL_FREEDOM + off) / (MODEL_FREEDOM + 1.0);
        let share = near / (near + far);
        found.ms = (found.ms.max(1e-3).ln() - disagreement * share).exp();
        found.variance += near * far / (near + far);
        found
    }

    /// The nearest cell's word and the model's, each by what it is worth.
    fn with_model(&self, mut found: Found, hardware: Hardware) -> Found {
        let model = self.ladder.model.filter(|_| hardware.gpu.is_gpu());
        let Some((model, point)) = model.zip(self.shape.point(hardware)) else {
            return found;
        };
        let answer = model.predict(&point);
        let disagreement = (found.ms.max(1e-3) / answer.ms[1].max(1e-3)).ln();
        // The model knows the published figures. Of a record it may not know yet, so where a record says otherwise
        // the model is that much less certain.
        let news = if found.observed > 0 {
            disagreement
        } else {
            0.0
        };
        let (near, far) = (
            found.variance.max(1e-6),
            answer.variance.max(1e-6) + news * news,
        );
        let share = near / (near + far);
        let ln_ms = found.ms.max(1e-3).ln() - disagreement * share;
        let both = SHARED_EVIDENCE * 2.0 * share * (1.0 - share) * (near * far).sqrt();
        found.ms = ln_ms.exp();
        found.variance = (1.0 - share).powi(2) * near + share.powi(2) * far + both;
        found
    }

    /// The time on a hardware from the best rung on which something was measured.
    pub(super) fn measured_on(&self, hardware: Hardware) -> Option<Found> {
        let found = self
            .exact(hardware)
            .or_else(|| self.near(hardware))
            .or_else(|| self.far(hardware))?;
        Some(found.on_replay(hardware))
    }

    /// Records of exactly this key: their mean over all steps.
    pub(super) fn exact(&self, hardware: Hardware) -> Option<Found> {
        let shelf = self.ladder.records.shelf(self.shape.recipe(), hardware)?;
        let cell = S::cells(shelf).get(&self.shape)?;
        Some(Found {
            ms: cell.mean_ms()?,
            variance: width::within(cell),
            basis: Basis::Exact,
            rows: cell.rows(),
            observed: cell.count(),
            notes: Vec::new(),
        })
    }

    /// The same recipe on the same hardware, or a published figure of exactly this key.
    pub(super) fn near(&self, hardware: Hardware) -> Option<Found> {
        let recipe = self.shape.recipe();
        let shelves = self.ladder.sources().into_iter();
        let candidates = shelves.filter_map(|(index, published)| {
            let shelf = index.shelf(recipe, hardware)?;
            self.nearest(shelf, recipe, hardware, published, NEIGHBOURS_OWN)
        });
        let best = candidates.min_by(|a, b| a.variance.total_cmp(&b.variance))?;
        self.carried(&best, hardware, Basis::Near)
    }

    /// Any recipe of the family on any comparable hardware.
    pub(super) fn far(&self, hardware: Hardware) -> Option<Found> {
        let other;
        let relatives = if hardware.gpu.is_gpu() {
            self.relatives
                .get_or_init(|| self.relatives(|from| from.gpu.is_gpu()))
        } else {
            // Times of the host's processor and of the pretend device say something about themselves only.
            other = self.relatives(|from| from.gpu == hardware.gpu);
            &other
        };
        let variance = |candidate: &Candidate<'a, S>| {
            candidate.variance + width::of_hardware(candidate.hardware, hardware)
        };
        let best = relatives
            .iter()
            .min_by(|a, b| variance(a).total_cmp(&variance(b)))?;
        self.carried(best, hardware, Basis::Rough)
    }

    /// What the ratings of the hardware and the kind of model say.
    pub(super) fn rated(&self, hardware: Hardware) -> Option<Found> {
        let ms = if hardware.is_replay() {
            REPLAY_MS
        } else {
            self.shape.work().on(hardware)?.total_ms()
        };
        Some(Found {
            ms,
            variance: width::RATED * width::RATED,
            basis: Basis::Rough,
            rows: 0,
            observed: 0,
            notes: vec![Note::RatedOnly],
        })
    }

    /// The best cell of each shelf of the family on such hardware, closest recipes first, until no further recipe
    /// can be better on any hardware.
    fn relatives(&self, such: impl Fn(Hardware) -> bool) -> Vec<Candidate<'a, S>> {
        let sources = self.ladder.sources();
        let has_cells = |recipe: Recipe| {
            let mut hardware = sources
                .iter()
                .map(|(index, _)| index.hardware(recipe).next());
            hardware.any(|found| found.is_some())
        };
        let family = relatives_of(self.shape.recipe().family()).iter();
        let mut recipes: Vec<(f64, Recipe)> = family
            .filter(|recipe| has_cells(**recipe))
            .map(|&recipe| (self.shape.recipe_variance(recipe), recipe))
            .collect();
        recipes.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut candidates = Vec::new();
        let (mut least, mut looked) = (f64::INFINITY, 0);
        for (variance, recipe) in recipes {
            if variance > least + width::HARDWARE_MAX || looked > RELATIVES_MAX {
                break;
            }
            for (index, published) in sources {
                for hardware in index.hardware(recipe).filter(|hardware| such(*hardware)) {
                    looked += 1;
                    let shelf = index.shelf(recipe, hardware);
                    let candidate = shelf.and_then(|shelf| {
                        self.nearest(shelf, recipe, hardware, published, NEIGHBOURS_OTHER)
                    });
                    if let Some(mut candidate) = candidate {
                        candidate.variance += variance;
                        least = least.min(candidate.variance);
                        candidates.push(candidate);
                    }
                }
            }
        }
        candidates
    }

    /// The cell of a shelf that is the least away, recipe and hardware apart.
    fn nearest(
        &self,
        shelf: &'a Shelf,
        recipe: Recipe,
        hardware: Hardware,
        published: bool,
        neighbours: usize,
    ) -> Option<Candidate<'a, S>> {
        let cells = S::cells(shelf);
        let place = self.shape.of(recipe);
        let before = cells.range(..place).rev().take(neighbours);
        let around = cells.range(place..).take(neighbours).chain(before);
        let away = around.map(|(shape, cell)| (shape, cell, self.shape.variance(shape)));
        let (shape, cell, away) = away.min_by(|a, b| a.2.total_cmp(&b.2))?;
        let source = if published {
            width::of_published()
        } else {
            0.0
        };
        Some(Candidate {
            shape: *shape,
            hardware,
            cell,
            published,
            variance: away + width::within(cell) + source,
        })
    }

    /// The candidate's time, carried over to this shape and a hardware.
    fn carried(
        &self,
        candidate: &Candidate<'a, S>,
        hardware: Hardware,
        basis: Basis,
    ) -> Option<Found> {
        let from = cost(&candidate.shape, candidate.hardware);
        let here = cost(&self.shape, candidate.hardware);
        let to = cost(&self.shape, hardware);
        let measured = candidate.cell.mean_ms()?;
        let ms = if candidate.shape == self.shape {
            measured
        } else {
            from.carry(measured, &here, SPLIT_SHAPE)
        };
        let ms = if candidate.hardware == hardware {
            ms
        } else {
            here.carry(ms, &to, SPLIT_HARDWARE)
        };
        Some(Found {
            ms,
            variance: candidate.variance + width::of_hardware(candidate.hardware, hardware),
            basis,
            rows: candidate.cell.rows(),
            observed: if candidate.published {
                0
            } else {
                candidate.cell.count()
            },
            notes: self.notes(candidate, hardware),
        })
    }

    fn notes(&self, candidate: &Candidate<'a, S>, hardware: Hardware) -> Vec<Note> {
        let mut notes = self.shape.notes(&candidate.shape);
        let from = candidate.shape.recipe();
        if from != self.shape.recipe() {
            notes.push(Note::RecipeBorrowed { from });
        }
        if candidate.hardware != hardware {
            let from = candidate.hardware;
            notes.push(Note::HardwareScaled { from });
        }
        if candidate.published {
            notes.push(Note::PublishedPrior);
        }
        notes
    }
}

impl Found {
    fn on_replay(mut self, hardware: Hardware) -> Self {
        if hardware.is_replay() {
            self.notes.retain(|note| *note != Note::RatedOnly);
            self.notes.push(Note::Replay);
        }
        self
    }
}

/// What a shape costs on a hardware, ratings or not.
pub(super) fn cost(shape: &impl Shape, hardware: Hardware) -> Cost {
    let work = shape.work();
    let rated = work.on(hardware);
    rated.unwrap_or_else(|| work.at(SPEED_UNRATED, hardware.count))
}

/// Every recipe of a family.
fn relatives_of(family: Family) -> &'static [Recipe] {
    static RECIPES: LazyLock<HashMap<Family, Vec<Recipe>>> = LazyLock::new(|| {
        let mut recipes: HashMap<Family, Vec<Recipe>> = HashMap::new();
        for recipe in Recipe::all() {
            recipes.entry(recipe.family()).or_default().push(recipe);
        }
        recipes
    });
    RECIPES.get(&family).map_or(&[], Vec::as_slice)
}
