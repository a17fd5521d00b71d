//! The jobs that people submit here: short runs, each with a key of its own as far as the keys reach.

use stepcast_proto::v1;

/// Families and flavours whose configuration differs in these two words alone.
const MODELS: [(&str, &str); 10] = [
    ("flux", "dev"),
    ("flux", "krea"),
    ("flux", "schnell"),
    ("sd3", "medium"),
    ("sd3", "large"),
    ("sdxl", "base-1.0"),
    ("chroma", "base"),
    ("chroma", "hd"),
    ("qwen_image", "v1.0"),
    ("lumina2", "2.0"),
];

/// Steps of a run: warm-up, and enough clean ones for a sample.
const STEPS: u64 = 45;

/// The configuration of the `number`th job.
pub(crate) fn files(number: u64) -> Vec<v1::JobFile> {
    let (family, flavour) = MODELS[(number % 10) as usize];
    let checkpointing = (number / 10).is_multiple_of(2);
    let precision = ["bf16", "fp16"][(number / 20 % 2) as usize];
    let quantization = ["no_change", "int8-quanto", "nf4-bnb"][(number / 40 % 3) as usize];
    let config = serde_json::json!({
        "model_family": family, "model_flavour": flavour, "model_type": "lora", "lora_type": "standard", "lora_rank": 16,
        "output_dir": "output", "data_backend_config": "multidatabackend.json", "optimizer": "adamw_bf16",
        "mixed_precision": precision, "base_model_precision": quantization, "gradient_checkpointing": checkpointing,
        "train_batch_size": 1, "gradient_accumulation_steps": 1, "resolution": 512, "resolution_type": "pixel_area",
        "max_train_steps": STEPS, "num_train_epochs": 0, "checkpoint_step_interval": 20, "validation_disable": true,
        "disable_benchmark": true,
    });
    let loader = serde_json::json!([
        {"id": "images", "type": "local", "dataset_type": "image", "instance_data_dir": "images", "resolution": 512,
         "resolution_type": "pixel_area", "caption_strategy": "filename", "cache_dir_vae": "cache/vae"},
        {"id": "text", "type": "local", "dataset_type": "text_embeds", "default": true, "cache_dir": "cache/text"},
    ]);
    let file = |role: v1::FileRole, name: &str, content: serde_json::Value| v1::JobFile {
        role: role.into(),
        name: name.to_owned(),
        content: content.to_string().into_bytes(),
    };
    vec![
        file(v1::FileRole::Config, "config.json", config),
        file(v1::FileRole::DataLoader, "multidatabackend.json", loader),
    ]
}
