//! The settings that change how long a step takes and have no place in the records.
//!
//! What is not in this table has little or no effect on the time of a step (the optimizer, a rank, a loss) or is
//! part of the key itself.

use super::findings::Findings;
use super::off_record::OffRecord::{
    self, Attention, CheckpointingMode, Compile, Control, Ema, ModelSetting, Objective, Offload,
    OnDemandCache, Precision, Quantization, Sharding, TextEncoder, ValidationMethod,
    ValidationSetting,
};
use super::settings::{Given, Settings};
use super::weights;

/// When a setting takes a run off the record.
#[derive(Debug, Clone, Copy)]
enum When {
    /// The flag is on.
    On,
    /// There is a value at all.
    Given,
    /// The whole number is larger.
    Above(u64),
    /// The choice is another one.
    Not(&'static [&'static str]),
}

use When::{Above, Given as IsGiven, Not, On};

const EFFECTS: &[(&str, When, OffRecord)] = &[
    (
        "gradient_checkpointing_interval",
        Above(1),
        CheckpointingMode,
    ),
    (
        "gradient_checkpointing_segment_stride",
        Above(1),
        CheckpointingMode,
    ),
    (
        "gradient_checkpointing_backend",
        Not(&["torch"]),
        CheckpointingMode,
    ),
    (
        "gradient_checkpointing_offload_attention",
        On,
        CheckpointingMode,
    ),
    // The default picks PyTorch's own attention on most GPUs, and so do the other two.
    (
        "attention_mechanism",
        Not(&["kohaku-fa-auto", "diffusers", "native"]),
        Attention,
    ),
    ("fuse_qkv_projections", On, Attention),
    ("minimax_h3_sparse_attention", Not(&["disabled"]), Attention),
    ("dynamo_backend", Not(&["no"]), Compile),
    ("ramtorch", On, Offload),
    ("musubi_blocks_to_swap", Above(0), Offload),
    ("optimizer_cpu_offload_method", Not(&["none"]), Offload),
    ("optimizer_offload_gradients", On, Offload),
    ("enable_chunked_feed_forward", On, ModelSetting),
    ("fsdp_enable", On, Sharding),
    ("deepspeed_config", IsGiven, Sharding),
    ("context_parallel_size", Above(1), Sharding),
    ("use_ema", On, Ema),
    ("tread_config", IsGiven, Objective),
    ("diffusion_blocks_config", IsGiven, Objective),
    ("crepa_enabled", On, Objective),
    ("irepa_enabled", On, Objective),
    ("urepa_enabled", On, Objective),
    ("layersync_enabled", On, Objective),
    ("twinflow_enabled", On, Objective),
    ("internal_guidance_enabled", On, Objective),
    ("xm_enabled", On, Objective),
    ("nextlat_enabled", On, Objective),
    ("diff2flow_enabled", On, Objective),
    ("slider_lora_target", On, Objective),
    ("scheduled_sampling_max_step_offset", Above(0), Objective),
    ("distillation_method", IsGiven, Objective),
    ("max_grounding_entities", Above(0), Objective),
    ("train_text_encoder", On, TextEncoder),
    ("lyrics_embedder_train", On, TextEncoder),
    ("vae_cache_ondemand", On, OnDemandCache),
    ("vae_cache_disable", On, OnDemandCache),
    ("text_cache_ondemand", On, OnDemandCache),
    ("text_cache_disable", On, OnDemandCache),
    ("control", On, Control),
    ("quantization_config", IsGiven, Quantization),
    ("quantize_activations", On, Quantization),
    ("sdnq_use_hadamard", On, Quantization),
    ("sdnq_use_quantized_matmul", On, Quantization),
    ("sdnq_use_svd", On, Quantization),
    ("sdnq_dequantize_fp32", On, Quantization),
    ("sdnq_use_stochastic_rounding", On, Quantization),
    ("sdnq_compile_mode", Not(&["auto"]), Quantization),
    ("sdnq_weights_dtype", IsGiven, Quantization),
    ("sdnq_modules_dtype_dict", IsGiven, Quantization),
    ("sdnq_modules_quant_config", IsGiven, Quantization),
    ("base_model_default_dtype", Not(&["bf16"]), Precision),
    ("disable_tf32", On, Precision),
    ("use_dora", On, ModelSetting),
    ("peft_lora_mode", Not(&["standard"]), ModelSetting),
    ("peft_lora_target_modules", IsGiven, ModelSetting),
    ("layer_freeze_strategy", Not(&["none"]), ModelSetting),
    ("unet_attention_slice", On, ModelSetting),
    ("flux_attention_masked_training", On, ModelSetting),
    (
        "minimax_music_train_component",
        Not(&["transformer"]),
        ModelSetting,
    ),
    ("assistant_lora_path", IsGiven, ModelSetting),
    ("krea2_reference_latents", On, Control),
    ("validation_preview", On, ValidationSetting),
    (
        "validation_method",
        Not(&["simpletuner-local"]),
        ValidationMethod,
    ),
    (
        "validation_multigpu",
        Not(&["batch-parallel"]),
        ValidationSetting,
    ),
    (
        "validation_guidance_skip_layers",
        IsGiven,
        ValidationSetting,
    ),
    // Another stage or another model behind the one that is trained.
    (
        "deepfloyd_validation_pipeline_mode",
        Not(&["auto", "trained-stage"]),
        ValidationSetting,
    ),
    (
        "ltx2_validation_pipeline_mode",
        Not(&["trained-stage"]),
        ValidationSetting,
    ),
    (
        "pixart_validation_pipeline_mode",
        Not(&["trained-stage"]),
        ValidationSetting,
    ),
    (
        "sdxl_validation_pipeline_mode",
        Not(&["trained-stage"]),
        ValidationSetting,
    ),
    ("wan_validation_load_other_stage", On, ValidationSetting),
];

/// Whether samples are encoded before the steps.
const PREPROCESS: &str = "vae_cache_preprocess";

/// Takes the run off the record for every setting that has no place in it.
pub(super) fn check(settings: &Settings<'_>, found: &mut Findings) {
    let checkpointing = !matches!(settings.given("gradient_checkpointing"), Some(Given::False));
    for &(setting, when, reason) in EFFECTS {
        if reason == CheckpointingMode && !checkpointing {
            continue;
        }
        if applies(setting, when, settings, found) {
            found.off_record(setting, reason);
        }
    }
    // An older setting, which is the other way round.
    if settings.is_denied(PREPROCESS) {
        found.off_record(PREPROCESS, OnDemandCache);
    }
    // Weights that are quantised already (`base_paths` in `trainer.py`).
    for setting in weights::SETTINGS {
        let weights = settings.text(setting, found);
        if weights.is_some_and(|weights| weights.to_ascii_lowercase().ends_with(".gguf")) {
            found.off_record(setting, Quantization);
        }
    }
    evaluation(settings, found);
}

/// An evaluation between two steps counts as part of the later one: SimpleTuner says nothing of it. It changes no step,
/// so the records say as much of the training as ever.
fn evaluation(settings: &Settings<'_>, found: &mut Findings) {
    let given: Vec<&'static str> = ["eval_steps_interval", "eval_epoch_interval"]
        .into_iter()
        .filter(|setting| {
            let interval = settings.text(setting, found).map(str::parse::<f64>);
            matches!(interval, Some(Ok(interval)) if interval > 0.0)
        })
        .collect();
    for setting in given {
        if !settings.flag("validation_disable", false, found)
            && !settings.flag("eval_loss_disable", false, found)
        {
            found.off_record(setting, ValidationMethod);
        }
    }
}

fn applies(
    setting: &'static str,
    when: When,
    settings: &Settings<'_>,
    found: &mut Findings,
) -> bool {
    match when {
        On => settings.flag(setting, false, found),
        IsGiven => settings.has(setting),
        Above(number) => settings
            .whole(setting, 0..=u64::MAX, found)
            .is_some_and(|given| given > number),
        Not(choices) => settings
            .choice(setting)
            .is_some_and(|choice| !choices.contains(&choice)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary;
    use super::*;

    #[test]
    fn every_setting_of_the_table_is_one_of_simpletuners() {
        for setting in weights::SETTINGS.into_iter().chain([PREPROCESS]) {
            assert!(vocabulary::setting(setting).is_some(), "{setting}");
        }
        for (setting, when, _) in EFFECTS {
            assert!(vocabulary::setting(setting).is_some(), "{setting}");
            if let Not(plain) = when {
                let choices = vocabulary::choices(setting).expect("a closed list");
                assert!(
                    plain.iter().all(|choice| choices.contains(choice)),
                    "{setting}"
                );
            }
        }
    }
}
