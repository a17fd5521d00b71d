//! What every attempt on this host does next: a pure machine from inputs and a clock value to outputs.
//!
//! It has no thread, file, socket or clock, so a test can run years of leases, stops and crashes in a second.
//! The loop in `work.rs` does what it says and tells it what came of it.

mod attempt;
mod classify;
mod keeping;
mod leases;
mod life;
mod phase;
mod saved;
mod steps;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stepcast_records::Sample;

use self::attempt::Attempt;
pub use self::keeping::KEEPING_MS;
use self::leases::Leases;
pub use self::steps::{Epochs, FewerSteps};
use crate::event::Received;
use crate::reduce::Reducer;

/// The fencing token of an attempt: it only grows, and names the attempt in everything the worker says.
pub type Epoch = u64;

/// Attempts held at once. One GPU runs at most one, and eight GPUs a host is common; the rest are ended ones whose
/// report is not acknowledged yet.
pub const MAX_ATTEMPTS: usize = 256;

/// Progress goes up at most this often for one attempt: a person cannot read faster, and the leader keeps it in memory only.
pub const PROGRESS_EVERY_MS: u64 = 1_000;

/// The machine.
#[derive(Debug, Default)]
pub struct Agent {
    attempts: BTreeMap<Epoch, Attempt>,
    leases: Leases,
    draining: bool,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The leader gives this worker an attempt.
    Assigned(Box<Assigned>),
    /// The leader's answer to one [`Output::Renew`].
    Renewed {
        /// The number of the renewal that is answered.
        renewal: u64,
        /// The epochs that still hold their lease.
        epochs: Vec<Epoch>,
        /// How long each lease runs from the moment the leader handled the renewal.
        term_ms: u64,
    },
    /// The stream to the leader is open (again): renew at once, and say once more what runs and what it has saved.
    Connected,
    /// The leader asks for an attempt's end.
    Stop {
        /// Which attempt.
        epoch: Epoch,
        /// Why.
        why: Why,
        /// How long the trainer may take to save a checkpoint first; 0 for none.
        grace_ms: u64,
    },
    /// This worker is to take nothing new and to end what it runs.
    Drain {
        /// How long each trainer may take to save a checkpoint first.
        grace_ms: u64,
    },
    /// The trainer process runs.
    Launched {
        /// Which attempt.
        epoch: Epoch,
        /// The step of the checkpoint that it goes on from, 0 for none.
        from: u64,
    },
    /// The trainer process could not be started.
    LaunchFailed {
        /// Which attempt.
        epoch: Epoch,
        /// What kind of failure.
        failure: Failure,
        /// One redacted sentence.
        detail: String,
    },
    /// A webhook of the attempt's trainer.
    Event(Epoch, Received),
    /// The trainer printed something: a sign of life.
    Output(Epoch),
    /// The trainer and every process it started are gone.
    Exited {
        /// Which attempt.
        epoch: Epoch,
        /// How it ended.
        exit: Exit,
    },
    /// The attempt's end is on disk, and the leader is told of it from now on.
    Kept(Epoch),
    /// The leader has the attempt's end in its log (or knows a newer epoch): forget it.
    Acknowledged(Epoch),
    /// Time passed.
    Tick,
}

/// What an attempt needs to know about itself.
#[derive(Debug)]
pub struct Assigned {
    /// The attempt's fencing token.
    pub epoch: Epoch,
    /// The job it is a try of; a later epoch of the same job ends an earlier one here.
    pub job: String,
    /// How long a lease runs, before the first renewal has said so.
    pub lease_term_ms: u64,
    /// Longest time the trainer may run, if the job has such a limit.
    pub max_runtime_ms: Option<u64>,
    /// Whether it runs on several hosts: then no checkpoint can be asked for.
    pub is_gang: bool,
    /// Whether another host speaks for it. Its trainer says nothing, so its exit alone tells how it ended.
    pub is_follower: bool,
    /// What the trainer's own total is worth, if it is known to announce too much.
    pub fewer_steps: Option<FewerSteps>,
    /// The same once the trainer has said how many batches an epoch has, if the run's length is in epochs.
    pub epochs: Option<Epochs>,
    /// Collects the step times of this attempt.
    pub reducer: Reducer,
}

/// Why an attempt is ended before its trainer is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A person cancelled the job.
    Cancelled,
    /// The scheduler wants the GPUs for something else.
    Preempted,
    /// This worker is being drained or stopped.
    Draining,
    /// The job's own limit on running time was reached.
    MaxRuntime,
    /// The job has cost as much as it may.
    BudgetSpent,
    /// No sign of life for longer than the phase allows.
    Stuck,
    /// Another host's part of it has ended.
    PartOver,
    /// The lease ended, was refused, or belongs to a later epoch.
    LeaseLost,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// The last lines it printed, redacted, oldest first.
    pub tail: Vec<String>,
}

/// Exit code or signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The guard itself was lost, so nobody saw the end; the processes are gone all the same.
    Unseen,
    /// What watched it here has failed, so it was ended; the tail says how.
    Unwatched,
}

/// What the loop shall do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask the leader to renew the leases of these epochs.
    Renew {
        /// Comes back in the answer.
        renewal: u64,
        /// The epochs to renew.
        epochs: Vec<Epoch>,
    },
    /// Prepare the attempt's directory and start its trainer under a guard, which kills it at the deadline from the very
    /// beginning: whoever started it may be stopped before it can say so.
    Launch {
        /// Which attempt.
        epoch: Epoch,
        /// Milliseconds from now until the deadline.
        in_ms: u64,
    },
    /// Tell the leader that the trainer runs.
    Started {
        /// Which attempt.
        epoch: Epoch,
        /// The step of the checkpoint that it goes on from, 0 for none.
        from: u64,
    },
    /// Have the guard kill the trainer this long from now, unless told a later time before.
    Deadline {
        /// Which attempt.
        epoch: Epoch,
        /// Milliseconds from now.
        in_ms: u64,
    },
    /// Ask the trainer, through its signal file, to save a checkpoint after the present step.
    RequestCheckpoint(Epoch),
    /// Send SIGTERM to all of the trainer's processes.
    Terminate(Epoch),
    /// Send SIGKILL to all of the trainer's processes.
    Kill(Epoch),
    /// Tell the leader how far the attempt is.
    Progress(Epoch, Progress),
    /// Tell the leader that a checkpoint of this step is complete. Of many in a short time only the newest is told.
    Checkpointed {
        /// Which attempt.
        epoch: Epoch,
        /// The checkpoint's step.
        step: u64,
    },
    /// The attempt is over: keep its samples and its end on disk, say so ([`Input::Kept`]), and report it until acknowledged.
    /// Its lease is kept until then, for as long as [`KEEPING_MS`], unless it was lost.
    End(Epoch, Box<End>),
    /// The end is acknowledged: remove what the attempt left behind.
    Clean(Epoch),
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps there will be, 0 when not known yet.
    pub total: u64,
    /// The last step's time in milliseconds.
    pub step_ms: Option<f64>,
    /// What the trainer is doing.
    pub phase: Phase,
}

/// What a trainer is doing, as far as its events tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Started, nothing heard yet.
    Starting,
    /// Filling its caches.
    Caching,
    /// Loading the model.
    Loading,
    /// Stepping.
    Training,
    /// Rendering validation prompts.
    Validating,
    /// Saving a checkpoint or the final model.
    Saving,
    /// Done; only the exit is missing.
    Complete,
}

/// How an attempt ended, and what it measured.
#[derive(Debug, PartialEq)]
pub struct End {
    /// The verdict.
    pub outcome: Outcome,
    /// Why, in one or a few redacted lines; empty after a success.
    pub detail: String,
    /// The last step that was done.
    pub step: u64,
    /// Step and prompt times that may be contributed.
    pub samples: Vec<Sample>,
}

/// The verdict on an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The trainer said `training_complete` and exited with 0; or exited with 0, where another host speaks for it.
    Succeeded,
    /// Ended because the job was cancelled.
    Cancelled,
    /// Stopped because it no longer held its lease.
    LeaseExpired,
    /// Anything else.
    Failed(Failure),
}

/// Kinds of failure, as the scheduler tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The trainer refuses the configuration; trying again would change nothing.
    ConfigInvalid,
    /// GPU or host memory ran out.
    OutOfMemory,
    /// The trainer failed in its own way.
    TrainerError,
    /// The trainer gave no sign of life for too long.
    Stuck,
    /// The worker process ended while the attempt ran.
    WorkerRestarted,
    /// The job's own time limit was reached.
    MaxRuntime,
    /// The job's own limit on money was reached.
    BudgetSpent,
    /// Ended for other work, or because the worker drains.
    Preempted,
    /// The trainer could not be started.
    LaunchFailed,
    /// The job's files are gone from the staging area.
    StagingMissing,
    /// Nobody holds the job's credentials any more: they have to be given again.
    CredentialsGone,
}

impl Agent {
    /// Takes one input at `now` (milliseconds of a monotonic clock) and says what to do, in order.
    pub fn handle(&mut self, input: Input, now: u64) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Assigned(assigned) => self.assigned(*assigned, now, &mut out),
            Input::Renewed {
                renewal,
                epochs,
                term_ms,
            } => self.renewed(renewal, &epochs, term_ms, now, &mut out),
            Input::Connected => {
                self.leases.due_at_once();
                // The leader may be another one, and what was said to the last one may be lost.
                for attempt in self.attempts.values_mut() {
                    attempt.again(&mut out);
                }
            }
            Input::Drain { grace_ms } => {
                self.draining = true;
                for attempt in self.attempts.values_mut() {
                    attempt.stop(Why::Draining, grace_ms, now, &mut out);
                }
            }
            Input::Acknowledged(epoch) => {
                if self.attempts.get(&epoch).is_some_and(Attempt::ended) {
                    self.attempts.remove(&epoch);
                    out.push(Output::Clean(epoch));
                }
            }
            Input::Kept(epoch) => self.with(epoch, Attempt::kept),
            Input::Tick => {}
            Input::Stop {
                epoch,
                why,
                grace_ms,
            } => self.with(epoch, |a| a.stop(why, grace_ms, now, &mut out)),
            Input::Launched { epoch, from } => {
                self.with(epoch, |a| a.launched(from, now, &mut out));
            }
            Input::LaunchFailed {
                epoch,
                failure,
                detail,
            } => {
                self.with(epoch, |a| a.launch_failed(failure, detail, &mut out));
            }
            Input::Event(epoch, received) => {
                self.with(epoch, |a| a.event(&received, now, &mut out))
            }
            Input::Output(epoch) => self.with(epoch, |a| a.alive(now)),
            Input::Exited { epoch, exit } => self.with(epoch, |a| a.exited(&exit, &mut out)),
        }
        for attempt in self.attempts.values_mut() {
            attempt.tick(now, &mut out);
        }
        self.renew(now, &mut out);
        out
    }

    /// The moment at which the machine wants a [`Input::Tick`], if nothing else happens before.
    pub fn next_wake(&self) -> Option<u64> {
        let attempts = self.attempts.values().filter_map(Attempt::next_wake);
        attempts
            .chain(
                self.holds_lease()
                    .then(|| self.leases.next_renewal())
                    .flatten(),
            )
            .min()
    }

    /// True when there is nothing left to run or to report.
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    fn with(&mut self, epoch: Epoch, act: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.attempts.get_mut(&epoch) {
            act(attempt);
        }
    }

    fn assigned(&mut self, assigned: Assigned, now: u64, out: &mut Vec<Output>) {
        if self.attempts.contains_key(&assigned.epoch) {
            return; // Sent again after a reconnect.
        }
        let same_job = self
            .attempts
            .values()
            .filter(|attempt| attempt.job() == assigned.job);
        if same_job
            .map(Attempt::epoch)
            .any(|epoch| epoch > assigned.epoch)
        {
            return; // The leader has moved on; this is a late copy.
        }
        for older in self
            .attempts
            .values_mut()
            .filter(|attempt| attempt.job() == assigned.job)
        {
            older.stop(Why::LeaseLost, 0, now, out);
        }
        let epoch = assigned.epoch;
        let mut attempt = Attempt::new(assigned, now);
        if self.draining {
            attempt.stop(Why::Draining, 0, now, out);
        } else if self.attempts.len() >= MAX_ATTEMPTS {
            let detail = "the worker holds too many unreported attempts".to_owned();
            attempt.launch_failed(Failure::LaunchFailed, detail, out);
        }
        if !attempt.ended() {
            self.leases.due_at_once();
        }
        self.attempts.insert(epoch, attempt);
    }

    fn renewed(
        &mut self,
        renewal: u64,
        granted: &[Epoch],
        term_ms: u64,
        now: u64,
        out: &mut Vec<Output>,
    ) {
        let Some(asked) = self.leases.answered(renewal, term_ms) else {
            return;
        };
        for epoch in asked.epochs {
            let Some(attempt) = self.attempts.get_mut(&epoch) else {
                continue;
            };
            if granted.contains(&epoch) {
                attempt.granted(leases::deadline(asked.sent_ms, term_ms), now, out);
            } else {
                attempt.stop(Why::LeaseLost, 0, now, out);
            }
        }
    }

    fn renew(&mut self, now: u64, out: &mut Vec<Output>) {
        let held = || self.attempts.values().filter(|a| a.holds_lease());
        let Some(term_ms) = held().map(Attempt::term_ms).min() else {
            return;
        };
        let epochs: Vec<Epoch> = held().map(Attempt::epoch).collect();
        if let Some(renewal) = self.leases.ask(&epochs, term_ms, now) {
            out.push(Output::Renew { renewal, epochs });
        }
    }

    fn holds_lease(&self) -> bool {
        self.attempts.values().any(Attempt::holds_lease)
    }
}
