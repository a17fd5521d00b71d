//! When jobs start and are done if something were different.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::given::Given;
use super::route::{Nothing, Route};
use super::shapes::{self, OutlookShown, id_of, short};
use super::wishes::JobWishes;
use crate::access::Permission;
use crate::names;

pub(super) fn routes(api: &mut Api) {
    let route = Route::post(
        "/v1/what-if",
        Permission::ReadJobs,
        "When jobs start and are done, as it is and if something were different. Nothing is changed by it.",
    );
    api.route(route.anywhere(), what_if);
}

/// What would be different; with nothing, how it stands.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Suppose {
    /// Whose times are wanted, by id; all that you see and that are not over unless given.
    jobs: Vec<String>,
    /// Workers that would join.
    add_workers: Vec<Workers>,
    /// Workers that would take nothing more, by id; their jobs would go on elsewhere.
    remove_workers: Vec<String>,
    /// What waiting jobs would ask for.
    wishes: Vec<Wishes>,
    /// Jobs that would be cancelled, by id.
    cancel_jobs: Vec<String>,
    /// Limits that teams would have; for operators.
    teams: Vec<Team>,
    /// By what the cluster would decide, such as `shortest-remaining`; for operators.
    aim: String,
    /// When running jobs would yield, such as `priced`; for operators.
    preemption: String,
}

/// Workers with the same to offer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Workers {
    /// The model of their GPUs, such as `h100`.
    gpu: String,
    /// GPUs of each; 1 unless given.
    gpus: Option<u32>,
    /// How many workers; 1 unless given.
    count: Option<u32>,
    /// What one GPU would cost an hour, in millionths of a US dollar; unless given, the least that one of the same model
    /// costs now.
    price_per_gpu_hour_usd_micros: Option<u64>,
    /// Labels that they would carry.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// What a waiting job would ask for; what is not given stays, and null takes a wish back.
#[derive(Debug, Deserialize, JsonSchema)]
struct Wishes {
    /// The job's id.
    job: String,
    #[serde(flatten)]
    wishes: Given<JobWishes>,
}

/// A team with other limits; what is not given stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Team {
    /// Such as `acme/vision`.
    name: String,
    /// Most GPUs at the same time.
    gpu_quota: Option<u32>,
    /// Most money in its period, in millionths of a US dollar.
    budget_usd_micros: Option<u64>,
    /// Its share against the other teams of the same level.
    weight: Option<i32>,
    /// It has neither quota nor budget.
    #[serde(default)]
    no_limits: bool,
}

/// When jobs start and are done.
#[derive(Debug, Serialize, JsonSchema)]
struct Supposed {
    /// In the order in which they were asked for, or of the queue.
    items: Vec<Times>,
    /// Jobs that are not in the answer, since it was full.
    left_out: u32,
}

/// When one job starts and is done.
#[derive(Debug, Serialize, JsonSchema)]
struct Times {
    /// The job's id.
    job: String,
    /// What its owner calls it, or what is trained.
    title: String,
    /// Where it stands, such as `PENDING`.
    state: String,
    /// As it is.
    before: Option<OutlookShown>,
    /// As it would be; nothing if it would be cancelled.
    after: Option<OutlookShown>,
}

async fn what_if(http: Http, asked: Asked<Nothing>, what: Suppose) -> Result<Supposed, Status> {
    let named = |kind: &'static str, ids: Vec<String>| -> Vec<String> {
        let names = ids.iter().map(|id| names::of_text(kind, id));
        names.collect()
    };
    let wishes = what.wishes.into_iter().map(Wishes::asked);
    let request = v1::WhatIfRequest {
        jobs: named("jobs", what.jobs),
        add_workers: what.add_workers.into_iter().map(Workers::asked).collect(),
        remove_workers: named("workers", what.remove_workers),
        wishes: wishes.collect::<Result<_, _>>()?,
        cancel_jobs: named("jobs", what.cancel_jobs),
        teams: what.teams.into_iter().map(Team::asked).collect(),
        aim: what.aim,
        preemption: what.preemption,
    };
    let answer = http
        .jobs
        .what_if(&asked.caller, request, asked.freshness)
        .await?;
    let times = |times: &v1::JobTimes| Times {
        job: id_of(&times.name),
        title: times.title.clone(),
        state: short(times.state().as_str_name(), "JOB_STATE_"),
        before: times.before.as_ref().map(shapes::outlook),
        after: times.after.as_ref().map(shapes::outlook),
    };
    Ok(Supposed {
        items: answer.jobs.iter().map(times).collect(),
        left_out: answer.left_out,
    })
}

impl Workers {
    fn asked(self) -> v1::SupposedWorkers {
        v1::SupposedWorkers {
            count: self.count.unwrap_or(1),
            gpu: self.gpu,
            gpus: self.gpus.unwrap_or(1),
            price_per_gpu_hour_usd_micros: self.price_per_gpu_hour_usd_micros,
            labels: self.labels.into_iter().collect(),
        }
    }
}

impl Wishes {
    fn asked(self) -> Result<v1::SupposedWishes, Status> {
        let (wishes, mask) = self.wishes.asked()?;
        Ok(v1::SupposedWishes {
            job: names::of_text("jobs", &self.job),
            wishes: Some(wishes),
            update_mask: Some(mask),
        })
    }
}

impl Team {
    fn asked(self) -> v1::SupposedTeam {
        v1::SupposedTeam {
            name: names::of_text("teams", &self.name),
            gpu_quota: self.gpu_quota,
            budget_usd_micros: self.budget_usd_micros,
            weight: self.weight,
            no_limits: self.no_limits,
        }
    }
}
