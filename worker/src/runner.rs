//! One attempt's task: gets its files, starts its trainer under a guard, passes commands down and what happens up.

mod leaving;
mod preparation;
mod turns;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

pub(crate) use self::leaving::clear_on;
use self::leaving::{Has, leave};
use self::preparation::Preparation;
pub(crate) use self::turns::Turns;
use crate::account::Ids;
use crate::agent::{Epoch, Exit, ExitStatus, Failure, Input};
use crate::capture::{self, Capture};
use crate::chain::chain;
use crate::disk::fail_with;
use crate::guard::{Guard, Status};
use crate::host::Host;
use crate::order::{Assignment, Report};
use crate::tasks::words;
use crate::trainer::{self, Launch};
use crate::webhook::{Lost, Receiver};
use crate::{random, sweep};

/// Commands that wait for the task. The agent sends a handful an hour; one that does not fit would be a lost kill.
pub(crate) const COMMANDS: usize = 64;

/// Batches of lines between the pipe and the outbox; more are dropped before a slow leader slows the trainer.
const LINE_BATCHES: usize = 256;

/// How long the rest of the output is waited for after the last process ended.
const OUTPUT_REST: Duration = Duration::from_secs(5);

/// What the agent wants of the trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Let it run until then.
    Deadline(Instant),
    /// Ask for a checkpoint.
    Checkpoint,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// A trainer that runs.
struct Trainer {
    guard: Guard,
    receiver: Receiver,
    output: JoinHandle<Capture>,
    /// What passes its lines on.
    lines: JoinSet<()>,
    signal_file: std::path::PathBuf,
    /// The account that it runs as, if that is not the worker's own.
    account: Option<Ids>,
    marker: String,
    /// The step of the checkpoint that it goes on from, 0 for none.
    from: u64,
}

/// What went wrong before the trainer ran.
struct NotLaunched(Failure, String);

/// What an attempt needs on the disk while it is written.
type Preparing = Option<JoinHandle<Result<Launch, NotLaunched>>>;

/// Runs the attempt to its end and tells the agent of every turn, also of a fault in here: what nobody watches any more is
/// ended.
pub(crate) async fn run(
    host: Arc<Host>,
    assignment: Assignment,
    until: Instant,
    commands: mpsc::Receiver<Command>,
    inputs: mpsc::Sender<Input>,
) {
    let epoch = assignment.epoch;
    let marker = random::token();
    let mut has = Has::default();
    let way = (commands, &inputs);
    let watched = AssertUnwindSafe(watched(&host, &assignment, &marker, until, way, &mut has));
    let end = match watched.catch_unwind().await {
        Ok(end) => end,
        Err(panic) => {
            let why = words(panic.as_ref());
            tracing::error!(
                epoch,
                why,
                "an attempt's task has failed; its trainer is ended"
            );
            // Its guard ends it too, now that nobody holds that, but says so to nobody.
            if let Ok(marker) = &marker {
                sweep::kill_marked(marker).await;
            }
            Some(Input::Exited {
                epoch,
                exit: Exit {
                    status: ExitStatus::Unwatched,
                    tail: vec![why.to_owned()],
                },
            })
        }
    };
    // Before anybody knows that it has ended, and begins the next attempt of the job.
    let left = leave(&host, &assignment, &marker, has).await;
    if let Some(end) = end {
        let _ending = inputs.send(end).await;
    }
    left.finish(&host, &inputs).await;
}

/// How the attempt ended; nothing when the worker ends.
async fn watched(
    host: &Arc<Host>,
    assignment: &Assignment,
    marker: &std::io::Result<String>,
    until: Instant,
    (mut commands, inputs): (mpsc::Receiver<Command>, &mpsc::Sender<Input>),
    has: &mut Has,
) -> Option<Input> {
    let epoch = assignment.epoch;
    let mut preparing = None;
    let (renewed, until) = watch::channel(until);
    has.until = Some(until.clone());
    let launched = tokio::select! {
        biased;
        () = told_to_end(&mut commands, &renewed) => Err(NotLaunched(Failure::LaunchFailed, "ended before it was started".to_owned())),
        launched = launch(host, assignment, marker, &until, inputs, (&mut preparing, has)) => launched,
    };
    // Nothing of an attempt is written behind its end, with which all of it is removed.
    if let Some(preparing) = preparing
        && let Ok(Ok(launch)) = preparing.await
    {
        launch.forget();
    }
    Some(match launched {
        Ok(trainer) => {
            // A closed channel means that the worker is ending; dropping the trainer ends it.
            let from = trainer.from;
            inputs.send(Input::Launched { epoch, from }).await.ok()?;
            let exit = watch(host, epoch, trainer, &mut commands, &renewed).await;
            Input::Exited { epoch, exit }
        }
        Err(NotLaunched(failure, detail)) => Input::LaunchFailed {
            epoch,
            failure,
            detail,
        },
    })
}

/// Passes on until when the trainer may run meanwhile: its lease may be renewed often before its files are there.
async fn told_to_end(commands: &mut mpsc::Receiver<Command>, renewed: &watch::Sender<Instant>) {
    loop {
        match commands.recv().await {
            Some(Command::Terminate | Command::Kill) | None => return,
            Some(Command::Deadline(at)) => drop(renewed.send_replace(at)),
            Some(Command::Checkpoint) => {}
        }
    }
}

async fn launch(
    host: &Arc<Host>,
    assignment: &Assignment,
    marker: &std::io::Result<String>,
    until: &watch::Receiver<Instant>,
    inputs: &mpsc::Sender<Input>,
    (preparing, has): (&mut Preparing, &mut Has),
) -> Result<Trainer, NotLaunched> {
    let epoch = assignment.epoch;
    let devices = host.devices(&assignment.devices).ok_or_else(|| {
        NotLaunched(
            Failure::LaunchFailed,
            "the placement names a device that this worker does not have".to_owned(),
        )
    })?;
    let handed = host
        .wire
        .files(assignment)
        .await
        .map_err(|(failure, detail)| NotLaunched(failure, detail))?;
    let marker = marker.as_ref().map_err(|error| launch_failed(error))?;
    let token = random::token().map_err(|error| launch_failed(&error))?;
    let inherited: Vec<_> = std::env::vars_os().collect();
    let redactor = trainer::redactor(&inherited, &handed, &token);
    let receiver = Receiver::start(epoch, token, redactor.clone(), inputs.clone())
        .await
        .map_err(|error| launch_failed(&error))?;
    let turn = turns::take(host, &assignment.job).await;
    has.turn = Some(turn.map_err(|error| launch_failed(&error))?);
    let free = host.accounts.take(&host.config.helper).await;
    has.account = free.map_err(|error| launch_failed(&error))?;
    let account = has.account.as_ref().map(|taken| taken.account.clone());
    let ids = account.as_ref().map(|account| account.ids.clone());
    let preparation = Preparation {
        account,
        host: Arc::clone(host),
        assignment: assignment.clone(),
        handed,
        devices,
        marker: marker.clone(),
        webhook: (receiver.url(), receiver.token().to_owned()),
    };
    let prepared = preparing
        .insert(tokio::task::spawn_blocking(move || preparation.write()))
        .await;
    *preparing = None;
    let launch = match prepared {
        Ok(prepared) => prepared?,
        Err(error) => {
            let why = error.to_string();
            fail_with(error);
            return Err(NotLaunched(Failure::LaunchFailed, why));
        }
    };
    let left = until.borrow().saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(NotLaunched(
            Failure::LaunchFailed,
            "its lease ended before it was started".to_owned(),
        ));
    }
    let started = Guard::start(
        &host.guard_command(ids.as_ref()),
        &launch.command,
        &launch.directory,
        &launch.environment,
        left,
    )
    .await;
    let (signal_file, from) = (launch.signal_file.clone(), launch.from);
    launch.forget();
    let mut guard = started.map_err(|error| launch_failed(&error))?;
    let (lines, batches) = mpsc::channel(LINE_BATCHES);
    let output = match guard.take_output() {
        Some(output) => tokio::spawn(capture::read(output, Capture::new(redactor), lines)),
        None => {
            return Err(NotLaunched(
                Failure::LaunchFailed,
                "the trainer's output cannot be read".to_owned(),
            ));
        }
    };
    let mut passing = JoinSet::new();
    passing.spawn(pass_lines(Arc::clone(host), epoch, batches, inputs.clone()));
    Ok(Trainer {
        guard,
        receiver,
        output,
        lines: passing,
        signal_file,
        account: ids,
        marker: marker.clone(),
        from,
    })
}

fn launch_failed(error: &dyn std::error::Error) -> NotLaunched {
    NotLaunched(Failure::LaunchFailed, chain(error))
}

/// Lines go to the leader, and each batch is a sign of life.
async fn pass_lines(
    host: Arc<Host>,
    epoch: Epoch,
    mut batches: mpsc::Receiver<Vec<String>>,
    inputs: mpsc::Sender<Input>,
) {
    while let Some(lines) = batches.recv().await {
        // Dropped when the agent is busy: the next batch says the same.
        let _busy = inputs.try_send(Input::Output(epoch));
        for lines in capture::messages(lines) {
            host.outbox.push(Report::Logs(epoch, lines));
        }
    }
}

async fn watch(
    host: &Arc<Host>,
    epoch: Epoch,
    mut trainer: Trainer,
    commands: &mut mpsc::Receiver<Command>,
    renewed: &watch::Sender<Instant>,
) -> Exit {
    let mut checkpoints = 0;
    let mut open = true;
    let status = loop {
        tokio::select! {
            status = trainer.guard.status() => match status {
                Status::Ended(status) => break status,
                Status::Started(_) | Status::Failed(_) => {}
            },
            // It would run on unheard.
            error = trainer.receiver.failed() => fail_with(error),
            Some(Err(error)) = trainer.lines.join_next() => fail_with(error),
            command = commands.recv(), if open => match command {
                Some(Command::Deadline(at)) => {
                    renewed.send_replace(at);
                    let left = at.saturating_duration_since(Instant::now());
                    trainer.guard.deadline(left).await;
                }
                Some(Command::Terminate) => trainer.guard.terminate().await,
                Some(Command::Kill) => trainer.guard.kill().await,
                // The loop has ended.
                None => {
                    open = false;
                    trainer.guard.kill().await;
                }
                Some(Command::Checkpoint) => {
                    checkpoints += 1;
                    let signal_file = trainer.signal_file.clone();
                    let account = trainer.account.clone();
                    // It is asked for once, and not waited for: a kill may come before the disk answers.
                    tokio::task::spawn_blocking(move || {
                        if let Err(error) = trainer::write_signals(&signal_file, checkpoints, account.as_ref()) {
                            tracing::warn!(epoch, error = chain(&error), "the checkpoint cannot be asked for");
                        }
                    });
                }
            },
        }
    };
    trainer.guard.wait().await;
    if status == ExitStatus::Unseen {
        let left = sweep::kill_marked(&trainer.marker).await;
        if left > 0 {
            tracing::error!(epoch, left, "processes of a lost trainer cannot be ended");
        }
    }
    report_losses(host, epoch, &trainer.receiver);
    let rest = async {
        let capture = trainer.output.await;
        // Its last lines are on their way before its end is.
        while let Some(passed) = trainer.lines.join_next().await {
            passed.unwrap_or_else(fail_with);
        }
        capture
    };
    let tail = tokio::time::timeout(OUTPUT_REST, rest)
        .await
        .ok()
        .and_then(Result::ok)
        .map(|capture| capture.tail())
        .unwrap_or_default();
    Exit { status, tail }
}

/// Lost events are never silent.
fn report_losses(host: &Host, epoch: Epoch, receiver: &Receiver) {
    let lost = receiver.counts().lost();
    if lost != Lost::default() {
        host.metrics.lost(lost);
        tracing::warn!(epoch, ?lost, "webhook events were not passed on");
        let Lost {
            events,
            logs,
            unreadable,
        } = lost;
        let line = format!(
            "(webhooks not passed on: {events} events, {logs} log messages, {unreadable} unreadable)"
        );
        host.outbox.push(Report::Logs(epoch, vec![line]));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::config::ReplayStream;
    use crate::disk::tests::Stuck;
    use crate::host::tests::{Leader, assignment};
    use crate::state_dir::private_folder;

    #[tokio::test]
    async fn an_attempt_whose_task_fails_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let leader = Arc::new(Leader::default());
        leader.fails.store(true, Ordering::SeqCst);
        let host = Arc::new(leader.host(root.path()));
        let (inputs, mut told) = mpsc::channel(4);
        let (_commands, asked) = mpsc::channel(1);
        run(host, assignment(7), Instant::now(), asked, inputs).await;
        let Some(Input::Exited { epoch: 7, exit }) = told.recv().await else {
            panic!("it has not ended");
        };
        assert_eq!(
            (exit.status, exit.tail),
            (ExitStatus::Unwatched, vec!["no leader".to_owned()])
        );
    }

    /// Lets everything else on this thread go on.
    async fn others_go_on() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_holds_up_the_attempt_alone_and_nothing_is_written_behind_its_end()
     {
        let root = tempfile::tempdir().unwrap();
        let host = Arc::new(Arc::new(Leader::default()).host(root.path()));
        let folder = host.state.attempt(7);
        private_folder(&folder).unwrap();
        let disk = Stuck::at(&folder.join("attempt.tmp"));
        let (inputs, mut told) = mpsc::channel(4);
        let (commands, asked) = mpsc::channel(1);
        let attempt = run(host, assignment(7), Instant::now(), asked, inputs);
        let attempt = tokio::spawn(attempt);
        others_go_on().await;
        commands.send(Command::Kill).await.unwrap();
        others_go_on().await;
        assert!(told.try_recv().is_err(), "it is still being written");
        disk.let_go();
        attempt.await.unwrap();
        let Some(Input::LaunchFailed { detail, .. }) = told.recv().await else {
            panic!("it has not ended");
        };
        assert_eq!(detail, "ended before it was started");
    }

    #[tokio::test]
    async fn an_attempt_begins_when_the_one_before_it_has_left() {
        let root = tempfile::tempdir().unwrap();
        let host = Arc::new(Arc::new(Leader::default()).host(root.path()));
        let earlier = turns::take(&host, "j7").await.unwrap();
        let (inputs, mut told) = mpsc::channel(4);
        let (_commands, asked) = mpsc::channel(1);
        let attempt = run(
            Arc::clone(&host),
            assignment(7),
            Instant::now(),
            asked,
            inputs,
        );
        let attempt = tokio::spawn(attempt);
        turns::tests::somebody_waits(&host).await;
        assert!(!host.state.attempt(7).exists());
        // Another job's need not wait.
        drop(turns::take(&host, "j8").await.unwrap());
        drop(earlier);
        attempt.await.unwrap();
        assert!(told.recv().await.is_some() && host.state.attempt(7).exists());
        // It has left itself.
        drop(turns::take(&host, "j7").await.unwrap());
    }

    /// How an attempt is launched whose first lease is over, and which is told this before it begins.
    async fn launched_late(told: &[Command]) -> Input {
        let root = tempfile::tempdir().unwrap();
        let mut host = Arc::new(Leader::default()).host(root.path());
        host.config.replay.stream = ReplayStream::File(root.path().join("stream"));
        let (inputs, mut ended) = mpsc::channel(4);
        let (commands, asked) = mpsc::channel(COMMANDS);
        for command in told {
            commands.send(*command).await.unwrap();
        }
        run(Arc::new(host), assignment(7), Instant::now(), asked, inputs).await;
        ended.recv().await.unwrap()
    }

    #[tokio::test]
    async fn an_attempt_whose_lease_was_renewed_while_its_files_came_is_started() {
        let late = |input: &Input| matches!(input, Input::LaunchFailed { detail, .. } if detail.starts_with("its lease ended"));
        let ended = launched_late(&[]).await;
        assert!(late(&ended), "{ended:?}");
        let renewed = Command::Deadline(Instant::now() + Duration::from_secs(3_600));
        // There is no guard to be started in a test.
        let ended = launched_late(&[renewed]).await;
        assert!(
            matches!(ended, Input::LaunchFailed { .. }) && !late(&ended),
            "{ended:?}"
        );
    }
}
