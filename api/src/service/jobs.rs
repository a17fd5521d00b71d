//! What people do with jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use stepcast_proto::v1;
use stepcast_scheduler::ids::{Epoch, JobId, StagingId};
use stepcast_scheduler::model::{Job, JobSpec};
use stepcast_scheduler::outlook::{Outlook, Whom, outlook};
use stepcast_scheduler::placement;
use stepcast_scheduler::sooner::sooner;
use stepcast_scheduler::{Command, RequestId, State};
use tonic::Status;
use tracing::Instrument;

use super::ahead;
use super::submit;
use super::watch::{Updates, updates};
use crate::access::{Caller, authorise};
use crate::context::Context;
use crate::freshness::Freshness;
use crate::limits::{Room, Rooms};
use crate::reader::Reading;
use crate::turns::Turns;
use crate::{convert, names, staging, status};

/// Jobs on a page when nobody says how many.
const PAGE: u32 = 100;

/// Jobs on a page at most: the log waits while they are read.
const PAGE_MAX: u32 = 1_000;

/// Jobs looked at for one page: a page of somebody whose jobs are few among many may have less than it could.
pub(super) const LOOKS_MAX: usize = 5_000;

/// With more jobs than this that are not over a list says nothing of what is to come: a look ahead would not get far in its
/// time, and the state that it is taken of would take as long to copy.
const GLANCED_AT_MAX: usize = 10_000;

/// The service. Clones share what is under way.
#[derive(Clone)]
pub(crate) struct Jobs {
    pub(super) context: Context,
    /// Submissions whose files are on their way, so that the same one is not taken twice at once.
    pub(super) under_way: Arc<Mutex<BTreeSet<StagingId>>>,
    /// Turns of questions about what is to come.
    pub(super) looks: Turns,
    /// Turns of who asks why a job waits and got none of those.
    reasons: Turns,
}

impl Jobs {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            under_way: Arc::default(),
            looks: ahead::looks(),
            reasons: ahead::reasons(),
        }
    }
}

impl Jobs {
    /// Puts a job into the queue.
    pub(crate) async fn submit(
        &self,
        caller: &Caller,
        request: v1::SubmitJobRequest,
    ) -> Result<v1::SubmitJobResponse, Status> {
        let span = tracing::debug_span!("submit_job", job = tracing::field::Empty);
        submit::submit(self, caller, request).instrument(span).await
    }

    /// One job.
    pub(crate) async fn get(
        &self,
        caller: &Caller,
        request: v1::GetJobRequest,
        freshness: Freshness,
    ) -> Result<v1::GetJobResponse, Status> {
        let id = names::job("name", &request.name)?;
        let mut job = self.job(caller, id, &request.name, freshness).await?;
        if request.with_outlook {
            self.look_ahead(caller, std::slice::from_mut(&mut job))
                .await?;
        }
        Ok(v1::GetJobResponse { job: Some(job) })
    }

    /// Jobs, newest first.
    pub(crate) async fn list(
        &self,
        caller: &Caller,
        request: v1::ListJobsRequest,
        freshness: Freshness,
    ) -> Result<v1::ListJobsResponse, Status> {
        let (size, below) = page_of(request.page_size, &request.page_token)?;
        let states = convert::states("states", &request.states)?;
        let now_ms = self.context.handle.now_ms();
        let page = freshness.read(&self.context.handle, |state| {
            page(caller, state, below, &states, size, now_ms)
        });
        let (mut jobs, last) = page.await?;
        for job in &mut jobs {
            self.add_progress(job);
        }
        if request.with_outlook {
            self.look_ahead(caller, &mut jobs).await?;
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
        caller: &Caller,
        request: v1::CancelJobRequest,
    ) -> Result<v1::CancelJobResponse, Status> {
        let id = names::job("name", &request.name)?;
        let request_id = request_id(&request.request_id)?;
        self.check(caller, id, &request.name, Freshness::Confirmed, true)
            .await?;
        self.context.entries.end(caller)?;
        let cancelled = self
            .context
            .handle
            .propose_by(caller.actor(), Command::CancelJob { job: id }, request_id)
            .await;
        cancelled.map_err(|error| status::propose_about(error, &request.name))?;
        // Applied here already: the answer must not fail for want of a leader once the job is cancelled.
        let job = self
            .job(caller, id, &request.name, Freshness::Stale)
            .await?;
        Ok(v1::CancelJobResponse { job: Some(job) })
    }

    /// Why a job does not run.
    pub(crate) async fn explain(
        &self,
        caller: &Caller,
        name: &str,
        freshness: Freshness,
    ) -> Result<v1::ExplainJobResponse, Status> {
        let id = names::job("name", name)?;
        self.check(caller, id, name, freshness, false).await?;
        // Why it waits is told without what is to come, too.
        let (turn, looks) = match self.looks.enter(caller.user).await {
            Ok(turn) => (turn, true),
            Err(_busy) => (self.reasons.enter(caller.user).await?, false),
        };
        let (jobs, reader) = (self.clone(), caller.clone());
        let answer = turn.aside(move || {
            let Context {
                handle, forecasts, ..
            } = &jobs.context;
            // The whole queue is gone through, several times: on a copy, so that the log does not wait.
            let state = handle.read_stale(State::clone);
            let (now_ms, measured) = (handle.now_ms(), handle.measured(forecasts.clone()));
            let expected = match looks {
                true => {
                    let whom = Whom::These(std::slice::from_ref(&id));
                    outlook(&state, &measured, now_ms, whom, &ahead::spent(1))
                }
                false => Outlook::default(),
            };
            let start = expected.jobs.get(&id).map(|times| times.start);
            let start = start.unwrap_or_default();
            let why = placement::explain_expecting(&state, &measured, id, now_ms, start)?;
            let revise = |was: &JobSpec, asked| jobs.revised(was, asked);
            let found = sooner(&state, &measured, &revise, id, now_ms);
            let mut told = convert::why(why);
            told.sooner = found
                .iter()
                .map(|found| convert::sooner(found, id, &reader, &state))
                .collect();
            told.outlook = convert::outlook(&expected, id, &state);
            let is_hidden = |other| state.job(other).is_some_and(|job| !reader.sees(&job));
            convert::hide_jobs(&mut told, is_hidden);
            Some(told)
        });
        let answer = answer.await.map_err(|_stopped| {
            status::internal("EXPLAIN_FAILED", "the answer was not finished")
        })?;
        answer.ok_or_else(|| status::not_found("jobs", "a job", name))
    }

    /// Says of jobs when they are expected to start and to be done, by one look ahead for all of them. Of a long queue, and
    /// while others ask, nothing is said.
    async fn look_ahead(&self, caller: &Caller, jobs: &mut [v1::Job]) -> Result<(), Status> {
        let is_open =
            |job: &&v1::Job| matches!(job.state(), v1::JobState::Pending | v1::JobState::Running);
        let open = jobs.iter().filter(is_open);
        let ids: Result<Vec<JobId>, Status> =
            open.map(|job| names::job("name", &job.name)).collect();
        let ids = ids?;
        let Some(turn) = self
            .looks
            .enter_now(caller.user)
            .filter(|_| !ids.is_empty())
        else {
            return Ok(());
        };
        let Context {
            handle, forecasts, ..
        } = self.context.clone();
        let looked = turn.aside(move || {
            let copied = handle.read_stale(|state| {
                (state.unfinished_count() <= GLANCED_AT_MAX).then(|| state.clone())
            });
            let Some(state) = copied else {
                return BTreeMap::new();
            };
            let (now_ms, measured) = (handle.now_ms(), handle.measured(forecasts));
            let expected = outlook(
                &state,
                &measured,
                now_ms,
                Whom::These(&ids),
                &ahead::glanced(),
            );
            let told = |id: &JobId| (names::of_job(*id), convert::outlook(&expected, *id, &state));
            ids.iter().map(told).collect::<BTreeMap<_, _>>()
        });
        let mut told = looked.await.map_err(|_stopped| {
            status::internal("OUTLOOK_FAILED", "the answer was not finished")
        })?;
        for job in jobs {
            job.outlook = told.remove(&job.name).flatten();
        }
        Ok(())
    }

    /// A job watched to its end, or until its reader may not see it any more.
    pub(crate) async fn watch(
        &self,
        reading: Reading,
        request: v1::WatchJobRequest,
        freshness: Freshness,
    ) -> Result<Updates, Status> {
        let id = names::job("name", &request.name)?;
        let handle = &self.context.handle;
        // What a watcher was told anywhere before is known here from now on: it never sees the job step back.
        self.check(reading.caller(), id, &request.name, freshness, false)
            .await?;
        let watch = handle
            .watch(id)
            .map_err(|error| status::watch(error, &request.name))?;
        let updates = updates(&self.context, watch, &request, freshness);
        let (handle, name) = (handle.clone(), request.name);
        Ok(reading.of(updates, move |caller| {
            // One that is forgotten has ended, which is told.
            let sees = |state: &State| state.job(id).is_none_or(|job| caller.sees(&job));
            match handle.read_stale(sees) {
                true => Ok(()),
                false => Err(status::not_found("jobs", "a job", &name)),
            }
        }))
    }

    /// The newest lines of a job's newest attempt.
    pub(crate) async fn logs(
        &self,
        caller: &Caller,
        name: &str,
        freshness: Freshness,
    ) -> Result<v1::GetJobLogsResponse, Status> {
        let id = names::job("name", name)?;
        // An attempt that is long over, or of another leader's time, has no lines any more.
        let epoch = freshness
            .read(&self.context.handle, |state| {
                let job = state.job(id).filter(|job| caller.sees(job));
                job.map(|job| newest_epoch(&job))
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

    /// Everything that a job's trainers have printed, as far as it is kept, oldest first, each line with its end; with room
    /// for it and for the answer that is made of it.
    pub(crate) async fn kept_logs(
        &self,
        caller: &Caller,
        name: &str,
        freshness: Freshness,
        rooms: &Rooms,
    ) -> Result<(String, Room), Status> {
        let id = names::job("name", name)?;
        self.check(caller, id, name, freshness, false).await?;
        let unusable = |error| staging::unusable(&staging::Error::Store(Box::new(error)));
        let lines = self.context.staging.lines();
        let bytes = lines.bytes(id).await.map_err(unusable)?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let room = rooms.wait(bytes.saturating_mul(2)).await?;
        Ok((lines.read(id).await.map_err(unusable)?, room))
    }

    /// A job as it is now.
    pub(super) async fn job(
        &self,
        caller: &Caller,
        id: JobId,
        name: &str,
        freshness: Freshness,
    ) -> Result<v1::Job, Status> {
        let now_ms = self.context.handle.now_ms();
        let job = freshness.read(&self.context.handle, |state| {
            let job = state.job(id).filter(|job| caller.sees(job));
            job.map(|job| convert::job(&job, state, now_ms))
        });
        let mut job = job
            .await?
            .ok_or_else(|| status::not_found("jobs", "a job", name))?;
        self.add_progress(&mut job);
        Ok(job)
    }

    /// Refuses a job that is not there, or not the caller's to see, which look the same; and if it is to be changed, one
    /// that is not theirs to change.
    pub(super) async fn check(
        &self,
        caller: &Caller,
        id: JobId,
        name: &str,
        freshness: Freshness,
        change: bool,
    ) -> Result<(), Status> {
        let needed = freshness.read(&self.context.handle, |state| {
            let job = state.job(id).filter(|job| caller.sees(job));
            job.map(|job| caller.to_change(&job))
        });
        let needed = needed
            .await?
            .ok_or_else(|| status::not_found("jobs", "a job", name))?;
        if change {
            authorise(caller, needed)?;
        }
        Ok(())
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
        let live = self.context.handle.live(epoch);
        job.progress = live.and_then(|live| {
            let progress = live.progress?;
            Some(convert::live_progress(epoch, progress, live.left))
        });
    }
}

/// How much of what a list is asked for, and what it is before.
pub(super) fn page_of(size: u32, token: &str) -> Result<(usize, JobId), Status> {
    let size = match size {
        0 => PAGE,
        size if size <= PAGE_MAX => size,
        _ => {
            let what = format!("a page has at most {PAGE_MAX} jobs");
            return Err(status::bad_field("page_size", what));
        }
    };
    let below = match token {
        "" => JobId(u64::MAX),
        token => token
            .parse()
            .map_err(|_| status::bad_field("page_token", "this is no token of a page before"))?,
    };
    Ok((size as usize, below))
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
    caller: &Caller,
    state: &State,
    below: JobId,
    states: &[v1::JobState],
    size: usize,
    now_ms: u64,
) -> (Vec<v1::Job>, Option<JobId>) {
    let wanted = |state| states.is_empty() || states.contains(&convert::job_state(state));
    let mut jobs = state.jobs_below(below, wanted).peekable();
    let mut last = None;
    let mut page = Vec::new();
    let mut looks = LOOKS_MAX;
    while page.len() < size
        && looks > 0
        && let Some(job) = jobs.next()
    {
        looks -= 1;
        last = Some(job.id);
        if caller.sees(&job) {
            page.push(convert::job(&job, state, now_ms));
        }
    }
    (page, last.filter(|_| jobs.peek().is_some()))
}
