//! One attempt: waiting for its lease, launching, running, stopping in steps, ended.

use super::classify::{self, Seen};
use super::keeping::Keeping;
use super::leases::margin;
use super::life::Life;
use super::saved::Saved;
use super::watch::Watch;
use super::{
    Assigned, End, Epoch, Epochs, Exit, ExitStatus, Failure, FewerSteps, Outcome, Output,
    PROGRESS_EVERY_MS, Phase, Progress, Why,
};
use crate::event::{Event, Received, Stage, StageStatus};
use crate::reduce::Reducer;

/// How long a trainer has between SIGTERM and SIGKILL: PyTorch's data loaders need a moment, nothing needs more.
const TERM_MS: u64 = 10_000;

/// How long the end of a killed trainer is waited for. Only a process stuck in a driver call outlives this.
const KILL_MS: u64 = 60_000;

/// How long a trainer that reached its time limit may take to save a checkpoint.
const MAX_RUNTIME_GRACE_MS: u64 = 120_000;

/// One attempt's state.
#[derive(Debug)]
pub(super) struct Attempt {
    epoch: Epoch,
    job: String,
    term_ms: u64,
    max_runtime_ms: Option<u64>,
    is_gang: bool,
    is_follower: bool,
    fewer_steps: Option<FewerSteps>,
    epochs: Option<Epochs>,
    reducer: Option<Reducer>,
    life: Life,
    started: bool,
    /// The step of the checkpoint that its trainer goes on from, 0 for none.
    from: u64,
    /// The trainer must be gone by then. None until the first renewal is answered.
    deadline_ms: Option<u64>,
    /// Set by the first reason to stop; later reasons change nothing.
    stopped: Option<Why>,
    runtime_ends_ms: Option<u64>,
    keeping: Keeping,
    seen: Seen,
    watch: Watch,
    phase: Phase,
    progress: Progress,
    progress_due: bool,
    progress_sent_ms: Option<u64>,
    saved: Saved,
}

impl Attempt {
    pub(super) fn new(assigned: Assigned, now: u64) -> Self {
        Self {
            epoch: assigned.epoch,
            job: assigned.job,
            term_ms: assigned.lease_term_ms,
            max_runtime_ms: assigned.max_runtime_ms,
            is_gang: assigned.is_gang,
            is_follower: assigned.is_follower,
            fewer_steps: assigned.fewer_steps,
            epochs: assigned.epochs,
            reducer: Some(assigned.reducer),
            life: Life::Waiting,
            started: false,
            from: 0,
            deadline_ms: Some(super::leases::deadline(now, assigned.lease_term_ms)),
            stopped: None,
            runtime_ends_ms: None,
            keeping: Keeping::default(),
            seen: Seen::default(),
            watch: Watch::new(now),
            phase: Phase::Starting,
            progress: Progress {
                step: 0,
                total: 0,
                step_ms: None,
                phase: Phase::Starting,
            },
            progress_due: false,
            progress_sent_ms: None,
            saved: Saved::default(),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn begun(&self) -> Output {
        let (epoch, from) = (self.epoch, self.from);
        Output::Started { epoch, from }
    }

    /// Says once more what a leader has to know of it: that it runs, and where it could go on.
    pub(super) fn again(&mut self, out: &mut Vec<Output>) {
        if self.runs() {
            out.push(self.begun());
            let step = self.saved.again();
            self.checkpointed(step, out);
        }
    }

    pub(super) fn job(&self) -> &str {
        &self.job
    }

    pub(super) fn term_ms(&self) -> u64 {
        self.term_ms
    }

    pub(super) fn ended(&self) -> bool {
        self.life == Life::Ended
    }

    /// True until its end can be reported, or its lease is lost.
    pub(super) fn holds_lease(&self) -> bool {
        !self.ended() || self.keeping != Keeping::No
    }

    /// Its end can be reported.
    pub(super) fn kept(&mut self) {
        self.keeping = Keeping::No;
    }

    /// True from the launch to the end.
    pub(super) fn runs(&self) -> bool {
        self.started && !self.ended()
    }

    /// The lease runs until `deadline_ms`. The first such answer is what lets a trainer start.
    pub(super) fn granted(&mut self, deadline_ms: u64, now: u64, out: &mut Vec<Output>) {
        if self.ended() {
            return;
        }
        if self.life == Life::Waiting {
            self.deadline_ms = Some(deadline_ms);
            if deadline_ms > now {
                self.life = Life::Launching;
                out.push(Output::Launch {
                    epoch: self.epoch,
                    in_ms: deadline_ms - now,
                });
            }
            return;
        }
        if self
            .deadline_ms
            .is_some_and(|present| deadline_ms > present)
        {
            self.deadline_ms = Some(deadline_ms);
            self.tell_guard(now, out);
        }
    }

    pub(super) fn launched(&mut self, from: u64, now: u64, out: &mut Vec<Output>) {
        (self.started, self.from) = (true, from);
        match self.life {
            Life::Launching => {
                self.life = Life::Running;
                self.watch = Watch::new(now);
                self.runtime_ends_ms = self.max_runtime_ms.map(|limit| now.saturating_add(limit));
                self.tell_guard(now, out);
                out.push(self.begun());
            }
            // Asked to end while it was being started.
            Life::Terminating(_) => out.push(Output::Terminate(self.epoch)),
            Life::Killing(_) | Life::Ended => out.push(Output::Kill(self.epoch)),
            Life::Waiting | Life::Running | Life::Checkpointing(_) | Life::Finishing(_) => {}
        }
    }

    pub(super) fn launch_failed(
        &mut self,
        failure: Failure,
        detail: String,
        out: &mut Vec<Output>,
    ) {
        if self.ended() {
            return;
        }
        let (outcome, detail) = match self.stopped {
            Some(why) => classify::stopped_outcome(why),
            None => (Outcome::Failed(failure), detail),
        };
        self.end(outcome, detail, out);
    }

    /// Asks the attempt to end. A lost lease overtakes every gentler reason.
    pub(super) fn stop(&mut self, why: Why, grace_ms: u64, now: u64, out: &mut Vec<Output>) {
        if why == Why::LeaseLost {
            self.stopped = Some(why);
            self.keeping = Keeping::No;
        } else if self.stopped.is_some() {
            return;
        }
        let why = *self.stopped.insert(why);
        // The hosts of a gang would read the wish for a checkpoint at different steps, and wait for each other for ever.
        let grace_ms = if self.is_gang { 0 } else { grace_ms };
        match self.life {
            Life::Ended => {}
            Life::Waiting => {
                let (outcome, detail) = classify::stopped_outcome(why);
                self.end(outcome, detail, out);
            }
            Life::Launching => self.terminate(now, out),
            _ if why == Why::LeaseLost => self.kill(now, out),
            // It has saved everything, and ends by itself unless something keeps it, such as an upload that never ends.
            Life::Running if self.seen.complete => {
                self.life = Life::Finishing(now.saturating_add(grace_ms.max(TERM_MS)));
            }
            Life::Running if grace_ms > 0 && self.phase == Phase::Training => {
                self.life = Life::Checkpointing(now.saturating_add(grace_ms));
                out.push(Output::RequestCheckpoint(self.epoch));
            }
            // A save or a validation between two steps: the request is read after the next step, so it is worth waiting.
            Life::Running if grace_ms > 0 && self.progress.step > 0 => {
                self.life = Life::Checkpointing(now.saturating_add(grace_ms));
                out.push(Output::RequestCheckpoint(self.epoch));
            }
            Life::Running => self.terminate(now, out),
            Life::Checkpointing(_)
            | Life::Finishing(_)
            | Life::Terminating(_)
            | Life::Killing(_) => {}
        }
    }

    pub(super) fn alive(&mut self, now: u64) {
        self.watch.heard(now);
    }

    pub(super) fn event(&mut self, received: &Received, now: u64, out: &mut Vec<Output>) {
        if self.ended() {
            return;
        }
        self.watch.heard(now);
        if self.is_follower {
            return;
        }
        if let Some(reducer) = &mut self.reducer {
            reducer.observe(received);
        }
        match &received.event {
            Event::Ready {
                step,
                total,
                batches,
            } => {
                let epochs = self.epochs;
                let steps = epochs.and_then(|epochs| epochs.steps(*batches, *total));
                self.fewer_steps = steps.or(self.fewer_steps);
                self.seen.ready = true;
                self.phase = Phase::Training;
                self.advance(*step, *total, None);
            }
            Event::Step {
                step,
                total,
                step_ms,
                ..
            } => {
                self.seen.ready = true;
                // The same step once more (a checkpoint is due) or an older one tells nothing new.
                if *step > self.progress.step {
                    self.phase = Phase::Training;
                    if let Some(step_ms) = *step_ms {
                        self.watch.step(step_ms);
                    }
                    self.advance(*step, *total, *step_ms);
                }
            }
            Event::Stage { stage, status } => self.stage(*stage, *status),
            Event::Checkpoint { step } => {
                // What no step has reached cannot be saved, whatever is said.
                let newest = self.progress.step.max(self.from);
                self.saved.complete(step.unwrap_or(newest).min(newest));
                if matches!(self.life, Life::Checkpointing(_)) {
                    let step = self.saved.at_once();
                    self.checkpointed(step, out);
                    self.terminate(now, out);
                }
            }
            Event::Error { title, message } => {
                self.seen
                    .error
                    .get_or_insert_with(|| (title.clone(), message.clone()));
            }
            Event::Broken(broken) => {
                self.seen.broken.get_or_insert(*broken);
            }
            Event::ValidationPrompt | Event::Log | Event::Other => {}
        }
    }

    pub(super) fn exited(&mut self, exit: &Exit, out: &mut Vec<Output>) {
        if self.ended() {
            return;
        }
        // Of what follows the first part, an exit without complaint is all that can be expected.
        self.seen.complete |= self.is_follower && exit.status == ExitStatus::Code(0);
        let signalled = matches!(self.life, Life::Terminating(_) | Life::Killing(_));
        let (outcome, detail) = classify::classify(&self.seen, self.stopped, signalled, exit);
        self.end(outcome, detail, out);
    }

    /// Does what has become due.
    pub(super) fn tick(&mut self, now: u64, out: &mut Vec<Output>) {
        self.keeping.tick(now);
        self.enforce_lease(now, out);
        match self.life {
            Life::Running => {
                if self.runtime_ends_ms.is_some_and(|at| now >= at) {
                    self.stop(Why::MaxRuntime, MAX_RUNTIME_GRACE_MS, now, out);
                    self.runtime_ends_ms = None;
                } else if self.stuck_at().is_some_and(|at| now >= at) {
                    self.stopped = Some(self.stopped.unwrap_or(Why::Stuck));
                    self.terminate(now, out);
                }
            }
            Life::Checkpointing(until) | Life::Finishing(until) if now >= until => {
                self.terminate(now, out);
            }
            Life::Terminating(until) if now >= until => self.kill(now, out),
            Life::Killing(until) if now >= until => {
                let (outcome, detail) =
                    classify::stopped_outcome(self.stopped.unwrap_or(Why::Stuck));
                let detail = format!("{detail}; some of its processes could not be ended");
                self.end(outcome, detail, out);
            }
            _ => {}
        }
        if self.ended() {
            return;
        }
        let saved = self.saved.due(now);
        self.checkpointed(saved, out);
        if self.progress_due && now >= self.progress_at() {
            self.progress_due = false;
            self.progress_sent_ms = Some(now);
            out.push(Output::Progress(
                self.epoch,
                Progress {
                    phase: self.phase,
                    ..self.progress
                },
            ));
        }
    }

    pub(super) fn next_wake(&self) -> Option<u64> {
        let life = match self.life {
            Life::Ended => return None,
            Life::Waiting | Life::Launching => None,
            Life::Running => self
                .runtime_ends_ms
                .into_iter()
                .chain(self.stuck_at())
                .min(),
            Life::Checkpointing(until)
            | Life::Finishing(until)
            | Life::Terminating(until)
            | Life::Killing(until) => Some(until),
        };
        let lease = match self.life {
            Life::Terminating(_) | Life::Killing(_) => self.deadline_ms,
            _ => self.lease_warning(),
        };
        let lease = if matches!(self.life, Life::Killing(_)) {
            None
        } else {
            lease
        };
        life.into_iter()
            .chain(lease)
            .chain(self.progress_due.then(|| self.progress_at()))
            .chain(self.saved.next_wake())
            .min()
    }

    /// Ends the trainer before its lease does: SIGTERM a margin before the deadline, SIGKILL at it.
    fn enforce_lease(&mut self, now: u64, out: &mut Vec<Output>) {
        let (Some(warning), Some(deadline)) = (self.lease_warning(), self.deadline_ms) else {
            return;
        };
        if now < warning {
            return;
        }
        match self.life {
            Life::Waiting => {
                let (outcome, detail) = classify::stopped_outcome(Why::LeaseLost);
                self.end(outcome, detail, out);
            }
            Life::Launching => {
                self.stopped = Some(Why::LeaseLost);
                self.life = Life::Killing(now + KILL_MS);
                out.push(Output::Kill(self.epoch));
            }
            Life::Running | Life::Checkpointing(_) | Life::Finishing(_) => {
                self.stopped = Some(Why::LeaseLost);
                self.terminate(now, out);
            }
            Life::Terminating(_) if now >= deadline => self.kill(now, out),
            Life::Terminating(_) | Life::Killing(_) | Life::Ended => {}
        }
    }

    /// The moment from which silence counts as stuck. What follows another host's part says nothing: that one is watched.
    fn stuck_at(&self) -> Option<u64> {
        (!self.is_follower).then(|| self.watch.stuck_at(self.phase))
    }

    fn lease_warning(&self) -> Option<u64> {
        self.deadline_ms
            .map(|deadline| deadline.saturating_sub(margin(self.term_ms)))
    }

    fn tell_guard(&self, now: u64, out: &mut Vec<Output>) {
        if let Some(deadline) = self.deadline_ms {
            out.push(Output::Deadline {
                epoch: self.epoch,
                in_ms: deadline.saturating_sub(now),
            });
        }
    }

    fn terminate(&mut self, now: u64, out: &mut Vec<Output>) {
        self.life = Life::Terminating(now + TERM_MS);
        out.push(Output::Terminate(self.epoch));
    }

    fn kill(&mut self, now: u64, out: &mut Vec<Output>) {
        if !matches!(self.life, Life::Killing(_)) {
            self.life = Life::Killing(now + KILL_MS);
            out.push(Output::Kill(self.epoch));
        }
    }

    fn checkpointed(&self, step: Option<u64>, out: &mut Vec<Output>) {
        let epoch = self.epoch;
        out.extend(step.map(|step| Output::Checkpointed { epoch, step }));
    }

    fn stage(&mut self, stage: Stage, status: StageStatus) {
        let stepping = if self.seen.ready {
            Phase::Training
        } else {
            Phase::Loading
        };
        self.seen.complete |= (stage, status) == (Stage::TrainingComplete, StageStatus::Completed);
        let phase = self.phase.after(stage, status, stepping);
        if phase != self.phase {
            self.phase = phase;
            self.progress_due = true;
        }
    }

    fn advance(&mut self, step: u64, total: u64, step_ms: Option<f64>) {
        let total = match (total, self.fewer_steps) {
            (0, _) => self.progress.total,
            (total, Some(fewer)) if total == fewer.announced && step <= fewer.made => fewer.made,
            (total, _) => total,
        };
        self.progress = Progress {
            step,
            total,
            step_ms: step_ms.or(self.progress.step_ms),
            phase: self.phase,
        };
        self.progress_due = true;
    }

    fn progress_at(&self) -> u64 {
        self.progress_sent_ms
            .map_or(0, |sent| sent + PROGRESS_EVERY_MS)
    }

    fn end(&mut self, outcome: Outcome, detail: String, out: &mut Vec<Output>) {
        self.life = Life::Ended;
        let step = self.saved.at_once();
        self.checkpointed(step, out);
        if self.stopped != Some(Why::LeaseLost) && outcome != Outcome::LeaseExpired {
            self.keeping = Keeping::Begins;
        }
        let samples = self.reducer.take().map(Reducer::finish).unwrap_or_default();
        let end = End {
            outcome,
            detail,
            step: self.progress.step,
            samples,
        };
        out.push(Output::End(self.epoch, Box::new(end)));
    }
}
