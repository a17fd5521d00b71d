//! A submission from its files to a job in the queue: read, checked, kept on disk, and put into the log.
//!
//! The request id decides where the files lie and which reply is given, so sending a request again, after a lost answer
//! or at the same moment, leaves one folder and one job.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use stepcast_cluster::credentials::Credentials;
use stepcast_cluster::{Handle, ProposeError, Proposed};
use stepcast_proto::v1;
use stepcast_records::UsdMicros;
use stepcast_records::simpletuner::Workload;
use stepcast_records::simpletuner::{Missing, Reading};
use stepcast_scheduler::ids::{JobId, StagingId, TeamId, UserId};
use stepcast_scheduler::model::{JobSpec, Owner};
use stepcast_scheduler::{Command, Reply, RequestId, State};
use tonic::{Code, Status};
use tonic_types::PreconditionViolation;

use super::estimates::{Expected, expected, hosts_note, missing};
use super::jobs::{Jobs, request_id};
use super::too_low;
use super::workers::unexpected;
use crate::access::Caller;
use crate::context::Context;
use crate::credentials::Taken;
use crate::fit::{self, Fleet, Misfit};
use crate::freshness::Freshness;
use crate::staging::{self, Behind, Put};
use crate::status::{Refusal, YOURS_FULL};
use crate::submission::{StagedFile, Submission};
use crate::{convert, names, reading, status};

/// The same request is taken a moment later, when the first one is done.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// An object store that does not answer may do so again by then.
const STORE_BACK: Duration = Duration::from_secs(5);

pub(super) async fn submit(
    jobs: &Jobs,
    caller: &Caller,
    request: v1::SubmitJobRequest,
) -> Result<v1::SubmitJobResponse, Status> {
    // Without an id of the caller's the request is new each time.
    let id = request_id(&request.request_id)?.unwrap_or_else(|| RequestId(rand::random()));
    let (files, counts) = (request.files, request.sample_counts);
    let (turns, bytes) = (&jobs.context.reading, reading::bytes(&files));
    let read = reading::aside(turns, caller.user, bytes, || reading::read(files, counts));
    let (submission, reading, credentials) = read.await?;
    let staging = submission.staging(id);
    let wishes = request.wishes.unwrap_or_default();
    let read_as = convert::read_as(&wishes.allow);
    let team = jobs.team(&wishes.team).await?;
    let mut spec = convert::wishes(wishes, reading.workload.clone(), staging, team)?;
    submission.check_form(spec.trainer, &reading.notes)?;
    spec.terms.owner = caller.owner();
    spec.terms.credentials = credentials.names();
    check_plan(&reading, spec.gpus())?;
    check_fit(jobs, caller.user, Some(id), &spec).await?;
    let Expected { estimates, cost } = expected(&jobs.context, caller.user, &spec).await?;
    check_time(jobs, id, &spec, &estimates)?;
    jobs.expect(&mut spec, cost);
    let job = if request.validate_only {
        let command = Command::SubmitJob {
            spec: Box::new(spec.clone()),
        };
        let taken = jobs.context.handle.check(caller.actor(), command, Some(id));
        taken.map_err(status::propose)?;
        convert::unsubmitted(&spec)
    } else {
        let job = put(jobs, caller, id, (submission, credentials), &spec).await?;
        tracing::Span::current().record("job", tracing::field::display(job));
        jobs.job(caller, job, &names::of_job(job), Freshness::Stale)
            .await?
    };
    Ok(v1::SubmitJobResponse {
        job: Some(job),
        notes: notes(&reading, read_as, &spec, &estimates),
        estimates,
    })
}

/// What was assumed, what nobody knows, and which limits end the job before it is done.
pub(super) fn notes(
    reading: &Reading,
    read_as: Option<v1::Note>,
    spec: &JobSpec,
    estimates: &[v1::Estimate],
) -> Vec<v1::Note> {
    let assumed = reading.notes.iter().map(convert::note).chain(read_as);
    let limits = too_low::notes((spec.max_runtime_ms, spec.max_cost), estimates);
    assumed.chain(hosts_note(spec)).chain(limits).collect()
}

/// Refuses what SimpleTuner itself would refuse on that many GPUs. An unknown number of samples only leaves the estimate
/// without a number: the trainer counts them.
fn check_plan(reading: &Reading, gpu_count: u8) -> Result<(), Status> {
    match reading.workload.plan(gpu_count) {
        Ok(_) | Err(Missing::Samples { .. }) => Ok(()),
        Err(error) => Err(missing(&error, &reading.dataset_ids)),
    }
}

/// The same of a workload whose data sets have no names here.
pub(super) fn check_gpus(workload: &Workload, gpu_count: u8) -> Result<(), Status> {
    match workload.plan(gpu_count) {
        Ok(_) | Err(Missing::Samples { .. }) => Ok(()),
        Err(error) => Err(missing(&error, &[])),
    }
}

/// Refuses what nobody could be done with by then. The same request has the same answer, also when it is late by now.
pub(super) fn check_time(
    jobs: &Jobs,
    request: RequestId,
    spec: &JobSpec,
    estimates: &[v1::Estimate],
) -> Result<(), Status> {
    let handle = &jobs.context.handle;
    match too_late_s(spec, estimates, handle.now_ms()) {
        Some(least) if !handle.read_stale(|state| state.remembers(request)) => Err(too_late(least)),
        _ => Ok(()),
    }
}

/// What the fastest hardware takes, in seconds, where nobody could be done by when it is wished: every hardware that it may
/// run on has history, and takes longer even if it began now.
pub(super) fn too_late_s(spec: &JobSpec, estimates: &[v1::Estimate], now_ms: u64) -> Option<u64> {
    let by_ms = spec.terms.finish_by_ms?;
    let begins_ms = spec.terms.not_before_ms.unwrap_or(0).max(now_ms);
    let seconds = |times: Option<&v1::TimeQuantiles>| {
        let p50 = times.and_then(|times| times.p50.as_ref());
        p50.map(|span| u64::try_from(span.seconds).unwrap_or(0))
    };
    let takes = estimates.iter().map(|row| {
        let run = seconds(row.run_time.as_ref())?;
        Some(run + seconds(row.setup_time.as_ref()).unwrap_or(0))
    });
    let takes: Vec<u64> = takes.collect::<Option<_>>()?;
    let least = takes.into_iter().min()?;
    let done_ms = begins_ms.saturating_add(least.saturating_mul(1_000));
    (done_ms > by_ms).then_some(least)
}

/// The refusal of what takes so many seconds at least, and was to be done before.
pub(super) fn too_late(least: u64) -> Status {
    let takes = stepcast_records::units::display_duration(least.saturating_mul(1_000));
    Refusal::new(
        Code::FailedPrecondition,
        "TOO_LATE",
        "no hardware that it may run on could be done by then",
    )
    .with("fastest_s", least)
    .hint(format!(
        "the fastest takes {takes}: allow more hardware, or more time"
    ))
    .into()
}

impl Jobs {
    /// The team with this name; the default one if there is no name.
    pub(super) async fn team(&self, name: &str) -> Result<TeamId, Status> {
        if name.is_empty() {
            return Ok(TeamId::DEFAULT);
        }
        let known = names::team("wishes.team", name)?;
        let handle = &self.context.handle;
        let look = |state: &State| state.team_named(&known).map(|team| team.id);
        // Only a refusal must know every team there is: one that was just made may not be here yet.
        if let Some(found) = handle.read_stale(look) {
            return Ok(found);
        }
        let found = handle.read(look).await.map_err(status::read)?;
        found.ok_or_else(|| status::not_found("teams", "a team", &names::of_team(&known)))
    }

    /// Writes down what nine in ten such runs cost at most, where its team asks for somebody's word above a sum.
    pub(super) fn expect(&self, spec: &mut JobSpec, cost: Option<UsdMicros>) {
        let asks = self.context.handle.read_stale(|state| {
            let mut chain = state.team_chain(spec.terms.team);
            chain.any(|team| team.rules.approve_above.is_some())
        });
        spec.terms.expected_cost = cost.filter(|_| asks);
    }
}

/// Workers on whom it is tried at once what a job could ask for instead: some milliseconds.
const FEW_WORKERS: usize = 256;

/// Refuses what no worker can ever hold. Without any worker there is nothing to say yet. A job that was taken before is
/// not refused now, since the same request has the same answer.
pub(super) async fn check_fit(
    jobs: &Jobs,
    who: Option<UserId>,
    request: Option<RequestId>,
    spec: &JobSpec,
) -> Result<(), Status> {
    let handle = &jobs.context.handle;
    let now_ms = handle.now_ms();
    let misfits = |state: &State| {
        let misfits = fit::misfits(state, spec, now_ms)?;
        let is_known = request.is_some_and(|request| state.remembers(request));
        (!is_known).then_some(misfits)
    };
    // What fits a moment ago is taken; only a refusal must know every worker there is.
    if handle.read_stale(misfits).is_none() {
        return Ok(());
    }
    let refused = |state: &State| Some((misfits(state)?, Fleet::of(state, spec, now_ms)));
    match handle.read(refused).await.map_err(status::read)? {
        None => Ok(()),
        Some((misfits, fleet)) => {
            let remedies = remedies(jobs, who, fleet, spec).await;
            Err(never(spec, &misfits, remedies.as_deref()))
        }
    }
}

/// What could be asked for instead. `None` where that takes long and there is no turn for it: the refusal holds without.
async fn remedies(
    jobs: &Jobs,
    who: Option<UserId>,
    fleet: Fleet,
    spec: &JobSpec,
) -> Option<Vec<String>> {
    if fleet.len() <= FEW_WORKERS {
        return Some(fleet.remedies(spec));
    }
    let turn = jobs.context.estimating.enter(who).await.ok()?;
    let spec = spec.clone();
    turn.aside(move || fleet.remedies(&spec)).await.ok()
}

fn never(spec: &JobSpec, misfits: &[Misfit], remedies: Option<&[String]>) -> Status {
    let hint = match remedies {
        None => "see `stepcast workers` for what there is".to_owned(),
        Some([]) => {
            "no single change would do; see `stepcast workers` for what there is".to_owned()
        }
        Some(some) => format!("it would fit if you {}", some.join(", or ")),
    };
    let violation = |misfit: &Misfit| {
        let words = match misfit.workers {
            1 => format!(
                "1 worker: {} (cleared by {})",
                misfit.reason,
                misfit.reason.clears()
            ),
            count => format!(
                "{count} workers: {} (cleared by {})",
                misfit.reason,
                misfit.reason.clears()
            ),
        };
        PreconditionViolation::new(misfit.reason.code(), "workers", words)
    };
    Refusal::new(
        Code::FailedPrecondition,
        "NO_WORKER_FITS",
        "no worker can ever run this job",
    )
    .with("gpu_count", spec.gpu_count)
    .with("hosts", spec.hosts())
    .hint(hint)
    .preconditions(misfits.iter().map(violation).collect())
    .into()
}

/// Keeps the files and puts the job into the log.
async fn put(
    jobs: &Jobs,
    caller: &Caller,
    id: RequestId,
    (submission, credentials): (Submission, Taken),
    spec: &JobSpec,
) -> Result<JobId, Status> {
    let taken = jobs.context.handle.takes_submissions();
    taken.map_err(status::propose)?;
    let _under_way = UnderWay::enter(&jobs.under_way, vec![spec.staging])?;
    let is_known = jobs.context.has_taken(id);
    let staged = [(spec.staging, submission.files())];
    let new = match is_known {
        true => Vec::new(),
        false => {
            jobs.context.entries.change(caller)?;
            jobs.context.take_share(spec.terms.owner, &staged)?
        }
    };
    let has_credentials = !credentials.is_empty();
    if let Some(credentials) = all(credentials, spec) {
        let kept = jobs
            .context
            .keep(spec.staging, spec.terms.owner, credentials);
        if !is_known {
            kept.inspect_err(|_| jobs.context.staging.give_back(&new))?;
        }
    }
    let handle = &jobs.context.handle;
    let command = Command::SubmitJob {
        spec: Box::new(spec.clone()),
    };
    let began_ms = handle.now_ms();
    let prepared = handle.prepare(caller.actor(), command, Some(id));
    let (proposal, proposed) = prepared.map_err(|error| {
        jobs.context.staging.give_back(&new);
        jobs.context.forget_unused(spec.staging);
        status::propose(error)
    })?;
    // Both must be on disk before there is an answer, and neither waits for the other.
    let go = Box::new(move |behind| match behind {
        Behind::More | Behind::Unknown => proposal.go(),
        Behind::Nothing => proposal.go_now(),
    });
    let put = jobs
        .context
        .staging
        .put_and(spec.staging, submission.files(), go);
    let put = match put.await {
        Ok(put) => put,
        Err(error) => {
            give_up(handle, caller, proposed, began_ms).await;
            jobs.context.staging.give_back(&new);
            jobs.context.forget_unused(spec.staging);
            return Err(not_staged(error));
        }
    };
    let proposed = proposed.outcome().await;
    if put == Put::New && is_settled(&proposed) {
        // A job that was refused, or is over already, needs no files. The sweep would find them, but much later.
        let is_needed = |state: &State| match &proposed {
            // As a rule it is this job's, which is quickly found.
            Ok(Reply::JobSubmitted { job }) if is_staged(state, *job, spec) => true,
            _ => state.needs_staging(&spec.staging),
        };
        if !handle.read_stale(is_needed)
            && let Err(error) = jobs.context.staging.take_back(spec.staging).await
        {
            tracing::warn!(error = ?error, "files of a submission that was not taken are left to the sweep");
        }
    }
    if has_credentials && is_settled(&proposed) {
        jobs.context.forget_unused(spec.staging);
    }
    match proposed.map_err(status::propose)? {
        Reply::JobSubmitted { job } => {
            if has_credentials {
                jobs.settle_credentials(caller, spec.staging, job).await;
            }
            Ok(job)
        }
        other => Err(unexpected(&other)),
    }
}

impl Context {
    /// Whether this request was taken before: it takes no room a second time and is answered as it was, whatever room there
    /// is. Who is refused would believe that there is no job, and submit it again.
    pub(super) fn has_taken(&self, request: RequestId) -> bool {
        self.handle.read_stale(|state| state.remembers(request))
    }

    /// Takes room for these files in the share of whom they are, and gives back which of them had none before.
    pub(super) fn take_share(
        &self,
        whose: Option<Owner>,
        staged: &[(StagingId, &[StagedFile])],
    ) -> Result<Vec<StagingId>, Status> {
        let is_needed = |of: &StagingId| self.handle.read_stale(|state| state.needs_staging(of));
        let taken = self.staging.take_share(whose, staged, &is_needed);
        taken.map_err(not_staged)
    }
}

/// Whether a job that is not over has the files of this one.
fn is_staged(state: &State, job: JobId, spec: &JobSpec) -> bool {
    let open = state.open_job(job);
    open.is_some_and(|job| job.spec.staging == spec.staging)
}

/// Ends the job of a submission whose files were not kept, if it has come into the log: it could not run. One that was
/// there before stays, as its own files do.
async fn give_up(handle: &Handle, caller: &Caller, proposed: Proposed, began_ms: u64) {
    let Ok(Reply::JobSubmitted { job }) = proposed.outcome().await else {
        return;
    };
    let is_new = handle.read_stale(|state| {
        state
            .job(job)
            .is_some_and(|job| job.submitted_ms >= began_ms)
    });
    if !is_new {
        return;
    }
    let ended = handle.propose_by(caller.actor(), Command::CancelJob { job }, None);
    if let Err(error) = ended.await {
        tracing::warn!(%error, %job, "a job whose files were not kept could not be ended: it will fail without them");
    }
}

/// What is to be kept in memory for a job; nothing for one that needs nothing.
pub(super) fn all(credentials: Taken, spec: &JobSpec) -> Option<Credentials> {
    // The names are its own, so that none is missing.
    let found = credentials.only(&spec.terms.credentials).ok();
    found.filter(|_| !spec.terms.credentials.is_empty())
}

/// Whether it is certain what became of the command.
pub(super) const fn is_settled(proposed: &Result<Reply, ProposeError>) -> bool {
    match proposed {
        Ok(_) => true,
        Err(
            ProposeError::Rejected(_)
            | ProposeError::NotLeader { .. }
            | ProposeError::Busy { .. }
            | ProposeError::StorageFull
            | ProposeError::Stalled { .. }
            | ProposeError::TooLarge { .. },
        ) => true,
        Err(ProposeError::OutcomeUnknown | ProposeError::Stopped(_)) => false,
    }
}

pub(super) fn not_staged(error: staging::Error) -> Status {
    match error {
        staging::Error::Full => {
            Refusal::new(Code::ResourceExhausted, "STAGING_FULL", error.to_string())
                .hint("wait until jobs have ended")
                .retry(Duration::from_secs(30))
                .into()
        }
        staging::Error::Yours(_) => {
            Refusal::new(Code::ResourceExhausted, YOURS_FULL, error.to_string())
                .hint("cancel jobs that you do not need (`stepcast jobs --state pending`), wait until some have ended, or submit smaller files: long lists of prompts are what takes room")
                .quota("files", &error.to_string())
                .into()
        }
        staging::Error::Io(source) if source.kind() == std::io::ErrorKind::StorageFull => {
            staging::no_room()
        }
        staging::Error::Store(ref source) => {
            tracing::error!(error = ?source, "the staging area does not answer");
            Refusal::new(Code::Unavailable, "STAGING_UNREACHABLE", error.to_string())
                .retry(STORE_BACK)
                .into()
        }
        error => staging::unusable(&error),
    }
}

/// Submissions whose files are on their way. A second one of the same kind would find half of them.
pub(super) struct UnderWay<'a> {
    all: &'a Mutex<BTreeSet<StagingId>>,
    staged: Vec<StagingId>,
}

impl<'a> UnderWay<'a> {
    /// Enters all of these or none.
    pub(super) fn enter(
        all: &'a Mutex<BTreeSet<StagingId>>,
        staged: Vec<StagingId>,
    ) -> Result<Self, Status> {
        let mut entered = all.lock();
        if !staged.iter().any(|one| entered.contains(one)) {
            entered.extend(&staged);
            drop(entered);
            return Ok(Self { all, staged });
        }
        Err(Refusal::new(
            Code::Unavailable,
            "REQUEST_UNDER_WAY",
            "the same request is being taken at this moment",
        )
        .retry(UNDER_WAY)
        .into())
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut entered = self.all.lock();
        for one in &self.staged {
            entered.remove(one);
        }
    }
}
