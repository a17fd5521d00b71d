//! Credentials that jobs need and that only the leader's memory holds: who waits for them, and when they can go.

use super::State;
use super::apply::Entry;
use crate::effect::Effect;
use crate::ids::{JobId, StagingId};
use crate::model::limits::EXPIRED_MAX;
use crate::model::{AttemptState, EventKind, Job, JobState};
use crate::rejection::Rejection;
use crate::reply::Reply;

impl State {
    pub(super) fn give_credentials(
        &mut self,
        entry: &mut Entry,
        id: JobId,
    ) -> Result<Reply, Rejection> {
        let state = self.jobs.get(id).ok_or(Rejection::NoSuchJob)?.state();
        if state.is_terminal() {
            return Err(Rejection::JobOver { state });
        }
        if state != JobState::Pending {
            return Err(Rejection::NotWaiting);
        }
        self.change(id, |job| {
            if std::mem::take(&mut job.standing.awaits_credentials) {
                entry.event(job, EventKind::CredentialsGiven);
                entry.effects.push(Effect::Plan);
            }
        });
        Ok(Reply::Done)
    }

    pub(super) fn miss_credentials(
        &mut self,
        entry: &mut Entry,
        jobs: &[JobId],
    ) -> Result<Reply, Rejection> {
        if jobs.len() > EXPIRED_MAX {
            return Err(Rejection::TooMany { what: "jobs" });
        }
        for id in jobs {
            let holds = self.open_job(*id).is_some_and(|job| {
                job.state == JobState::Pending
                    && !job.spec.terms.credentials.is_empty()
                    && !job.standing.awaits_credentials
            });
            if holds {
                self.change(*id, |job| {
                    job.standing.awaits_credentials = true;
                    entry.event(job, EventKind::CredentialsMissing);
                });
            }
        }
        Ok(Reply::Done)
    }

    /// Whether a job can still use the credentials that came with these files: it waits, or its attempt was not yet heard
    /// to have begun.
    #[must_use]
    pub fn uses_credentials(&self, staging: &StagingId) -> bool {
        let job = self.indexes.staged.get(staging);
        job.and_then(|id| self.open_job(*id)).is_some_and(|job| {
            let begun = |job: &Job| {
                let live = job.live_attempt();
                live.is_some_and(|attempt| attempt.state != AttemptState::Placed)
            };
            !job.spec.terms.credentials.is_empty() && !begun(job)
        })
    }
}

impl Entry {
    /// Has the credentials of a job forgotten, if it has any.
    pub(super) fn drop_credentials(&mut self, job: &Job) {
        if !job.spec.terms.credentials.is_empty() {
            self.effects.push(Effect::DropCredentials {
                staging: job.spec.staging,
            });
        }
    }

    /// The same at the end of an attempt, whose job goes back into the queue: it must be given them again.
    pub(super) fn take_credentials_back(&mut self, job: &mut Job) {
        self.drop_credentials(job);
        job.standing.awaits_credentials = !job.spec.terms.credentials.is_empty();
    }
}
