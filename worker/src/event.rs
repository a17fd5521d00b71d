//! What one SimpleTuner webhook says, reduced to the few facts the agent needs: no media, no prompt and no path survives.

mod lenient;
mod time;

use std::borrow::Cow;

use serde::Deserialize;

use self::lenient::{Lenient, members};
pub(crate) use self::time::format_utc;

/// Longest error title or message read from an `error` event, in bytes; tracebacks are not kept at all. What is kept of it
/// is cut once more when it is redacted: a cut in the middle of a secret would hide it from the search.
pub(crate) const RAW_ERROR_BYTES: usize = 16 * 1024;

/// One webhook event and the moment its sender gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// What happened.
    pub event: Event,
    /// The trainer's own UTC clock in milliseconds since 1970, when it was readable.
    ///
    /// Only differences between two of these are used, so the trainer's clock may be wrong by any constant.
    pub sent_ms: Option<i64>,
}

/// The facts of one event; everything else in the body is skipped while parsing.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The first `training.status`: the loop is about to start at `step` of `total`.
    Ready {
        /// Global step the run starts from (above 0 after a resume).
        step: u64,
        /// Steps the run will have at its end, 0 when not said.
        total: u64,
        /// Micro-batches of an epoch on one process (`total_num_batches`), 0 when not said.
        batches: u64,
    },
    /// One optimizer step is done. The trainer sends a step twice when it also saves a checkpoint.
    Step {
        /// Global step, from 1.
        step: u64,
        /// Steps the run will have at its end, 0 when not said.
        total: u64,
        /// Wall time between this step's end and the one before, in milliseconds (`step_speed_seconds`).
        step_ms: Option<f64>,
        /// Epoch the step belongs to, from 1.
        epoch: Option<u64>,
    },
    /// A status with which the trainer itself ends the run badly.
    Broken(Broken),
    /// A phase of the run starts, moves or ends.
    Stage {
        /// Which phase.
        stage: Stage,
        /// How it stands.
        status: StageStatus,
    },
    /// A checkpoint directory is complete on disk.
    Checkpoint {
        /// Its step, read from the directory's name.
        step: Option<u64>,
    },
    /// One validation prompt has been rendered.
    ValidationPrompt,
    /// The trainer's exception. Both texts are bounded, and must be redacted before they go anywhere.
    Error {
        /// For example `Training failed: OutOfMemoryError`.
        title: String,
        /// The exception's own words.
        message: String,
    },
    /// A logger's record: a sign of life, nothing more.
    Log,
    /// Something this version does not know or need.
    Other,
}

/// How the trainer says that a run did not go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// `"status": "failed"`, sent after an `error` event.
    Failed,
    /// `"status": "interrupted"`, sent on SIGINT; the exit status is 0 then.
    Interrupted,
}

/// The phases of a run, by what they mean for waiting times and samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Data set-up and the caches of latents and text embeddings.
    Caching,
    /// Loading and preparing the model.
    Loading,
    /// The base model's pictures before the first step; contains a [`Stage::Validation`] pair.
    Benchmark,
    /// Reading the checkpoint to resume from.
    Resume,
    /// Writing a checkpoint.
    CheckpointSave,
    /// Rendering the validation prompts.
    Validation,
    /// Writing the final model.
    ModelSave,
    /// The real end of a run: the only mark of success.
    TrainingComplete,
    /// Any other stage key.
    Other,
}

/// The status words of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageStatus {
    /// Started or moving.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly, or left out.
    Stopped,
}

/// A body that is no JSON object.
#[derive(Debug, thiserror::Error)]
#[error("the webhook body is not a JSON object")]
pub struct Error(#[source] serde_json::Error);

/// Reads one webhook body, keeping none of its media.
pub fn parse(body: &[u8]) -> Result<Received, Error> {
    // A map first: serde would take an array for a struct by position.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Error(serde::de::Error::custom(
            "it does not start with a brace",
        )));
    }
    let body: Body<'_> = serde_json::from_slice(body).map_err(Error)?;
    let sent_ms = body.timestamp.text().and_then(|text| time::utc_ms(&text));
    Ok(Received {
        event: body.event(),
        sent_ms,
    })
}

/// The members that are read; serde walks over all others without building them.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Lenient<Cow<'a, str>>,
    #[serde(borrow, default)]
    timestamp: Lenient<Cow<'a, str>>,
    #[serde(borrow, default)]
    title: Lenient<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Lenient<Cow<'a, str>>,
    #[serde(borrow, default)]
    status: Lenient<Cow<'a, str>>,
    #[serde(default)]
    data: Lenient<Data>,
    #[serde(default)]
    progress: Lenient<Progress>,
    #[serde(default)]
    stage: Lenient<StageBody>,
    #[serde(default)]
    checkpoint: Lenient<CheckpointBody>,
}

members! {
    Data {
        status: String,
        global_step: u64,
        total_num_steps: u64,
        total_num_batches: u64,
        current_epoch: u64,
    }
    Progress {
        current: u64,
        total: u64,
        metrics: Metrics,
    }
    Metrics {
        step_speed_seconds: f64,
        iteration_step_time_seconds: f64,
        seconds_per_step: f64,
    }
    StageBody {
        key: String,
        status: String,
    }
    CheckpointBody {
        path: String,
    }
}

impl Body<'_> {
    fn event(&self) -> Event {
        match self.kind.text().as_deref() {
            Some("training.status") => self.status_event(),
            Some("lifecycle.stage") => self.stage_event(),
            Some("training.checkpoint") => Event::Checkpoint {
                step: self
                    .checkpoint
                    .get()
                    .and_then(|c| checkpoint_step(&c.path.text()?)),
            },
            Some("training.validation") => Event::ValidationPrompt,
            Some("error") => Event::Error {
                title: bounded(&self.title.text().unwrap_or_default()),
                message: bounded(&self.message.text().unwrap_or_default()),
            },
            Some("log.message") => Event::Log,
            _ => Event::Other,
        }
    }

    /// Upload statuses share this type, so only the two known bad endings and real steps count.
    fn status_event(&self) -> Event {
        let nested = self.data.get().and_then(|data| data.status.text());
        match self.status.text().or(nested).as_deref() {
            Some("failed") => return Event::Broken(Broken::Failed),
            Some("interrupted") => return Event::Broken(Broken::Interrupted),
            Some("running") | None => {}
            Some(_) => return Event::Other,
        }
        let (Some(data), Some(progress)) = (self.data.get(), self.progress.get()) else {
            return Event::Other;
        };
        let Some(&step) = data.global_step.get().or(progress.current.get()) else {
            return Event::Other;
        };
        let total = data
            .total_num_steps
            .get()
            .or(progress.total.get())
            .copied()
            .unwrap_or(0);
        let metrics = progress.metrics.get();
        let step_ms = metrics.and_then(|metrics| {
            let names = [
                &metrics.step_speed_seconds,
                &metrics.iteration_step_time_seconds,
                &metrics.seconds_per_step,
            ];
            names
                .into_iter()
                .find_map(|name| name.get().map(|seconds| seconds * 1000.0))
        });
        match step_ms {
            None => Event::Ready {
                step,
                total,
                batches: data.total_num_batches.get().copied().unwrap_or(0),
            },
            Some(_) => Event::Step {
                step,
                total,
                step_ms,
                epoch: data.current_epoch.get().copied(),
            },
        }
    }

    fn stage_event(&self) -> Event {
        let Some(body) = self.stage.get() else {
            return Event::Other;
        };
        let status = match body.status.text().as_deref() {
            Some("running") => StageStatus::Running,
            Some("completed") => StageStatus::Completed,
            Some(_) => StageStatus::Stopped,
            None => return Event::Other,
        };
        Event::Stage {
            stage: stage(&body.key.text().unwrap_or_default()),
            status,
        }
    }
}

fn stage(key: &str) -> Stage {
    match key {
        "init_load_base_model" | "init_prepare_models" => Stage::Loading,
        "benchmark_base_model" => Stage::Benchmark,
        "init_resume_checkpoint" => Stage::Resume,
        "checkpoint_save" | "checkpoint_save_distiller" => Stage::CheckpointSave,
        "validation" => Stage::Validation,
        "model_save" => Stage::ModelSave,
        "training_complete" => Stage::TrainingComplete,
        "init_data_backend" | "vaecache" | "data_generation" | "validation_prompt_encoding" => {
            Stage::Caching
        }
        _ if key.starts_with("init_") || key.starts_with("caption_extract") => Stage::Caching,
        _ => Stage::Other,
    }
}

/// The step in a name such as `out/checkpoint-500` or `checkpoint-500-rolling`.
fn checkpoint_step(path: &str) -> Option<u64> {
    let name = path.rsplit(['/', '\\']).next()?;
    let digits = name.strip_prefix("checkpoint-")?;
    digits.split('-').next()?.parse().ok()
}

fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(RAW_ERROR_BYTES)].to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn event(body: &str) -> Event {
        parse(body.as_bytes()).unwrap().event
    }

    #[test]
    fn a_step_keeps_its_number_its_time_and_its_epoch() {
        let body = r#"{"type":"training.status","title":"Running","data":{"status":"running","global_step":7,
            "current_epoch":2,"total_num_steps":30},"progress":{"current":7,"total":30,"metrics":{"loss":1.0,
            "step_speed_seconds":0.25}},"timestamp":"2026-08-22T10:00:00.500000+00:00"}"#;
        let received = parse(body.as_bytes()).unwrap();
        assert_eq!(
            received.event,
            Event::Step {
                step: 7,
                total: 30,
                step_ms: Some(250.0),
                epoch: Some(2)
            }
        );
        assert_eq!(received.sent_ms, Some(1_787_392_800_500));
    }

    #[test]
    fn the_first_status_has_no_step_time() {
        let body = r#"{"type":"training.status","data":{"status":"running","global_step":30,"total_num_steps":40,
            "total_num_batches":20},"progress":{"label":"start","current":30,"total":40}}"#;
        assert_eq!(
            event(body),
            Event::Ready {
                step: 30,
                total: 40,
                batches: 20
            }
        );
    }

    #[test]
    fn uploads_are_no_end_and_both_bad_ends_are_seen_at_either_place() {
        assert_eq!(
            event(r#"{"type":"training.status","status":"uploading_model"}"#),
            Event::Other
        );
        assert_eq!(
            event(r#"{"type":"training.status","status":"failed"}"#),
            Event::Broken(Broken::Failed)
        );
        let nested = r#"{"type":"training.status","data":{"status":"failed"}}"#;
        assert_eq!(event(nested), Event::Broken(Broken::Failed));
        let status = r#"{"type":"training.status","status":"interrupted"}"#;
        assert_eq!(event(status), Event::Broken(Broken::Interrupted));
    }

    #[test]
    fn unknown_shapes_are_tolerated() {
        assert_eq!(
            event(r#"{"type":"lifecycle.stage","stage":"text"}"#),
            Event::Other
        );
        assert_eq!(
            event(r#"{"type":7,"stage":[],"data":"x","progress":3}"#),
            Event::Other
        );
        assert_eq!(
            event(r#"{"images":["aaaa"],"new":{"deep":[1]}}"#),
            Event::Other
        );
        assert!(parse(b"[1]").is_err());
        assert!(parse(b"\xff").is_err());
    }

    #[test]
    fn checkpoints_are_named_by_their_step() {
        let body = r#"{"type":"training.checkpoint","checkpoint":{"path":"/out/checkpoint-500-rolling","is_final":false}}"#;
        assert_eq!(event(body), Event::Checkpoint { step: Some(500) });
        assert_eq!(
            event(r#"{"type":"training.checkpoint"}"#),
            Event::Checkpoint { step: None }
        );
    }

    #[test]
    fn a_member_of_another_type_loses_nothing_but_itself() {
        let step = r#"{"type":"training.status","title":[[1],{"a":{}}],"data":{"status":null,"global_step":7.0,
            "current_epoch":-1,"total_num_steps":true,"else":[{}]},"progress":{"current":7,"total":"x",
            "metrics":{"step_speed_seconds":[0,[0]],"seconds_per_step":2,"more":{}}}}"#;
        let step_of = |total| Event::Step {
            step: 7,
            total,
            step_ms: Some(2_000.0),
            epoch: None,
        };
        assert_eq!(event(step), step_of(0));
        let twice = r#"{"type":"training.status","progress":{"current":7,"metrics":{"seconds_per_step":9,
            "seconds_per_step":2}},"data":{"total_num_steps":30}}"#;
        assert_eq!(event(twice), step_of(30), "the last one counts");
        // What is passed over is not built, so that nothing bounds how deep it may be.
        let (open, close) = ("[".repeat(300), "]".repeat(300));
        let deep = format!(r#"{{"type":"training.validation","data":{{"status":{open}{close}}}}}"#);
        assert_eq!(event(&deep), Event::ValidationPrompt);
        assert!(parse(br#"{"data":{"status":[}}"#).is_err());
        assert!(parse(br#"{} {}"#).is_err());
    }

    #[test]
    fn error_texts_are_cut_at_a_character() {
        let body = format!(
            r#"{{"type":"error","title":"t","message":"{}"}}"#,
            "é".repeat(10_000)
        );
        let Event::Error { message, .. } = event(&body) else {
            panic!("no error event")
        };
        assert_eq!(message.len(), RAW_ERROR_BYTES);
    }
}
