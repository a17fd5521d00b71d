//! Whose results are where: workers say which folder they put them into, and those that say the same share it.

use std::sync::OnceLock;

use super::State;
use crate::ids::{OutputsId, WorkerId};
use crate::model::{Job, Worker};

impl State {
    /// Whether what lies in the results of one worker is known not to lie in those of another. Of who has not said where they
    /// are nothing is known.
    #[must_use]
    pub fn are_apart(&self, one: WorkerId, other: WorkerId) -> bool {
        let outputs = |id| self.worker(id)?.inventory.outputs;
        let both = outputs(one).zip(outputs(other));
        one != other && both.is_some_and(|(one, other)| one != other)
    }

    /// Whether a job has a checkpoint and would begin anew on a worker all the same, since it is known not to be there.
    #[must_use]
    pub fn begins_anew_on(&self, job: &Job, worker: WorkerId) -> bool {
        let from = job.checkpoint_on();
        from.is_some_and(|from| self.are_apart(from, worker))
    }

    /// The worker with whose results alone a job goes on from its checkpoint: `None` where no other that takes work is known to
    /// have results of its own.
    #[must_use]
    pub fn checkpoint_only_on(&self, job: &Job) -> Option<&Worker> {
        let from = self.worker(job.checkpoint_on()?)?;
        let home = from.inventory.outputs?;
        let folders = self.indexes.folders.0.get_or_init(|| self.first_folders());
        let is_any = folders.iter().flatten().any(|folder| *folder != home);
        is_any.then_some(from)
    }

    /// The folders of workers that take work, two of them at most: one of two is another than any.
    fn first_folders(&self) -> [Option<OutputsId>; 2] {
        let working = self.workers().filter(|worker| worker.takes_work());
        let mut folders = working.filter_map(|worker| worker.inventory.outputs);
        let first = folders.next();
        [first, folders.find(|folder| Some(*folder) != first)]
    }
}

/// What [`State::first_folders`] has found, until a worker changes: who lists jobs asks for each of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folders(OnceLock<[Option<OutputsId>; 2]>);

impl Folders {
    /// They may be others from now on.
    pub(super) fn forget(&mut self) {
        self.0.take();
    }
}

impl PartialEq for Folders {
    /// It follows from the workers.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
