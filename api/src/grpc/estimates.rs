//! Estimates over gRPC.

use stepcast_proto::v1;
use stepcast_proto::v1::estimates_service_server::EstimatesService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::service;

/// The service.
pub(crate) struct Estimates(pub(crate) service::Estimates);

#[tonic::async_trait]
impl EstimatesService for Estimates {
    async fn estimate_job(
        &self,
        request: Request<v1::EstimateJobRequest>,
    ) -> Result<Response<v1::EstimateJobResponse>, Status> {
        let caller = Caller::by(&request)?;
        let estimated = self.0.estimate(&caller, request.into_inner()).await;
        estimated.map(Response::new)
    }

    async fn list_prices(
        &self,
        request: Request<v1::ListPricesRequest>,
    ) -> Result<Response<v1::ListPricesResponse>, Status> {
        self.0.prices(&request.into_inner()).map(Response::new)
    }

    async fn import_prices(
        &self,
        request: Request<v1::ImportPricesRequest>,
    ) -> Result<Response<v1::ImportPricesResponse>, Status> {
        let actor = Caller::by(&request)?.actor();
        let imported = self.0.import_prices(actor, request.into_inner()).await;
        imported.map(Response::new)
    }
}
