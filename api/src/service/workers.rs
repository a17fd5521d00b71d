//! Workers as operators see them.

use std::collections::BTreeSet;

use stepcast_proto::v1;
use stepcast_scheduler::model::Label;
use stepcast_scheduler::{Command, Reply};
use tonic::Status;

use crate::access::Caller;
use crate::context::Context;
use crate::freshness::Freshness;
use crate::{auth, convert, names, status};

/// What stands for a job of another organisation.
const FOREIGN: &str = "jobs/-";

/// The service.
#[derive(Clone)]
pub(crate) struct Workers(pub(crate) Context);

impl Workers {
    /// A new worker's token, with its secret, which is not kept.
    pub(crate) async fn create_token(
        &self,
        caller: &Caller,
        request: v1::CreateWorkerTokenRequest,
    ) -> Result<v1::CreateWorkerTokenResponse, Status> {
        let name: Label = request.display_name.try_into().map_err(
            |error: stepcast_scheduler::model::label::Error| {
                status::bad_field("display_name", error.to_string())
            },
        )?;
        let (secret, hash) = auth::new_worker_secret();
        let id = match self
            .propose(caller, Command::CreateWorkerToken { name, hash }, "")
            .await?
        {
            Reply::TokenCreated { token } => token,
            other => return Err(unexpected(&other)),
        };
        // Applied here already: the secret must not be lost for want of a leader.
        let token = self
            .0
            .handle
            .read_stale(|state| state.token(id).map(convert::token));
        Ok(v1::CreateWorkerTokenResponse { token, secret })
    }

    /// Takes a worker's token back.
    pub(crate) async fn revoke_token(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<v1::RevokeWorkerTokenResponse, Status> {
        let token = names::token("name", name)?;
        self.propose(caller, Command::RevokeWorkerToken { token }, name)
            .await?;
        Ok(v1::RevokeWorkerTokenResponse {})
    }

    /// The tokens of workers, by name.
    pub(crate) async fn list_tokens(
        &self,
        freshness: Freshness,
    ) -> Result<v1::ListWorkerTokensResponse, Status> {
        let tokens = freshness.read(&self.0.handle, |state| {
            state.tokens().map(convert::token).collect::<Vec<_>>()
        });
        let mut tokens = tokens.await?;
        tokens.sort_by(|a, b| a.display_name.cmp(&b.display_name));
        Ok(v1::ListWorkerTokensResponse { tokens })
    }

    /// Every worker.
    pub(crate) async fn list(
        &self,
        caller: &Caller,
        freshness: Freshness,
    ) -> Result<v1::ListWorkersResponse, Status> {
        let attached: BTreeSet<_> = self.0.handle.attached().into_iter().collect();
        let workers = freshness.read(&self.0.handle, |state| {
            let worker = |one: &stepcast_scheduler::model::Worker| {
                let mut shown = convert::worker(one, state, attached.contains(&one.id));
                for gpu in &mut shown.gpus {
                    // That a GPU is busy is everybody's to know; whose job it is busy with is not.
                    if !names::job("job", &gpu.job)
                        .ok()
                        .and_then(|job| state.open_job(job))
                        .is_none_or(|job| caller.sees(job))
                    {
                        gpu.job = FOREIGN.to_owned();
                    }
                }
                shown
            };
            state.workers().map(worker).collect()
        });
        let workers = workers.await?;
        Ok(v1::ListWorkersResponse { workers })
    }

    /// Gives a worker nothing new.
    pub(crate) async fn drain(
        &self,
        caller: &Caller,
        request: v1::DrainWorkerRequest,
    ) -> Result<v1::DrainWorkerResponse, Status> {
        let worker = names::worker("name", &request.name)?;
        self.propose(
            caller,
            Command::DrainWorker {
                worker,
                stop_running: request.stop_running,
            },
            &request.name,
        )
        .await?;
        Ok(v1::DrainWorkerResponse {})
    }

    /// Gives a drained worker work again.
    pub(crate) async fn resume(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<v1::ResumeWorkerResponse, Status> {
        let worker = names::worker("name", name)?;
        self.propose(caller, Command::ResumeWorker { worker }, name)
            .await?;
        Ok(v1::ResumeWorkerResponse {})
    }

    async fn propose(
        &self,
        caller: &Caller,
        command: Command,
        name: &str,
    ) -> Result<Reply, Status> {
        let handle = &self.0.handle;
        let proposed = handle.propose_by(caller.actor(), command, None).await;
        proposed.map_err(|error| status::propose_about(error, name))
    }
}

/// A reply that no such command has.
pub(crate) fn unexpected(reply: &Reply) -> Status {
    tracing::error!(?reply, "a command was answered with another one's reply");
    status::internal(
        "UNEXPECTED_REPLY",
        "the server gave itself an answer that does not fit",
    )
}
