//! Jobs over gRPC.

use stepcast_proto::v1;
use stepcast_proto::v1::jobs_service_server::JobsService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::freshness::Freshness;
use crate::reader::Reader;
use crate::service::{self, Updates};

/// The service.
pub(crate) struct Jobs(pub(crate) service::Jobs);

#[tonic::async_trait]
impl JobsService for Jobs {
    type WatchJobStream = Updates;

    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        let caller = Caller::by(&request)?;
        let submitted = self.0.submit(&caller, request.into_inner()).await;
        submitted.map(Response::new)
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        let caller = Caller::by(&request)?;
        let job = self.0.get(&caller, request.into_inner(), freshness).await;
        job.map(Response::new)
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        let caller = Caller::by(&request)?;
        let jobs = self.0.list(&caller, request.into_inner(), freshness).await;
        jobs.map(Response::new)
    }

    async fn submit_array(
        &self,
        request: Request<v1::SubmitArrayRequest>,
    ) -> Result<Response<v1::SubmitArrayResponse>, Status> {
        let caller = Caller::by(&request)?;
        let submitted = self.0.submit_array(&caller, request.into_inner()).await;
        submitted.map(Response::new)
    }

    async fn update_job(
        &self,
        request: Request<v1::UpdateJobRequest>,
    ) -> Result<Response<v1::UpdateJobResponse>, Status> {
        let caller = Caller::by(&request)?;
        let updated = self.0.update(&caller, request.into_inner()).await;
        updated.map(Response::new)
    }

    async fn approve_job(
        &self,
        request: Request<v1::ApproveJobRequest>,
    ) -> Result<Response<v1::ApproveJobResponse>, Status> {
        let caller = Caller::by(&request)?;
        let approved = self.0.approve(&caller, request.into_inner()).await;
        approved.map(Response::new)
    }

    async fn give_credentials(
        &self,
        request: Request<v1::GiveCredentialsRequest>,
    ) -> Result<Response<v1::GiveCredentialsResponse>, Status> {
        let caller = Caller::by(&request)?;
        let given = self.0.give_credentials(&caller, request.into_inner()).await;
        given.map(Response::new)
    }

    async fn cancel_array(
        &self,
        request: Request<v1::CancelArrayRequest>,
    ) -> Result<Response<v1::CancelArrayResponse>, Status> {
        let caller = Caller::by(&request)?;
        let cancelled = self.0.cancel_array(&caller, request.into_inner()).await;
        cancelled.map(Response::new)
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let caller = Caller::by(&request)?;
        let cancelled = self.0.cancel(&caller, request.into_inner()).await;
        cancelled.map(Response::new)
    }

    async fn explain_job(
        &self,
        request: Request<v1::ExplainJobRequest>,
    ) -> Result<Response<v1::ExplainJobResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        let caller = Caller::by(&request)?;
        let why = self
            .0
            .explain(&caller, &request.get_ref().name, freshness)
            .await;
        why.map(Response::new)
    }

    async fn what_if(
        &self,
        request: Request<v1::WhatIfRequest>,
    ) -> Result<Response<v1::WhatIfResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        let caller = Caller::by(&request)?;
        let answer = self
            .0
            .what_if(&caller, request.into_inner(), freshness)
            .await;
        answer.map(Response::new)
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        let reading = Reader::by(&request)?.open()?;
        let updates = self.0.watch(reading, request.into_inner(), freshness).await;
        updates.map(Response::new)
    }

    async fn get_job_logs(
        &self,
        request: Request<v1::GetJobLogsRequest>,
    ) -> Result<Response<v1::GetJobLogsResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        let caller = Caller::by(&request)?;
        let logs = self
            .0
            .logs(&caller, &request.get_ref().name, freshness)
            .await;
        logs.map(Response::new)
    }
}
