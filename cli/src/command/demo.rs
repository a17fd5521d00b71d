//! `stepcast demo`: the whole ring in a temporary folder, told step by step; it fails if any step's fact is not there.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use stepcast_proto::v1::{
    Basis, Estimate as Row, EstimateJobResponse, JobState, JobWishes, ListSourcesResponse,
    SubmitJobRequest, Trainer, WorkerState,
};

use super::dev::{arguments, make_token};
use super::estimate::{self, Question};
use super::{job, records, sql, watch, workers};
use crate::child::{Child, Log};
use crate::client::{self, Address, Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::files::{self, Submission};
use crate::output::money::{count, counted};
use crate::output::style::{Mark, Tone};
use crate::output::{Output, json, time};

/// The example: FLUX LoRA at one megapixel with batch 4, as in the privacy policy.
const CONFIG: &str = include_str!("../../demo/flux-lora/config.json");
/// Its data loader.
const DATA_LOADER: &str = include_str!("../../demo/flux-lora/multidatabackend.json");
/// Figures that SimpleTuner's documentation states.
const FIGURES: &str = include_str!("../../demo/figures.csv");
/// Who measured them.
const SOURCE: &str = "simpletuner-docs";
/// Hardware that the example is estimated for.
const HARDWARE: [&str; 4] = ["rtx4090", "l40s", "a100-80", "h100"];
/// The pretend hardware.
const REPLAY: &str = "replay";
/// How many times faster than written the pretend device plays: a run of minutes takes seconds.
const SPEED: &str = "60";
/// The worker registers within a second; on a slow disk it may take some.
const WORKER_WITHIN: Duration = Duration::from_secs(30);
/// What a run measured is in the tables a moment after it ends.
const RECORDED_WITHIN: Duration = Duration::from_secs(20);
/// How often something is looked at that nobody tells about.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What the records know, by hardware.
const QUERY: &str = "SELECT hardware, recipe, count(*) AS runs, avg(avg_step_ms) AS step_ms\nFROM training_steps GROUP BY hardware, recipe ORDER BY hardware, recipe";

/// Shows the whole ring in a temporary folder, in under a minute.
///
/// Starts a server, imports figures, estimates an example, runs it on a pretend device in a worker process, and shows
/// that the next estimate has learnt from it. Leaves nothing behind.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Keep the folder and say where it is
    #[arg(long)]
    keep: bool,
}

impl Demo {
    /// Runs the ring once.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if context.output.json {
            return Err(Failure::usage("the demo is told in words; it has no JSON")
                .hint("the commands that it plays have: start `stepcast dev --replay 1` and add --json to each"));
        }
        let folder = tempfile::Builder::new().prefix("stepcast-demo-").tempdir();
        let mut folder = folder.map_err(|error| {
            Failure::refused("no temporary folder can be made").detail(error.to_string())
        })?;
        folder.disable_cleanup(self.keep);
        // The telling is the answer here; tables are drawn in it wherever it goes.
        let output = Output {
            drawn: true,
            telling: true,
            ..context.output.clone()
        };
        let context = &context.with_output(output);
        let mut story = Story {
            output: &context.output,
            chapter: 0,
        };
        story.begin(
            "a server: one node with its log, its tables and its front door, in a temporary folder",
        );
        let words = arguments(
            &["server", "--listen", "127.0.0.1:0", "--data"],
            &[folder.path().join("server").as_os_str()],
        );
        let (server, address) = Child::start_server(
            "server",
            &words,
            Log::File(folder.path().join("server.log")),
        )
        .await?;
        let outcome = ring(context, &mut story, folder.path(), &address).await;
        server.stop().await;
        if self.keep {
            context
                .output
                .say(format!("The folder is {}.", folder.path().display()));
        }
        outcome?;
        story.end();
        Ok(())
    }
}

async fn ring(
    context: &Context,
    story: &mut Story<'_>,
    folder: &Path,
    address: &str,
) -> Result<(), Failure> {
    let client = Client::connect(&Address {
        server: address.to_owned(),
        ..Address::default()
    })
    .await?;
    story.fact(format!("it answers at {address}"));

    story.begin(
        "measured figures come in: what SimpleTuner's documentation says about FLUX on an RTX 4090",
    );
    let imported = records::import(&client, FIGURES.as_bytes().to_vec(), SOURCE, "").await?;
    require(
        imported.rows_stored == imported.lines && imported.lines > 0,
        "every figure is stored",
        &imported,
    )?;
    story.fact(format!(
        "{} stored as {SOURCE}",
        counted(imported.rows_stored, "figure", "figures")
    ));

    story.begin(
        "an estimate before anything is run: the policy's own example, FLUX LoRA, 1.0 MP, batch 4",
    );
    let submission = example(folder)?;
    let real = ask(&client, &submission, &HARDWARE).await?;
    estimate::show(story.output, &real, true, false)?;
    require(
        real.estimates.iter().any(|row| row.run_time.is_some()),
        "some hardware has an estimate",
        &times(&real),
    )?;
    let before = pretend(&ask(&client, &submission, &[REPLAY]).await?)?;
    story.fact(format!(
        "on the pretend device that comes next: {}",
        in_words(&before)
    ));

    story.begin("a worker joins with a token: another process, with one pretend device that plays a made-up run");
    let worker = join(&client, folder, address).await?;
    let outcome = run_and_learn(context, story, &client, &submission, &before, &real).await;
    worker.stop().await;
    outcome
}

async fn run_and_learn(
    context: &Context,
    story: &mut Story<'_>,
    client: &Client,
    submission: &Submission,
    before: &Row,
    real: &EstimateJobResponse,
) -> Result<(), Failure> {
    let sources = records::sources(client).await?;
    story.begin("the example is submitted as a replay, and watched");
    let name = submit(client, submission).await?;
    story.fact(format!("job {} is in the log", json::id(&name)));
    watch::until_end(context, client, &name, false).await?;
    let ended = job::get(client, &name).await?;
    require(
        ended.state() == JobState::Succeeded && ended.attempts.len() == 1,
        "the job succeeds in one attempt",
        &ended.state(),
    )?;

    story.begin("what it measured became records, without any trace of whose run it was");
    let learnt = recorded(client, &sources).await?;
    story.fact(format!(
        "{} more for training, {} more for validation",
        counted(
            learnt.training_rows - sources.training_rows,
            "record",
            "records"
        ),
        counted(
            learnt.validation_rows - sources.validation_rows,
            "record",
            "records"
        ),
    ));

    story.begin("the next estimate has learnt from it");
    let after = pretend(&ask(client, submission, &[REPLAY]).await?)?;
    story.fact(format!("before: {}", in_words(before)));
    story.fact(format!("after:  {}", in_words(&after)));
    require(
        after.basis() == Basis::Exact && after.rows > before.rows,
        "the estimate for the pretend device is exact now",
        &in_words(&after),
    )?;
    let again = ask(client, submission, &HARDWARE).await?;
    require(
        times(&again) == times(real),
        "pretend runs change nothing for real hardware",
        &(times(real), times(&again)),
    )?;
    story.fact("pretend hardware is marked `replay` and never enters a real hardware's records: their estimates are as before");

    story.begin("the records answer SQL");
    QUERY
        .lines()
        .for_each(|line| story.output.say(format!("  {}", Tone::Dim.paint(line))));
    let answer = sql::run_query(client, QUERY, 0).await?;
    require(
        answer.row_count() > 1,
        "the records of both hardware are there",
        &answer.row_count(),
    )?;
    story.output.table(&sql::table(&answer)?)?;
    story.fact(sql::summary(answer.summary(), None));
    Ok(())
}

/// Writes the example where a person would have it.
fn example(folder: &Path) -> Result<Submission, Failure> {
    let config = folder.join("config").join("flux-lora");
    let written = std::fs::create_dir_all(&config)
        .and_then(|()| std::fs::write(config.join("config.json"), CONFIG))
        .and_then(|()| std::fs::write(config.join("multidatabackend.json"), DATA_LOADER));
    written.map_err(|error| {
        Failure::refused("the example cannot be written").detail(error.to_string())
    })?;
    let submission = files::collect(&config)?;
    require(
        submission.missing.is_empty(),
        "the example is whole",
        &submission.missing,
    )?;
    Ok(submission)
}

async fn ask(
    client: &Client,
    submission: &Submission,
    hardware: &[&str],
) -> Result<EstimateJobResponse, Failure> {
    let on = hardware.iter().map(|name| (*name).to_owned()).collect();
    estimate::ask(
        client,
        submission,
        &Question {
            on,
            samples: Vec::new(),
        },
    )
    .await
}

fn pretend(answer: &EstimateJobResponse) -> Result<Row, Failure> {
    answer.estimates.first().cloned().ok_or_else(|| {
        Failure::refused("the demo failed: the pretend device has no estimate at all")
    })
}

fn in_words(row: &Row) -> String {
    if row.run_time.is_none() {
        return "nobody knows (no history)".to_owned();
    }
    let step = row
        .step_time
        .as_ref()
        .and_then(|times| times.p50.as_ref())
        .map(time::seconds);
    let step = step
        .map(|step| format!(", {} s/step", time::step(step)))
        .unwrap_or_default();
    format!(
        "{}{step} ({}, {})",
        row.headline,
        job_basis(row),
        counted(u64::from(row.rows), "run", "runs")
    )
}

fn job_basis(row: &Row) -> String {
    row.basis()
        .as_str_name()
        .trim_start_matches("BASIS_")
        .to_ascii_lowercase()
}

/// The middle of each hardware's time, in seconds.
fn times(answer: &EstimateJobResponse) -> Vec<(String, Option<f64>)> {
    let middle = |row: &Row| row.run_time.as_ref()?.p50.as_ref().map(time::seconds);
    answer
        .estimates
        .iter()
        .map(|row| (row.hardware.clone(), middle(row)))
        .collect()
}

async fn join(client: &Client, folder: &Path, address: &str) -> Result<Child, Failure> {
    let token = folder.join("worker.token");
    make_token(client, "demo", &token).await?;
    let state = folder.join("worker");
    let words = arguments(
        &[
            "worker",
            "--server",
            address,
            "--replay",
            "1",
            "--replay-speed",
            SPEED,
            "--price",
            "0.40",
            "--state",
        ],
        &[
            state.as_os_str(),
            "--join-token-file".as_ref(),
            token.as_os_str(),
        ],
    );
    let mut worker = Child::start("worker", &words, Log::File(folder.join("worker.log")))?;
    let deadline = tokio::time::Instant::now() + WORKER_WITHIN;
    loop {
        if workers::all(client)
            .await?
            .iter()
            .any(|worker| worker.state() == WorkerState::Ready && worker.attached)
        {
            return Ok(worker);
        }
        if !worker.runs() {
            return Err(worker.failed().await);
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::refused(format!(
                "the worker did not join within {} seconds",
                WORKER_WITHIN.as_secs()
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn submit(client: &Client, submission: &Submission) -> Result<String, Failure> {
    let message = SubmitJobRequest {
        request_id: client::request_id(),
        validate_only: false,
        files: submission.files.clone(),
        sample_counts: Vec::new(),
        wishes: Some(JobWishes {
            display_name: submission.title.clone(),
            gpu_count: 1,
            trainer: Trainer::Replay.into(),
            ..JobWishes::default()
        }),
    };
    let answer = client.change(|| {
        let request = timed(message.clone());
        let mut service = client.jobs();
        async move { service.submit_job(request).await }
    });
    let job = answer.await?.job.unwrap_or_default();
    require(!job.name.is_empty(), "the job has a name", &job)?;
    Ok(job.name)
}

/// Waits until the tables have grown in both kinds.
async fn recorded(
    client: &Client,
    before: &ListSourcesResponse,
) -> Result<ListSourcesResponse, Failure> {
    let deadline = tokio::time::Instant::now() + RECORDED_WITHIN;
    loop {
        let now = records::sources(client).await?;
        if now.training_rows > before.training_rows && now.validation_rows > before.validation_rows
        {
            return Ok(now);
        }
        let late = tokio::time::Instant::now() >= deadline;
        require(
            !late,
            "the run's times are recorded",
            &(count(now.training_rows), count(now.validation_rows)),
        )?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A fact without which the demo has failed.
fn require(holds: bool, fact: &str, found: &dyn std::fmt::Debug) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(
            Failure::refused(format!("the demo failed: {fact} should be true"))
                .detail(format!("found {found:?}")),
        )
    }
}

/// Tells what happens, in numbered chapters.
struct Story<'output> {
    output: &'output Output,
    chapter: u32,
}

impl Story<'_> {
    fn begin(&mut self, text: &str) {
        self.chapter += 1;
        let number = Tone::Strong.paint(&format!("{}.", self.chapter));
        self.output.say(format!(
            "\n{number} {}{}",
            text[..1].to_uppercase(),
            &text[1..]
        ));
    }

    fn fact(&self, text: impl AsRef<str>) {
        self.output.marked(Mark::Done, Tone::Good, text);
    }

    fn end(&self) {
        self.output.say("");
        self.output.next("stepcast dev --replay 1    (the same, to play with; without --replay it offers this machine's GPUs)");
    }
}
