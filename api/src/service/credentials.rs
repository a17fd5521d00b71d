//! Credentials of jobs: kept in this node's memory while it leads, given again by people, and handed to the worker that
//! holds the lease.

use std::collections::HashMap;
use std::time::Duration;

use stepcast_cluster::credentials::{Credentials, Full};
use stepcast_proto::v1;
use stepcast_scheduler::Command;
use stepcast_scheduler::ids::{JobId, StagingId};
use stepcast_scheduler::model::{JobState, Label, Owner};
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::jobs::Jobs;
use super::submit::not_staged;
use crate::access::Caller;
use crate::context::Context;
use crate::credentials::{Taken, take_out};
use crate::freshness::Freshness;
use crate::status::{self, Refusal, YOURS_FULL, bad_field};
use crate::submission::Submission;
use crate::{names, reading};

/// Jobs that hold credentials begin or end by then.
const ROOM_AGAIN: Duration = Duration::from_secs(30);

impl Jobs {
    /// Gives a waiting job its credentials again.
    pub(crate) async fn give_credentials(
        &self,
        caller: &Caller,
        request: v1::GiveCredentialsRequest,
    ) -> Result<v1::GiveCredentialsResponse, Status> {
        let id = names::job("name", &request.name)?;
        self.check(caller, id, &request.name, Freshness::Confirmed, true)
            .await?;
        let found = self.context.handle.read(|state| {
            let job = state.job(id)?;
            let names = job.spec.terms.credentials.clone();
            Some((names, job.spec.staging, job.spec.terms.owner, job.state))
        });
        let found = found.await.map_err(status::read)?;
        let (needed, staging, owner, state) =
            found.ok_or_else(|| status::not_found("jobs", "a job", &request.name))?;
        if needed.is_empty() {
            return Err(needs_none());
        }
        if state.is_terminal() {
            let over = stepcast_scheduler::Rejection::JobOver { state };
            return Err(status::rejection(over));
        }
        if state != JobState::Pending {
            return Err(status::rejection(stepcast_scheduler::Rejection::NotWaiting));
        }
        let given = self.in_files(caller, request.files, staging, &needed);
        let mut given = given.await?;
        add_named(&mut given, request.credentials, &needed)?;
        let credentials = given
            .only(&needed)
            .map_err(|missing| still_missing(&missing))?;
        self.context.entries.change(caller)?;
        self.context.keep(staging, owner, credentials)?;
        let command = Command::GiveCredentials { job: id };
        let handle = &self.context.handle;
        let proposed = handle.propose_by(caller.actor(), command, None).await;
        self.context.forget_unused(staging);
        proposed.map_err(|error| status::propose_about(error, &request.name))?;
        let job = self
            .job(caller, id, &request.name, Freshness::Stale)
            .await?;
        Ok(v1::GiveCredentialsResponse { job: Some(job) })
    }

    /// What came in files, each credential by its place in the files that the job was submitted with.
    async fn in_files(
        &self,
        caller: &Caller,
        files: Vec<v1::JobFile>,
        staging: StagingId,
        needed: &[Label],
    ) -> Result<Taken, Status> {
        if files.is_empty() {
            return Ok(Taken::default());
        }
        let bytes = reading::bytes(&files);
        let read = move || {
            let mut given = Submission::read(files)?;
            let taken = take_out(&mut given)?;
            Ok((given, taken))
        };
        let turns = &self.context.reading;
        let (given, taken) = reading::aside(turns, caller.user, bytes, read).await?;
        let staged = self.context.staging.get(staging).await;
        taken.beside(&given, &staged.map_err(not_staged)?, needed)
    }

    /// After a submission was taken: credentials that nobody can use are forgotten, and a job that was waiting for them,
    /// since the same request came before to a leader that is gone, has them again.
    pub(super) async fn settle_credentials(&self, caller: &Caller, staging: StagingId, job: JobId) {
        self.context.forget_unused(staging);
        let awaits = self.context.handle.read_stale(|state| {
            let job = state.open_job(job);
            job.is_some_and(|job| job.standing.awaits_credentials && job.spec.staging == staging)
        });
        if awaits && self.context.handle.credentials().held(&staging).is_some() {
            let command = Command::GiveCredentials { job };
            let handle = &self.context.handle;
            if let Err(error) = handle.propose_by(caller.actor(), command, None).await {
                tracing::warn!(%error, %job, "credentials came again and the job still waits for them");
            }
        }
    }
}

impl Context {
    /// Keeps the credentials of a job in memory, on the node that leads, in the room of whom the job belongs to.
    pub(super) fn keep(
        &self,
        of: StagingId,
        whose: Option<Owner>,
        credentials: Credentials,
    ) -> Result<(), Status> {
        if !self.handle.leads() {
            return Err(status::not_leader(self.handle.status().leader));
        }
        let whose = whose.map(|owner| owner.user);
        let kept = self.handle.credentials().keep(of, whose, credentials);
        kept.map_err(full)
    }

    /// Forgets the credentials that came with these files unless a job can still use them.
    pub(super) fn forget_unused(&self, of: StagingId) {
        if !self.handle.leads() || !self.handle.read_stale(|state| state.uses_credentials(&of)) {
            self.handle.credentials().forget(&of);
        }
    }

    /// The credentials of a job, for the worker that holds its lease. Only the leader has them, and a job does not run
    /// without.
    pub(crate) fn hand_over(&self, of: StagingId) -> Result<Vec<v1::Credential>, Status> {
        if !self.handle.leads() {
            return Err(status::not_leader(self.handle.status().leader));
        }
        let held = self.handle.credentials().held(&of).ok_or_else(|| {
            Refusal::new(
                Code::FailedPrecondition,
                "CREDENTIALS_GONE",
                "the credentials that the job needs are gone from the server's memory",
            )
            .hint("they have to be given again: `stepcast job credentials JOB CONFIG`")
        })?;
        let credential = |one: &stepcast_cluster::credentials::Credential| v1::Credential {
            name: one.name.to_string(),
            value: one.value.to_string(),
        };
        Ok(held.iter().map(credential).collect())
    }
}

/// There is no room for more credentials.
fn full(error: Full) -> Status {
    let refuse = |reason| Refusal::new(Code::ResourceExhausted, reason, error.to_string());
    match error {
        Full::All => refuse("CREDENTIALS_FULL")
            .hint("wait until jobs with credentials have begun, cancel some of your own that wait (`stepcast jobs --state pending`), or submit without credentials")
            .retry(ROOM_AGAIN)
            .into(),
        Full::Yours => refuse(YOURS_FULL)
            .hint("cancel some of your jobs that wait with credentials (`stepcast jobs --state pending`), wait until some have begun, or submit without credentials")
            .quota("credentials", &error.to_string())
            .into(),
    }
}

/// Adds what came by its name.
fn add_named(
    given: &mut Taken,
    named: HashMap<String, String>,
    needed: &[Label],
) -> Result<(), Status> {
    for (name, value) in named {
        let value = Zeroizing::new(value);
        if !needed.iter().any(|needed| needed.as_str() == name) {
            let names: Vec<&str> = needed.iter().map(Label::as_str).collect();
            let what = format!("the job needs {}, and nothing else", names.join(", "));
            return Err(bad_field("credentials", what));
        }
        given.add(name, value)?;
    }
    Ok(())
}

fn still_missing(missing: &[Label]) -> Status {
    let names: Vec<&str> = missing.iter().map(Label::as_str).collect();
    bad_field("credentials", format!("{} is missing", names.join(", ")))
}

fn needs_none() -> Status {
    Refusal::new(
        Code::FailedPrecondition,
        "NEEDS_NO_CREDENTIALS",
        "the configuration of this job holds no credentials",
    )
    .into()
}
