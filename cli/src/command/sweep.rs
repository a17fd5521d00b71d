//! `stepcast submit --sweep`: one submission of many tasks, each with other values of some settings.

use serde_json::Value;
use stepcast_proto::v1::{
    ArrayTaskFiles, FileRole, JobFile, SubmitArrayRequest, SubmitArrayResponse,
};
use stepcast_records::simpletuner::{File, unwrapped, without_mark};

use crate::client::{Client, SWEEP_DEADLINE, timed_within};
use crate::failure::Failure;
use crate::files::Submission;
use crate::output::money;

/// Most tasks of one array, as the server has it.
const TASKS_MAX: usize = 1_000;

/// Bytes of all files of a submission, as the server has it: those of all tasks together.
const BYTES_MAX: usize = 3 << 20;

/// Bytes of a task's file on the wire besides its name and content, at most: five fields of at most six bytes.
const AROUND_FILE: usize = 30;

/// A setting and the values that it takes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    name: String,
    values: Vec<Value>,
}

/// Reads `learning_rate=1e-4,2e-4`: a value that is no number, truth or null of JSON is a text.
pub(crate) fn setting(text: &str) -> Result<Setting, String> {
    let wrong = || format!("`{text}` is no sweep; write one such as learning_rate=1e-4,2e-4");
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let values: Vec<Value> = values
        .split(',')
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .map(|value| serde_json::from_str(value).unwrap_or_else(|_text| Value::from(value)))
        .collect();
    if name.is_empty() || values.is_empty() {
        return Err(wrong());
    }
    Ok(Setting {
        name: name.trim_start_matches('-').to_owned(),
        values,
    })
}

/// The files of every task: each combination of the values, the last setting changing fastest.
///
/// # Errors
/// More tasks than a sweep may have, a setting that is named twice, or a configuration that is no JSON.
pub(crate) fn tasks(
    settings: &[Setting],
    submission: &Submission,
) -> Result<Vec<ArrayTaskFiles>, Failure> {
    for (place, setting) in settings.iter().enumerate() {
        if settings[..place]
            .iter()
            .any(|other| other.name == setting.name)
        {
            return Err(
                Failure::usage(format!("the sweep names {} twice", setting.name))
                    .hint("give it once, with all of its values"),
            );
        }
    }
    let count = settings.iter().try_fold(1_usize, |count, setting| {
        count
            .checked_mul(setting.values.len())
            .filter(|count| *count <= TASKS_MAX)
    });
    let count = count.ok_or_else(|| {
        Failure::usage(format!(
            "a sweep has at most {TASKS_MAX} tasks, and these values make more"
        ))
        .hint("submit it in parts, each with some of the values")
    })?;
    let role = i32::from(FileRole::Config);
    let config = submission.files.iter().find(|file| file.role == role);
    let parsed = config.and_then(|file| {
        let settings = unwrapped(&File::new(&file.name, &file.content));
        let text = settings.as_deref();
        let text = text.unwrap_or_else(|| without_mark(&file.content));
        Some((
            file,
            serde_json::from_slice::<serde_json::Map<String, Value>>(text).ok()?,
        ))
    });
    let Some((file, config)) = parsed else {
        return Err(Failure::usage("a sweep changes settings of a config.json")
            .hint("write the configuration as config.json; other forms cannot be swept"));
    };
    let task = |number: usize| {
        let mut config = config.clone();
        let mut left = number;
        for setting in settings.iter().rev() {
            let value = setting.values[left % setting.values.len()].clone();
            left /= setting.values.len();
            // SimpleTuner takes settings with and without the dashes of its command line.
            let dashed = format!("--{}", setting.name);
            let key = if config.contains_key(&dashed) {
                dashed
            } else {
                setting.name.clone()
            };
            config.insert(key, value);
        }
        let content = serde_json::to_vec_pretty(&config);
        let content = content.map_err(|error| Failure::refused(error.to_string()))?;
        Ok(ArrayTaskFiles {
            files: vec![JobFile {
                role,
                name: file.name.clone(),
                content,
            }],
        })
    };
    (0..count).map(task).collect()
}

/// Sends a sweep; the same request id each time makes asking again safe.
pub(crate) async fn send(
    client: &Client,
    message: SubmitArrayRequest,
) -> Result<SubmitArrayResponse, Failure> {
    let call = || {
        let request = timed_within(SWEEP_DEADLINE, message.clone());
        let mut service = client.jobs();
        async move { service.submit_array(request).await }
    };
    let answer = if message.validate_only {
        client.ask_within(SWEEP_DEADLINE, call).await
    } else {
        client.change_within(SWEEP_DEADLINE, call).await
    };
    answer.map_err(|failure| in_parts(failure, &message))
}

/// Says of a sweep that is too large as a whole what its tasks have together, and how many of them can be sent at once.
fn in_parts(mut failure: Failure, message: &SubmitArrayRequest) -> Failure {
    let size = |file: &JobFile| file.content.len() + file.name.len() + AROUND_FILE;
    let copies: usize = message
        .tasks
        .iter()
        .flat_map(|task| &task.files)
        .map(size)
        .sum();
    let others: usize = message.files.iter().map(size).sum();
    let count = message.tasks.len();
    let fits = BYTES_MAX.saturating_sub(others) * count / copies.max(1);
    if failure.reason == "MESSAGE_TOO_LARGE" && (1..count).contains(&fits) {
        failure.primary = format!(
            "the configurations of the {} tasks have {} together, more than the server takes at once",
            money::count(count as u64),
            money::bytes(copies as u64),
        );
        failure.hint = Some(format!(
            "submit it in parts of at most {}, each with some of the values",
            money::counted(fits as u64, "task", "tasks")
        ));
    }
    failure
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn submission() -> Submission {
        Submission {
            files: vec![JobFile {
                role: FileRole::Config.into(),
                name: "config.json".to_owned(),
                content: br#"{"--learning_rate": 1, "seed": 2}"#.to_vec(),
            }],
            title: "cats".to_owned(),
            missing: Vec::new(),
        }
    }

    #[test]
    fn every_combination_is_a_task() {
        let settings = [
            setting("learning_rate=1e-4,2e-4").unwrap(),
            setting("seed=1,2,3").unwrap(),
        ];
        let tasks = tasks(&settings, &submission()).unwrap();
        let configs: Vec<Value> = tasks
            .iter()
            .map(|task| serde_json::from_slice(&task.files[0].content).unwrap())
            .collect();
        assert_eq!(configs.len(), 6);
        assert_eq!(
            configs[0],
            serde_json::json!({"--learning_rate": 1e-4, "seed": 1})
        );
        assert_eq!(
            configs[5],
            serde_json::json!({"--learning_rate": 2e-4, "seed": 3})
        );
    }

    #[test]
    fn a_setting_is_named_once() {
        for other in ["learning_rate=3e-4", "--learning_rate=3e-4"] {
            let settings = [
                setting("learning_rate=1e-4,2e-4").unwrap(),
                setting(other).unwrap(),
            ];
            let failure = tasks(&settings, &submission()).unwrap_err();
            assert_eq!(failure.primary, "the sweep names learning_rate twice");
        }
    }

    #[test]
    fn what_a_page_has_wrapped_is_swept_within() {
        let mut submission = submission();
        submission.files[0].content = "\u{feff}{\"config\": {\"--learning_rate\": 1}}"
            .as_bytes()
            .to_vec();
        let settings = [setting("learning_rate=2").unwrap()];
        let tasks = tasks(&settings, &submission).unwrap();
        let config: Value = serde_json::from_slice(&tasks[0].files[0].content).unwrap();
        assert_eq!(config, serde_json::json!({"--learning_rate": 2}));
    }

    #[test]
    fn a_sweep_that_is_too_large_says_in_which_parts_it_fits() {
        let mut submission = submission();
        submission.files[0].content = json!({ "prompt": "a".repeat(5_000) }).to_string().into();
        let seeds: Vec<String> = (0..1_000).map(|seed| seed.to_string()).collect();
        let settings = [setting(&format!("seed={}", seeds.join(","))).unwrap()];
        let message = SubmitArrayRequest {
            files: submission.files.clone(),
            tasks: tasks(&settings, &submission).unwrap(),
            ..SubmitArrayRequest::default()
        };
        let mut refused = Failure::refused("the message is larger than this call takes");
        let other = in_parts(refused.clone(), &message);
        assert_eq!(other.primary, refused.primary, "whatever else is wrong");
        refused.reason = "MESSAGE_TOO_LARGE".to_owned();
        let told = in_parts(refused, &message);
        assert_eq!(
            (told.primary.as_str(), told.hint.as_deref()),
            (
                "the configurations of the 1,000 tasks have 5.1 MB together, more than the server takes at once",
                Some("submit it in parts of at most 618 tasks, each with some of the values")
            )
        );
    }

    #[test]
    fn a_sweep_without_end_is_refused() {
        let many: Vec<String> = (0..1_001).map(|value| value.to_string()).collect();
        let settings = [setting(&format!("seed={}", many.join(","))).unwrap()];
        assert!(tasks(&settings, &submission()).is_err());
        for wrong in ["seed", "seed=", "=1", ""] {
            assert!(setting(wrong).is_err(), "{wrong}");
        }
    }
}
