//! What people do with jobs.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use stepcast_proto::v1;
use stepcast_scheduler::ids::{Epoch, JobId, StagingId};
use stepcast_scheduler::model::Job;
use stepcast_scheduler::placement;
use stepcast_scheduler::{Command, RequestId, State};
use tonic::Status;

use super::submit;
use super::watch::{Updates, updates};
use crate::context::Context;
use crate::freshness::Freshness;
use crate::ports::EstimatedForecasts;
use crate::{convert, names, staging, status};

/// Jobs on a page when nobody says how many.
const PAGE: u32 = 100;

/// Jobs on a page at most: the log waits while they are read.
const PAGE_MAX: u32 = 1_000;

/// The service. Clones share what is under way.
#[derive(Clone)]
pub(crate) struct Jobs {
    pub(super) context: Context,
    /// Submissions whose files are on their way, so that the same one is not taken twice at once.
    pub(super) under_way: Arc<Mutex<BTreeSet<StagingId>>>,
}

impl Jobs {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            under_way: Arc::default(),
        }
    }
}

impl Jobs {
    /// Puts a job into the queue.
    pub(crate) async fn submit(
        &self,
        request: v1::SubmitJobRequest,
    ) -> Result<v1::SubmitJobResponse, Status> {
        submit::submit(self, request).await
    }

    /// One job.
    pub(crate) async fn get(
        &self,
        name: &str,
        freshness: Freshness,
    ) -> Result<v1::GetJobResponse, Status> {
        let id = names::job("name", name)?;
        Ok(v1::GetJobResponse {
            job: Some(self.job(id, name, freshness).await?),
        })
    }

    /// Jobs, newest first.
    pub(crate) async fn list(
        &self,
        request: v1::ListJobsRequest,
        freshness: Freshness,
    ) -> Result<v1::ListJobsResponse, Status> {
        let size = match request.page_size {
            0 => PAGE,
            size if size <= PAGE_MAX => size,
            _ => {
                return Err(status::bad_field(
                    "page_size",
                    format!("a page has at most {PAGE_MAX} jobs"),
                ));
            }
        };
        let below = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse::<JobId>().map_err(|_| {
                status::bad_field("page_token", "this is no token of a page before")
            })?),
        };
        let states = convert::states("states", &request.states)?;
        let now_ms = self.context.handle.now_ms();
        let page = freshness.read(&self.context.handle, |state| {
            page(state, below, &states, size as usize, now_ms)
        });
        let (mut jobs, last) = page.await?;
        for job in &mut jobs {
            self.add_progress(job);
        }
        let next_page_token = last.map_or_else(String::new, |last| last.to_string());
        Ok(v1::ListJobsResponse {
            jobs,
            next_page_token,
        })
    }

    /// Ends a job.
    pub(crate) async fn cancel(
        &self,
        request: v1::CancelJobRequest,
    ) -> Result<v1::CancelJobResponse, Status> {
        let id = names::job("name", &request.name)?;
        let request_id = request_id(&request.request_id)?;
        let cancelled = self
            .context
            .handle
            .propose(Command::CancelJob { job: id }, request_id)
            .await;
        cancelled.map_err(|error| status::propose_about(error, &request.name))?;
        // Applied here already: the answer must not fail for want of a leader once the job is cancelled.
        let job = self.job(id, &request.name, Freshness::Stale).await?;
        Ok(v1::CancelJobResponse { job: Some(job) })
    }

    /// Why a job does not run.
    pub(crate) async fn explain(
        &self,
        name: &str,
        freshness: Freshness,
    ) -> Result<v1::ExplainJobResponse, Status> {
        let id = names::job("name", name)?;
        let forecasts: &EstimatedForecasts = &self.context.forecasts;
        let now_ms = self.context.handle.now_ms();
        let why = freshness.read(&self.context.handle, |state| {
            placement::explain(state, forecasts, id, now_ms)
        });
        let why = why
            .await?
            .ok_or_else(|| status::not_found("jobs", "a job", name))?;
        Ok(convert::why(why))
    }

    /// A job watched to its end.
    pub(crate) async fn watch(
        &self,
        request: v1::WatchJobRequest,
        freshness: Freshness,
    ) -> Result<Updates, Status> {
        let id = names::job("name", &request.name)?;
        let handle = &self.context.handle;
        // What a watcher was told anywhere before is known here from now on: it never sees the job step back.
        freshness.await_at(handle).await.map_err(status::read)?;
        let watch = handle
            .watch(id)
            .map_err(|error| status::watch(error, &request.name))?;
        Ok(updates(&self.context, watch, &request, freshness))
    }

    /// The newest lines of a job's newest attempt.
    pub(crate) async fn logs(
        &self,
        name: &str,
        freshness: Freshness,
    ) -> Result<v1::GetJobLogsResponse, Status> {
        let id = names::job("name", name)?;
        // An attempt that is long over, or of another leader's time, has no lines any more.
        let epoch = freshness
            .read(&self.context.handle, |state| {
                state.job(id).map(|job| newest_epoch(&job))
            })
            .await?;
        let epoch = epoch.ok_or_else(|| status::not_found("jobs", "a job", name))?;
        let log = epoch.map(|epoch| {
            let lines = self
                .context
                .handle
                .live(epoch)
                .map(|live| live.lines)
                .unwrap_or_default();
            convert::log_lines(epoch, lines)
        });
        Ok(v1::GetJobLogsResponse { log })
    }

    /// Everything that a job's trainers have printed, as far as it is kept, oldest first, each line with its end.
    pub(crate) async fn kept_logs(
        &self,
        name: &str,
        freshness: Freshness,
    ) -> Result<String, Status> {
        let id = names::job("name", name)?;
        let known = freshness.read(&self.context.handle, |state| state.job(id).is_some());
        if !known.await? {
            return Err(status::not_found("jobs", "a job", name));
        }
        let lines = self.context.staging.lines().read(id).await;
        lines.map_err(|error| staging::unusable(&staging::Error::Store(Box::new(error))))
    }

    /// A job as it is now.
    pub(super) async fn job(
        &self,
        id: JobId,
        name: &str,
        freshness: Freshness,
    ) -> Result<v1::Job, Status> {
        let now_ms = self.context.handle.now_ms();
        let job = freshness.read(&self.context.handle, |state| {
            state.job(id).map(|job| convert::job(&job, state, now_ms))
        });
        let mut job = job
            .await?
            .ok_or_else(|| status::not_found("jobs", "a job", name))?;
        self.add_progress(&mut job);
        Ok(job)
    }

    /// Says how far the running attempt is, as far as this node knows.
    fn add_progress(&self, job: &mut v1::Job) {
        let live = job
            .attempts
            .last()
            .filter(|attempt| attempt.end_time.is_none());
        let Some(epoch) = live.map(|attempt| Epoch(attempt.epoch)) else {
            return;
        };
        let progress = self
            .context
            .handle
            .live(epoch)
            .and_then(|live| live.progress);
        job.progress = progress.map(|progress| convert::live_progress(epoch, progress));
    }
}

/// The caller's request id, if it has drawn one.
pub(super) fn request_id(text: &str) -> Result<Option<RequestId>, Status> {
    match text {
        "" => Ok(None),
        text => {
            let id = text
                .parse()
                .map_err(|error: stepcast_scheduler::ids::Error| {
                    status::bad_field("request_id", error.to_string())
                })?;
            Ok(Some(id))
        }
    }
}

fn newest_epoch(job: &Job) -> Option<Epoch> {
    job.attempts.last().map(|attempt| attempt.epoch)
}

/// Jobs below an id in these states, newest first, and the last one if there are more.
fn page(
    state: &State,
    below: Option<JobId>,
    states: &[v1::JobState],
    size: usize,
    now_ms: u64,
) -> (Vec<v1::Job>, Option<JobId>) {
    let wanted = |state| states.is_empty() || states.contains(&convert::job_state(state));
    let below = below.unwrap_or(JobId(u64::MAX));
    let mut jobs = state.jobs_below(below, wanted).peekable();
    let mut last = None;
    let mut page = Vec::new();
    while page.len() < size
        && let Some(job) = jobs.next()
    {
        last = Some(job.id);
        page.push(convert::job(&job, state, now_ms));
    }
    (page, last.filter(|_| jobs.peek().is_some()))
}
