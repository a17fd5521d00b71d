//! What an attempt leaves behind under an account: whatever runs is ended, and its folders are shut off.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::turns::Turn;
use crate::account::Taken;
use crate::agent::{Epoch, Input};
use crate::host::Host;
use crate::order::Assignment;
use crate::{sweep, trainer};

/// How long an end waits for its folders to be shut off: one of them may be on a disk that does not answer.
const SHUT_MAX: Duration = Duration::from_secs(10);

/// What an attempt has until it has left.
#[derive(Default)]
pub(super) struct Has {
    pub(super) turn: Option<Turn>,
    pub(super) account: Option<Taken>,
    /// Until when it has its job, as far as the leader has said.
    pub(super) until: Option<watch::Receiver<Instant>>,
}

impl Has {
    /// Whether no other host can have been given the job yet.
    fn has_job(&self) -> bool {
        let until = self.until.as_ref().map(|until| *until.borrow());
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// What could not be done before the end of an attempt is told.
#[derive(Default)]
pub(super) struct Rest {
    /// The account of which something is left.
    account: Option<Taken>,
    turn: Option<Turn>,
    /// Ends when the folders are shut off.
    shutting: Option<BoxFuture<'static, ()>>,
}

impl Rest {
    /// Does it, for as long as the worker does not end; its next start does it first. The job's next attempt has its turn here
    /// as soon as nothing is shut off under it any more.
    pub(super) async fn finish(self, host: &Host, inputs: &mpsc::Sender<Input>) {
        let shut = async {
            if let Some(shutting) = self.shutting {
                tokio::select! {
                    () = shutting => {}
                    () = inputs.closed() => {}
                }
            }
            drop(self.turn);
        };
        let clear = async {
            if let Some(taken) = &self.account {
                clear_on(host, taken, inputs).await;
            }
        };
        tokio::join!(shut, clear);
    }
}

/// Clears an account of which something is left, for as long as the worker does not end; its next start does it first.
pub(crate) async fn clear_on(host: &Host, taken: &Taken, inputs: &mpsc::Sender<Input>) {
    tokio::select! {
        () = host.accounts.clear_on(taken, &host.config.helper) => {}
        () = inputs.closed() => {}
    }
}

/// Gives an account back, if there is one, and shuts off what the job has under it.
pub(super) async fn leave(
    host: &Arc<Host>,
    assignment: &Assignment,
    marker: &std::io::Result<String>,
    mut has: Has,
) -> Rest {
    let (Some(taken), Ok(marker)) = (has.account.take(), marker) else {
        return Rest {
            turn: has.turn,
            ..Rest::default()
        };
    };
    // One whose start was broken off may be just about to step down to the account.
    sweep::kill_marked(marker).await;
    let is_free = host.accounts.give_back(&taken, &host.config.helper).await;
    let output = results(host, assignment, has.has_job());
    Rest {
        account: (!is_free).then_some(taken),
        turn: has.turn,
        shutting: shut(host, assignment.epoch, output, SHUT_MAX).await,
    }
}

/// The results that an attempt shuts off at its end: those of a gang with its first host, which has written them. Where other
/// workers may have the same folder for results, one of them may run the job once this attempt has lost it: then they stay open
/// until that has ended, or the job is over.
fn results(host: &Host, assignment: &Assignment, has_job: bool) -> Option<PathBuf> {
    let is_its = host.config.outputs.is_none() || has_job;
    let output = trainer::output(assignment, &host.outputs);
    output.filter(|_| is_its && !assignment.is_follower())
}

/// Shuts folders off, and gives what is still to be waited for if that takes longer than `most`.
async fn shut(
    host: &Arc<Host>,
    epoch: Epoch,
    output: Option<PathBuf>,
    most: Duration,
) -> Option<BoxFuture<'static, ()>> {
    let host = Arc::clone(host);
    let mut shutting = async move { host.shut(epoch, output).await }.boxed();
    if tokio::time::timeout(most, &mut shutting).await.is_ok() {
        return None;
    }
    tracing::error!(
        epoch,
        "a disk does not answer, so that what is left of an attempt stays open to its account until it does"
    );
    Some(shutting)
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::turns;
    use super::*;
    use crate::host::tests::{Leader, assignment};
    use crate::order::TrainerKind;

    fn mode(folder: &std::path::Path) -> u32 {
        fs::metadata(folder).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_disk_that_does_not_answer_holds_up_no_end_and_both_folders_are_shut() {
        let root = tempfile::tempdir().unwrap();
        let host = Arc::new(Arc::new(Leader::default()).host(root.path()));
        let (attempt, output) = (host.state.attempt(7), root.path().join("results"));
        // What lies in here cannot be shut, which is to be no reason to leave the other one open.
        let attempts = attempt.parent().unwrap();
        fs::remove_dir(attempts).unwrap();
        symlink(attempts, attempts).unwrap();
        fs::create_dir(&output).unwrap();
        fs::set_permissions(&output, fs::Permissions::from_mode(0o755)).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().max_blocking_threads(1).build();
        runtime.unwrap().block_on(async {
            // The only thread for work on disks waits.
            let (let_go, waits) = std::sync::mpsc::channel::<()>();
            let disk = tokio::task::spawn_blocking(move || waits.recv().is_err());
            let shutting = shut(&host, 7, Some(output.clone()), Duration::ZERO).await;
            assert_eq!(mode(&output), 0o755);
            assert!(shutting.is_some());
            let rest = Rest {
                account: None,
                turn: turns::take(&host, "jcats").await.ok(),
                shutting,
            };
            let (inputs, _received) = mpsc::channel(1);
            let mut finish = rest.finish(&host, &inputs).boxed();
            assert!((&mut finish).now_or_never().is_none());
            let next = turns::take(&host, "jcats").now_or_never();
            assert!(next.is_none(), "it would be shut off under the next one");
            drop(let_go);
            assert!(disk.await.unwrap());
            finish.await;
            assert_eq!(mode(&output), 0o700);
            turns::take(&host, "jcats").await.unwrap();
        });
    }

    #[test]
    fn results_that_another_host_may_have_by_now_are_not_shut_off() {
        let root = tempfile::tempdir().unwrap();
        let mut host = Arc::new(Leader::default()).host(root.path());
        let assignment = Assignment {
            trainer: TrainerKind::SimpleTuner,
            ..assignment(7)
        };
        let output = Some(host.outputs.join("j7"));
        for has_job in [true, false] {
            assert_eq!(results(&host, &assignment, has_job), output);
        }
        host.config.outputs = Some(host.outputs.clone());
        assert_eq!(results(&host, &assignment, true), output);
        assert_eq!(results(&host, &assignment, false), None);
        let (renewed, until) = watch::channel(Instant::now());
        let has = Has {
            until: Some(until),
            ..Has::default()
        };
        assert!(!has.has_job() && !Has::default().has_job());
        renewed.send_replace(Instant::now() + Duration::from_secs(3_600));
        assert!(has.has_job());
    }
}
