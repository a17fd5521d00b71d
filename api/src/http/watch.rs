//! A job watched: server-sent events, which go on where they were cut off.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;
use v1::watch_job_response::Update;

use super::answer::{self, Refused};
use super::api::{Api, Asked, Http};
use super::jobs::name;
use super::route::{EVENTS, Route};
use super::shapes::{self, JobShown, ProgressShown, short, time};
use crate::access::Permission;

/// A line goes out so often when there is nothing to tell, so that what is in between keeps the connection.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

pub(super) fn routes(api: &mut Api) {
    let route = Route::get(
        "/v1/jobs/{id}/watch",
        Permission::ReadJobs,
        "The job as it is, then everything that happens to it, as server-sent events `current`, `event`, `progress`, `log` \
         and `refused`; ends with the job.",
    );
    api.stream::<Which, Told, _, _>(route.kind(EVENTS), watch);
}

/// What is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
struct Which {
    /// Whether the trainer's lines are wanted too.
    logs: Option<bool>,
    /// Number of the newest event that is known. The header `Last-Event-ID` says the same; of both the larger counts, since
    /// a browser that connects again repeats the address with which it began.
    after_seq: Option<u64>,
}

/// The data of one event, by the event's name.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Told {
    /// `current`: the job as it is.
    Current(Box<JobShown>),
    /// `event`: something has happened to it.
    Event(EventShown),
    /// `progress`: how far the attempt is.
    Progress(ProgressShown),
    /// `log`: lines that the trainer printed.
    Log {
        /// Oldest first.
        lines: Vec<String>,
    },
    /// `refused`: why the stream ends before the job.
    Refused(Refused),
}

/// Something that has happened to a job.
#[derive(Debug, Serialize, JsonSchema)]
struct EventShown {
    /// One more than that of the event before.
    seq: u64,
    /// When.
    time: Option<String>,
    /// A stable name, such as `STARTED`.
    kind: String,
    /// Where the job stands after it.
    state: String,
    /// Which try; 0 if none is meant.
    attempt: u32,
    /// A step; 0 if none is meant.
    step: u64,
    /// An outcome or failure reason; empty if none is meant.
    reason: String,
    /// What the worker is called; empty if none is meant.
    worker: String,
}

async fn watch(http: Http, asked: Asked<Which>) -> Result<Response, Status> {
    let last = asked.headers.get("last-event-id");
    let last = last.and_then(|last| last.to_str().ok()?.parse::<u64>().ok());
    let request = v1::WatchJobRequest {
        name: name(&asked),
        logs: asked.query.logs.unwrap_or(false),
        after_seq: asked.query.after_seq.max(last).unwrap_or(0),
    };
    let reading = http.reader(&asked, Permission::ReadJobs).open_counted()?;
    let updates = http.jobs.watch(reading, request, asked.freshness).await?;
    let events = updates.map(|update| Ok::<_, Infallible>(event(update)));
    let alive = KeepAlive::new().interval(ALIVE_EVERY);
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

fn event(update: Result<v1::WatchJobResponse, Status>) -> Event {
    let update = match update {
        Ok(update) => update,
        Err(status) => {
            let told = Told::Refused(answer::told(&status));
            let data = serde_json::to_string(&told).unwrap_or_default();
            return Event::default().event("refused").data(data);
        }
    };
    let (name, told) = match update.update {
        None => return Event::default().comment("nothing"),
        Some(Update::Current(job)) => ("current", Told::Current(Box::new(shapes::job(&job)))),
        Some(Update::Event(event)) => ("event", Told::Event(shown(event))),
        Some(Update::Progress(progress)) => {
            ("progress", Told::Progress(shapes::progress(&progress)))
        }
        Some(Update::Log(log)) => ("log", Told::Log { lines: log.lines }),
    };
    // These shapes are always JSON.
    let data = serde_json::to_string(&told).unwrap_or_default();
    Event::default()
        .event(name)
        .id(update.seq.to_string())
        .data(data)
}

fn shown(event: v1::JobEvent) -> EventShown {
    EventShown {
        seq: event.seq,
        time: time(event.time.as_ref()),
        state: short(event.state().as_str_name(), "JOB_STATE_"),
        kind: event.kind,
        attempt: event.attempt,
        step: event.step,
        reason: event.reason,
        worker: event.worker_display_name,
    }
}
