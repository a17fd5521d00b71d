//! Recipes: the closed registry of model family, flavour and method that a benchmark record may name.
//!
//! A recipe's name is `family.flavour/method[+ckpt][@<frames>f]`, for example `flux.dev/lora+ckpt` or
//! `wan.t2v-480p-1.3b-2.1/lora+ckpt@81f`. Its id is a `u16` that never changes. What is not in the registry
//! has no recipe and leaves no record, so no text of a user can reach a record through here.

mod registry;
mod variant;

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::FromText;
use registry::{FAMILIES, FamilyRow};
pub use variant::{Checkpointing, FrameClass, Method};

/// A model family, flavour and method, with what else changes the cost of its steps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipe(u16);

/// A model family of SimpleTuner, such as `flux`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(u8);

/// What a model makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modality {
    /// Still images.
    Image,
    /// Clips, which may also be trained on single frames.
    Video,
    /// Sound.
    Audio,
}

/// Why a configuration has no recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The family is not in the registry.
    #[error("the model family is not in the registry")]
    UnknownFamily,
    /// The family is known, the flavour is not.
    #[error("the model family {family} has no such flavour")]
    UnknownFlavour {
        /// The family that was found.
        family: Family,
    },
    /// No flavour was given and the family has no default.
    #[error("the model family {family} needs a model_flavour")]
    FlavourRequired {
        /// The family that was found.
        family: Family,
    },
    /// The family cannot be trained by this method.
    #[error("the model family {family} cannot be trained by the method {}", method.slug())]
    NoSuchMethod {
        /// The family that was found.
        family: Family,
        /// The method that was asked for.
        method: Method,
    },
}

impl Recipe {
    /// The recipe of a configuration, as SimpleTuner would read it; without a flavour its default is taken.
    ///
    /// The recipe is for single frames; a video dataset continues with [`Recipe::at_frames`].
    ///
    /// # Errors
    /// When the family, the flavour or the method does not exist, or a flavour is needed and absent.
    pub fn find(
        family: &str,
        flavour: Option<&str>,
        method: Method,
        checkpointing: Checkpointing,
    ) -> Result<Self, Error> {
        let family = Family::find(family).ok_or(Error::UnknownFamily)?;
        let flavour = flavour
            .or(family.row().default_flavour)
            .ok_or(Error::FlavourRequired { family })?;
        let number = family
            .flavour_number(flavour)
            .ok_or(Error::UnknownFlavour { family })?;
        if !family.has_method(method) {
            return Err(Error::NoSuchMethod { family, method });
        }
        Ok(Self(compose(
            number,
            method,
            checkpointing,
            FrameClass::Single,
        )))
    }

    /// The recipe with this canonical name, or `None`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let index = *REGISTRY.by_name.get(name)?;
        Some(Self(REGISTRY.entries[index].id))
    }

    /// The recipe with this id, or `None`.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        let index = REGISTRY.index(id)?;
        Some(Self(REGISTRY.entries[index].id))
    }

    /// The permanent number.
    #[must_use]
    pub const fn id(self) -> u16 {
        self.0
    }

    /// The canonical name, such as `flux.dev/lora+ckpt`.
    #[must_use]
    pub fn name(self) -> &'static str {
        &self.entry().name
    }

    /// What people call it, such as `FLUX LoRA` or `SDXL full fine-tune`.
    ///
    /// The title leaves checkpointing and frames out: two recipes may share one. [`Recipe::name`] tells them apart.
    #[must_use]
    pub fn title(self) -> String {
        let row = self.family().row();
        let method = self.method().title();
        if self.flavour() == row.untitled_flavour {
            format!("{} {method}", row.title)
        } else {
            format!("{} {} {method}", row.title, self.flavour())
        }
    }

    /// The model family.
    #[must_use]
    pub fn family(self) -> Family {
        self.entry().family
    }

    /// The flavour within the family, as SimpleTuner spells it.
    #[must_use]
    pub fn flavour(self) -> &'static str {
        self.entry().flavour
    }

    /// How the model is trained.
    #[must_use]
    pub fn method(self) -> Method {
        self.entry().method
    }

    /// Whether gradient checkpointing is on.
    #[must_use]
    pub fn checkpointing(self) -> Checkpointing {
        self.entry().checkpointing
    }

    /// How many frames a sample has.
    #[must_use]
    pub fn frames(self) -> FrameClass {
        self.entry().frames
    }

    /// What the model makes.
    #[must_use]
    pub fn modality(self) -> Modality {
        self.family().modality()
    }

    /// Whether the model makes clips.
    #[must_use]
    pub fn is_video(self) -> bool {
        self.modality() == Modality::Video
    }

    /// The same recipe with the other setting of gradient checkpointing, or the same one.
    #[must_use]
    pub fn with_checkpointing(self, checkpointing: Checkpointing) -> Self {
        Self((self.0 & !CHECKPOINTING_MASK) | checkpointing.number())
    }

    /// The same recipe for clips of so many frames; `None` for a clip length that has no class.
    ///
    /// Image and audio recipes do not count frames and stay as they are.
    #[must_use]
    pub fn at_frames(self, frames: u32) -> Option<Self> {
        if !self.is_video() {
            return Some(self);
        }
        let class = FrameClass::from_frames(frames)?;
        Some(Self(
            (self.0 & !FRAMES_MASK) | (class.number() << FRAMES_SHIFT),
        ))
    }

    /// Every recipe there is, by id.
    pub fn all() -> impl Iterator<Item = Self> {
        REGISTRY.entries.iter().map(|entry| Self(entry.id))
    }

    fn entry(self) -> &'static Entry {
        // A `Recipe` is only ever made from an id of the registry; the fallback keeps this path free of panics.
        let index = REGISTRY.index(self.0).unwrap_or(0);
        &REGISTRY.entries[index]
    }
}

impl Family {
    /// The family by SimpleTuner's name, in any letter case, as SimpleTuner looks it up.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let wanted = |known: &str| known.eq_ignore_ascii_case(name);
        (0u8..)
            .zip(&FAMILIES)
            .find(|(_, row)| wanted(row.name) || row.aliases.iter().any(|alias| wanted(alias)))
            .map(|(index, _)| Self(index))
    }

    /// Every family, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        (0u8..).zip(&FAMILIES).map(|(index, _)| Self(index))
    }

    /// The name in `model_family`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What people call it.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// What its models make.
    #[must_use]
    pub fn modality(self) -> Modality {
        self.row().modality
    }

    /// The flavour SimpleTuner takes when none is given.
    #[must_use]
    pub fn default_flavour(self) -> Option<&'static str> {
        self.row().default_flavour
    }

    /// Every flavour, as SimpleTuner spells it.
    pub fn flavours(self) -> impl Iterator<Item = &'static str> {
        self.row().flavours.iter().map(|(_, flavour)| *flavour)
    }

    /// Whether SimpleTuner can train this family by the method.
    #[must_use]
    pub fn has_method(self, method: Method) -> bool {
        !method.is_controlnet() || self.row().controlnet
    }

    fn row(self) -> &'static FamilyRow {
        &FAMILIES[usize::from(self.0)]
    }

    fn flavour_number(self, flavour: &str) -> Option<u16> {
        let row = self.row();
        row.flavours
            .iter()
            .find(|(_, name)| *name == flavour)
            .map(|(number, _)| *number)
    }

    /// The classes of clip that a recipe of this family may name.
    fn frame_classes(self) -> &'static [FrameClass] {
        match self.modality() {
            Modality::Video => &FrameClass::ALL,
            Modality::Image | Modality::Audio => &FrameClass::ALL[..1],
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipe({})", self.name())
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Family({})", self.name())
    }
}

impl Serialize for Recipe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Recipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText::new("the name of a recipe", Self::parse))
    }
}

const CHECKPOINTING_MASK: u16 = 1;
const METHOD_SHIFT: u16 = 1;
const FRAMES_SHIFT: u16 = 4;
const FRAMES_MASK: u16 = 0b111 << FRAMES_SHIFT;
const FLAVOUR_SHIFT: u16 = 7;

/// The id: nine bits of flavour, three of frame class, three of method, one of checkpointing.
const fn compose(
    flavour: u16,
    method: Method,
    checkpointing: Checkpointing,
    frames: FrameClass,
) -> u16 {
    (flavour << FLAVOUR_SHIFT)
        | (frames.number() << FRAMES_SHIFT)
        | (method.number() << METHOD_SHIFT)
        | checkpointing.number()
}

struct Entry {
    id: u16,
    name: String,
    family: Family,
    flavour: &'static str,
    method: Method,
    checkpointing: Checkpointing,
    frames: FrameClass,
}

struct Registry {
    /// Sorted by id.
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::build);

impl Registry {
    fn build() -> Self {
        let mut entries: Vec<Entry> = Family::all().flat_map(entries_of).collect();
        entries.sort_by_key(|entry| entry.id);
        let by_name = entries.iter().enumerate();
        let by_name = by_name.map(|(index, entry)| (entry.name.clone(), index));
        let by_name = by_name.collect();
        Self { entries, by_name }
    }

    fn index(&self, id: u16) -> Option<usize> {
        self.entries
            .binary_search_by_key(&id, |entry| entry.id)
            .ok()
    }
}

fn entries_of(family: Family) -> Vec<Entry> {
    let mut entries = Vec::new();
    for &(number, flavour) in family.row().flavours {
        for method in Method::ALL {
            if !family.has_method(method) {
                continue;
            }
            for checkpointing in Checkpointing::ALL {
                for &frames in family.frame_classes() {
                    entries.push(Entry {
                        id: compose(number, method, checkpointing, frames),
                        name: format!(
                            "{family}.{flavour}/{}{}{}",
                            method.slug(),
                            checkpointing.suffix(),
                            frames.suffix()
                        ),
                        family,
                        flavour,
                        method,
                        checkpointing,
                        frames,
                    });
                }
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PERMANENT_NUMBERS: &str = include_str!("../testdata/flavours.txt");

    #[test]
    fn every_recipe_is_found_again_by_its_id_and_by_its_name() {
        for recipe in Recipe::all() {
            assert_eq!(Recipe::from_id(recipe.id()), Some(recipe));
            assert_eq!(Recipe::parse(recipe.name()), Some(recipe));
            let json = serde_json::to_string(&recipe).expect("json");
            assert_eq!(serde_json::from_str::<Recipe>(&json).expect("json"), recipe);
        }
    }

    #[test]
    fn ids_and_names_are_unique() {
        let ids: BTreeSet<u16> = Recipe::all().map(Recipe::id).collect();
        let names: BTreeSet<&str> = Recipe::all().map(Recipe::name).collect();
        assert_eq!(ids.len(), Recipe::all().count());
        assert_eq!(names.len(), Recipe::all().count());
    }

    #[test]
    fn flavour_numbers_are_dense_and_fit_nine_bits() {
        let mut numbers: Vec<u16> = FAMILIES
            .iter()
            .flat_map(|row| row.flavours.iter().map(|(number, _)| *number))
            .collect();
        numbers.sort_unstable();
        let dense: Vec<u16> = (1..).take(numbers.len()).collect();
        assert_eq!(numbers, dense);
        assert!(numbers.len() < 512, "nine bits hold 511 flavours");
    }

    #[test]
    fn a_flavour_keeps_its_number_for_ever() {
        let mut known = 0;
        for line in PERMANENT_NUMBERS
            .lines()
            .filter(|line| !line.starts_with('#'))
        {
            let (number, name) = line.split_once(' ').expect("number and name");
            let recipe = Recipe::parse(&format!("{name}/lora")).expect(name);
            assert_eq!((recipe.id() >> FLAVOUR_SHIFT).to_string(), number, "{name}");
            known += 1;
        }
        let flavours: usize = FAMILIES.iter().map(|row| row.flavours.len()).sum();
        assert_eq!(known, flavours, "add new flavours to testdata/flavours.txt");
    }

    #[test]
    fn ids_are_composed_as_they_always_were() {
        for (name, id) in [
            ("ace_step.base/lora", 1 << 7),
            ("ace_step.base/lora+ckpt", (1 << 7) | 1),
            ("ace_step.base/lycoris", (1 << 7) | (1 << 1)),
            ("ace_step.base/full+ckpt", (1 << 7) | (2 << 1) | 1),
            ("auraflow.pony/controlnet", (11 << 7) | (3 << 1)),
            (
                "auraflow.pony/controlnet-lora+ckpt",
                (11 << 7) | (4 << 1) | 1,
            ),
        ] {
            assert_eq!(Recipe::parse(name).map(Recipe::id), Some(id), "{name}");
        }
        let clip = Recipe::parse("wan.t2v-480p-1.3b-2.1/lora+ckpt@81f").expect("a clip");
        assert_eq!(clip.id() & 0b111_1111, (5 << 4) | 1);
    }

    #[test]
    fn a_configuration_finds_its_recipe() {
        let find =
            |family, flavour, method| Recipe::find(family, flavour, method, Checkpointing::On);
        let names = |found: Result<Recipe, Error>| found.map(Recipe::name);
        for (family, flavour, method, found) in [
            ("flux", Some("dev"), Method::Lora, Ok("flux.dev/lora+ckpt")),
            ("flux", None, Method::Lycoris, Ok("flux.krea/lycoris+ckpt")),
            ("SDXL", None, Method::Full, Ok("sdxl.base-1.0/full+ckpt")),
            (
                "pixart_sigma",
                None,
                Method::Lora,
                Ok("pixart.900M-1024-v0.6/lora+ckpt"),
            ),
            (
                "qwen_image",
                Some("edit-v2+"),
                Method::Lora,
                Ok("qwen_image.edit-v2+/lora+ckpt"),
            ),
            (
                "sd3",
                None,
                Method::ControlNetLora,
                Ok("sd3.medium/controlnet-lora+ckpt"),
            ),
            (
                "secret-model",
                None,
                Method::Lora,
                Err(Error::UnknownFamily),
            ),
        ] {
            assert_eq!(names(find(family, flavour, method)), found, "{family}");
        }
        let flux = Family::find("flux").expect("flux");
        assert_eq!(
            find("flux", Some("../../etc"), Method::Lora),
            Err(Error::UnknownFlavour { family: flux })
        );
        let deepfloyd = Family::find("deepfloyd").expect("deepfloyd");
        assert_eq!(
            find("deepfloyd", None, Method::Lora),
            Err(Error::FlavourRequired { family: deepfloyd })
        );
        let wan = Family::find("wan").expect("wan");
        let method = Method::ControlNet;
        assert_eq!(
            find("wan", None, method),
            Err(Error::NoSuchMethod {
                family: wan,
                method
            })
        );
    }

    #[test]
    fn titles_are_what_people_say() {
        for (name, title) in [
            ("flux.dev/lora", "FLUX LoRA"),
            ("flux.dev/lora+ckpt", "FLUX LoRA"),
            ("flux.krea/lora", "FLUX krea LoRA"),
            ("sdxl.base-1.0/full", "SDXL full fine-tune"),
            ("sd3.medium/controlnet", "SD3 ControlNet"),
            ("sd1x.1.5/lycoris", "SD 1.x 1.5 LyCORIS"),
        ] {
            assert_eq!(
                Recipe::parse(name).map(Recipe::title).as_deref(),
                Some(title)
            );
        }
    }

    #[test]
    fn only_clips_count_frames() {
        let flux = Recipe::parse("flux.dev/lora").expect("flux");
        assert_eq!(flux.at_frames(81), Some(flux));
        let wan = Recipe::parse("wan.ti2v-5b-2.2/lora").expect("wan");
        assert_eq!(wan.at_frames(1), Some(wan));
        let clip = wan.at_frames(49).expect("a class");
        assert_eq!(clip.name(), "wan.ti2v-5b-2.2/lora@49f");
        assert_eq!(clip.at_frames(1), Some(wan));
        assert_eq!(wan.at_frames(1_000), None);
        for recipe in Recipe::all() {
            for checkpointing in Checkpointing::ALL {
                let other = recipe.with_checkpointing(checkpointing);
                assert_eq!(Recipe::from_id(other.id()), Some(other));
                assert_eq!(other.checkpointing(), checkpointing);
            }
            for frames in 1..=241 {
                let other = recipe.at_frames(frames).expect("a class");
                assert_eq!(Recipe::from_id(other.id()), Some(other));
            }
        }
    }

    #[test]
    fn table_is_sorted_and_its_defaults_exist() {
        assert!(FAMILIES.is_sorted_by_key(|row| row.name));
        for family in Family::all() {
            let row = family.row();
            assert_eq!(Family::find(row.name), Some(family));
            assert!(
                family
                    .flavours()
                    .any(|flavour| flavour == row.untitled_flavour)
            );
            if let Some(default) = row.default_flavour {
                assert!(family.flavours().any(|flavour| flavour == default));
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_without_being_repeated() {
        let error = serde_json::from_str::<Recipe>("\"hf_secret_token\"").expect_err("unknown");
        assert!(!error.to_string().contains("hf_secret"), "{error}");
    }
}
