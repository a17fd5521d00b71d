//! A gang: one attempt on several hosts at once, a part of it on each.
//!
//! All parts are one attempt under one epoch. Every part has a lease of its own, which its worker renews. The first end of a
//! part that is no success has the others stopped; so has the success of the part with rank 0, which alone writes
//! checkpoints and says that the work is complete. The attempt ends, and its GPUs are free, when the last part has ended:
//! until then a trainer may still use them.

use serde::{Deserialize, Serialize};

use super::{Attempt, AttemptState, FailureReason, Outcome};
use crate::ids::WorkerId;

/// What an attempt on several hosts has besides its first part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gang {
    /// Where the part with rank 0 stands, which is on the attempt's own worker.
    pub first: PartState,
    /// The parts behind it, by rank from 1.
    pub others: Vec<Part>,
    /// How the attempt will end, once the end of a part has decided it.
    pub fate: Option<Outcome>,
}

/// One part of a gang behind the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Whose GPUs. No two parts are on one worker.
    pub worker: WorkerId,
    /// Their positions in its inventory, ascending.
    pub gpus: Vec<u8>,
    /// Where it stands.
    pub state: PartState,
}

/// Where a part stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartState {
    /// Its worker has not said that its trainer runs.
    Placed,
    /// Its trainer runs.
    Running,
    /// Its trainer is gone, or its lease was not renewed.
    Ended,
}

/// A part of an attempt, the first like the others. An attempt on one host has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartOf<'a> {
    /// Its number among the machines that train together, from 0.
    pub rank: usize,
    /// Whose GPUs.
    pub worker: WorkerId,
    /// Their positions in its inventory, ascending.
    pub gpus: &'a [u8],
    /// Where it stands.
    pub state: PartState,
}

impl Attempt {
    /// Its parts, by rank.
    pub fn parts(&self) -> impl Iterator<Item = PartOf<'_>> {
        let own = match self.state {
            AttemptState::Placed => PartState::Placed,
            AttemptState::Running => PartState::Running,
            AttemptState::Ended(_) => PartState::Ended,
        };
        let first = PartOf {
            rank: 0,
            worker: self.worker,
            gpus: &self.gpus,
            state: self.gang.as_ref().map_or(own, |gang| gang.first),
        };
        let others = self.gang.iter().flat_map(|gang| &gang.others);
        let others = (1..).zip(others).map(|(rank, part)| PartOf {
            rank,
            worker: part.worker,
            gpus: &part.gpus,
            state: part.state,
        });
        std::iter::once(first).chain(others)
    }

    /// The part on a worker.
    #[must_use]
    pub fn part_on(&self, worker: WorkerId) -> Option<PartOf<'_>> {
        self.parts().find(|part| part.worker == worker)
    }

    /// On how many hosts it runs.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.gang.as_ref().map_or(1, |gang| 1 + gang.others.len())
    }

    /// How many GPUs it has on all of them.
    #[must_use]
    pub fn gpu_count(&self) -> usize {
        self.parts().map(|part| part.gpus.len()).sum()
    }
}

impl Gang {
    /// Where a part stands, to be changed.
    pub(crate) fn part_mut(&mut self, rank: usize) -> Option<&mut PartState> {
        match rank.checked_sub(1) {
            None => Some(&mut self.first),
            Some(index) => self.others.get_mut(index).map(|part| &mut part.state),
        }
    }

    /// Takes in how a part has ended; whether that is how the attempt ends from now on.
    ///
    /// The success of the first part counts over everything: the work is complete, whatever became of the others while it was
    /// saved. That of another part decides nothing. A lost worker explains why the others fail, so it counts over any failure
    /// that came before it was missed.
    pub(crate) fn decide(&mut self, rank: usize, outcome: Outcome) -> bool {
        let is_complete = rank == 0 && outcome == Outcome::Succeeded;
        let counts = match self.fate {
            None => rank == 0 || outcome != Outcome::Succeeded,
            Some(Outcome::Succeeded) => false,
            Some(fate) => is_complete || (is_loss(outcome) && !is_loss(fate)),
        };
        if counts {
            self.fate = Some(outcome);
        }
        counts
    }
}

/// Whether a worker was lost.
const fn is_loss(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::LeaseExpired | Outcome::Failed(FailureReason::WorkerRestarted)
    )
}
