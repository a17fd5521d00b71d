//! Why a job does not run: a headline, and for every worker the one reason against it.

use super::feasible;
use super::forecast::ForecastSource;
use super::look::{Hosts, Look};
use super::reason::{Reason, Tier};
use super::wording::{When, Wording};
use crate::command::Placement;
use crate::ids::JobId;
use crate::model::{Job, JobState, Label, Worker};
use crate::outlook::Times;
use crate::state::State;

/// Workers and jobs named in one line: what fits on a screen. The count is of all of them.
pub const NAMED_MAX: usize = 8;

/// Changes proposed to the job's owner: the first few that come to hand are enough to choose from.
pub const HINTS_MAX: usize = 3;

/// Why a job runs or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Where the job stands.
    pub state: JobState,
    /// The first tier that applies; `None` for a job that does not wait.
    pub tier: Option<Tier>,
    /// One sentence: what it waits for.
    pub headline: String,
    /// What keeps it from running anywhere, if anything does.
    pub held: Option<Reason>,
    /// What is against each worker, by reason, the most hopeful first.
    pub lines: Vec<Line>,
    /// How many jobs get their turn before it.
    pub jobs_ahead: usize,
    /// When enough GPUs of one worker are free in nine of ten cases, by stamp, if nothing ahead takes them.
    pub free_ms: Option<u64>,
    /// What would start it now, one sentence each.
    pub hints: Vec<String>,
    /// Where it starts with the next look at the queue, if it does.
    pub placement: Option<Placement>,
}

/// The workers with the same reason against them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is against them.
    pub reason: Reason,
    /// How many they are.
    pub count: usize,
    /// What the first of them are called.
    pub workers: Vec<Label>,
    /// The first of the jobs that are in the way there.
    pub jobs: Vec<JobId>,
    /// What it means, and what clears it.
    pub detail: String,
}

/// Why a job runs or does not at `now_ms`; `None` for a job that is not there.
///
/// The queue is gone through as [`plan`](super::plan()) does, so what it says is what happens next.
#[must_use]
pub fn explain(
    state: &State,
    forecast: &dyn ForecastSource,
    job: JobId,
    now_ms: u64,
) -> Option<Why> {
    explain_expecting(state, forecast, job, now_ms, Times::default())
}

/// The same where an [outlook](crate::outlook) says when the job starts: the headline of one that waits for GPUs says that,
/// as lists of jobs do. Without one it says when GPUs are free in nine of ten cases, which is what plans go by.
#[must_use]
pub fn explain_expecting(
    state: &State,
    forecast: &dyn ForecastSource,
    job: JobId,
    now_ms: u64,
    start: Times,
) -> Option<Why> {
    let job = state.job(job)?;
    let now_ms = now_ms.max(state.newest_stamp_ms());
    let Some(job) = state
        .open_job(job.id)
        .filter(|job| job.state == JobState::Pending)
    else {
        return Some(not_waiting(state, forecast, &job));
    };
    let mut round = Look::new(state, forecast, now_ms);
    let queue = round.queue();
    let ahead = queue.iter().position(|other| *other == job.id);
    let held = round.ledger.held(job);
    let placement = round.run_until(job.id);
    // What starts before it in this look may use up what its array or its team may have at a time.
    let has_turn = placement.is_some() || round.takes_from_others(job.id);
    let held = held.or_else(|| {
        if has_turn {
            None
        } else {
            round.ledger.held(job)
        }
    });
    let wording = Wording {
        state,
        forecast,
        job,
        now_ms,
    };
    let (lines, hosts) = lines(&round, &wording, placement.as_ref());
    // A change of one worker's mind starts no gang; what would is found out by trying, see `sooner`.
    let hints = if held.is_some() || hosts.is_some() {
        Vec::new()
    } else {
        hints(&round, job)
    };
    let free_ms = round.free_ms(job).filter(|ms| *ms > now_ms);
    let tier = if placement.is_some() {
        Tier::New
    } else {
        headline_tier(held, &lines)
    };
    // What holds it on every worker alike is said like what holds it wherever.
    let nearest = lines.first().map(|line| line.reason);
    let in_the_way = match tier {
        Tier::Never => nearest,
        _ => held.or(nearest),
    };
    let mut why = Why {
        state: job.state,
        tier: Some(tier),
        headline: wording.headline(
            tier,
            in_the_way,
            placement.as_ref(),
            (When { start, free_ms }, hosts),
            round
                .ledger
                .team_in_the_way(job, in_the_way.unwrap_or(Reason::Free)),
        ),
        held,
        hints: if placement.is_some() {
            Vec::new()
        } else {
            hints
        },
        lines,
        jobs_ahead: ahead.unwrap_or(queue.len()),
        free_ms,
        placement,
    };
    if matches!(tier, Tier::Capacity | Tier::Order) {
        why.headline += &wording.share(round.late_ms(job));
    }
    if matches!(tier, Tier::Capacity | Tier::Order | Tier::New) {
        why.headline += &wording.checkpoint(why.placement.as_ref());
    }
    Some(why)
}

fn not_waiting(state: &State, forecast: &dyn ForecastSource, job: &Job) -> Why {
    let wording = Wording {
        state,
        forecast,
        job,
        now_ms: state.newest_stamp_ms(),
    };
    Why {
        state: job.state,
        tier: None,
        headline: wording.not_waiting(),
        held: None,
        lines: Vec::new(),
        jobs_ahead: 0,
        free_ms: None,
        hints: Vec::new(),
        placement: None,
    }
}

/// The most hopeful worker decides, unless the job may run nowhere yet.
fn headline_tier(held: Option<Reason>, lines: &[Line]) -> Tier {
    // Whatever a worker costs, nothing is left for it.
    if held == Some(Reason::BudgetSpent) {
        return Tier::Held;
    }
    let nearest = lines.iter().map(|line| line.reason.tier()).max();
    match nearest.unwrap_or(Tier::Never) {
        Tier::Never => Tier::Never,
        nearest => held.map_or(nearest, Reason::tier),
    }
}

/// What is against each worker, by reason, and of a gang how many hosts there are for it.
fn lines(
    round: &Look<'_>,
    wording: &Wording<'_>,
    placement: Option<&Placement>,
) -> (Vec<Line>, Option<Hosts>) {
    let mut groups: Vec<(Reason, Vec<&Worker>, Vec<JobId>)> = Vec::new();
    let is_gang = wording.job.spec.hosts() > 1;
    let gang = is_gang.then(|| round.reasons(wording.job, placement));
    for (position, slot) in round.pool.slots.iter().enumerate() {
        let Some(worker) = round.worker(slot) else {
            continue;
        };
        let reason = match &gang {
            Some((reasons, _)) => reasons[position],
            None => round.reason(wording.job, slot),
        };
        let known = groups.iter().position(|(known, ..)| *known == reason);
        let position = known.unwrap_or_else(|| {
            groups.push((reason, Vec::new(), Vec::new()));
            groups.len() - 1
        });
        let (_, workers, jobs) = &mut groups[position];
        workers.push(worker);
        let room = NAMED_MAX - jobs.len();
        match reason {
            Reason::GpusBusy => jobs.extend(wording.runs_on(worker).take(room)),
            Reason::Reserved | Reason::TakenNow => jobs.extend(slot.rivals.iter().take(room)),
            _ => {}
        }
    }
    groups.sort_by_key(|(reason, ..)| std::cmp::Reverse(*reason));
    let line = |(reason, workers, jobs): (Reason, Vec<&Worker>, Vec<JobId>)| Line {
        reason,
        count: workers.len(),
        detail: wording.detail(reason, &workers, &jobs),
        workers: workers
            .iter()
            .take(NAMED_MAX)
            .map(|worker| worker.name.clone())
            .collect(),
        jobs,
    };
    let lines = groups.into_iter().map(line).collect();
    (lines, gang.map(|(_, hosts)| hosts))
}

/// Wishes without which the job would start now: each is tried with the same rules.
fn hints(round: &Look<'_>, job: &Job) -> Vec<String> {
    let mut hints = Vec::new();
    for slot in &round.pool.slots {
        if hints.len() == HINTS_MAX {
            break;
        }
        let reason = round.reason(job, slot);
        let worker = round.worker(slot);
        let Some((other, hint)) = worker.and_then(|worker| relaxed(job, worker, reason)) else {
            continue;
        };
        let starts = round.reason(&other, slot) == Reason::Free;
        if starts && !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints
}

/// The job with one wish fewer, and how to say so.
fn relaxed(job: &Job, worker: &Worker, reason: Reason) -> Option<(Job, String)> {
    let mut other = job.clone();
    let gpu = *worker.inventory.gpus.first()?;
    let hint = match reason {
        Reason::OtherGpu if other.spec.allow.is_empty() => return None,
        Reason::OtherGpu => {
            other.spec.allow.push(gpu);
            format!("allow {gpu}")
        }
        Reason::TooLittleMemory => {
            let memory_gib = worker
                .inventory
                .gpus
                .iter()
                .map(|gpu| gpu.memory_gib())
                .max()?;
            other.spec.min_memory_gib = memory_gib;
            format!("ask for {memory_gib} GiB of GPU memory")
        }
        Reason::TooFewGpus => {
            other.spec.gpu_count = job.spec.fewer_gpus(of_one_model(worker).into())?;
            format!("ask for {} of one model", other.spec.gpu_count)
        }
        Reason::TooDear => {
            let price = feasible::least_price(job, worker)?;
            other.spec.max_price_per_hour = Some(price);
            format!("allow {price} an hour")
        }
        Reason::MissingLabel => {
            other.spec.labels.clear();
            "ask for no labels".to_owned()
        }
        _ => return None,
    };
    Some((other, hint))
}

/// The most GPUs of one model that a worker has.
fn of_one_model(worker: &Worker) -> u8 {
    let gpus = &worker.inventory.gpus;
    let count = |model| gpus.iter().filter(|gpu| **gpu == model).count();
    let most = gpus.iter().map(|gpu| count(*gpu)).max().unwrap_or(0);
    u8::try_from(most).unwrap_or(u8::MAX)
}
