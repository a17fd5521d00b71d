//! How many frames SimpleTuner trains a clip on, where a family does not take every number.

use crate::recipe::Recipe;

/// The frames that a clip of so many has once SimpleTuner 4.10.1 has fitted it to the model (`adjust_video_frames` of its
/// family): as many for most, the next 8n + 1 below for those whose latents need it, the next 17n + 5 above for MiniMax H3.
pub(super) fn fitted(recipe: Recipe, frames: u64) -> u64 {
    match recipe.family().name() {
        "infinitetalk" | "longcat_video" | "ltxvideo" | "ltxvideo2" | "sanavideo" | "wan" => {
            frames.saturating_sub(1) / 8 * 8 + 1
        }
        "minimaxh3" if frames > 1 => frames
            .saturating_sub(5)
            .div_ceil(17)
            .saturating_mul(17)
            .saturating_add(5),
        _ => frames,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Checkpointing, Family, Method};

    fn of(family: &str, frames: u64) -> u64 {
        let family = Family::find(family).expect("a family");
        let flavour = family.flavours().next();
        let recipe = Recipe::find(family.name(), flavour, Method::Lora, Checkpointing::On);
        fitted(recipe.expect("a recipe"), frames)
    }

    #[test]
    fn clips_are_fitted_as_simpletuner_fits_them() {
        for (family, given, trained) in [
            ("wan", 1, 1),
            ("wan", 8, 1),
            ("wan", 81, 81),
            ("wan", 84, 81),
            ("wan", 125, 121),
            ("ltxvideo", 97, 97),
            ("ltxvideo2", 128, 121),
            ("sanavideo", 82, 81),
            ("longcat_video", 94, 89),
            ("minimaxh3", 1, 1),
            ("minimaxh3", 2, 5),
            ("minimaxh3", 22, 22),
            ("minimaxh3", 23, 39),
            ("hunyuanvideo", 125, 125),
            ("kandinsky5-video", 124, 124),
            ("flux", 4, 4),
        ] {
            assert_eq!(of(family, given), trained, "{family} {given}");
        }
        assert_eq!(of("minimaxh3", u64::MAX), u64::MAX);
    }
}
