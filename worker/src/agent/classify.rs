//! Why a trainer ended: from its last events, its exit status and its last words.

use super::{Exit, ExitStatus, Failure, Outcome, Why};
use crate::event::Broken;

/// argparse leaves with this code when an option is unknown or invalid.
const ARGPARSE_EXIT: i32 = 2;

/// Who sends this signal, when this worker has not, cannot be told: the kernel when memory runs out, or a person, or what
/// ends a container.
const SIGKILL: i32 = 9;

/// Lines of the trainer's output put into a failure's detail.
const DETAIL_LINES: usize = 8;

/// What frameworks write when memory ran out.
const OUT_OF_MEMORY: [&str; 6] = [
    "outofmemoryerror",
    "out of memory",
    "cannot allocate memory",
    "std::bad_alloc",
    "defaultcpuallocator: can't allocate",
    "cublas_status_alloc_failed",
];

/// What was seen of an attempt before its trainer ended.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// `training_complete` came.
    pub(super) complete: bool,
    /// The first `error` event: title and message.
    pub(super) error: Option<(String, String)>,
    /// The trainer said that it failed or was interrupted.
    pub(super) broken: Option<Broken>,
    /// A training loop was reached.
    pub(super) ready: bool,
}

/// The verdict, and why. `signalled` says whether it ended because this worker told its processes to.
pub(super) fn classify(
    seen: &Seen,
    stopped: Option<Why>,
    signalled: bool,
    exit: &Exit,
) -> (Outcome, String) {
    let is_over =
        exit.status == ExitStatus::Code(0) || signalled && stopped.is_some_and(is_for_room);
    if seen.complete && is_over {
        return (Outcome::Succeeded, String::new());
    }
    match stopped {
        Some(why) => stopped_outcome(why),
        None => {
            let (failure, detail) = failure(seen, exit);
            (Outcome::Failed(failure), detail)
        }
    }
}

/// Whether an attempt was stopped because it may not run any longer, and not because it is not wanted, has failed or belongs to
/// somebody else by now. SimpleTuner says that training is complete when all is saved, so nothing is missing of such a one.
fn is_for_room(why: Why) -> bool {
    match why {
        Why::Preempted | Why::Draining | Why::PartOver | Why::MaxRuntime | Why::BudgetSpent => true,
        Why::Cancelled | Why::LeaseLost | Why::Stuck => false,
    }
}

/// The verdict on an attempt that was stopped on purpose.
pub(super) fn stopped_outcome(why: Why) -> (Outcome, String) {
    let (outcome, detail) = match why {
        Why::Cancelled => (Outcome::Cancelled, "cancelled"),
        Why::LeaseLost => (
            Outcome::LeaseExpired,
            "stopped because its lease was not renewed in time",
        ),
        Why::Preempted => (
            Outcome::Failed(Failure::Preempted),
            "stopped to free its GPUs",
        ),
        Why::Draining => (
            Outcome::Failed(Failure::Preempted),
            "stopped because the worker drains",
        ),
        Why::PartOver => (
            Outcome::Failed(Failure::Preempted),
            "stopped because another host's part of it has ended",
        ),
        Why::MaxRuntime => (
            Outcome::Failed(Failure::MaxRuntime),
            "stopped at the job's limit on running time",
        ),
        Why::BudgetSpent => (
            Outcome::Failed(Failure::BudgetSpent),
            "stopped at the job's limit on cost",
        ),
        Why::Stuck => (
            Outcome::Failed(Failure::Stuck),
            "stopped after no sign of life for too long",
        ),
    };
    (outcome, detail.to_owned())
}

fn failure(seen: &Seen, exit: &Exit) -> (Failure, String) {
    if let Some((title, message)) = &seen.error {
        let detail = format!("{title}: {message}");
        return if says_out_of_memory(&detail) {
            (Failure::OutOfMemory, detail)
        } else if !seen.ready && title.ends_with("ValueError") {
            // Raised while reading the settings: the next try would raise it again.
            (Failure::ConfigInvalid, detail)
        } else {
            (Failure::TrainerError, detail)
        };
    }
    let last = last_lines(&exit.tail);
    match exit.status {
        ExitStatus::Code(ARGPARSE_EXIT) if !seen.ready => (
            Failure::ConfigInvalid,
            with("the trainer refused its options", &last),
        ),
        _ if exit.tail.iter().any(|line| says_out_of_memory(line)) => {
            (Failure::OutOfMemory, with("out of memory", &last))
        }
        ExitStatus::Signal(SIGKILL) => {
            // Another attempt may do better, unlike one at a GPU's memory, which is said in words.
            let why = "killed by signal 9, by a person or by the kernel, which does so when the host's memory runs out";
            (Failure::TrainerError, with(why, &last))
        }
        ExitStatus::Signal(signal) => (
            Failure::TrainerError,
            with(&format!("ended by signal {signal}"), &last),
        ),
        ExitStatus::Unseen => (
            Failure::TrainerError,
            with("its guard process was lost, so it was ended", &last),
        ),
        ExitStatus::Unwatched => (
            Failure::TrainerError,
            with("ended because of a fault in the worker", &last),
        ),
        ExitStatus::Code(0) if seen.broken == Some(Broken::Interrupted) => (
            Failure::TrainerError,
            "interrupted by a signal from outside".to_owned(),
        ),
        ExitStatus::Code(0) => (
            Failure::TrainerError,
            with(
                "exited with 0 without saying that training is complete",
                &last,
            ),
        ),
        ExitStatus::Code(code) if seen.complete => (
            Failure::TrainerError,
            with(
                &format!("training was complete, yet the trainer exited with {code}"),
                &last,
            ),
        ),
        ExitStatus::Code(code) => (
            Failure::TrainerError,
            with(&format!("exited with {code}"), &last),
        ),
    }
}

fn says_out_of_memory(text: &str) -> bool {
    let text = text.to_lowercase();
    OUT_OF_MEMORY.iter().any(|words| text.contains(words))
}

fn last_lines(tail: &[String]) -> String {
    let lines: Vec<&str> = tail
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(DETAIL_LINES)..].join("\n")
}

fn with(why: &str, last: &str) -> String {
    if last.is_empty() {
        why.to_owned()
    } else {
        format!("{why}; its last words:\n{last}")
    }
}
