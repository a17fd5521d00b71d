//! Workers and what they offer.

use schemars::JsonSchema;
use serde::Serialize;
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::route::{Nothing, Route};
use super::shapes::{id_of, short, time};
use crate::access::Permission;
use crate::names;
use crate::service::Workers;

pub(super) fn routes(api: &mut Api) {
    let read = Permission::ReadWorkers;
    api.route(Route::get("/v1/workers", read, "Every worker."), list);
    let run = Permission::RunWorkers;
    let drain = Route::post("/v1/workers/{id}/drain", run, "Gives a worker nothing new.");
    api.route(drain, self::drain);
    let resume = Route::post(
        "/v1/workers/{id}/resume",
        run,
        "Gives a drained worker work again.",
    );
    api.route(resume, self::resume);
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
    /// Since when it takes part.
    registered_at: Option<String>,
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
}

/// Done.
#[derive(Debug, Serialize, JsonSchema)]
struct Done {
    id: String,
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
        registered_at: time(worker.register_time.as_ref()),
    }
}

async fn drain(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Done, Status> {
    let request = v1::DrainWorkerRequest {
        name: names::of_text("workers", asked.part("id")),
        stop_running: false,
    };
    Workers(http.context).drain(&asked.caller, request).await?;
    Ok(done(&asked))
}

async fn resume(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Done, Status> {
    let name = names::of_text("workers", asked.part("id"));
    Workers(http.context).resume(&asked.caller, &name).await?;
    Ok(done(&asked))
}

fn done(asked: &Asked<Nothing>) -> Done {
    Done {
        id: asked.part("id").to_owned(),
    }
}
