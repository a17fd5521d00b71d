//! A job submitted as SimpleTuner's client does it: its settings as objects, and wishes among them or beside them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::given::Given;
use super::route::{Nothing, Route};
use super::shapes::{self, EstimateShown, JobShown, NoteShown, id_of};
use super::wishes::{JobWishes, trainer};
use crate::access::Permission;
use crate::status::{bad_field, shown};
use crate::submission::FILES_BYTES_MAX;

/// Bytes of a submission: its files, written as JSON.
pub(super) const BODY_BYTES: usize = FILES_BYTES_MAX + (256 << 10);

/// What settings of ours are called by among SimpleTuner's own. Its trainer never sees them.
const OURS: &str = "stepcast_";

/// What the file of the configuration is called.
pub(super) const CONFIG_NAME: &str = "config.json";

/// All of them.
const WISHES: [&str; 7] = [
    "stepcast_on",
    "stepcast_name",
    "stepcast_team",
    "stepcast_gpus",
    "stepcast_hosts",
    "stepcast_priority",
    "stepcast_max_cost_usd",
];

/// Longest run that can be asked for, in minutes: a year.
const MINUTES_MAX: u64 = 365 * 24 * 60;

pub(super) fn routes(api: &mut Api) {
    let route = Route::post(
        "/v1/jobs",
        Permission::SubmitJobs,
        "Puts a job into the queue.",
    );
    let route = route.status(201).body_max(BODY_BYTES);
    api.route(route.submission(), submit);
}

/// SimpleTuner's settings.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Settings {
    /// The configuration: keys with or without leading dashes. `stepcast_on`, `stepcast_name`, `stepcast_team`, `stepcast_gpus`,
    /// `stepcast_hosts`, `stepcast_priority` and `stepcast_max_cost_usd` are wishes, and `max_runtime_minutes` is one.
    pub(super) config: Map<String, Value>,
    /// The data loader's list.
    pub(super) dataloader_config: Vec<Map<String, Value>>,
    /// LyCORIS settings, if the configuration has some.
    #[serde(default)]
    pub(super) lycoris_config: Option<Map<String, Value>>,
    /// A library of prompts, by name.
    #[serde(default)]
    pub(super) prompt_library: Option<Map<String, Value>>,
    /// Where to go on from.
    #[serde(default)]
    pub(super) resume_from_checkpoint: Option<String>,
    /// How many samples each data set has, by its id, where the configuration does not say.
    #[serde(default)]
    pub(super) sample_counts: BTreeMap<String, u64>,
}

/// A job to submit.
#[derive(Debug, Deserialize, JsonSchema)]
struct Submit {
    #[serde(flatten)]
    settings: Settings,
    /// Longest time of one attempt, in minutes.
    #[serde(default)]
    max_runtime_minutes: Option<u64>,
    /// What is asked for besides the work. It counts over what the configuration asks for.
    #[serde(default)]
    wishes: Option<Given<JobWishes>>,
    /// 32 hexadecimal digits drawn by the caller: the same id again gives the first answer again. Unless given, one is drawn
    /// here, which is told where it is not known whether the job was taken.
    #[serde(default)]
    request_id: Option<String>,
    /// Checks everything and keeps nothing.
    #[serde(default)]
    validate_only: bool,
}

/// What became of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Submitted {
    /// The job's id; empty when it was only checked.
    id: String,
    /// Where it stands.
    status: &'static str,
    /// The attempt that is to come.
    attempt_id: String,
    /// What half of such runs cost at most, in cents, loading, caching and saving included; absent when nothing is known.
    estimated_cost_cents: Option<u64>,
    /// What nine in ten of them cost at most, in cents.
    estimated_total_cents: Option<u64>,
    job: JobShown,
    /// Best first by what the job chooses hardware by.
    estimates: Vec<EstimateShown>,
    /// What was assumed while reading the configuration.
    notes: Vec<NoteShown>,
}

async fn submit(http: Http, asked: Asked<Nothing>, sent: Submit) -> Result<Submitted, Status> {
    let request = v1::SubmitJobRequest {
        request_id: asked.request_id(sent.request_id),
        validate_only: sent.validate_only,
        files: sent.settings.files()?,
        sample_counts: sent.settings.counts(),
        wishes: Some(
            sent.settings
                .wishes(sent.max_runtime_minutes, sent.wishes)?,
        ),
    };
    let answer = http.jobs.submit(&asked.caller, request).await?;
    let job = answer.job.unwrap_or_default();
    let cents = |pick: fn(&v1::CostQuantiles) -> u64| {
        let mut costs = answer
            .estimates
            .iter()
            .filter_map(|one| one.whole_cost.as_ref());
        costs.next().map(|cost| pick(cost).div_ceil(10_000))
    };
    let attempts = shapes::attempts(&job);
    Ok(Submitted {
        id: id_of(&job.name),
        attempt_id: attempts
            .last()
            .map_or_else(String::new, |last| last.id.clone()),
        estimated_cost_cents: cents(|cost| cost.p50_usd_micros),
        estimated_total_cents: cents(|cost| cost.p90_usd_micros),
        estimates: answer.estimates.iter().map(shapes::estimate).collect(),
        notes: answer.notes.iter().map(shapes::note).collect(),
        job: shapes::job(&job),
        status: shapes::job(&job).status,
    })
}

impl Settings {
    /// The files that these settings would be on a disk, without what is a wish of ours. One that we do not know is refused:
    /// who mistypes a cap would get a job without one.
    pub(super) fn files(&self) -> Result<Vec<v1::JobFile>, Status> {
        let mut names = self.config.keys().map(|key| plain(key));
        let is_unknown = |name: &&str| name.starts_with(OURS) && !WISHES.contains(name);
        if let Some(name) = names.find(is_unknown) {
            let what = format!("there is no such wish; there are {}", WISHES.join(", "));
            return Err(bad_field(&shown(name), what));
        }
        let mut config = self.config.clone();
        config.retain(|key, _| !is_wish(key));
        if let Some(from) = &self.resume_from_checkpoint
            && !config
                .keys()
                .any(|key| plain(key) == "resume_from_checkpoint")
        {
            config.insert("resume_from_checkpoint".to_owned(), from.as_str().into());
        }
        let mut files = vec![
            file(v1::FileRole::Config, CONFIG_NAME, &config)?,
            file(
                v1::FileRole::DataLoader,
                "multidatabackend.json",
                &self.dataloader_config,
            )?,
        ];
        if let Some(lycoris) = &self.lycoris_config {
            files.push(file(v1::FileRole::Lycoris, "lycoris_config.json", lycoris)?);
        }
        if let Some(prompts) = &self.prompt_library {
            files.push(file(
                v1::FileRole::Prompts,
                "user_prompt_library.json",
                prompts,
            )?);
        }
        Ok(files)
    }

    pub(super) fn counts(&self) -> Vec<v1::SampleCount> {
        let count = |(dataset, samples): (&String, &u64)| v1::SampleCount {
            dataset: dataset.clone(),
            samples: *samples,
        };
        self.sample_counts.iter().map(count).collect()
    }

    /// A setting by its name without dashes.
    fn setting(&self, name: &str) -> Option<&Value> {
        let mut settings = self.config.iter();
        let found = settings.find(|(key, _)| plain(key) == name);
        found
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }
}

impl Settings {
    /// What is asked for besides the work. SimpleTuner's client has no place for it but the configuration itself; what stands
    /// beside that counts over it.
    pub(super) fn wishes(
        &self,
        max_runtime_minutes: Option<u64>,
        beside: Option<Given<JobWishes>>,
    ) -> Result<v1::JobWishes, Status> {
        let minutes = match (max_runtime_minutes, self.setting("max_runtime_minutes")) {
            (Some(minutes), _) => Some(minutes),
            (None, Some(value)) => Some(whole("max_runtime_minutes", value)?),
            (None, None) => None,
        };
        if minutes.is_some_and(|minutes| minutes > MINUTES_MAX) {
            return Err(bad_field(
                "max_runtime_minutes",
                "a run takes a year at most",
            ));
        }
        let mut wishes = v1::JobWishes {
            max_runtime: minutes.map(|minutes| prost_types::Duration {
                // Bounded above.
                seconds: i64::try_from(minutes * 60).unwrap_or(i64::MAX),
                nanos: 0,
            }),
            ..v1::JobWishes::default()
        };
        if let Some(value) = self.setting("stepcast_name") {
            wishes.display_name = text("stepcast_name", value)?;
        }
        if let Some(value) = self.setting("stepcast_on") {
            let list = text("stepcast_on", value)?;
            wishes.allow = list.split(',').map(|one| one.trim().to_owned()).collect();
            wishes.trainer = trainer(&wishes.allow).into();
        }
        if let Some(value) = self.setting("stepcast_team") {
            wishes.team = text("stepcast_team", value)?;
        }
        if let Some(value) = self.setting("stepcast_gpus") {
            let gpus = whole("stepcast_gpus", value)?;
            wishes.gpu_count = u32::try_from(gpus).unwrap_or(u32::MAX);
        }
        if let Some(value) = self.setting("stepcast_hosts") {
            let hosts = whole("stepcast_hosts", value)?;
            wishes.hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
        }
        if let Some(value) = self.setting("stepcast_priority") {
            let priority = number("stepcast_priority", value)?;
            if priority.fract() != 0.0 || priority.abs() > 100.0 {
                return Err(bad_field(
                    "stepcast_priority",
                    "a priority is from -10 to 10",
                ));
            }
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
            let priority = priority as i32;
            wishes.priority = priority;
        }
        if let Some(value) = self.setting("stepcast_max_cost_usd") {
            let usd = number("stepcast_max_cost_usd", value)?;
            if !(0.0..1e9).contains(&usd) {
                return Err(bad_field(
                    "stepcast_max_cost_usd",
                    "this is no amount of money",
                ));
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is positive and small"
            )]
            let micros = (usd * 1e6).round() as u64;
            wishes.max_cost_usd_micros = Some(micros);
        }
        match beside {
            Some(beside) => beside.over(wishes),
            None => Ok(wishes),
        }
    }
}

/// The configuration and its data loader, as far as they are there. A loader alone stands beside an empty configuration.
pub(super) fn some_files(
    config: Option<&Map<String, Value>>,
    loader: Option<&Vec<Map<String, Value>>>,
) -> Result<Vec<v1::JobFile>, Status> {
    if config.is_none() && loader.is_none() {
        return Ok(Vec::new());
    }
    let empty = Map::new();
    let config = config.unwrap_or(&empty);
    let mut files = vec![file(v1::FileRole::Config, CONFIG_NAME, config)?];
    if let Some(loader) = loader {
        let name = "multidatabackend.json";
        files.push(file(v1::FileRole::DataLoader, name, loader)?);
    }
    Ok(files)
}

pub(super) fn file<T: Serialize>(
    role: v1::FileRole,
    name: &str,
    value: &T,
) -> Result<v1::JobFile, Status> {
    let content =
        serde_json::to_vec(value).map_err(|_| bad_field(name, "it cannot be written down"))?;
    Ok(v1::JobFile {
        role: role.into(),
        name: name.to_owned(),
        content,
    })
}

/// Whether a setting is asked of us, and not of the trainer.
pub(super) fn is_wish(key: &str) -> bool {
    let key = plain(key);
    key.starts_with(OURS) || key == "max_runtime_minutes"
}

/// A key without the dashes of a command line.
pub(super) fn plain(key: &str) -> &str {
    key.trim_start_matches('-')
}

fn text(name: &str, value: &Value) -> Result<String, Status> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| bad_field(name, "this is a text"))
}

fn number(name: &str, value: &Value) -> Result<f64, Status> {
    let read = value
        .as_f64()
        .or_else(|| value.as_str()?.trim().parse().ok());
    read.filter(|number| number.is_finite())
        .ok_or_else(|| bad_field(name, "this is a number"))
}

fn whole(name: &str, value: &Value) -> Result<u64, Status> {
    let read = value
        .as_u64()
        .or_else(|| value.as_str()?.trim().parse().ok());
    read.ok_or_else(|| bad_field(name, "this is a whole number, not negative"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn submit(text: &str) -> Submit {
        serde_json::from_str(text).unwrap()
    }

    fn wishes(sent: &Submit) -> Result<v1::JobWishes, Status> {
        let Submit {
            settings,
            max_runtime_minutes,
            wishes,
            ..
        } = sent;
        settings.wishes(*max_runtime_minutes, wishes.clone())
    }

    #[test]
    fn wishes_stand_among_the_settings_and_never_reach_the_trainer() {
        let sent = submit(
            r#"{"max_runtime_minutes": 240, "dataloader_config": [{"id": "a"}], "resume_from_checkpoint": "s3://b/c",
                "config": {"--model_family": "flux", "--max_runtime_minutes": 9, "--stepcast_on": "h100, cpu",
                           "stepcast_name": "cats", "stepcast_gpus": "2", "stepcast_hosts": 3, "stepcast_priority": -3,
                           "stepcast_max_cost_usd": 1.5}}"#,
        );
        let wishes = wishes(&sent).unwrap();
        assert_eq!(wishes.allow, ["h100", "cpu"]);
        assert_eq!(wishes.max_runtime.unwrap().seconds, 240 * 60);
        let rest = (
            wishes.display_name.as_str(),
            (wishes.gpu_count, wishes.hosts),
            wishes.priority,
        );
        assert_eq!(rest, ("cats", (2, 3), -3));
        assert_eq!(wishes.max_cost_usd_micros, Some(1_500_000));
        let files = sent.settings.files().unwrap();
        let config = String::from_utf8(files[0].content.clone()).unwrap();
        assert_eq!(
            config,
            r#"{"--model_family":"flux","resume_from_checkpoint":"s3://b/c"}"#
        );
    }

    #[test]
    fn a_wish_that_nobody_knows_is_refused() {
        for name in ["stepcast_max_cost", "--stepcast_teams", "stepcast_"] {
            let body = format!(r#"{{"dataloader_config": [], "config": {{"{name}": 1}}}}"#);
            let refused = submit(&body).settings.files().unwrap_err();
            assert!(refused.message().contains(plain(name)), "{refused:?}");
            assert!(
                refused.message().contains("stepcast_max_cost_usd"),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_wish_that_is_none_is_refused_with_its_name() {
        for (wish, name) in [
            (r#""stepcast_gpus": -1"#, "stepcast_gpus"),
            (r#""stepcast_on": 5"#, "stepcast_on"),
            (r#""stepcast_priority": 0.5"#, "stepcast_priority"),
            (r#""stepcast_max_cost_usd": -2"#, "stepcast_max_cost_usd"),
            (
                r#""max_runtime_minutes": 99999999999"#,
                "max_runtime_minutes",
            ),
        ] {
            let sent = submit(&format!(
                r#"{{"dataloader_config": [], "config": {{{wish}}}}}"#
            ));
            let refused = wishes(&sent).unwrap_err();
            assert!(refused.message().starts_with(name), "{refused:?}");
        }
    }
}
