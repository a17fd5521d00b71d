//! The worker process: the agent's loop, as in production but with the world's trainers instead of the host's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use stepcast_cluster::session::{self as leader, Order};
use stepcast_cluster::{Clock, Runtime};
use stepcast_records::simpletuner::Length;
use stepcast_scheduler::ids::{InstanceId, JobId, TokenHash};
use stepcast_worker::agent::{Agent, Assigned, End, Epoch, Failure, Input, Outcome, Output, Why};
use stepcast_worker::order::{Ended, Report};
use stepcast_worker::reduce::{Measures, NoSample, Reducer};
use stepcast_worker::waiting::Waiting;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::session::{self, spool};
use super::trainer;
use super::{Folder, Kept};
use crate::checks::Checks;
use crate::clock::{HostClock, Process};
use crate::mutant::Mutant;
use crate::network::{Breaker, Network};
use crate::world::World;

/// What the parts of one worker process share.
pub(super) struct Shell {
    pub(super) runtime: Process,
    pub(super) checks: Arc<Checks>,
    pub(super) network: Arc<Network>,
    pub(super) nodes: u64,
    pub(super) mutant: Option<Mutant>,
    pub(super) number: u64,
    pub(super) gpus: u8,
    pub(super) instance: InstanceId,
    pub(super) token: TokenHash,
    pub(super) folder: Arc<Mutex<Folder>>,
    pub(super) outbox: Outbox,
    pub(super) spooled: Notify,
    pub(super) breakers: Arc<Mutex<Vec<Breaker>>>,
}

/// What the session tells the loop.
pub(super) enum News {
    /// The stream is open.
    Connected,
    /// The leader said something.
    Order(Order),
}

/// The reports that wait for the session.
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
    clock: Arc<HostClock>,
    /// Any instant: only differences are looked at.
    base: (Instant, Duration),
}

impl Outbox {
    pub(super) fn new(clock: Arc<HostClock>) -> Self {
        let base = (Instant::now(), clock.monotonic());
        Self {
            waiting: Mutex::default(),
            wake: Notify::new(),
            clock,
            base,
        }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock());
        self.wake.notify_one();
    }

    pub(super) async fn next(&self, runtime: &dyn Runtime) -> Report {
        loop {
            let now = self.base.0 + self.clock.monotonic().saturating_sub(self.base.1);
            let repeat_at = {
                let mut waiting = self.waiting.lock();
                if let Some(report) = waiting.take(now) {
                    return report;
                }
                waiting.repeat_at()
            };
            match repeat_at {
                Some(at) => {
                    let due = runtime.sleep(at.duration_since(now));
                    tokio::select! { biased; () = self.wake.notified() => {}, () = due => {} }
                }
                None => self.wake.notified().await,
            }
        }
    }
}

/// The whole process.
pub(super) async fn run(shell: Arc<Shell>, inputs: mpsc::UnboundedReceiver<Input>) {
    let mut work = Work {
        agent: Agent::default(),
        attempts: BTreeMap::new(),
        earlier: Vec::new(),
        from: shell.runtime.clock.monotonic(),
        shell: Arc::clone(&shell),
    };
    work.take_over().await;
    let (news, heard) = mpsc::unbounded_channel();
    shell
        .runtime
        .spawn(session::run(Arc::clone(&shell), news).boxed());
    shell.runtime.spawn(spool(Arc::clone(&shell)).boxed());
    work.run(inputs, heard).await;
}

/// The loop's state.
struct Work {
    shell: Arc<Shell>,
    agent: Agent,
    attempts: BTreeMap<Epoch, leader::Assignment>,
    /// Ends from before this start.
    earlier: Vec<Epoch>,
    from: Duration,
}

impl Work {
    /// Ends what an earlier process left running and reports how each of its attempts ended.
    async fn take_over(&mut self) {
        let (attempts, outcomes) = {
            let folder = self.shell.folder.lock();
            (folder.attempts.clone(), folder.outcomes.clone())
        };
        for (epoch, job) in attempts {
            self.wait_for_end(epoch).await;
            let kept = outcomes.get(&epoch).cloned().unwrap_or_else(|| Kept {
                job,
                outcome: Outcome::Failed(Failure::WorkerRestarted),
                detail: "the worker process ended while the attempt ran".to_owned(),
                step: 0,
            });
            self.shell
                .folder
                .lock()
                .outcomes
                .insert(epoch, kept.clone());
            self.earlier.push(epoch);
            self.shell.outbox.change(|w| w.push(ended(epoch, kept)));
        }
    }

    async fn wait_for_end(&self, epoch: Epoch) {
        let number = self.shell.number;
        loop {
            let (answer, runs) = tokio::sync::oneshot::channel();
            self.later(move |world| {
                let runs = trainer::runs(world, number, epoch);
                trainer::kill(world, number, epoch);
                let _ = answer.send(runs);
            });
            if !runs.await.unwrap_or(false) {
                return;
            }
            self.shell.runtime.sleep(Duration::from_millis(50)).await;
        }
    }

    async fn run(
        &mut self,
        mut inputs: mpsc::UnboundedReceiver<Input>,
        mut news: mpsc::UnboundedReceiver<News>,
    ) {
        loop {
            let now = self.now();
            let wake = self
                .agent
                .next_wake()
                .map(|at| Duration::from_millis(at.saturating_sub(now)));
            tokio::select! {
                biased;
                Some(input) = inputs.recv() => self.handle(input),
                some = news.recv() => match some {
                    Some(News::Connected) => self.handle(Input::Connected),
                    Some(News::Order(order)) => self.order(order),
                    None => return,
                },
                () = at(&self.shell.runtime, wake) => self.handle(Input::Tick),
            }
        }
    }

    /// This process's clock in milliseconds.
    fn now(&self) -> u64 {
        let passed = self
            .shell
            .runtime
            .clock
            .monotonic()
            .saturating_sub(self.from);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Assign(assignment) => self.assign(*assignment),
            Order::Stop {
                epoch,
                why,
                grace_ms,
                ..
            } => self.handle(Input::Stop {
                epoch: epoch.0,
                why: self::why(why),
                grace_ms,
            }),
            Order::Renewed {
                renewal,
                epochs,
                lease_term_ms,
            } => self.handle(Input::Renewed {
                renewal,
                epochs: epochs.into_iter().map(|epoch| epoch.0).collect(),
                term_ms: lease_term_ms,
            }),
            Order::Acknowledged { epoch } => {
                let epoch = epoch.0;
                self.shell.outbox.change(|w| w.acknowledged(epoch));
                if let Some(at) = self.earlier.iter().position(|earlier| *earlier == epoch) {
                    self.earlier.swap_remove(at);
                    self.clean(epoch);
                }
                self.handle(Input::Acknowledged(epoch));
            }
            Order::Shutdown(_) => {}
        }
    }

    fn assign(&mut self, assignment: leader::Assignment) {
        let epoch = assignment.epoch.0;
        if self.earlier.contains(&epoch) {
            return;
        }
        let assigned = Assigned {
            epoch,
            job: assignment.job.to_string(),
            lease_term_ms: assignment.lease_term_ms,
            max_runtime_ms: assignment.spec.max_runtime_ms,
            is_gang: assignment.gang.is_some(),
            is_follower: assignment.gang.as_ref().is_some_and(|gang| gang.rank > 0),
            fewer_steps: None,
            epochs: None,
            reducer: Reducer::new(Measures::nothing(NoSample::NoKey)),
        };
        self.attempts.entry(epoch).or_insert(assignment);
        self.handle(Input::Assigned(Box::new(assigned)));
    }

    fn handle(&mut self, input: Input) {
        let now = self.now();
        for output in self.agent.handle(input, now) {
            self.act(output);
        }
    }

    fn act(&mut self, output: Output) {
        let number = self.shell.number;
        let push = |report| self.shell.outbox.change(|w| w.push(report));
        match output {
            Output::Renew { renewal, epochs } => push(Report::Renew { renewal, epochs }),
            Output::Launch { epoch, in_ms } => self.launch(epoch, in_ms),
            Output::Started { epoch, from } => push(Report::Started {
                epoch,
                job: self.job(epoch),
                from,
            }),
            Output::Deadline { epoch, in_ms } => {
                self.command(move |w| trainer::deadline(w, number, epoch, in_ms));
            }
            Output::RequestCheckpoint(epoch) => {
                self.command(move |w| trainer::checkpoint(w, number, epoch));
            }
            Output::Terminate(epoch) => self.command(move |w| trainer::terminate(w, number, epoch)),
            Output::Kill(epoch) => self.command(move |w| trainer::kill(w, number, epoch)),
            Output::Progress(epoch, progress) => push(Report::Progress(epoch, progress)),
            Output::Checkpointed { epoch, step } => push(Report::Checkpointed {
                epoch,
                job: self.job(epoch),
                step,
            }),
            Output::End(epoch, end) => {
                self.end(epoch, *end);
                self.handle(Input::Kept(epoch));
            }
            Output::Clean(epoch) => {
                self.attempts.remove(&epoch);
                self.clean(epoch);
            }
        }
    }

    fn launch(&self, epoch: Epoch, in_ms: u64) {
        let Some(assignment) = self.attempts.get(&epoch) else {
            return;
        };
        let steps = match assignment.spec.workload.length {
            Length::Steps(steps) => steps,
            Length::Epochs(_) => 1,
        };
        let order = trainer::Order {
            epoch,
            job: assignment.job,
            gpus: assignment.gpus.clone(),
            rank: assignment.gang.as_ref().map_or(0, |gang| gang.rank),
            steps,
            until: self.shell.runtime.clock.micros() + in_ms * crate::kernel::MS,
        };
        let job = assignment.job.to_string();
        self.shell.folder.lock().attempts.insert(epoch, job);
        let (number, life) = (self.shell.number, self.shell.runtime.owner.life);
        self.later(move |world| trainer::launch(world, number, life, order));
    }

    /// First the samples, then the outcome, then the word to the leader.
    fn end(&self, epoch: Epoch, end: End) {
        let job = self.job(epoch);
        if end.step > 0 {
            let id = self.shell.runtime.kernel.roll(crate::dice::Dice::wide);
            let found = self.shell.checks.histories.lock().measured(id, epoch);
            self.shell.checks.judge(found);
            self.shell.folder.lock().spool.insert(id, epoch);
            self.shell.spooled.notify_one();
        }
        let kept = Kept {
            job: job.clone(),
            outcome: end.outcome,
            detail: end.detail,
            step: end.step,
        };
        {
            let mut folder = self.shell.folder.lock();
            folder.attempts.insert(epoch, job);
            folder.outcomes.insert(epoch, kept.clone());
        }
        self.shell.outbox.change(|w| w.push(ended(epoch, kept)));
    }

    fn job(&self, epoch: Epoch) -> String {
        self.attempts
            .get(&epoch)
            .map(|assignment| assignment.job.to_string())
            .unwrap_or_default()
    }

    fn clean(&self, epoch: Epoch) {
        let mut folder = self.shell.folder.lock();
        folder.attempts.remove(&epoch);
        folder.outcomes.remove(&epoch);
    }

    fn command(&self, act: impl FnOnce(&mut World) + Send + 'static) {
        let takes = self
            .shell
            .runtime
            .kernel
            .roll(|dice| dice.between(50, 3_000));
        self.shell.runtime.kernel.after(takes, act);
    }

    fn later(&self, act: impl FnOnce(&mut World) + Send + 'static) {
        self.shell.runtime.kernel.after(0, act);
    }
}

fn ended(epoch: Epoch, kept: Kept) -> Report {
    Report::Ended(Ended {
        epoch,
        job: kept.job,
        outcome: kept.outcome,
        detail: kept.detail,
        step: kept.step,
    })
}

fn why(why: leader::StopReason) -> Why {
    match why {
        leader::StopReason::Cancelled => Why::Cancelled,
        leader::StopReason::Preempted => Why::Preempted,
        leader::StopReason::Draining => Why::Draining,
        leader::StopReason::MaxRuntime => Why::MaxRuntime,
        leader::StopReason::BudgetSpent => Why::BudgetSpent,
        leader::StopReason::Revoked | leader::StopReason::LeaseLost => Why::LeaseLost,
        leader::StopReason::PartOver => Why::PartOver,
    }
}

/// The job's id, as the worker writes it.
pub(super) fn job_id(job: &str) -> Option<JobId> {
    job.parse().ok()
}

async fn at(runtime: &Process, wait: Option<Duration>) {
    match wait {
        Some(wait) => runtime.sleep(wait).await,
        None => std::future::pending().await,
    }
}
