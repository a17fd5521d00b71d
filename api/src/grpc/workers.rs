//! Workers as operators see them.

use std::collections::BTreeSet;

use stepcast_proto::v1;
use stepcast_proto::v1::workers_service_server::WorkersService;
use stepcast_scheduler::model::Label;
use stepcast_scheduler::{Command, Reply};
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::freshness::Freshness;
use crate::{auth, convert, names, status};

/// The service.
pub(crate) struct Workers(pub(crate) Context);

#[tonic::async_trait]
impl WorkersService for Workers {
    async fn create_worker_token(
        &self,
        request: Request<v1::CreateWorkerTokenRequest>,
    ) -> Result<Response<v1::CreateWorkerTokenResponse>, Status> {
        let name: Label = request.into_inner().display_name.try_into().map_err(
            |error: stepcast_scheduler::model::label::Error| {
                status::bad_field("display_name", error.to_string())
            },
        )?;
        let (secret, hash) = auth::new_worker_secret();
        let id = match self
            .propose(Command::CreateWorkerToken { name, hash }, "")
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
        Ok(Response::new(v1::CreateWorkerTokenResponse {
            token,
            secret,
        }))
    }

    async fn revoke_worker_token(
        &self,
        request: Request<v1::RevokeWorkerTokenRequest>,
    ) -> Result<Response<v1::RevokeWorkerTokenResponse>, Status> {
        let name = request.into_inner().name;
        let token = names::token("name", &name)?;
        self.propose(Command::RevokeWorkerToken { token }, &name)
            .await?;
        Ok(Response::new(v1::RevokeWorkerTokenResponse {}))
    }

    async fn list_worker_tokens(
        &self,
        request: Request<v1::ListWorkerTokensRequest>,
    ) -> Result<Response<v1::ListWorkerTokensResponse>, Status> {
        let tokens = Freshness::of(request.metadata())?.read(&self.0.handle, |state| {
            state.tokens().map(convert::token).collect::<Vec<_>>()
        });
        let mut tokens = tokens.await?;
        tokens.sort_by(|a, b| a.display_name.cmp(&b.display_name));
        Ok(Response::new(v1::ListWorkerTokensResponse { tokens }))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        let attached: BTreeSet<_> = self.0.handle.attached().into_iter().collect();
        let workers = freshness.read(&self.0.handle, |state| {
            let worker = |one: &stepcast_scheduler::model::Worker| {
                convert::worker(one, state, attached.contains(&one.id))
            };
            state.workers().map(worker).collect()
        });
        let workers = workers.await?;
        Ok(Response::new(v1::ListWorkersResponse { workers }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let request = request.into_inner();
        let worker = names::worker("name", &request.name)?;
        self.propose(
            Command::DrainWorker {
                worker,
                stop_running: request.stop_running,
            },
            &request.name,
        )
        .await?;
        Ok(Response::new(v1::DrainWorkerResponse {}))
    }

    async fn resume_worker(
        &self,
        request: Request<v1::ResumeWorkerRequest>,
    ) -> Result<Response<v1::ResumeWorkerResponse>, Status> {
        let name = request.into_inner().name;
        let worker = names::worker("name", &name)?;
        self.propose(Command::ResumeWorker { worker }, &name)
            .await?;
        Ok(Response::new(v1::ResumeWorkerResponse {}))
    }
}

impl Workers {
    async fn propose(&self, command: Command, name: &str) -> Result<Reply, Status> {
        let proposed = self.0.handle.propose(command, None).await;
        proposed.map_err(|error| status::propose_about(error, name))
    }
}

/// A reply that no such command has.
pub(super) fn unexpected(reply: &Reply) -> Status {
    tracing::error!(?reply, "a command was answered with another one's reply");
    status::internal(
        "UNEXPECTED_REPLY",
        "the server gave itself an answer that does not fit",
    )
}
