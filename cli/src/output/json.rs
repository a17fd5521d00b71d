//! Answers for programs: the wire's own names, times in RFC 3339, spans in seconds, money in millionths of a dollar.

use prost_types::{Duration, Timestamp};
use serde_json::{Map, Value, json};
use stepcast_proto::v1;

use super::time;

/// A job.
pub(crate) fn job(job: &v1::Job) -> Value {
    json!({
        "job": id(&job.name),
        "name": job.name,
        "title": job.title,
        "workload": job.workload.as_ref().map(workload),
        "wishes": job.wishes.as_ref().map(wishes),
        "state": state(job),
        "failure_reason": job.failure_reason,
        "failure_detail": job.failure_detail,
        "submit_time": moment(job.submit_time.as_ref()),
        "not_before_time": moment(job.not_before_time.as_ref()),
        "end_time": moment(job.end_time.as_ref()),
        "attempts": job.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "cost_usd_micros": job.cost_usd_micros,
        "progress": job.progress.as_ref().map(progress),
        "etag": job.etag,
        "approve_time": moment(job.approve_time.as_ref()),
        "preemptions": job.preemptions,
        "reserved_usd_micros": job.reserved_usd_micros,
        "credentials": job.credentials,
        "awaits_credentials": job.awaits_credentials,
        "checkpoint_worker": job.checkpoint_worker,
        "outlook": job.outlook.as_ref().map(outlook),
        "array_task": job.array_task.as_ref().map(|part| json!({
            "array": id(&part.array), "index": part.index, "tasks": part.tasks, "parallel": part.parallel,
        })),
    })
}

/// The last part of a resource name: `4f2a` of `jobs/4f2a`.
pub(crate) fn id(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A name of an enum without its prefix.
fn bare<'name>(name: &'name str, prefix: &str) -> &'name str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// A job's state: `PENDING`, `RUNNING`, ...
pub(crate) fn state(job: &v1::Job) -> &'static str {
    bare(job.state().as_str_name(), "JOB_STATE_")
}

/// An estimate.
pub(crate) fn estimate(estimate: &v1::Estimate) -> Value {
    json!({
        "hardware": estimate.hardware,
        "hardware_title": estimate.hardware_title,
        "basis": bare(estimate.basis().as_str_name(), "BASIS_"),
        "rows": estimate.rows,
        "steps_observed": estimate.steps_observed,
        "step_time_s": quantiles(estimate.step_time.as_ref()),
        "train_time_s": quantiles(estimate.train_time.as_ref()),
        "validation_time_s": quantiles(estimate.validation_time.as_ref()),
        "run_time_s": quantiles(estimate.run_time.as_ref()),
        "setup_time_s": quantiles(estimate.setup_time.as_ref()),
        "whole_time_s": quantiles(estimate.whole_time.as_ref()),
        "phases": estimate.phases.iter().map(phase).collect::<Vec<_>>(),
        "memory": estimate.memory.as_ref().map(|memory| json!({
            "need_mib": { "p10": memory.p10_mib, "p50": memory.p50_mib, "p90": memory.p90_mib },
            "gpu_mib": memory.gpu_mib,
            "basis": bare(memory.basis().as_str_name(), "BASIS_"),
            "fit": bare(memory.fit().as_str_name(), "MEMORY_FIT_"),
            "phase": bare(memory.phase().as_str_name(), "ESTIMATE_PHASE_KIND_"),
        })),
        "cost_usd_micros": estimate.cost.as_ref().map(money),
        "whole_cost_usd_micros": estimate.whole_cost.as_ref().map(money),
        "price_per_hour_usd_micros": estimate.price_per_hour_usd_micros,
        "dominated": estimate.dominated,
        "headline": estimate.headline,
        "notes": notes(&estimate.notes),
    })
}

fn money(cost: &v1::CostQuantiles) -> Value {
    json!({
        "p10": cost.p10_usd_micros, "p50": cost.p50_usd_micros, "p90": cost.p90_usd_micros,
    })
}

fn phase(phase: &v1::EstimatePhase) -> Value {
    json!({
        "kind": bare(phase.kind().as_str_name(), "ESTIMATE_PHASE_KIND_"),
        "half_megapixels": phase.half_megapixels,
        "count": phase.count,
        "time_s": quantiles(phase.time.as_ref()),
        "basis": bare(phase.basis().as_str_name(), "BASIS_"),
        "rows": phase.rows,
        "observed": phase.observed,
    })
}

/// Notes.
pub(crate) fn notes(notes: &[v1::Note]) -> Value {
    notes
        .iter()
        .map(|note| json!({ "code": note.code, "text": note.text }))
        .collect()
}

/// A workload.
pub(crate) fn workload(workload: &v1::Workload) -> Value {
    let (steps, epochs) = match workload.length {
        Some(v1::workload::Length::MaxTrainSteps(steps)) => (Some(steps), None),
        Some(v1::workload::Length::NumTrainEpochs(epochs)) => (None, Some(epochs)),
        None => (None, None),
    };
    json!({
        "recipe": workload.recipe,
        "precision": workload.precision,
        "quantization": workload.quantization,
        "gradient_accumulation_steps": workload.gradient_accumulation_steps,
        "context_parallel_size": workload.context_parallel_size,
        "datasets": workload.datasets.iter().map(|dataset| json!({
            "half_megapixels": dataset.half_megapixels,
            "batch_size": dataset.batch_size,
            "samples": dataset.samples,
            "repeats": dataset.repeats,
            "frames": dataset.frames,
            "padded": dataset.padded,
            "chance_millionths": dataset.chance_millionths,
            "undivided": dataset.undivided,
        })).collect::<Vec<_>>(),
        "max_train_steps": steps,
        "num_train_epochs": epochs,
        "checkpoint_step_interval": workload.checkpoint_step_interval,
        "validation": workload.validation.as_ref().map(validation),
        "off_record": workload.off_record,
        "uniform_sampling": workload.uniform_sampling,
        "held_out": workload.held_out.as_ref().map(|set| json!({
            "batch_size": set.batch_size,
            "samples": set.samples,
            "repeats": set.repeats,
        })),
    })
}

fn validation(validation: &v1::Validation) -> Value {
    json!({
        "step_interval": validation.step_interval,
        "epoch_interval": validation.epoch_interval,
        "at_start": validation.at_start,
        "baseline": validation.baseline,
        "generations": validation.generations,
        "half_megapixels": validation.half_megapixels,
        "inference_steps": validation.inference_steps,
        "frames": validation.frames,
        "after_step": validation.after_step,
        "after_epoch": validation.after_epoch,
        "prompts_dealt_out": validation.prompts_dealt_out,
    })
}

fn wishes(wishes: &v1::JobWishes) -> Value {
    json!({
        "display_name": wishes.display_name,
        "gpu_count": wishes.gpu_count,
        "hosts": wishes.hosts,
        "allow": wishes.allow,
        "min_memory_gib": wishes.min_memory_gib,
        "labels": labels(&wishes.labels),
        "objective": bare(wishes.objective().as_str_name(), "OBJECTIVE_"),
        "max_price_per_hour_usd_micros": wishes.max_price_per_hour_usd_micros,
        "max_cost_usd_micros": wishes.max_cost_usd_micros,
        "max_runtime_s": wishes.max_runtime.as_ref().map(time::seconds),
        "priority": wishes.priority,
        "retry_limit": wishes.retry_limit,
        "trainer": bare(wishes.trainer().as_str_name(), "TRAINER_"),
        "team": wishes.team.trim_start_matches("teams/"),
        "not_before_time": moment(wishes.not_before_time.as_ref()),
        "finish_by_time": moment(wishes.finish_by_time.as_ref()),
        "avoid_labels": labels(&wishes.avoid_labels),
        "spread_key": wishes.spread_key,
        "min_run_s": wishes.min_run_time.as_ref().map(time::seconds),
        "preemptions_max": wishes.preemptions_max,
    })
}

/// Labels, by name.
fn labels(labels: &std::collections::HashMap<String, String>) -> Value {
    let sorted: std::collections::BTreeMap<_, _> = labels.iter().collect();
    Value::Object(
        sorted
            .into_iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect::<Map<_, _>>(),
    )
}

fn attempt(attempt: &v1::Attempt) -> Value {
    json!({
        "attempt": id(&attempt.name).parse::<u64>().ok(),
        "name": attempt.name,
        "epoch": attempt.epoch,
        "worker": attempt.worker,
        "worker_display_name": attempt.worker_display_name,
        "hardware": attempt.hardware,
        "gpus": attempt.gpus,
        "parts": attempt.parts.iter().map(part).collect::<Vec<_>>(),
        "state": bare(attempt.state().as_str_name(), "ATTEMPT_STATE_"),
        "outcome": attempt.outcome,
        "place_time": moment(attempt.place_time.as_ref()),
        "start_time": moment(attempt.start_time.as_ref()),
        "end_time": moment(attempt.end_time.as_ref()),
        "begun_step": attempt.begun_step,
        "checkpoint_step": attempt.checkpoint_step,
        "last_step": attempt.last_step,
        "price_per_hour_usd_micros": attempt.price_per_hour_usd_micros,
        "expected_p50_s": attempt.expected_p50.as_ref().map(time::seconds),
        "expected_p90_s": attempt.expected_p90.as_ref().map(time::seconds),
    })
}

/// One host's part of an attempt.
fn part(part: &v1::AttemptPart) -> Value {
    json!({
        "worker": part.worker,
        "worker_display_name": part.worker_display_name,
        "gpus": part.gpus,
        "state": bare(part.state().as_str_name(), "ATTEMPT_STATE_"),
    })
}

/// How far an attempt is.
pub(crate) fn progress(progress: &v1::Progress) -> Value {
    json!({
        "epoch": progress.epoch,
        "step": progress.step,
        "steps_total": progress.steps_total,
        "step_ms": progress.step_ms,
        "phase": bare(progress.phase().as_str_name(), "PHASE_"),
        "remaining_time_s": quantiles(progress.remaining_time.as_ref()),
    })
}

/// Something that has happened to a job.
pub(crate) fn event(event: &v1::JobEvent) -> Value {
    json!({
        "seq": event.seq,
        "time": moment(event.time.as_ref()),
        "kind": event.kind,
        "attempt": event.attempt,
        "epoch": event.epoch,
        "worker": event.worker,
        "worker_display_name": event.worker_display_name,
        "step": event.step,
        "reason": event.reason,
        "state": bare(event.state().as_str_name(), "JOB_STATE_"),
    })
}

/// Why a job waits.
pub(crate) fn why(job: &str, why: &v1::ExplainJobResponse) -> Value {
    json!({
        "job": job,
        "tier": bare(why.tier().as_str_name(), "WHY_TIER_"),
        "headline": why.headline,
        "lines": why.lines.iter().map(|line| json!({
            "count": line.count, "reason": line.reason, "workers": line.workers, "detail": line.detail,
        })).collect::<Vec<_>>(),
        "jobs_ahead": why.jobs_ahead,
        "hints": why.hints,
        "outlook": why.outlook.as_ref().map(outlook),
        "sooner": why.sooner.iter().map(|sooner| json!({
            "text": sooner.text, "command": sooner.command, "worker": sooner.worker,
            "cost_usd_micros": sooner.cost_usd_micros, "by": sooner.by,
        })).collect::<Vec<_>>(),
    })
}

/// When a job is expected to start and to be done.
pub(crate) fn outlook(outlook: &v1::Outlook) -> Value {
    json!({
        "start_time_p50": moment(outlook.start_time_p50.as_ref()),
        "start_time_p90": moment(outlook.start_time_p90.as_ref()),
        "finish_time_p50": moment(outlook.finish_time_p50.as_ref()),
        "finish_time_p90": moment(outlook.finish_time_p90.as_ref()),
        "worlds": outlook.worlds,
        "note": outlook.note,
    })
}

/// A worker.
pub(crate) fn worker(worker: &v1::Worker) -> Value {
    json!({
        "worker": id(&worker.name),
        "name": worker.name,
        "display_name": worker.display_name,
        "state": bare(worker.state().as_str_name(), "WORKER_STATE_"),
        "gpus": worker.gpus.iter().map(|gpu| json!({
            "model": gpu.model, "title": gpu.title, "job": gpu.job,
            "price_per_hour_usd_micros": gpu.price_per_hour_usd_micros,
        })).collect::<Vec<_>>(),
        "labels": labels(&worker.labels),
        "price_per_gpu_hour_usd_micros": worker.price_per_gpu_hour_usd_micros,
        "price_from_book": worker.price_from_book,
        "register_time": moment(worker.register_time.as_ref()),
        "since_time": moment(worker.since_time.as_ref()),
        "attached": worker.attached,
        "gang_address": worker.gang_address,
    })
}

/// A worker's token, without its secret.
pub(crate) fn token(token: &v1::WorkerToken) -> Value {
    json!({
        "token": id(&token.name),
        "name": token.name,
        "display_name": token.display_name,
        "create_time": moment(token.create_time.as_ref()),
        "worker": token.worker,
    })
}

/// A moment, or null.
pub(crate) fn moment(at: Option<&Timestamp>) -> Value {
    at.and_then(time::rfc3339)
        .map_or(Value::Null, Value::String)
}

/// A span in seconds, or null.
pub(crate) fn span(span: Option<&Duration>) -> Value {
    span.map_or(Value::Null, |span| json!(time::seconds(span)))
}

fn quantiles(times: Option<&v1::TimeQuantiles>) -> Value {
    times.map_or(Value::Null, |times| {
        json!({ "p10": span(times.p10.as_ref()), "p50": span(times.p50.as_ref()), "p90": span(times.p90.as_ref()) })
    })
}
