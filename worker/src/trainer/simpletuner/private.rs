//! What of a job's files is a person's own and no word of settings: prompts, captions, paths and names.

use serde_json::Value;

use super::settings;
use crate::order::{FileRole, JobFile};
use crate::redact::Text;

/// Settings that hold a name which a person has chosen.
const NAMES: [&str; 17] = [
    "bucket",
    "data_files",
    "dataset_name",
    "dynamo_hub_repo_id",
    "hub_model_id",
    "init_lora",
    "repo_id",
    "resume_from_checkpoint",
    "source",
    "source_dataset_id",
    "subfolder",
    "tracker_project_name",
    "tracker_run_name",
    ADAPTERS,
    "validation_adapter_name",
    "aws_bucket_name",
    "aws_data_prefix",
];

/// Settings whose files are called by their names without what these lie in.
const BY_STEM: [&str; 3] = ["init_lora", ADAPTERS, "validation_adapter_path"];

/// Everything in it is a path or a name, whatever it is called.
const ADAPTERS: &str = "validation_adapter_config";

/// Names that SimpleTuner gives where nobody has chosen one, and what `resume_from_checkpoint` says where it names none.
const NOBODY_S: [&str; 4] = [
    "latest",
    "pytorch_lora_weights",
    "simpletuner",
    "simpletuner-testing",
];

/// Ends of the names of settings that hold a path.
const PATHS: [&str; 6] = [
    "_dir",
    "_path",
    "_folder",
    "_file",
    "data_backend_config",
    "user_prompt_library",
];

/// Those that end so and hold the name of a model.
const MODELS: &str = "model_name_or_path";

/// What must not appear in what the trainer prints though it is no secret.
pub(crate) fn private(files: &[JobFile]) -> Vec<Text> {
    let mut found = Vec::new();
    for file in files {
        if let Ok(value) = settings::value(file) {
            let is_prompt = file.role == FileRole::Prompts;
            collect(&value, "", is_prompt, &mut found);
            if let (Value::Object(prompts), true) = (&value, is_prompt) {
                // Pictures are called by them.
                found.extend(prompts.keys().cloned().map(Text::Words));
            }
            if file.role == FileRole::DataLoader {
                found.extend(data_sets(&value));
            }
        }
    }
    found
}

fn data_sets(loader: &Value) -> Vec<Text> {
    let entries = loader.as_array().into_iter().flatten();
    let named = (1..).zip(entries).filter_map(|(number, entry)| {
        let name = entry.get("id")?.as_str()?;
        Some(Text::DataSet(name.to_owned(), number))
    });
    named.collect()
}

/// Everything under the name of a prompt is one.
fn collect(value: &Value, name: &str, is_prompt: bool, found: &mut Vec<Text>) {
    match value {
        Value::Object(members) => {
            for (inner, value) in members {
                let inner = inner.trim_start_matches('-');
                let is_prompt = is_prompt || inner.contains("prompt");
                let name = if name == ADAPTERS { name } else { inner };
                collect(value, name, is_prompt, found);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect(item, name, is_prompt, found)),
        Value::String(text) => {
            let is_structure = text.trim_start().starts_with(['[', '{']);
            match is_structure.then(|| serde_json::from_str::<Value>(text)) {
                Some(Ok(value @ (Value::Object(_) | Value::Array(_)))) => {
                    collect(&value, name, is_prompt, found);
                }
                _ => {
                    found.extend(kind(text, name, is_prompt));
                    found.extend(others(text, name));
                }
            }
        }
        _ => {}
    }
}

fn kind(text: &str, name: &str, is_prompt: bool) -> Option<Text> {
    let has_blanks = text.trim().contains(char::is_whitespace);
    let is_path = text.starts_with(['/', '~', '.'])
        || text.contains("://")
        || text.contains('\\')
        || text.matches('/').count() > 1
        || (PATHS.iter().any(|end| name.ends_with(end)) && !name.ends_with(MODELS));
    if is_path && !(has_blanks && is_prompt) {
        Some(Text::Path(text.to_owned()))
    } else if is_prompt || has_blanks || (NAMES.contains(&name) && !NOBODY_S.contains(&text)) {
        Some(Text::Words(text.to_owned()))
    } else {
        None
    }
}

/// What else the same is called in what is printed: a file by its name alone, and a repository as the hub's folders are.
fn others(text: &str, name: &str) -> Vec<Text> {
    let mut others = Vec::new();
    let text = text.trim().trim_end_matches('/');
    if BY_STEM.contains(&name) {
        // A repository may have the name of a file behind it.
        for path in text.split(':') {
            let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
            others.push(
                file.rsplit_once('.')
                    .map_or(file, |(stem, _)| stem)
                    .to_owned(),
            );
        }
    }
    if NAMES.contains(&name) && text.matches('/').count() == 1 {
        others.push(text.replace('/', "--"));
    }
    others.retain(|other| !NOBODY_S.contains(&other.as_str()));
    others.into_iter().map(Text::Words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redactor;

    fn file(role: FileRole, name: &str, text: &str) -> JobFile {
        JobFile {
            role,
            name: name.to_owned(),
            bytes: text.as_bytes().to_vec(),
        }
    }

    #[test]
    fn what_a_person_has_written_is_taken_out_and_words_of_settings_stay() {
        let files = [
            file(
                FileRole::Config,
                "config.json",
                r#"{"--model_type": "lora", "pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev",
                    "validation_prompt": "CANARY of my daughter anna", "validation_negative_prompt": "CANARYNEG",
                    "output_dir": "/home/CANARY/out", "tracker_run_name": "CANARYRUN", "lr_scheduler": "polynomial",
                    "user_prompt_library": "config/CANARY.json"}"#,
            ),
            file(
                FileRole::DataLoader,
                "multidatabackend.json",
                r#"[{"id": "tiny-images", "type": "local", "caption_strategy": "instanceprompt",
                    "instance_prompt": ["CANARYCAPTION anna smith"],
                    "instance_data_dir": "/tmp/x/CANARYFOLDER/images"}]"#,
            ),
            file(
                FileRole::Prompts,
                "prompts.json",
                r#"{"cat": "CANARYLIBRARY"}"#,
            ),
        ];
        let redactor = Redactor::default().with_private(private(&files));
        for (line, clean) in [
            (
                "[INFO] Configuring data backend: tiny-images: {'id': 'tiny-images', 'type': 'local', 'instance_data_dir': \
                 '/tmp/x/CANARYFOLDER/images', 'caption_strategy': 'instanceprompt', 'instance_prompt': \
                 ['CANARYCAPTION anna smith']}",
                "[INFO] Configuring data backend: [data set 1]: {'id': '[data set 1]', 'type': 'local', 'instance_data_dir': \
                 '[private]', 'caption_strategy': 'instanceprompt', 'instance_prompt': ['[private]']}",
            ),
            (
                "Precomputing the negative prompt embed for validations: CANARYNEG",
                "Precomputing the negative prompt embed for validations: [private]",
            ),
            (
                "work_item_prompts=['', 'CANARY of my daughter anna', 'CANARYLIBRARY']",
                "work_item_prompts=['', '[private]', '[private]']",
            ),
            (
                "run CANARYRUN in /home/CANARY/out/checkpoint-10 of config/CANARY.json",
                "run [private] in [private]",
            ),
            (
                "black-forest-labs/FLUX.1-dev as a lora, polynomial",
                "black-forest-labs/FLUX.1-dev as a lora, polynomial",
            ),
        ] {
            assert_eq!(redactor.clean(line), clean);
        }
    }

    #[test]
    fn adapters_caches_and_names_of_prompts_are_a_person_s_and_defaults_nobody_s() {
        let files = [
            file(
                FileRole::Config,
                "config.json",
                r#"{"validation_adapter_path": "/data/loras/CANARY-one.safetensors", "validation_adapter_name": "CANARYNAME",
                    "validation_adapter_config": "{\"runs\": [{\"label\": \"CANARY-two\", \"adapters\": [\"CANARYUSER/CANARY-3.v2:w.safetensors\"]}]}",
                    "dynamo_hub_repo_id": "CANARYUSER/face-cache", "init_lora": "CANARYUSER/daughter",
                    "tracker_project_name": "simpletuner", "tracker_run_name": "simpletuner-testing"}"#,
            ),
            file(
                FileRole::DataLoader,
                "multidatabackend.json",
                r#"[{"id": "images", "type": "huggingface", "dataset_name": "CANARYUSER/set", "subfolder": "CANARYSUB",
                    "data_files": ["CANARYFILE-*.parquet"]}, {"id": "b", "type": "webshart", "source": "CANARYSOURCE"}]"#,
            ),
            file(
                FileRole::Prompts,
                "prompts.json",
                r#"{"CANARY_at_home": "x", "CANARYKEY": {"prompt": "y", "adapter_strength": 1}}"#,
            ),
        ];
        let redactor = Redactor::default().with_private(private(&files));
        for line in [
            "Running validation with adapter set 'CANARY-one' containing 1 adapter(s).",
            "adapter CANARYNAME of CANARY-two, CANARY-3",
            "Published Dynamo Mega-Cache to CANARYUSER/face-cache/x",
            "404 for url: https://huggingface.co/CANARYUSER/daughter/x, models--CANARYUSER--daughter, adapter daughter",
            "{'dataset_name': 'CANARYUSER/set', 'subfolder': 'CANARYSUB', 'data_files': ['CANARYFILE-*.parquet']}",
            "'source': 'CANARYSOURCE'",
            "step_10_CANARY_at_home_0.png of CANARYKEY",
        ] {
            let clean = redactor.clean(line);
            assert!(!clean.contains("CANARY"), "{clean}");
            assert!(!clean.contains("daughter"), "{clean}");
        }
        for line in [
            "File \"/opt/venv/lib/python3.12/site-packages/simpletuner/helpers/training/trainer.py\", line 4364",
            "project simpletuner, run simpletuner-testing, adapter_strength 1",
        ] {
            assert_eq!(redactor.clean(line), line);
        }
    }
}
