//! Where the cluster stands, who belongs to it and who leads it, and its state as a file, over gRPC.

use stepcast_proto::v1;
use stepcast_proto::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::reader::Reader;
use crate::service::{self, Backup};

/// The service.
pub(crate) struct Cluster(pub(crate) service::Cluster);

#[tonic::async_trait]
impl ClusterService for Cluster {
    type BackupStream = Backup;

    async fn get_cluster_status(
        &self,
        _: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        Ok(Response::new(self.0.status().await))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        let caller = Caller::by(&request)?;
        let created = self.0.create_join_token(&caller, request.into_inner());
        created.await.map(Response::new)
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let caller = Caller::by(&request)?;
        let removed = self.0.remove_node(&caller, request.into_inner()).await;
        removed.map(Response::new)
    }

    async fn rotate_secret(
        &self,
        request: Request<v1::RotateSecretRequest>,
    ) -> Result<Response<v1::RotateSecretResponse>, Status> {
        let caller = Caller::by(&request)?;
        self.0.rotate_secret(&caller).await.map(Response::new)
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let caller = Caller::by(&request)?;
        let transferred = self.0.transfer_leadership(&caller, request.into_inner());
        transferred.await.map(Response::new)
    }

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let reading = Reader::by(&request)?.open()?;
        self.0.backup(reading).await.map(Response::new)
    }
}
