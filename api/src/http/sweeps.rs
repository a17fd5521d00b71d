//! Sweeps: jobs that come together and differ in some settings, so many at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::given::Given;
use super::jobs::name;
use super::route::{Nothing, Route};
use super::shapes::{self, EstimateShown, NoteShown, id_of, short, time};
use super::submit::{self, BODY_BYTES, Settings, is_wish, plain};
use super::wishes::JobWishes;
use crate::access::Permission as P;
use crate::service::{Sweep, check_count};
use crate::status::{self, bad_field};
use crate::submission;

/// What a sweep may take: a thousand tasks are read and kept.
const KEPT_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn routes(api: &mut Api) {
    let list = "Sweeps that are not over, newest first.";
    api.route(Route::get("/v1/sweeps", P::ReadJobs, list), self::list);
    let submit = "Puts a sweep into the queue: all of its tasks or none.";
    let submit = Route::post("/v1/sweeps", P::SubmitJobs, submit);
    let submit = submit.status(201).body_max(BODY_BYTES).submission();
    api.route(submit.answer_within(KEPT_WITHIN), self::submit);
    let show = "One sweep, by the id of any of its jobs.";
    api.route(Route::get("/v1/sweeps/{id}", P::ReadJobs, show), self::show);
    let cancel = "Ends every job of a sweep that is not over.";
    let cancel = Route::post("/v1/sweeps/{id}/cancel", P::ChangeJobs, cancel);
    api.route(cancel, self::cancel);
}

/// A sweep to submit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewSweep {
    /// The configuration of every task, with wishes among it as in a job's.
    config: Map<String, Value>,
    /// The data loader's list.
    dataloader_config: Vec<Map<String, Value>>,
    /// LyCORIS settings, if the configuration has some.
    #[serde(default)]
    lycoris_config: Option<Map<String, Value>>,
    /// A library of prompts, by name.
    #[serde(default)]
    prompt_library: Option<Map<String, Value>>,
    /// How many samples each data set has, by its id, where the configuration does not say.
    #[serde(default)]
    sample_counts: BTreeMap<String, u64>,
    /// Longest time of one attempt, in minutes.
    #[serde(default)]
    max_runtime_minutes: Option<u64>,
    /// What every task asks for besides the work. It counts over what the configuration asks for.
    #[serde(default)]
    wishes: Option<Given<JobWishes>>,
    /// 1 to 1,000.
    tasks: Vec<Task>,
    /// How many may hold GPUs at the same time; 0 for all.
    #[serde(default)]
    parallel: u32,
    /// 32 hexadecimal digits drawn by the caller: the same id again gives the first answer again. Unless given, one is drawn
    /// here, which is told where it is not known whether the sweep was taken.
    #[serde(default)]
    request_id: Option<String>,
    /// Checks everything and keeps nothing.
    #[serde(default)]
    validate_only: bool,
}

/// One task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Task {
    /// The settings that it has instead of those of all, such as a learning rate; the others are the same.
    config: Map<String, Value>,
}

/// What became of it.
#[derive(Debug, Serialize, JsonSchema)]
struct SweepSubmitted {
    /// The sweep's id: that of its first job. Empty when it was only checked.
    id: String,
    /// The ids of its jobs, in the order of the tasks.
    jobs: Vec<String>,
    /// What one task would take, best first by what the jobs choose hardware by.
    estimates: Vec<EstimateShown>,
    /// What was assumed while reading the configuration.
    notes: Vec<NoteShown>,
}

/// Which of them.
#[derive(Debug, Deserialize, JsonSchema)]
struct Page {
    /// 1 to 1,000; 100 unless given.
    page_size: Option<u32>,
    /// `next_page_token` of the answer before.
    page_token: Option<String>,
}

/// Sweeps.
#[derive(Debug, Serialize, JsonSchema)]
struct Sweeps {
    /// Newest first.
    items: Vec<SweepShown>,
    /// Empty on the last page, and on no other.
    next_page_token: String,
}

/// A sweep.
#[derive(Debug, Serialize, JsonSchema)]
struct SweepShown {
    /// That of its first job.
    id: String,
    /// What is trained, in one line.
    title: String,
    /// What its owner calls it.
    name: String,
    /// When it was submitted (RFC 3339).
    created_at: Option<String>,
    /// How many tasks there are.
    tasks: u32,
    /// How many of them may hold GPUs at the same time.
    parallel: u32,
    /// How many of them are not over.
    unfinished: u32,
    /// How many of them hold GPUs.
    running: u32,
}

/// A sweep and its jobs.
#[derive(Debug, Serialize, JsonSchema)]
struct OneSweep {
    sweep: SweepShown,
    /// In the order of the tasks, without those that are forgotten.
    jobs: Vec<JobOfSweep>,
}

/// A job of a sweep.
#[derive(Debug, Serialize, JsonSchema)]
struct JobOfSweep {
    id: String,
    /// Where it stands, such as `PENDING`.
    state: String,
}

/// A sweep that ends.
#[derive(Debug, Serialize, JsonSchema)]
struct SweepCancelled {
    /// That of its first job, by whichever of them it was cancelled.
    id: String,
    /// How many of its jobs were not over.
    cancelled_jobs: u32,
}

async fn submit(
    http: Http,
    asked: Asked<Nothing>,
    sent: NewSweep,
) -> Result<SweepSubmitted, Status> {
    let settings = Settings {
        config: sent.config,
        dataloader_config: sent.dataloader_config,
        lycoris_config: sent.lycoris_config,
        prompt_library: sent.prompt_library,
        resume_from_checkpoint: None,
        sample_counts: sent.sample_counts,
    };
    let files = settings.files()?;
    let request = v1::SubmitArrayRequest {
        request_id: asked.request_id(sent.request_id),
        validate_only: sent.validate_only,
        tasks: tasks(&settings.config, &files, &sent.tasks)?,
        files,
        sample_counts: settings.counts(),
        wishes: Some(settings.wishes(sent.max_runtime_minutes, sent.wishes)?),
        parallel: sent.parallel,
    };
    let answer = http.jobs.submit_array(&asked.caller, request).await?;
    Ok(SweepSubmitted {
        id: id_of(&answer.array),
        jobs: answer.jobs.iter().map(|name| id_of(name)).collect(),
        estimates: answer.estimates.iter().map(shapes::estimate).collect(),
        notes: answer.notes.iter().map(shapes::note).collect(),
    })
}

/// The configuration of each task: that of all with the task's own settings in it. Together they have as many bytes as the
/// files of one submission, as over gRPC.
fn tasks(
    all: &Map<String, Value>,
    files: &[v1::JobFile],
    tasks: &[Task],
) -> Result<Vec<v1::ArrayTaskFiles>, Status> {
    // A short body could ask for many.
    check_count(tasks.len())?;
    // Settings may be written with and without the dashes of a command line.
    let settings = all.iter().filter(|(key, _)| !is_wish(key));
    let settings: Vec<_> = settings
        .map(|(key, value)| (plain(key), (key, value)))
        .collect();
    let mut bytes: usize = files.iter().map(|file| file.content.len()).sum();
    let task = |(index, task): (usize, &Task)| {
        let own: BTreeSet<&str> = task.config.keys().map(|key| plain(key)).collect();
        if let Some(wish) = own.iter().find(|name| is_wish(name)) {
            let field = format!("tasks[{index}].config.{}", status::shown(wish));
            let what = "what is asked for is the same for every task";
            return Err(bad_field(&field, what));
        }
        let kept = settings.iter().filter(|(name, _)| !own.contains(name));
        let kept = kept.map(|(_, (key, value))| ((*key).clone(), (*value).clone()));
        let config: Map<String, Value> = kept.chain(task.config.clone()).collect();
        let file = submit::file(v1::FileRole::Config, submit::CONFIG_NAME, &config)?;
        bytes += file.content.len();
        if bytes > submission::FILES_BYTES_MAX {
            return Err(submission::too_large_together(tasks.len()));
        }
        Ok(v1::ArrayTaskFiles { files: vec![file] })
    };
    tasks.iter().enumerate().map(task).collect()
}

async fn list(http: Http, asked: Asked<Page>, _: Nothing) -> Result<Sweeps, Status> {
    let token = asked.query.page_token.as_deref().unwrap_or_default();
    let page = (asked.query.page_size.unwrap_or(0), token);
    let listed = http.jobs.list_arrays(&asked.caller, page, asked.freshness);
    let (sweeps, next_page_token) = listed.await?;
    Ok(Sweeps {
        items: sweeps.into_iter().map(shown).collect(),
        next_page_token,
    })
}

async fn show(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<OneSweep, Status> {
    let name = name(&asked);
    let found = http.jobs.get_array(&asked.caller, &name, asked.freshness);
    let (sweep, jobs) = found.await?;
    let job = |(name, state): &(String, v1::JobState)| JobOfSweep {
        id: id_of(name),
        state: short(state.as_str_name(), "JOB_STATE_"),
    };
    Ok(OneSweep {
        sweep: shown(sweep),
        jobs: jobs.iter().map(job).collect(),
    })
}

async fn cancel(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<SweepCancelled, Status> {
    let request = v1::CancelArrayRequest {
        name: name(&asked),
        request_id: String::new(),
    };
    let cancelled = http.jobs.cancel_array(&asked.caller, request).await?;
    Ok(SweepCancelled {
        id: id_of(&cancelled.array),
        cancelled_jobs: cancelled.count,
    })
}

fn shown(sweep: Sweep) -> SweepShown {
    let part = sweep.job.array_task.unwrap_or_default();
    let wishes = sweep.job.wishes.unwrap_or_default();
    SweepShown {
        id: id_of(&sweep.array),
        title: sweep.job.title,
        name: wishes.display_name,
        created_at: time(sweep.job.submit_time.as_ref()),
        tasks: part.tasks,
        parallel: part.parallel,
        unfinished: sweep.unfinished,
        running: sweep.running,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn sweep(text: &str, own: &str) -> Result<Vec<Value>, Status> {
        let all: Map<String, Value> = serde_json::from_str(text).unwrap();
        let own: Vec<Task> = serde_json::from_str(own).unwrap();
        let written = tasks(&all, &[], &own)?;
        let read = |task: &v1::ArrayTaskFiles| serde_json::from_slice(&task.files[0].content);
        Ok(written.iter().map(|task| read(task).unwrap()).collect())
    }

    #[test]
    fn each_task_has_its_own_settings_among_those_of_all() {
        let all =
            r#"{"--learning_rate": 1, "seed": 2, "--stepcast_gpus": 4, "max_runtime_minutes": 9}"#;
        let own =
            r#"[{"config": {"learning_rate": 3}}, {"config": {"--seed": 5}}, {"config": {}}]"#;
        let tasks = sweep(all, own).unwrap();
        assert_eq!(
            tasks,
            [
                json!({"learning_rate": 3, "seed": 2}),
                json!({"--learning_rate": 1, "--seed": 5}),
                json!({"--learning_rate": 1, "seed": 2})
            ]
        );
    }

    #[test]
    fn a_task_asks_for_nothing_of_its_own() {
        for wish in ["--stepcast_gpus", "max_runtime_minutes", "stepcast_x"] {
            let refused = sweep("{}", &format!(r#"[{{"config": {{"{wish}": 1}}}}]"#));
            let refused = refused.unwrap_err();
            assert!(refused.message().contains(plain(wish)), "{refused:?}");
        }
    }

    #[test]
    fn tasks_together_are_no_larger_than_a_submission() {
        let all = format!(r#"{{"prompt": "{}"}}"#, "a".repeat(1 << 20));
        let own = |count| format!("[{}]", vec![r#"{"config": {}}"#; count].join(","));
        assert!(sweep(&all, &own(2)).is_ok());
        let refused = sweep(&all, &own(1_000)).unwrap_err();
        assert!(refused.message().contains("1000 tasks"), "{refused:?}");
    }
}
