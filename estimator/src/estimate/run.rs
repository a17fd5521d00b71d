//! One run on one hardware: steps and images from the ladder, summed by the run's plan.

use std::cell::RefCell;
use std::rc::Rc;

use stepcast_records::simpletuner::{Images, Missing, Plan, Workload};
use stepcast_records::{
    Accumulation, Basis, BatchSize, Estimate, Fit, HalfMegapixels, Hardware, InferenceSteps, Note,
    Phase, PhaseKind, Quantiles, TrainingShape, ValidationShape,
};

use super::around;
use super::ladder::{self, Found, Ladder, Rungs};
use super::memory::{Needs, Step};
use super::model::Own;
use super::shape::Shape;
use super::width;
use super::work::Split;

/// Notes of one estimate at most: a run of many data sets would repeat itself, and nobody reads more.
const NOTES_MAX: usize = 16;
/// Fewer contributions than this do not say how a key spreads.
const ROWS_FEW: u32 = 3;
/// When validation that was not measured is more than this share of the run, the estimate is not exact.
const BORROWED_SHARE_MAX: f64 = 0.2;
/// An image runs the network of a step forwards: one's host time is a share of the other's, whatever it is.
const SPLIT_DERIVED: Split = Split {
    compute_min: 0.3,
    host_max: 2.0,
};

/// A workload with the way up for each of its shapes, shared by all hardwares.
pub(super) struct Run<'a> {
    workload: &'a Workload,
    steps: Ways<'a, TrainingShape>,
    images: Ways<'a, ValidationShape>,
    by_count: RefCell<Vec<(u8, Rc<Planned>)>>,
}

/// What a run is on so many GPUs, whichever they are.
struct Planned {
    plan: Plan,
    /// Before the first step.
    before: Vec<Phase>,
    /// After it.
    saving: Vec<Phase>,
    /// All of these together.
    setup_ms: Quantiles,
    needs: Needs,
}

/// The ways up that were taken so far, so that twenty hardwares do not look at each relative twenty times.
struct Ways<'a, S> {
    ladder: Ladder<'a>,
    taken: RefCell<Vec<Way<'a, S>>>,
}

/// One of them.
struct Way<'a, S> {
    shape: S,
    rungs: Rungs<'a, S>,
    /// What was found last, since an image asks for the step of its hardware again.
    last: Option<(Hardware, Option<Found>)>,
}

/// Several times added up, point by point, and what the sum rests on.
struct Sum {
    p10: f64,
    p50: f64,
    p90: f64,
    /// The worst among the parts.
    basis: Basis,
    /// The least among the parts.
    rows: u32,
    /// The least among the parts.
    observed: u64,
    notes: Vec<Note>,
    /// The parts themselves.
    phases: Vec<Phase>,
}

impl<'a> Run<'a> {
    pub(super) fn new(ladder: Ladder<'a>, workload: &'a Workload) -> Self {
        Self {
            workload,
            steps: Ways::new(ladder),
            images: Ways::new(ladder),
            by_count: RefCell::default(),
        }
    }

    /// The estimate without a price.
    pub(super) fn on(&self, hardware: Hardware) -> Result<Estimate, Missing> {
        let planned = self.planned(hardware.count)?;
        let plan = &planned.plan;
        let mut estimate = Estimate::unknown(hardware);
        estimate.setup_ms = Some(planned.setup_ms);
        let parts = plan.training.len() + plan.validation.len();
        let mut phases = Vec::with_capacity(planned.before.len() + parts + planned.saving.len());
        phases.extend_from_slice(&planned.before);
        if let Some(training) = self.training(plan, hardware) {
            self.fill(&mut estimate, training, plan, &mut phases);
        } else {
            phases.extend(untimed_steps(plan));
            phases.extend(untimed_images(plan));
            if !plan.validation.is_empty() {
                estimate.notes.push(Note::ValidationUnknown);
            }
        }
        phases.extend_from_slice(&planned.saving);
        estimate.phases = phases;
        if plan.steps_assumed {
            estimate.notes.push(Note::StepsAssumed);
        }
        let gpu = hardware.gpu;
        let has_run = |step: &Step| self.steps.ladder.has_run(step, hardware);
        estimate.memory = planned.needs.on(gpu, has_run);
        match estimate.memory.map(|memory| memory.fit) {
            Some(Fit::WillNot) => estimate.notes.push(Note::MemoryExceeded { gpu }),
            Some(Fit::MayNot) => estimate.notes.push(Note::MemoryTight { gpu }),
            Some(Fit::Fits) | None => {}
        }
        Ok(estimate)
    }

    /// The run on so many GPUs.
    fn planned(&self, gpus: u8) -> Result<Rc<Planned>, Missing> {
        let mut by_count = self.by_count.borrow_mut();
        if let Some((_, planned)) = by_count.iter().find(|(count, _)| *count == gpus) {
            return Ok(Rc::clone(planned));
        }
        let plan = self.workload.plan(gpus)?;
        let mut before = around::set_up(self.workload, &plan, gpus);
        let times = before.iter().filter_map(|phase| phase.ms);
        let setup_ms = times.fold(Quantiles::default(), Quantiles::plus);
        let is_saving =
            |phase: &Phase| matches!(phase.kind, PhaseKind::Checkpoint | PhaseKind::Save);
        let first = before.iter().position(is_saving).unwrap_or(before.len());
        let planned = Rc::new(Planned {
            saving: before.split_off(first),
            before,
            setup_ms,
            needs: Needs::of(self.workload, &plan),
            plan,
        });
        by_count.push((gpus, Rc::clone(&planned)));
        Ok(planned)
    }

    fn fill(&self, estimate: &mut Estimate, training: Sum, plan: &Plan, phases: &mut Vec<Phase>) {
        let hardware = estimate.hardware;
        let trained = training.quantiles();
        let mut run = trained;
        let mut basis = training.basis;
        let mut notes = training.notes;
        phases.extend(training.phases);
        if !plan.validation.is_empty() {
            match self.validation(plan, hardware) {
                Some(validation) => {
                    let validated = validation.quantiles();
                    run = run.plus(validated);
                    let share = validation.p50 / (validation.p50 + training.p50).max(1.0);
                    if share > BORROWED_SHARE_MAX {
                        basis = basis.max(validation.basis);
                    }
                    estimate.validation_ms = Some(validated);
                    notes.extend(validation.notes);
                    phases.extend(validation.phases);
                }
                None => {
                    notes.push(Note::ValidationUnknown);
                    phases.extend(untimed_images(plan));
                }
            }
        }
        estimate.basis = basis;
        estimate.rows = training.rows;
        estimate.observed = training.observed;
        estimate.train_ms = Some(trained);
        estimate.step_ms = Some(per_step(trained, plan.steps_total));
        estimate.run_ms = Some(run);
        if training.rows > 0 && training.rows < ROWS_FEW && !notes.contains(&Note::PublishedPrior) {
            notes.insert(0, Note::FewRows);
        }
        for note in notes.into_iter().take(NOTES_MAX) {
            if !estimate.notes.contains(&note) {
                estimate.notes.push(note);
            }
        }
    }

    /// All training steps; `None` when nothing is known of one of the shapes.
    fn training(&self, plan: &Plan, hardware: Hardware) -> Option<Sum> {
        let mut sum = Sum::default();
        for &(shape, steps) in plan.training.iter().filter(|(_, steps)| *steps > 0) {
            let found = self.steps.find(shape, hardware)?;
            let ms = self.off_grid(found.ms, &shape, hardware);
            let found = Found { ms, ..found }.doubted(!self.workload.training_on_record());
            sum.add(
                PhaseKind::Train,
                shape.resolution,
                &found,
                one_by_one(steps),
            );
        }
        (sum.basis != Basis::None).then_some(sum)
    }

    /// All images of validation.
    fn validation(&self, plan: &Plan, hardware: Hardware) -> Option<Sum> {
        let mut sum = Sum::default();
        for &(shape, images) in &plan.validation {
            let found = self.image(plan, &shape, hardware)?;
            let ms = found.ms * self.stretch_of_image(&shape);
            let found = Found { ms, ..found }.doubted(!self.workload.on_record());
            sum.add(PhaseKind::Validate, shape.resolution, &found, images);
        }
        Some(sum)
    }

    /// The time of an image: as it was measured, or what a step of the first shape says about it. What was measured of
    /// another recipe or hardware has a word beside that and no more.
    fn image(&self, plan: &Plan, shape: &ValidationShape, hardware: Hardware) -> Option<Found> {
        let measured = self.images.find_measured(*shape, hardware);
        if measured
            .as_ref()
            .is_some_and(|found| found.basis < Basis::Rough)
        {
            return measured;
        }
        match (measured, self.derived(plan, shape, hardware)) {
            (Some(measured), Some(derived)) => Some(weighed(measured, derived)),
            (measured, derived) => measured.or(derived),
        }
    }

    /// The time of an image from that of a step: both run the same network. Of several kinds of step the one nearest in size
    /// says it, whichever data set comes first.
    fn derived(&self, plan: &Plan, image: &ValidationShape, hardware: Hardware) -> Option<Found> {
        let away = |shape: &TrainingShape| {
            let doublings = shape.resolution.megapixels() / image.resolution.megapixels();
            doublings.ln().abs()
        };
        let nearest = plan.training.iter().min_by(|(a, of_a), (b, of_b)| {
            let nearer = away(a).total_cmp(&away(b));
            nearer.then(of_b.cmp(of_a)).then(a.cmp(b))
        });
        let step = nearest?.0;
        let found = self.steps.find(step, hardware)?;
        let (from, to) = (ladder::cost(&step, hardware), ladder::cost(image, hardware));
        // What own hosts make of a step they are taken to make of an image.
        let own = self.steps.own(step, hardware).ln.exp();
        Some(Found {
            ms: from.carry(found.ms / own, &to, SPLIT_DERIVED) * own,
            variance: found.variance + width::DERIVED * width::DERIVED,
            basis: Basis::Rough,
            notes: vec![Note::ValidationDerived],
            ..found
        })
    }

    /// What a step of a shape takes with the batch and the accumulation that are asked for, where these lie off the grid.
    fn off_grid(&self, ms: f64, shape: &TrainingShape, hardware: Hardware) -> f64 {
        let alike = self.workload.batches_of(*shape);
        let (sum, count) = alike.fold((0.0, 0.0), |(sum, count), batch| {
            (sum + f64::from(batch), count + 1.0)
        });
        debug_assert_eq!(
            shape.accumulation,
            Accumulation::nearest(self.workload.accumulation)
        );
        let on_grid = f64::from(shape.batch_size.get());
        let batch = if count > 0.0 { sum / count } else { on_grid };
        let accumulation = f64::from(self.workload.accumulation.max(1));
        let repeats = accumulation / f64::from(shape.accumulation.get());
        repeats * self.with_batch(ms, batch.max(1.0), shape, hardware)
    }

    /// What a step of a shape takes with another batch: between the shape's and that of its neighbour on the grid, and by
    /// what a step is made of where the grid ends.
    fn with_batch(&self, ms: f64, batch: f64, shape: &TrainingShape, hardware: Hardware) -> f64 {
        let on_grid = f64::from(shape.batch_size.get());
        let beyond = if batch > on_grid {
            BatchSize::all().find(|other| *other > shape.batch_size)
        } else if batch < on_grid {
            BatchSize::all()
                .filter(|other| *other < shape.batch_size)
                .last()
        } else {
            return ms;
        };
        let neighbour = beyond.and_then(|batch_size| {
            let shape = TrainingShape {
                batch_size,
                ..*shape
            };
            Some((batch_size, self.steps.find(shape, hardware)?))
        });
        let Some((other, found)) = neighbour else {
            return ladder::with_samples(ms, batch / on_grid, shape, hardware);
        };
        let share = (batch - on_grid) / (f64::from(other.get()) - on_grid);
        let (here, there) = (ms.max(1e-3).ln(), found.ms.max(1e-3).ln());
        (here + (there - here) * share).exp()
    }

    /// How many more denoising steps an image takes than its shape on the grid says.
    fn stretch_of_image(&self, shape: &ValidationShape) -> f64 {
        let asked = self.workload.validation.as_ref().map(|v| v.inference_steps);
        let asked = asked.filter(|&steps| InferenceSteps::nearest(steps) == shape.inference_steps);
        let on_grid = f64::from(shape.inference_steps.get());
        asked.map_or(1.0, |asked| f64::from(asked.max(1)) / on_grid)
    }
}

impl<'a, S: Shape> Ways<'a, S> {
    fn new(ladder: Ladder<'a>) -> Self {
        let taken = RefCell::default();
        Self { ladder, taken }
    }

    fn find(&self, shape: S, hardware: Hardware) -> Option<Found> {
        self.with(shape, |way| match &way.last {
            Some((on, found)) if *on == hardware => found.clone(),
            _ => {
                let found = way.rungs.on(hardware);
                way.last = Some((hardware, found.clone()));
                found
            }
        })
    }

    fn own(&self, shape: S, hardware: Hardware) -> Own {
        self.with(shape, |way| way.rungs.own(hardware))
    }

    fn find_measured(&self, shape: S, hardware: Hardware) -> Option<Found> {
        self.with(shape, |way| way.rungs.measured_on(hardware))
    }

    fn with<T>(&self, shape: S, look: impl FnOnce(&mut Way<'a, S>) -> T) -> T {
        let mut taken = self.taken.borrow_mut();
        let place = taken.iter().position(|way| way.shape == shape);
        let place = place.unwrap_or_else(|| {
            taken.push(Way {
                shape,
                rungs: self.ladder.of(shape),
                last: None,
            });
            taken.len() - 1
        });
        look(&mut taken[place])
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            p10: 0.0,
            p50: 0.0,
            p90: 0.0,
            basis: Basis::None,
            rows: 0,
            observed: 0,
            notes: Vec::new(),
            phases: Vec::new(),
        }
    }
}

impl Sum {
    /// Adds so many of a step or image, as if all parts were long together: never too narrow.
    fn add(&mut self, kind: PhaseKind, resolution: HalfMegapixels, found: &Found, count: Images) {
        let (low, high) = width::factors(found.variance);
        let middle = found.ms * count.in_turn as f64;
        self.p10 += middle * low;
        self.p50 += middle;
        self.p90 += middle * high;
        self.phases.push(Phase {
            kind,
            resolution: Some(resolution),
            count: count.all,
            ms: Some(rounded(middle * low, middle, middle * high)),
            basis: found.basis,
            rows: found.rows,
            observed: found.observed,
        });
        if self.basis == Basis::None {
            (self.basis, self.rows, self.observed) = (found.basis, found.rows, found.observed);
        } else {
            self.basis = self.basis.max(found.basis);
            self.rows = self.rows.min(found.rows);
            self.observed = self.observed.min(found.observed);
        }
        let new = found.notes.iter().filter(|note| !self.notes.contains(note));
        let new: Vec<Note> = new
            .copied()
            .take(NOTES_MAX - self.notes.len().min(NOTES_MAX))
            .collect();
        self.notes.extend(new);
    }

    fn quantiles(&self) -> Quantiles {
        rounded(self.p10, self.p50, self.p90)
    }
}

/// Steps, which all GPUs make together.
fn one_by_one(all: u64) -> Images {
    Images { all, in_turn: all }
}

fn rounded(p10: f64, p50: f64, p90: f64) -> Quantiles {
    // A float too large for the integer becomes the largest one.
    Quantiles {
        p10: p10.round() as u64,
        p50: p50.round() as u64,
        p90: p90.round() as u64,
    }
}

/// Two words on the time of an image, each by what it is worth. The fewer rows what was measured elsewhere rests on, the less
/// it is worth where a step says otherwise: a single one that is absurd changes nothing.
fn weighed(measured: Found, derived: Found) -> Found {
    let disagreement = (measured.ms.max(1e-3) / derived.ms.max(1e-3)).ln();
    let rows = f64::from(measured.rows.max(1));
    let far = measured.variance + disagreement * disagreement / rows;
    let share = far / (far + derived.variance.max(1e-6));
    let ms = (measured.ms.max(1e-3).ln() - disagreement * share).exp();
    let (better, variance) = if share < 0.5 {
        (measured, far)
    } else {
        let variance = derived.variance;
        (derived, variance)
    };
    Found {
        ms,
        variance,
        ..better
    }
}

impl Found {
    /// Less certain where the run has numbers off the grid, or settings that have no place in a key.
    fn doubted(mut self, is_off_record: bool) -> Self {
        if is_off_record {
            self.basis = self.basis.max(Basis::Near);
            self.variance += width::OFF_RECORD * width::OFF_RECORD;
        }
        self
    }
}

/// The steps of a run of which no time is known.
fn untimed_steps(plan: &Plan) -> impl Iterator<Item = Phase> {
    let steps = plan.training.iter().filter(|(_, steps)| *steps > 0);
    steps.map(|(shape, steps)| untimed(PhaseKind::Train, shape.resolution, *steps))
}

/// The images of a run of which no time is known.
fn untimed_images(plan: &Plan) -> impl Iterator<Item = Phase> {
    let images = plan.validation.iter();
    images.map(|(shape, images)| untimed(PhaseKind::Validate, shape.resolution, images.all))
}

fn untimed(kind: PhaseKind, resolution: HalfMegapixels, count: u64) -> Phase {
    Phase {
        kind,
        resolution: Some(resolution),
        count,
        ms: None,
        basis: Basis::None,
        rows: 0,
        observed: 0,
    }
}

/// The mean of the run's steps.
fn per_step(all: Quantiles, steps: u64) -> Quantiles {
    let steps = steps.max(1);
    let mean = |sum: u64| sum.saturating_add(steps / 2) / steps;
    Quantiles {
        p10: mean(all.p10),
        p50: mean(all.p50),
        p90: mean(all.p90),
    }
}
