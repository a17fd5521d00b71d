//! What a model family sets by itself, whatever the configuration says, before SimpleTuner 4.10.1 reads any data
//! (`check_user_config` and `setup_model_flavour` of its class).

use super::findings::Findings;
use super::off_record::OffRecord;
use super::settings::{Given, Settings};
use crate::recipe::{Family, Recipe};
use crate::resolution::HalfMegapixels;

/// The flavour that the number of a version stands for; `None` for what is none.
pub(super) fn flavour_of_version(family: Family, said: &str) -> Option<&'static str> {
    match (family.name(), said) {
        ("ltxvideo2", "2" | "2.0") => Some("dev"),
        ("ltxvideo2", "2.5") => Some("2.5-dev"),
        _ => None,
    }
}

/// Finds what of a configuration matters to some families alone.
pub(super) fn check(recipe: Recipe, settings: &Settings<'_>, found: &mut Findings) {
    const ASSISTANT: &str = "disable_assistant_lora";
    let is_lora = settings.choice("model_type") == Some("lora");
    if is_lora && has_assistant(recipe) && settings.flag(ASSISTANT, false, found) {
        found.off_record(ASSISTANT, OffRecord::ModelSetting);
    }
    check_validation_frames(recipe, settings, found);
}

/// Whether its adapters are trained through another one that comes with it (`ASSISTANT_LORA_FLAVOURS`).
fn has_assistant(recipe: Recipe) -> bool {
    matches!(
        (recipe.family().name(), recipe.flavour()),
        ("flux", "schnell")
            | ("flux3_image", "klein")
            | ("qwen_image", "v2.1")
            | ("z_image", "turbo" | "turbo-ostris-v2")
    )
}

/// Finds a length of validation's clips that the family does not start with, validate or not.
fn check_validation_frames(recipe: Recipe, settings: &Settings<'_>, found: &mut Findings) {
    const SETTING: &str = "validation_num_video_frames";
    if recipe.family().name() != "ltxvideo2" || settings.flag("validation_audio_only", false, found)
    {
        return;
    }
    let Some(Given::Text(text)) = settings.given(SETTING) else {
        return;
    };
    // What is no number is found where it is needed.
    if let Some(frames) = text.parse::<u64>().ok().filter(|frames| frames % 8 != 1) {
        let what = format!("SimpleTuner does not start with {frames} frames for this model");
        let hint = "write a multiple of 8 and one more, such as 81 or 121";
        settings.problem(SETTING, what, hint, found);
    }
}

/// Frames per second of a family's clips; `None` for one that sets none, and does not start where frames are told by it.
pub(super) fn framerate(recipe: Recipe) -> Option<u64> {
    match recipe.family().name() {
        "wan" | "wan_s2v" => Some(15),
        "sanavideo" => Some(16),
        "kandinsky5_video" | "minimaxh3" => Some(24),
        "infinitetalk" | "ltxvideo" | "ltxvideo2" => Some(25),
        _ => None,
    }
}

/// The most pixels that it trains on (`MAXIMUM_CANVAS_SIZE`); larger ones are made smaller. `None` without such a bound.
pub(super) fn most_pixels(recipe: Recipe) -> Option<HalfMegapixels> {
    let bound = recipe.family().name() == "hidream";
    bound
        .then(|| HalfMegapixels::from_pixels(1_024, 1_024))
        .flatten()
}

/// Whether it trains on sounds alone beside clips (`SUPPORTS_FAKE_VIDEO_STREAM`).
pub(super) fn trains_sounds(recipe: Recipe) -> bool {
    matches!(recipe.family().name(), "ltxvideo2" | "minimaxh3")
}

/// Whether its validation leaves out the empty prompt.
pub(super) fn skips_empty_prompt(recipe: Recipe) -> bool {
    matches!(recipe.family().name(), "ltxvideo" | "wan" | "wan_s2v")
}

/// Denoising steps of a validation's images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InferenceSteps {
    /// So many, in any case.
    Always(u32),
    /// At least so many.
    AtLeast(u32),
}

/// The denoising steps that its flavour sets; `None` where the configuration says them.
pub(super) fn inference_steps(recipe: Recipe) -> Option<InferenceSteps> {
    let flavour = recipe.flavour();
    match recipe.family().name() {
        "wan" if flavour.starts_with("animegen-") => Some(InferenceSteps::Always(8)),
        "wan" if flavour.ends_with("-2.2-high") || flavour.ends_with("-2.2-low") => {
            Some(InferenceSteps::Always(40))
        }
        "flux" if matches!(flavour, "fluxbooru" | "libreflux") => Some(InferenceSteps::AtLeast(28)),
        _ => None,
    }
}

/// Whether nothing is validated as it is set up.
pub(super) fn never_validates(recipe: Recipe, settings: &Settings<'_>) -> bool {
    recipe.family().name() == "minimaxmusic"
        && settings.choice("minimax_music_train_component") == Some("language_model")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Checkpointing, Family, Method};

    fn recipes() -> impl Iterator<Item = Recipe> {
        let flavours = Family::all().flat_map(|family| family.flavours().map(move |f| (family, f)));
        flavours.filter_map(|(family, flavour)| {
            let (name, on) = (family.name(), Checkpointing::On);
            Recipe::find(name, Some(flavour), Method::Lora, on).ok()
        })
    }

    #[test]
    fn every_family_with_clips_says_their_speed_or_is_known_to_have_none() {
        let mut without: Vec<&str> = recipes()
            .filter(|recipe| recipe.is_video() && framerate(*recipe).is_none())
            .map(|recipe| recipe.family().name())
            .collect();
        without.sort_unstable();
        without.dedup();
        assert_eq!(without, ["cosmos3", "hunyuanvideo", "longcat_video"]);
        let pictures = recipes().filter(|recipe| !recipe.is_video());
        assert!({ pictures }.all(|recipe| framerate(recipe).is_none()));
    }

    #[test]
    fn the_flavours_with_an_assistant_are_known() {
        assert_eq!(recipes().filter(|recipe| has_assistant(*recipe)).count(), 5);
    }

    #[test]
    fn the_flavours_that_set_their_steps_are_those_of_two_stages_and_two_of_flux() {
        let set: Vec<String> = recipes()
            .filter_map(|recipe| Some((recipe, inference_steps(recipe)?)))
            .map(|(recipe, steps)| format!("{} {steps:?}", recipe.flavour()))
            .collect();
        let expected = [
            "fluxbooru AtLeast(28)",
            "libreflux AtLeast(28)",
            "i2v-14b-2.2-high Always(40)",
            "i2v-14b-2.2-low Always(40)",
            "animegen-t2v-high Always(8)",
            "animegen-t2v-low Always(8)",
        ];
        assert_eq!(set, expected);
    }
}
