//! What people change about a job that waits: what it asks for, and whether it may cost what it costs.

use std::collections::BTreeMap;

use prost::Message;
use sha2::{Digest, Sha256};
use stepcast_cluster::ProposeError;
use stepcast_proto::v1;
use stepcast_scheduler::ids::{JobId, RequestId, TeamId};
use stepcast_scheduler::model::{JobSpec, JobState};
use stepcast_scheduler::{Command, Rejection};
use tonic::Status;

use super::estimates::{aside, expected, for_job};
use super::jobs::{Jobs, request_id};
use super::submit::{check_fit, check_gpus, too_late, too_late_s};
use super::too_low;
use crate::access::Caller;
use crate::freshness::Freshness;
use crate::{convert, names, status};

/// The wishes that can be changed, by their names on the wire.
const WISHES: [&str; 19] = [
    "display_name",
    "gpu_count",
    "hosts",
    "allow",
    "min_memory_gib",
    "labels",
    "objective",
    "max_price_per_hour_usd_micros",
    "max_cost_usd_micros",
    "max_runtime",
    "priority",
    "retry_limit",
    "team",
    "not_before_time",
    "finish_by_time",
    "avoid_labels",
    "spread_key",
    "min_run_time",
    "preemptions_max",
];

/// How often a change without an etag is worked out, while others change the same job: each of those is done, so that
/// somebody always gets on.
const TRIES: u32 = 16;

impl Jobs {
    /// Has a waiting job ask for something else.
    pub(crate) async fn update(
        &self,
        caller: &Caller,
        request: v1::UpdateJobRequest,
    ) -> Result<v1::UpdateJobResponse, Status> {
        let id = names::job("name", &request.name)?;
        let request_id = request_id(&request.request_id)?;
        let paths = paths(request.update_mask.clone())?;
        self.check(caller, id, &request.name, Freshness::Confirmed, true)
            .await?;
        self.context.entries.change(caller)?;
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let command = self
                .revision(caller, id, &request, request_id, &paths)
                .await?;
            let handle = &self.context.handle;
            match handle.propose_by(caller.actor(), command, request_id).await {
                Ok(_) => break,
                // Who has named no etag means the job as it is, so the same wish is worked out anew.
                Err(ProposeError::Rejected(Rejection::Changed))
                    if request.etag.is_empty() && tries > 0 => {}
                Err(error) => return Err(status::propose_about(error, &request.name)),
            }
        }
        let job = self
            .job(caller, id, &request.name, Freshness::Stale)
            .await?;
        let is_asked = paths.is_empty() || paths.iter().any(|path| path == "allow");
        let models = request.wishes.filter(|_| is_asked);
        let read_as = models.and_then(|wishes| convert::read_as(&wishes.allow));
        let limits = self.limits_too_low(caller, id).await;
        let notes = read_as.into_iter().chain(limits);
        Ok(v1::UpdateJobResponse {
            job: Some(job),
            notes: notes.collect(),
        })
    }

    /// What is to be said of a waiting job's limits on time and money. Nothing where there is no turn to estimate it: it has
    /// been changed.
    async fn limits_too_low(&self, caller: &Caller, id: JobId) -> Vec<v1::Note> {
        let spec = self.context.handle.read_stale(|state| {
            let job = state.job(id)?;
            (job.state == JobState::Pending).then(|| job.spec.clone())
        });
        let limited = spec.filter(|spec| {
            spec.max_runtime_ms
                .or(spec.max_cost.map(|cost| cost.0))
                .is_some()
        });
        let Some(spec) = limited else {
            return Vec::new();
        };
        let limits = (spec.max_runtime_ms, spec.max_cost);
        let expected = expected(&self.context, caller.user, &spec).await;
        expected.map_or_else(
            |_busy| Vec::new(),
            |expected| too_low::notes(limits, &expected.estimates),
        )
    }

    /// What a request comes to for the job as it is now. It is refused when it is applied if the job is another one by then:
    /// the wishes that nobody has named would be those of before.
    async fn revision(
        &self,
        caller: &Caller,
        id: JobId,
        request: &v1::UpdateJobRequest,
        request_id: Option<RequestId>,
        paths: &[String],
    ) -> Result<Command, Status> {
        let now_ms = self.context.handle.now_ms();
        let found = self.context.handle.read(|state| {
            let job = state.job(id)?;
            let is_taken = request_id.is_some_and(|request| state.remembers(request));
            Some((
                job.spec.clone(),
                job.seq(),
                job.state,
                is_taken,
                convert::job(&job, state, now_ms),
            ))
        });
        let found = found.await.map_err(status::read)?;
        let (was, seq, state, is_taken, told) =
            found.ok_or_else(|| status::not_found("jobs", "a job", &request.name))?;
        let revise = |spec: JobSpec| Command::ReviseJob {
            job: id,
            spec: Box::new(spec),
            seq,
            asked: hash(request),
        };
        // The same request has the same answer, whatever the job is by now; another one under this id is refused as such.
        if is_taken {
            return Ok(revise(was));
        }
        if !request.etag.is_empty() && request.etag != told.etag {
            return Err(status::rejection(Rejection::Changed));
        }
        if state != JobState::Pending {
            return Err(status::rejection(Rejection::NotWaiting));
        }
        let told = told.wishes.unwrap_or_default();
        let wishes = request.wishes.clone().unwrap_or_default();
        let wishes = mixed(told, wishes, paths);
        let team = self.team(&wishes.team).await?;
        let (jobs, before) = (self.clone(), was.clone());
        let asked = aside(&self.context, caller.user, &was.workload, move || {
            let asked = jobs.asked(&before, wishes, team)?;
            jobs.check_deadline(&before, &asked)?;
            Ok(asked)
        });
        let asked = asked.await?;
        if needs_another_look(&was, &asked) {
            check_fit(self, caller.user, None, &asked).await?;
        }
        Ok(revise(asked))
    }

    /// What a job asks for with other wishes, in the team that they name. What it is expected to cost is estimated anew where
    /// that may be another sum, as for a submission.
    pub(super) fn asked(
        &self,
        was: &JobSpec,
        wishes: v1::JobWishes,
        team: TeamId,
    ) -> Result<JobSpec, Status> {
        let mut asked = convert::wishes(wishes, was.workload.clone(), was.staging, team)?;
        asked.trainer = was.trainer;
        asked.terms.expected_cost = was.terms.expected_cost;
        asked.terms.array = was.terms.array;
        asked.terms.owner = was.terms.owner;
        self.estimated(was, asked)
    }

    /// What a job is to ask for, with what it is expected to cost then.
    fn estimated(&self, was: &JobSpec, mut asked: JobSpec) -> Result<JobSpec, Status> {
        check_gpus(&asked.workload, asked.gpus())?;
        if is_estimated_by(was) != is_estimated_by(&asked) {
            let expected = for_job(&self.context, &asked);
            self.expect(&mut asked, expected.cost);
        }
        Ok(asked)
    }

    /// Refuses a wish by when to be done that nobody could keep, as a submission does. A job that is late already may still
    /// change what else it asks for: it runs nevertheless.
    pub(super) fn check_deadline(&self, was: &JobSpec, asked: &JobSpec) -> Result<(), Status> {
        let now_ms = self.context.handle.now_ms();
        let late = |spec: &JobSpec| {
            spec.terms.finish_by_ms?;
            too_late_s(spec, &for_job(&self.context, spec).estimates, now_ms)
        };
        match late(asked) {
            Some(least)
                if was.terms.finish_by_ms != asked.terms.finish_by_ms || late(was).is_none() =>
            {
                Err(too_late(least))
            }
            _ => Ok(()),
        }
    }

    /// What an update of a job to these wishes would have it ask for; `None` where it would be refused.
    pub(super) fn revised(&self, was: &JobSpec, asked: JobSpec) -> Option<JobSpec> {
        let asked = self.estimated(was, asked).ok()?;
        self.check_deadline(was, &asked).ok().map(|()| asked)
    }

    /// Lets a job cost what it costs; with an etag, one that is as it was seen.
    pub(crate) async fn approve(
        &self,
        caller: &Caller,
        request: v1::ApproveJobRequest,
    ) -> Result<v1::ApproveJobResponse, Status> {
        let id = names::job("name", &request.name)?;
        let request_id = request_id(&request.request_id)?;
        let seq = convert::seq("etag", &request.etag)?;
        let command = Command::ApproveJob { job: id, seq };
        let handle = &self.context.handle;
        let approved = handle.propose_by(caller.actor(), command, request_id).await;
        approved.map_err(|error| status::propose_about(error, &request.name))?;
        let job = self
            .job(caller, id, &request.name, Freshness::Stale)
            .await?;
        Ok(v1::ApproveJobResponse { job: Some(job) })
    }
}

/// The caller's own words, by which the same request is known again: all but its id and its job.
fn hash(request: &v1::UpdateJobRequest) -> u64 {
    let mut wishes = request.wishes.clone().unwrap_or_default();
    // What has no order is put into one.
    let labels: BTreeMap<_, _> = std::mem::take(&mut wishes.labels).into_iter().collect();
    let avoid: BTreeMap<_, _> = std::mem::take(&mut wishes.avoid_labels)
        .into_iter()
        .collect();
    let paths = request.update_mask.as_ref().map(|mask| &mask.paths);
    let rest = format!("{labels:?} {avoid:?} {paths:?} {:?}", request.etag);
    let mut digest = Sha256::new();
    digest.update(wishes.encode_length_delimited_to_vec());
    digest.update(rest);
    let digest: [u8; 32] = digest.finalize().into();
    let (first, _) = digest.split_at(8);
    first
        .iter()
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// The names of the wishes that are meant, if all of them can be changed.
pub(super) fn paths(mask: Option<prost_types::FieldMask>) -> Result<Vec<String>, Status> {
    let paths = mask.map_or_else(Vec::new, |mask| mask.paths);
    if let Some(unknown) = paths.iter().find(|path| !WISHES.contains(&path.as_str())) {
        let known = WISHES.join(", ");
        let what = format!(
            "{} cannot be changed; there are {known}",
            status::shown(unknown)
        );
        return Err(status::bad_field("update_mask", what));
    }
    Ok(paths)
}

/// What the expected cost of a job follows from besides its work: the hardware that it may run on, which of it is looked at
/// first, and who pays, since not every team asks for it. Whoever changes nothing of this keeps the sum that was there
/// before, also when prices have changed since.
fn is_estimated_by(spec: &JobSpec) -> impl PartialEq {
    (runs_on(spec), spec.objective, spec.terms.team)
}

/// What decides on which hardware a job may run.
fn runs_on(spec: &JobSpec) -> impl PartialEq {
    (
        (spec.gpu_count, spec.hosts()),
        spec.allow.clone(),
        spec.min_memory_gib,
        spec.labels.clone(),
        spec.max_price_per_hour,
        spec.max_cost,
        spec.terms.avoid.clone(),
    )
}

/// Whether a change could make a job one that no worker can hold.
fn needs_another_look(was: &JobSpec, asked: &JobSpec) -> bool {
    runs_on(was) != runs_on(asked)
}

/// The wishes with those of `paths` taken from `asked`; all of them without any path.
pub(crate) fn mixed(was: v1::JobWishes, asked: v1::JobWishes, paths: &[String]) -> v1::JobWishes {
    let mut wishes = if paths.is_empty() {
        asked.clone()
    } else {
        was.clone()
    };
    wishes.trainer = was.trainer;
    for path in paths {
        match path.as_str() {
            "display_name" => wishes.display_name.clone_from(&asked.display_name),
            "gpu_count" => wishes.gpu_count = asked.gpu_count,
            "hosts" => wishes.hosts = asked.hosts,
            "allow" => wishes.allow.clone_from(&asked.allow),
            "min_memory_gib" => wishes.min_memory_gib = asked.min_memory_gib,
            "labels" => wishes.labels.clone_from(&asked.labels),
            "objective" => wishes.objective = asked.objective,
            "max_price_per_hour_usd_micros" => {
                wishes.max_price_per_hour_usd_micros = asked.max_price_per_hour_usd_micros;
            }
            "max_cost_usd_micros" => wishes.max_cost_usd_micros = asked.max_cost_usd_micros,
            "max_runtime" => wishes.max_runtime = asked.max_runtime,
            "priority" => wishes.priority = asked.priority,
            "retry_limit" => wishes.retry_limit = asked.retry_limit,
            "team" => wishes.team.clone_from(&asked.team),
            "not_before_time" => wishes.not_before_time = asked.not_before_time,
            "finish_by_time" => wishes.finish_by_time = asked.finish_by_time,
            "avoid_labels" => wishes.avoid_labels.clone_from(&asked.avoid_labels),
            "spread_key" => wishes.spread_key.clone_from(&asked.spread_key),
            "min_run_time" => wishes.min_run_time = asked.min_run_time,
            "preemptions_max" => wishes.preemptions_max = asked.preemptions_max,
            // Looked for before.
            _ => {}
        }
    }
    wishes
}
