//! A sweep from its files to an array in the queue: every task is read and checked before the first is kept. And how one
//! stands.

mod files;

use std::time::Duration;

use stepcast_proto::v1;
use stepcast_records::simpletuner::{Note, Reading};
use stepcast_scheduler::ids::{JobId, StagingId};
use stepcast_scheduler::model::limits::ARRAY_MAX;
use stepcast_scheduler::model::{ArrayPart, Job};
use stepcast_scheduler::{Command, Rejection, Reply, RequestId, State};
use tonic::{Code, Status};

use super::estimates::{Expected, expected};
use super::jobs::{Jobs, LOOKS_MAX, page_of, request_id};
use super::submit::{
    UnderWay, all, check_fit, check_gpus, check_time, is_settled, not_staged, notes,
};
use super::unexpected;
use crate::access::Caller;
use crate::credentials::Taken;
use crate::freshness::Freshness;
use crate::status::{Refusal, bad_field};
use crate::submission::Submission;
use crate::turns::{Bounds, Turns};
use crate::{convert, names, reading, status};

/// Bytes of all tasks' files, those that they have in common counted for each: a sweep is read and kept as a whole.
const TASKS_BYTES_MAX: usize = 128 << 20;

/// A sweep of more bytes takes room that few have at once.
const SMALL_BYTES: usize = 1 << 20;

/// Those that are in memory at once: from being read until they are kept.
const AT_ONCE: usize = 4;

/// How long one waits for that room.
const ROOM_WITHIN: Duration = Duration::from_secs(10);

/// A sweep as it stands.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// `jobs/{job}`: its first job, by which it is called.
    pub(crate) array: String,
    /// One of its jobs, for what all of them have in common.
    pub(crate) job: v1::Job,
    /// Tasks that are not over.
    pub(crate) unfinished: u32,
    /// Tasks that hold GPUs.
    pub(crate) running: u32,
}

impl Sweep {
    fn of(job: &Job, part: ArrayPart, state: &State, now_ms: u64) -> Self {
        Self {
            array: names::of_job(part.array),
            job: convert::job(job, state, now_ms),
            unfinished: state.array_unfinished(part.array),
            running: state.array_running(part.array),
        }
    }
}

impl Jobs {
    /// Sweeps that are not over, newest first, and the token of the next page.
    pub(crate) async fn list_arrays(
        &self,
        caller: &Caller,
        page: (u32, &str),
        freshness: Freshness,
    ) -> Result<(Vec<Sweep>, String), Status> {
        let (size, below) = page_of(page.0, page.1)?;
        let now_ms = self.context.handle.now_ms();
        let page = freshness.read(&self.context.handle, |state| {
            let mut arrays = state.open_arrays(below).peekable();
            let (mut last, mut looks, mut sweeps) = (None, LOOKS_MAX, Vec::new());
            while sweeps.len() < size
                && looks > 0
                && let Some(array) = arrays.next()
            {
                (last, looks) = (Some(array), looks - 1);
                let Some(job) = state.job_of_array(array).filter(|job| caller.sees(job)) else {
                    continue;
                };
                let part = job.spec.terms.array;
                sweeps.extend(part.map(|part| Sweep::of(&job, part, state, now_ms)));
            }
            (sweeps, last.filter(|_| arrays.peek().is_some()))
        });
        let (sweeps, last) = page.await?;
        Ok((
            sweeps,
            last.map_or_else(String::new, |last| last.to_string()),
        ))
    }

    /// One sweep, by any of its jobs, with where each of them stands that is not forgotten.
    pub(crate) async fn get_array(
        &self,
        caller: &Caller,
        name: &str,
        freshness: Freshness,
    ) -> Result<(Sweep, Vec<(String, v1::JobState)>), Status> {
        let id = names::job("name", name)?;
        let now_ms = self.context.handle.now_ms();
        let found = freshness.read(&self.context.handle, |state| {
            let job = state.job_of_array(id).filter(|job| caller.sees(job))?;
            let Some(part) = job.spec.terms.array else {
                return Some(None);
            };
            let jobs = state.array_jobs(part.array).filter_map(|id| {
                let job = state.job(id)?;
                Some((names::of_job(id), convert::job_state(job.state)))
            });
            Some(Some((Sweep::of(&job, part, state, now_ms), jobs.collect())))
        });
        let found = found.await?;
        let found = found.ok_or_else(|| status::not_found("jobs", "a job", name))?;
        found.ok_or_else(|| no_array("look at a job by itself with `stepcast job show`"))
    }

    /// Puts a sweep into the queue.
    pub(crate) async fn submit_array(
        &self,
        caller: &Caller,
        request: v1::SubmitArrayRequest,
    ) -> Result<v1::SubmitArrayResponse, Status> {
        let id = request_id(&request.request_id)?.unwrap_or_else(|| RequestId(rand::random()));
        let count = request.tasks.len();
        check_count(count)?;
        let (files, counts) = (request.files, request.sample_counts);
        let own = request.tasks.iter().map(|task| reading::bytes(&task.files));
        let bytes = count * reading::bytes(&files) + own.sum::<usize>();
        if bytes > TASKS_BYTES_MAX {
            let what = "with what they have in common the files of all tasks have 128 MiB at most: submit several sweeps";
            return Err(bad_field("tasks", what));
        }
        let _turn = match bytes > SMALL_BYTES {
            true => Some(self.context.sweeps.enter(caller.user).await?),
            false => None,
        };
        let read = move || read(id, &files, request.tasks, &counts);
        let read = reading::aside(&self.context.reading, caller.user, bytes, read);
        let Read {
            tasks,
            carried,
            noted,
            first: reading,
        } = read.await?;
        let wishes = request.wishes.unwrap_or_default();
        let read_as = convert::read_as(&wishes.allow);
        let team = self.team(&wishes.team).await?;
        let mut spec = convert::wishes(wishes, reading.workload.clone(), tasks[0].0, team)?;
        for (index, ((_, submission), notes)) in tasks.iter().zip(&noted).enumerate() {
            let fits = submission.check_form(spec.trainer, notes);
            fits.map_err(|error| of_task(index, error))?;
        }
        spec.terms.owner = caller.owner();
        spec.terms.credentials = carried[0].1.names();
        let differs = |(_, taken): &(StagingId, Taken)| taken.names() != spec.terms.credentials;
        if let Some(index) = carried.iter().position(differs) {
            let what = "this task carries other credentials than the first: they may differ in what they are, not in what they are called";
            return Err(bad_field(&format!("tasks[{index}]"), what));
        }
        check_gpus(&spec.workload, spec.gpus())?;
        check_fit(self, caller.user, Some(id), &spec).await?;
        let Expected { estimates, cost } = expected(&self.context, caller.user, &spec).await?;
        check_time(self, id, &spec, &estimates)?;
        self.expect(&mut spec, cost);
        let notes = notes(&reading, read_as, &spec, &estimates);
        let has_credentials = !spec.terms.credentials.is_empty();
        let command = Command::SubmitArray {
            spec: Box::new(spec.clone()),
            tasks: tasks.iter().map(|(staging, _)| *staging).collect(),
            parallel: request.parallel,
        };
        let handle = &self.context.handle;
        if request.validate_only {
            let taken = handle.check(caller.actor(), command, Some(id));
            taken.map_err(status::propose)?;
            return Ok(v1::SubmitArrayResponse {
                notes,
                estimates,
                ..v1::SubmitArrayResponse::default()
            });
        }
        // Who does not lead cannot say what is needed of what is there.
        handle.takes_submissions().map_err(status::propose)?;
        let all_staged = tasks.iter().map(|(staging, _)| *staging);
        let _under_way = UnderWay::enter(&self.under_way, all_staged.collect())?;
        let is_known = self.context.has_taken(id);
        let staged = tasks.iter();
        let staged = staged.map(|(staging, submission)| (*staging, submission.files()));
        let staged: Vec<_> = staged.collect();
        let taken = match is_known {
            true => Vec::new(),
            false => {
                self.context.entries.change(caller)?;
                self.context.take_share(spec.terms.owner, &staged)?
            }
        };
        // What is kept of a sweep that is not taken would be in the way of the next one.
        let give_up = || {
            self.context.staging.give_back(&taken);
            for (staging, _) in &tasks {
                self.context.forget_unused(*staging);
            }
        };
        for (staging, credentials) in carried {
            if let Some(credentials) = all(credentials, &spec) {
                let kept = self.context.keep(staging, spec.terms.owner, credentials);
                if !is_known {
                    kept.inspect_err(|_| give_up())?;
                }
            }
        }
        let put = files::put(&self.context.staging, &staged).await;
        if let Some(error) = put.error {
            self.drop_unneeded(&put.new).await;
            // Their owner has room for others once they are deleted, and not before.
            let untouched = taken.iter().filter(|of| !put.begun.contains(*of));
            self.context.staging.give_back(untouched);
            for (staging, _) in &tasks {
                self.context.forget_unused(*staging);
            }
            return Err(not_staged(error));
        }
        let proposed = handle.propose_by(caller.actor(), command, Some(id)).await;
        if is_settled(&proposed) {
            self.drop_unneeded(&put.new).await;
        }
        if has_credentials && is_settled(&proposed) {
            for (staging, _) in &tasks {
                self.context.forget_unused(*staging);
            }
        }
        match proposed.map_err(status::propose)? {
            Reply::ArraySubmitted { array, tasks } => Ok(v1::SubmitArrayResponse {
                array: names::of_job(array),
                jobs: (0..u64::from(tasks))
                    .map(|task| names::of_job(JobId(array.0 + task)))
                    .collect(),
                notes,
                estimates,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends every job of an array that is not over. It is called by any job of it that is known, and by its first one also
    /// when that is forgotten.
    pub(crate) async fn cancel_array(
        &self,
        caller: &Caller,
        request: v1::CancelArrayRequest,
    ) -> Result<v1::CancelArrayResponse, Status> {
        let id = names::job("name", &request.name)?;
        let request_id = request_id(&request.request_id)?;
        let known = self.context.handle.read(|state| {
            let job = state.job_of_array(id)?;
            Some((job.id, job.spec.terms.array))
        });
        let known = known.await.map_err(status::read)?;
        let (job, part) = known.ok_or_else(|| status::not_found("jobs", "a job", &request.name))?;
        self.check(caller, job, &request.name, Freshness::Confirmed, true)
            .await?;
        let array = part.map(|part| part.array);
        let array =
            array.ok_or_else(|| no_array("end a job by itself with `stepcast job cancel`"))?;
        self.context.entries.end(caller)?;
        let cancelled = self
            .context
            .handle
            .propose_by(caller.actor(), Command::CancelArray { array }, request_id)
            .await;
        match cancelled.map_err(|error| status::propose_about(error, &request.name))? {
            Reply::ArrayCancelled { count } => Ok(v1::CancelArrayResponse {
                count,
                array: names::of_job(array),
            }),
            other => Err(unexpected(&other)),
        }
    }
}

/// Turns to have large sweeps in memory.
pub(crate) fn turns() -> Turns {
    Turns::new(Bounds {
        at_once: AT_ONCE,
        within: ROOM_WITHIN,
        others: "other large sweeps are being taken",
        own: "another large sweep of yours is being taken",
    })
}

/// The tasks of a sweep as they were read.
struct Read {
    tasks: Vec<(StagingId, Submission)>,
    carried: Vec<(StagingId, Taken)>,
    noted: Vec<Vec<Note>>,
    /// Of the first, and all others ask for the same.
    first: Reading,
}

/// Reads the tasks of a sweep, of which there is one at least.
fn read(
    id: RequestId,
    shared: &[v1::JobFile],
    asked: Vec<v1::ArrayTaskFiles>,
    counts: &[v1::SampleCount],
) -> Result<Read, Status> {
    let count = asked.len();
    let mut tasks: Vec<(StagingId, Submission)> = Vec::with_capacity(count);
    let mut carried = Vec::with_capacity(count);
    let mut noted = Vec::with_capacity(count);
    let mut first: Option<Reading> = None;
    for (index, task) in asked.into_iter().enumerate() {
        let files = replaced(shared, task.files);
        let (submission, reading, credentials) =
            reading::read(files, counts.to_vec()).map_err(|error| of_task(index, error))?;
        let staging = submission.staging(id);
        if tasks.iter().any(|(other, _)| *other == staging) {
            let what = "this task has the same files as one before it";
            return Err(bad_field(&format!("tasks[{index}]"), what));
        }
        noted.push(reading.notes.clone());
        match &first {
            None => first = Some(reading),
            Some(first) if first.workload != reading.workload => {
                return Err(another_workload(index));
            }
            Some(_) => {}
        }
        carried.push((staging, credentials));
        tasks.push((staging, submission));
    }
    let first = first.ok_or_else(|| bad_field("tasks", "there is none"))?;
    Ok(Read {
        tasks,
        carried,
        noted,
        first,
    })
}

/// Refuses a sweep of none and of too many tasks, before anything is made of them.
pub(crate) fn check_count(tasks: usize) -> Result<(), Status> {
    if (1..=ARRAY_MAX).contains(&tasks) {
        return Ok(());
    }
    Err(status::rejection(Rejection::ArraySize {
        max: ARRAY_MAX as u32,
        asked: u32::try_from(tasks).unwrap_or(u32::MAX),
    }))
}

/// The files of all, with those of one task in the place of the same role's.
fn replaced(all: &[v1::JobFile], own: Vec<v1::JobFile>) -> Vec<v1::JobFile> {
    let kept = all
        .iter()
        .filter(|file| own.iter().all(|other| other.role != file.role));
    kept.cloned().chain(own.iter().cloned()).collect()
}

fn no_array(hint: &str) -> Status {
    let what = "this job is no part of an array";
    Refusal::new(Code::FailedPrecondition, "NO_ARRAY", what)
        .hint(hint)
        .into()
}

fn another_workload(index: usize) -> Status {
    bad_field(
        &format!("tasks[{index}]"),
        "this task asks for other work than the first: a sweep may change what leaves steps and their time as they are, such as the learning rate or the seed; submit the others by themselves",
    )
}

fn of_task(index: usize, error: Status) -> Status {
    let message = format!("task {index}: {}", error.message());
    Status::with_details_and_metadata(
        error.code(),
        message,
        error.details().to_vec().into(),
        error.metadata().clone(),
    )
}
