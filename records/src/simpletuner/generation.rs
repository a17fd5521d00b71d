//! What validation generates and when, counted as SimpleTuner counts it.

use super::dataset;
use super::family::{self, InferenceSteps};
use super::files::File;
use super::findings::Findings;
use super::json::Value;
use super::loader::Inputs;
use super::model::{Starts, validates_from};
use super::note::Note;
use super::pixels;
use super::problem::shown;
use super::settings::{Given, Settings};
use super::source;
use super::workload::{Validation, Workload};
use crate::recipe::{FrameClass, Modality, Recipe};
use crate::resolution::HalfMegapixels;

/// Prompts of SimpleTuner's own libraries.
const LIBRARY_PROMPTS: u64 = 53;
const AUDIO_LIBRARY_PROMPTS: u64 = 12;
const LIBRARIES: [(&str, u64); 7] = [
    ("audio", AUDIO_LIBRARY_PROMPTS),
    ("audio-music", AUDIO_LIBRARY_PROMPTS),
    ("audio_music", AUDIO_LIBRARY_PROMPTS),
    ("default", LIBRARY_PROMPTS),
    ("image", LIBRARY_PROMPTS),
    ("images", LIBRARY_PROMPTS),
    ("music", AUDIO_LIBRARY_PROMPTS),
];

/// The validation of a configuration.
pub(super) struct Passes {
    pub(super) validation: Validation,
    /// Prompts of one pass, whatever is made of each.
    pub(super) prompts: u32,
}

/// The validation of a configuration; `None` when nothing is generated, or with a problem found.
pub(super) fn validation(
    settings: &Settings<'_>,
    recipe: Option<Recipe>,
    inputs: Inputs,
    longest: FrameClass,
    library: Option<&File<'_>>,
    found: &mut Findings,
) -> Option<Passes> {
    let library = library.and_then(|file| own_prompts(file, found));
    let off = settings.flag("validation_disable", false, found)
        || (family_name(recipe) == "ideogram"
            && !settings.flag("ideogram_validation", false, found))
        || recipe.is_some_and(|recipe| family::never_validates(recipe, settings));
    if off {
        return None;
    }
    let prompts = prompts(settings, recipe, inputs, library.unwrap_or(0), found)?;
    if prompts == 0 {
        return None;
    }
    let images = settings
        .whole("num_validation_images", 1..=1_000, found)
        .unwrap_or(1);
    let generations = prompts
        .saturating_mul(images)
        .saturating_mul(variants(settings, found));
    let Some(generations) = u32::try_from(generations)
        .ok()
        .filter(|n| *n <= Workload::MAX_GENERATIONS)
    else {
        let what = format!("each pass would generate {generations} pictures");
        settings.problem(
            "num_validation_images",
            what,
            "use fewer prompts or pictures",
            found,
        );
        return None;
    };
    let external = settings.choice("validation_method") == Some("external-script");
    if external {
        found.note(Note::ExternalValidation);
    }
    let schedule = schedule(settings, found);
    let (every_steps, every_epochs) = if external {
        (None, None)
    } else {
        (schedule.every_steps, schedule.every_epochs)
    };
    let validation = Validation {
        every_steps,
        every_epochs,
        at_start: !external && settings.flag("validation_on_startup", false, found),
        baseline: !settings.flag("disable_benchmark", false, found),
        generations,
        resolutions: resolutions(settings, recipe, found)?,
        frames: frames(settings, recipe, longest, found),
        inference_steps: inference_steps(settings, recipe, found)?,
        ..schedule
    };
    let runs = validation.baseline
        || validation.at_start
        || every_steps.is_some()
        || every_epochs.is_some();
    runs.then(|| Passes {
        validation,
        // No more than there are images, which have been looked at.
        prompts: u32::try_from(prompts).unwrap_or(u32::MAX),
    })
}

/// The family's name, or none.
fn family_name(recipe: Option<Recipe>) -> &'static str {
    recipe.map_or("", |recipe| recipe.family().name())
}

/// A validation with its schedule only.
fn schedule(settings: &Settings<'_>, found: &mut Findings) -> Validation {
    let steps = 0..=Workload::MAX_STEPS;
    let epochs = 0..=u64::from(Workload::MAX_EPOCHS);
    let every_steps = settings.whole_or(
        "validation_step_interval",
        (100, "100"),
        steps.clone(),
        found,
    );
    let every_epochs = settings.whole("validation_epoch_interval", epochs.clone(), found);
    Validation {
        every_steps: every_steps.filter(|every| *every > 0),
        every_epochs: every_epochs
            .filter(|every| *every > 0)
            .map(|every| every as u32),
        after_step: settings
            .whole("validate_after_step", steps, found)
            .unwrap_or(0),
        after_epoch: settings
            .whole("validate_after_epoch", epochs, found)
            .unwrap_or(0) as u32,
        at_start: false,
        baseline: false,
        generations: 1,
        resolutions: vec![HalfMegapixels::MIN],
        frames: FrameClass::Single,
        inference_steps: 1,
    }
}

/// Prompts of one pass: pictures to start from where the model or the configuration wants them, else texts.
fn prompts(
    settings: &Settings<'_>,
    recipe: Option<Recipe>,
    inputs: Inputs,
    own: u64,
    found: &mut Findings,
) -> Option<u64> {
    let unconditional = u64::from(empty_prompt(settings, recipe, found));
    let samples = samples(settings, recipe, inputs, found)?;
    if samples > 0 {
        // Instead of all texts, the empty one among them.
        return Some(samples);
    }
    let library = library(settings, found);
    // The prompt itself may be any text, even one that looks like a reference to the environment.
    let prompt = u64::from(settings.has("validation_prompt"));
    if settings.given("validation_prompt") == Some(&Given::Text("".into())) {
        found.note(Note::EmptyPrompt);
    }
    Some(unconditional + library + own + prompt)
}

/// Whether the empty prompt is one of them.
fn empty_prompt(settings: &Settings<'_>, recipe: Option<Recipe>, found: &mut Findings) -> bool {
    const SETTING: &str = "validation_disable_unconditional";
    let wanted = !settings.flag(SETTING, false, found);
    if !recipe.is_some_and(family::skips_empty_prompt) {
        return wanted;
    }
    if wanted && settings.given(SETTING).is_some() {
        found.note(Note::NoEmptyPrompt);
    }
    false
}

/// Prompts of the library of SimpleTuner's own that is asked for.
fn library(settings: &Settings<'_>, found: &mut Findings) -> u64 {
    const SETTING: &str = "validation_prompt_library";
    let Some(Given::Text(name)) = settings.given(SETTING) else {
        let is_on = settings.flag(SETTING, false, found);
        return if is_on { LIBRARY_PROMPTS } else { 0 };
    };
    match name.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "on" => LIBRARY_PROMPTS,
        "0" | "no" | "n" | "off" | "none" | "null" => 0,
        name => {
            let known = LIBRARIES.iter().find(|(known, _)| *known == name);
            if known.is_none() {
                let what = format!("SimpleTuner has no prompt library {}", shown(name));
                let names = LIBRARIES.map(|(known, _)| known).join(", ");
                let hint = format!("write true, false, or one of {names}");
                settings.problem(SETTING, what, hint, found);
            }
            known.map_or(0, |(_, prompts)| *prompts)
        }
    }
}

/// Pictures that validation starts from.
fn samples(
    settings: &Settings<'_>,
    recipe: Option<Recipe>,
    inputs: Inputs,
    found: &mut Findings,
) -> Option<u64> {
    if let Some(count) = given_inputs(settings) {
        return Some(count);
    }
    let from_datasets = settings.flag("validation_using_datasets", false, found);
    let starts = match settings.flag("krea2_reference_latents", false, found) {
        true => Some(Starts::References),
        false => recipe.and_then(validates_from),
    };
    let control = recipe.is_some_and(|recipe| recipe.method().is_controlnet())
        || settings.flag("control", false, found);
    let sets = match starts {
        Some(Starts::Pictures) if from_datasets => inputs.plain,
        Some(Starts::References | Starts::Pictures) => inputs.with_references,
        Some(Starts::Conditioning) => inputs.conditioning,
        None if control => inputs.conditioning,
        None if from_datasets => inputs.plain,
        None => 0,
    };
    if sets == 0 {
        return Some(0);
    }
    let each = settings.whole_or("num_eval_images", (4, "4"), 1..=100_000, found)?;
    let count = each.saturating_mul(u64::from(sets));
    found.note(Note::ValidationSamples(
        u32::try_from(count).unwrap_or(u32::MAX),
    ));
    Some(count)
}

/// The inputs that `validation_input` lists.
fn given_inputs(settings: &Settings<'_>) -> Option<u64> {
    let count = match settings.given("validation_input")? {
        Given::Structure(Value::Array(list)) => list.len(),
        Given::Structure(_) => 1,
        Given::Text(text) => match serde_json::from_str(text) {
            Ok(Value::Array(list)) => list.len(),
            _ => 1,
        },
        Given::True | Given::False => 0,
    };
    (count > 0).then_some(count as u64)
}

/// How often each prompt is generated: with the weights, their moving average, and with other adapters.
fn variants(settings: &Settings<'_>, found: &mut Findings) -> u64 {
    let averaged = settings.flag("use_ema", false, found);
    let ema = match settings.choice("ema_validation") {
        Some("none" | "ema_only") => 1,
        _ => 1 + u64::from(averaged),
    };
    let mode = settings
        .choice("validation_adapter_mode")
        .unwrap_or("adapter_only");
    let configured = match settings.given("validation_adapter_config") {
        Some(Given::Structure(structure)) => adapter_runs(structure),
        Some(Given::Text(text)) => {
            serde_json::from_str(text).map_or(1, |structure| adapter_runs(&structure))
        }
        _ => u64::from(settings.has("validation_adapter_path")),
    };
    let adapters = if mode == "none" { 0 } else { configured };
    let plain = u64::from(mode == "comparison" || adapters == 0);
    ema * (adapters + plain)
}

fn adapter_runs(config: &Value<'_>) -> u64 {
    match config.get("runs").unwrap_or(config) {
        Value::Array(runs) => runs.len() as u64,
        Value::Object(_) => 1,
        _ => 0,
    }
}

fn resolutions(
    settings: &Settings<'_>,
    recipe: Option<Recipe>,
    found: &mut Findings,
) -> Option<Vec<HalfMegapixels>> {
    if recipe.is_some_and(|recipe| {
        recipe.modality() == Modality::Audio || recipe.flavour().starts_with("ii-")
    }) {
        return Some(vec![HalfMegapixels::MIN]);
    }
    let text = match settings.given("validation_resolution") {
        Some(_) => settings.text("validation_resolution", found)?,
        None => {
            found.assumed("validation_resolution", "256");
            "256"
        }
    };
    let hint =
        "write an edge such as 1024, WIDTHxHEIGHT such as 1280x720, or several of them with commas";
    match pixels::of_validation(text) {
        Ok(buckets) if buckets.len() <= Workload::MAX_RESOLUTIONS => Some(buckets),
        Ok(_) => {
            let what = format!(
                "more than {} resolutions are listed",
                Workload::MAX_RESOLUTIONS
            );
            settings.problem("validation_resolution", what, hint, found);
            None
        }
        Err(part) => {
            settings.problem(
                "validation_resolution",
                format!("{} is no resolution", shown(&part)),
                hint,
                found,
            );
            None
        }
    }
}

fn frames(
    settings: &Settings<'_>,
    recipe: Option<Recipe>,
    longest: FrameClass,
    found: &mut Findings,
) -> FrameClass {
    if !recipe.is_some_and(Recipe::is_video) {
        return FrameClass::Single;
    }
    let (default, most) = match family_name(recipe) {
        "wan" | "wan_s2v" | "sanavideo" => (81, 81),
        "ltxvideo" | "ltxvideo2" => (125, 125),
        "hunyuanvideo" => (25, u64::MAX),
        _ => (u64::from(longest.max_frames()), u64::MAX),
    };
    let given = settings.whole(
        "validation_num_video_frames",
        1..=u64::from(u32::MAX),
        found,
    );
    let frames = given.unwrap_or_else(|| {
        found.note(Note::ValidationFramesAssumed(default as u32));
        default
    });
    dataset::class(frames.min(most), "validation_num_video_frames", found)
}

fn inference_steps(
    settings: &Settings<'_>,
    recipe: Option<Recipe>,
    found: &mut Findings,
) -> Option<u32> {
    const SETTING: &str = "validation_num_inference_steps";
    const DEFAULT: u64 = 30;
    let range = 1..=u64::from(Workload::MAX_INFERENCE_STEPS);
    let of_model = recipe.and_then(family::inference_steps);
    let said = match of_model {
        Some(InferenceSteps::Always(_)) if !settings.has(SETTING) => DEFAULT,
        _ => settings.whole_or(SETTING, (DEFAULT, "30"), range, found)?,
    };
    let said = u32::try_from(said).ok()?;
    let steps = match of_model {
        Some(InferenceSteps::Always(steps)) => steps,
        Some(InferenceSteps::AtLeast(fewest)) => said.max(fewest),
        None => said,
    };
    if steps != said {
        found.note(Note::InferenceStepsOfModel(steps));
    }
    Some(steps)
}

/// How many prompts the person's own library has.
fn own_prompts(file: &File<'_>, found: &mut Findings) -> Option<u64> {
    let Value::Object(prompts) = source::json(file, found)? else {
        let hint = "write {\"short name\": \"prompt\", ...}";
        found.problem(
            file.name,
            "$",
            "the prompt library is not a JSON object",
            hint,
        );
        return None;
    };
    let mut count = 0;
    for (number, (name, entry)) in prompts.into_iter().enumerate() {
        // Before anything of it is looked at.
        if name.trim().is_empty() {
            continue;
        }
        if !is_prompt(&entry) {
            let number = number + 1;
            let what =
                format!("SimpleTuner leaves the whole library out because of entry {number}");
            let hint = "write a text, or an object with a prompt, caption or tags; its adapter_strength is a number, its lyrics a text";
            found.problem(file.name, "$", what, hint);
            return None;
        }
        count += 1;
    }
    Some(count)
}

/// Whether SimpleTuner takes an entry of a library: `PromptLibraryEntry.from_payload` of 4.10.1, as far as what is in boxes.
fn is_prompt(entry: &Value<'_>) -> bool {
    let Value::Object(keys) = entry else {
        return entry.as_str().is_some();
    };
    let given = |name: &str| keys.get(name).filter(|value| !matches!(value, Value::Null));
    let text = ["prompt", "caption", "tags"]
        .iter()
        .find_map(|name| keys.get(name));
    let strength = given("adapter_strength").is_none_or(|strength| match strength {
        Value::Number(_) | Value::Bool(_) => true,
        other => other
            .as_str()
            .is_some_and(|text| text.trim().parse::<f64>().is_ok()),
    });
    text.is_some_and(|text| !matches!(text, Value::Null))
        && strength
        && given("lyrics").is_none_or(|lyrics| lyrics.as_str().is_some())
}
