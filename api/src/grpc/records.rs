//! The benchmark tables over gRPC.

use stepcast_proto::v1;
use stepcast_proto::v1::records_service_server::RecordsService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::reader::Reader;
use crate::service::{self, Parts};

/// The service.
pub(crate) struct Records(pub(crate) service::Records);

#[tonic::async_trait]
impl RecordsService for Records {
    type RunQueryStream = Parts;

    async fn run_query(
        &self,
        request: Request<v1::RunQueryRequest>,
    ) -> Result<Response<Self::RunQueryStream>, Status> {
        let reading = Reader::by(&request)?.open()?;
        let parts = self.0.run_query(reading, request.into_inner()).await;
        parts.map(Response::new)
    }

    async fn list_tables(
        &self,
        _: Request<v1::ListTablesRequest>,
    ) -> Result<Response<v1::ListTablesResponse>, Status> {
        Ok(Response::new(service::Records::tables()))
    }

    async fn import_records(
        &self,
        request: Request<v1::ImportRecordsRequest>,
    ) -> Result<Response<v1::ImportRecordsResponse>, Status> {
        let actor = Caller::by(&request)?.actor();
        let imported = self.0.import(actor, request.into_inner()).await;
        imported.map(Response::new)
    }

    async fn list_sources(
        &self,
        _: Request<v1::ListSourcesRequest>,
    ) -> Result<Response<v1::ListSourcesResponse>, Status> {
        self.0.sources().await.map(Response::new)
    }

    async fn get_records_status(
        &self,
        _: Request<v1::GetRecordsStatusRequest>,
    ) -> Result<Response<v1::GetRecordsStatusResponse>, Status> {
        Ok(Response::new(self.0.status()))
    }

    async fn list_versions(
        &self,
        request: Request<v1::ListVersionsRequest>,
    ) -> Result<Response<v1::ListVersionsResponse>, Status> {
        let versions = self.0.versions(request.into_inner()).await;
        versions.map(Response::new)
    }

    async fn take_back_rows(
        &self,
        request: Request<v1::TakeBackRowsRequest>,
    ) -> Result<Response<v1::TakeBackRowsResponse>, Status> {
        let actor = Caller::by(&request)?.actor();
        let taken = self.0.take_back(actor, request.into_inner()).await;
        taken.map(Response::new)
    }
}
