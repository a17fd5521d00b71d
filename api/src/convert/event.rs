//! Events of a job's history.

use stepcast_proto::v1;
use stepcast_scheduler::model::{EventKind, JobEvent, JobState};

use super::job::{job_state, outcome_code};
use super::quantity::timestamp_ms;
use crate::names;

/// An event, and where the job stood before it; gives back where it stands after it as well.
pub(crate) fn event(event: &JobEvent, before: JobState) -> (v1::JobEvent, JobState) {
    let after = after(event.kind, before);
    let mut told = v1::JobEvent {
        seq: event.seq,
        time: Some(timestamp_ms(event.stamp_ms)),
        state: job_state(after).into(),
        ..v1::JobEvent::default()
    };
    told.kind = match event.kind {
        EventKind::Submitted => "SUBMITTED",
        EventKind::Placed {
            attempt,
            epoch,
            worker,
        } => {
            (told.attempt, told.epoch, told.worker) =
                (attempt.0, epoch.0, names::of_worker(worker));
            "PLACED"
        }
        EventKind::Started { attempt } => {
            told.attempt = attempt.0;
            "STARTED"
        }
        EventKind::Checkpointed { attempt, step } => {
            (told.attempt, told.step) = (attempt.0, step);
            "CHECKPOINTED"
        }
        EventKind::GoesOn { attempt, step } => {
            (told.attempt, told.step) = (attempt.0, step);
            "GOES_ON"
        }
        EventKind::CancelRequested => "CANCEL_REQUESTED",
        EventKind::AttemptEnded {
            attempt,
            outcome,
            step,
        } => {
            (told.attempt, told.step, told.reason) =
                (attempt.0, step, outcome_code(outcome).to_owned());
            "ATTEMPT_ENDED"
        }
        EventKind::Requeued { reason, .. } => {
            told.reason = reason.code().to_owned();
            "REQUEUED"
        }
        EventKind::Succeeded => "SUCCEEDED",
        EventKind::Failed { reason } => {
            told.reason = reason.code().to_owned();
            "FAILED"
        }
        EventKind::Cancelled => "CANCELLED",
        EventKind::Forgotten => "FORGOTTEN",
        EventKind::Approved => "APPROVED",
        EventKind::Changed => "CHANGED",
        EventKind::CredentialsGiven => "CREDENTIALS_GIVEN",
        EventKind::CredentialsMissing => "CREDENTIALS_MISSING",
        EventKind::PreemptRequested { attempt, .. } => {
            told.attempt = attempt.0;
            "PREEMPT_REQUESTED"
        }
    }
    .to_owned();
    (told, after)
}

/// Where a job stands after an event.
const fn after(kind: EventKind, before: JobState) -> JobState {
    match kind {
        EventKind::Submitted | EventKind::Requeued { .. } => JobState::Pending,
        EventKind::Placed { .. } => JobState::Running,
        EventKind::CancelRequested => JobState::Cancelling,
        EventKind::Succeeded => JobState::Succeeded,
        EventKind::Failed { reason } => JobState::Failed { reason },
        EventKind::Cancelled => JobState::Cancelled,
        EventKind::AttemptEnded { .. }
        | EventKind::Started { .. }
        | EventKind::Checkpointed { .. }
        | EventKind::GoesOn { .. }
        | EventKind::Approved
        | EventKind::Changed
        | EventKind::CredentialsGiven
        | EventKind::CredentialsMissing
        | EventKind::PreemptRequested { .. }
        | EventKind::Forgotten => before,
    }
}

#[cfg(test)]
mod tests {
    use stepcast_scheduler::ids::{AttemptNumber, Epoch, WorkerId};
    use stepcast_scheduler::model::FailureReason;

    use super::*;

    fn told(kind: EventKind, before: JobState) -> v1::JobEvent {
        event(
            &JobEvent {
                seq: 4,
                stamp_ms: 1_000,
                kind,
            },
            before,
        )
        .0
    }

    #[test]
    fn an_event_says_where_the_job_stands_after_it() {
        let (attempt, epoch, worker) = (AttemptNumber(2), Epoch(9), WorkerId(1));
        let placed = told(
            EventKind::Placed {
                attempt,
                epoch,
                worker,
            },
            JobState::Pending,
        );
        assert_eq!(
            (placed.kind.as_str(), placed.epoch, placed.attempt),
            ("PLACED", 9, 2)
        );
        assert_eq!(placed.state(), v1::JobState::Running);
        let kept = told(EventKind::Started { attempt }, JobState::Cancelling);
        assert_eq!(kept.state(), v1::JobState::Cancelling);
        let failed = told(
            EventKind::Failed {
                reason: FailureReason::OutOfMemory,
            },
            JobState::Running,
        );
        assert_eq!(
            (failed.reason.as_str(), failed.state()),
            ("OUT_OF_MEMORY", v1::JobState::Failed)
        );
    }
}
