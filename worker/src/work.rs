//! The worker's loop: gives the agent what happened, does what it says, until it is drained.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use crate::agent::{Agent, Assigned, End, Epoch, Failure, Input, KEEPING_MS, Outcome, Output, Why};
use crate::ends::{self, Ends};
use crate::event::Event;
use crate::host::Host;
use crate::order::{Assignment, Order, Report};
use crate::reduce::Reducer;
use crate::runner::{self, COMMANDS, Command};
use crate::state_dir::{OutcomeRecord, accounts_of};
use crate::sweep;

/// Inputs from all attempts that wait for the agent: seconds of every trainer's events at once.
pub(crate) const INPUTS: usize = 4_096;

/// Orders that wait for the agent.
pub(crate) const ORDERS: usize = 256;

/// How long the last ends are waited to be acknowledged when the worker stops; they are on disk for the next start.
const LAST_WORD: Duration = Duration::from_secs(10);

/// How long killed trainers are waited for when the worker stops. Only one stuck in a driver call outlives this.
const LAST_END: Duration = Duration::from_secs(30);

/// How long ends are waited to be on the disk when the worker stops: what is not is told as restarted by the next start. Where
/// it could still be reported, leases are kept as long.
const LAST_WRITES: Duration = Duration::from_millis(KEEPING_MS);

/// What the session tells the loop.
#[derive(Debug)]
pub(crate) enum News {
    /// The stream is open.
    Connected,
    /// The leader said something.
    Order(Order),
}

/// The loop's state.
pub(crate) struct Work {
    host: Arc<Host>,
    agent: Agent,
    attempts: BTreeMap<Epoch, Known>,
    /// Ends from before this start: epoch by epoch, removed when acknowledged.
    earlier: Vec<Epoch>,
    inputs: mpsc::Sender<Input>,
    from: Instant,
    ends: Ends,
    runners: JoinSet<()>,
}

/// An attempt the loop knows.
struct Known {
    assignment: Assignment,
    /// The model of its devices, as the registry calls it.
    gpu: Option<&'static str>,
    /// The last step whose time was counted.
    counted: u64,
    commands: Option<mpsc::Sender<Command>>,
}

impl Work {
    pub(crate) fn new(host: Arc<Host>, inputs: mpsc::Sender<Input>, spooled: Arc<Notify>) -> Self {
        Self {
            ends: Ends::new(Arc::clone(&host), spooled),
            host,
            agent: Agent::default(),
            attempts: BTreeMap::new(),
            earlier: Vec::new(),
            inputs,
            from: Instant::now(),
            runners: JoinSet::new(),
        }
    }

    /// Ends what an earlier process left running and reports how each of its attempts ended.
    pub(crate) async fn take_over(&mut self) -> Result<(), crate::state_dir::Error> {
        let all_left = self.host.state.left_over()?;
        let (numbers, helper) = (accounts_of(&all_left), &self.host.config.helper);
        for account in self.host.accounts.clear(&numbers, helper).await {
            let (host, inputs) = (Arc::clone(&self.host), self.inputs.clone());
            self.runners.spawn(async move {
                runner::clear_on(&host, &account, &inputs).await;
            });
        }
        for left in all_left {
            let epoch = left.attempt.epoch;
            let running = sweep::kill_marked(&left.attempt.marker).await;
            if running > 0 {
                tracing::error!(
                    epoch,
                    running,
                    "processes of an earlier attempt cannot be ended"
                );
            }
            if left.attempt.account.is_some() {
                self.host.shut_left_over(&left.attempt).await;
            }
            let outcome = match left.outcome {
                Some(outcome) => outcome,
                None => {
                    let outcome = OutcomeRecord {
                        epoch,
                        job: left.attempt.job,
                        outcome: Outcome::Failed(Failure::WorkerRestarted),
                        detail: "the worker process ended while the attempt ran".to_owned(),
                        step: 0,
                    };
                    self.host.state.end_attempt(&outcome)?;
                    outcome
                }
            };
            self.earlier.push(epoch);
            self.host.outbox.push(ends::report(outcome));
        }
        Ok(())
    }

    /// Runs until `stop` says so and everything has ended, or until there will be no more news.
    pub(crate) async fn run(
        &mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut news: mpsc::Receiver<News>,
        stop: Arc<Notify>,
    ) {
        let mut stopping = false;
        let mut ended_at = None;
        loop {
            if stopping && self.agent.is_empty() && self.host.outbox.is_empty() {
                return;
            }
            if stopping && self.agent.next_wake().is_none() {
                // Only ends that nobody has acknowledged are left.
                ended_at.get_or_insert_with(Instant::now);
            }
            let wake = self
                .agent
                .next_wake()
                .map(|at| self.from + Duration::from_millis(at));
            tokio::select! {
                Some(input) = inputs.recv() => self.handle(input),
                Some(_ended) = self.runners.join_next() => {}
                epoch = self.ends.reported() => self.handle(Input::Kept(epoch)),
                some = news.recv() => match some {
                    Some(News::Connected) => self.handle(Input::Connected),
                    Some(News::Order(order)) => self.order(order),
                    None => return,
                },
                () = stop.notified(), if !stopping => {
                    tracing::info!("stopping: running attempts may save a checkpoint first");
                    stopping = true;
                    self.host.outbox.push(Report::Leaving);
                    let grace_ms = millis(self.host.config.drain_grace);
                    self.handle(Input::Drain { grace_ms });
                }
                () = at(wake) => self.handle(Input::Tick),
                () = at(ended_at.map(|ended_at| ended_at + LAST_WORD)) => return,
            }
        }
    }

    /// Ends every trainer that still runs, and waits until it is gone: nothing of it may outlive the worker. What has ended is
    /// put on the disk.
    pub(crate) async fn shut_down(mut self) {
        self.attempts.clear();
        let gone = async { while self.runners.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_END, gone).await.is_err() {
            tracing::error!("a trainer cannot be ended; its guard goes on trying");
        }
        let written = async {
            while !self.ends.is_empty() {
                self.ends.reported().await;
            }
        };
        if tokio::time::timeout(LAST_WRITES, written).await.is_err() {
            tracing::error!("the disk does not take how attempts have ended");
        }
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Assign(assignment) => self.assign(*assignment),
            Order::Stop {
                epoch,
                why,
                grace_ms,
            } => self.handle(Input::Stop {
                epoch,
                why,
                grace_ms,
            }),
            Order::Renewed {
                renewal,
                epochs,
                term_ms,
            } => self.handle(Input::Renewed {
                renewal,
                epochs,
                term_ms,
            }),
            Order::Drain { grace_ms } => self.drain(grace_ms),
            Order::Acknowledged(epoch) => {
                self.host.outbox.acknowledged(epoch);
                if let Some(at) = self.earlier.iter().position(|earlier| *earlier == epoch) {
                    self.earlier.swap_remove(at);
                    self.host.cleanup.add(epoch);
                }
                self.handle(Input::Acknowledged(epoch));
            }
        }
    }

    /// The leader gives nothing new to a worker that it drains. It may give something again later, so the agent itself,
    /// which takes nothing any more once it is drained, is only told to end what runs.
    fn drain(&mut self, grace_ms: u64) {
        let epochs: Vec<Epoch> = self.attempts.keys().copied().collect();
        for epoch in epochs {
            self.handle(Input::Stop {
                epoch,
                why: Why::Draining,
                grace_ms,
            });
        }
    }

    fn assign(&mut self, assignment: Assignment) {
        if self.earlier.contains(&assignment.epoch) {
            return; // It ended with the earlier process; its end is on the way.
        }
        let measures = self.host.measures(&assignment);
        let epoch = assignment.epoch;
        if let Err(why) = measures.training() {
            tracing::info!(epoch, %why, "this attempt's steps are not recorded");
        }
        let assigned = Assigned {
            epoch,
            job: assignment.job.clone(),
            lease_term_ms: assignment.lease_term_ms,
            max_runtime_ms: assignment.max_runtime_ms,
            is_gang: assignment.gang.is_some(),
            is_follower: assignment.is_follower(),
            fewer_steps: self.host.fewer_steps(&assignment),
            epochs: Host::epochs(&assignment),
            reducer: Reducer::new(measures),
        };
        let devices = self.host.devices(&assignment.devices).unwrap_or_default();
        self.attempts.entry(epoch).or_insert(Known {
            gpu: devices.first().map(|device| device.model.slug()),
            counted: 0,
            assignment,
            commands: None,
        });
        self.handle(Input::Assigned(Box::new(assigned)));
    }

    fn handle(&mut self, input: Input) {
        if let Input::Event(epoch, received) = &input {
            self.measure(*epoch, &received.event);
        }
        let now = millis(self.from.elapsed());
        for output in self.agent.handle(input, now) {
            self.act(output, now);
        }
        self.host.metrics.attempts(self.attempts.len());
    }

    fn measure(&mut self, epoch: Epoch, event: &Event) {
        let metrics = &self.host.metrics;
        metrics.event(event);
        let Event::Step {
            step,
            step_ms: Some(ms),
            ..
        } = *event
        else {
            return;
        };
        // The trainer says a step twice when it also saves a checkpoint.
        let known = self.attempts.get_mut(&epoch);
        if let Some(known) = known.filter(|known| step > known.counted)
            && let Ok(took) = Duration::try_from_secs_f64(ms / 1e3)
            && let Some(gpu) = known.gpu
        {
            known.counted = step;
            metrics.step(known.assignment.workload.recipe.name(), gpu, took);
        }
    }

    fn act(&mut self, output: Output, now: u64) {
        // A moment and not a time from now: this process may be stopped at any point on the way to the guard.
        let at = |in_ms: u64| self.from + Duration::from_millis(now.saturating_add(in_ms));
        match output {
            Output::Renew { renewal, epochs } => {
                self.host.outbox.push(Report::Renew { renewal, epochs })
            }
            Output::Launch { epoch, in_ms } => self.launch(epoch, at(in_ms)),
            Output::Started { epoch, from } => {
                let job = self.job(epoch);
                self.host.outbox.push(Report::Started { epoch, job, from });
            }
            Output::Deadline { epoch, in_ms } => {
                self.command(epoch, Command::Deadline(at(in_ms)));
            }
            Output::RequestCheckpoint(epoch) => self.command(epoch, Command::Checkpoint),
            Output::Terminate(epoch) => self.command(epoch, Command::Terminate),
            Output::Kill(epoch) => self.command(epoch, Command::Kill),
            Output::Progress(epoch, progress) => {
                self.host.outbox.push(Report::Progress(epoch, progress))
            }
            Output::Checkpointed { epoch, step } => {
                let job = self.job(epoch);
                self.host
                    .outbox
                    .push(Report::Checkpointed { epoch, job, step });
            }
            Output::End(epoch, end) => self.end(epoch, *end),
            Output::Clean(epoch) => {
                self.attempts.remove(&epoch);
                self.host.cleanup.add(epoch);
            }
        }
    }

    fn launch(&mut self, epoch: Epoch, until: Instant) {
        let Some(known) = self.attempts.get_mut(&epoch) else {
            return;
        };
        let (commands, receiver) = mpsc::channel(COMMANDS);
        known.commands = Some(commands);
        let assignment = known.assignment.clone();
        let span = tracing::debug_span!("run_attempt", attempt = epoch, job = assignment.job);
        let run = runner::run(
            Arc::clone(&self.host),
            assignment,
            until,
            receiver,
            self.inputs.clone(),
        );
        self.runners.spawn(run.instrument(span));
    }

    /// A full queue or a finished task is no loss: the guard enforces the deadline by itself.
    fn command(&self, epoch: Epoch, command: Command) {
        if let Some(commands) = self
            .attempts
            .get(&epoch)
            .and_then(|known| known.commands.as_ref())
            && commands.try_send(command).is_err()
        {
            tracing::debug!(epoch, ?command, "the attempt's task has ended or is busy");
        }
    }

    fn end(&mut self, epoch: Epoch, end: End) {
        let job = self.job(epoch);
        tracing::info!(epoch, outcome = ?end.outcome, step = end.step, samples = end.samples.len(), "attempt ended");
        let outcome = OutcomeRecord {
            epoch,
            job,
            outcome: end.outcome,
            detail: end.detail,
            step: end.step,
        };
        self.ends.add(outcome, end.samples);
    }

    fn job(&self, epoch: Epoch) -> String {
        self.attempts
            .get(&epoch)
            .map(|known| known.assignment.job.clone())
            .unwrap_or_default()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Waits until a time, or for ever.
pub(crate) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::cleanup;
    use crate::disk::tests::Stuck;
    use crate::host::tests::{Leader, assignment};
    use crate::state_dir::AttemptRecord;

    fn record() -> AttemptRecord {
        AttemptRecord {
            epoch: 7,
            job: "jcats".to_owned(),
            marker: "m".to_owned(),
            shared: None,
            account: None,
        }
    }

    /// What is asked for next; other reports are passed over.
    async fn next_renewal(host: &Host) -> Vec<Epoch> {
        loop {
            if let Report::Renew { epochs, .. } = host.outbox.next().await {
                return epochs;
            }
        }
    }

    /// The job of the one that has ended is not given elsewhere meanwhile either.
    #[tokio::test]
    async fn leases_are_renewed_while_an_end_is_written() {
        let root = tempfile::tempdir().unwrap();
        let host = Arc::new(Arc::new(Leader::default()).host(root.path()));
        let folder = host.state.begin_attempt(&record()).unwrap();
        let disk = Stuck::at(&folder.join("outcome.tmp"));
        host.outbox.connected(true);
        let (inputs, received) = mpsc::channel(4);
        let (news, heard) = mpsc::channel(4);
        let mut work = Work::new(Arc::clone(&host), inputs.clone(), Arc::new(Notify::new()));
        let script = async {
            for epoch in [7, 8] {
                let order = Order::Assign(Box::new(assignment(epoch)));
                news.send(News::Order(order)).await.unwrap();
            }
            while next_renewal(&host).await != [7, 8] {}
            let failed = Input::LaunchFailed {
                epoch: 7,
                failure: Failure::LaunchFailed,
                detail: String::new(),
            };
            inputs.send(failed).await.unwrap();
            inputs.send(Input::Connected).await.unwrap();
            assert_eq!(next_renewal(&host).await, [7, 8]);
            disk.let_go();
            while !matches!(host.outbox.next().await, Report::Ended(_)) {}
            let mut renewed = Vec::new();
            while renewed != [8] {
                inputs.send(Input::Connected).await.unwrap();
                renewed = next_renewal(&host).await;
            }
        };
        tokio::select! {
            () = work.run(received, heard, Arc::new(Notify::new())) => panic!("it has ended"),
            () = script => {}
        }
    }

    #[tokio::test]
    async fn a_worker_that_stops_has_its_ends_on_the_disk() {
        let root = tempfile::tempdir().unwrap();
        let host = Arc::new(Arc::new(Leader::default()).host(root.path()));
        host.state.begin_attempt(&record()).unwrap();
        let (inputs, _received) = mpsc::channel(1);
        let mut work = Work::new(Arc::clone(&host), inputs, Arc::new(Notify::new()));
        work.order(Order::Assign(Box::new(assignment(7))));
        work.handle(Input::Drain { grace_ms: 0 });
        work.shut_down().await;
        let left = host.state.left_over().unwrap();
        assert!(left.iter().all(|left| left.outcome.is_some()), "{left:?}");
    }

    /// It takes as long as a disk does, and leases of other attempts are renewed meanwhile.
    #[tokio::test]
    async fn what_an_attempt_has_left_is_removed_beside_the_loop() {
        let root = tempfile::tempdir().unwrap();
        let host = Arc::new(Arc::new(Leader::default()).host(root.path()));
        let folder = host.state.begin_attempt(&record()).unwrap();
        let (inputs, _received) = mpsc::channel(1);
        let mut work = Work::new(Arc::clone(&host), inputs, Arc::new(Notify::new()));
        work.earlier.push(7);
        work.order(Order::Acknowledged(7));
        assert!(folder.exists(), "the loop goes on at once");
        tokio::select! {
            () = cleanup::run(Arc::clone(&host)) => {}
            () = host.cleanup.all_tried() => {}
        }
        assert!(!folder.exists());
    }
}
