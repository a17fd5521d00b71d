//! What a run will take and cost, before it is submitted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::route::{Nothing, Route};
use super::shapes::{self, EstimateShown, NoteShown};
use super::submit::{BODY_BYTES, Settings};
use crate::access::Permission;

pub(super) fn routes(api: &mut Api) {
    let route = Route::post(
        "/v1/estimates",
        Permission::Estimate,
        "What a run would take and cost. Nothing is kept of it.",
    );
    api.route(route.body_max(BODY_BYTES).anywhere(), estimate);
}

/// A run to estimate.
#[derive(Debug, Deserialize, JsonSchema)]
struct Ask {
    #[serde(flatten)]
    settings: Settings,
    /// Hardware to estimate for, such as `h100x2`; all that is known unless given.
    #[serde(default)]
    hardware: Vec<String>,
}

/// What it would take.
#[derive(Debug, Serialize, JsonSchema)]
struct Estimated {
    /// What is trained, in one line.
    title: String,
    /// Optimizer steps.
    steps_total: u64,
    /// Cheapest first.
    estimates: Vec<EstimateShown>,
    /// What was assumed while reading the configuration.
    notes: Vec<NoteShown>,
    /// The day of the prices.
    prices_date: String,
}

async fn estimate(http: Http, asked: Asked<Nothing>, ask: Ask) -> Result<Estimated, Status> {
    let request = v1::EstimateJobRequest {
        files: ask.settings.files()?,
        sample_counts: ask.settings.counts(),
        hardware: ask.hardware,
    };
    let estimated = crate::service::Estimates(http.context)
        .estimate(&asked.caller, request)
        .await?;
    Ok(Estimated {
        title: estimated.title,
        steps_total: estimated.steps_total,
        estimates: estimated.estimates.iter().map(shapes::estimate).collect(),
        notes: estimated.notes.iter().map(shapes::note).collect(),
        prices_date: estimated.prices_date,
    })
}
