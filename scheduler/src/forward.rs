//! The cluster run forward: the real state and the real plan under a clock of their own, as fast as they can.
//!
//! Nothing is left out but the world: a job takes as long as [`Truth`] says, workers stay, trainers do not fail, and what
//! is asked to stop has saved its last step and stops at once. So what a simulation shows, and when a job is said to
//! start, is what the same rules would do.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat;

use stepcast_records::Hardware;
use stepcast_records::simpletuner::Length;

use crate::ids::{Epoch, JobId, WorkerId};
use crate::model::limits::EXPIRED_MAX;
use crate::model::{
    Attempt, AttemptState, FailureReason, Job, JobSpec, JobState, Outcome, PartState, WorkerState,
};
use crate::placement::{ForecastSource, Plan, Planner, begun, part_of};
use crate::reply::Reply;
use crate::{Command, Envelope, Rejection, State};

/// How long things really take, as opposed to what is expected of them.
pub trait Truth {
    /// How long the whole of a job takes on hardware, in milliseconds; `None` if it would never end there.
    fn run_ms(&self, job: &Job, hardware: Hardware) -> Option<u64>;

    /// How long a restart takes before the first new step, in milliseconds.
    fn restart_ms(&self) -> u64;

    /// How much longer an attempt takes that runs already, in milliseconds; `None` where only the time that it has run
    /// tells how far it is.
    fn left_ms(&self, job: &Job, attempt: &Attempt, now_ms: u64) -> Option<u64> {
        let _ = (job, attempt, now_ms);
        None
    }
}

/// A cluster on its way forward.
pub struct Forward<'a> {
    state: State,
    forecast: &'a dyn ForecastSource,
    truth: &'a dyn Truth,
    /// What one look knows the next does.
    planner: Planner,
    now_ms: u64,
    index: u64,
    /// What runs, by epoch.
    running: BTreeMap<Epoch, Running>,
    /// When what runs is done.
    ends: BTreeSet<(u64, Epoch)>,
    /// Waiting jobs are looked at again this often, in milliseconds, although nothing happens; 0 for never.
    pub look_every_ms: u64,
    /// Whether what has to end by its age does, as in a cluster; if not, jobs wait until they have run, and none is
    /// forgotten.
    pub sweeps: bool,
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
    /// When it is done, unless something ends it before.
    ends_ms: u64,
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
            planner: Planner::default(),
            now_ms,
            index,
            running: BTreeMap::new(),
            ends: BTreeSet::new(),
            look_every_ms: 0,
            sweeps: true,
            next_look_ms: u64::MAX,
        };
        let live: Vec<Epoch> = forward.state.leases().map(|lease| lease.epoch).collect();
        live.into_iter().for_each(|epoch| forward.follow(epoch));
        forward.expire();
        forward.stop_asked();
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
        let stops = matches!(
            command,
            Command::DrainWorker { .. }
                | Command::RevokeWorkerToken { .. }
                | Command::CancelJob { .. }
                | Command::CancelArray { .. }
        );
        self.index += 1;
        let envelope = Envelope::new(self.now_ms, None, command);
        let reply = self.state.apply(self.index, &envelope).reply?;
        if stops {
            self.stop_asked();
        }
        Ok(reply)
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

    /// When something happens by itself: what runs ends or has to, what has waited as long as anything may ends, what was
    /// held is not held any more, teams have money for another period, or it is time for a look.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        let ends = self.ends.first().map(|(ms, _)| *ms);
        let deadline = self.first_sweep_ms();
        let held = self.state.pending().map(|job| job.not_before_ms);
        let freed = held.filter(|ms| *ms > self.now_ms).min();
        let look = (self.next_look_ms < u64::MAX && self.state.unfinished_count() > 0)
            .then_some(self.next_look_ms);
        let own = ends.into_iter().chain(deadline).chain(freed).chain(look);
        own.chain(self.next_period_ms()).min()
    }

    /// When the first attempt has to be asked to stop, or the first job has waited as long as any may.
    fn first_sweep_ms(&self) -> Option<u64> {
        let state = &self.state;
        let firsts = [state.first_deadline_ms(), state.first_too_old_ms()];
        firsts.into_iter().flatten().filter(|_| self.sweeps).min()
    }

    /// When the budget of a team begins anew that a waiting job may be held up by.
    fn next_period_ms(&self) -> Option<u64> {
        if self.state.pending_count() == 0 {
            return None;
        }
        let teams = self.state.teams();
        let budgets = teams.filter_map(|team| team.rules.budget);
        budgets
            .filter_map(|budget| budget.period.next_ms(self.now_ms))
            .min()
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
        // Each sweep gives more money, asks to stop, or ends what has waited for too long, so none of them stays.
        let most = self.state.leases().len() + self.state.pending_count();
        for _ in 0..=most {
            let due = self.first_sweep_ms();
            if due.is_none_or(|ms| ms > self.now_ms) || self.apply(Command::Sweep).is_err() {
                break;
            }
            self.stop_asked();
        }
    }

    /// When an attempt of a job that runs is done, unless it has to end before.
    #[must_use]
    pub fn ends_ms(&self, job: JobId) -> Option<u64> {
        let attempt = self.state.open_job(job)?.live_attempt()?;
        let running = self.running.get(&attempt.epoch)?;
        let deadline = attempt.deadline.map_or(u64::MAX, |deadline| deadline.at_ms);
        (running.ends_ms < u64::MAX && running.ends_ms <= deadline).then_some(running.ends_ms)
    }

    /// Gives up what runs on workers that are lost.
    fn expire(&mut self) {
        let lost = self.state.workers();
        let lost = lost.filter(|worker| matches!(worker.state, WorkerState::Lost { .. }));
        let leases = lost.flat_map(|worker| self.state.leases_on(worker.id).zip(repeat(worker.id)));
        let leases = leases.map(|(lease, worker)| (lease.job, lease.epoch, worker));
        let (parts, whole): (Vec<_>, Vec<_>) =
            leases.partition(|(_, epoch, _)| self.is_gang(*epoch));
        for expired in whole.chunks(EXPIRED_MAX) {
            let expired = expired.iter().map(|(job, epoch, _)| (*job, *epoch));
            let _ = self.apply(Command::ExpireLeases {
                expired: expired.collect(),
            });
        }
        for expired in parts.chunks(EXPIRED_MAX) {
            let _ = self.apply(Command::ExpireParts {
                expired: expired.to_vec(),
            });
        }
        let state = &self.state;
        self.running
            .retain(|epoch, _| state.lease(*epoch).is_some());
        self.ends.retain(|(_, epoch)| state.lease(*epoch).is_some());
    }

    /// Stops what was asked to.
    fn stop_asked(&mut self) {
        let leases = self.state.leases().map(|lease| lease.epoch);
        let asked = leases.filter(|epoch| {
            let live = self.state.live_attempt(*epoch);
            live.is_some_and(|(job, attempt)| {
                attempt.stop.is_some() || job.state == JobState::Cancelling
            })
        });
        let asked: Vec<(JobId, Epoch)> = asked
            .filter_map(|epoch| Some((self.state.lease(epoch)?.job, epoch)))
            .collect();
        for (job, epoch) in asked {
            self.stop(job, epoch);
        }
    }

    /// One look at the cluster: what is planned is done. What yields has stopped when this returns, so look again while
    /// there is anything to do.
    pub fn look(&mut self, max: usize) -> Looked {
        if self.look_every_ms > 0 {
            self.next_look_ms = self.now_ms.saturating_add(self.look_every_ms);
        }
        let plan = self
            .planner
            .plan(&self.state, self.forecast, self.now_ms, max);
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

    /// Says of an attempt that was placed where its job's checkpoint is not what its worker will say.
    fn begin_anew(&mut self, epoch: Epoch) {
        let live = self.state.live_attempt(epoch);
        let live = live.filter(|(job, attempt)| {
            let is_new = attempt.state == AttemptState::Placed;
            is_new && self.state.begins_anew_on(job, attempt.worker)
        });
        if let Some(job) = live.map(|(job, _)| job.id) {
            let step = 0;
            let _ = self.apply(Command::GoOnFrom { job, epoch, step });
        }
    }

    /// Says when an attempt that has begun will be done.
    fn follow(&mut self, epoch: Epoch) {
        self.begin_anew(epoch);
        let Some((job, attempt)) = self.state.live_attempt(epoch) else {
            return;
        };
        let id = job.id;
        let count = u8::try_from(attempt.gpus.len()).unwrap_or(u8::MAX);
        let run_ms = if attempt.gang.is_some() {
            // Nobody knows how long several hosts take together, but what they have shown themselves.
            self.truth.left_ms(job, attempt, self.now_ms)
        } else {
            let hardware = Hardware::new(attempt.gpu, count);
            let run_ms = hardware.and_then(|hardware| self.truth.run_ms(job, hardware));
            // Where nothing is known of such runs, this one may have shown what is left of it.
            run_ms.or_else(|| self.truth.left_ms(job, attempt, self.now_ms))
        };
        let is_new = attempt.state == AttemptState::Placed;
        if let Some(run_ms) = run_ms {
            let running = self.running(job, attempt, run_ms);
            self.running.insert(epoch, running);
            self.ends.insert((running.ends_ms, epoch));
        }
        if is_new {
            let workers = self.parts(epoch);
            if workers.is_empty() {
                let _ = self.apply(Command::StartAttempt { job: id, epoch });
            }
            for worker in workers {
                let job = id;
                let _ = self.apply(Command::StartPart { job, epoch, worker });
            }
        }
    }

    fn is_gang(&self, epoch: Epoch) -> bool {
        let live = self.state.live_attempt(epoch);
        live.is_some_and(|(_, attempt)| attempt.gang.is_some())
    }

    /// The workers of a gang whose parts have not ended; none for what runs on one host.
    fn parts(&self, epoch: Epoch) -> Vec<WorkerId> {
        let live = self
            .state
            .live_attempt(epoch)
            .filter(|_| self.is_gang(epoch));
        let parts = live.iter().flat_map(|(_, attempt)| attempt.parts());
        parts
            .filter(|part| part.state != PartState::Ended)
            .map(|part| part.worker)
            .collect()
    }

    /// How far an attempt is, and when it is done, if all of its job takes `run_ms` where it runs.
    fn running(&self, job: &Job, attempt: &Attempt, run_ms: u64) -> Running {
        let restart_ms = if job.attempts.len() > 1 {
            self.truth.restart_ms()
        } else {
            0
        };
        let since_ms = attempt.started_ms.unwrap_or(attempt.placed_ms);
        let mut running = Running {
            job: job.id,
            begun: begun(job, attempt),
            works_ms: since_ms.saturating_add(restart_ms),
            run_ms,
            ends_ms: 0,
        };
        let reached = part_of(job, attempt.checkpoint_step);
        if attempt.state != AttemptState::Placed {
            if let Some(left_ms) = self.truth.left_ms(job, attempt, self.now_ms) {
                // What is done by now follows from what is left.
                running.run_ms = run_ms.max(left_ms).max(1);
                running.begun = 1.0 - left_ms as f64 / running.run_ms as f64;
                running.works_ms = self.now_ms;
                running.ends_ms = self.now_ms.saturating_add(left_ms.max(1));
                return running;
            }
            if reached > running.done(self.now_ms) {
                // A checkpoint tells of more than the time does.
                (running.begun, running.works_ms) = (reached, self.now_ms);
            }
        }
        let left_ms = (running.run_ms as f64 * (1.0 - running.begun).max(0.0)).ceil() as u64;
        running.ends_ms = running
            .works_ms
            .saturating_add(left_ms)
            .max(self.now_ms.saturating_add(1));
        running
    }

    /// Stops what was asked to: its last step is saved.
    fn stop(&mut self, job: JobId, epoch: Epoch) {
        let kept = self.state.open_job(job).map_or(0, Job::checkpoint_step);
        let step = match self.running.remove(&epoch) {
            Some(running) => {
                self.ends.remove(&(running.ends_ms, epoch));
                let steps = self.steps(job);
                let step = ((running.done(self.now_ms) * steps as f64) as u64).max(kept);
                let _ = self.apply(Command::Checkpoint { job, epoch, step });
                step
            }
            // Nobody can say how far it is.
            None => kept,
        };
        self.end(job, epoch, Outcome::Failed(FailureReason::Preempted), step);
    }

    fn end(&mut self, job: JobId, epoch: Epoch, outcome: Outcome, step: u64) {
        let detail = String::new();
        let workers = self.parts(epoch);
        if workers.is_empty() {
            let _ = self.apply(Command::EndAttempt {
                job,
                epoch,
                outcome,
                step,
                detail,
            });
            return;
        }
        for worker in workers {
            let _ = self.apply(Command::EndPart {
                job,
                epoch,
                worker,
                outcome,
                step,
                detail: detail.clone(),
            });
        }
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
                let plan = job.spec.workload.plan(job.spec.gpus());
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
