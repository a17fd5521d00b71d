//! Cleans the staging area: asks which files and lines nobody needs any more, and removes them.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::join;
use stepcast_scheduler::ids::{JobId, StagingId};

use super::context::Leader;
use super::{credentials, view};
use crate::runtime::timeout;

/// Submissions looked at in one sweep of the staging area; the next sweep goes on where it ended.
const STAGED: usize = 16_384;

/// Jobs whose lines are looked at in one sweep; the next sweep goes on where it ended.
const LINED: usize = 16_384;

/// Submissions deleted at once. Each waits for its disk or store, and those that wait together share what it takes.
const AT_ONCE: usize = 256;

/// Lines of jobs deleted at once: a listing and some deletions each.
const LINES_AT_ONCE: usize = 32;

/// Sweeps until the leadership ends. Lines may be many, and a job's files do not wait for them.
pub(crate) async fn run(leader: Arc<Leader>) {
    join(sweep_files(&leader), sweep_lines(&leader)).await;
}

async fn sweep_lines(leader: &Leader) {
    loop {
        forget_lines(leader).await;
        leader.runtime.sleep(leader.config.sweep_every).await;
    }
}

async fn sweep_files(leader: &Leader) {
    let mut whole = leader.now();
    loop {
        delete(leader, leader.signals.take_dropped()).await;
        if leader.now() >= whole {
            whole = leader.now() + leader.config.sweep_every;
            delete(leader, old(leader).await).await;
            credentials::sweep(leader);
        }
        let rest = whole.saturating_sub(leader.now());
        // Called or not, it looks.
        let _ = timeout(
            leader.runtime.as_ref(),
            rest,
            leader.signals.sweep.notified(),
        )
        .await;
    }
}

/// What has been in the staging area for longer than any submission takes: a crash may have left it behind.
async fn old(leader: &Leader) -> Vec<StagingId> {
    let staging = &leader.ports.staging;
    let old = staging
        .older_than(leader.config.staging_grace, STAGED)
        .await;
    let old = old.unwrap_or_else(|error| {
        tracing::warn!(%error, "the staging area could not be listed");
        Vec::new()
    });
    if old.is_empty() || !knows_what_was_there(leader).await {
        return Vec::new();
    }
    old
}

/// Whether the state has everything by now that a listing from before could have to do with. All nodes share the area: one
/// that was paused, or is cut off, may have been deposed without knowing, and would take for nobody's what the next leader
/// has let in. What is listed and unknown behind this is nobody's for good.
async fn knows_what_was_there(leader: &Leader) -> bool {
    leader.proposer.confirm_read().await.is_ok()
}

/// Deletes the lines of jobs that are not known any more, and of those that are over and whose owner has been removed.
async fn forget_lines(leader: &Leader) {
    let staging = &leader.ports.staging;
    let jobs = staging.jobs_with_lines(LINED).await;
    let jobs = jobs.unwrap_or_else(|error| {
        tracing::warn!(%error, "the lines of jobs could not be listed");
        Vec::new()
    });
    if jobs.is_empty() || !knows_what_was_there(leader).await {
        return;
    }
    let unwanted = |job: &JobId| {
        let wanted = leader.replicated.read(|state| {
            let known = state.job(*job);
            known.is_some_and(|job| !job.state.is_terminal() || !state.is_orphaned(&job))
        });
        std::future::ready(!wanted)
    };
    futures::stream::iter(jobs)
        .filter(unwanted)
        .for_each_concurrent(LINES_AT_ONCE, |job| async move {
            if let Err(error) = staging.forget_lines(job).await {
                tracing::warn!(%error, %job, "the lines of a forgotten job were not deleted; a later sweep tries again");
            }
        })
        .await;
}

/// Deletes those of these submissions that no job needs.
async fn delete(leader: &Leader, staged: impl IntoIterator<Item = StagingId>) {
    let dropped = futures::stream::iter(staged).filter(|staging| {
        let needed = leader
            .replicated
            .read(|state| view::is_staging_needed(state, staging));
        std::future::ready(!needed)
    });
    dropped
        .for_each_concurrent(AT_ONCE, |staging| async move {
            if let Err(error) = leader.ports.staging.delete(staging).await {
                tracing::warn!(%error, "files in the staging area were not deleted; a later sweep tries again");
            }
        })
        .await;
}
