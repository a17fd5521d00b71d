//! Following a job to its end: ticked stages and a bar on a terminal, one line per change on a pipe.

use std::process::ExitCode;

use serde_json::json;
use stepcast_proto::v1::{
    Attempt, AttemptState, Job, JobEvent, JobState, Phase, Progress, WatchJobRequest,
    WatchJobResponse, watch_job_response::Update,
};
use tokio::time::Instant;
use tonic::{Request, Streaming};

use super::job::{clean, get};
use super::jobs::{self, number, phase_words, words, worker};
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::money::{count, dollars};
use crate::output::progress::{Live, bar, percent};
use crate::output::style::{Mark, Tone};
use crate::output::{Output, json, time};

/// Step times that the strip shows.
const STRIP: usize = 32;
/// A stream that breaks is opened again so often in a row before the watcher gives up.
const REOPENED_MAX: usize = 60;
/// The pause before it is opened again.
const REOPEN_AFTER: std::time::Duration = std::time::Duration::from_millis(500);

/// Follows a job to its end. 0 for a job that succeeded, 1 for one that did not.
pub(crate) async fn until_end(
    context: &Context,
    client: &Client,
    name: &str,
    logs: bool,
) -> Result<ExitCode, Failure> {
    let mut watcher = Watcher::new(&context.output, name);
    let mut broken = 0;
    loop {
        let seq = watcher.seq;
        let followed = follow(&mut watcher, client, name, logs).await;
        if watcher.seq > seq {
            broken = 0;
        }
        match followed {
            Ok(()) if watcher.is_over() => break,
            Ok(()) => broken += 1,
            Err(failure) if may_go_on(&failure) && broken < REOPENED_MAX => {
                client.go_on(&failure);
                broken += 1;
            }
            Err(failure) => return Err(failure),
        }
        if broken >= REOPENED_MAX {
            return Err(Failure::new(
                Exit::Unreachable,
                "the server ended the watch again and again",
            ));
        }
        // Every server is asked once without a pause.
        if broken % client.server_count() == 0 {
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }
    // The stream ends with the job; what it cost in the end is asked for once more.
    watcher.job = get(client, name).await?;
    watcher.finish()
}

/// Whether the watch can be opened again, here or elsewhere, and go on where it was.
fn may_go_on(failure: &Failure) -> bool {
    failure.exit == Exit::Unreachable || matches!(failure.reason.as_str(), "WATCH_BEHIND" | "BUSY")
}

async fn follow(
    watcher: &mut Watcher<'_>,
    client: &Client,
    name: &str,
    logs: bool,
) -> Result<(), Failure> {
    let request = Request::new(WatchJobRequest {
        name: name.to_owned(),
        logs,
        after_seq: watcher.seq,
    });
    let stream = client
        .jobs()
        .watch_job(request)
        .await
        .map_err(|status| client.failure(&status))?;
    let mut stream: Streaming<WatchJobResponse> = stream.into_inner();
    while let Some(message) = stream
        .message()
        .await
        .map_err(|status| client.failure(&status))?
    {
        if let Some(update) = message.update {
            watcher.take(update)?;
        }
        watcher.seq = watcher.seq.max(message.seq);
    }
    Ok(())
}

/// What is known of the job, and what was shown of it.
struct Watcher<'output> {
    output: &'output Output,
    live: Live,
    job: Job,
    /// Events up to here were shown, or are in the job as it was shown.
    seq: u64,
    /// Stages of the newest attempt that are over, with their seconds.
    stages: Vec<(String, f64)>,
    phase: Option<(Phase, Instant)>,
    began: Instant,
    step_ms: Vec<f64>,
    /// The last part of the whole that was said on a pipe.
    tenth: u64,
}

impl<'output> Watcher<'output> {
    fn new(output: &'output Output, name: &str) -> Self {
        Self {
            output,
            live: Live::new(output.live, output.columns),
            job: Job {
                name: name.to_owned(),
                ..Job::default()
            },
            seq: 0,
            stages: Vec::new(),
            phase: None,
            began: Instant::now(),
            step_ms: Vec::new(),
            tenth: 0,
        }
    }

    fn take(&mut self, update: Update) -> Result<(), Failure> {
        match update {
            Update::Current(job) => self.current(*job)?,
            Update::Event(event) => self.event(&event)?,
            Update::Progress(progress) => self.progress(progress)?,
            Update::Log(log) => {
                for line in &log.lines {
                    if self.output.json {
                        self.output.json(&json!({ "log": line }))?;
                    } else {
                        self.output.data(&format!("{}\n", clean(line)))?;
                    }
                }
            }
        }
        self.live.draw(&self.screen());
        Ok(())
    }

    fn current(&mut self, job: Job) -> Result<(), Failure> {
        let known = self.job.state() != JobState::Unspecified;
        let before = std::mem::replace(&mut self.job, job);
        if known {
            // The watch was opened again: what is new in this was told as events, and how far the attempt is may be unknown
            // to a new leader for a moment.
            if self.job.progress.is_none() && self.job.attempts.len() == before.attempts.len() {
                self.job.progress = before.progress;
            }
            return Ok(());
        }
        if self.output.json {
            return self
                .output
                .json(&json!({ "current": json::job(&self.job) }));
        }
        if !self.output.live {
            let text = words(json::state(&self.job));
            self.output.data(&format!(
                "{} job {} is {text}\n",
                time::clock(None),
                json::id(&self.job.name)
            ))?;
        }
        match self.job.progress.take() {
            Some(progress) => self.progress(progress),
            None => Ok(()),
        }
    }

    fn event(&mut self, event: &JobEvent) -> Result<(), Failure> {
        // A stream that was opened again may begin with what was shown before.
        if event.seq <= self.seq {
            return Ok(());
        }
        self.seq = event.seq;
        let before = self.job.state();
        self.apply(event);
        if self.output.json {
            return self.output.json(&json!({ "event": json::event(event) }));
        }
        if !self.output.live {
            let line = event_line(event, &self.job, before);
            self.output.data(&format!(
                "{} job {} {line}\n",
                time::clock(event.time.as_ref()),
                json::id(&self.job.name)
            ))?;
        }
        Ok(())
    }

    fn apply(&mut self, event: &JobEvent) {
        self.job.state = event.state;
        match event.kind.as_str() {
            "PLACED" => {
                self.close_phase();
                self.stages = vec![("queue".to_owned(), self.began.elapsed().as_secs_f64())];
                self.job.attempts.push(Attempt {
                    name: format!("{}/attempts/{}", self.job.name, event.attempt),
                    worker: event.worker.clone(),
                    worker_display_name: event.worker_display_name.clone(),
                    state: AttemptState::Placed.into(),
                    ..Attempt::default()
                });
                self.step_ms.clear();
                self.job.progress = None;
            }
            "CHECKPOINTED" => {
                if let Some(attempt) = self.job.attempts.last_mut() {
                    attempt.checkpoint_step = event.step;
                }
            }
            "ATTEMPT_ENDED" => {
                self.close_phase();
                if let Some(attempt) = self.job.attempts.last_mut() {
                    attempt.outcome.clone_from(&event.reason);
                    attempt.last_step = event.step;
                }
            }
            "FAILED" => self.job.failure_reason.clone_from(&event.reason),
            _ => {}
        }
    }

    fn progress(&mut self, progress: Progress) -> Result<(), Failure> {
        let known = self.job.progress.as_ref();
        if known.is_some_and(|known| known.epoch == progress.epoch && known.step > progress.step) {
            // Something from before that arrives late; an attempt's steps only grow.
            return Ok(());
        }
        if self
            .phase
            .is_none_or(|(phase, _)| phase != progress.phase())
        {
            self.close_phase();
            self.phase = Some((progress.phase(), Instant::now()));
        }
        if let Some(ms) = progress
            .step_ms
            .filter(|_| progress.phase() == Phase::Training)
        {
            self.step_ms.push(ms);
            let extra = self.step_ms.len().saturating_sub(STRIP);
            self.step_ms.drain(..extra);
        }
        let said = if self.output.json {
            self.output
                .json(&json!({ "progress": json::progress(&progress) }))
        } else {
            self.say_tenth(&progress)
        };
        self.job.progress = Some(progress);
        said
    }

    /// On a pipe a tenth of the way is worth a line, and no less.
    fn say_tenth(&mut self, progress: &Progress) -> Result<(), Failure> {
        let tenth = percent(progress.step, progress.steps_total) / 10;
        if self.output.live || tenth <= self.tenth {
            return Ok(());
        }
        self.tenth = tenth;
        let pace = progress
            .step_ms
            .map(|ms| format!(", {} s/step", time::step(ms / 1e3)))
            .unwrap_or_default();
        let left = progress.remaining_time.as_ref();
        let left = left
            .and_then(|times| times.p50.as_ref())
            .map(|left| format!(", {} left", time::rough_span(time::seconds(left))))
            .unwrap_or_default();
        let (step, total) = (count(progress.step), count(progress.steps_total));
        let id = json::id(&self.job.name);
        self.output.data(&format!(
            "{} job {id} step {step} of {total} ({}%){pace}{left}\n",
            time::clock(None),
            tenth * 10
        ))
    }

    fn close_phase(&mut self) {
        if let Some((phase, since)) = self.phase.take() {
            let (name, took) = (phase_words(phase).to_owned(), since.elapsed().as_secs_f64());
            match self.stages.iter_mut().find(|(stage, _)| *stage == name) {
                // Training goes on after a validation: one stage, its parts together.
                Some((_, total)) => *total += took,
                None => self.stages.push((name, took)),
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(
            self.job.state(),
            JobState::Succeeded | JobState::Failed | JobState::Cancelled
        )
    }

    fn screen(&self) -> String {
        let signs = self.output.signs;
        let mut lines = vec![self.head()];
        for (name, took) in &self.stages {
            lines.push(format!(
                "  {} {name:<20} {:>8}",
                Tone::Good.paint(signs.mark(Mark::Done)),
                time::span(*took)
            ));
        }
        let here = Tone::Strong.paint(signs.mark(Mark::Here));
        match (self.job.state(), &self.job.progress) {
            (JobState::Pending, _) => lines.push(format!(
                "  {here} {:<20} {:>8}",
                "queue",
                time::span(self.began.elapsed().as_secs_f64())
            )),
            (JobState::Running | JobState::Cancelling, Some(progress)) => {
                lines.push(format!("  {here} {}", self.stage(progress)));
            }
            (JobState::Failed | JobState::Cancelled, _) => {
                let failed = Tone::Bad.paint(signs.mark(Mark::Failed));
                let attempt = self
                    .job
                    .attempts
                    .last()
                    .map(|attempt| attempt.outcome.as_str());
                lines.push(format!(
                    "  {failed} {}",
                    words(
                        attempt
                            .filter(|outcome| !outcome.is_empty())
                            .unwrap_or("cancelled")
                    )
                ));
            }
            (JobState::Running | JobState::Cancelling, None) => {
                lines.push(format!("  {here} starting"))
            }
            _ => {}
        }
        if self.step_ms.len() > 1 {
            let mut sorted = self.step_ms.clone();
            sorted.sort_by(f64::total_cmp);
            let middle = sorted[sorted.len() / 2] / 1e3;
            lines.push(format!(
                "  step time {}   p50 {}",
                signs.strip(&self.step_ms),
                time::step(middle)
            ));
        }
        lines.join("\n")
    }

    fn head(&self) -> String {
        let id = json::id(&self.job.name);
        let name = self
            .job
            .wishes
            .as_ref()
            .map(|wishes| wishes.display_name.as_str())
            .filter(|name| !name.is_empty());
        let place = self
            .job
            .attempts
            .last()
            .map(|attempt| format!("attempt {} on {}", number(attempt), worker(attempt)));
        format!(
            "{} {}   {}",
            Tone::Strong.paint(id),
            name.unwrap_or(&self.job.title),
            Tone::Dim.paint(&place.unwrap_or_default())
        )
    }

    fn stage(&self, progress: &Progress) -> String {
        let name = phase_words(progress.phase());
        if progress.steps_total == 0 || progress.step == 0 {
            return match jobs::left_range(&self.job) {
                Some(left) => format!("{name}   {left} left"),
                None => name.to_owned(),
            };
        }
        let bar = bar(progress.step, progress.steps_total);
        let steps = format!("{} / {}", count(progress.step), count(progress.steps_total));
        let pace = progress
            .step_ms
            .map(|ms| format!("   {} s/step", time::step(ms / 1e3)))
            .unwrap_or_default();
        let left = jobs::left_range(&self.job)
            .map(|left| format!("   {left} left"))
            .unwrap_or_default();
        format!("{name} {bar} {steps}{pace}{left}")
    }

    fn finish(mut self) -> Result<ExitCode, Failure> {
        self.close_phase();
        let id = json::id(&self.job.name).to_owned();
        self.live.finish(&self.screen());
        let attempt = self.job.attempts.last();
        let output = self.output;
        if output.json {
            output.json(&json!({ "ended": json::job(&self.job) }))?;
        }
        match self.job.state() {
            JobState::Succeeded => {
                let steps = attempt
                    .map(|attempt| count(attempt.last_step))
                    .unwrap_or_default();
                let cost = if self.job.cost_usd_micros > 0 {
                    format!(", {}", dollars(self.job.cost_usd_micros))
                } else {
                    String::new()
                };
                output.marked(
                    Mark::Done,
                    Tone::Good,
                    format!("job {id} succeeded: {steps} steps{cost}"),
                );
                Ok(ExitCode::SUCCESS)
            }
            state => {
                let why = if self.job.failure_reason.is_empty() {
                    String::new()
                } else {
                    format!(": {}", words(&self.job.failure_reason))
                };
                let mut failure =
                    Failure::refused(format!("job {id} {}{why}", words(json::state(&self.job))));
                failure.reason.clone_from(&self.job.failure_reason);
                failure
                    .details
                    .extend(self.job.failure_detail.lines().map(clean));
                Err(if state == JobState::Failed {
                    failure.hint(format!("see `stepcast job logs {id}`"))
                } else {
                    failure
                })
            }
        }
    }
}

/// An event as one line: `pending -> running (attempt 1, h100-a1)`.
fn event_line(event: &JobEvent, job: &Job, before: JobState) -> String {
    let state = |state: JobState| words(state.as_str_name().trim_start_matches("JOB_STATE_"));
    let place = match job.attempts.last() {
        Some(attempt) if event.attempt > 0 => {
            format!(" (attempt {}, {})", event.attempt, worker(attempt))
        }
        _ => String::new(),
    };
    let change = match event.kind.as_str() {
        "CHECKPOINTED" => return format!("checkpoint at step {}", count(event.step)),
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

#[cfg(test)]
mod tests;
