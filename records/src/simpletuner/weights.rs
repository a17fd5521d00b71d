//! Which weights a configuration names, and of which flavours of the family they are: SimpleTuner 4.10.1 loads what is
//! named (`load_model` of `common.py`) and looks at the flavour only where nothing is.

use super::findings::Findings;
use super::settings::Settings;
use super::vocabulary;
use crate::recipe::Family;

/// Settings that name the weights that are trained, in the order in which SimpleTuner asks them.
pub(super) const SETTINGS: [&str; 3] = [
    "pretrained_transformer_model_name_or_path",
    "pretrained_unet_model_name_or_path",
    "pretrained_model_name_or_path",
];

/// Families whose flavours are of more than one size, or quantised in more than one way. Of weights that nobody has published
/// nothing can be said there. The refiner of sdxl, which nobody trains, is none of it.
const SEVERAL_SIZES: [&str; 16] = [
    "ace_step",
    "anima",
    "boogu_image",
    "cosmos",
    "cosmos3",
    "deepfloyd",
    "flux2",
    "ideogram",
    "kandinsky5_video",
    "ltxvideo2",
    "minimaxh3",
    "pixart",
    "sana",
    "sd3",
    "stable_cascade",
    "wan",
];

/// The weights that are trained.
#[derive(Debug)]
pub(super) struct Weights {
    /// The setting that names them.
    pub(super) setting: &'static str,
    /// The flavours that have them; none where they are not published ones.
    pub(super) flavours: Vec<&'static str>,
}

impl Weights {
    /// Those that a configuration names; `None` where it leaves them to the flavour. Where all flavours are of one size, a
    /// network of one's own beside a published model is taken for that model's.
    pub(super) fn named(
        family: Family,
        settings: &Settings<'_>,
        found: &mut Findings,
    ) -> Option<Self> {
        let mut named = SETTINGS.into_iter().filter_map(|setting| {
            let named = settings.text(setting, found)?;
            let flavours = vocabulary::flavours_of_weights(family.name(), last_name(named));
            Some(Self { setting, flavours })
        });
        let first = named.next()?;
        let decides = differ_in_size(family) || !first.flavours.is_empty();
        let published = (!decides).then(|| named.find(|other| !other.flavours.is_empty()));
        Some(published.flatten().unwrap_or(first))
    }
}

/// Whether the flavours of a family differ in size.
pub(super) fn differ_in_size(family: Family) -> bool {
    SEVERAL_SIZES.contains(&family.name())
}

/// The name of the weights in a path, a repository's name or a folder of the hub's cache, without whose they are.
fn last_name(named: &str) -> &str {
    let mut parts = named.rsplit(['/', '\\']).filter(|part| !part.is_empty());
    let cached = parts.clone().find_map(|part| part.strip_prefix("models--"));
    if let Some(cached) = cached {
        return cached.rsplit("--").next().unwrap_or(cached);
    }
    let within = |part: &&str| matches!(*part, "transformer" | "unet");
    parts.find(|part| !within(part)).unwrap_or(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_weights_are_known_wherever_they_lie() {
        let wan = |named| vocabulary::flavours_of_weights("wan", last_name(named));
        for named in [
            "Wan-AI/Wan2.1-T2V-14B-Diffusers",
            "myorg/wan2.1-t2v-14b-diffusers",
            "/models/Wan2.1-T2V-14B-Diffusers",
            "/models/Wan2.1-T2V-14B-Diffusers/",
            "/models/Wan2.1-T2V-14B-Diffusers/transformer",
            r"D:\models\Wan2.1-T2V-14B-Diffusers",
            "/hub/models--Wan-AI--Wan2.1-T2V-14B-Diffusers/snapshots/38ec498cb3208fb688890f8cc7e94ede2cbd7f68",
        ] {
            assert_eq!(wan(named), ["t2v-480p-14b-2.1"], "{named}");
        }
        let stages = ["i2v-14b-2.2-high", "i2v-14b-2.2-low"];
        assert_eq!(wan("Wan-AI/Wan2.2-I2V-A14B-Diffusers"), stages);
        for named in [
            "",
            "/",
            "/models/mine",
            "/models/Wan2.1-T2V-14B-Diffusers/mine",
        ] {
            assert!(wan(named).is_empty(), "{named}");
        }
    }

    #[test]
    fn families_of_several_sizes_are_families_with_several_flavours() {
        for name in SEVERAL_SIZES {
            let family = Family::find(name).expect("a family");
            assert!(family.flavours().nth(1).is_some(), "{name}");
        }
    }
}
