//! The cluster run forward: the real state and the real plan under a clock of their own, as fast as they can.
//!
//! Nothing is left out but the world: a job takes as long as [`Truth`] says, workers stay, trainers do not fail, and what
//! is asked to stop has saved its last step and stops at once. So what a simulation shows, and when a job is said to
//! start, is what the same rules would do.

use std::collections::{BTreeMap, BTreeSet};

use stepcast_records::Hardware;
use stepcast_records::simpletuner::Length;

use crate::ids::{Epoch, JobId};
use crate::model::{Attempt, AttemptState, FailureReason, Job, JobSpec, Outcome};
use crate::placement::{ForecastSource, Plan, plan};
use crate::reply::Reply;
use crate::{Command, Envelope, Rejection, State};

/// How long things really take, as opposed to what is expected of them.
pub trait Truth {
    /// How long the whole of a job takes on hardware, in milliseconds; `None` if it would never end there.
    fn run_ms(&self, job: &Job, hardware: Hardware) -> Option<u64>;

    /// How long a restart takes before the first new step, in milliseconds.
    fn restart_ms(&self) -> u64;
}

/// A cluster on its way forward.
pub struct Forward<'a> {
    state: State,
    forecast: &'a dyn ForecastSource,
    truth: &'a dyn Truth,
    now_ms: u64,
    index: u64,
    /// What runs, by epoch.
    running: BTreeMap<Epoch, Running>,
    /// When what runs is done.
    ends: BTreeSet<(u64, Epoch)>,
    /// Waiting jobs are looked at again this often, in milliseconds, although nothing happens; 0 for never.
    pub look_every_ms: u64,
    next_look_ms: u64,
}

/// An attempt that runs.
#[derive(Debug, Clone, Copy)]
struct Running {
    job: JobId,
    /// The part that was done when it was placed.
    begun: f64,
    /// When the first new step begins.
    works_ms: u64,
    /// How long all of the job would take here.
    run_ms: u64,
}

/// What has come of one look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// What was planned.
    pub plan: Plan,
    /// What was refused of it: nothing, unless plan and state differ in opinion.
    pub refused: usize,
}

impl<'a> Forward<'a> {
    /// Begins at `now_ms` with a state, whose running attempts are taken to be as far as time tells.
    #[must_use]
    pub fn new(
        state: State,
        forecast: &'a dyn ForecastSource,
        truth: &'a dyn Truth,
        now_ms: u64,
    ) -> Self {
        let now_ms = now_ms.max(state.newest_stamp_ms());
        let index = state.applied_index();
        let mut forward = Self {
            state,
            forecast,
            truth,
            now_ms,
            index,
            running: BTreeMap::new(),
            ends: BTreeSet::new(),
            look_every_ms: 0,
            next_look_ms: u64::MAX,
        };
        let live: Vec<Epoch> = forward.state.leases().map(|lease| lease.epoch).collect();
        live.into_iter().for_each(|epoch| forward.follow(epoch));
        forward
    }

    /// The state as it is by now.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The time, by stamp.
    #[must_use]
    pub const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Puts something into the log at the time that it is.
    ///
    /// # Errors
    /// What the state says against it.
    pub fn apply(&mut self, command: Command) -> Result<Reply, Rejection> {
        self.index += 1;
        let envelope = Envelope::new(self.now_ms, None, command);
        self.state.apply(self.index, &envelope).reply
    }

    /// Submits a job now.
    ///
    /// # Errors
    /// What the state says against it.
    pub fn submit(&mut self, spec: JobSpec) -> Result<JobId, Rejection> {
        let spec = Box::new(spec);
        match self.apply(Command::SubmitJob { spec })? {
            Reply::JobSubmitted { job } => Ok(job),
            _ => Err(Rejection::OutOfOrder),
        }
    }

    /// When something happens by itself: what runs ends, what was held is not held any more, or it is time for a look.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        let ends = self.ends.first().map(|(ms, _)| *ms);
        let held = self.state.pending().map(|job| job.not_before_ms);
        let freed = held.filter(|ms| *ms > self.now_ms).min();
        let look = (self.next_look_ms < u64::MAX && self.state.unfinished_count() > 0)
            .then_some(self.next_look_ms);
        ends.into_iter().chain(freed).chain(look).min()
    }

    /// Goes on to a time and ends what is done by then.
    pub fn go_on(&mut self, to_ms: u64) {
        self.now_ms = self.now_ms.max(to_ms);
        while let Some(&(at_ms, epoch)) = self.ends.first() {
            if at_ms > self.now_ms {
                break;
            }
            self.ends.remove(&(at_ms, epoch));
            if let Some(running) = self.running.remove(&epoch) {
                let steps = self.steps(running.job);
                self.end(running.job, epoch, Outcome::Succeeded, steps);
            }
        }
    }

    /// One look at the cluster: what is planned is done. What yields has stopped when this returns, so look again while
    /// there is anything to do.
    pub fn look(&mut self, max: usize) -> Looked {
        if self.look_every_ms > 0 {
            self.next_look_ms = self.now_ms + self.look_every_ms;
        }
        let plan = plan(&self.state, self.forecast, self.now_ms, max);
        let mut refused = 0;
        for preemptions in plan
            .preemptions
            .chunks(crate::model::limits::PREEMPTIONS_PER_COMMAND)
        {
            let preemptions = preemptions.to_vec();
            let reply = self.apply(Command::Preempt {
                preemptions: preemptions.clone(),
            });
            let Ok(Reply::Preempted { outcomes }) = reply else {
                refused += preemptions.len();
                continue;
            };
            for (preemption, outcome) in preemptions.iter().zip(outcomes) {
                match outcome {
                    Ok(()) => self.stop(preemption.job, preemption.epoch),
                    Err(_) => refused += 1,
                }
            }
        }
        for placements in plan.placements.chunks(Epoch::PLACEMENTS_MAX as usize) {
            let reply = self.apply(Command::Place {
                placements: placements.to_vec(),
            });
            let Ok(Reply::Placed { outcomes }) = reply else {
                refused += placements.len();
                continue;
            };
            for outcome in outcomes {
                match outcome {
                    Ok(epoch) => self.follow(epoch),
                    Err(_) => refused += 1,
                }
            }
        }
        Looked { plan, refused }
    }

    /// Says when an attempt that has begun will be done.
    fn follow(&mut self, epoch: Epoch) {
        let Some((job, attempt)) = self.state.live_attempt(epoch) else {
            return;
        };
        let (id, begun_ms) = (job.id, attempt.placed_ms);
        let count = u8::try_from(attempt.gpus.len()).unwrap_or(u8::MAX);
        let hardware = Hardware::new(attempt.gpu, count);
        let run_ms = hardware.and_then(|hardware| self.truth.run_ms(job, hardware));
        let restart_ms = if job.attempts.len() > 1 {
            self.truth.restart_ms()
        } else {
            0
        };
        let begun = job.checkpoint_step() as f64 / self.steps(id).max(1) as f64;
        let works_ms = begun_ms.saturating_add(restart_ms);
        let is_new = attempt.state == AttemptState::Placed;
        let Some(run_ms) = run_ms else {
            return;
        };
        let left_ms = (run_ms as f64 * (1.0 - begun).max(0.0)).ceil() as u64;
        let ends_ms = works_ms.saturating_add(left_ms).max(self.now_ms + 1);
        let running = Running {
            job: id,
            begun,
            works_ms,
            run_ms,
        };
        self.running.insert(epoch, running);
        self.ends.insert((ends_ms, epoch));
        if is_new {
            let _ = self.apply(Command::StartAttempt { job: id, epoch });
        }
    }

    /// Stops what was asked to: its last step is saved.
    fn stop(&mut self, job: JobId, epoch: Epoch) {
        let Some(running) = self.running.remove(&epoch) else {
            return;
        };
        self.ends.retain(|(_, other)| *other != epoch);
        let steps = self.steps(job);
        let step = (running.done(self.now_ms) * steps as f64) as u64;
        let _ = self.apply(Command::Checkpoint { job, epoch, step });
        self.end(job, epoch, Outcome::Failed(FailureReason::Preempted), step);
    }

    fn end(&mut self, job: JobId, epoch: Epoch, outcome: Outcome, step: u64) {
        let _ = self.apply(Command::EndAttempt {
            job,
            epoch,
            outcome,
            step,
            detail: String::new(),
        });
    }

    /// The part of a job that is done by now, where it runs.
    #[must_use]
    pub fn done(&self, attempt: &Attempt) -> Option<f64> {
        Some(self.running.get(&attempt.epoch)?.done(self.now_ms))
    }

    fn steps(&self, job: JobId) -> u64 {
        let Some(job) = self.state.open_job(job) else {
            return 0;
        };
        match job.spec.workload.length {
            Length::Steps(steps) => steps,
            Length::Epochs(_) => {
                let plan = job.spec.workload.plan(job.spec.gpu_count);
                plan.map_or(0, |plan| plan.steps_total)
            }
        }
    }

    /// Whether anything is left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let counts = self.state.job_counts();
        counts.pending + counts.running + counts.cancelling == 0
    }
}

impl Running {
    fn done(&self, now_ms: u64) -> f64 {
        let worked_ms = now_ms.saturating_sub(self.works_ms);
        (self.begun + worked_ms as f64 / self.run_ms.max(1) as f64).min(1.0)
    }
}
