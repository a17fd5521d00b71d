//! The reader's door: a configuration's files in, a workload with every assumption, or every problem, out.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::adapter;
use super::effects;
use super::family;
use super::files::{File, Files, References};
use super::findings::Findings;
use super::generation::{self, Passes};
use super::loader::{self, Loader};
use super::model::{self, Model};
use super::note::Note;
use super::off_record::OffRecord;
use super::plan;
use super::preparation::Preparation;
use super::problem::{Problems, shown};
use super::refusals;
use super::settings::Settings;
use super::sharing::{Sampling, Sharing};
use super::source;
use super::title;
use super::workload::{Length, Workload};
use crate::key::{Accumulation, BatchSize, InferenceSteps};
use crate::recipe::{FrameClass, Modality};

/// What a person says beside the files.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Samples by the id of their data set, for data sets whose size decides something.
    pub samples: BTreeMap<String, u64>,
    /// Samples of every data set whose size nothing else says.
    pub other_samples: Option<u64>,
}

/// A configuration that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What the run asks for; it passes [`Workload::check`].
    pub workload: Workload,
    /// Every assumption that was made.
    pub notes: Vec<Note>,
    /// The run in one line, for screens: words of closed lists and numbers only.
    pub title: String,
    /// The ids of the workload's data sets in their order, to ask for their sizes by. They are the person's words
    /// and go nowhere but to that person's screen.
    pub dataset_ids: Vec<String>,
}

/// Where a LyCORIS adapter's settings are looked for when the configuration does not say.
const DEFAULT_LYCORIS: &str = "config/lycoris_config.json";

/// Which other files a configuration names.
///
/// # Errors
/// When the configuration itself cannot be read. What is wrong with its settings, [`read`] finds together with what
/// is wrong in the files they name.
pub fn references(config: &File<'_>) -> Result<References, Problems> {
    let mut found = Findings::default();
    match source::settings(config, &mut found) {
        Some(settings) => Ok(named(&settings, &mut found)),
        None => Err(found.into_problems()),
    }
}

/// Reads a configuration: only what the workload has words for, and nothing else of it, goes further.
///
/// # Errors
/// Everything that is wrong, missing or not supported, each with its place.
pub fn read(files: &Files<'_>, options: &Options) -> Result<Reading, Problems> {
    let mut found = Findings::default();
    let reading = reading(files, options, &mut found);
    match reading {
        Some(reading) => found.into_notes().map(|notes| Reading { notes, ..reading }),
        None => {
            if !found.has_problems() {
                let what = "the configuration says too little to be understood";
                let hint = "compare it with an example of SimpleTuner's";
                found.problem(files.config.name, "$", what, hint);
            }
            Err(found.into_problems())
        }
    }
}

fn reading(files: &Files<'_>, options: &Options, found: &mut Findings) -> Option<Reading> {
    let settings = source::settings(&files.config, found)?;
    settings.check_choices(found);
    model::required(&settings, "optimizer", found);
    let model = model::model(&settings, found);
    effects::check(&settings, found);
    refusals::check(&settings, found);
    if let Some(model) = &model {
        family::check(model.recipe, &settings, found);
    }
    let length = length(&settings, found);
    let checkpoint_every = checkpoint_every(&settings, found);
    let accumulation = whole32(&settings, "gradient_accumulation_steps", found);
    let context_parallel = whole32(&settings, "context_parallel_size", found);
    let references = named(&settings, found);
    let lycoris = wanted(
        &settings,
        "lycoris_config",
        references.lycoris,
        files.lycoris,
        found,
    );
    let algorithm = lycoris.and_then(|file| adapter::algorithm(&file, found));
    let library = wanted(
        &settings,
        "user_prompt_library",
        references.prompt_library,
        files.prompt_library,
        found,
    );
    let recipe = model.map(|model| model.recipe);
    let loader = match wanted(
        &settings,
        "data_backend_config",
        references.data_backend,
        files.data_backend,
        found,
    ) {
        Some(file) => loader::loader(&file, &settings, recipe, options, found),
        None => {
            model::required(&settings, "data_backend_config", found);
            None
        }
    };
    other_notes(&settings, found);
    start(&settings, length, found);
    // Validation is read whatever else is missing, so that all problems come out at once.
    let frames = loader
        .iter()
        .flat_map(|loader| &loader.datasets)
        .map(|dataset| dataset.frames);
    let longest = frames.max().unwrap_or(FrameClass::Single);
    let inputs = loader
        .as_ref()
        .map(|loader| loader.inputs)
        .unwrap_or_default();
    let validation =
        generation::validation(&settings, recipe, inputs, longest, library.as_ref(), found);
    let (model, loader) = (model?, loader?);
    let recipe = model
        .recipe
        .at_frames(longest.max_frames())
        .unwrap_or(model.recipe);
    let mut workload = Workload {
        recipe,
        precision: model.precision,
        quantization: model.quantization,
        accumulation: accumulation?,
        context_parallel: context_parallel?,
        datasets: loader.datasets.clone(),
        length: length?,
        checkpoint_every,
        sharing: sharing(&settings, &loader, context_parallel?, validation.as_ref()),
        validation: validation.map(|passes| passes.validation),
        off_record: Vec::new(),
        preparation: Preparation::read(&settings, loader.encoded_at_once(), found),
    };
    off_grid(&workload, found);
    sizes(&workload, &loader, found);
    workload.off_record = found.reasons();
    if !workload.training_on_record() {
        found.note(Note::NotRecorded);
    } else if !workload.measured_steps_on_record() {
        found.note(Note::NothingRecorded);
    } else if !workload.on_record() {
        found.note(Note::ValidationNotRecorded);
    }
    Some(finished(
        workload, &model, loader, algorithm, &settings, found,
    ))
}

/// Optimizer steps between two checkpoints, those that replace one another included; `None` without any. Where the two kinds
/// do not fall together it is the interval at which a run has as many.
fn checkpoint_every(settings: &Settings<'_>, found: &mut Findings) -> Option<u64> {
    let steps = 0..=Workload::MAX_STEPS;
    let kept = settings.whole("checkpoint_step_interval", steps.clone(), found);
    let kept = kept.or(Some(500)).filter(|every| *every > 0);
    let rolling = settings.whole("checkpointing_rolling_steps", steps, found);
    let rolling = rolling.filter(|every| *every > 0);
    let epochs = 0..=u64::from(Workload::MAX_EPOCHS);
    let by_epochs = settings.whole("checkpoint_epoch_interval", epochs, found);
    if by_epochs.is_some_and(|every| every > 0) {
        found.note(Note::CheckpointsByEpochs);
    }
    let (Some(kept), Some(rolling)) = (kept, rolling) else {
        return kept.or(rolling);
    };
    let period = plan::common_multiple(kept, rolling);
    Some(period / (period / kept + period / rolling - 1))
}

fn finished(
    workload: Workload,
    model: &Model,
    loader: Loader,
    algorithm: Option<&str>,
    settings: &Settings<'_>,
    found: &mut Findings,
) -> Reading {
    // With a problem the workload is not handed out, and parts of it may be missing.
    if let (false, Err(bounds)) = (found.has_problems(), workload.check()) {
        let hint = "correct the setting that leads to it";
        found.problem(settings.file(), "$", bounds.to_string(), hint);
    }
    let title = title::title(&workload, model, &loader, algorithm);
    Reading {
        workload,
        notes: Vec::new(),
        title,
        dataset_ids: loader.ids,
    }
}

fn named(settings: &Settings<'_>, found: &mut Findings) -> References {
    let lycoris = model::is_lycoris(settings).then(|| {
        let named = settings.text("lycoris_config", found);
        named.unwrap_or(DEFAULT_LYCORIS).to_owned()
    });
    References {
        data_backend: settings
            .text("data_backend_config", found)
            .map(str::to_owned),
        lycoris,
        prompt_library: settings
            .text("user_prompt_library", found)
            .map(str::to_owned),
    }
}

/// The file that a configuration names; a problem when it is named and not there.
fn wanted<'a>(
    settings: &Settings<'_>,
    setting: &str,
    named: Option<String>,
    file: Option<File<'a>>,
    found: &mut Findings,
) -> Option<File<'a>> {
    if let (Some(named), None) = (&named, &file) {
        let what = format!("the file {} was not found", shown(named));
        settings.problem(setting, what, "correct the path, or give the file", found);
    }
    named.and(file)
}

fn length(settings: &Settings<'_>, found: &mut Findings) -> Option<Length> {
    let steps = settings.whole("max_train_steps", 0..=Workload::MAX_STEPS, found);
    let given_epochs = settings.given("num_train_epochs").is_some();
    let epochs = settings.whole(
        "num_train_epochs",
        0..=u64::from(Workload::MAX_EPOCHS),
        found,
    );
    let epochs = if given_epochs { epochs? } else { 1 };
    if settings.given("max_train_steps").is_some()
        && steps.is_none()
        && settings.has("max_train_steps")
    {
        return None;
    }
    match (steps.unwrap_or(0), epochs) {
        (0, 0) => {
            let what = "both max_train_steps and num_train_epochs are 0 or missing";
            settings.problem("max_train_steps", what, "set one of them", found);
            None
        }
        (0, epochs) => {
            if !given_epochs {
                found.assumed("num_train_epochs", "1");
            }
            Some(Length::Epochs(epochs as u32))
        }
        (steps, 0) => Some(Length::Steps(steps)),
        (_, epochs) => {
            let what = match given_epochs {
                true => format!("max_train_steps is set, and num_train_epochs is {epochs}"),
                false => {
                    "max_train_steps is set, and num_train_epochs is 1 unless it is set".to_owned()
                }
            };
            settings.problem(
                "num_train_epochs",
                what,
                "set num_train_epochs to 0 to train by steps",
                found,
            );
            None
        }
    }
}

/// A whole number of at least 1 that is 1 unless it is given; `None` with a problem found.
fn whole32(settings: &Settings<'_>, name: &str, found: &mut Findings) -> Option<u32> {
    if !settings.has(name) {
        return Some(1);
    }
    let number = settings.whole(name, 1..=u64::from(Workload::MAX_BATCH), found)?;
    u32::try_from(number).ok()
}

fn other_notes(settings: &Settings<'_>, found: &mut Findings) {
    for setting in ["num_processes", "num_machines"] {
        if settings
            .whole(setting, 0..=u64::from(u32::MAX), found)
            .is_some_and(|number| number > 1)
        {
            found.note(Note::ProcessesFromHardware);
        }
    }
}

/// Whether a checkpoint to go on from is where every host can find it: SimpleTuner takes addresses, and keys within the bucket
/// that results are published to. Else it looks for the last part of the name among its own results.
#[must_use]
pub fn is_in_bucket(checkpoint: &str, is_published: bool) -> bool {
    let is_key = checkpoint.contains('/') && !checkpoint.starts_with('/');
    checkpoint.contains("://") || (is_published && is_key)
}

/// Where a run goes on from, which is what SimpleTuner takes together (`_initial_lora_step` of 4.10.1).
fn start(settings: &Settings<'_>, length: Option<Length>, found: &mut Findings) {
    const SETTING: &str = "init_lora_step";
    let resumes = settings.text("resume_from_checkpoint", found);
    let resumes = resumes.filter(|from| *from != "latest");
    if let Some(from) = resumes {
        found.note(
            match is_in_bucket(from, settings.has("publishing_config")) {
                true => Note::Resumes,
                false => Note::ResumesElsewhere,
            },
        );
    }
    let step = settings.whole(SETTING, 0..=Workload::MAX_STEPS, found);
    if step == Some(0) {
        return;
    }
    let from_lora = settings.has("init_lora");
    if from_lora {
        found.note(Note::GoesOnFromLora);
    }
    let Some(step) = step else {
        return;
    };
    let (what, hint) = match length {
        _ if !from_lora => (
            "there is no init_lora that is of this step",
            "name it, or remove the step",
        ),
        _ if resumes.is_some() => (
            "a run goes on from a checkpoint or from a LoRA, not from both",
            "remove one of them",
        ),
        Some(Length::Steps(steps)) if steps <= step => (
            "the run would be over at its start",
            "raise max_train_steps above it, or write 0 to count anew",
        ),
        _ => return,
    };
    settings.problem(SETTING, what, hint, found);
}

/// Takes a run off the record whose numbers are not on the records' grids.
fn off_grid(workload: &Workload, found: &mut Findings) {
    if workload
        .datasets
        .iter()
        .any(|dataset| BatchSize::new(dataset.batch_size).is_none())
    {
        found.off_record("train_batch_size", OffRecord::BatchSize);
    }
    if Accumulation::new(workload.accumulation).is_none() {
        found.off_record("gradient_accumulation_steps", OffRecord::Accumulation);
    }
    let steps = workload
        .validation
        .as_ref()
        .map(|validation| validation.inference_steps);
    if steps.is_some_and(|steps| InferenceSteps::new(steps).is_none()) {
        found.off_record("validation_num_inference_steps", OffRecord::InferenceSteps);
    }
}

/// How the steps and images are shared out.
fn sharing(
    settings: &Settings<'_>,
    loader: &Loader,
    context_parallel: u32,
    passes: Option<&Passes>,
) -> Sharing {
    let is_uniform = settings.choice("data_backend_sampling") == Some("uniform");
    // Groups of GPUs that share an image take their turns whatever is set.
    let deals_out =
        context_parallel > 1 || settings.choice("validation_multigpu") != Some("single-gpu");
    Sharing {
        validation_prompts: passes
            .filter(|_| deals_out)
            .map_or(0, |passes| passes.prompts),
        sampling: match is_uniform && loader.datasets.len() > 1 {
            true => Sampling::Uniform,
            false => Sampling::ByBatches,
        },
        datasets: Sharing::shares(loader.shares.iter().copied()),
        held_out: loader.held_out.as_ref().and_then(|held_out| held_out.1),
    }
}

/// Says what rests on sizes that nobody gave or that the records do not know.
fn sizes(workload: &Workload, loader: &Loader, found: &mut Findings) {
    let by_epochs = matches!(workload.length, Length::Epochs(_));
    let shapes = |index: usize| {
        let dataset = &workload.datasets[index];
        (dataset.resolution, dataset.frames, dataset.batch_size)
    };
    let several = (1..workload.datasets.len()).any(|index| shapes(index) != shapes(0));
    if by_epochs {
        found.note(Note::BucketsUnknown);
    } else if several {
        let mut samples = workload.datasets.iter().map(|dataset| dataset.samples);
        if samples.any(|samples| samples.is_none()) {
            found.note(Note::SharedEvenly);
        }
    }
    if workload.recipe.modality() == Modality::Audio {
        found.note(Note::SoundLength);
    }
    if by_epochs || several {
        for &dataset in &loader.sizes_from_maximum {
            found.note(Note::SamplesFromMaximum { dataset });
        }
    }
}
