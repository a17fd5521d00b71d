//! Makes sure, at each start, that the staging area is this cluster's. Where it does not answer then, it is asked again for as
//! long as the node runs, beside everything else: one that is away for a while is no reason not to serve.

use std::sync::Arc;
use std::time::Duration;

use stepcast_api::{StagingArea, StagingError};
use stepcast_scheduler::ids::StagingId;

use super::refused;
use crate::failure::Failure;
use crate::output::money::counted;

/// What is logged where it does not answer.
const UNKNOWN: &str = "it is not known whether the staging area is this cluster's";

/// A staging area that has not said by then whose it is is not waited for.
const WAIT: Duration = Duration::from_secs(3);

/// How long it takes until one that did not answer is asked again.
pub(super) const AGAIN: Duration = Duration::from_secs(5);

/// For whom it is claimed.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) cluster: u64,
    /// Whether the cluster is of this one node.
    pub(super) alone: bool,
    /// Submissions of which some are in it, unless it is a new place; none where nobody expects any.
    pub(super) expected: Vec<StagingId>,
    /// Jobs that are not over.
    pub(super) open: usize,
}

/// Claims it. Whether it has answered is given back.
pub(super) async fn check(staging: &StagingArea, claim: &Claim) -> Result<bool, Failure> {
    let claimed = staging.claim(claim.cluster, claim.alone, &claim.expected);
    said(claimed, claim.open, WAIT).await
}

/// Asks one that did not answer until it does. Ends only if it is another's, and says so.
pub(super) async fn known(staging: Arc<StagingArea>, claim: Claim, again: Duration) -> String {
    loop {
        tokio::time::sleep(again).await;
        match check(&staging, &claim).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(failure) => return failure.text(),
        }
    }
    tracing::info!("the staging area is this cluster's");
    std::future::pending().await
}

async fn said(
    claimed: impl Future<Output = Result<(), StagingError>>,
    open: usize,
    wait: Duration,
) -> Result<bool, Failure> {
    match tokio::time::timeout(wait, claimed).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error @ StagingError::WithoutFiles { .. })) => {
            let jobs = counted(open as u64, "job", "jobs");
            Err(refused("the staging area cannot be used", &error)
                .detail(format!("with it {jobs} would fail for want of their files"))
                .hint(
                    "start it with the --staging that has them, and the --store that belongs to it (after a restore those of \
                     the old cluster); with --new-staging it takes this one",
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
        let area = || Arc::new(StagingArea::at(&location).expect("opens"));
        let claim = |cluster| Claim {
            cluster,
            alone: true,
            expected: Vec::new(),
            open: 0,
        };
        assert!(check(&area(), &claim(1)).await.expect("its own"));
        let again = Duration::from_millis(1);
        let why = known(area(), claim(2), again).await;
        assert!(why.contains("the staging area cannot be used"), "{why}");
        let asked = tokio::spawn(known(area(), claim(1), again));
        assert!(check(&area(), &claim(1)).await.expect("its own"));
        assert!(
            !asked.is_finished(),
            "it goes on for as long as the node does"
        );
    }
}
