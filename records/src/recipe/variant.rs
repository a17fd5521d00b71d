//! What changes the cost of a step within one model: the method, gradient checkpointing and the clip's length.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// How the model is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A standard low-rank adapter (`model_type` lora, `lora_type` standard).
    Lora,
    /// A LyCORIS adapter of any algorithm (`model_type` lora, `lora_type` lycoris).
    Lycoris,
    /// Every weight (`model_type` full).
    Full,
    /// A full ControlNet beside the frozen model (`controlnet` with `model_type` full).
    #[serde(rename = "controlnet")]
    ControlNet,
    /// A low-rank ControlNet (`controlnet` with `model_type` lora).
    #[serde(rename = "controlnet-lora")]
    ControlNetLora,
}

impl Method {
    /// Every method, in the order of its number.
    pub const ALL: [Self; 5] = [
        Self::Lora,
        Self::Lycoris,
        Self::Full,
        Self::ControlNet,
        Self::ControlNetLora,
    ];

    /// The word in a recipe's name, such as `controlnet-lora`.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Lycoris => "lycoris",
            Self::Full => "full",
            Self::ControlNet => "controlnet",
            Self::ControlNetLora => "controlnet-lora",
        }
    }

    /// The words people read, such as `full fine-tune`.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Lora => "LoRA",
            Self::Lycoris => "LyCORIS",
            Self::Full => "full fine-tune",
            Self::ControlNet => "ControlNet",
            Self::ControlNetLora => "ControlNet LoRA",
        }
    }

    /// Whether the method trains a ControlNet, which not every family has.
    #[must_use]
    pub const fn is_controlnet(self) -> bool {
        matches!(self, Self::ControlNet | Self::ControlNetLora)
    }

    /// Permanent number inside a recipe's id.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Lora => 0,
            Self::Lycoris => 1,
            Self::Full => 2,
            Self::ControlNet => 3,
            Self::ControlNetLora => 4,
        }
    }
}

/// Whether activations are recomputed in the backward pass, over all layers.
///
/// Of all settings outside the policy's fields this one explains most of the spread between step times that
/// otherwise share a key (a median factor of 1.55 in SimpleTuner's own sweep). The finer modes (intervals,
/// offload, other back ends) have no recipe, so a run that uses them leaves no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checkpointing {
    /// Activations are kept.
    Off,
    /// Plain full-layer gradient checkpointing, SimpleTuner's default.
    On,
}

impl Checkpointing {
    /// Both, in the order of their number.
    pub const ALL: [Self; 2] = [Self::Off, Self::On];

    /// What a recipe's name carries for it.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Off => "",
            Self::On => "+ckpt",
        }
    }

    /// Permanent number inside a recipe's id.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Off => 0,
            Self::On => 1,
        }
    }
}

/// How many frames one sample of a video recipe has, in classes, because tokens grow with frames.
///
/// The policy has no field for frames, so the class belongs to the recipe. Image and audio recipes are always
/// [`FrameClass::Single`]. Classes are declared in the order of their permanent numbers, by which the log knows them, and
/// compare by the length of their clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameClass {
    /// One frame: an image.
    Single,
    /// 2 to 17 frames.
    UpTo17,
    /// 18 to 33 frames.
    UpTo33,
    /// 34 to 49 frames.
    UpTo49,
    /// 50 to 65 frames.
    UpTo65,
    /// 66 to 81 frames.
    UpTo81,
    /// 82 to 121 frames.
    UpTo121,
    /// 194 to 241 frames.
    UpTo241,
    /// 122 to 129 frames, among them SimpleTuner's default of five seconds.
    UpTo129,
    /// 130 to 161 frames.
    UpTo161,
    /// 162 to 193 frames.
    UpTo193,
}

impl FrameClass {
    /// Every class, shortest clips first.
    pub const ALL: [Self; 11] = [
        Self::Single,
        Self::UpTo17,
        Self::UpTo33,
        Self::UpTo49,
        Self::UpTo65,
        Self::UpTo81,
        Self::UpTo121,
        Self::UpTo129,
        Self::UpTo161,
        Self::UpTo193,
        Self::UpTo241,
    ];

    /// The class of a clip; `None` for no frames or more than 241.
    #[must_use]
    pub fn from_frames(frames: u32) -> Option<Self> {
        if frames == 0 {
            return None;
        }
        Self::ALL
            .into_iter()
            .find(|class| frames <= class.max_frames())
    }

    /// The class that holds these clips where there are only the eight classes that there were first: logs before format 3
    /// know no others.
    #[must_use]
    pub const fn in_first_classes(self) -> Self {
        match self {
            Self::UpTo129 | Self::UpTo161 | Self::UpTo193 => Self::UpTo241,
            first => first,
        }
    }

    /// The most frames a clip of this class has.
    #[must_use]
    pub const fn max_frames(self) -> u32 {
        match self {
            Self::Single => 1,
            Self::UpTo17 => 17,
            Self::UpTo33 => 33,
            Self::UpTo49 => 49,
            Self::UpTo65 => 65,
            Self::UpTo81 => 81,
            Self::UpTo121 => 121,
            Self::UpTo129 => 129,
            Self::UpTo161 => 161,
            Self::UpTo193 => 193,
            Self::UpTo241 => 241,
        }
    }

    /// What a recipe's name carries for it.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Single => "",
            Self::UpTo17 => "@17f",
            Self::UpTo33 => "@33f",
            Self::UpTo49 => "@49f",
            Self::UpTo65 => "@65f",
            Self::UpTo81 => "@81f",
            Self::UpTo121 => "@121f",
            Self::UpTo129 => "@129f",
            Self::UpTo161 => "@161f",
            Self::UpTo193 => "@193f",
            Self::UpTo241 => "@241f",
        }
    }

    /// Permanent number inside a recipe's id and in the log.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Single => 0,
            Self::UpTo17 => 1,
            Self::UpTo33 => 2,
            Self::UpTo49 => 3,
            Self::UpTo65 => 4,
            Self::UpTo81 => 5,
            Self::UpTo121 => 6,
            Self::UpTo241 => 7,
            Self::UpTo129 => 8,
            Self::UpTo161 => 9,
            Self::UpTo193 => 10,
        }
    }
}

impl PartialOrd for FrameClass {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FrameClass {
    fn cmp(&self, other: &Self) -> Ordering {
        self.max_frames().cmp(&other.max_frames())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_order_of_the_lists_and_fit_their_bits() {
        for (index, method) in (0u16..).zip(Method::ALL) {
            assert_eq!(method.number(), index);
            assert!(index < 8, "three bits");
        }
        let mut numbers = FrameClass::ALL.map(FrameClass::number);
        numbers.sort_unstable();
        assert!((0..11).eq(numbers));
        for class in FrameClass::ALL {
            assert_eq!(class as u16, class.number(), "the log's number");
            assert!(class.number() < 16, "three bits, and one above the flavour");
        }
        for (index, checkpointing) in (0u16..).zip(Checkpointing::ALL) {
            assert_eq!(checkpointing.number(), index);
        }
    }

    #[test]
    fn a_clip_falls_in_the_first_class_that_holds_it() {
        for (frames, class) in [
            (0, None),
            (1, Some(FrameClass::Single)),
            (2, Some(FrameClass::UpTo17)),
            (17, Some(FrameClass::UpTo17)),
            (18, Some(FrameClass::UpTo33)),
            (49, Some(FrameClass::UpTo49)),
            (61, Some(FrameClass::UpTo65)),
            (81, Some(FrameClass::UpTo81)),
            (93, Some(FrameClass::UpTo121)),
            (125, Some(FrameClass::UpTo129)),
            (129, Some(FrameClass::UpTo129)),
            (130, Some(FrameClass::UpTo161)),
            (162, Some(FrameClass::UpTo193)),
            (194, Some(FrameClass::UpTo241)),
            (241, Some(FrameClass::UpTo241)),
            (242, None),
        ] {
            assert_eq!(FrameClass::from_frames(frames), class, "{frames} frames");
        }
    }

    #[test]
    fn longer_clips_are_of_a_greater_class_and_the_first_classes_hold_all() {
        assert!(FrameClass::ALL.is_sorted_by(|a, b| a < b));
        for class in FrameClass::ALL {
            let first = class.in_first_classes();
            assert!(first.number() < 8 && first >= class, "{class:?}");
            let between = |other: &FrameClass| (class..first).contains(other) && other.number() < 8;
            assert!(!FrameClass::ALL.iter().any(between), "{class:?}");
        }
    }
}
