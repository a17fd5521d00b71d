//! SimpleTuner's own settings, as they were submitted and as they are for this host.

use serde_json::{Map, Value, json};
use stepcast_records::simpletuner::Length;

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
    /// attempt starts; one named by a local path lies on the user's machine.
    pub(super) fn resume(&mut self, checkpoint: Option<&str>) {
        let elsewhere = self.0["resume_from_checkpoint"]
            .as_str()
            .is_some_and(|from| from.contains("://"));
        match checkpoint {
            Some(name) => self.set("resume_from_checkpoint", Value::from(name)),
            None if elsewhere => {}
            None => self.set("resume_from_checkpoint", Value::from("latest")),
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
