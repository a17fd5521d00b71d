//! A job and its attempts.

use stepcast_cluster::session::{Phase, Progress};
use stepcast_proto::v1;
use stepcast_records::{Hardware, Quantiles, UsdMicros};
use stepcast_scheduler::State;
use stepcast_scheduler::ids::Epoch;
use stepcast_scheduler::model::{Attempt, AttemptState, Job, JobState, Outcome, PartState};
use tonic::Status;

use super::quantity::{duration_ms, times, timestamp_ms};
use super::terms::write_standing;
use super::wishes::spec_wishes;
use super::workload::workload;
use crate::names;
use crate::status::bad_field;

/// What a job is known by as it is when this was its newest event.
fn etag(seq: u64) -> String {
    format!("{seq:x}")
}

/// Which event was a job's newest one when somebody saw it with this etag; `None` if they say none.
pub(crate) fn seq(field: &str, etag: &str) -> Result<Option<u64>, Status> {
    if etag.is_empty() {
        return Ok(None);
    }
    let seq = u64::from_str_radix(etag, 16);
    seq.map(Some)
        .map_err(|_| bad_field(field, "this is no etag of a job"))
}

/// A job as it is at `now_ms`. Its workers' names are looked up in the state.
pub(crate) fn job(job: &Job, state: &State, now_ms: u64) -> v1::Job {
    let UsdMicros(cost) = job.cost(now_ms);
    let waits = job.state == JobState::Pending && job.not_before_ms > now_ms;
    let last = job.attempts.last();
    let (reason, detail) = match job.state {
        JobState::Failed { reason } => (
            reason.code().to_owned(),
            last.map(|attempt| attempt.detail.clone()),
        ),
        JobState::Pending
        | JobState::Running
        | JobState::Cancelling
        | JobState::Succeeded
        | JobState::Cancelled => (String::new(), None),
    };
    let mut told = v1::Job {
        name: names::of_job(job.id),
        title: job.spec.workload.recipe.title(),
        workload: Some(workload(&job.spec.workload)),
        wishes: Some(spec_wishes(&job.spec)),
        state: job_state(job.state).into(),
        failure_reason: reason,
        failure_detail: detail.unwrap_or_default(),
        submit_time: Some(timestamp_ms(job.submitted_ms)),
        not_before_time: waits.then(|| timestamp_ms(job.not_before_ms)),
        end_time: job.ended_ms.map(timestamp_ms),
        attempts: job
            .attempts
            .iter()
            .map(|attempt| self::attempt(attempt, job, state))
            .collect(),
        cost_usd_micros: cost,
        progress: None,
        etag: etag(job.seq()),
        ..v1::Job::default()
    };
    write_standing(job, state, &mut told);
    told
}

/// How far an attempt is, as it said lately, and how long it still takes.
pub(crate) fn live_progress(
    epoch: Epoch,
    progress: Progress,
    left: Option<Quantiles>,
) -> v1::Progress {
    let Progress {
        step,
        steps_total,
        step_ms,
        phase,
    } = progress;
    v1::Progress {
        epoch: epoch.0,
        step,
        steps_total,
        step_ms,
        phase: self::phase(phase).into(),
        remaining_time: left.map(times),
    }
}

/// The states that a list is asked for.
pub(crate) fn states(field: &str, states: &[i32]) -> Result<Vec<v1::JobState>, Status> {
    let read = |(index, state): (usize, &i32)| match v1::JobState::try_from(*state) {
        Ok(v1::JobState::Unspecified) | Err(_) => Err(bad_field(
            &format!("{field}[{index}]"),
            "this is no state of a job",
        )),
        Ok(state) => Ok(state),
    };
    states.iter().enumerate().map(read).collect()
}

/// Where a job stands.
pub(crate) const fn job_state(state: JobState) -> v1::JobState {
    match state {
        JobState::Pending => v1::JobState::Pending,
        JobState::Running => v1::JobState::Running,
        JobState::Cancelling => v1::JobState::Cancelling,
        JobState::Succeeded => v1::JobState::Succeeded,
        JobState::Failed { .. } => v1::JobState::Failed,
        JobState::Cancelled => v1::JobState::Cancelled,
    }
}

/// The stable name of how an attempt ended.
pub(crate) const fn outcome_code(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "SUCCEEDED",
        Outcome::Failed(reason) => reason.code(),
        Outcome::Cancelled => "CANCELLED",
        Outcome::LeaseExpired => "LEASE_EXPIRED",
    }
}

fn attempt(attempt: &Attempt, job: &Job, state: &State) -> v1::Attempt {
    let count = u8::try_from(attempt.gpus.len()).unwrap_or(u8::MAX);
    let hardware = Hardware {
        gpu: attempt.gpu,
        count,
    };
    v1::Attempt {
        name: names::of_attempt(job.id, attempt.number),
        epoch: attempt.epoch.0,
        worker: names::of_worker(attempt.worker),
        worker_display_name: state
            .worker(attempt.worker)
            .map_or_else(String::new, |worker| worker.name.to_string()),
        hardware: hardware.slug(),
        gpus: attempt.gpus.iter().map(|gpu| u32::from(*gpu)).collect(),
        state: attempt_state(attempt.state).into(),
        outcome: attempt
            .outcome()
            .map_or_else(String::new, |outcome| outcome_code(outcome).to_owned()),
        place_time: Some(timestamp_ms(attempt.placed_ms)),
        start_time: attempt.started_ms.map(timestamp_ms),
        end_time: attempt.ended_ms.map(timestamp_ms),
        checkpoint_step: attempt.checkpoint_step,
        last_step: attempt.last_step,
        price_per_hour_usd_micros: attempt.price_per_hour.map(|UsdMicros(micros)| micros),
        expected_p50: attempt.note.run_ms_p50.map(duration_ms),
        expected_p90: attempt.note.run_ms_p90.map(duration_ms),
        parts: parts(attempt, state),
        begun_step: job.begun_elsewhere(attempt.number),
    }
}

/// The parts of an attempt on several hosts, by rank.
fn parts(attempt: &Attempt, state: &State) -> Vec<v1::AttemptPart> {
    let parts = attempt.parts().filter(|_| attempt.gang.is_some());
    let told = parts.map(|part| v1::AttemptPart {
        worker: names::of_worker(part.worker),
        worker_display_name: state
            .worker(part.worker)
            .map_or_else(String::new, |worker| worker.name.to_string()),
        gpus: part.gpus.iter().map(|gpu| u32::from(*gpu)).collect(),
        state: match part.state {
            PartState::Placed => v1::AttemptState::Placed,
            PartState::Running => v1::AttemptState::Running,
            PartState::Ended => v1::AttemptState::Ended,
        }
        .into(),
    });
    told.collect()
}

const fn attempt_state(state: AttemptState) -> v1::AttemptState {
    match state {
        AttemptState::Placed => v1::AttemptState::Placed,
        AttemptState::Running => v1::AttemptState::Running,
        AttemptState::Ended(_) => v1::AttemptState::Ended,
    }
}

const fn phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Starting => v1::Phase::Starting,
        Phase::Caching => v1::Phase::Caching,
        Phase::Loading => v1::Phase::Loading,
        Phase::Training => v1::Phase::Training,
        Phase::Validating => v1::Phase::Validating,
        Phase::Saving => v1::Phase::Saving,
        Phase::Complete => v1::Phase::Complete,
    }
}
