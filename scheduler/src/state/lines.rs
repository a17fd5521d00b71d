//! Waiting jobs in lines: those that ask for the same, so that what is found out for the first of a line is found for all.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use super::journal::{Change, Read};
use crate::codec::Parts;
use crate::ids::{JobId, StagingId};
use crate::model::Job;

/// What a line's jobs have in common, as the hash of it.
pub(crate) type Line = u128;

/// The lines, each in the order of the queue.
pub(crate) type Lines = BTreeMap<Line, BTreeSet<(i64, JobId)>>;

/// The line of a waiting job: all that it asks for, how far it has come and whether it was approved, but not its name, its
/// files and which task of an array it is. With its priority: of one line all are as urgent, so that the first that nothing
/// holds speaks for all, and few priorities make few lines.
pub(super) fn line(job: &Job) -> Line {
    let mut spec = job.spec.clone();
    spec.name = None;
    spec.staging = StagingId([0; 16]);
    let mut terms = std::mem::take(&mut spec.terms);
    if let Some(part) = &mut terms.array {
        part.index = 0;
    }
    let is_again = !job.attempts.is_empty();
    let again = (job.checkpoint_step(), is_again, job.has_lost_its_worker());
    let common = (spec, terms, again, job.cost(0));
    // Those that wait for their credentials stand in a line of their own, and so do those that were approved: what holds
    // some of a line and not the others would hide these behind as many as came before them.
    let written = postcard::to_extend(&common, Vec::with_capacity(256));
    // Those that could not be started somewhere go elsewhere.
    let mut failed: Vec<_> = job.failed_to_start().collect();
    failed.sort_unstable();
    let written = written.and_then(|bytes| match failed.as_slice() {
        [] => Ok(bytes),
        failed => postcard::to_extend(&("failed", failed), bytes),
    });
    // Those whose checkpoints are on one host go on there.
    let written = written.and_then(|bytes| match job.checkpoint_on() {
        None => Ok(bytes),
        Some(worker) => postcard::to_extend(&("checkpoint", worker), bytes),
    });
    let standing = (
        job.standing.awaits_credentials,
        job.standing.approved_ms.is_some(),
    );
    let written = written.and_then(|bytes| postcard::to_extend(&standing, bytes));
    let written = written.and_then(|bytes| Parts::behind(bytes).then_spec(&job.spec));
    match written {
        Ok(parts) => xxhash_rust::xxh3::xxh3_128(&parts.end()),
        // Memory grows as needed and every length is known beforehand, so there is nothing left that could fail.
        Err(error) => unreachable!("a job is always encodable: {error}"),
    }
}

impl State {
    /// How many lines of waiting jobs there are: jobs of one line ask for the same.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.indexes.lines.len()
    }

    /// The jobs of a line; `None` if it is empty.
    pub(crate) fn line(&self, line: Line) -> Option<&BTreeSet<(i64, JobId)>> {
        self.indexes.lines.get(&line)
    }

    /// What has changed since it was read last, or `None` if that is not known.
    pub(crate) fn read_on(&self, read: &mut Read) -> Option<impl Iterator<Item = Change>> {
        self.indexes.journal.read_on(read)
    }

    /// The lines of waiting jobs, with what each is called.
    pub(crate) fn lines(&self) -> impl ExactSizeIterator<Item = (Line, &BTreeSet<(i64, JobId)>)> {
        self.indexes.lines.iter().map(|(line, jobs)| (*line, jobs))
    }
}
