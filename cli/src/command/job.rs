//! `stepcast job`: one job looked at, watched, explained or cancelled.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;
use stepcast_proto::v1::{Attempt, GetJobLogsRequest, GetJobRequest, Job as Wire, JobState};

use super::jobs::{self, number, words, worker};
use super::{credentials, update, watch, why};
use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::money::{count, counted};
use crate::output::style::Tone;
use crate::output::table::{Cell, Side, Table};
use crate::output::{json, time};

/// What can be done with one job.
#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Shows one job with its attempts
    Show(Named),
    /// Follows a job to its end; exit code 1 unless it succeeds
    Watch {
        #[command(flatten)]
        job: Named,
        /// Show the trainer's lines too
        #[arg(long)]
        logs: bool,
    },
    /// Prints the newest lines of the trainer, at most 500; what it prints beyond its first 768 KiB comes when it has ended
    Logs(Named),
    /// Ends a job: at once while it waits, when its worker confirms while it runs
    Cancel {
        #[command(flatten)]
        job: Named,
        /// Wait until it is over
        #[arg(long, conflicts_with = "array")]
        wait: bool,
        /// End the whole array that the job is a task of
        #[arg(long)]
        array: bool,
    },
    /// Has a waiting job ask for something else
    Update {
        #[command(flatten)]
        job: Named,
        #[command(flatten)]
        changes: Box<update::Changes>,
    },
    /// Lets a job cost what it costs, where its team wants somebody's word for it
    Approve {
        #[command(flatten)]
        job: Named,
        /// Only if it is as it was seen: the etag that `stepcast job show --json` told
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        etag: Option<String>,
    },
    /// Gives a waiting job its credentials again, or says which it needs
    Credentials(credentials::Credentials),
    /// Says why a job does not run
    #[command(visible_alias = "why-pending")]
    Why(Named),
}

/// Which job.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The job's id, as `stepcast jobs` shows it
    #[arg(value_name = "JOB", value_parser = job_name)]
    name: String,
}

impl Named {
    /// `jobs/{job}`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// The resource name of a job that a person names by its id.
pub(super) fn job_name(text: &str) -> Result<String, String> {
    let id = text.strip_prefix("jobs/").unwrap_or(text);
    let fits = !id.is_empty()
        && id.len() <= 64
        && id
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    if fits {
        Ok(format!("jobs/{id}"))
    } else {
        Err("a job's id has letters and digits only".to_owned())
    }
}

impl Job {
    /// Does it.
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let client = context.connect().await?;
        match self {
            Self::Show(job) => show(context, &asked(&client, &job.name, true).await?)?,
            Self::Watch { job, logs } => {
                let code = watch::until_end(context, &client, &job.name, logs).await?;
                context
                    .output
                    .next(format!("stepcast job show {}", json::id(&job.name)));
                return Ok(code);
            }
            Self::Logs(job) => logs(context, &client, &job.name).await?,
            Self::Cancel {
                job, array: true, ..
            } => update::cancel_array(context, &client, &job.name).await?,
            Self::Update { job, changes } => {
                update::update(context, &client, &job.name, &changes).await?;
            }
            Self::Approve { job, etag } => {
                update::approve(context, &client, &job.name, etag.as_deref()).await?;
            }
            Self::Cancel { job, wait, .. } => {
                let state = update::cancel(context, &client, &job.name).await?;
                if wait && state != JobState::Cancelled {
                    watch::until_cancelled(context, &client, &job.name).await?;
                }
            }
            Self::Credentials(credentials) => credentials.run(context, &client).await?,
            Self::Why(job) => why::why(context, &client, &job.name).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// One job.
pub(crate) async fn get(client: &Client, name: &str) -> Result<Wire, Failure> {
    asked(client, name, false).await
}

/// One job, and when it is expected to start and to be done if that is wanted.
async fn asked(client: &Client, name: &str, with_outlook: bool) -> Result<Wire, Failure> {
    let answer = client.ask(|| {
        let request = timed(GetJobRequest {
            name: name.to_owned(),
            with_outlook,
        });
        let mut service = client.jobs();
        async move { service.get_job(request).await }
    });
    answer.await?.job.ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!("there is no job {}", json::id(name)),
        )
    })
}

fn show(context: &Context, job: &Wire) -> Result<(), Failure> {
    let output = &context.output;
    if output.json {
        return output.json(&json::job(job));
    }
    output.data(&facts(job))?;
    if !job.attempts.is_empty() {
        output.say("");
        output.table(&attempts(job))?;
    }
    if let Some(attempt) = job
        .attempts
        .last()
        .filter(|attempt| !attempt.parts.is_empty())
    {
        output.say("");
        output.table(&parts(attempt))?;
    }
    let id = json::id(&job.name);
    output.next(match job.state() {
        JobState::Pending => format!("stepcast job why {id}"),
        JobState::Running | JobState::Cancelling => format!("stepcast job watch {id}"),
        JobState::Failed => format!("stepcast job logs {id}"),
        _ => "stepcast jobs".to_owned(),
    });
    Ok(())
}

/// What is known of a job, a line for each.
fn facts(job: &Wire) -> String {
    let mut text = String::new();
    let id = json::id(&job.name);
    let wishes = job.wishes.clone().unwrap_or_default();
    let state = jobs::tone(job.state()).paint(&jobs::state_words(job));
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<11} {value}\n"));
        }
    };
    line("job", Tone::Strong.paint(id));
    line("name", wishes.display_name);
    line("what", job.title.clone());
    line("state", state);
    line("submitted", time::day_and_clock(job.submit_time.as_ref()));
    if job.end_time.is_some() {
        line("ended", time::day_and_clock(job.end_time.as_ref()));
    }
    line("credentials", job.credentials.join(", "));
    if job.not_before_time.is_some() && job.state() == JobState::Pending {
        line(
            "not before",
            time::day_and_clock(job.not_before_time.as_ref()),
        );
    }
    if let Some(part) = &job.array_task {
        let of = format!("{} of {}", part.index + 1, part.tasks);
        line("task", format!("{of} of array {}", json::id(&part.array)));
    }
    if wishes.hosts > 1 {
        line("hosts", wishes.hosts.to_string());
    }
    line("team", wishes.team.trim_start_matches("teams/").to_owned());
    if wishes.finish_by_time.is_some() {
        line(
            "done by",
            time::day_and_clock(wishes.finish_by_time.as_ref()),
        );
    }
    if job.approve_time.is_some() {
        line("approved", time::day_and_clock(job.approve_time.as_ref()));
    }
    if job.preemptions > 0 {
        line("yielded", counted(job.preemptions.into(), "time", "times"));
    }
    if !job.checkpoint_worker.is_empty() {
        let worker = &job.checkpoint_worker;
        line(
            "goes on",
            format!("only where the results of {worker} are; elsewhere it begins anew"),
        );
    }
    line("cost", jobs::cost(job));
    if let Some(outlook) = &job.outlook {
        let (start, finish) = (&outlook.start_time_p50, &outlook.finish_time_p50);
        line("starts", why::about(start, &outlook.start_time_p90));
        line("done", why::about(finish, &outlook.finish_time_p90));
    }
    if let Some(progress) = job
        .progress
        .as_ref()
        .filter(|_| job.state() == JobState::Running)
    {
        let mut doing = jobs::phase_words(progress.phase()).to_owned();
        // How many steps there are is only known once the trainer has counted its data.
        if progress.steps_total > 0 {
            let (step, total) = (count(progress.step), count(progress.steps_total));
            doing.push_str(&format!(", step {step} of {total}"));
        }
        line("doing", doing);
        let begun = job.attempts.last().and_then(|attempt| attempt.begun_step);
        line("begun", begun.map(begun_at).unwrap_or_default());
        line("left", jobs::left_range(job).unwrap_or_default());
    }
    line("failed by", words(&job.failure_reason));
    line(
        "last words",
        job.failure_detail.replace('\n', "\n              "),
    );
    text
}

/// Where a run has begun whose worker does not have what was saved elsewhere.
fn begun_at(step: u64) -> String {
    match step {
        0 => "anew: its worker has no checkpoint of it".to_owned(),
        _ => format!(
            "at step {}: its worker has no newer checkpoint",
            count(step)
        ),
    }
}

fn attempts(job: &Wire) -> Table {
    let mut table = Table::new(&[
        ("ATTEMPT", Side::Right),
        ("WORKER", Side::Left),
        ("HARDWARE", Side::Left),
        ("STATE", Side::Left),
        ("STEP", Side::Right),
        ("CHECKPOINT", Side::Right),
        ("TOOK", Side::Right),
        ("EXPECTED", Side::Right),
    ]);
    for attempt in &job.attempts {
        let state = match attempt.outcome.as_str() {
            "" => Cell::toned(
                words(
                    attempt
                        .state()
                        .as_str_name()
                        .trim_start_matches("ATTEMPT_STATE_"),
                ),
                Tone::Plain,
            ),
            "SUCCEEDED" => Cell::toned("succeeded", Tone::Good),
            outcome => Cell::toned(words(outcome), Tone::Bad),
        };
        let began = attempt.start_time.as_ref().or(attempt.place_time.as_ref());
        let took = match (began, attempt.end_time.as_ref()) {
            (Some(began), Some(ended)) => time::seconds_between(began, ended),
            (Some(began), None) => time::seconds_since(began),
            _ => None,
        };
        let span = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), time::span);
        table.row(vec![
            number(attempt).to_string().into(),
            worker(attempt).into(),
            attempt.hardware.clone().into(),
            state,
            count(step(job, attempt)).into(),
            if attempt.checkpoint_step > 0 {
                count(attempt.checkpoint_step).into()
            } else {
                "-".into()
            },
            span(took).into(),
            span(attempt.expected_p50.as_ref().map(time::seconds)).into(),
        ]);
    }
    table
}

/// The parts of an attempt on several hosts.
fn parts(attempt: &Attempt) -> Table {
    let mut table = Table::new(&[
        ("RANK", Side::Right),
        ("WORKER", Side::Left),
        ("GPUS", Side::Left),
        ("STATE", Side::Left),
    ]);
    for (rank, part) in attempt.parts.iter().enumerate() {
        let name = match part.worker_display_name.as_str() {
            "" => json::id(&part.worker),
            name => name,
        };
        let gpus: Vec<String> = part.gpus.iter().map(ToString::to_string).collect();
        let state = part.state().as_str_name();
        table.row(vec![
            rank.to_string().into(),
            name.into(),
            gpus.join(", ").into(),
            words(state.trim_start_matches("ATTEMPT_STATE_")).into(),
        ]);
    }
    table
}

/// The last step that is known of an attempt: while it runs, the log of decisions knows only of checkpoints.
fn step(job: &Wire, attempt: &Attempt) -> u64 {
    let live = job
        .progress
        .as_ref()
        .filter(|_| attempt.end_time.is_none())
        .map_or(0, |progress| progress.step);
    attempt.last_step.max(live)
}

async fn logs(context: &Context, client: &Client, name: &str) -> Result<(), Failure> {
    let answer = client.ask(|| {
        let request = timed(GetJobLogsRequest {
            name: name.to_owned(),
        });
        let mut service = client.jobs();
        async move { service.get_job_logs(request).await }
    });
    let log = answer.await?.log.unwrap_or_default();
    let output = &context.output;
    if output.json {
        return output
            .json(&json!({ "job": json::id(name), "epoch": log.epoch, "lines": log.lines }));
    }
    if log.lines.is_empty() {
        output.say("The leader holds no lines of it: it does while the job runs and shortly after. Over HTTP all are read, until the job is forgotten.");
    }
    log.lines
        .iter()
        .try_for_each(|line| output.data(&format!("{}\n", clean(line))))
}

/// A line without anything that could move the cursor.
pub(crate) fn clean(line: &str) -> String {
    line.chars()
        .filter(|letter| !letter.is_control() || *letter == '\t')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_id_with_or_without_its_collection() {
        assert_eq!(job_name("4f2a").as_deref(), Ok("jobs/4f2a"));
        assert_eq!(job_name("jobs/4f2a").as_deref(), Ok("jobs/4f2a"));
        assert!(job_name("a/b").is_err());
        assert!(job_name("").is_err());
    }

    #[test]
    fn a_job_that_begins_in_days_says_on_which() {
        let job = Wire {
            state: JobState::Pending.into(),
            not_before_time: Some(prost_types::Timestamp {
                seconds: 1_796_000_000,
                nanos: 0,
            }),
            ..Wire::default()
        };
        let day = time::day_and_clock(job.not_before_time.as_ref());
        assert!(day.starts_with("2026-11-"), "{day}");
        let facts = facts(&job);
        assert!(facts.contains(&format!("not before  {day}\n")), "{facts}");
    }
}
