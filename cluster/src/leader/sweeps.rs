//! Cleans the staging area: asks which files nobody needs any more, and removes them.

use std::sync::Arc;

use stepcast_scheduler::ids::StagingId;

use super::context::Leader;
use super::view;
use crate::runtime::timeout;

/// Submissions looked at in one sweep of the staging area.
const STAGED: usize = 1024;

/// Sweeps until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    let mut whole = leader.now();
    loop {
        delete(&leader, leader.signals.take_dropped()).await;
        if leader.now() >= whole {
            whole = leader.now() + leader.config.sweep_every;
            delete(&leader, old(&leader).await).await;
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
    leader
        .ports
        .staging
        .older_than(leader.config.staging_grace, STAGED)
        .await
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "the staging area could not be listed");
            Vec::new()
        })
}

/// Deletes those of these submissions that no job needs.
async fn delete(leader: &Leader, staged: impl IntoIterator<Item = StagingId>) {
    for staging in staged {
        if leader
            .replicated
            .read(|state| view::is_staging_needed(state, &staging))
        {
            continue;
        }
        if let Err(error) = leader.ports.staging.delete(staging).await {
            tracing::warn!(%error, "files in the staging area were not deleted; a later sweep tries again");
        }
    }
}
