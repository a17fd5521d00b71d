//! How large the models are: billions of parameters in the network that is trained, by family and flavour.
//!
//! Sizes are those that the models' makers state, rounded; where none is known the weights of published runs
//! tell (two bytes a parameter). They are good for rough priors and a check of memory, and for nothing else.

use std::collections::HashMap;
use std::sync::LazyLock;

use stepcast_records::{Method, Recipe};

/// One family: its size in billions of parameters, and the flavours that are another size.
struct Size {
    family: &'static str,
    billions: f64,
    /// The beginning or a part of a flavour's name, with its size; the first that fits counts.
    flavours: &'static [(&'static str, f64)],
}

/// The size of a family that is not in the table.
const UNKNOWN: f64 = 8.0;

const fn one(family: &'static str, billions: f64) -> Size {
    some(family, billions, &[])
}

const fn some(
    family: &'static str,
    billions: f64,
    flavours: &'static [(&'static str, f64)],
) -> Size {
    Size {
        family,
        billions,
        flavours,
    }
}

const SIZES: [Size; 46] = [
    some("ace_step", 3.5, &[("v15", 2.0)]),
    some("anima", 2.0, &[("2.9b", 2.9)]),
    one("auraflow", 6.8),
    one("boogu_image", 10.0),
    one("bria", 4.0),
    one("chroma", 8.9),
    some("cosmos", 2.0, &[("14b", 14.0)]),
    some("cosmos3", 8.0, &[("edge", 4.0), ("super", 30.0)]),
    some(
        "deepfloyd",
        0.9,
        &[
            ("400m", 0.4),
            ("450m", 0.45),
            ("900m", 0.9),
            ("1.2b", 1.2),
            ("4.3b", 4.3),
        ],
    ),
    one("ernie", 8.0),
    one("flux", 12.0),
    some("flux2", 9.0, &[("dev", 32.0), ("klein-4b", 4.0)]),
    one("flux3_image", 9.0),
    one("heartmula", 3.0),
    one("hidream", 17.0),
    one("hunyuanvideo", 8.3),
    one("ideogram", 9.0),
    one("infinitetalk", 14.0),
    one("kandinsky5_image", 6.0),
    some("kandinsky5_video", 2.0, &[("pro", 19.0)]),
    one("kolors", 2.6),
    one("krea2", 12.0),
    one("longcat_image", 6.0),
    one("longcat_video", 13.6),
    one("ltxvideo", 2.0),
    one("ltxvideo2", 19.0),
    one("lumina2", 2.6),
    one("mageflow", 4.0),
    one("minimaxh3", 20.0),
    one("minimaxmusic", 3.0),
    one("moss_image", 8.0),
    one("omnigen", 3.8),
    some("pixart", 0.9, &[("600M", 0.6)]),
    one("qwen_image", 20.0),
    some("sana", 4.8, &[("1.6b", 1.6), ("600m", 0.6)]),
    one("sanavideo", 2.0),
    one("sd1x", 0.86),
    one("sd2x", 0.87),
    some("sd3", 2.0, &[("large", 8.0)]),
    one("sdxl", 2.6),
    some("stable_cascade", 3.6, &[("lite", 1.0)]),
    some("wan", 14.0, &[("1.3b", 1.3), ("5b", 5.0)]),
    one("wan_s2v", 14.0),
    one("z_image", 6.0),
    one("z_image_omni", 6.0),
    one("zlab_i1", 3.0),
];

/// Layers of the network that is trained, by family: blocks of a transformer, attention blocks of a U-Net, as the
/// published configurations have them. Launches grow with them. Families that are not listed have a usual number.
const LAYERS: [(&str, f64); 29] = [
    ("anima", 28.0),
    ("auraflow", 36.0),
    ("chroma", 57.0),
    ("cosmos", 28.0),
    ("flux", 57.0),
    ("hidream", 48.0),
    ("hunyuanvideo", 54.0),
    ("kandinsky5_image", 50.0),
    ("kandinsky5_video", 32.0),
    ("kolors", 70.0),
    ("krea2", 28.0),
    ("longcat_image", 30.0),
    ("longcat_video", 48.0),
    ("ltxvideo", 28.0),
    ("ltxvideo2", 48.0),
    ("lumina2", 28.0),
    ("omnigen", 32.0),
    ("pixart", 42.0),
    ("qwen_image", 60.0),
    ("sana", 20.0),
    ("sanavideo", 20.0),
    ("sd1x", 16.0),
    ("sd2x", 16.0),
    ("sd3", 24.0),
    ("sdxl", 70.0),
    ("stable_cascade", 48.0),
    ("wan", 40.0),
    ("z_image", 34.0),
    ("zlab_i1", 28.0),
];
/// The layers of a family that is not in the table.
const LAYERS_USUAL: f64 = 36.0;

/// Layers of a family's network.
pub(super) fn layers(family: &str) -> f64 {
    let known = LAYERS.iter().find(|(name, _)| *name == family);
    known.map_or(LAYERS_USUAL, |(_, layers)| *layers)
}

/// Billions of parameters of a family's usual network, or of a flavour of it.
pub(super) fn billions_of(family: &str, flavour: &str) -> f64 {
    let Some(size) = SIZES.iter().find(|size| size.family == family) else {
        return UNKNOWN;
    };
    let special = size
        .flavours
        .iter()
        .find(|(part, _)| flavour.contains(part));
    special.map_or(size.billions, |(_, billions)| *billions)
}

/// Billions of parameters of the network that is trained; a ControlNet's are not counted.
pub(super) fn billions(recipe: Recipe) -> f64 {
    static BY_RECIPE: LazyLock<HashMap<Recipe, f64>> = LazyLock::new(|| {
        Recipe::all()
            .map(|recipe| (recipe, look_up(recipe)))
            .collect()
    });
    BY_RECIPE.get(&recipe).copied().unwrap_or(UNKNOWN)
}

fn look_up(recipe: Recipe) -> f64 {
    billions_of(recipe.family().name(), recipe.flavour())
}

/// The weight of the optimizer's work: billions of parameters that get a gradient.
pub(super) fn trained_billions(recipe: Recipe) -> f64 {
    match recipe.method() {
        Method::Full => billions(recipe),
        // The usual ControlNet copies about half of the network.
        Method::ControlNet => billions(recipe) / 2.0,
        // An adapter of usual rank is one or two per cent of the network.
        Method::Lora | Method::Lycoris | Method::ControlNetLora => billions(recipe) / 60.0,
    }
}

#[cfg(test)]
mod tests {
    use stepcast_records::Family;

    use super::*;

    #[test]
    fn every_family_has_a_size() {
        for family in Family::all() {
            let known = SIZES.iter().any(|size| size.family == family.name());
            assert!(known, "{family}");
        }
        assert_eq!(SIZES.len(), Family::all().count());
    }

    #[test]
    fn every_special_flavour_exists() {
        for size in &SIZES {
            let family = Family::find(size.family).expect("family");
            for (part, _) in size.flavours {
                let found = family.flavours().any(|flavour| flavour.contains(part));
                assert!(found, "{family} {part}");
            }
        }
    }

    #[test]
    fn a_flavour_may_be_another_size() {
        let size = |name| billions(Recipe::parse(name).expect("recipe"));
        assert!((size("wan.t2v-480p-1.3b-2.1/lora") - 1.3).abs() < 1e-9);
        assert!((size("wan.t2v-480p-14b-2.1/lora") - 14.0).abs() < 1e-9);
        assert!((size("flux.dev/lora+ckpt") - 12.0).abs() < 1e-9);
    }
}
