//! Where this node and its log stand.

use stepcast_cluster::Health;
use stepcast_proto::v1;
use stepcast_proto::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use crate::context::Context;

/// The service. It answers on every node, also on one that cannot write.
pub(crate) struct Cluster(pub(crate) Context);

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_cluster_status(
        &self,
        _: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        let status = self.0.handle.status();
        let jobs = self
            .0
            .handle
            .read_stale(stepcast_scheduler::State::job_counts);
        let (health, detail) = health(status.health);
        Ok(Response::new(v1::GetClusterStatusResponse {
            node_id: status.node_id,
            cluster_id: status.cluster_id,
            term: status.term,
            leader_id: status.leader.unwrap_or(0),
            leading: status.leading,
            voters: status.voters,
            commit_index: status.commit_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            sessions: u32::try_from(status.sessions).unwrap_or(u32::MAX),
            disk_free_bytes: status.disk_free_bytes,
            health: health.to_owned(),
            detail,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            privacy_mode: self.0.privacy_mode.name().to_owned(),
            jobs_pending: jobs.pending as u64,
            jobs_running: (jobs.running + jobs.cancelling) as u64,
            jobs_ended: (jobs.succeeded + jobs.failed + jobs.cancelled) as u64,
            nodes: Vec::new(),
            log_format: 0,
        }))
    }

    type BackupStream = futures::stream::BoxStream<'static, Result<v1::BackupResponse, Status>>;

    async fn create_join_token(
        &self,
        _: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        Err(not_built())
    }

    async fn remove_node(
        &self,
        _: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        Err(not_built())
    }

    async fn transfer_leadership(
        &self,
        _: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        Err(not_built())
    }

    async fn backup(
        &self,
        _: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Err(not_built())
    }
}

fn not_built() -> Status {
    Status::unimplemented("this version cannot do that yet")
}

fn health(health: Health) -> (&'static str, String) {
    match health {
        Health::Serving => ("SERVING", String::new()),
        Health::Electing => ("ELECTING", "no node leads at the moment".to_owned()),
        Health::StorageFull => (
            "STORAGE_FULL",
            "the disk is nearly full: new jobs are refused until there is room".to_owned(),
        ),
        Health::LogStalled(why) => (
            "LOG_STALLED",
            format!("the log cannot be written at the moment: {why}"),
        ),
        Health::Stopped(why) => (
            "STOPPED",
            format!("the node cannot go on without a restart: {why}"),
        ),
    }
}
