//! The ladder: the time of one step or image from the nearest cell there is, and how far that is away.
//!
//! Rungs, best first: records of exactly the key; cells of the same recipe on the same hardware; cells of the
//! same family on any hardware; the ratings alone. Within a rung the candidate with the least variance wins, and
//! a published figure carries more of it than a record. Every candidate is carried over by the ratio of
//! [`Work`](super::work::Work), and leaves a note for each thing that differs. Of keys that nobody measured the
//! [`model`](super::model) has a word too: the cell says what the time rests on, both together what it is. Records of
//! exactly the key count alone as soon as they are of enough steps, and are drawn to the model until then.
//!
//! Published figures are of other people's hosts, records and questions of this installation's own. How much longer a
//! time is on these the model says for every key ([`Own`]): a published figure is put on one's own hosts, and a record of
//! another recipe or hardware is carried as it would have been on the others. A record of the same recipe on the same
//! hardware is carried as the model's own answers change from its key to the one that is asked for, since these know
//! which part of it waits for the host. Leaving each published figure out, that is 2 % off in the middle for another
//! batch (12 % as a root mean square) and 8 % for another quantisation, where [`Work`](super::work::Work) alone is 4 %
//! (27 %) and 22 % off; for other recipes and hardware neither is better.

use std::cell::{Cell, OnceCell, RefCell};

use stepcast_records::{Basis, Hardware, Note, TrainingShape};

use super::features::About;
use super::memory::Step;
use super::model::{Model, Own, Predicted, Sums};
use super::relatives::{self, Candidate, Relatives};
use super::shape::Shape;
use super::width;
use super::work::{Cost, Split};
use crate::index::Index;

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
    /// The logarithm by which a record that it was carried from says otherwise than the model, at the record's own key.
    pub(super) news: f64,
    pub(super) notes: Vec<Note>,
}

/// One shape's way up, for any number of hardwares.
pub(super) struct Rungs<'a, S> {
    ladder: Ladder<'a>,
    shape: S,
    relatives: RefCell<Relatives<'a, S>>,
    /// What the model thinks of the shape on any hardware, once it is asked.
    thought: OnceCell<Option<(About, Sums)>>,
    /// What it said last of the shape, and of the last record that was carried, which many hardwares have in common.
    said: Cell<Option<(Hardware, Option<Predicted>)>>,
    said_of: Cell<Option<(S, Hardware, Option<Predicted>)>>,
}

impl<'a> Ladder<'a> {
    /// The way up for one shape.
    pub(super) fn of<S: Shape>(self, shape: S) -> Rungs<'a, S> {
        Rungs {
            ladder: self,
            shape,
            relatives: RefCell::new(Relatives::of(self.sources())),
            thought: OnceCell::new(),
            said: Cell::new(None),
            said_of: Cell::new(None),
        }
    }

    /// Whether a step that asks for as much memory was recorded on the hardware.
    pub(super) fn has_run(self, step: &Step, hardware: Hardware) -> bool {
        let shelf = self.records.shelf(step.shape.recipe, hardware);
        let cells = shelf.map(TrainingShape::cells);
        // Its shape alone would not say: a batch off the grid stands in it as its nearest neighbour, which may be smaller.
        let as_much = |shape: &TrainingShape| Step::from(*shape).asks_as_much_as(step);
        cells.is_some_and(|cells| cells.keys().any(as_much))
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
        if lack <= 0.0 {
            return found;
        }
        let Some(answer) = self.model_says(hardware) else {
            return found;
        };
        let disagreement = (found.ms.max(1e-3) / answer.ms[1].max(1e-3)).ln();
        let near = found.variance * lack;
        // A model that is off by several deviations knows less than it thinks: a Student-t prior.
        let variance = answer.variance + answer.own.variance();
        let off = disagreement * disagreement / (near + variance);
        let far = variance * (MODEL_FREEDOM + off) / (MODEL_FREEDOM + 1.0);
        let share = near / (near + far);
        found.ms = (found.ms.max(1e-3).ln() - disagreement * share).exp();
        found.variance += near * far / (near + far);
        found
    }

    /// The nearest cell's word and the model's, each by what it is worth.
    fn with_model(&self, mut found: Found, hardware: Hardware) -> Found {
        let Some(answer) = self.model_says(hardware) else {
            return found;
        };
        let disagreement = (found.ms.max(1e-3) / answer.ms[1].max(1e-3)).ln();
        // The model knows the published figures. Of a record it may not know yet, so where that says otherwise the model
        // is that much less certain. And a record tells of one's own hosts by itself, while from a published figure to
        // them there is no way but the model's.
        let own = answer.own.variance();
        let (news, host) = if found.observed > 0 {
            (found.news * found.news + own, 0.0)
        } else {
            (0.0, own)
        };
        let (near, far) = (found.variance.max(1e-6), answer.variance.max(1e-6) + news);
        let share = near / (near + far);
        let ln_ms = found.ms.max(1e-3).ln() - disagreement * share;
        let both = SHARED_EVIDENCE * 2.0 * share * (1.0 - share) * (near * far).sqrt();
        found.ms = ln_ms.exp();
        found.variance = (1.0 - share).powi(2) * near + share.powi(2) * far + both + host;
        found
    }

    /// The model's answer; `None` for what it does not learn.
    fn model_says(&self, hardware: Hardware) -> Option<Predicted> {
        let model = self.ladder.model.filter(|_| hardware.gpu.is_gpu())?;
        if let Some((on, answer)) = self.said.get()
            && on == hardware
        {
            return answer;
        }
        let thought = self.thought.get_or_init(|| {
            let about = self.shape.about()?;
            let begun = about.begin(model);
            Some((about, begun))
        });
        let thought = thought.as_ref();
        let answer = thought.map(|(about, begun)| about.predict(model, *begun, hardware));
        self.said.set(Some((hardware, answer)));
        answer
    }

    /// What own hosts make of this shape on a hardware; nothing where nobody knows.
    pub(super) fn own(&self, hardware: Hardware) -> Own {
        let answer = self.model_says(hardware);
        answer.map_or_else(Own::default, |answer| answer.own)
    }

    /// What the model says of another shape, of which there is a record.
    fn model_says_of(&self, shape: S, hardware: Hardware) -> Option<Predicted> {
        if shape == self.shape {
            return self.model_says(hardware);
        }
        if let Some((of, on, answer)) = self.said_of.get()
            && (of, on) == (shape, hardware)
        {
            return answer;
        }
        let answer = self.ladder.of(shape).model_says(hardware);
        self.said_of.set(Some((shape, hardware, answer)));
        answer
    }

    /// The time on a hardware from the best rung on which something was measured.
    pub(super) fn measured_on(&self, hardware: Hardware) -> Option<Found> {
        let found = self
            .exact(hardware)
            .or_else(|| self.near(hardware))
            .or_else(|| self.far(hardware))?;
        Some(found.on_replay(hardware))
    }

    /// Records of exactly this key.
    pub(super) fn exact(&self, hardware: Hardware) -> Option<Found> {
        let shelf = self.ladder.records.shelf(self.shape.recipe(), hardware)?;
        let cell = S::cells(shelf).get(&self.shape)?;
        Some(Found {
            ms: width::typical_ms(cell)?,
            variance: width::within(cell),
            basis: Basis::Exact,
            rows: cell.rows(),
            observed: cell.count(),
            news: 0.0,
            notes: Vec::new(),
        })
    }

    /// The same recipe on the same hardware, or a published figure of exactly this key.
    pub(super) fn near(&self, hardware: Hardware) -> Option<Found> {
        let recipe = self.shape.recipe();
        let shelves = self.ladder.sources().into_iter();
        let candidates = shelves.filter_map(|(index, published)| {
            let shelf = index.shelf(recipe, hardware)?;
            let from = (recipe, hardware, published);
            relatives::nearest(&self.shape, shelf, from, relatives::NEIGHBOURS_OWN)
        });
        let best = candidates.min_by(|a, b| a.variance.total_cmp(&b.variance))?;
        self.carried(&best, hardware, Basis::Near)
    }

    /// Any recipe of the family on any comparable hardware.
    pub(super) fn far(&self, hardware: Hardware) -> Option<Found> {
        let best = self.relatives.borrow_mut().best(&self.shape, hardware)?;
        self.carried(&best, hardware, Basis::Rough)
    }

    /// What the ratings of the hardware and the kind of model say.
    pub(super) fn rated(&self, hardware: Hardware) -> Option<Found> {
        let ms = if hardware.is_replay() {
            REPLAY_MS
        } else {
            self.shape.work().on(hardware)?.total_ms()
        };
        let ms = ms * self.own(hardware).ln.exp();
        Some(Found {
            ms,
            variance: width::RATED * width::RATED,
            basis: Basis::Rough,
            rows: 0,
            observed: 0,
            news: 0.0,
            notes: vec![Note::RatedOnly],
        })
    }

    /// The candidate's time, carried over to this shape and a hardware.
    fn carried(
        &self,
        candidate: &Candidate<'a, S>,
        hardware: Hardware,
        basis: Basis,
    ) -> Option<Found> {
        let measured = width::typical_ms(candidate.cell)?;
        let mut variance = candidate.variance + width::of_hardware(candidate.hardware, hardware);
        let here = self.model_says(hardware);
        let there = if candidate.published {
            None
        } else {
            self.model_says_of(candidate.shape, candidate.hardware)
        };
        let own = here.map_or_else(Own::default, |here| here.own);
        let mut news = 0.0;
        let ms = if let Some((here, there)) = here.zip(there) {
            news = (measured.max(1e-3) / there.ms[1].max(1e-3)).ln();
            variance += own.beside(&there.own, candidate.hardware.gpu == hardware.gpu);
            if basis == Basis::Near {
                measured * here.ms[1] / there.ms[1]
            } else {
                let elsewhere = measured / there.own.ln.exp();
                let scaled = self.scaled(candidate, elsewhere, hardware) * own.ln.exp();
                // What the arithmetic does not explain need not be the host, which no GPU makes quicker: of another GPU what
                // is carried says no more against the model than the record does at its own key.
                match candidate.hardware.gpu == hardware.gpu {
                    true => scaled,
                    false => scaled.clamp(
                        here.ms[1] * news.min(0.0).exp(),
                        here.ms[1] * news.max(0.0).exp(),
                    ),
                }
            }
        } else {
            self.scaled(candidate, measured, hardware) * own.ln.exp()
        };
        Some(Found {
            ms,
            variance,
            basis,
            rows: candidate.cell.rows(),
            observed: if candidate.published {
                0
            } else {
                candidate.cell.count()
            },
            news,
            notes: self.notes(candidate, hardware),
        })
    }

    /// A candidate's time for this shape and a hardware, by the work of each.
    fn scaled(&self, candidate: &Candidate<'a, S>, ms: f64, hardware: Hardware) -> f64 {
        let from = cost(&candidate.shape, candidate.hardware);
        let here = cost(&self.shape, candidate.hardware);
        let to = cost(&self.shape, hardware);
        let ms = if candidate.shape == self.shape {
            ms
        } else {
            from.carry(ms, &here, SPLIT_SHAPE)
        };
        if candidate.hardware == hardware {
            ms
        } else {
            here.carry(ms, &to, SPLIT_HARDWARE)
        }
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

/// What a time for a shape becomes with so many times as many samples in each micro-batch: the GPU's part grows with them,
/// and the host's does not.
pub(super) fn with_samples(ms: f64, times: f64, shape: &impl Shape, hardware: Hardware) -> f64 {
    let from = cost(shape, hardware);
    from.carry(ms, &from.with_compute(times), SPLIT_SHAPE)
}
