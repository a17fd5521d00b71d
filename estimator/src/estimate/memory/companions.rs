//! What comes with each model before its steps: text encoders and the encoder of samples, by family and flavour.
//!
//! Which text encoders a family has is said in SimpleTuner 4.10.1 (`helpers/models`); their sizes are those that their
//! makers state, rounded, and where only a width of their output is known, those of the model of that width. What encoding
//! a sample holds at once was counted: the classes of diffusers 0.42.1 in bf16 on tensors without data, by the bytes of all
//! tensors that are alive at the same time.

use std::collections::HashMap;
use std::sync::LazyLock;

use stepcast_records::Recipe;

/// What comes with a family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Companions {
    family: &'static str,
    /// Billions of parameters of all text encoders together.
    pub(super) encoders_billions: f64,
    /// A part of a flavour's name, with what its text encoders have instead.
    flavours: &'static [(&'static str, f64)],
    /// What encodes samples; `None` where nothing is known of it, or nothing is encoded.
    pub(super) samples: Option<SampleEncoder>,
}

/// The half of an autoencoder that turns pixels into latents, in half precision unless it is said.
#[derive(Debug, Clone, Copy)]
pub(super) struct SampleEncoder {
    /// All of the autoencoder's weights, in GiB.
    pub(super) weights_gib: f64,
    /// What is alive at once for a megapixel of one frame, in GiB.
    megapixel_gib: f64,
    /// Frames that go through it together.
    frames: f64,
    /// The megapixels of a tile.
    tile: f64,
    /// Whether SimpleTuner has it work in tiles and sample by sample, whatever the configuration says.
    is_always_tiled: bool,
}

/// Pixels themselves, of a megapixel of one frame: three numbers of two bytes.
const PIXELS_GIB: f64 = 0.0056;

impl SampleEncoder {
    /// What is alive at once while samples of so many megapixels and frames are encoded, so many together, in GiB.
    pub(super) fn alive_gib(&self, megapixels: f64, frames: f64, samples: f64, tiled: bool) -> f64 {
        let is_tiled = tiled || self.is_always_tiled;
        let at_once = if is_tiled {
            megapixels.min(self.tile)
        } else {
            megapixels
        };
        let samples = if self.is_always_tiled { 1.0 } else { samples };
        let working = self.megapixel_gib * at_once * frames.min(self.frames);
        samples * (working + PIXELS_GIB * megapixels * frames)
    }
}

/// Images of Stable Diffusion and most that came after it.
const KL: Option<SampleEncoder> = Some(SampleEncoder {
    weights_gib: 0.16,
    megapixel_gib: 1.19,
    frames: 1.0,
    tile: 1.05,
    is_always_tiled: false,
});
const KL_TILED: Option<SampleEncoder> = tiled(KL);
/// Wan 2.1's for clips of four frames at a time, and Qwen-Image's, which is the same for an image.
const WAN: Option<SampleEncoder> = Some(SampleEncoder {
    weights_gib: 0.24,
    megapixel_gib: 1.80,
    frames: 4.0,
    tile: 0.066,
    is_always_tiled: false,
});
const WAN_TILED: Option<SampleEncoder> = tiled(WAN);
const KL_FLOAT32: Option<SampleEncoder> = in_float32(KL);
/// Sana's, which SimpleTuner keeps in float32 as it does FLUX.3's and MOSS's, whatever `vae_dtype` says.
const DC: Option<SampleEncoder> = in_float32(Some(SampleEncoder {
    weights_gib: 0.68,
    megapixel_gib: 1.67,
    tile: 0.26,
    ..known(KL)
}));
/// LTX's, where all frames go through together.
const LTX: Option<SampleEncoder> = Some(SampleEncoder {
    weights_gib: 0.78,
    megapixel_gib: 0.11,
    frames: f64::INFINITY,
    tile: 0.26,
    is_always_tiled: false,
});
const LTX2: Option<SampleEncoder> = Some(SampleEncoder {
    weights_gib: 2.28,
    megapixel_gib: 0.081,
    ..known(LTX)
});
/// HunyuanVideo's, sixteen frames at a time.
const HUNYUAN: Option<SampleEncoder> = Some(SampleEncoder {
    weights_gib: 0.46,
    megapixel_gib: 1.31,
    frames: 16.0,
    tile: 0.066,
    is_always_tiled: false,
});
const HUNYUAN_TILED: Option<SampleEncoder> = tiled(HUNYUAN);

const fn known(encoder: Option<SampleEncoder>) -> SampleEncoder {
    match encoder {
        Some(encoder) => encoder,
        None => panic!("it is one of those above"),
    }
}

const fn tiled(encoder: Option<SampleEncoder>) -> Option<SampleEncoder> {
    Some(SampleEncoder {
        is_always_tiled: true,
        ..known(encoder)
    })
}

const fn in_float32(encoder: Option<SampleEncoder>) -> Option<SampleEncoder> {
    let half = known(encoder);
    Some(SampleEncoder {
        weights_gib: 2.0 * half.weights_gib,
        megapixel_gib: 2.0 * half.megapixel_gib,
        ..half
    })
}

/// Text encoders by what they are called, in billions of parameters.
mod text {
    pub(super) const CLIP_L: f64 = 0.12;
    pub(super) const CLIP_G: f64 = 0.69;
    pub(super) const T5_XXL: f64 = 4.8;
    pub(super) const UMT5_XXL: f64 = 5.7;
    pub(super) const GEMMA2_2B: f64 = 2.6;
    pub(super) const LLAMA_8B: f64 = 8.0;
    pub(super) const QWEN25_VL_7B: f64 = 8.3;
    pub(super) const QWEN3_4B: f64 = 4.0;
    pub(super) const QWEN3_8B: f64 = 8.2;
    pub(super) const QWEN3_VL_4B: f64 = 4.4;
    pub(super) const QWEN3_VL_8B: f64 = 8.8;
}

const fn one(
    family: &'static str,
    encoders_billions: f64,
    samples: Option<SampleEncoder>,
) -> Companions {
    some(family, encoders_billions, &[], samples)
}

const fn some(
    family: &'static str,
    encoders_billions: f64,
    flavours: &'static [(&'static str, f64)],
    samples: Option<SampleEncoder>,
) -> Companions {
    Companions {
        family,
        encoders_billions,
        flavours,
        samples,
    }
}

const COMPANIONS: [Companions; 46] = [
    one("ace_step", 0.28, None),
    one("anima", 0.6, WAN),
    one("auraflow", 1.2, KL),
    one("boogu_image", text::QWEN3_VL_4B, KL),
    one("bria", text::T5_XXL, KL),
    one("chroma", text::T5_XXL, KL),
    one("cosmos", text::T5_XXL, WAN),
    one("cosmos3", 0.0, WAN),
    one("deepfloyd", text::T5_XXL, None),
    one("ernie", text::QWEN3_4B, KL),
    one("flux", text::CLIP_L + text::T5_XXL, KL),
    some(
        "flux2",
        text::QWEN3_8B,
        &[("dev", 24.0), ("klein-4b", text::QWEN3_4B)],
        KL,
    ),
    one("flux3_image", text::QWEN3_VL_4B, KL_FLOAT32),
    one("heartmula", 0.0, None),
    one(
        "hidream",
        text::CLIP_L + text::CLIP_G + text::T5_XXL + text::LLAMA_8B,
        KL_TILED,
    ),
    one("hunyuanvideo", text::QWEN25_VL_7B + 0.2, HUNYUAN),
    one("ideogram", text::QWEN3_VL_8B, KL),
    one("infinitetalk", text::UMT5_XXL, WAN_TILED),
    one("kandinsky5_image", text::CLIP_L + text::QWEN25_VL_7B, KL),
    one(
        "kandinsky5_video",
        text::CLIP_L + text::QWEN25_VL_7B,
        HUNYUAN_TILED,
    ),
    one("kolors", 6.2, KL),
    one("krea2", text::QWEN3_VL_4B, WAN),
    one("longcat_image", text::QWEN25_VL_7B, KL),
    one("longcat_video", text::QWEN25_VL_7B, WAN),
    one("ltxvideo", text::T5_XXL, LTX),
    one("ltxvideo2", 12.2, LTX2),
    one("lumina2", text::GEMMA2_2B, KL),
    one("mageflow", text::QWEN3_VL_4B, KL),
    one("minimaxh3", 33.0, HUNYUAN_TILED),
    one("minimaxmusic", 3.0, None),
    one("moss_image", 9.0, KL_FLOAT32),
    one("omnigen", 0.0, KL),
    one("pixart", text::T5_XXL, KL),
    one("qwen_image", text::QWEN25_VL_7B, WAN),
    one("sana", text::GEMMA2_2B, DC),
    one("sanavideo", text::GEMMA2_2B, WAN),
    one("sd1x", text::CLIP_L, KL),
    one("sd2x", 0.34, KL),
    one("sd3", text::CLIP_L + text::CLIP_G + text::T5_XXL, KL),
    one("sdxl", text::CLIP_L + text::CLIP_G, KL),
    one("stable_cascade", text::CLIP_G, None),
    one("wan", text::UMT5_XXL, WAN_TILED),
    one("wan_s2v", text::UMT5_XXL, WAN_TILED),
    one("z_image", text::QWEN3_4B, KL),
    one("z_image_omni", text::QWEN3_4B, KL),
    one("zlab_i1", 5.3, KL),
];

/// What comes with a recipe's model; `None` for a family that is not in the table.
pub(super) fn of(recipe: Recipe) -> Option<Companions> {
    static BY_FAMILY: LazyLock<HashMap<&str, Companions>> = LazyLock::new(|| {
        let each = COMPANIONS.iter();
        each.map(|companions| (companions.family, *companions))
            .collect()
    });
    let mut companions = *BY_FAMILY.get(recipe.family().name())?;
    let special = companions
        .flavours
        .iter()
        .find(|(part, _)| recipe.flavour().contains(part));
    if let Some((_, billions)) = special {
        companions.encoders_billions = *billions;
    }
    Some(companions)
}

#[cfg(test)]
mod tests {
    use stepcast_records::Family;

    use super::*;

    #[test]
    fn every_family_has_companions() {
        for family in Family::all() {
            let known = COMPANIONS.iter().any(|known| known.family == family.name());
            assert!(known, "{family}");
        }
        assert_eq!(COMPANIONS.len(), Family::all().count());
    }

    #[test]
    fn every_special_flavour_exists() {
        for known in &COMPANIONS {
            let family = Family::find(known.family).expect("family");
            for (part, _) in known.flavours {
                let found = family.flavours().any(|flavour| flavour.contains(part));
                assert!(found, "{family} {part}");
            }
        }
    }

    /// As they were counted, in GiB: whole images and clips, and the same in tiles.
    #[test]
    fn what_is_alive_is_what_was_counted() {
        let counted = [
            (KL, 1.049, 1.0, 4.0, false, 5.00),
            (KL, 4.194, 1.0, 1.0, true, 1.28),
            (WAN, 1.049, 1.0, 4.0, false, 7.56),
            (WAN, 0.399, 81.0, 1.0, false, 2.95),
            (WAN_TILED, 0.399, 81.0, 1.0, false, 0.64),
            // In half precision it was half of that.
            (DC, 1.049, 1.0, 4.0, false, 14.00),
            (LTX, 0.399, 81.0, 1.0, false, 3.55),
            (LTX, 0.399, 41.0, 1.0, false, 1.80),
            (LTX2, 0.399, 81.0, 1.0, false, 2.61),
            (HUNYUAN, 0.399, 81.0, 1.0, false, 8.49),
            (HUNYUAN_TILED, 0.399, 81.0, 1.0, false, 1.56),
        ];
        for (encoder, megapixels, frames, samples, tiled, gib) in counted {
            let encoder = encoder.expect("there is one");
            let said = encoder.alive_gib(megapixels, frames, samples, tiled);
            let off = (said / gib - 1.0).abs();
            assert!(off < 0.08, "{encoder:?}: {said} instead of {gib}");
        }
    }
}
