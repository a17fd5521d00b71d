//! Makes sure, at each start, that the staging area is this cluster's. Where it does not answer then, it is asked again for as
//! long as the node runs, beside everything else: one that is away for a while is no reason not to serve.

use std::sync::Arc;
use std::time::Duration;

use stepcast_api::{StagingArea, StagingError};
use stepcast_cluster::{Handle, ReadError};
use stepcast_scheduler::State;
use stepcast_scheduler::ids::{JobId, StagingId};
use tokio::time::{sleep, timeout};

use super::refused;
use crate::failure::Failure;
use crate::output::money::counted;

/// What is logged where it does not answer.
const UNKNOWN: &str = "it is not known whether the staging area is this cluster's";

/// A staging area that has not said by then whose it is is not waited for.
const WAIT: Duration = Duration::from_secs(3);

/// Beside everything else it has longer: what was moved into it from a folder, or out of a bucket, is taken over meanwhile.
const WAIT_LATER: Duration = Duration::from_secs(300);

/// How long it takes until one that did not answer is asked again.
pub(super) const AGAIN: Duration = Duration::from_secs(5);

/// A node that votes alone leads a moment after its start, unless its disk is full, say.
const LEADS_WITHIN: Duration = Duration::from_secs(10);

/// How long it takes until a node that does not lead yet is asked again.
const LEADS_AGAIN: Duration = Duration::from_millis(5);

/// Jobs that are not over whose files are looked for before a staging area is taken for theirs. One of them may have lost
/// its own.
const FILES_LOOKED_FOR: usize = 8;

/// For whom it is claimed.
pub(super) struct Claim {
    pub(super) staging: Arc<StagingArea>,
    pub(super) cluster: u64,
    /// Whether the cluster is of this one node.
    pub(super) alone: bool,
    /// Who knows which jobs are not over, whose files are to be in it; none where it may be a new place. Only a node that is
    /// alone is asked: one of several may have been away, and takes jobs for waiting that were over long ago.
    pub(super) jobs: Option<Handle>,
}

/// Whether the cluster is of this one node. What its disk has of the log is applied once it leads; before, it knows neither
/// all who belong to it nor which jobs are over.
pub(super) async fn is_alone(handle: &Handle) -> bool {
    let me = handle.status().node_id;
    let alone = || handle.members().ids().eq([me]);
    let leads = async {
        while alone() {
            match handle.read(|_| ()).await {
                Ok(()) | Err(ReadError::Stopped(_)) => break,
                Err(_) => sleep(LEADS_AGAIN).await,
            }
        }
    };
    // Where it does not lead by then, it is asked which jobs are not over until it says so.
    let _ = timeout(LEADS_WITHIN, leads).await;
    alone()
}

impl Claim {
    /// Claims it. Whether that is known by now is given back.
    pub(super) async fn check(&self) -> Result<bool, Failure> {
        self.check_within(WAIT).await
    }

    async fn check_within(&self, wait: Duration) -> Result<bool, Failure> {
        let (open, expected) = match &self.jobs {
            None => (0, Vec::new()),
            Some(handle) => match handle.read(not_over).await {
                Ok(jobs) => jobs,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "{UNKNOWN}");
                    return Ok(false);
                }
            },
        };
        let claimed = self.staging.claim(self.cluster, self.alone, &expected);
        let known = said(claimed, open, wait).await;
        if known.is_err() && self.have_ended(&expected).await {
            return Ok(false);
        }
        if matches!(known, Ok(true)) {
            self.staging.hold(false);
        }
        known
    }

    /// Whether all of these jobs have ended since they were asked for, and their files have gone with them.
    async fn have_ended(&self, files: &[StagingId]) -> bool {
        let Some(handle) = self.jobs.as_ref().filter(|_| !files.is_empty()) else {
            return false;
        };
        let needed = |state: &State| files.iter().any(|one| state.needs_staging(one));
        handle.read(needed).await.is_ok_and(|needed| !needed)
    }

    /// Asks one that did not answer until it does. Ends only if it is another's, and says so.
    pub(super) async fn known(self, again: Duration) -> String {
        loop {
            sleep(again).await;
            match self.check_within(WAIT_LATER).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(failure) => return failure.text(),
            }
        }
        tracing::info!("the staging area is this cluster's");
        std::future::pending().await
    }
}

/// How many jobs are not over, and the submissions of some of them.
fn not_over(state: &State) -> (usize, Vec<StagingId>) {
    let open = state.open_after(JobId(0)).filter_map(|(_, job)| job);
    let files = open.map(|job| job.spec.staging).take(FILES_LOOKED_FOR);
    (state.unfinished_count(), files.collect())
}

async fn said(
    claimed: impl Future<Output = Result<(), StagingError>>,
    open: usize,
    wait: Duration,
) -> Result<bool, Failure> {
    match timeout(wait, claimed).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error @ StagingError::WithoutFiles { .. })) => {
            let jobs = counted(open as u64, "job", "jobs");
            Err(refused("the staging area cannot be used", &error)
                .detail(format!("with it {jobs} would fail for want of their files"))
                .hint(
                    "start it with the --staging that has them, and the --store that belongs to it (after a restore those of \
                     the old cluster), or move all that is in that one here first; with --new-staging it takes this one",
                ))
        }
        Ok(Err(error @ StagingError::Foreign { .. })) => {
            let hint = "after a restore: delete the file or object `cluster` in it, which hands it over with the files of \
                        jobs that wait";
            Err(refused("the staging area cannot be used", &error).hint(hint))
        }
        Ok(Err(error @ StagingError::Elsewhere { .. })) => {
            Err(refused("the staging area cannot be used", &error))
        }
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "{UNKNOWN}");
            Ok(false)
        }
        Err(_) => {
            tracing::warn!("{UNKNOWN}: it has not answered");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_does_not_answer_is_not_waited_for_and_asked_again() {
        let silent = std::future::pending();
        let answered = said(silent, 0, Duration::ZERO).await;
        assert!(!answered.expect("no reason not to start"));

        let root = tempfile::tempdir().expect("folder");
        let location = root.path().display().to_string();
        let claim = |cluster| {
            let staging = Arc::new(StagingArea::at(&location).expect("opens"));
            Claim {
                staging,
                cluster,
                alone: true,
                jobs: None,
            }
        };
        assert!(claim(1).check().await.expect("its own"));
        let again = Duration::from_millis(1);
        let why = claim(2).known(again).await;
        assert!(why.contains("the staging area cannot be used"), "{why}");
        let asked = tokio::spawn(claim(1).known(again));
        assert!(claim(1).check().await.expect("its own"));
        assert!(
            !asked.is_finished(),
            "it goes on for as long as the node does"
        );
    }
}
