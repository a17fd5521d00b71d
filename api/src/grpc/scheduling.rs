//! Teams and policies over gRPC.

use stepcast_proto::v1;
use stepcast_proto::v1::scheduling_service_server::SchedulingService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::freshness::Freshness;
use crate::service;

/// The service.
pub(crate) struct Scheduling(pub(crate) service::Scheduling);

#[tonic::async_trait]
impl SchedulingService for Scheduling {
    async fn list_teams(
        &self,
        request: Request<v1::ListTeamsRequest>,
    ) -> Result<Response<v1::ListTeamsResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        let caller = Caller::by(&request)?;
        let teams = self.0.list_teams(&caller, freshness).await;
        teams.map(Response::new)
    }

    async fn set_team(
        &self,
        request: Request<v1::SetTeamRequest>,
    ) -> Result<Response<v1::SetTeamResponse>, Status> {
        let caller = Caller::by(&request)?;
        let set = self.0.set_team(&caller, request.into_inner()).await;
        set.map(Response::new)
    }

    async fn remove_team(
        &self,
        request: Request<v1::RemoveTeamRequest>,
    ) -> Result<Response<v1::RemoveTeamResponse>, Status> {
        let caller = Caller::by(&request)?;
        let removed = self.0.remove_team(&caller, request.into_inner()).await;
        removed.map(Response::new)
    }

    async fn set_team_members(
        &self,
        request: Request<v1::SetTeamMembersRequest>,
    ) -> Result<Response<v1::SetTeamMembersResponse>, Status> {
        let caller = Caller::by(&request)?;
        let set = self.0.set_team_members(&caller, request.into_inner()).await;
        set.map(Response::new)
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        self.0.get_policy(freshness).await.map(Response::new)
    }

    async fn set_policy(
        &self,
        request: Request<v1::SetPolicyRequest>,
    ) -> Result<Response<v1::SetPolicyResponse>, Status> {
        let caller = Caller::by(&request)?;
        let set = self.0.set_policy(&caller, request.into_inner()).await;
        set.map(Response::new)
    }
}
