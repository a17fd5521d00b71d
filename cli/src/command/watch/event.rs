//! What happened to a job, as one line for a pipe.

use stepcast_proto::v1::{Job, JobEvent, JobState};

use crate::command::jobs::{words, worker};
use crate::output::money::count;

/// An event as one line: `pending -> running (attempt 1, h100-a1)`.
pub(super) fn event_line(event: &JobEvent, job: &Job, before: JobState) -> String {
    let state = |state: JobState| words(state.as_str_name().trim_start_matches("JOB_STATE_"));
    let place = match job.attempts.last() {
        Some(attempt) if event.attempt > 0 => {
            format!(" (attempt {}, {})", event.attempt, worker(attempt))
        }
        _ => String::new(),
    };
    let change = match event.kind.as_str() {
        "CHECKPOINTED" => return format!("checkpoint at step {}", count(event.step)),
        "GOES_ON" if event.step == 0 => {
            return format!("begins anew: its worker has no checkpoint of it{place}");
        }
        "GOES_ON" => {
            let step = count(event.step);
            return format!("goes on from step {step}: its worker has no newer checkpoint{place}");
        }
        "ATTEMPT_ENDED" => {
            return format!("attempt {} ended: {}", event.attempt, words(&event.reason));
        }
        "STARTED" => return format!("started{place}"),
        "CANCEL_REQUESTED" => return "asked to end".to_owned(),
        "APPROVED" => return "approved".to_owned(),
        "CHANGED" => return "what is asked for has changed".to_owned(),
        "CREDENTIALS_GIVEN" => return "it has its credentials again".to_owned(),
        "CREDENTIALS_MISSING" => return "its credentials must be given again".to_owned(),
        "PREEMPT_REQUESTED" => return "its GPUs are taken back; it goes on later".to_owned(),
        _ if before == event.state() || before == JobState::Unspecified => words(&event.kind),
        _ => format!("{} -> {}", state(before), state(event.state())),
    };
    let reason = if event.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", words(&event.reason))
    };
    format!("{change}{place}{reason}")
}
