//! What people and workers were told, and when: acknowledged writes, reads, watches and contributions.

use std::collections::{BTreeMap, BTreeSet};

use stepcast_scheduler::RequestId;
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::JobState;

use super::Check;
use crate::kernel::Micros;

type Found = Option<(Check, String)>;

/// What a read showed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// The newest entry that is in the state.
    pub(crate) index: u64,
    /// Of the jobs that were asked for, each one's newest event and where it stands; nothing for one that is not there.
    pub(crate) jobs: Vec<(JobId, Option<(u64, JobState)>)>,
}

/// Everything that was told.
#[derive(Default)]
pub(crate) struct Histories {
    /// The job each acknowledged request made.
    requests: BTreeMap<RequestId, JobId>,
    /// What every read from now on must be as new as, by when it became known.
    known: Vec<(Micros, u64)>,
    /// The newest event anybody was shown of a job, by when.
    shown: BTreeMap<JobId, Vec<(Micros, u64)>>,
    /// When it was first acknowledged that a job is cancelled or will be.
    cancelled: BTreeMap<JobId, Micros>,
    /// Ids of contributions that were acknowledged.
    acknowledged: BTreeSet<[u8; 16]>,
    /// Ids of contributions that are stored.
    stored: BTreeSet<[u8; 16]>,
    /// Of which attempt each contribution is.
    sources: BTreeMap<[u8; 16], u64>,
}

impl Histories {
    /// A submission was answered with this job.
    pub(crate) fn submitted(&mut self, request: RequestId, job: JobId) -> Found {
        let first = *self.requests.entry(request).or_insert(job);
        (first != job).then(|| {
            let detail =
                format!("the same request was answered with job {first}, and then with {job}");
            (Check::OneRequestOneJob, detail)
        })
    }

    /// Every job that was acknowledged.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.requests.values().copied()
    }

    /// From now on every read must show this entry.
    pub(crate) fn known(&mut self, now: Micros, index: u64) {
        if self.known.last().is_none_or(|(_, newest)| *newest < index) {
            self.known.push((now, index));
        }
    }

    /// A job was acknowledged: every read that begins from now on must show it, by its first event at least.
    pub(crate) fn kept(&mut self, now: Micros, job: JobId) {
        self.shown.entry(job).or_default().push((now, 1));
    }

    /// It was acknowledged that a job is cancelled or will be: every read that begins from now on must show that.
    pub(crate) fn cancelled(&mut self, now: Micros, job: JobId) {
        self.cancelled.entry(job).or_insert(now);
    }

    /// Whether every job that was said to be cancelled ended by that, or succeeded before it could be stopped.
    pub(crate) fn cancellations(&self, state: impl Fn(JobId) -> Option<JobState>) -> Found {
        self.cancelled.keys().find_map(|job| {
            let ended = state(*job);
            let is_kept = matches!(ended, Some(JobState::Cancelled | JobState::Succeeded));
            (!is_kept).then(|| {
                let detail =
                    format!("job {job} was said to be cancelled, and is {ended:?} in the end");
                (Check::AcknowledgedIsKept, detail)
            })
        })
    }

    /// A read that was asked for at `begun` was answered now.
    pub(crate) fn read(&mut self, begun: Micros, now: Micros, seen: &Seen) -> Found {
        let before = self.known.partition_point(|(at, _)| *at < begun);
        let least = self.known[..before].last().map_or(0, |(_, index)| *index);
        if seen.index < least {
            let detail = format!(
                "a read shows entry {} though entry {least} was known before it was asked for",
                seen.index
            );
            return Some((Check::ReadsAreLinearizable, detail));
        }
        for (job, shown) in &seen.jobs {
            let told = self.shown.entry(*job).or_default();
            let least = told
                .iter()
                .filter(|(at, _)| *at < begun)
                .map(|(_, event)| *event)
                .max();
            match (least, shown) {
                (Some(_), None) => {
                    let detail = format!("a read does not show job {job}, which was acknowledged");
                    return Some((Check::AcknowledgedIsKept, detail));
                }
                (Some(least), Some((event, _))) if *event < least => {
                    let detail = format!(
                        "a read shows job {job} at event {event}, and it was shown at event {least} before"
                    );
                    return Some((Check::ReadsAreLinearizable, detail));
                }
                (_, Some((event, state))) => {
                    told.push((now, *event));
                    let is_asked = self.cancelled.get(job).is_some_and(|at| *at < begun);
                    if is_asked && matches!(state, JobState::Pending | JobState::Running) {
                        let detail = format!(
                            "a read shows job {job} as {state:?}, which was said to be cancelled"
                        );
                        return Some((Check::AcknowledgedIsKept, detail));
                    }
                }
                (None, None) => {}
            }
        }
        self.known(now, seen.index);
        None
    }

    /// A worker has these samples of an attempt.
    pub(crate) fn measured(&mut self, contribution: [u8; 16], epoch: u64) -> Found {
        self.sources.insert(contribution, epoch).map(|_| {
            let detail = "two contributions have one id".to_owned();
            (Check::ContributionsCountOnce, detail)
        })
    }

    /// The store has written a contribution.
    pub(crate) fn stored(&mut self, contribution: [u8; 16]) {
        self.stored.insert(contribution);
    }

    /// A worker was told that its contribution is stored.
    pub(crate) fn acknowledged(&mut self, contribution: [u8; 16]) {
        self.acknowledged.insert(contribution);
    }

    /// Whether everything that was measured counts once in the end. `waiting` are those that are still on workers.
    pub(crate) fn contributions(&self, waiting: &BTreeSet<[u8; 16]>) -> Found {
        for id in &self.stored {
            if !self.sources.contains_key(id) {
                let detail = "the store holds what nobody measured".to_owned();
                return Some((Check::ContributionsCountOnce, detail));
            }
        }
        let mut attempts = BTreeSet::new();
        for id in &self.stored {
            if !self
                .sources
                .get(id)
                .is_some_and(|epoch| attempts.insert(*epoch))
            {
                let detail = "an attempt's samples were stored under two ids".to_owned();
                return Some((Check::ContributionsCountOnce, detail));
            }
        }
        let lost = self
            .sources
            .keys()
            .find(|id| !self.stored.contains(*id) && !waiting.contains(*id));
        let lost = lost.or_else(|| {
            self.acknowledged
                .iter()
                .find(|id| !self.stored.contains(*id))
        });
        lost.map(|_| {
            let detail = "samples that were measured are neither stored nor kept".to_owned();
            (Check::ContributionsCountOnce, detail)
        })
    }
}
