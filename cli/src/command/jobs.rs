//! `stepcast jobs`: every job at a glance.

use clap::{Args, ValueEnum};
use serde_json::json;
use stepcast_proto::v1::{Attempt, Job, JobState, ListJobsRequest, ListJobsResponse};

use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{count, dollars};
use crate::output::progress::{bar, percent};
use crate::output::style::Tone;
use crate::output::table::{Cell, Side, Table};
use crate::output::{json, time};

/// Jobs on a page of the answer.
const PAGE: u32 = 1000;

/// Lists jobs, newest first.
///
/// Example: stepcast jobs --state running
#[derive(Debug, Args)]
pub(crate) struct Jobs {
    /// Only jobs in this state; may be given several times
    #[arg(long = "state", value_enum)]
    states: Vec<State>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    Pending,
    Running,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
}

impl From<State> for JobState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Running => Self::Running,
            State::Cancelling => Self::Cancelling,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

const COLUMNS: [(&str, Side); 9] = [
    ("JOB", Side::Left),
    ("NAME", Side::Left),
    ("STATE", Side::Left),
    ("ON", Side::Left),
    ("PROGRESS", Side::Left),
    ("s/STEP", Side::Right),
    ("LEFT", Side::Right),
    ("COST", Side::Right),
    ("AGE", Side::Right),
];

impl Jobs {
    /// Asks and shows.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.connect().await?;
        let states = self
            .states
            .iter()
            .map(|state| JobState::from(*state).into())
            .collect();
        let (jobs, more) = list(&client, states, self.limit).await?;
        let output = &context.output;
        if output.json {
            return output.json(
                &json!({ "jobs": jobs.iter().map(json::job).collect::<Vec<_>>(), "more": more }),
            );
        }
        if jobs.is_empty() {
            output.say("No jobs.");
            output.next("stepcast submit PATH");
            return Ok(());
        }
        let mut table = Table::new(&COLUMNS);
        jobs.iter().for_each(|job| table.row(row(job)));
        output.table(&table)?;
        output.say(summary(&jobs, more));
        if let Some(waits) = jobs.iter().find(|job| job.state() == JobState::Pending) {
            output.next(format!("stepcast job why {}", json::id(&waits.name)));
        } else if let Some(runs) = jobs.iter().find(|job| job.state() == JobState::Running) {
            output.next(format!("stepcast job watch {}", json::id(&runs.name)));
        }
        Ok(())
    }
}

async fn list(client: &Client, states: Vec<i32>, limit: u32) -> Result<(Vec<Job>, bool), Failure> {
    pages(limit, async |page_size, page_token| {
        let message = ListJobsRequest {
            page_size,
            page_token,
            states: states.clone(),
            with_outlook: true,
        };
        let answer = client.ask(|| {
            let request = timed(message.clone());
            let mut service = client.jobs();
            async move { service.list_jobs(request).await }
        });
        answer.await
    })
    .await
}

/// Jobs of one page after the other until there are enough or no more, and whether there are more. A page may be empty and
/// not the last: a server looks at so many jobs for each, and they may all be of others. Each goes on further down, so this
/// ends with the jobs that the server keeps.
async fn pages(
    limit: u32,
    mut page: impl AsyncFnMut(u32, String) -> Result<ListJobsResponse, Failure>,
) -> Result<(Vec<Job>, bool), Failure> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut page_token = String::new();
    loop {
        let left = limit - u32::try_from(jobs.len()).unwrap_or(limit);
        let answer = page(left.min(PAGE), page_token).await?;
        jobs.extend(answer.jobs);
        page_token = answer.next_page_token;
        if page_token.is_empty() || jobs.len() >= limit as usize {
            jobs.truncate(limit as usize);
            return Ok((jobs, !page_token.is_empty()));
        }
    }
}

/// What a job has cost so far. Where its workers have no price nobody knows, and it is not nothing.
pub(super) fn cost(job: &Job) -> String {
    if job.cost_usd_micros > 0 {
        dollars(job.cost_usd_micros)
    } else {
        "-".to_owned()
    }
}

fn row(job: &Job) -> Vec<Cell> {
    let attempt = job.attempts.last();
    let name = job
        .wishes
        .as_ref()
        .map(|wishes| wishes.display_name.as_str())
        .filter(|name| !name.is_empty());
    let step = job
        .progress
        .as_ref()
        .and_then(|progress| progress.step_ms)
        .map(|ms| time::step(ms / 1e3));
    vec![
        Cell::toned(json::id(&job.name), Tone::Strong),
        name.unwrap_or(&job.title).into(),
        Cell::toned(state_words(job), tone(job.state())),
        place(job, attempt).into(),
        doing(job, attempt).into(),
        step.unwrap_or_else(|| "-".to_owned()).into(),
        left(job)
            .map_or_else(|| "-".to_owned(), time::rough_span)
            .into(),
        cost(job).into(),
        time::age(job.submit_time.as_ref()).into(),
    ]
}

/// Where a job stands, in words.
pub(crate) fn state_words(job: &Job) -> String {
    if job.awaits_credentials {
        return "awaiting credentials".to_owned();
    }
    words(json::state(job))
}

/// The colour of a state.
pub(crate) fn tone(state: JobState) -> Tone {
    match state {
        JobState::Succeeded => Tone::Good,
        JobState::Failed => Tone::Bad,
        JobState::Cancelling => Tone::Warn,
        JobState::Cancelled => Tone::Dim,
        _ => Tone::Plain,
    }
}

/// Where it runs or ran: worker and GPUs.
fn place(job: &Job, attempt: Option<&Attempt>) -> String {
    match (job.state(), attempt) {
        (JobState::Pending, None) | (_, None) => String::new(),
        (JobState::Pending, Some(attempt)) => format!("attempt {}", number(attempt) + 1),
        (_, Some(attempt)) => {
            let more = match attempt.parts.len() {
                0 | 1 => String::new(),
                hosts => format!(" and {} more", hosts - 1),
            };
            format!("{}{more} x{}", worker(attempt), attempt.gpus.len().max(1))
        }
    }
}

/// What people call an attempt's worker.
pub(crate) fn worker(attempt: &Attempt) -> &str {
    if attempt.worker_display_name.is_empty() {
        json::id(&attempt.worker)
    } else {
        &attempt.worker_display_name
    }
}

/// Which try it is, from 1.
pub(crate) fn number(attempt: &Attempt) -> u64 {
    json::id(&attempt.name).parse().unwrap_or(0)
}

fn doing(job: &Job, attempt: Option<&Attempt>) -> String {
    match job.state() {
        JobState::Pending => match attempt {
            Some(attempt) if attempt.checkpoint_step > 0 => {
                format!(
                    "goes on from step {}{}{}",
                    count(attempt.checkpoint_step),
                    only_on(job),
                    starts(job)
                )
            }
            Some(attempt) => format!(
                "tried again{} after {}",
                starts(job),
                words(&attempt.outcome)
            ),
            None if starts(job).is_empty() => "waits".to_owned(),
            None => format!("starts{}", starts(job)),
        },
        JobState::Failed => words(&job.failure_reason),
        JobState::Succeeded | JobState::Cancelled => attempt
            .map(|attempt| format!("{} steps", count(attempt.last_step)))
            .unwrap_or_default(),
        _ => match &job.progress {
            // After the last step a full bar would hide that it still validates or saves.
            Some(progress) if progress.step > 0 && progress.step < progress.steps_total => {
                let part = percent(progress.step, progress.steps_total);
                format!("{} {part:>2}%", bar(progress.step, progress.steps_total))
            }
            Some(progress) => phase_words(progress.phase()).to_owned(),
            None => "starting".to_owned(),
        },
    }
}

/// Where alone a waiting job goes on from its checkpoint: ` on host`, or nothing.
fn only_on(job: &Job) -> String {
    match job.checkpoint_worker.as_str() {
        "" => String::new(),
        worker => format!(" on {worker}"),
    }
}

/// When it is expected to start: ` about 16:00`, or nothing.
fn starts(job: &Job) -> String {
    let outlook = job.outlook.as_ref();
    let start = outlook.and_then(|outlook| time::clock_at(outlook.start_time_p50.as_ref()?));
    start.map_or_else(String::new, |start| format!(" about {start}"))
}

/// A stable name as words: `OUT_OF_MEMORY` is `out of memory`.
pub(crate) fn words(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', " ")
}

/// What a trainer is doing.
pub(crate) fn phase_words(phase: stepcast_proto::v1::Phase) -> &'static str {
    use stepcast_proto::v1::Phase;
    match phase {
        Phase::Unspecified | Phase::Starting => "starting",
        Phase::Caching => "caching",
        Phase::Loading => "loading the model",
        Phase::Training => "training",
        Phase::Validating => "validating",
        Phase::Saving => "saving",
        Phase::Complete => "complete",
    }
}

/// Seconds left, as the leader tells it. It does not know at first: the step that has been done by then warms up, and says
/// nothing of the others.
pub(crate) fn left(job: &Job) -> Option<f64> {
    let progress = job
        .progress
        .as_ref()
        .filter(|_| job.state() == JobState::Running)?;
    let times = progress.remaining_time.as_ref()?;
    let left = time::seconds(times.p50.as_ref()?);
    (left > 0.0).then_some(left)
}

/// What is left with its interval: `25m (22m-31m)`.
pub(crate) fn left_range(job: &Job) -> Option<String> {
    let left = time::rough_span(left(job)?);
    let times = job.progress.as_ref()?.remaining_time.as_ref();
    let range = times.and_then(|times| times.p10.zip(times.p90));
    Some(match range {
        Some((low, high)) => format!(
            "{left} ({}-{})",
            time::short_span(time::seconds(&low)),
            time::short_span(time::seconds(&high))
        ),
        None => left,
    })
}

fn summary(jobs: &[Job], more: bool) -> String {
    let states = [
        (JobState::Running, "running"),
        (JobState::Pending, "pending"),
        (JobState::Cancelling, "cancelling"),
        (JobState::Succeeded, "succeeded"),
        (JobState::Failed, "failed"),
        (JobState::Cancelled, "cancelled"),
    ];
    let counts = states.iter().map(|(state, name)| {
        (
            jobs.iter().filter(|job| job.state() == *state).count(),
            name,
        )
    });
    let counts: Vec<String> = counts
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let more = if more {
        " (older ones are left out: --limit)"
    } else {
        ""
    };
    format!(
        "{} job{}: {}{more}",
        jobs.len(),
        if jobs.len() == 1 { "" } else { "s" },
        counts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepcast_proto::v1::Progress;

    fn running() -> Job {
        Job {
            name: "jobs/4f2a".to_owned(),
            state: JobState::Running.into(),
            progress: Some(Progress {
                step: 1650,
                steps_total: 3000,
                step_ms: Some(1410.0),
                ..Progress::default()
            }),
            attempts: vec![Attempt {
                name: "jobs/4f2a/attempts/1".to_owned(),
                worker: "workers/w1".to_owned(),
                gpus: vec![0],
                ..Attempt::default()
            }],
            ..Job::default()
        }
    }

    #[tokio::test]
    async fn an_empty_page_is_not_the_last() {
        let answer = |jobs, token: &str| ListJobsResponse {
            jobs,
            next_page_token: token.to_owned(),
        };
        let mut answers = vec![
            answer(vec![running()], ""),
            answer(Vec::new(), "b"),
            answer(Vec::new(), "a"),
        ];
        let mut asked = Vec::new();
        let found = pages(50, async |size, token| {
            asked.push((size, token));
            Ok(answers.pop().expect("no page behind the last"))
        });
        let (jobs, more) = found.await.expect("answered");
        assert_eq!((jobs, more), (vec![running()], false));
        let tokens = ["", "a", "b"].map(|token| (50, token.to_owned()));
        assert_eq!(asked, tokens);
    }

    #[test]
    fn a_running_job_shows_how_far_it_is() {
        let job = running();
        assert_eq!(
            doing(&job, job.attempts.last()),
            "[###########.........] 55%"
        );
        assert_eq!(place(&job, job.attempts.last()), "w1 x1");
        assert_eq!(left(&job), None, "the leader does not know");
    }

    #[test]
    fn what_the_leader_says_is_left_counts() {
        let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let mut job = running();
        let progress = job.progress.as_mut().expect("given");
        progress.remaining_time = Some(stepcast_proto::v1::TimeQuantiles {
            p10: span(1_300),
            p50: span(1_500),
            p90: span(5_000),
        });
        assert_eq!(left(&job), Some(1_500.0));
        assert_eq!(left_range(&job).as_deref(), Some("25m (22m-1h23)"));
        job.state = JobState::Succeeded.into();
        assert_eq!(left_range(&job), None);
    }

    #[test]
    fn after_the_last_step_a_job_says_what_it_still_does() {
        let mut job = running();
        let progress = job.progress.as_mut().expect("given");
        progress.step = progress.steps_total;
        progress.phase = stepcast_proto::v1::Phase::Validating.into();
        assert_eq!(doing(&job, job.attempts.last()), "validating");
        assert_eq!(left(&job), None);
    }

    #[test]
    fn a_cancelled_job_says_how_far_it_came() {
        let mut job = running();
        job.state = JobState::Cancelled.into();
        job.progress = None;
        job.attempts[0].last_step = 17;
        assert_eq!(doing(&job, job.attempts.last()), "17 steps");
        assert_eq!(doing(&job, None), "");
    }

    #[test]
    fn a_retry_says_what_it_goes_on_from() {
        let mut job = running();
        job.state = JobState::Pending.into();
        job.attempts[0].outcome = "LEASE_EXPIRED".to_owned();
        assert_eq!(place(&job, job.attempts.last()), "attempt 2");
        assert_eq!(
            doing(&job, job.attempts.last()),
            "tried again after lease expired"
        );
        job.attempts[0].checkpoint_step = 1200;
        assert_eq!(doing(&job, job.attempts.last()), "goes on from step 1,200");
        job.checkpoint_worker = "lab-1".to_owned();
        assert_eq!(
            doing(&job, job.attempts.last()),
            "goes on from step 1,200 on lab-1"
        );
    }

    #[test]
    fn what_waits_says_when_it_starts() {
        let mut job = Job {
            state: JobState::Pending.into(),
            outlook: Some(stepcast_proto::v1::Outlook {
                start_time_p50: Some(std::time::SystemTime::now().into()),
                ..stepcast_proto::v1::Outlook::default()
            }),
            ..Job::default()
        };
        let says = doing(&job, None);
        assert!(
            says.starts_with("starts about ") && says.contains(':'),
            "{says}"
        );
        job.outlook = None;
        assert_eq!(doing(&job, None), "waits");
    }

    #[test]
    fn the_summary_counts_by_state() {
        assert_eq!(summary(&[running(), running()], false), "2 jobs: 2 running");
    }
}
