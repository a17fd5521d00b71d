//! What of a job's files is a person's own and no word of settings: prompts, captions, paths and names.

use serde_json::Value;

use super::settings;
use crate::order::{FileRole, JobFile};
use crate::redact::Text;

/// Settings that hold a name which a person has chosen.
const NAMES: [&str; 8] = [
    "bucket",
    "dataset_name",
    "hub_model_id",
    "resume_from_checkpoint",
    "tracker_project_name",
    "tracker_run_name",
    "aws_bucket_name",
    "aws_data_prefix",
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

/// What `resume_from_checkpoint` says where it names none.
const NEWEST: &str = "latest";

/// What must not appear in what the trainer prints though it is no secret.
pub(crate) fn private(files: &[JobFile]) -> Vec<Text> {
    let mut found = Vec::new();
    for file in files {
        if let Ok(value) = settings::value(file) {
            let is_prompt = file.role == FileRole::Prompts;
            collect(&value, "", is_prompt, &mut found);
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
            for (name, value) in members {
                let name = name.trim_start_matches('-');
                let is_prompt = is_prompt || name.contains("prompt");
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
                _ => found.extend(kind(text, name, is_prompt)),
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
    } else if is_prompt || has_blanks || (NAMES.contains(&name) && text != NEWEST) {
        Some(Text::Words(text.to_owned()))
    } else {
        None
    }
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
}
