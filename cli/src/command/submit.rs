//! `stepcast submit`: shows what the run will cost, asks, and puts it into the queue exactly once.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use stepcast_proto::v1::{
    Estimate as Row, JobWishes, Objective, SubmitArrayRequest, SubmitArrayResponse,
    SubmitJobRequest, SubmitJobResponse, Trainer,
};

use super::estimate::{self, Question};
use super::hardware::models_and_count;
use super::terms::Terms;
use super::{sweep, watch};
use crate::client::{self, Client, timed};
use crate::confirm::confirmed;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::files::{self, Submission};
use crate::output::money::{counted, parse_dollars};
use crate::output::shell::{called_with, called_without};
use crate::output::style::{Mark, Tone};
use crate::output::{Output, json, time};

/// Puts a run into the queue.
///
/// Shows what it will take and cost first, and asks when a person is there to answer.
///
/// Example: stepcast submit config/flux-cats --on h100,a100-80 --max-cost 5
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// SimpleTuner's configuration: its folder, or its config.json or config.toml; a config.env with `--trainer replay` alone
    path: PathBuf,
    #[command(flatten)]
    question: Question,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Check everything with the server and keep nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait for the end; succeeds only if the job does
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// What the job is called; the configuration's folder unless given
    #[arg(long)]
    name: Option<String>,
    /// GPUs on each of its hosts: 1, 2, 4 or 8
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    gpus: Option<u32>,
    /// Hosts that it runs on at once, 1 to 16; their workers share one folder for results
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    hosts: u32,
    /// Least memory of each GPU, in GiB
    #[arg(long, value_name = "GIB")]
    min_memory: Option<u32>,
    /// A label that the worker must carry; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// What hardware is chosen by
    #[arg(long, value_enum, default_value_t = By::Balanced)]
    objective: By,
    /// The same as --objective cheapest
    #[arg(long, conflicts_with_all = ["objective", "fastest"])]
    cheapest: bool,
    /// The same as --objective fastest
    #[arg(long, conflicts_with = "objective")]
    fastest: bool,
    /// Most that all attempts together may cost, in dollars
    #[arg(long, value_name = "DOLLARS", allow_negative_numbers = true, value_parser = parse_dollars)]
    max_cost: Option<u64>,
    /// Most that the GPUs together may cost an hour, in dollars
    #[arg(long, value_name = "DOLLARS", allow_negative_numbers = true, value_parser = parse_dollars)]
    max_price: Option<u64>,
    /// Longest time of one attempt, such as 2h or 45m
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    max_runtime: Option<Duration>,
    /// -10 to 10; higher goes first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-10..=10))]
    priority: i32,
    /// How often it is tried again after a failure of its own, 0 to 10; 3 unless given
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(0..=10))]
    retries: Option<u32>,
    /// What runs it
    #[arg(long, value_enum, default_value_t = Runs::Simpletuner)]
    trainer: Runs,
    #[command(flatten)]
    terms: Terms,
    /// One task for each value of a setting in config.json, such as learning_rate=1e-4,2e-4; several make every combination
    #[arg(long = "sweep", value_name = "SETTING=VALUES", value_parser = sweep::setting, conflicts_with = "wait")]
    sweep: Vec<sweep::Setting>,
    /// How many tasks of a sweep may hold GPUs at the same time; all unless given
    #[arg(long, value_name = "TASKS", requires = "sweep", value_parser = clap::value_parser!(u32).range(1..))]
    parallel: Option<u32>,
    /// 32 hexadecimal digits: the same id again is the same job. Drawn at random unless given
    #[arg(long, value_name = "ID", value_parser = request_id)]
    request_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// The least money
    Cheapest,
    /// The least time
    Fastest,
    /// The least product of both
    Balanced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runs {
    /// SimpleTuner itself
    Simpletuner,
    /// A player of recorded streams, on pretend hardware only
    Replay,
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn request_id(text: &str) -> Result<String, String> {
    let digits = text.len() == 32 && text.chars().all(|letter| letter.is_ascii_hexdigit());
    if digits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a request id has 32 hexadecimal digits".to_owned())
    }
}

impl Submit {
    /// Checks, asks, submits, and waits if that is wanted.
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let output = &context.output;
        self.terms.check(&self.labels)?;
        let submission = files::collect(&self.path)?;
        let client = context.connect().await?;
        if !self.sweep.is_empty() {
            return self.run_sweep(context, &client, &submission).await;
        }
        let message = self.message(&submission)?;
        if self.dry_run || !output.json {
            let planned = send(
                &client,
                SubmitJobRequest {
                    validate_only: true,
                    ..message.clone()
                },
                &submission,
            )
            .await?;
            if self.dry_run && output.json {
                output.json(&answer_json(
                    &planned,
                    &submission,
                    &message.request_id,
                    true,
                ))?;
                return Ok(ExitCode::SUCCESS);
            }
            show_plan(output, &planned, &submission);
            if self.dry_run {
                output.say("Nothing was submitted.");
                output.next(called_without("--dry-run"));
                return Ok(ExitCode::SUCCESS);
            }
            if !self.yes
                && std::io::stdin().is_terminal()
                && output.asks
                && !confirmed("Submit?", true).await?
            {
                output.say("Nothing was submitted.");
                return Ok(ExitCode::from(Exit::Interrupted as u8));
            }
        }
        let sent = send(&client, message.clone(), &submission);
        let interrupted = in_doubt(interrupted(), &message.request_id, message.wishes.as_ref());
        let answer = context.or_in_doubt(interrupted, sent).await?;
        let job = answer.job.clone().unwrap_or_default();
        let id = json::id(&job.name);
        if output.json && !self.wait {
            output.json(&answer_json(
                &answer,
                &submission,
                &message.request_id,
                false,
            ))?;
        } else if !output.json {
            output.data(&submitted_line(output, id))?;
        }
        if self.wait {
            let code = watch::until_end(context, &client, &job.name, false).await?;
            output.next(format!("stepcast job show {id}"));
            return Ok(code);
        }
        output.next(format!("stepcast job watch {id}"));
        Ok(ExitCode::SUCCESS)
    }

    fn message(&self, submission: &Submission) -> Result<SubmitJobRequest, Failure> {
        Ok(SubmitJobRequest {
            request_id: self.request_id.clone().unwrap_or_else(client::request_id),
            validate_only: false,
            files: submission.files.clone(),
            sample_counts: self.question.samples.clone(),
            wishes: Some(self.wishes(submission)?),
        })
    }

    fn wishes(&self, submission: &Submission) -> Result<JobWishes, Failure> {
        let (models, count) = models_and_count(&self.question.on, self.gpus)?;
        let objective = match self.objective {
            _ if self.cheapest => Objective::Cheapest,
            _ if self.fastest => Objective::Fastest,
            By::Cheapest => Objective::Cheapest,
            By::Fastest => Objective::Fastest,
            By::Balanced => Objective::Balanced,
        };
        let trainer = match self.trainer {
            Runs::Simpletuner => Trainer::Simpletuner,
            Runs::Replay => Trainer::Replay,
        };
        let mut wishes = JobWishes {
            display_name: self
                .name
                .clone()
                .unwrap_or_else(|| submission.title.clone()),
            gpu_count: count.unwrap_or(1),
            hosts: self.hosts,
            allow: models,
            min_memory_gib: self.min_memory.unwrap_or(0),
            labels: self.labels.iter().cloned().collect::<HashMap<_, _>>(),
            objective: objective.into(),
            max_price_per_hour_usd_micros: self.max_price,
            max_cost_usd_micros: self.max_cost,
            max_runtime: self.max_runtime.map(wire_span),
            priority: self.priority,
            retry_limit: self.retries,
            trainer: trainer.into(),
            ..JobWishes::default()
        };
        self.terms.write(&mut wishes);
        Ok(wishes)
    }

    /// Checks, asks, and submits a sweep.
    async fn run_sweep(
        &self,
        context: &Context,
        client: &Client,
        submission: &Submission,
    ) -> Result<ExitCode, Failure> {
        let output = &context.output;
        let single = self.message(submission)?;
        let message = SubmitArrayRequest {
            request_id: single.request_id.clone(),
            validate_only: true,
            files: single.files,
            sample_counts: single.sample_counts,
            wishes: single.wishes,
            tasks: sweep::tasks(&self.sweep, submission)?,
            parallel: self.parallel.unwrap_or(0),
        };
        let tasks = counted(message.tasks.len() as u64, "task", "tasks");
        if self.dry_run || !output.json {
            let planned = sweep::send(client, message.clone()).await?;
            if self.dry_run && output.json {
                output.json(&sweep_json(&planned, &message, true))?;
                return Ok(ExitCode::SUCCESS);
            }
            output.say(match planned.estimates.first() {
                Some(row) if row.run_time.is_some() => {
                    format!(
                        "  {tasks}, each on {}: {}",
                        estimate::title(row),
                        row.headline
                    )
                }
                _ => format!("  {tasks}; nobody knows yet what one takes"),
            });
            estimate::show_notes(output, &planned.notes);
            estimate::missing_files(output, submission);
            if self.dry_run {
                output.say("Nothing was submitted.");
                return Ok(ExitCode::SUCCESS);
            }
            if !self.yes
                && std::io::stdin().is_terminal()
                && output.asks
                && !confirmed("Submit?", true).await?
            {
                output.say("Nothing was submitted.");
                return Ok(ExitCode::from(Exit::Interrupted as u8));
            }
        }
        let message = SubmitArrayRequest {
            validate_only: false,
            ..message
        };
        let doubt = |failure| in_doubt(failure, &message.request_id, message.wishes.as_ref());
        let sent = sweep::send(client, message.clone());
        let sent = context.or_in_doubt(doubt(interrupted()), sent).await;
        let answer = sent.map_err(doubt)?;
        if output.json {
            output.json(&sweep_json(&answer, &message, false))?;
        } else {
            let ids = answer.jobs.iter().map(|job| format!("{}\n", json::id(job)));
            output.data(&ids.collect::<String>())?;
            let id = json::id(&answer.array);
            output.marked(
                Mark::Done,
                Tone::Good,
                format!("array {id} submitted: {tasks}"),
            );
            output.next(format!(
                "stepcast jobs    (or stepcast job cancel {id} --array)"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn sweep_json(
    answer: &SubmitArrayResponse,
    message: &SubmitArrayRequest,
    dry_run: bool,
) -> serde_json::Value {
    json!({
        "dry_run": dry_run,
        "request_id": message.request_id,
        "array": json::id(&answer.array),
        "jobs": answer.jobs.iter().map(|job| json::id(job)).collect::<Vec<_>>(),
        "tasks": message.tasks.len(),
        "notes": json::notes(&answer.notes),
        "estimates": answer.estimates.iter().map(json::estimate).collect::<Vec<_>>(),
    })
}

pub(super) fn wire_span(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

/// Sends a submission; the same request id each time makes asking again safe.
async fn send(
    client: &Client,
    message: SubmitJobRequest,
    submission: &Submission,
) -> Result<SubmitJobResponse, Failure> {
    let only = message.validate_only;
    let call = || {
        let request = timed(message.clone());
        let mut service = client.jobs();
        async move { service.submit_job(request).await }
    };
    let answer = if only {
        client.ask(call).await
    } else {
        client.change(call).await
    };
    answer.map_err(|failure| {
        let failure = estimate::with_missing(failure, submission);
        in_doubt(failure, &message.request_id, message.wishes.as_ref())
    })
}

/// A person has not waited for the answer to what was sent.
fn interrupted() -> Failure {
    Failure::new(Exit::Unknown, "interrupted before the server has answered")
}

/// No answer to what was sent means that nobody knows: the same again, with the same id, finds out. Moments are told as they
/// were sent, as a span from now is another one each time.
fn in_doubt(mut failure: Failure, id: &str, wishes: Option<&JobWishes>) -> Failure {
    if failure.exit == Exit::Unknown {
        let mut sent = vec![("--request-id", id.to_owned())];
        let moment = |at: Option<&prost_types::Timestamp>| at.and_then(time::rfc3339);
        if let Some(at) = moment(wishes.and_then(|wishes| wishes.not_before_time.as_ref())) {
            sent.push(("--not-before", at));
        }
        if let Some(at) = moment(wishes.and_then(|wishes| wishes.finish_by_time.as_ref())) {
            sent.push(("--finish-by", at));
        }
        failure.hint = Some(format!(
            "the job may have been taken; to find out ask again: {}",
            called_with(&sent)
        ));
    } else if failure.reason == "REQUEST_ID_REUSED" {
        // A new id would make a second job where the first was meant.
        failure.hint = Some(
            "a job may be there under this id: see `stepcast jobs` before you submit without it"
                .to_owned(),
        );
    }
    failure
}

fn answer_json(
    answer: &SubmitJobResponse,
    submission: &Submission,
    request_id: &str,
    dry_run: bool,
) -> serde_json::Value {
    json!({
        "dry_run": dry_run,
        "request_id": request_id,
        "job": answer.job.as_ref().map(json::job),
        "notes": json::notes(&answer.notes),
        "estimates": answer.estimates.iter().map(json::estimate).collect::<Vec<_>>(),
        "files_missing": submission.missing,
    })
}

fn show_plan(output: &Output, planned: &SubmitJobResponse, submission: &Submission) {
    let job = planned.job.clone().unwrap_or_default();
    let wishes = job.wishes.clone().unwrap_or_default();
    let (name, hosts) = (wishes.display_name, wishes.hosts);
    let what = if name.is_empty() {
        job.title.clone()
    } else {
        format!("{name} ({})", job.title)
    };
    output.say(match planned.estimates.first() {
        Some(row) if row.run_time.is_some() => format!(
            "  {what} on {}: {}{}",
            estimate::title(row),
            row.headline,
            done_about(row)
        ),
        Some(row) => format!(
            "  {what} on {}: nobody knows yet what it takes",
            estimate::title(row)
        ),
        None if hosts > 1 => format!("  {what} on {hosts} hosts"),
        None => format!("  {what}: no worker offers hardware for it yet, so it will wait"),
    });
    let on_top = planned.estimates.get(..1).and_then(estimate::on_top);
    if let Some(on_top) = on_top {
        output.say(format!("  {on_top}"));
    }
    estimate::show_notes(output, &planned.notes);
    estimate::missing_files(output, submission);
}

fn done_about(row: &Row) -> String {
    let middle = |times: Option<&stepcast_proto::v1::TimeQuantiles>| {
        times
            .and_then(|times| times.p50.as_ref())
            .map(time::seconds)
    };
    let set_up = middle(row.setup_time.as_ref()).unwrap_or(0.0);
    middle(row.run_time.as_ref()).map_or_else(String::new, |run| {
        format!(
            "; if it starts now, done about {}",
            time::clock_in(run + set_up)
        )
    })
}

fn submitted_line(output: &Output, id: &str) -> String {
    if output.drawn {
        format!(
            "{} job {} submitted\n",
            Tone::Good.paint(output.signs.mark(Mark::Done)),
            Tone::Strong.paint(id)
        )
    } else {
        format!("{id}\n")
    }
}
