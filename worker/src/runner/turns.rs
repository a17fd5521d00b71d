//! One attempt of a job at a time on this host: the next begins when the one before it has left. A leader gives a job anew when
//! a lease is over, and not when the last process has ended and the job's results are shut off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::host::Host;

/// How long an attempt waits for the one before it: half a minute for its guard, and as much again for what is left of its
/// account and for its last lines; what takes longer is a disk that does not answer.
const WAIT_MAX: Duration = Duration::from_secs(2 * 60);

/// The jobs of which an attempt is on this host that has not left yet.
#[derive(Debug, Default)]
pub(crate) struct Turns(watch::Sender<BTreeSet<String>>);

/// Why an attempt does not get its job's turn.
#[derive(Debug, thiserror::Error)]
#[error(
    "an earlier attempt of this job has not left this host: its trainer cannot be ended, or the disk with its results does not answer; the worker's log says which"
)]
pub(super) struct NotLeft;

/// What an attempt has of its job, until this is dropped.
pub(super) struct Turn {
    host: Arc<Host>,
    job: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.host
            .turns
            .0
            .send_if_modified(|jobs| jobs.remove(&self.job));
    }
}

/// Waits for a job's turn.
///
/// # Errors
/// When the attempt before it does not leave.
pub(super) async fn take(host: &Arc<Host>, job: &str) -> Result<Turn, NotLeft> {
    take_within(host, job, WAIT_MAX).await
}

async fn take_within(host: &Arc<Host>, job: &str, most: Duration) -> Result<Turn, NotLeft> {
    let mut changes = host.turns.0.subscribe();
    loop {
        let mut is_first = false;
        host.turns.0.send_if_modified(|jobs| {
            is_first = jobs.insert(job.to_owned());
            is_first
        });
        if is_first {
            let (host, job) = (Arc::clone(host), job.to_owned());
            return Ok(Turn { host, job });
        }
        // The sender is in the host, so there is an answer unless it takes too long.
        let left = changes.wait_for(|jobs| !jobs.contains(job));
        if tokio::time::timeout(most, left).await.is_err() {
            return Err(NotLeft);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(super) mod tests {
    use super::*;
    use crate::host::tests::Leader;

    /// How long it may take on a busy machine until somebody waits.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Goes on when somebody waits for a turn.
    pub(in super::super) async fn somebody_waits(host: &Host) {
        let waits = async {
            while host.turns.0.receiver_count() == 0 {
                tokio::task::yield_now().await;
            }
        };
        let waits = tokio::time::timeout(PATIENCE, waits).await;
        waits.expect("nobody waits");
    }

    #[tokio::test]
    async fn one_that_does_not_leave_is_named() {
        let root = tempfile::tempdir().unwrap();
        let host = Arc::new(Arc::new(Leader::default()).host(root.path()));
        let turn = take(&host, "jcats").await.unwrap();
        let late = take_within(&host, "jcats", Duration::ZERO).await;
        assert!(late.err().unwrap().to_string().contains("has not left"));
        drop(turn);
        take_within(&host, "jcats", Duration::ZERO).await.unwrap();
    }
}
