//! Arrays: sweeps of jobs that come together, run so many at a time, and can be cancelled together.

use std::borrow::Cow;

use super::State;
use super::apply::Entry;
use crate::ids::{JobId, StagingId};
use crate::model::limits::ARRAY_MAX;
use crate::model::{ArrayPart, Job, JobSpec};
use crate::rejection::Rejection;
use crate::reply::Reply;

impl State {
    /// The places of an array's jobs, in their order, also of those that are forgotten. Empty for what is no array, and for
    /// one of which nothing is known any more.
    pub fn array_jobs(&self, array: JobId) -> impl Iterator<Item = JobId> {
        // Each of them knows how many they are.
        let known = self.job_of_array(array);
        let part = known.and_then(|job| job.spec.terms.array);
        let of = part
            .filter(|part| part.array == array)
            .map_or(0, |part| part.of);
        (array.0..array.0.saturating_add(of.into())).map(JobId)
    }

    /// The job that is called so; if it is forgotten, the first that is left of the array that is called by it, since the
    /// first task of an array may be forgotten long before the last one has ended.
    #[must_use]
    pub fn job_of_array(&self, name: JobId) -> Option<Cow<'_, Job>> {
        let is_of = |job: &Cow<'_, Job>| {
            let part = job.spec.terms.array;
            part.is_some_and(|part| part.array == name)
        };
        let behind = || self.jobs_after(name).next().filter(is_of);
        self.job(name).or_else(behind)
    }

    /// The arrays before `below` that have jobs that are not over, newest first.
    pub fn open_arrays(&self, below: JobId) -> impl Iterator<Item = JobId> {
        let below = self.indexes.arrays.range(..below).rev();
        below.map(|(array, _)| *array)
    }

    /// How many tasks of an array are not over.
    #[must_use]
    pub fn array_unfinished(&self, array: JobId) -> u32 {
        let tasks = self.indexes.arrays.get(&array);
        tasks.map_or(0, |tasks| tasks.unfinished)
    }

    /// Refuses an array that cannot come into the queue, as a whole.
    pub(super) fn check_submit_array(
        &self,
        entry: &Entry,
        spec: &JobSpec,
        tasks: &[StagingId],
        parallel: u32,
    ) -> Result<(), Rejection> {
        let asked = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        if tasks.is_empty() || tasks.len() > ARRAY_MAX {
            return Err(Rejection::ArraySize {
                max: ARRAY_MAX as u32,
                asked,
            });
        }
        self.check_submission(entry, &self.task(spec, (0, tasks[0]), asked, parallel))?;
        self.check_room(spec, tasks.len())?;
        let alone: std::collections::BTreeSet<_> = tasks.iter().collect();
        if alone.len() < tasks.len() || tasks.iter().any(|files| self.needs_staging(files)) {
            return Err(Rejection::StagingInUse);
        }
        Ok(())
    }

    /// A task of an array that would be made now.
    fn task(
        &self,
        spec: &JobSpec,
        (index, staging): (u32, StagingId),
        of: u32,
        parallel: u32,
    ) -> JobSpec {
        let mut spec = spec.clone();
        spec.staging = staging;
        spec.terms.array = Some(ArrayPart {
            array: JobId(self.last_job + 1),
            index,
            of,
            parallel: if parallel == 0 { of } else { parallel },
        });
        spec
    }

    pub(super) fn submit_array(
        &mut self,
        entry: &mut Entry,
        spec: &JobSpec,
        tasks: &[StagingId],
        parallel: u32,
    ) -> Result<Reply, Rejection> {
        // All of them or none: what would be wrong with one of them is looked for before the first is taken.
        self.check_submit_array(entry, spec, tasks, parallel)?;
        let of = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let array = JobId(self.last_job + 1);
        let made = (0..).zip(tasks);
        let made = made.map(|(index, staging)| self.task(spec, (index, *staging), of, parallel));
        for task in made.collect::<Vec<_>>() {
            self.take_in(entry, task);
        }
        Ok(Reply::ArraySubmitted { array, tasks: of })
    }

    pub(super) fn cancel_array(
        &mut self,
        entry: &mut Entry,
        array: JobId,
    ) -> Result<Reply, Rejection> {
        let jobs: Vec<_> = self.array_jobs(array).collect();
        if jobs.is_empty() {
            return Err(Rejection::NoSuchJob);
        }
        let mut count = 0;
        for job in jobs {
            if self.open_job(job).is_some() && self.cancel(entry, job).is_ok() {
                count += 1;
            }
        }
        Ok(Reply::ArrayCancelled { count })
    }
}
