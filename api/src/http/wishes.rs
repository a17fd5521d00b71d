//! What a job asks for besides its work, as JSON: shown with a job, and read where it is submitted or changed.

use std::collections::{BTreeMap, HashMap};

use prost_types::{FieldMask, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;

use super::given::Given;
use super::shapes::{short, time};
use crate::service::mixed;
use crate::status::bad_field;
use crate::{convert, names};

/// What a job asks for besides its work. Where a job is submitted, null is as if the wish were not given; where its wishes are
/// changed, what is not given stays, and null takes a wish back.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct JobWishes {
    /// What its owner calls it: 1 to 64 printable characters.
    display_name: Option<String>,
    /// GPUs on each of its hosts, all of one model: 1, 2, 4 or 8.
    gpu_count: Option<u32>,
    /// On how many hosts it runs at once, 1 to 16.
    hosts: Option<u32>,
    /// GPU models it may run on, such as `h100`; none for any GPU.
    allow: Option<Vec<String>>,
    /// Least memory of each GPU in GiB; 0 for no wish.
    min_memory_gib: Option<u32>,
    /// Labels that a worker must carry.
    labels: Option<BTreeMap<String, String>>,
    /// What hardware is chosen by: `CHEAPEST`, `FASTEST` or `BALANCED`.
    objective: Option<String>,
    /// Most that all its GPUs together may cost an hour, in millionths of a US dollar; null for no limit.
    max_price_per_hour_usd_micros: Option<u64>,
    /// Most that all its attempts together may cost, in millionths of a US dollar; null for no limit.
    max_cost_usd_micros: Option<u64>,
    /// Longest time of one attempt, in milliseconds; null for no limit.
    max_runtime_ms: Option<u64>,
    /// -10 to 10; higher goes first.
    priority: Option<i32>,
    /// How often it is tried again after a failure of its own, 0 to 10; 3 unless given.
    retry_limit: Option<u32>,
    /// The team that pays for it, such as `acme/vision`; empty for the default team. Of a job that is over it is shown as
    /// `(removed 3)` where its team was removed, each with its own number.
    team: Option<String>,
    /// When it may begin at the earliest (RFC 3339); null for now.
    not_before_time: Option<String>,
    /// When it should be done (RFC 3339); null for no hurry.
    finish_by_time: Option<String>,
    /// Labels that a worker must not carry.
    avoid_labels: Option<BTreeMap<String, String>>,
    /// Jobs with the same key never run on one worker at the same time; empty for no key.
    spread_key: Option<String>,
    /// How long an attempt is left in peace before its GPUs may be taken back, in milliseconds; null for what the cluster
    /// says.
    min_run_ms: Option<u64>,
    /// How often its GPUs may be taken back; null for what the cluster says.
    preemptions_max: Option<u32>,
}

impl JobWishes {
    /// The wishes of a job.
    pub(super) fn shown(wishes: &v1::JobWishes) -> Self {
        let labels = |labels: &HashMap<String, String>| Some(labels.clone().into_iter().collect());
        let ms = |span: &Option<prost_types::Duration>| {
            let span = span.as_ref();
            span.and_then(convert::duration_to_ms)
        };
        Self {
            display_name: Some(wishes.display_name.clone()),
            gpu_count: Some(wishes.gpu_count),
            hosts: Some(wishes.hosts),
            allow: Some(wishes.allow.clone()),
            min_memory_gib: Some(wishes.min_memory_gib),
            labels: labels(&wishes.labels),
            objective: Some(short(wishes.objective().as_str_name(), OBJECTIVE)),
            max_price_per_hour_usd_micros: wishes.max_price_per_hour_usd_micros,
            max_cost_usd_micros: wishes.max_cost_usd_micros,
            max_runtime_ms: ms(&wishes.max_runtime),
            priority: Some(wishes.priority),
            retry_limit: wishes.retry_limit,
            team: Some(names::bare_team(&wishes.team).to_owned()),
            not_before_time: time(wishes.not_before_time.as_ref()),
            finish_by_time: time(wishes.finish_by_time.as_ref()),
            avoid_labels: labels(&wishes.avoid_labels),
            spread_key: Some(wishes.spread_key.clone()),
            min_run_ms: ms(&wishes.min_run_time),
            preemptions_max: wishes.preemptions_max,
        }
    }

    /// The same in the words of the services; what is not given is not asked for.
    fn asked(self) -> Result<v1::JobWishes, Status> {
        Ok(v1::JobWishes {
            display_name: self.display_name.unwrap_or_default(),
            gpu_count: self.gpu_count.unwrap_or_default(),
            hosts: self.hosts.unwrap_or_default(),
            trainer: trainer(self.allow.as_deref().unwrap_or_default()).into(),
            allow: self.allow.unwrap_or_default(),
            min_memory_gib: self.min_memory_gib.unwrap_or_default(),
            labels: self.labels.into_iter().flatten().collect(),
            objective: objective(self.objective.as_deref())?.into(),
            max_price_per_hour_usd_micros: self.max_price_per_hour_usd_micros,
            max_cost_usd_micros: self.max_cost_usd_micros,
            max_runtime: self.max_runtime_ms.map(convert::duration_ms),
            priority: self.priority.unwrap_or_default(),
            retry_limit: self.retry_limit,
            team: self.team.unwrap_or_default(),
            not_before_time: moment("not_before_time", self.not_before_time)?,
            finish_by_time: moment("finish_by_time", self.finish_by_time)?,
            avoid_labels: self.avoid_labels.into_iter().flatten().collect(),
            spread_key: self.spread_key.unwrap_or_default(),
            min_run_time: self.min_run_ms.map(convert::duration_ms),
            preemptions_max: self.preemptions_max,
        })
    }
}

impl Given<JobWishes> {
    /// What is asked for, and the names of it on the wire.
    pub(super) fn asked(self) -> Result<(v1::JobWishes, FieldMask), Status> {
        if self.names.is_empty() {
            // Without any path all would be meant.
            return Err(bad_field("wishes", "nothing is asked for"));
        }
        let paths = self.paths();
        Ok((self.what.asked()?, FieldMask { paths }))
    }

    /// These wishes of a new job with what is given in the place of what its configuration asks for. Null takes nothing of
    /// that back: programs write it for what they have no word on, and a cap would be gone by it.
    pub(super) fn over(self, was: v1::JobWishes) -> Result<v1::JobWishes, Status> {
        let given = self.without_nulls();
        let paths = given.paths();
        if paths.is_empty() {
            return Ok(was);
        }
        let mut wishes = mixed(was, given.what.asked()?, &paths);
        wishes.trainer = trainer(&wishes.allow).into();
        Ok(wishes)
    }

    fn paths(&self) -> Vec<String> {
        let path = |name: &String| match name.as_str() {
            "max_runtime_ms" => "max_runtime".to_owned(),
            "min_run_ms" => "min_run_time".to_owned(),
            _ => name.clone(),
        };
        let mut paths: Vec<_> = self.names.iter().map(path).collect();
        // Members of an object have no order, and the same request is known again by its words.
        paths.sort_unstable();
        paths
    }
}

/// What stands before each objective on the wire.
const OBJECTIVE: &str = "OBJECTIVE_";

fn objective(text: Option<&str>) -> Result<v1::Objective, Status> {
    let Some(text) = text else {
        return Ok(v1::Objective::Unspecified);
    };
    let name = format!("{OBJECTIVE}{}", text.to_ascii_uppercase());
    v1::Objective::from_str_name(&name)
        .filter(|objective| *objective != v1::Objective::Unspecified)
        .ok_or_else(|| {
            let what = "there are CHEAPEST, FASTEST and BALANCED";
            bad_field("wishes.objective", what)
        })
}

/// What runs on these: pretend hardware plays streams.
pub(super) fn trainer(allow: &[String]) -> v1::Trainer {
    match allow.iter().any(|model| model == "replay") {
        true => v1::Trainer::Replay,
        false => v1::Trainer::Unspecified,
    }
}

fn moment(name: &str, text: Option<String>) -> Result<Option<Timestamp>, Status> {
    let read = |text: String| {
        let what = "write a time as 2026-10-01T08:00:00Z";
        text.parse()
            .map_err(|_| bad_field(&format!("wishes.{name}"), what))
    };
    text.map(read).transpose()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn given(text: &str) -> Given<JobWishes> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_given_is_meant_and_null_takes_back_only_what_was_asked_for_before() {
        let (wishes, mask) =
            given(r#"{"priority": 3, "max_cost_usd_micros": null, "min_run_ms": 1500}"#)
                .asked()
                .unwrap();
        assert_eq!(
            mask.paths,
            ["max_cost_usd_micros", "min_run_time", "priority"]
        );
        assert_eq!((wishes.priority, wishes.max_cost_usd_micros), (3, None));
        let was = v1::JobWishes {
            gpu_count: 4,
            max_cost_usd_micros: Some(5),
            ..v1::JobWishes::default()
        };
        let mixed = given(r#"{"max_cost_usd_micros": null, "allow": ["replay"]}"#).over(was);
        let mixed = mixed.unwrap();
        let of_a_new_job = (mixed.gpu_count, mixed.max_cost_usd_micros);
        assert_eq!(of_a_new_job, (4, Some(5)));
        assert_eq!(mixed.trainer(), v1::Trainer::Replay);
        assert!(given("{}").asked().is_err());
    }

    #[test]
    fn every_wish_that_is_shown_is_read_again() {
        let wishes = v1::JobWishes {
            display_name: "cats".to_owned(),
            gpu_count: 2,
            hosts: 3,
            allow: vec!["h100".to_owned()],
            min_memory_gib: 40,
            labels: HashMap::from([("zone".to_owned(), "north".to_owned())]),
            objective: v1::Objective::Fastest.into(),
            max_price_per_hour_usd_micros: Some(1),
            max_cost_usd_micros: Some(2),
            max_runtime: Some(convert::duration_ms(3_500)),
            priority: -4,
            retry_limit: Some(0),
            trainer: v1::Trainer::Unspecified.into(),
            team: "acme/vision".to_owned(),
            not_before_time: Some(convert::timestamp_ms(1_800_000_000_500)),
            finish_by_time: Some(convert::timestamp_ms(1_900_000_000_000)),
            avoid_labels: HashMap::from([("spot".to_owned(), "yes".to_owned())]),
            spread_key: "mine".to_owned(),
            min_run_time: Some(convert::duration_ms(60_000)),
            preemptions_max: Some(7),
        };
        let text = serde_json::to_string(&JobWishes::shown(&wishes)).unwrap();
        // What is shown is everything that there is.
        let read = given(&text).over(v1::JobWishes::default()).unwrap();
        assert_eq!(read, wishes);
    }

    #[test]
    fn a_wish_that_is_none_is_refused_with_its_name() {
        for (wish, name) in [
            (r#"{"objective": "quickest"}"#, "wishes.objective"),
            (r#"{"objective": "unspecified"}"#, "wishes.objective"),
            (r#"{"finish_by_time": "soon"}"#, "wishes.finish_by_time"),
        ] {
            let refused = given(wish).asked().unwrap_err();
            assert!(refused.message().starts_with(name), "{refused:?}");
        }
        let unknown = serde_json::from_str::<Given<JobWishes>>(r#"{"max_cost": 1}"#);
        assert!(unknown.unwrap_err().to_string().contains("unknown field"));
    }
}
