//! Workers, what they offer, and the tokens that let them in.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::route::{Nothing, Route};
use super::shapes::{Done, id_of, short, time};
use crate::access::Permission;
use crate::names;
use crate::service::Workers;

pub(super) fn routes(api: &mut Api) {
    let read = Permission::ReadWorkers;
    api.route(Route::get("/v1/workers", read, "Every worker."), list);
    let run = Permission::RunWorkers;
    let drain = "Gives a worker nothing new.";
    let drain = Route::post("/v1/workers/{id}/drain", run, drain);
    api.route(drain, self::drain);
    let resume = Route::post(
        "/v1/workers/{id}/resume",
        run,
        "Gives a drained worker work again.",
    );
    api.route(resume, self::resume);
    let tokens = "The tokens that let workers in, without their secrets.";
    api.route(Route::get("/v1/worker-tokens", run, tokens), list_tokens);
    let create = "Makes the token that lets one worker in. Its secret is told once.";
    let create = Route::post("/v1/worker-tokens", run, create).status(201);
    api.route(create, create_token);
    let revoke = "Takes a token back: its worker gets nothing more, and what it runs is stopped.";
    let revoke = Route::post("/v1/worker-tokens/{id}/revoke", run, revoke);
    api.route(revoke, revoke_token);
}

/// Workers.
#[derive(Debug, Serialize, JsonSchema)]
struct All {
    items: Vec<WorkerShown>,
}

/// One worker.
#[derive(Debug, Serialize, JsonSchema)]
struct WorkerShown {
    id: String,
    /// What it is called.
    name: String,
    /// `READY`, `DRAINING`, `LOST` (not heard of for a lease, or stopped) or `REVOKED`.
    state: String,
    /// Whether it has a connection to the node that answers, if that leads.
    attached: bool,
    gpus: Vec<Gpu>,
    /// What one of its GPUs costs an hour by its own word, in millionths of a US dollar.
    price_per_gpu_hour_usd_micros: Option<u64>,
    /// Whether its GPUs cost what the operator's prices say, since it says none itself.
    price_from_book: bool,
    /// Where other hosts reach it, as `HOST:PORT`; empty if it takes part in no job over several hosts.
    gang_address: String,
    /// Labels that it carries.
    labels: BTreeMap<String, String>,
    /// Since when it takes part.
    registered_at: Option<String>,
    /// Since when it has been lost or draining.
    since: Option<String>,
}

/// One GPU.
#[derive(Debug, Serialize, JsonSchema)]
struct Gpu {
    /// Such as `h100`.
    model: String,
    /// Whether an attempt holds it.
    busy: bool,
    /// What it costs an hour now, in millionths of a US dollar: as its worker says, else as the operator's prices do.
    price_per_hour_usd_micros: Option<u64>,
    /// The id of the job that runs on it; `-` for one of another organisation.
    job: Option<String>,
}

/// Whether what runs on a worker may end there.
#[derive(Debug, Deserialize, JsonSchema)]
struct Drain {
    /// Whether what runs there is stopped too, to go on elsewhere from its newest checkpoint.
    stop_running: Option<bool>,
}

/// A token to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewWorkerToken {
    /// What its worker will be called; no two tokens have the same name.
    name: String,
}

/// The right to be one worker, without its secret.
#[derive(Debug, Serialize, JsonSchema)]
struct WorkerTokenShown {
    id: String,
    /// What its worker is called.
    name: String,
    created_at: Option<String>,
    /// The worker that came with it, if one has.
    worker_id: Option<String>,
}

/// Tokens of workers, by name.
#[derive(Debug, Serialize, JsonSchema)]
struct WorkerTokens {
    items: Vec<WorkerTokenShown>,
}

/// A new token of a worker.
#[derive(Debug, Serialize, JsonSchema)]
struct WorkerSecret {
    /// For `stepcast worker --join-token-file`; nobody can be told it a second time.
    secret: String,
    token: Option<WorkerTokenShown>,
}

async fn list(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<All, Status> {
    let workers = Workers(http.context)
        .list(&asked.caller, asked.freshness)
        .await?
        .workers;
    let items = workers.iter().map(shown).collect();
    Ok(All { items })
}

fn shown(worker: &v1::Worker) -> WorkerShown {
    let gpu = |gpu: &v1::Gpu| Gpu {
        model: gpu.model.clone(),
        busy: !gpu.job.is_empty(),
        price_per_hour_usd_micros: gpu.price_per_hour_usd_micros,
        job: Some(id_of(&gpu.job)).filter(|job| !job.is_empty()),
    };
    WorkerShown {
        id: id_of(&worker.name),
        name: worker.display_name.clone(),
        state: short(worker.state().as_str_name(), "WORKER_STATE_"),
        attached: worker.attached,
        gpus: worker.gpus.iter().map(gpu).collect(),
        price_per_gpu_hour_usd_micros: worker.price_per_gpu_hour_usd_micros,
        price_from_book: worker.price_from_book,
        gang_address: worker.gang_address.clone(),
        labels: worker.labels.clone().into_iter().collect(),
        registered_at: time(worker.register_time.as_ref()),
        since: time(worker.since_time.as_ref()),
    }
}

async fn drain(http: Http, asked: Asked<Drain>, _: Nothing) -> Result<Done, Status> {
    let request = v1::DrainWorkerRequest {
        name: names::of_text("workers", asked.part("id")),
        stop_running: asked.query.stop_running.unwrap_or(false),
    };
    Workers(http.context).drain(&asked.caller, request).await?;
    Ok(asked.done())
}

async fn resume(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Done, Status> {
    let name = names::of_text("workers", asked.part("id"));
    Workers(http.context).resume(&asked.caller, &name).await?;
    Ok(asked.done())
}

async fn create_token(
    http: Http,
    asked: Asked<Nothing>,
    sent: NewWorkerToken,
) -> Result<WorkerSecret, Status> {
    let request = v1::CreateWorkerTokenRequest {
        display_name: sent.name,
    };
    let workers = Workers(http.context);
    let made = workers.create_token(&asked.caller, request);
    let made = made.await?;
    Ok(WorkerSecret {
        secret: made.secret,
        token: made.token.map(token),
    })
}

async fn list_tokens(
    http: Http,
    asked: Asked<Nothing>,
    _: Nothing,
) -> Result<WorkerTokens, Status> {
    let listed = Workers(http.context).list_tokens(asked.freshness).await?;
    Ok(WorkerTokens {
        items: listed.tokens.into_iter().map(token).collect(),
    })
}

async fn revoke_token(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Done, Status> {
    let name = names::of_text("workerTokens", asked.part("id"));
    let workers = Workers(http.context);
    let revoked = workers.revoke_token(&asked.caller, &name);
    revoked.await?;
    Ok(asked.done())
}

fn token(token: v1::WorkerToken) -> WorkerTokenShown {
    WorkerTokenShown {
        id: id_of(&token.name),
        name: token.display_name,
        created_at: time(token.create_time.as_ref()),
        worker_id: Some(id_of(&token.worker)).filter(|id| !id.is_empty()),
    }
}
