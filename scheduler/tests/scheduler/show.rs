//! How a script shows things: one short line each.

use std::fmt::Write;

use stepcast_scheduler::command::Preemption;
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::{AttemptState, EventKind, Job, JobState, Outcome, WorkerState};
use stepcast_scheduler::placement::{Placement, Why};
use stepcast_scheduler::{Effect, Reply, State};

/// Reads `90s`, `15m`, `6h` or `90d`.
pub(crate) fn duration_ms(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => panic!("no such unit: {text}"),
    };
    number.parse::<u64>().expect("a number") * unit_ms
}

pub(crate) fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Done => "done".to_owned(),
        Reply::JobSubmitted { job } => format!("submitted {job}"),
        Reply::JobCancelled { state } => state_of(*state),
        Reply::TokenCreated { token } => format!("token {token}"),
        Reply::WorkerRegistered { worker } => format!("registered {worker}"),
        Reply::Placed { outcomes } => {
            let outcomes = outcomes.iter().map(|outcome| match outcome {
                Ok(epoch) => format!("placed, epoch {epoch}"),
                Err(dropped) => format!("dropped: {dropped:?}"),
            });
            outcomes.collect::<Vec<_>>().join("\n")
        }
        Reply::Expired { count } => format!("{count} expired"),
        Reply::Swept { count } => format!("{count} swept"),
        Reply::OrgCreated { org } => format!("organisation {org}"),
        Reply::UserCreated { user } => format!("user {user}"),
        Reply::KeyCreated { key } => format!("token {key}"),
        Reply::TeamSet { .. } => "set".to_owned(),
        Reply::ArraySubmitted { array, tasks } => format!("submitted {array} and so on: {tasks}"),
        Reply::ArrayCancelled { count } => format!("{count} cancelled"),
        Reply::Preempted { outcomes } => {
            let outcomes = outcomes.iter().map(|outcome| match outcome {
                Ok(()) => "its worker is told".to_owned(),
                Err(dropped) => format!("dropped: {dropped:?}"),
            });
            outcomes.collect::<Vec<_>>().join("\n")
        }
    }
}

pub(crate) fn effect(effect: Effect) -> String {
    match effect {
        Effect::Dispatch { worker, job, .. } => format!("dispatch {job} to {worker}"),
        Effect::Stop {
            worker, job, why, ..
        } => format!("stop {job} on {worker}: {why:?}"),
        Effect::DropStaging { .. } => "drop its files".to_owned(),
        Effect::DropCredentials { .. } => "drop its credentials".to_owned(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn placement(placement: &Placement) -> String {
    let Placement {
        job,
        attempt,
        worker,
        gpus,
        note,
        others,
    } = placement;
    let cost = note
        .cost_p50
        .map_or_else(String::new, |cost| format!(", about {cost}"));
    let others = others.iter();
    let others: String = others
        .map(|seat| format!(", {} GPU {:?}", seat.worker, seat.gpus))
        .collect();
    format!("{job} #{attempt} on {worker} GPU {gpus:?}{others}{cost}")
}

pub(crate) fn preemption(preemption: &Preemption) -> String {
    let Preemption { job, for_job, .. } = preemption;
    match for_job {
        Some(for_job) if for_job != job => format!("{job} yields to {for_job}"),
        _ => format!("{job} yields"),
    }
}

pub(crate) fn why(why: &Why) -> String {
    let mut text = match why.tier {
        Some(tier) => format!("{}: {}", tier.code(), why.headline),
        None => why.headline.clone(),
    };
    for line in &why.lines {
        let workers: Vec<&str> = line.workers.iter().map(|name| name.as_str()).collect();
        let (reason, workers) = (line.reason.code(), workers.join(", "));
        let row = format!("  {} {reason} {workers}: {}", line.count, line.detail);
        _ = write!(text, "\n{}", row.trim_end_matches([' ', ':']));
    }
    if why.tier.is_some() {
        _ = write!(text, "\n  ahead of it: {}", why.jobs_ahead);
    }
    for hint in &why.hints {
        _ = write!(text, "\n  sooner: {hint}");
    }
    text
}

pub(crate) fn job(state: &State, id: JobId) -> String {
    let Some(job) = state.job(id) else {
        return "forgotten".to_owned();
    };
    let mut text = format!(
        "{}, retries {}, lost {}",
        state_of(job.state),
        job.retries,
        job.lost_retries
    );
    for attempt in &job.attempts {
        let Some(worker) = state.worker(attempt.worker) else {
            continue;
        };
        let stands = match attempt.state {
            AttemptState::Placed => "placed".to_owned(),
            AttemptState::Running => "running".to_owned(),
            AttemptState::Ended(outcome) => outcome_of(outcome),
        };
        let (number, epoch, steps) = (attempt.number, attempt.epoch, attempt.last_step);
        _ = write!(
            text,
            "\n  #{number} epoch {epoch} on {}: {stands}, step {steps}",
            worker.name
        );
        for part in attempt.parts().filter(|_| attempt.gang.is_some()) {
            let name = state.worker(part.worker).map(|worker| worker.name.as_str());
            let name = name.unwrap_or("a worker that is gone");
            _ = write!(text, "\n    rank {} on {name}: {:?}", part.rank, part.state);
        }
        if attempt.checkpoint_step > 0 {
            _ = write!(text, ", checkpoint {}", attempt.checkpoint_step);
        }
        if !attempt.detail.is_empty() {
            _ = write!(text, " ({})", attempt.detail);
        }
    }
    for event in &job.events {
        _ = write!(
            text,
            "\n  {} {} {}",
            event.seq,
            clock(event.stamp_ms),
            event_of(event.kind)
        );
    }
    text
}

pub(crate) fn queue(state: &State) -> String {
    let line = |job: &Job| format!("{} priority {}", job.id, job.spec.priority);
    let lines: Vec<String> = state.pending().map(line).collect();
    if lines.is_empty() {
        "empty".to_owned()
    } else {
        lines.join("\n")
    }
}

pub(crate) fn teams(state: &State, now_ms: u64) -> String {
    let lines = state.teams().map(|team| {
        let (rules, usage) = (team.rules, state.usage(team.id, now_ms));
        let mut line = format!(
            "{} weight {}, {} GPUs",
            team.name,
            rules.weight,
            state.gpus_in_use(team.id)
        );
        if let Some(quota) = rules.gpu_quota {
            _ = write!(line, " of {quota}");
        }
        let (spent, reserved) = (team.spent(now_ms), state.reserved(team.id));
        _ = write!(line, ", {reserved} set aside");
        if let Some(budget) = rules.budget {
            _ = write!(line, ", {spent} of {} spent", budget.amount);
        }
        _ = write!(line, "; lately {} and {} TFLOP", usage.usd, usage.work);
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What each attempt of a job has cost by now, and at which price.
pub(crate) fn costs(state: &State, id: JobId, now_ms: u64) -> String {
    let Some(job) = state.job(id) else {
        return "forgotten".to_owned();
    };
    let attempts = job.attempts.iter().map(|attempt| {
        let price = attempt
            .price_per_hour
            .map_or_else(|| "nothing".to_owned(), |price| price.to_string());
        let (number, cost) = (attempt.number, attempt.cost(now_ms));
        format!("#{number} {cost} at {price} an hour")
    });
    let attempts: Vec<String> = attempts.collect();
    attempts.join("\n")
}

pub(crate) fn workers(state: &State) -> String {
    let lines = state.workers().map(|worker| {
        let stands = match worker.state {
            WorkerState::Present if worker.is_draining() => "draining",
            WorkerState::Present => "present",
            WorkerState::Lost { .. } => "lost",
            WorkerState::Revoked => "revoked",
        };
        let used = (0..)
            .zip(&worker.inventory.gpus)
            .filter(|(gpu, _)| state.user_of(worker.id, *gpu).is_some());
        format!(
            "{} {stands}, {} of {} GPUs used",
            worker.name,
            used.count(),
            worker.inventory.gpus.len()
        )
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        "none".to_owned()
    } else {
        lines.join("\n")
    }
}

fn state_of(state: JobState) -> String {
    match state {
        JobState::Pending => "pending".to_owned(),
        JobState::Running => "running".to_owned(),
        JobState::Cancelling => "cancelling".to_owned(),
        JobState::Succeeded => "succeeded".to_owned(),
        JobState::Failed { reason } => format!("failed {}", reason.code()),
        JobState::Cancelled => "cancelled".to_owned(),
    }
}

fn outcome_of(outcome: Outcome) -> String {
    match outcome {
        Outcome::Succeeded => "succeeded".to_owned(),
        Outcome::Failed(reason) => format!("failed {}", reason.code()),
        Outcome::Cancelled => "stopped".to_owned(),
        Outcome::LeaseExpired => "lease expired".to_owned(),
    }
}

fn event_of(kind: EventKind) -> String {
    match kind {
        EventKind::Submitted => "submitted".to_owned(),
        EventKind::Placed {
            attempt, worker, ..
        } => format!("#{attempt} placed on {worker}"),
        EventKind::Started { attempt } => format!("#{attempt} started"),
        EventKind::Checkpointed { attempt, step } => format!("#{attempt} checkpoint at {step}"),
        EventKind::CancelRequested => "cancel requested".to_owned(),
        EventKind::AttemptEnded {
            attempt,
            outcome,
            step,
        } => {
            format!("#{attempt} ended at step {step}: {}", outcome_of(outcome))
        }
        EventKind::Requeued {
            reason,
            not_before_ms,
        } => {
            format!(
                "requeued after {}, not before {}",
                reason.code(),
                clock(not_before_ms)
            )
        }
        EventKind::Succeeded => "succeeded".to_owned(),
        EventKind::Failed { reason } => format!("failed {}", reason.code()),
        EventKind::Cancelled => "cancelled".to_owned(),
        EventKind::Forgotten => "forgotten".to_owned(),
        EventKind::Approved => "approved".to_owned(),
        EventKind::Changed => "changed".to_owned(),
        EventKind::CredentialsGiven => "credentials given".to_owned(),
        EventKind::CredentialsMissing => "credentials missing".to_owned(),
        EventKind::GoesOn { attempt, step } => format!("#{attempt} goes on from {step}"),
        EventKind::PreemptRequested { attempt, for_job } => {
            let whom = for_job.map_or_else(|| "nobody".to_owned(), |job| job.to_string());
            format!("#{attempt} is to give way to {whom}")
        }
    }
}

/// Hours, minutes and seconds since the script began.
fn clock(ms: u64) -> String {
    let seconds = ms / 1_000;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}
