//! Where a job stands beyond its state: what was decided about it, and what is promised to it.

use serde::{Deserialize, Serialize};
use stepcast_records::UsdMicros;

use super::Attempt;
use crate::ids::{AttemptNumber, JobId, TeamId, WorkerId};

/// What is known of a job from format 3 on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The team that its team is a part of.
    pub parent: Option<TeamId>,
    /// When somebody approved what it costs, by stamp.
    pub approved_ms: Option<u64>,
    /// How often its GPUs were taken back for other jobs.
    pub preemptions: u8,
    /// The team's money that is set aside for its live attempt.
    pub reserved: UsdMicros,
    /// For which job its live attempt's GPUs are taken back. Itself: to go on where it fares better.
    pub yields_to: Option<JobId>,
    /// Whether nobody holds the credentials that it needs: it waits until they are given again. Written behind their names.
    #[serde(skip)]
    pub awaits_credentials: bool,
    /// Where GPUs were taken back for it while it waits: it has the first turn there. Written behind everything else, where
    /// there are any.
    #[serde(skip)]
    pub freed: Option<Freed>,
    /// What is left of attempts that are forgotten. Written behind how its run prepares itself, where there are any.
    #[serde(skip)]
    pub forgotten: Forgotten,
    /// The first attempt whose checkpoints count, 0 for all: its host had another newest one than those before it have made.
    /// Written behind how the job is shared out, where there is one.
    #[serde(skip)]
    pub counts_from: AttemptNumber,
    /// The step that this attempt has gone on from. Written behind its number, where later ones that are forgotten have saved
    /// more.
    #[serde(skip)]
    pub began_at: u64,
}

/// What counts of attempts that a job has had and that are not kept any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// What they have cost.
    pub cost: UsdMicros,
    /// Step of the newest checkpoint of those of them that count, 0 for none; and what the first attempt that counts went on
    /// from, if that is more.
    pub checkpoint_step: u64,
}

impl Forgotten {
    /// Takes in one more attempt, which has ended, and whose checkpoints may count.
    pub(crate) fn add(&mut self, attempt: &Attempt, counts: bool) {
        // It has ended, so the time of asking makes no difference.
        self.cost = UsdMicros(self.cost.0.saturating_add(attempt.cost(0).0));
        if counts {
            self.checkpoint_step = self.checkpoint_step.max(attempt.checkpoint_step);
        }
    }
}

/// GPUs of one worker that were taken back for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// Whose.
    pub worker: WorkerId,
    /// Which of them, a bit for each position.
    pub gpus: u16,
}

impl Freed {
    /// Nothing: no worker has this number.
    pub(crate) const NONE: Self = Self {
        worker: WorkerId(0),
        gpus: 0,
    };

    /// What an attempt holds: of several hosts, on that of rank 0.
    pub(crate) fn of(attempt: &Attempt) -> Self {
        Self::on(attempt, attempt.worker)
    }

    /// What it holds on a worker.
    pub(crate) fn on(attempt: &Attempt, worker: WorkerId) -> Self {
        let part = attempt.part_on(worker);
        let gpus = part.iter().flat_map(|part| part.gpus);
        let gpus = gpus.filter_map(|gpu| 1_u16.checked_shl((*gpu).into()));
        Self {
            worker,
            gpus: gpus.fold(0, |gpus, gpu| gpus | gpu),
        }
    }
}
