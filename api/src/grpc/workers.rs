//! Workers over gRPC, as operators see them.

use stepcast_proto::v1;
use stepcast_proto::v1::workers_service_server::WorkersService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::freshness::Freshness;
use crate::service;

/// The service.
pub(crate) struct Workers(pub(crate) service::Workers);

#[tonic::async_trait]
impl WorkersService for Workers {
    async fn create_worker_token(
        &self,
        request: Request<v1::CreateWorkerTokenRequest>,
    ) -> Result<Response<v1::CreateWorkerTokenResponse>, Status> {
        let caller = Caller::by(&request)?;
        let created = self.0.create_token(&caller, request.into_inner()).await;
        created.map(Response::new)
    }

    async fn revoke_worker_token(
        &self,
        request: Request<v1::RevokeWorkerTokenRequest>,
    ) -> Result<Response<v1::RevokeWorkerTokenResponse>, Status> {
        let caller = Caller::by(&request)?;
        let revoked = self.0.revoke_token(&caller, &request.get_ref().name).await;
        revoked.map(Response::new)
    }

    async fn list_worker_tokens(
        &self,
        request: Request<v1::ListWorkerTokensRequest>,
    ) -> Result<Response<v1::ListWorkerTokensResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        self.0.list_tokens(freshness).await.map(Response::new)
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        let caller = Caller::by(&request)?;
        self.0.list(&caller, freshness).await.map(Response::new)
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let caller = Caller::by(&request)?;
        self.0
            .drain(&caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn resume_worker(
        &self,
        request: Request<v1::ResumeWorkerRequest>,
    ) -> Result<Response<v1::ResumeWorkerResponse>, Status> {
        let caller = Caller::by(&request)?;
        let resumed = self.0.resume(&caller, &request.get_ref().name).await;
        resumed.map(Response::new)
    }
}
