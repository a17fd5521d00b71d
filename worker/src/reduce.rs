//! From an attempt's webhooks to the samples it may contribute: clean steps and prompt times for at most one key each.
//!
//! The trainer says neither which resolution bucket a step used nor which size a prompt was rendered at. So where a job
//! has several, no time can be given to a key, and none is.

use stepcast_records::simpletuner::Validation;
use stepcast_records::{
    Hardware, Key, Sample, StepReducer, TrainingKey, TrainingShape, ValidationKey,
    ValidationReducer, ValidationShape,
};

use crate::event::{Event, Received, Stage, StageStatus};

/// Times kept of one validation: a row admits to no more than 64 prompts.
const MAX_GAPS: usize = 1_024;

/// Why an attempt contributes no training or no validation sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSample {
    /// The worker's GPUs are no hardware of the registry.
    #[error("these GPUs are no hardware profile of the registry")]
    UnknownHardware,
    /// The job runs on several hosts, which no key of the records tells apart from one.
    #[error("the job runs on several hosts, and the records have no place for that")]
    SeveralHosts,
    /// The job has settings that the records have no place for.
    #[error(
        "the job has settings that change a step's time and that the records have no place for"
    )]
    OffRecord,
    /// The job's validation has settings that the records have no place for.
    #[error("the job's validation has settings that the records have no place for")]
    ValidationOffRecord,
    /// The settings have no key: a value is off the grid of what may be stored.
    #[error("the job's settings have no place among the values that may be stored")]
    NoKey,
    /// The job trains at several resolutions or batch sizes.
    #[error(
        "the job has several resolutions or batch sizes, and the trainer does not say which one a step used"
    )]
    SeveralTrainingShapes,
    /// The job validates at several resolutions.
    #[error(
        "the job validates at several resolutions, and the trainer does not say which one a prompt used"
    )]
    SeveralValidationShapes,
    /// Several GPUs render prompts side by side, so the events tell no single prompt's time.
    #[error(
        "several GPUs render validation prompts side by side, so no single prompt's time can be told"
    )]
    ParallelValidation,
}

/// The keys an attempt measures, or why there is none.
#[derive(Debug, Clone, Copy)]
pub struct Measures {
    training: Result<TrainingKey, NoSample>,
    validation: Result<ValidationKey, NoSample>,
    pass: Pass,
}

/// What one whole validation is expected to render. Of pictures that it starts from there may be fewer than that.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass {
    /// Its images.
    pub images: u32,
    /// The prompts or pictures that they are made of; 0 where that is not known.
    pub prompts: u32,
}

/// Collects one attempt's times. Pure: it only looks at events.
#[derive(Debug)]
pub struct Reducer {
    measures: Measures,
    steps: StepReducer,
    epoch: Option<u64>,
    prompts: ValidationReducer,
    /// True from the base model's benchmark to its end: those pictures are not the recipe's.
    benchmark: bool,
    /// Inside a validation: when its last prompt was done.
    prompt_done_ms: Option<i64>,
    /// Inside a validation: prompts that were done.
    prompts_done: u32,
    /// Inside a validation: times between two prompts.
    gaps_ms: Vec<u32>,
}

impl Measures {
    /// Works out what the job's shapes measure on this hardware, with this in one validation.
    pub fn new(
        training: &[TrainingShape],
        validation: &[ValidationShape],
        pass: Pass,
        hardware: Option<Hardware>,
    ) -> Self {
        Self {
            training: match (hardware, training) {
                (None, _) => Err(NoSample::UnknownHardware),
                (_, []) => Err(NoSample::NoKey),
                (Some(hardware), [shape]) => Ok(shape.on(hardware)),
                (Some(_), _) => Err(NoSample::SeveralTrainingShapes),
            },
            validation: match (hardware, validation) {
                (None, _) => Err(NoSample::UnknownHardware),
                (_, []) => Err(NoSample::NoKey),
                (Some(hardware), [_]) if hardware.count > 1 => Err(NoSample::ParallelValidation),
                (Some(hardware), [shape]) => Ok(shape.on(hardware)),
                (Some(_), _) => Err(NoSample::SeveralValidationShapes),
            },
            pass,
        }
    }

    /// Only the steps are measured.
    pub fn of_steps_alone(self) -> Self {
        Self {
            validation: Err(NoSample::ValidationOffRecord),
            ..self
        }
    }

    /// Nothing is measured, for this reason.
    pub fn nothing(why: NoSample) -> Self {
        Self {
            training: Err(why),
            validation: Err(why),
            pass: Pass::default(),
        }
    }

    /// What the training steps are kept for.
    pub fn training(&self) -> Result<TrainingKey, NoSample> {
        self.training
    }

    /// What the validation prompts are kept for.
    pub fn validation(&self) -> Result<ValidationKey, NoSample> {
        self.validation
    }
}

impl Pass {
    /// All images of one validation: an event tells of a prompt's at every resolution.
    pub fn images_of(validation: &Validation) -> u32 {
        let resolutions = u32::try_from(validation.resolutions.len()).unwrap_or(u32::MAX);
        validation.generations.saturating_mul(resolutions)
    }

    /// The images that each event of a pass with so many of them stands for; `None` where that cannot be told. An event
    /// may stand for several, and each prompt may have several events: one for every adapter that it is shown with.
    fn images_of_an_event(self, events: u32) -> Option<u32> {
        if self.prompts > 0 {
            // However many there are.
            if self.images == self.prompts {
                return Some(1);
            }
            // Fewer pictures than expected also make fewer images.
            if !events.is_multiple_of(self.prompts) {
                return None;
            }
        }
        let images = self.images.checked_div(events)?;
        (images * events == self.images).then_some(images)
    }
}

impl Reducer {
    /// Has seen nothing yet.
    pub fn new(measures: Measures) -> Self {
        Self {
            measures,
            steps: StepReducer::new(),
            epoch: None,
            prompts: ValidationReducer::new(),
            benchmark: false,
            prompt_done_ms: None,
            prompts_done: 0,
            gaps_ms: Vec::new(),
        }
    }

    /// Takes the next event, in the order in which the trainer sent them.
    pub fn observe(&mut self, received: &Received) {
        match &received.event {
            Event::Ready { .. } => self.steps.restart(),
            Event::Step {
                step,
                step_ms: Some(step_ms),
                epoch,
                ..
            } => {
                // The first step of an epoch waits for the data loader to start over.
                if epoch.is_some() && self.epoch.is_some() && *epoch != self.epoch {
                    self.steps.boundary();
                }
                self.epoch = epoch.or(self.epoch);
                self.steps.step(*step, *step_ms);
            }
            Event::Stage { stage, status } => {
                self.steps.boundary();
                self.stage(*stage, *status);
            }
            Event::ValidationPrompt => {
                self.steps.boundary();
                self.prompt(received.sent_ms);
            }
            Event::Checkpoint { .. } | Event::Broken(_) | Event::Error { .. } => {
                self.steps.boundary()
            }
            Event::Step { step_ms: None, .. } | Event::Log | Event::Other => {}
        }
    }

    /// What may be contributed.
    pub fn finish(self) -> Vec<Sample> {
        let training = self
            .measures
            .training
            .ok()
            .map(Key::from)
            .zip(self.steps.finish());
        let validation = self
            .measures
            .validation
            .ok()
            .map(Key::from)
            .zip(self.prompts.finish());
        training
            .into_iter()
            .chain(validation)
            .map(|(key, histogram)| Sample { key, histogram })
            .collect()
    }

    fn stage(&mut self, stage: Stage, status: StageStatus) {
        let running = status == StageStatus::Running;
        match stage {
            Stage::Benchmark => self.benchmark = running,
            Stage::Validation if running => self.forget_validation(),
            Stage::Validation => {
                if status == StageStatus::Completed && !self.benchmark {
                    self.keep_validation();
                }
                self.forget_validation();
            }
            _ => {}
        }
    }

    fn keep_validation(&mut self) {
        let Some(images) = self.measures.pass.images_of_an_event(self.prompts_done) else {
            return;
        };
        for gap_ms in self.gaps_ms.drain(..) {
            self.prompts.prompt(f64::from(gap_ms), images);
        }
    }

    fn forget_validation(&mut self) {
        self.prompt_done_ms = None;
        self.prompts_done = 0;
        self.gaps_ms.clear();
    }

    /// Times a prompt from the one before it. The first of each validation also loads the pipeline, so it only starts
    /// the clock.
    fn prompt(&mut self, sent_ms: Option<i64>) {
        self.prompts_done = self.prompts_done.saturating_add(1);
        let before = std::mem::replace(&mut self.prompt_done_ms, sent_ms);
        if let (Some(before), Some(sent)) = (before, sent_ms)
            && self.gaps_ms.len() < MAX_GAPS
            && let Ok(gap_ms) = u32::try_from(sent - before)
        {
            self.gaps_ms.push(gap_ms);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use stepcast_records::{
        Accumulation, BatchSize, FrameClass, GpuModel, HalfMegapixels, InferenceSteps, Precision,
        Quantization, Recipe,
    };

    use super::*;

    fn shape(half_megapixels: u8) -> TrainingShape {
        TrainingShape {
            recipe: Recipe::parse("flux.dev/lora").unwrap(),
            resolution: HalfMegapixels::new(half_megapixels).unwrap(),
            batch_size: BatchSize::new(4).unwrap(),
            accumulation: Accumulation::new(1).unwrap(),
            precision: Precision::Bf16,
            quantization: Quantization::None,
        }
    }

    fn validation() -> ValidationShape {
        let shape = shape(2);
        ValidationShape {
            recipe: shape.recipe,
            resolution: shape.resolution,
            inference_steps: InferenceSteps::new(20).unwrap(),
            precision: shape.precision,
            quantization: shape.quantization,
        }
    }

    fn replay(count: u8) -> Option<Hardware> {
        Hardware::new(GpuModel::REPLAY, count)
    }

    fn at(event: Event, sent_ms: i64) -> Received {
        Received {
            event,
            sent_ms: Some(sent_ms),
        }
    }

    fn step(step: u64, step_ms: f64, epoch: u64) -> Received {
        at(
            Event::Step {
                step,
                total: 100,
                step_ms: Some(step_ms),
                epoch: Some(epoch),
            },
            0,
        )
    }

    fn stage(stage: Stage, status: StageStatus, sent_ms: i64) -> Received {
        at(Event::Stage { stage, status }, sent_ms)
    }

    #[test]
    fn a_step_after_a_validation_or_in_a_new_epoch_is_left_out() {
        let mut reducer = Reducer::new(Measures::new(&[shape(2)], &[], pass(1, 1), replay(1)));
        for number in 1..=60 {
            if number == 40 {
                reducer.observe(&stage(Stage::Validation, StageStatus::Running, 0));
                reducer.observe(&stage(Stage::Validation, StageStatus::Completed, 0));
            }
            let slow = number == 40 || number == 50 || number <= 10;
            reducer.observe(&step(
                number,
                if slow { 9_000.0 } else { 100.0 },
                number / 50,
            ));
            reducer.observe(&step(number, 9_000.0, number / 50));
        }
        let samples = reducer.finish();
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].key, Key::from(shape(2).on(replay(1).unwrap())));
        assert_eq!(samples[0].histogram.count(), 48);
        assert!(samples[0].histogram.quantile(1.0) < 110.0);
    }

    fn pass(images: u32, prompts: u32) -> Pass {
        Pass { images, prompts }
    }

    #[test]
    fn a_prompt_has_images_at_every_resolution() {
        let resolution = HalfMegapixels::new(2).unwrap();
        let validation = Validation {
            every_steps: Some(50),
            every_epochs: None,
            after_step: 0,
            after_epoch: 0,
            at_start: false,
            baseline: false,
            generations: 3,
            resolutions: vec![resolution, resolution],
            frames: FrameClass::Single,
            inference_steps: 20,
        };
        let images = Pass::images_of(&validation);
        assert_eq!(pass(images, 3).images_of_an_event(3), Some(2));
    }

    #[test]
    fn an_event_stands_for_its_prompts_images_however_many_pictures_there_were() {
        let of = |images, prompts, events| pass(images, prompts).images_of_an_event(events);
        assert_eq!(of(8, 4, 4), Some(2));
        // Each prompt with two adapters.
        assert_eq!(of(16, 4, 8), Some(2));
        // Two of four pictures were there: what is divided by them is not theirs.
        assert_eq!(of(8, 4, 2), None);
        assert_eq!(of(4, 4, 2), Some(1));
        assert_eq!(of(4, 4, 3), Some(1));
        // Of a job from before prompts were told.
        assert_eq!(of(8, 0, 2), Some(4));
        assert_eq!(of(8, 0, 3), None);
        for prompts in [0, 4] {
            assert_eq!(of(8, prompts, 0), None);
        }
    }

    #[test]
    fn prompts_are_timed_from_the_one_before_and_the_base_model_is_left_out() {
        let mut reducer = Reducer::new(Measures::new(&[], &[validation()], pass(6, 3), replay(1)));
        reducer.observe(&stage(Stage::Benchmark, StageStatus::Running, 0));
        for start in [0, 1_000_000, 2_000_000, 3_000_000] {
            reducer.observe(&stage(Stage::Validation, StageStatus::Running, start));
            for sent in [60_000, 64_000, 68_000] {
                let sent = if start == 0 { sent * 10 } else { sent };
                reducer.observe(&at(Event::ValidationPrompt, start + sent));
            }
            reducer.observe(&stage(
                Stage::Validation,
                StageStatus::Completed,
                start + 70_000,
            ));
            reducer.observe(&stage(
                Stage::Benchmark,
                StageStatus::Completed,
                start + 70_000,
            ));
        }
        let samples = reducer.finish();
        assert_eq!(samples.len(), 1);
        // Two gaps in each of three validations, less the one that warms up.
        assert_eq!(samples[0].histogram.count(), 5);
        assert!((samples[0].histogram.mean_ms() - 2_000.0).abs() < 40.0);
    }

    #[test]
    fn what_cannot_be_told_apart_gives_no_sample_and_says_why() {
        let measures = Measures::new(
            &[shape(2), shape(3)],
            &[validation(), validation()],
            pass(1, 1),
            replay(1),
        );
        assert_eq!(measures.training(), Err(NoSample::SeveralTrainingShapes));
        assert_eq!(
            measures.validation(),
            Err(NoSample::SeveralValidationShapes)
        );
        let measures = Measures::new(&[shape(2)], &[validation()], pass(1, 1), replay(2));
        assert!(measures.training().is_ok());
        assert_eq!(measures.validation(), Err(NoSample::ParallelValidation));
        assert_eq!(
            Measures::new(&[shape(2)], &[], pass(1, 1), None).training(),
            Err(NoSample::UnknownHardware)
        );
        let mut reducer = Reducer::new(Measures::nothing(NoSample::NoKey));
        for number in 1..=100 {
            reducer.observe(&step(number, 100.0, 1));
        }
        assert_eq!(reducer.finish(), []);
    }
}
