//! SimpleTuner's own settings, as they were submitted and as they are for this host.

use serde_json::{Map, Value, json};
use stepcast_records::simpletuner::{Length, is_in_bucket};

use super::super::Error;
use crate::order::{FileRole, JobFile};

/// Keys of SimpleTuner's servers that its trainer refuses.
const NOT_THE_TRAINER_S: [&str; 1] = ["max_runtime_minutes"];

/// Number formats that `accelerate` takes.
const MIXED_PRECISIONS: [&str; 4] = ["no", "fp16", "bf16", "fp8"];

/// A flat object whose keys carry no leading dashes.
pub(super) struct Settings(Value);

impl Settings {
    /// Reads the job's settings in any of the forms that can be written down again.
    pub(super) fn read(files: &[JobFile]) -> Result<Self, Error> {
        let file = files.iter().find(|file| file.role == FileRole::Config);
        let file = file.ok_or_else(|| {
            Error::Settings("the configuration was not submitted with the job".to_owned())
        })?;
        let Value::Object(members) = value(file)? else {
            return Err(Error::Settings(format!(
                "{} is not one object of settings",
                file.name
            )));
        };
        let plain = members
            .into_iter()
            .map(|(key, value)| (key.trim_start_matches('-').to_owned(), value));
        let kept = plain.filter(|(key, _)| !NOT_THE_TRAINER_S.contains(&key.as_str()));
        Ok(Self(Value::Object(kept.collect::<Map<_, _>>())))
    }

    pub(super) fn value(&self) -> &Value {
        &self.0
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        self.0[key] = value;
    }

    /// What `accelerate` is to be told, as the configuration has it.
    pub(super) fn mixed_precision(&self) -> &'static str {
        let written = self.0["mixed_precision"].as_str().unwrap_or_default();
        // SimpleTuner's default where nothing is written.
        MIXED_PRECISIONS
            .into_iter()
            .find(|known| *known == written)
            .unwrap_or("bf16")
    }

    /// Webhooks go to this worker and nowhere else: a receiver of the user's could slow the training down.
    pub(super) fn receive_webhooks(&mut self, url: &str, token: &str) {
        let webhook = json!([{"webhook_type": "raw", "callback_url": url, "auth_token": token, "log_level": "info"}]);
        self.set("webhook_config", webhook);
        if self.0["report_to"].is_null() {
            // SimpleTuner would start a TensorBoard writer.
            self.set("report_to", Value::from("none"));
        }
    }

    /// Both lengths at once are refused by the trainer, and one has a default: the other has to be 0 in so many words.
    pub(super) fn run_length(&mut self, length: Length) {
        let (steps, epochs) = match length {
            Length::Steps(steps) => (steps, 0),
            Length::Epochs(epochs) => (0, epochs),
        };
        self.set("max_train_steps", Value::from(steps));
        self.set("num_train_epochs", Value::from(epochs));
    }

    /// Goes on from this host's own newest checkpoint, by its name. Without one, a checkpoint in a bucket is where the first
    /// attempt starts; one named by a local path lies on the user's machine, and no job with it is taken.
    ///
    /// A LoRA to start from says at which step it was saved, and SimpleTuner goes on from there. It refuses that together with
    /// any checkpoint, even one that is only looked for; so it is told to look for none, and once there is one, that the LoRA is
    /// of no step.
    pub(super) fn resume(&mut self, checkpoint: Option<&str>) {
        let text = |key: &str| self.0[key].as_str().map(str::trim);
        let from_lora = text("init_lora").is_some_and(|path| !path.is_empty());
        let from = text("resume_from_checkpoint");
        let is_published = match &self.0["publishing_config"] {
            Value::Array(list) => !list.is_empty(),
            Value::Object(object) => !object.is_empty(),
            Value::String(text) => !text.trim().is_empty(),
            _ => false,
        };
        match (checkpoint, from) {
            (Some(name), _) => {
                self.set("resume_from_checkpoint", Value::from(name));
                if from_lora {
                    self.set("init_lora_step", Value::from(0));
                }
            }
            (None, Some(from)) if is_in_bucket(from, is_published) => {}
            // What SimpleTuner's page calls starting from scratch.
            (None, from) if from_lora || from == Some("") => {
                self.set("resume_from_checkpoint", Value::from(""));
            }
            (None, _) => self.set("resume_from_checkpoint", Value::from("latest")),
        }
    }
}

/// A file's contents, whichever way it is written.
pub(super) fn value(file: &JobFile) -> Result<Value, Error> {
    let bad = |why: &dyn std::fmt::Display| {
        Error::Settings(format!("{} cannot be read: {why}", file.name))
    };
    let extension = file
        .name
        .rsplit_once('.')
        .map_or("", |(_, extension)| extension);
    if extension.eq_ignore_ascii_case("toml") {
        let text = std::str::from_utf8(&file.bytes).map_err(|error| bad(&error))?;
        // The message of a TOML error quotes the line, which may hold a secret.
        return toml::from_str(text).map_err(|error| bad(&error.message().to_owned()));
    }
    if extension.eq_ignore_ascii_case("env") {
        return Err(bad(
            &"a worker cannot rewrite config.env; write it as config.json and submit it again",
        ));
    }
    serde_json::from_slice(&file.bytes).map_err(|error| bad(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told to the trainer where these settings were submitted: where it goes on from, and the step of the LoRA.
    fn resumed(submitted: &Value, checkpoint: Option<&str>) -> (Value, Value) {
        let mut settings = Settings(submitted.clone());
        settings.resume(checkpoint);
        let told = |key| settings.value()[key].clone();
        (told("resume_from_checkpoint"), told("init_lora_step"))
    }

    #[test]
    fn a_lora_to_start_from_and_a_checkpoint_are_never_told_together() {
        let nothing = Value::Null;
        for submitted in [
            json!({"init_lora": "/data/lora.safetensors"}),
            json!({"init_lora": "/data/lora.safetensors", "resume_from_checkpoint": "latest"}),
            json!({"init_lora": "/data/lora.safetensors", "resume_from_checkpoint": ""}),
        ] {
            assert_eq!(resumed(&submitted, None), (json!(""), nothing.clone()));
            let later = resumed(&submitted, Some("checkpoint-500"));
            assert_eq!(later, (json!("checkpoint-500"), json!(0)));
        }
        let at_step = json!({"init_lora": "/data/lora.safetensors", "init_lora_step": 300});
        assert_eq!(resumed(&at_step, None), (json!(""), json!(300)));
        let later = resumed(&at_step, Some("checkpoint-500"));
        assert_eq!(later, (json!("checkpoint-500"), json!(0)));
    }

    #[test]
    fn without_a_lora_the_trainer_is_told_what_was_submitted_or_to_look() {
        let nothing = Value::Null;
        for (submitted, told) in [
            (json!({}), "latest"),
            (json!({"init_lora": " "}), "latest"),
            (json!({"resume_from_checkpoint": ""}), ""),
            (
                json!({"resume_from_checkpoint": "/home/somebody/checkpoint-5"}),
                "latest",
            ),
            (
                json!({"resume_from_checkpoint": "s3://b/checkpoint-5"}),
                "s3://b/checkpoint-5",
            ),
            (
                json!({"resume_from_checkpoint": "jobs/7/checkpoint-5"}),
                "latest",
            ),
            (
                json!({"resume_from_checkpoint": "jobs/7/checkpoint-5", "publishing_config": [{"provider": "s3"}]}),
                "jobs/7/checkpoint-5",
            ),
        ] {
            assert_eq!(resumed(&submitted, None), (json!(told), nothing.clone()));
            let later = resumed(&submitted, Some("checkpoint-6"));
            assert_eq!(later, (json!("checkpoint-6"), nothing.clone()));
        }
    }
}
