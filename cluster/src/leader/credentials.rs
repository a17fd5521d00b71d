//! Has jobs wait whose credentials were in the memory of a leader that is gone, before anything is placed.

use std::time::Duration;

use stepcast_scheduler::Command;
use stepcast_scheduler::ids::StagingId;
use stepcast_scheduler::model::limits::EXPIRED_MAX;

use super::context::Leader;
use super::view;

/// Between two tries to write down that credentials are missing.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Returns once no waiting job is believed to have credentials that are not here. What comes later comes with its own.
pub(crate) async fn settle(leader: &Leader) {
    loop {
        let keeper = leader.ports.credentials.as_ref();
        let jobs = leader.replicated.read(|state| {
            view::missing_credentials(state, EXPIRED_MAX, |of| keeper.held(of).is_some())
        });
        if jobs.is_empty() {
            return;
        }
        let count = jobs.len();
        let command = Command::MissCredentials { jobs };
        match leader.proposer.propose(command, None).await {
            Ok(_) => tracing::info!(count, "jobs wait for their credentials to be given again"),
            Err(error) => {
                tracing::warn!(%error, count, "it was not written down that jobs miss their credentials");
                leader.runtime.sleep(TRY_AGAIN).await;
            }
        }
    }
}

/// Forgets credentials that came with a submission that nobody has heard of since.
pub(crate) fn sweep(leader: &Leader) {
    let is_used = |of: &StagingId| leader.replicated.read(|state| state.uses_credentials(of));
    let age = leader.config.staging_grace;
    leader.ports.credentials.forget_unused(age, &is_used);
}
