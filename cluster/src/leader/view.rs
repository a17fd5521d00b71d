//! What the duties read from the state: small copies, so that nothing holds the state while it acts.

use std::time::Duration;

use stepcast_records::Hardware;
use stepcast_scheduler::ids::{AttemptNumber, Epoch, InstanceId, JobId, StagingId, WorkerId};
use stepcast_scheduler::model::{self, JobSpec, PartState, WorkerState};
use stepcast_scheduler::{Command, State};

use super::leases::Held;
use crate::session::{GangPlace, StopReason};

/// An attempt that holds a lease, and what is wanted of its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) job: JobId,
    pub(crate) number: AttemptNumber,
    pub(crate) epoch: Epoch,
    pub(crate) gpus: Vec<u8>,
    /// The step of the job's newest checkpoint, 0 for none.
    pub(crate) resume_step: u64,
    /// Its place in a gang, if it is a part of one.
    pub(crate) place: Option<GangPlace>,
    pub(crate) wanted: Wanted,
}

/// What is wanted of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To run the attempt.
    Run,
    /// To stop it.
    Stop(StopReason),
}

/// What the time of an attempt is told from.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) spec: JobSpec,
    pub(crate) worker: WorkerId,
    pub(crate) hardware: Hardware,
    /// When its trainer began, by stamp.
    pub(crate) since_ms: u64,
    /// The step from which it goes on.
    pub(crate) step: u64,
}

/// Every attempt that holds a lease, a gang by its parts that have not ended.
pub(crate) fn live_attempts(state: &State) -> Vec<Held> {
    let live = state
        .leases()
        .filter_map(|lease| state.live_attempt(lease.epoch));
    live.flat_map(|(job, attempt)| held(job.id, attempt))
        .collect()
}

/// The attempts that hold a lease on one worker, oldest first, looked up once for all that is asked about them.
pub(crate) fn on(state: &State, worker: WorkerId) -> Vec<(&model::Job, &model::Attempt)> {
    state.live_attempts_on(worker).collect()
}

/// What a worker holds of the attempts [`on`] it.
pub(crate) fn held_on(on: &[(&model::Job, &model::Attempt)], worker: WorkerId) -> Vec<Held> {
    let held = on.iter().flat_map(|(job, attempt)| held(job.id, attempt));
    held.filter(|held| held.worker == worker).collect()
}

/// What the state wants of a worker of the attempts [`on`] it, oldest first. Nothing more of a part that has ended.
pub(crate) fn wanted_on(
    state: &State,
    on: &[(&model::Job, &model::Attempt)],
    worker: WorkerId,
) -> Vec<Attempt> {
    let attempts = on.iter().filter_map(|(job, attempt)| {
        let part = attempt.part_on(worker)?;
        let rank = rank_of(attempt, part.rank);
        let place = rank.map(|rank| place(state, job, attempt, rank));
        let wanted = match (attempt.stop, &place) {
            _ if part.state == PartState::Ended => return None,
            (Some(why), _) => Wanted::Stop(why.into()),
            // The first host has come back without an address, so its part is over: nobody may begin as if alone.
            (None, Some(None)) => return None,
            (None, _) => Wanted::Run,
        };
        Some(Attempt {
            job: job.id,
            number: attempt.number,
            epoch: attempt.epoch,
            gpus: part.gpus.to_vec(),
            resume_step: job.checkpoint_step(),
            place: place.flatten(),
            wanted,
        })
    });
    attempts.collect()
}

/// An attempt that holds a lease, with what its job asks for.
pub(crate) fn running(state: &State, epoch: Epoch) -> Option<Running> {
    let (job, attempt) = state.live_attempt(epoch)?;
    let count = u8::try_from(attempt.gpus.len()).ok()?;
    // Of one host: what is known of it is no word on several.
    Some(Running {
        spec: job.spec.clone(),
        worker: attempt.worker,
        hardware: Hardware::new(attempt.gpu, count)?,
        since_ms: attempt.started_ms.unwrap_or(attempt.placed_ms),
        step: job.checkpoint_step(),
    })
}

/// Whether an attempt that begins with this step does not go on from where the state has it, and the log can say so.
pub(crate) fn begins_elsewhere(state: &State, epoch: Epoch, step: u64) -> bool {
    let live = state.live_attempt(epoch);
    state.format() >= 3 && live.is_some_and(|(job, _)| job.begun_step(epoch) != step)
}

/// Since when an attempt runs, by stamp, and how long it was expected to. Nothing for one that is over, has not begun, or began
/// at another step than was expected.
pub(crate) fn expected(state: &State, epoch: Epoch) -> Option<(u64, Duration)> {
    let (job, attempt) = state.live_attempt(epoch)?;
    if job.begun_elsewhere(attempt.number).is_some() {
        return None;
    }
    let expected_ms = attempt.note.run_ms_p50?;
    Some((attempt.started_ms?, Duration::from_millis(expected_ms)))
}

/// What a job asks for.
pub(crate) fn spec(state: &State, job: JobId) -> Option<JobSpec> {
    state.job(job).map(|job| job.spec.clone())
}

/// Which process of a worker is registered; `None` if nobody knows the worker, or not any more.
pub(crate) fn instance(state: &State, worker: WorkerId) -> Option<InstanceId> {
    state.worker(worker).map(|worker| worker.instance)
}

/// How a worker that was given up as lost takes part again: as it registered, since it is the same process.
pub(crate) fn comeback(state: &State, worker: WorkerId) -> Option<Command> {
    let worker = state
        .worker(worker)
        .filter(|worker| matches!(worker.state, WorkerState::Lost { .. }))?;
    Some(Command::RegisterWorker {
        token_hash: worker.token,
        instance: worker.instance,
        inventory: worker.inventory.clone(),
    })
}

/// Whether a worker takes part, draining or not.
pub(crate) fn is_present(state: &State, worker: WorkerId) -> bool {
    let worker = state.worker(worker);
    worker.is_some_and(|worker| worker.state == WorkerState::Present)
}

/// Workers that are expected to have a session.
pub(crate) fn present_workers(state: &State) -> Vec<(WorkerId, InstanceId)> {
    let present = state
        .workers()
        .filter(|worker| worker.state == WorkerState::Present);
    present.map(|worker| (worker.id, worker.instance)).collect()
}

/// Whether the lease with this epoch is another worker's: whoever speaks of it then speaks of what is not theirs.
pub(crate) fn is_anothers(state: &State, epoch: Epoch, worker: WorkerId) -> bool {
    state.lease(epoch).is_some() && !state.is_on(epoch, worker)
}

/// The rank of a worker's part of an attempt, if it is one of several.
pub(crate) fn rank(state: &State, epoch: Epoch, worker: WorkerId) -> Option<u8> {
    let (_, attempt) = state.live_attempt(epoch)?;
    rank_of(attempt, attempt.part_on(worker)?.rank)
}

/// Waiting jobs, at most so many, that are believed to have their credentials and have none that are held.
pub(crate) fn missing_credentials(
    state: &State,
    most: usize,
    is_held: impl Fn(&StagingId) -> bool,
) -> Vec<JobId> {
    let missing = state.held_credentials().filter(|(_, of)| !is_held(of));
    missing.take(most).map(|(job, _)| job).collect()
}

/// Whether a job that is not over has these files.
pub(crate) fn is_staging_needed(state: &State, staging: &StagingId) -> bool {
    state.needs_staging(staging)
}

/// The leases of an attempt: of a gang, one for each part that has not ended.
fn held(job: JobId, attempt: &model::Attempt) -> impl Iterator<Item = Held> {
    let live = attempt
        .parts()
        .filter(|part| part.state != PartState::Ended);
    live.map(move |part| Held {
        epoch: attempt.epoch,
        job,
        worker: part.worker,
        rank: rank_of(attempt, part.rank),
    })
}

/// The rank of a part, if it is one of several.
fn rank_of(attempt: &model::Attempt, rank: usize) -> Option<u8> {
    let is_gang = attempt.gang.is_some();
    is_gang.then(|| u8::try_from(rank).unwrap_or(u8::MAX))
}

/// The place of a part among the others. The first waits for them at its worker's address, at a port that no other attempt
/// there has: that of its first GPU.
fn place(state: &State, job: &model::Job, attempt: &model::Attempt, rank: u8) -> Option<GangPlace> {
    let address = state.worker(attempt.worker)?.inventory.address.as_ref();
    let (host, port) = address?.as_str().rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let gpu = attempt.gpus.first().copied().unwrap_or(0);
    Some(GangPlace {
        rank,
        hosts: u8::try_from(attempt.hosts()).unwrap_or(u8::MAX),
        main_host: host.to_owned(),
        main_port: port.saturating_add(gpu.into()),
        resume_step: job.checkpoint_step(),
    })
}
