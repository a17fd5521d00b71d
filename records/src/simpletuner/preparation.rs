//! What is on a GPU before the steps: the settings that say how much memory encoding and loading take.

use serde::{Deserialize, Serialize};

use super::findings::Findings;
use super::model;
use super::settings::Settings;
use crate::key::Quantization;

/// How a run prepares itself, as far as it changes what it needs of a GPU's memory before its first step. The default is
/// SimpleTuner's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Preparation {
    /// Samples that are encoded at once (`vae_batch_size`, or 1 with `vae_enable_slicing`); `None` for
    /// [`Self::IMAGES_AT_ONCE`] images or one clip.
    pub encoded_at_once: Option<u32>,
    /// Whether samples are encoded in tiles (`vae_enable_tiling`).
    pub tiled: bool,
    /// Whether the text encoders wait in the host's memory while samples are encoded (`offload_during_startup`).
    pub encoders_offloaded: bool,
    /// How the text encoders are quantised: the narrowest of `text_encoder_1_precision` to `text_encoder_4_precision`, since
    /// who quantises one of several does it for the largest.
    pub encoders: Quantization,
    /// Whether weights are quantised before they come to the GPU (`quantize_via` other than `accelerator`).
    pub quantized_on_host: bool,
}

impl Preparation {
    /// Images that SimpleTuner 4.10.1 encodes at once unless it is told otherwise; clips it encodes one by one.
    pub const IMAGES_AT_ONCE: u32 = 4;

    /// How a configuration prepares itself, whose data loader encodes so many samples at once.
    pub(super) fn read(
        settings: &Settings<'_>,
        encoded_at_once: Option<u32>,
        found: &mut Findings,
    ) -> Self {
        let sliced = settings.flag("vae_enable_slicing", false, found);
        let precisions = [
            "text_encoder_1_precision",
            "text_encoder_2_precision",
            "text_encoder_3_precision",
            "text_encoder_4_precision",
        ];
        let encoders = precisions.into_iter().map(|name| {
            let said = settings.choice(name);
            said.map_or(Quantization::None, model::encoder_quantization)
        });
        let via = settings.choice("quantize_via");
        Self {
            encoded_at_once: if sliced { Some(1) } else { encoded_at_once },
            tiled: settings.flag("vae_enable_tiling", false, found),
            encoders_offloaded: settings.flag("offload_during_startup", false, found),
            encoders: encoders.max().unwrap_or_default(),
            quantized_on_host: via.is_some_and(|via| via != "accelerator"),
        }
    }
}
