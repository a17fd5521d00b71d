//! Following a job to its end: ticked stages and a bar on a terminal, one line per change on a pipe.

mod event;
mod following;
mod lines;

use std::process::ExitCode;

use serde_json::json;
use stepcast_proto::v1::{
    Attempt, AttemptState, Job, JobEvent, JobState, LogLines, Phase, Progress,
    watch_job_response::Update,
};
use tokio::time::Instant;

use self::event::event_line;
use self::following::followed;
use self::lines::Lines;
use super::job::clean;
use super::jobs::{self, number, phase_words, words, worker};
use crate::client::Client;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{count, dollars};
use crate::output::progress::{Live, bar, percent};
use crate::output::style::{Mark, Tone};
use crate::output::{Output, json, time};

/// Step times that the strip shows.
const STRIP: usize = 32;

/// Follows a job to its end. 0 for a job that succeeded, 1 for one that did not.
pub(crate) async fn until_end(
    context: &Context,
    client: &Client,
    name: &str,
    logs: bool,
) -> Result<ExitCode, Failure> {
    let watcher = followed(context, client, name, logs).await?;
    watcher.finish(JobState::Succeeded)
}

/// Follows a job that was asked to end: that it is cancelled is what was wanted of it.
pub(crate) async fn until_cancelled(
    context: &Context,
    client: &Client,
    name: &str,
) -> Result<ExitCode, Failure> {
    let watcher = followed(context, client, name, false).await?;
    watcher.finish(JobState::Cancelled)
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
    lines: Lines,
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
            lines: Lines::default(),
        }
    }

    fn take(&mut self, update: Update) -> Result<(), Failure> {
        if !matches!(update, Update::Log(_)) {
            self.lines.others();
        }
        match update {
            Update::Current(job) => self.current(*job)?,
            Update::Event(event) => self.event(&event)?,
            Update::Progress(progress) => self.progress(progress)?,
            Update::Log(log) => self.log(&log)?,
        }
        self.live.draw(&self.screen());
        Ok(())
    }

    fn log(&mut self, log: &LogLines) -> Result<(), Failure> {
        // They are not to be replaced as what stands below them is.
        self.live.clear();
        for line in self.lines.take(log) {
            if self.output.json {
                self.output.json(&json!({ "log": line }))?;
            } else {
                self.output.data(&format!("{}\n", clean(line)))?;
            }
        }
        Ok(())
    }

    fn current(&mut self, job: Job) -> Result<(), Failure> {
        self.lines.reopened();
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
                self.tenth = 0;
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

    /// The last lines; a success if the job has ended as it was to.
    fn finish(mut self, wanted: JobState) -> Result<ExitCode, Failure> {
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
            JobState::Cancelled if wanted == JobState::Cancelled => {
                output.marked(Mark::Done, Tone::Good, format!("job {id} cancelled"));
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

#[cfg(test)]
mod tests;
