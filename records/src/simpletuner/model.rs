//! What is trained and how: the recipe, the precision and the quantisation of a configuration.

use super::family;
use super::findings::Findings;
use super::note::Note;
use super::off_record::OffRecord;
use super::problem::shown;
use super::settings::Settings;
use super::vocabulary;
use super::weights::{self, Weights};
use crate::key::{Precision, Quantization, Unmapped};
use crate::recipe::{Checkpointing, Error, Family, Method, Recipe};

/// The part of a workload that does not depend on the data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    /// For single frames; the data sets say how many there are.
    pub(super) recipe: Recipe,
    pub(super) precision: Precision,
    pub(super) quantization: Quantization,
    /// The words for a screen, where the records have no word.
    pub(super) precision_said: &'static str,
    pub(super) quantization_said: &'static str,
    pub(super) lora_rank: Option<u64>,
}

/// The model of a configuration; `None` with a problem found.
pub(super) fn model(settings: &Settings<'_>, found: &mut Findings) -> Option<Model> {
    let family = family(settings, found);
    let method = method(settings, found);
    let checkpointing = match settings.flag_on("gradient_checkpointing", found) {
        true => Checkpointing::On,
        false => Checkpointing::Off,
    };
    let (precision, precision_said) = precision(settings, found);
    let (quantization, quantization_said) = quantization(settings, found);
    let rank = settings.whole("lora_rank", 1..=65_536, found).unwrap_or(16);
    let (family, method) = (family?, method?);
    let flavour = flavour(family, settings, found)?;
    // It has the classes for one, and refuses it before they are loaded.
    if family.name() == "chroma" && method.is_controlnet() {
        refused(
            Error::NoSuchMethod { family, method },
            &flavour,
            settings,
            found,
        );
        return None;
    }
    let recipe = match Recipe::find(family.name(), Some(&flavour), method, checkpointing) {
        Ok(recipe) => recipe,
        Err(error) => {
            refused(error, &flavour, settings, found);
            return None;
        }
    };
    let has_rank = matches!(method, Method::Lora | Method::ControlNetLora);
    let lora_rank = has_rank.then_some(rank);
    Some(Model {
        recipe,
        precision,
        quantization,
        precision_said,
        quantization_said,
        lora_rank,
    })
}

/// Whether the model takes pictures to start from, so that its data sets have some.
pub(super) fn edits(recipe: Recipe) -> bool {
    let flavour = recipe.flavour();
    let starts = ["i2v", "i2i", "edit", "flf2v", "ti2v", "ref2", "fl2", "s2v"];
    starts.iter().any(|start| flavour.starts_with(start))
        || flavour.contains("edit")
        || flavour.contains("i2v")
        || flavour == "kontext"
        || matches!(recipe.family().name(), "wan_s2v" | "infinitetalk")
}

/// Entries of the data loader from which a model's validation starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starts {
    /// Data sets with reference pictures.
    References,
    /// The same, or with `validation_using_datasets` those that are trained on: one picture is enough.
    Pictures,
    /// The control or reference pictures themselves.
    Conditioning,
}

/// What a model's validation starts from whatever else is set; `None` where it goes by prompts. As the models of 4.10.1 say
/// (`requires_conditioning_validation_inputs`, `_edit_captions` and `_i2v_samples`): not each one that takes pictures.
pub(super) fn validates_from(recipe: Recipe) -> Option<Starts> {
    let flavour = recipe.flavour();
    match recipe.family().name() {
        "mageflow" | "minimaxh3" | "z_image_omni" => None,
        "z_image" => Some(Starts::Conditioning),
        "wan" if flavour.starts_with("flf2v") || flavour.starts_with("ti2v") => {
            Some(Starts::Conditioning)
        }
        _ if !edits(recipe) => None,
        _ if flavour.contains("i2v") => Some(Starts::Pictures),
        _ => Some(Starts::References),
    }
}

fn family(settings: &Settings<'_>, found: &mut Findings) -> Option<Family> {
    let name = required(settings, "model_family", found)?;
    let family = Family::find(name);
    if family.is_none() {
        let what = format!("{} is no model family of SimpleTuner 4.10.1", shown(name));
        let hint = match vocabulary::nearest(name, Family::all().map(Family::name)) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "write one such as flux, sdxl or wan".to_owned(),
        };
        settings.problem("model_family", what, hint, found);
    }
    family
}

/// A setting without which SimpleTuner does not start.
pub(super) fn required<'s>(
    settings: &'s Settings<'_>,
    name: &str,
    found: &mut Findings,
) -> Option<&'s str> {
    if !settings.has(name) {
        let what = format!("{name} is missing, and SimpleTuner does not start without it");
        settings.problem(name, what, format!("add {name}"), found);
        return None;
    }
    settings.text(name, found)
}

/// The flavour that is trained: that of the weights which are named, as SimpleTuner takes it, and else the one that is given.
fn flavour(family: Family, settings: &Settings<'_>, found: &mut Findings) -> Option<String> {
    let said = settings.text("model_flavour", found);
    let said = said.map(|said| family::flavour_of_version(family, said).unwrap_or(said));
    let is_known = |said: &&str| {
        family
            .flavours()
            .any(|known| known.eq_ignore_ascii_case(said))
    };
    if let Some(unknown) = said.filter(|said| !is_known(said)) {
        return Some(unknown.to_owned());
    }
    let weights = Weights::named(family, settings, found);
    let published = weights
        .as_ref()
        .and_then(|weights| weights.flavours.first().copied());
    if let (Some(said), Some(weights), Some(first)) = (said, &weights, published) {
        let same = |flavour: &&str| flavour.eq_ignore_ascii_case(said);
        if weights.flavours.iter().any(same) {
            return Some(said.to_owned());
        }
        found.note(Note::FlavourOverruled(first));
        found.off_record("model_flavour", OffRecord::ModelSetting);
        return Some(first.to_owned());
    }
    let default = family.default_flavour();
    let Some(flavour) = said.or(published).or(default) else {
        refused(Error::FlavourRequired { family }, "", settings, found);
        return None;
    };
    let known = family
        .flavours()
        .find(|known| known.eq_ignore_ascii_case(flavour));
    let known = known.filter(|_| family.flavours().nth(1).is_some());
    let note = match (known, weights) {
        (None, _) => None,
        (Some(flavour), Some(_)) if published.is_some() => Some(Note::FlavourOfWeights(flavour)),
        (Some(flavour), Some(weights)) if weights::differ_in_size(family) => {
            found.off_record(weights.setting, OffRecord::ModelSetting);
            Some(Note::FlavourGuessed(flavour))
        }
        _ if said.is_some() => None,
        (Some(flavour), Some(_)) => Some(Note::FlavourAssumed(flavour)),
        (Some(value), None) => Some(Note::Default {
            setting: "model_flavour",
            value,
        }),
    };
    note.into_iter().for_each(|note| found.note(note));
    Some(flavour.to_owned())
}

fn refused(error: Error, flavour: &str, settings: &Settings<'_>, found: &mut Findings) {
    let list = |family: Family| family.flavours().collect::<Vec<_>>().join(", ");
    match error {
        Error::UnknownFamily => {}
        Error::UnknownFlavour { family } => {
            let what = format!("{family} has no flavour {}", shown(flavour));
            let hint = match vocabulary::nearest(flavour, family.flavours()) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("write one of {}", list(family)),
            };
            settings.problem("model_flavour", what, hint, found);
        }
        Error::FlavourRequired { family } => {
            let what = format!("{family} has no default flavour");
            settings.problem(
                "model_flavour",
                what,
                format!("write one of {}", list(family)),
                found,
            );
        }
        Error::NoSuchMethod { family, .. } => {
            let what = format!("SimpleTuner has no ControlNet for {family}");
            settings.problem(
                "controlnet",
                what,
                "remove controlnet, or choose another family",
                found,
            );
        }
    }
}

fn method(settings: &Settings<'_>, found: &mut Findings) -> Option<Method> {
    required(settings, "model_type", found)?;
    let model_type = settings.choice("model_type")?;
    let controlnet = settings.flag("controlnet", false, found);
    let lycoris = is_lycoris(settings);
    Some(match (model_type, controlnet) {
        ("full", true) => Method::ControlNet,
        ("full", false) => Method::Full,
        (_, true) => Method::ControlNetLora,
        (_, false) if lycoris => Method::Lycoris,
        (_, false) => Method::Lora,
    })
}

/// Whether the adapter is a LyCORIS one, with a file of its own.
pub(super) fn is_lycoris(settings: &Settings<'_>) -> bool {
    settings.choice("model_type") == Some("lora") && settings.choice("lora_type") == Some("lycoris")
}

fn precision(settings: &Settings<'_>, found: &mut Findings) -> (Precision, &'static str) {
    let said = settings.choice("mixed_precision");
    if settings.given("mixed_precision").is_none() {
        found.assumed("mixed_precision", "bf16");
    }
    match said.map(Precision::from_simpletuner) {
        Some(Ok(precision)) => (precision, precision.name()),
        Some(Err(Unmapped::PrecisionOutsidePolicy)) => {
            found.off_record("mixed_precision", OffRecord::Precision);
            (
                Precision::Bf16,
                if said == Some("no") {
                    "fp32"
                } else {
                    said.unwrap_or("bf16")
                },
            )
        }
        _ => (Precision::Bf16, "bf16"),
    }
}

fn quantization(settings: &Settings<'_>, found: &mut Findings) -> (Quantization, &'static str) {
    let Some(said) = settings.choice("base_model_precision") else {
        return (Quantization::None, "");
    };
    match Quantization::from_simpletuner(said) {
        Ok(Quantization::None) => (Quantization::None, ""),
        Ok(quantization) => (quantization, quantization.name()),
        Err(_) => {
            found.off_record("base_model_precision", OffRecord::Quantization);
            (nearest_quantization(said), said)
        }
    }
}

/// How the weights of a text encoder are quantised, by a value of one of SimpleTuner's settings of it.
pub(super) fn encoder_quantization(precision: &str) -> Quantization {
    Quantization::from_simpletuner(precision).unwrap_or_else(|_| nearest_quantization(precision))
}

/// The quantisation of the policy's whose weights are nearest in width.
fn nearest_quantization(base_model_precision: &str) -> Quantization {
    let has = |digits: &str| base_model_precision.contains(digits);
    if has("16") {
        Quantization::None
    } else if has("int4") || has("int3") || has("int2") {
        Quantization::Nf4
    } else {
        Quantization::Int8
    }
}
