//! Jobs and attempts as JSON: what SimpleTuner's client reads, and beside it what everybody else may want.

use prost_types::{Duration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use stepcast_proto::v1;

use super::wishes::JobWishes;

mod estimates;

pub(crate) use estimates::{EstimateShown, estimate};

/// A job.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct JobShown {
    /// Its id, such as `jmnpq`.
    pub(crate) id: String,
    /// Where it stands, in the words of SimpleTuner's client: `queued`, `starting`, `running`, `cancelling`, `completed`,
    /// `failed` or `cancelled`.
    pub(crate) status: &'static str,
    /// The same of its newest attempt, or of the one that is to come.
    pub(crate) current_attempt_status: &'static str,
    /// Where it stands: `PENDING`, `RUNNING`, `CANCELLING`, `SUCCEEDED`, `FAILED` or `CANCELLED`.
    pub(crate) state: String,
    /// When it was submitted (RFC 3339).
    pub(crate) created_at: Option<String>,
    /// When it was over.
    pub(crate) ended_at: Option<String>,
    /// What is trained, in one line.
    pub(crate) title: String,
    /// What its owner calls it.
    pub(crate) name: String,
    /// GPUs on each of its hosts.
    pub(crate) gpu_count: u32,
    /// On how many hosts it runs at once.
    pub(crate) hosts: u32,
    /// GPU models it may run on; empty for any GPU.
    pub(crate) allow: Vec<String>,
    /// All that it asks for.
    pub(crate) wishes: JobWishes,
    /// The sweep that it is a task of.
    pub(crate) sweep: Option<TaskShown>,
    /// When somebody approved what it costs.
    pub(crate) approved_at: Option<String>,
    /// Why it failed, such as `OUT_OF_MEMORY`; empty otherwise.
    pub(crate) failure_reason: String,
    /// The worker's last words about the failure, redacted.
    pub(crate) failure_detail: String,
    /// What its attempts have cost so far, in millionths of a US dollar.
    pub(crate) cost_usd_micros: u64,
    /// How far the running attempt is.
    pub(crate) progress: Option<ProgressShown>,
    /// What the credentials are called that its configuration needs; their values are held in memory only.
    pub(crate) credentials: Vec<String>,
    /// Whether nobody holds them any more: it does not start before they are given again.
    pub(crate) awaits_credentials: bool,
    /// What the worker is called whose results hold the checkpoint that a waiting job goes on from, where others are known to
    /// have results of their own: there it would begin anew. Empty otherwise.
    pub(crate) checkpoint_worker: String,
    /// When it is expected to start and to be done; null unless that was asked for, and while too many others ask.
    pub(crate) outlook: Option<OutlookShown>,
    /// Changes with every event of the job.
    pub(crate) etag: String,
}

/// Which task of a sweep a job is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TaskShown {
    /// The sweep's id: that of its first job.
    pub(crate) id: String,
    /// From 0.
    pub(crate) index: u32,
    /// How many tasks there are.
    pub(crate) tasks: u32,
    /// How many of them may hold GPUs at the same time.
    pub(crate) parallel: u32,
}

/// One try of a job.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AttemptShown {
    /// Its id.
    pub(crate) id: String,
    /// Which try, from 1.
    pub(crate) attempt_number: u32,
    /// Where it stands; `waiting_for_capacity` for one that is still to be placed.
    pub(crate) status: &'static str,
    /// When it got its GPUs.
    pub(crate) started_at: Option<String>,
    /// When the trainer began.
    pub(crate) training_started_at: Option<String>,
    /// When it was over.
    pub(crate) ended_at: Option<String>,
    /// Why it failed.
    pub(crate) failure_reason: Option<String>,
    /// GPU model and count, such as `h100x2`; empty for one that is still to be placed.
    pub(crate) hardware: String,
    /// What the worker is called.
    pub(crate) worker: String,
    /// What the workers are called if there are several, by rank; empty otherwise.
    pub(crate) hosts: Vec<String>,
    /// Step of its newest checkpoint; 0 for none.
    pub(crate) checkpoint_step: u64,
    /// The step that it has gone on from where that is another than was expected, 0 where it began anew; null otherwise.
    pub(crate) begun_step: Option<u64>,
    /// Last step it is known to have done.
    pub(crate) last_step: u64,
}

/// How far an attempt is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ProgressShown {
    /// Steps done.
    pub(crate) step: u64,
    /// Steps there will be; 0 while unknown.
    pub(crate) steps_total: u64,
    /// The last step's time in milliseconds.
    pub(crate) step_ms: Option<f64>,
    /// What the trainer is doing, such as `TRAINING`.
    pub(crate) phase: String,
    /// How long it still takes, in milliseconds: what was expected, corrected by its own steps.
    pub(crate) remaining_ms: Option<Points>,
}

/// When a job is expected to start and to be done (RFC 3339). What nobody has submitted yet is not in it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OutlookShown {
    /// In half of the worlds that were tried it starts no later; nothing for what runs, or if it does not start.
    pub(crate) start_time_p50: Option<String>,
    /// In nine of ten worlds it starts no later.
    pub(crate) start_time_p90: Option<String>,
    /// In half of the worlds it is done no later.
    pub(crate) finish_time_p50: Option<String>,
    /// In nine of ten worlds it is done no later.
    pub(crate) finish_time_p90: Option<String>,
    /// In how many worlds runs took other times: 1 is the middle one alone, 0 is none, for want of time.
    pub(crate) worlds: u32,
    /// What is missing, and why; empty if nothing is.
    pub(crate) note: String,
}

/// Three points of a distribution: one in ten, half, and nine in ten are below.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Points {
    pub(crate) p10: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
}

/// Something that is done.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {
    /// To what.
    pub(crate) id: String,
}

/// One thing to know.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NoteShown {
    /// A stable name.
    pub(crate) code: String,
    /// One sentence.
    pub(crate) text: String,
}

/// A job as JSON.
pub(crate) fn job(job: &v1::Job) -> JobShown {
    let wishes = job.wishes.clone().unwrap_or_default();
    let attempts = attempts(job);
    JobShown {
        id: id_of(&job.name),
        status: job_status(job.state()),
        current_attempt_status: attempts
            .last()
            .map_or(job_status(job.state()), |attempt| attempt.status),
        state: short(job.state().as_str_name(), "JOB_STATE_"),
        created_at: time(job.submit_time.as_ref()),
        ended_at: time(job.end_time.as_ref()),
        title: job.title.clone(),
        wishes: JobWishes::shown(&wishes),
        sweep: job.array_task.as_ref().map(|task| TaskShown {
            id: id_of(&task.array),
            index: task.index,
            tasks: task.tasks,
            parallel: task.parallel,
        }),
        approved_at: time(job.approve_time.as_ref()),
        name: wishes.display_name,
        gpu_count: wishes.gpu_count,
        hosts: wishes.hosts,
        allow: wishes.allow,
        failure_reason: job.failure_reason.clone(),
        failure_detail: job.failure_detail.clone(),
        cost_usd_micros: job.cost_usd_micros,
        progress: job.progress.as_ref().map(progress),
        credentials: job.credentials.clone(),
        awaits_credentials: job.awaits_credentials,
        checkpoint_worker: job.checkpoint_worker.clone(),
        outlook: job.outlook.as_ref().map(outlook),
        etag: job.etag.clone(),
    }
}

/// The attempts of a job. A job that waits after an attempt has one more, which is still to be placed: SimpleTuner's client
/// takes the newest attempt's word for the job's, and would close a job whose newest one has failed.
pub(crate) fn attempts(job: &v1::Job) -> Vec<AttemptShown> {
    let id = id_of(&job.name);
    // Of very many the oldest are forgotten, so each has its number from its name.
    let mut shown: Vec<AttemptShown> = (1..)
        .zip(&job.attempts)
        .map(|(position, one)| attempt(&id, number_of(one).unwrap_or(position), one, job))
        .collect();
    if job.state() == v1::JobState::Pending {
        let number = shown.last().map_or(1, |last| last.attempt_number + 1);
        shown.push(AttemptShown {
            status: if number == 1 {
                "queued"
            } else {
                "waiting_for_capacity"
            },
            ..waiting(&id, number)
        });
    }
    shown
}

/// Which of its job's attempts it is, from 1.
fn number_of(attempt: &v1::Attempt) -> Option<u32> {
    attempt.name.rsplit('/').next()?.parse().ok()
}

fn waiting(job: &str, number: u32) -> AttemptShown {
    AttemptShown {
        id: format!("{job}.{number}"),
        attempt_number: number,
        status: "queued",
        started_at: None,
        training_started_at: None,
        ended_at: None,
        failure_reason: None,
        hardware: String::new(),
        worker: String::new(),
        hosts: Vec::new(),
        checkpoint_step: 0,
        begun_step: None,
        last_step: 0,
    }
}

fn attempt(id: &str, number: u32, attempt: &v1::Attempt, job: &v1::Job) -> AttemptShown {
    let number = attempt
        .name
        .rsplit_once('/')
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(number);
    let status = match (attempt.state(), attempt.outcome.as_str()) {
        (v1::AttemptState::Ended, "SUCCEEDED") => "completed",
        (v1::AttemptState::Ended, "CANCELLED") => "cancelled",
        (v1::AttemptState::Ended, "PREEMPTED") => "preempted",
        (v1::AttemptState::Ended, _) => "failed",
        _ if job.state() == v1::JobState::Cancelling => "cancelling",
        (v1::AttemptState::Running, _) => "running",
        (v1::AttemptState::Placed | v1::AttemptState::Unspecified, _) => "starting",
    };
    let failed = status == "failed" || status == "preempted";
    AttemptShown {
        status,
        started_at: time(attempt.place_time.as_ref()),
        training_started_at: time(attempt.start_time.as_ref()),
        ended_at: time(attempt.end_time.as_ref()),
        failure_reason: failed.then(|| reason(attempt, job)),
        hardware: attempt.hardware.clone(),
        worker: attempt.worker_display_name.clone(),
        hosts: attempt
            .parts
            .iter()
            .map(|part| part.worker_display_name.clone())
            .collect(),
        checkpoint_step: attempt.checkpoint_step,
        begun_step: attempt.begun_step,
        last_step: attempt.last_step,
        ..waiting(id, number)
    }
}

/// Why an attempt failed, for people: with the worker's words where the job failed by it.
fn reason(attempt: &v1::Attempt, job: &v1::Job) -> String {
    let ends = job
        .attempts
        .last()
        .is_some_and(|last| last.name == attempt.name);
    if ends && !job.failure_detail.is_empty() {
        format!("{}: {}", attempt.outcome, job.failure_detail)
    } else {
        attempt.outcome.clone()
    }
}

/// How far an attempt is, as JSON.
pub(crate) fn progress(progress: &v1::Progress) -> ProgressShown {
    ProgressShown {
        step: progress.step,
        steps_total: progress.steps_total,
        // JSON has no other numbers.
        step_ms: progress.step_ms.filter(|ms| ms.is_finite()),
        phase: short(progress.phase().as_str_name(), "PHASE_"),
        remaining_ms: points(progress.remaining_time.as_ref()),
    }
}

/// When a job is expected to start and to be done, as JSON.
pub(crate) fn outlook(outlook: &v1::Outlook) -> OutlookShown {
    OutlookShown {
        start_time_p50: time(outlook.start_time_p50.as_ref()),
        start_time_p90: time(outlook.start_time_p90.as_ref()),
        finish_time_p50: time(outlook.finish_time_p50.as_ref()),
        finish_time_p90: time(outlook.finish_time_p90.as_ref()),
        worlds: outlook.worlds,
        note: outlook.note.clone(),
    }
}

/// A note as JSON.
pub(crate) fn note(note: &v1::Note) -> NoteShown {
    NoteShown {
        code: note.code.clone(),
        text: note.text.clone(),
    }
}

/// The id in a resource name.
pub(crate) fn id_of(name: &str) -> String {
    name.rsplit_once('/').map_or(name, |(_, id)| id).to_owned()
}

/// A moment as RFC 3339.
pub(crate) fn time(time: Option<&Timestamp>) -> Option<String> {
    time.map(ToString::to_string)
}

/// A name of a closed list without what stands before each of them.
pub(crate) fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

fn points(times: Option<&v1::TimeQuantiles>) -> Option<Points> {
    let ms = |time: Option<&Duration>| {
        let time = time?;
        let seconds = u64::try_from(time.seconds).ok()?;
        Some(seconds * 1_000 + u64::try_from(time.nanos).ok()? / 1_000_000)
    };
    let times = times?;
    Some(Points {
        p10: ms(times.p10.as_ref())?,
        p50: ms(times.p50.as_ref())?,
        p90: ms(times.p90.as_ref())?,
    })
}

const fn job_status(state: v1::JobState) -> &'static str {
    match state {
        v1::JobState::Unspecified | v1::JobState::Pending => "queued",
        v1::JobState::Running => "running",
        v1::JobState::Cancelling => "cancelling",
        v1::JobState::Succeeded => "completed",
        v1::JobState::Failed => "failed",
        v1::JobState::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(outcome: &str) -> v1::Attempt {
        v1::Attempt {
            name: "jobs/jmnpq/attempts/33".into(),
            state: v1::AttemptState::Ended.into(),
            outcome: outcome.into(),
            ..v1::Attempt::default()
        }
    }

    #[test]
    fn a_job_that_is_tried_again_never_looks_over() {
        for outcome in ["PREEMPTED", "LEASE_EXPIRED", "OUT_OF_MEMORY"] {
            let waits = v1::Job {
                name: "jobs/jmnpq".into(),
                state: v1::JobState::Pending.into(),
                attempts: vec![ended(outcome)],
                ..v1::Job::default()
            };
            let shown = attempts(&waits);
            assert_eq!(shown.len(), 2);
            assert_eq!(
                (shown[1].attempt_number, shown[1].status),
                (34, "waiting_for_capacity")
            );
            assert_eq!(job(&waits).current_attempt_status, "waiting_for_capacity");
        }
    }

    #[test]
    fn the_last_attempt_says_why_a_job_failed() {
        let failed = v1::Job {
            name: "jobs/jmnpq".into(),
            state: v1::JobState::Failed.into(),
            failure_detail: "no memory".into(),
            attempts: vec![ended("OUT_OF_MEMORY")],
            ..v1::Job::default()
        };
        let shown = attempts(&failed);
        assert_eq!(
            shown[0].failure_reason.as_deref(),
            Some("OUT_OF_MEMORY: no memory")
        );
        assert_eq!(
            (shown[0].status, shown[0].id.as_str()),
            ("failed", "jmnpq.33")
        );
    }
}
