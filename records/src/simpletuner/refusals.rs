//! What SimpleTuner 4.10.1 refuses by its own check, before anything is loaded (`safety_check.py`): on a worker each try would
//! cost a start.

use super::findings::Findings;
use super::model;
use super::settings::Settings;

/// Finds settings that it does not take together.
pub(super) fn check(settings: &Settings<'_>, found: &mut Findings) {
    let is_lora = settings.choice("model_type") == Some("lora");
    let controlnet = settings.flag("controlnet", false, found);
    if settings.choice("model_type").is_some() && !is_lora && !controlnet {
        quantised(settings, found);
    }
    if settings.flag("ramtorch", false, found) && blocks_to_swap(settings) {
        let what = "SimpleTuner does not swap blocks with ramtorch";
        let hint = "remove one of them";
        settings.problem("musubi_blocks_to_swap", what, hint, found);
    }
    if model::is_lycoris(settings) && settings.flag("train_text_encoder", false, found) {
        let what = "SimpleTuner does not train a text encoder by LyCORIS";
        let hint = "write false, or lora_type standard";
        settings.problem("train_text_encoder", what, hint, found);
    }
    let attention = settings.choice("attention_mechanism");
    let precision = settings.choice("base_model_precision");
    if attention.is_some_and(|name| name.contains("sageattention"))
        && precision.is_some_and(|name| name.contains("nf4"))
    {
        let what = "SimpleTuner does not use SageAttention with nf4";
        let hint = "write another base_model_precision or attention_mechanism";
        settings.problem("attention_mechanism", what, hint, found);
    }
}

/// The whole model is not trained in weights that are quantised, unless somebody insists.
fn quantised(settings: &Settings<'_>, found: &mut Findings) {
    const PRECISION: &str = "base_model_precision";
    const CONFIG: &str = "quantization_config";
    if settings.flag("i_know_what_i_am_doing", false, found) {
        return;
    }
    let precision = settings.choice(PRECISION);
    let what = "SimpleTuner quantises no model that is trained as a whole";
    if precision.is_some_and(|name| name != "no_change") {
        settings.problem(PRECISION, what, "write no_change, or train a LoRA", found);
    }
    if settings.has(CONFIG) {
        settings.problem(CONFIG, what, "remove it, or train a LoRA", found);
    }
}

fn blocks_to_swap(settings: &Settings<'_>) -> bool {
    settings.has("musubi_blocks_to_swap") && !settings.is_denied("musubi_blocks_to_swap")
}
