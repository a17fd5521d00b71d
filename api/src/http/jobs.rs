//! Jobs listed, shown, explained, changed, approved and cancelled, and what their trainers printed.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::given::Given;
use super::route::{Nothing, Route};
use super::shapes::{self, AttemptShown, JobShown, NoteShown, OutlookShown, short};
use super::submit::{self, BODY_BYTES};
use super::wishes::JobWishes;
use crate::access::Permission;
use crate::status::bad_field;
use crate::{names, room};

pub(super) fn routes(api: &mut Api) {
    let read = Permission::ReadJobs;
    api.route(Route::get("/v1/jobs", read, "Jobs, newest first."), list);
    api.route(
        Route::get("/v1/jobs/{id}", read, "One job with its attempts."),
        show,
    );
    api.stream::<Nothing, Logs, _, _>(
        Route::get(
            "/v1/jobs/{id}/logs",
            read,
            "What the trainer printed, redacted.",
        ),
        logs,
    );
    api.route(
        Route::get("/v1/jobs/{id}/why", read, "Why a job does not run."),
        why,
    );
    api.route(
        Route::post(
            "/v1/jobs/{id}/credentials",
            Permission::ChangeJobs,
            "Gives a waiting job its credentials again.",
        )
        .body_max(BODY_BYTES),
        give_credentials,
    );
    let update = Route::post(
        "/v1/jobs/{id}/update",
        Permission::ChangeJobs,
        "Has a waiting job ask for something else.",
    );
    api.route(update, self::update);
    let approve = Route::post(
        "/v1/jobs/{id}/approve",
        Permission::RunCluster,
        "Lets a job cost what it costs, where its team wants somebody's word for it.",
    );
    api.route(approve.body_optional(), self::approve);
    api.route(
        Route::post(
            "/v1/jobs/{id}/cancel",
            Permission::ChangeJobs,
            "Ends a job.",
        ),
        cancel,
    );
}

/// Which jobs.
#[derive(Debug, Deserialize, JsonSchema)]
struct Which {
    /// 1 to 1,000; 50 unless given.
    page_size: Option<u32>,
    /// `next_page_token` of the answer before.
    page_token: Option<String>,
    /// Only jobs in this state, such as `RUNNING`.
    state: Option<String>,
    /// Whether to say when they are expected to start and to be done: that takes up to half a second.
    outlook: Option<bool>,
}

/// What is to be said of a job.
#[derive(Debug, Deserialize, JsonSchema)]
struct Ahead {
    /// Whether to say when it is expected to start and to be done: that takes up to half a second.
    outlook: Option<bool>,
}

/// Jobs.
#[derive(Debug, Serialize, JsonSchema)]
struct Jobs {
    /// Newest first.
    items: Vec<JobShown>,
    /// Empty on the last page, and on no other: a page may have fewer jobs than were asked for, or none, and not be the last.
    next_page_token: String,
}

/// A job and its attempts.
#[derive(Debug, Serialize, JsonSchema)]
struct Shown {
    job: JobShown,
    /// Oldest first.
    attempts: Vec<AttemptShown>,
}

/// Lines of a trainer.
#[derive(Debug, Serialize, JsonSchema)]
struct Logs {
    /// The lines of all attempts so far, each with its end. Of an attempt at most 1 MiB: the first 768 KiB as they come and,
    /// when its trainer has ended, the newest ones, with a word where lines are missing; of a job 16 MiB. A later answer
    /// begins with all of an earlier one.
    logs: String,
}

/// A job that ends.
#[derive(Debug, Serialize, JsonSchema)]
struct Cancelled {
    /// `cancelling` or `cancelled`.
    status: &'static str,
    job: JobShown,
}

/// Credentials of a job.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Credentials {
    /// By their names, as the job shows them.
    #[serde(default)]
    credentials: BTreeMap<String, String>,
    /// Or the configuration once more: what stands in it is taken, and nothing else of it is kept.
    #[serde(default)]
    config: Option<Map<String, Value>>,
    /// The same of the data loader's list.
    #[serde(default)]
    dataloader_config: Option<Vec<Map<String, Value>>>,
}

/// What a waiting job asks for from here on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Update {
    /// What is not given stays, and null takes a wish back.
    wishes: Given<JobWishes>,
    /// The job's etag as it was seen: refused if it is another one by now. Any unless given.
    #[serde(default)]
    etag: String,
    /// 32 hexadecimal digits drawn by the caller: the same id again gives the first answer again.
    #[serde(default)]
    request_id: String,
}

/// A job that asks for something else.
#[derive(Debug, Serialize, JsonSchema)]
struct Updated {
    job: JobShown,
    /// As which board a name was read that several share, and which of its limits are certain to end it before it is done.
    notes: Vec<NoteShown>,
}

/// As what a job was seen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Seen {
    /// The job's etag as it was seen: refused if it is another one by now. Any unless given. It may stand behind the question
    /// mark as well as in the body.
    etag: Option<String>,
}

impl Seen {
    /// The etag that is given here or in the body, if there is one.
    fn etag(self, body: Self) -> Result<Option<String>, Status> {
        // As a variable that was not set leaves it: whatever there is by now would be changed.
        if [&self, &body]
            .into_iter()
            .any(|seen| seen.etag.as_deref() == Some(""))
        {
            let what = "leave it out to change the job as it is by now";
            return Err(bad_field("etag", what));
        }
        let (Some(here), Some(there)) = (&self.etag, &body.etag) else {
            return Ok(self.etag.or(body.etag));
        };
        if here != there {
            let what = "another one is given behind the question mark than in the body";
            return Err(bad_field("etag", what));
        }
        Ok(self.etag)
    }
}

/// A job after what was done to it.
#[derive(Debug, Serialize, JsonSchema)]
struct OneJob {
    job: JobShown,
}

/// Why a job does not run.
#[derive(Debug, Serialize, JsonSchema)]
struct Why {
    /// `NEVER`, `HELD`, `CAPACITY`, `ORDER` or `NEW`; `UNSPECIFIED` when it runs or is over.
    tier: String,
    /// What it waits for.
    headline: String,
    /// Each reason with whom it concerns.
    lines: Vec<WhyLine>,
    /// Jobs that go first.
    jobs_ahead: u32,
    /// What would start it sooner.
    hints: Vec<String>,
    /// Changes that start it now, the simplest and cheapest first: each was tried on a copy of the queue.
    sooner: Vec<Sooner>,
    /// When it is expected to start and to be done; nothing for a job that is over.
    outlook: Option<OutlookShown>,
}

/// A change with which a job starts now.
#[derive(Debug, Serialize, JsonSchema)]
struct Sooner {
    /// What to change, such as `allow H100`.
    text: String,
    /// The command that changes it.
    command: String,
    /// What the worker is called on which it then starts.
    worker: String,
    /// What half of such runs cost there at most, in millionths of a US dollar.
    cost_usd_micros: Option<u64>,
    /// Who may do it, such as `an operator`, where whoever asks may not; else empty.
    by: String,
}

/// One reason.
#[derive(Debug, Serialize, JsonSchema)]
struct WhyLine {
    /// How many workers it concerns.
    count: u32,
    /// A stable name such as `GPUS_BUSY`.
    reason: String,
    /// What the workers are called, at most ten.
    workers: Vec<String>,
    /// What it means and what clears it.
    detail: String,
}

/// Jobs on a page unless somebody says how many: as many as SimpleTuner's client asks for.
const PAGE: u32 = 50;

async fn list(http: Http, asked: Asked<Which>, _: Nothing) -> Result<Jobs, Status> {
    let which = &asked.query;
    let states = match &which.state {
        None => Vec::new(),
        Some(name) => {
            let name = format!("JOB_STATE_{}", name.to_ascii_uppercase());
            let state = v1::JobState::from_str_name(&name);
            vec![state.map_or(-1, i32::from)]
        }
    };
    let request = v1::ListJobsRequest {
        page_size: which.page_size.unwrap_or(PAGE),
        page_token: which.page_token.clone().unwrap_or_default(),
        states,
        with_outlook: which.outlook.unwrap_or(false),
    };
    let page = http
        .jobs
        .list(&asked.caller, request, asked.freshness)
        .await?;
    Ok(Jobs {
        items: page.jobs.iter().map(shapes::job).collect(),
        next_page_token: page.next_page_token,
    })
}

async fn show(http: Http, asked: Asked<Ahead>, _: Nothing) -> Result<Shown, Status> {
    let name = name(&asked);
    let request = v1::GetJobRequest {
        name,
        with_outlook: asked.query.outlook.unwrap_or(false),
    };
    let job = http.jobs.get(&asked.caller, request, asked.freshness);
    let job = job.await?.job;
    let job = job.unwrap_or_default();
    Ok(Shown {
        attempts: shapes::attempts(&job),
        job: shapes::job(&job),
    })
}

async fn logs(http: Http, asked: Asked<Nothing>) -> Result<Response, Status> {
    let limits = &http.admission.limits;
    let rooms = limits.rooms_for_answers(&asked.caller, asked.peer);
    // Before anything is read: they are the longest answers there are.
    let (logs, room) = http
        .jobs
        .kept_logs(&asked.caller, &name(&asked), asked.freshness, &rooms)
        .await?;
    let answer = Json(Logs { logs }).into_response();
    Ok(room::holding(answer, room))
}

async fn cancel(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Cancelled, Status> {
    let request = v1::CancelJobRequest {
        name: name(&asked),
        request_id: String::new(),
    };
    let job = http
        .jobs
        .cancel(&asked.caller, request)
        .await?
        .job
        .unwrap_or_default();
    let job = shapes::job(&job);
    Ok(Cancelled {
        status: job.status,
        job,
    })
}

async fn give_credentials(
    http: Http,
    asked: Asked<Nothing>,
    sent: Credentials,
) -> Result<OneJob, Status> {
    let request = v1::GiveCredentialsRequest {
        name: name(&asked),
        files: submit::some_files(sent.config.as_ref(), sent.dataloader_config.as_ref())?,
        credentials: sent.credentials.into_iter().collect(),
    };
    let given = http.jobs.give_credentials(&asked.caller, request).await?;
    Ok(OneJob {
        job: shapes::job(&given.job.unwrap_or_default()),
    })
}

async fn update(http: Http, asked: Asked<Seen>, sent: Update) -> Result<Updated, Status> {
    let name = name(&asked);
    let (wishes, mask) = sent.wishes.asked()?;
    let said = Some(sent.etag).filter(|etag| !etag.is_empty());
    let etag = asked.query.etag(Seen { etag: said })?;
    let request = v1::UpdateJobRequest {
        name,
        wishes: Some(wishes),
        update_mask: Some(mask),
        etag: etag.unwrap_or_default(),
        request_id: sent.request_id,
    };
    let updated = http.jobs.update(&asked.caller, request).await?;
    Ok(Updated {
        job: shapes::job(&updated.job.unwrap_or_default()),
        notes: updated.notes.iter().map(shapes::note).collect(),
    })
}

async fn approve(http: Http, asked: Asked<Seen>, sent: Seen) -> Result<OneJob, Status> {
    let name = name(&asked);
    let etag = asked.query.etag(sent)?;
    let request = v1::ApproveJobRequest {
        name,
        request_id: String::new(),
        etag: etag.unwrap_or_default(),
    };
    let approved = http.jobs.approve(&asked.caller, request).await?;
    Ok(OneJob {
        job: shapes::job(&approved.job.unwrap_or_default()),
    })
}

async fn why(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Why, Status> {
    let why = http
        .jobs
        .explain(&asked.caller, &name(&asked), asked.freshness)
        .await?;
    let line = |line: &v1::WhyLine| WhyLine {
        count: line.count,
        reason: line.reason.clone(),
        workers: line.workers.clone(),
        detail: line.detail.clone(),
    };
    let sooner = |sooner: v1::Sooner| Sooner {
        text: sooner.text,
        command: sooner.command,
        worker: sooner.worker,
        cost_usd_micros: sooner.cost_usd_micros,
        by: sooner.by,
    };
    Ok(Why {
        tier: short(why.tier().as_str_name(), "WHY_TIER_"),
        lines: why.lines.iter().map(line).collect(),
        headline: why.headline,
        jobs_ahead: why.jobs_ahead,
        hints: why.hints,
        sooner: why.sooner.into_iter().map(sooner).collect(),
        outlook: why.outlook.as_ref().map(shapes::outlook),
    })
}

/// The resource name of the job in the path.
pub(super) fn name<Q>(asked: &Asked<Q>) -> String {
    names::of_text("jobs", asked.part("id"))
}
