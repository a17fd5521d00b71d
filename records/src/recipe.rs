//! Recipes: the closed registry of model family, flavour and method that a benchmark record may name.
//!
//! A recipe's name is `family.flavour/method[+ckpt][@<frames>f]`, for example `flux.dev/lora+ckpt` or
//! `wan.t2v-480p-1.3b-2.1/lora+ckpt@81f`. Its id is a `u16` that never changes. What is not in the registry
//! has no recipe and leaves no record, so no text of a user can reach a record through here.

mod registry;
#[cfg(test)]
mod tests;
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
        Some(Self((self.0 & !FRAMES_MASK) | frame_bits(class)))
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
const FRAMES_LOW: u16 = 0b111;
/// From the fourth bit of a frame class to the id's uppermost: the first eight classes took three, and the flavour begins
/// behind them.
const FRAMES_HIGH_SHIFT: u16 = 12;
const FRAMES_MASK: u16 = (FRAMES_LOW << FRAMES_SHIFT) | (1 << 15);
const FLAVOUR_SHIFT: u16 = 7;

/// The id: the fourth bit of the frame class, eight bits of flavour, three of frame class, three of method, one of
/// checkpointing.
const fn compose(
    flavour: u16,
    method: Method,
    checkpointing: Checkpointing,
    frames: FrameClass,
) -> u16 {
    (flavour << FLAVOUR_SHIFT)
        | frame_bits(frames)
        | (method.number() << METHOD_SHIFT)
        | checkpointing.number()
}

const fn frame_bits(frames: FrameClass) -> u16 {
    let number = frames.number();
    ((number & FRAMES_LOW) << FRAMES_SHIFT) | ((number & !FRAMES_LOW) << FRAMES_HIGH_SHIFT)
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
    /// Where the entry of each id stands: recipes are asked for their parts in every estimate, many times.
    places: Vec<Option<u16>>,
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
        let mut places = vec![None; entries.last().map_or(0, |last| usize::from(last.id) + 1)];
        for (place, entry) in (0u16..).zip(&entries) {
            places[usize::from(entry.id)] = Some(place);
        }
        Self {
            entries,
            places,
            by_name,
        }
    }

    fn index(&self, id: u16) -> Option<usize> {
        let place = self.places.get(usize::from(id)).copied().flatten()?;
        Some(usize::from(place))
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
