//! Cancels what waits and runs of people who were removed. The state says whose that is, so that a leader finds what the one
//! before has left, and what came into the log just behind a removal.

use std::sync::Arc;

use futures::future::join_all;
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::{Job, JobState};
use stepcast_scheduler::{Command, State};

use super::context::Leader;
use crate::error::ProposeError;

/// Jobs passed in one look: the state is held meanwhile.
const LOOK: usize = 16_384;

/// Jobs cancelled at once, which go into the log together.
const AT_ONCE: usize = 256;

/// How far the jobs were looked through.
struct Known {
    /// For whom: so many had been removed when it began.
    removed: u64,
    /// Up to this job nobody is left.
    through: JobId,
}

/// What one look has found.
struct Look {
    orphans: Vec<JobId>,
    /// Up to which job it is whole.
    through: JobId,
    /// There may be more.
    is_partial: bool,
}

/// Looks until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    let mut known = Known {
        removed: 0,
        through: JobId(0),
    };
    loop {
        cancel(&leader, &mut known).await;
        leader.runtime.sleep(leader.config.lease_check_every).await;
    }
}

/// Looks through what has come since the last time; through everything where somebody was removed since. What the log does
/// not take is found by the next look.
async fn cancel(leader: &Leader, known: &mut Known) {
    loop {
        let look = leader.replicated.read(|state| known.look(state));
        let cancelled = join_all(look.orphans.iter().map(|job| one(leader, *job))).await;
        if cancelled.contains(&false) {
            return;
        }
        if !look.orphans.is_empty() {
            let count = look.orphans.len();
            tracing::info!(count, "jobs of people who were removed are cancelled");
        }
        known.through = look.through;
        if !look.is_partial {
            return;
        }
    }
}

impl Known {
    fn look(&mut self, state: &State) -> Look {
        let removed = state.accounts().removed();
        if removed != self.removed {
            (self.removed, self.through) = (removed, JobId(0));
        }
        let mut look = Look {
            orphans: Vec::new(),
            through: self.through,
            is_partial: false,
        };
        if removed == 0 {
            return look;
        }
        let mut left = LOOK;
        for (id, job) in state.open_after(self.through) {
            if left == 0 || look.orphans.len() == AT_ONCE {
                look.is_partial = true;
                break;
            }
            left -= 1;
            look.through = id;
            let is_orphan = |job: &Job| job.state != JobState::Cancelling && state.is_orphaned(job);
            if job.is_some_and(is_orphan) {
                look.orphans.push(id);
            }
        }
        look
    }
}

/// Whether it was taken, or there is nothing more to cancel.
async fn one(leader: &Leader, job: JobId) -> bool {
    match leader
        .proposer
        .propose(Command::CancelJob { job }, None)
        .await
    {
        Ok(_) | Err(ProposeError::Rejected(_)) => true,
        Err(error) => {
            tracing::warn!(%error, %job, "a job of somebody who was removed was not cancelled; the next look tries again");
            false
        }
    }
}
