//! The data loader's file: which of its entries are trained on, and in what shape.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::entry::Entry;
use super::family;
use super::files::File;
use super::findings::Findings;
use super::json::Value;
use super::note::Note;
use super::off_record::OffRecord;
use super::problem::shown;
use super::reader::Options;
use super::settings::Settings;
use super::sharing::HeldOut;
use super::source;
use super::vocabulary;
use super::workload::{Dataset, Workload};
use crate::recipe::{Modality, Recipe};

/// What the data loader's file says.
#[derive(Debug, Default)]
pub(super) struct Loader {
    pub(super) datasets: Vec<Dataset>,
    /// The data sets' ids, in the same order.
    pub(super) ids: Vec<String>,
    /// The data sets' resolutions as a screen says them, in the same order.
    pub(super) resolutions_said: Vec<String>,
    /// Data sets whose size was taken from `max_num_samples`, by position from 1.
    pub(super) sizes_from_maximum: Vec<usize>,
    /// What the data sets' chances of being drawn from are multiplied by, and whether each GPU goes through all of one, in the
    /// same order.
    pub(super) shares: Vec<(f64, bool)>,
    /// The one that `eval_dataset_id` names, if it would be trained on, with its size if that is known.
    pub(super) held_out: Option<(String, Option<HeldOut>)>,
    /// Entries that validation may take its inputs from.
    pub(super) inputs: Inputs,
    /// The ids of all entries that hold samples, whether these are trained on or not.
    known: BTreeSet<String>,
    /// The most samples of a data set that are encoded at once, and how many it would be by default; 0 before the first.
    encoded: (u32, u32),
}

/// Entries that validation may take its inputs from, by kind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Inputs {
    /// Pictures or clips that are trained on.
    pub(super) plain: u32,
    /// Those of them with reference pictures.
    pub(super) with_references: u32,
    /// Control or reference pictures.
    pub(super) conditioning: u32,
}

/// What all entries share.
pub(super) struct Context<'a> {
    pub(super) file: &'a str,
    pub(super) settings: &'a Settings<'a>,
    pub(super) recipe: Option<Recipe>,
    pub(super) samples: &'a BTreeMap<String, u64>,
    /// Samples of every data set whose size nothing else says.
    pub(super) other_samples: Option<u64>,
    validated: Option<&'a str>,
}

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Video,
    Audio,
    Caption,
    Conditioning,
    /// Caches, and pictures for evaluation alone.
    Other,
}

/// Reads the data loader's file.
pub(super) fn loader(
    file: &File<'_>,
    settings: &Settings<'_>,
    recipe: Option<Recipe>,
    options: &Options,
    found: &mut Findings,
) -> Option<Loader> {
    let Value::Array(entries) = source::json(file, found)? else {
        found.problem(
            file.name,
            "$",
            "the data loader's file is not a JSON array",
            "write [{\"id\": ...}, ...]",
        );
        return None;
    };
    let validated = settings.text("eval_dataset_id", found);
    let context = Context {
        file: file.name,
        settings,
        recipe,
        samples: &options.samples,
        other_samples: options.other_samples,
        validated,
    };
    let mut loader = Loader::default();
    let captions_only = !entries.iter().any(|entry| is_picture(entry, recipe));
    for (number, entry) in entries.iter().enumerate() {
        if found.is_full() {
            break;
        }
        context.entry(number, entry, captions_only, &mut loader, found);
    }
    if loader.datasets.is_empty() && !found.has_problems() {
        let what = "no data set is trained on";
        let hint = "add one of dataset_type image, video or audio that is not disabled, has a probability above 0 and is not the one that eval_dataset_id names";
        found.problem(file.name, "$", what, hint);
    }
    check_samples(&context, &loader, found);
    Some(loader)
}

/// Finds sizes of data sets that are not there, and sizes that are none.
fn check_samples(context: &Context<'_>, loader: &Loader, found: &mut Findings) {
    for (id, samples) in context.samples {
        let held_out = loader.held_out.as_ref().map(|held_out| &held_out.0);
        if !loader.ids.contains(id) && held_out != Some(id) {
            let what = format!("{} is no data set that is trained on", shown(id));
            let known: Vec<_> = loader.ids.iter().take(8).map(|id| shown(id)).collect();
            let hint = format!("give the size of one of {}", known.join(", "));
            found.problem(context.file, "$", what, hint);
        } else if !Workload::SAMPLES.contains(samples) {
            impossible(context, id, *samples, found);
        }
    }
    let others = context.other_samples;
    let Some(others) = others.filter(|samples| !Workload::SAMPLES.contains(samples)) else {
        return;
    };
    for (id, _) in loader
        .ids
        .iter()
        .zip(&loader.datasets)
        .filter(|(_, dataset)| dataset.samples.is_none())
    {
        impossible(context, id, others, found);
    }
}

fn impossible(context: &Context<'_>, id: &str, samples: u64, found: &mut Findings) {
    let what = format!("{} cannot have {samples} samples", shown(id));
    let hint = format!("give a number from 1 to {}", Workload::MAX_SAMPLES);
    found.problem(context.file, "$", what, hint);
}

/// Whether an entry is trained on in its own right, so that captions beside it are not.
fn is_picture(entry: &Value<'_>, recipe: Option<Recipe>) -> bool {
    let audio_model = recipe.is_some_and(|recipe| recipe.modality() == Modality::Audio);
    if !matches!(entry.get("conditioning_type"), None | Some(Value::Null)) {
        return false;
    }
    match entry.get("dataset_type").and_then(Value::as_str) {
        None | Some("image" | "video") => true,
        Some("audio") => audio_model,
        Some(_) => false,
    }
}

impl Loader {
    /// Samples that are encoded at once, where that is not the default.
    pub(super) fn encoded_at_once(&self) -> Option<u32> {
        let (given, default) = self.encoded;
        (given != default).then_some(given)
    }
}

impl Context<'_> {
    fn entry(
        &self,
        number: usize,
        entry: &Value<'_>,
        captions_only: bool,
        loader: &mut Loader,
        found: &mut Findings,
    ) {
        let path = format!("$[{number}]");
        let Value::Object(keys) = entry else {
            found.problem(
                self.file,
                path,
                "this entry is not an object",
                "write {\"id\": ..., ...}",
            );
            return;
        };
        let entry = Entry {
            file: self.file,
            path: &path,
            keys,
        };
        entry.check_keys(number, found);
        if entry.flag("disabled", found) || entry.flag("disable", found) {
            return;
        }
        let Some(id) = entry.text("id", found) else {
            entry.problem(
                "id",
                "the entry has no id",
                "give it a name of its own",
                found,
            );
            return;
        };
        let Some(kind) = kind(&entry, found) else {
            return;
        };
        if kind != Kind::Other && !loader.known.insert(id.clone().into_owned()) {
            let what = format!("another data set has the id {}, too", shown(&id));
            entry.problem("id", what, "give each one a name of its own", found);
            return;
        }
        self.count_inputs(&entry, &id, kind, &mut loader.inputs, found);
        if !self.is_trained(kind, captions_only) {
            return;
        }
        let probability = probability(&entry, found);
        if probability <= 0.0 {
            return;
        }
        // No step is made of it, although SimpleTuner counts it in the steps that it announces.
        if self.validated == Some(&*id) {
            let held_out = self.held_out(&entry, &id, found);
            loader.held_out = Some((id.into_owned(), held_out));
            return;
        }
        if loader.datasets.len() == Workload::MAX_DATASETS {
            let what = format!(
                "more than {} data sets are trained on",
                Workload::MAX_DATASETS
            );
            found.problem(self.file, path, what, "merge some of them");
            return;
        }
        if let Some((given, default)) = self.encoded_at_once(&entry, kind, found) {
            loader.encoded = (loader.encoded.0.max(given), loader.encoded.1.max(default));
        }
        if let Some((dataset, said)) = self.dataset(&entry, &id, kind, loader, found) {
            loader.datasets.push(dataset);
            // Looked for as a part of the text, which a list of names may be.
            let is_undivided = self.validated.is_some_and(|text| !text.contains(&*id));
            loader.ids.push(id.into_owned());
            loader.shares.push((probability, is_undivided));
            loader.resolutions_said.push(said);
            if kind == Kind::Audio && self.recipe.is_some_and(family::trains_sounds) {
                let dataset = loader.datasets.len();
                found.note(Note::SoundsAlone { dataset });
                found.off_record("dataset_type", OffRecord::Objective);
            }
        }
    }

    /// Whether steps are made of an entry that has any probability and is not held out.
    fn is_trained(&self, kind: Kind, captions_only: bool) -> bool {
        let takes_sounds = self.recipe.is_none_or(|recipe| {
            recipe.modality() == Modality::Audio || family::trains_sounds(recipe)
        });
        match kind {
            Kind::Image | Kind::Video => true,
            Kind::Audio => takes_sounds || captions_only,
            Kind::Caption => captions_only,
            Kind::Conditioning | Kind::Other => false,
        }
    }

    fn count_inputs(
        &self,
        entry: &Entry<'_>,
        id: &str,
        kind: Kind,
        inputs: &mut Inputs,
        found: &mut Findings,
    ) {
        let generated = match entry.get("conditioning") {
            Some(Value::Array(list)) => u32::try_from(list.len()).unwrap_or(u32::MAX),
            Some(_) => 1,
            None => 0,
        };
        inputs.conditioning = inputs.conditioning.saturating_add(generated);
        let chosen = self
            .validated
            .is_none_or(|list| list.split(',').any(|one| one.trim() == id));
        if !chosen || entry.flag("disable_validation", found) {
            return;
        }
        match kind {
            Kind::Conditioning => inputs.conditioning = inputs.conditioning.saturating_add(1),
            Kind::Image | Kind::Video => {
                inputs.plain += 1;
                let references = generated > 0 || entry.get("conditioning_data").is_some();
                inputs.with_references += u32::from(references);
            }
            Kind::Audio | Kind::Caption | Kind::Other => {}
        }
    }
}

fn kind(entry: &Entry<'_>, found: &mut Findings) -> Option<Kind> {
    const KINDS: [(&str, Kind); 11] = [
        ("image", Kind::Image),
        ("video", Kind::Video),
        ("audio", Kind::Audio),
        ("caption", Kind::Caption),
        ("conditioning", Kind::Conditioning),
        ("eval", Kind::Other),
        ("grounding", Kind::Other),
        ("text_embeds", Kind::Other),
        ("image_embeds", Kind::Other),
        ("conditioning_image_embeds", Kind::Other),
        ("distillation_cache", Kind::Other),
    ];
    let named = entry.text("dataset_type", found);
    let named = named.unwrap_or(Cow::Borrowed("image"));
    let kind = KINDS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(&named));
    if kind.is_none() {
        let what = format!("{} is no dataset_type", shown(&named));
        let names = KINDS.iter().map(|(name, _)| *name);
        let hint = match vocabulary::nearest(&named, names.clone()) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => format!("write one of {}", names.collect::<Vec<_>>().join(", ")),
        };
        entry.problem("dataset_type", what, hint, found);
    }
    let kind = kind.map(|(_, kind)| *kind);
    // Whatever else it says, for SimpleTuner that makes it one.
    let conditions = entry.get("conditioning_type").is_some();
    kind.map(|kind| match kind {
        Kind::Image | Kind::Video | Kind::Audio if conditions => Kind::Conditioning,
        kind => kind,
    })
}

fn probability(entry: &Entry<'_>, found: &mut Findings) -> f64 {
    let Some(text) = entry.text("probability", found) else {
        return 1.0;
    };
    match text.parse::<f64>() {
        Ok(probability) if probability.is_finite() => probability,
        _ => {
            entry.problem(
                "probability",
                format!("{} is no number", shown(&text)),
                "write a number such as 1.0",
                found,
            );
            1.0
        }
    }
}
