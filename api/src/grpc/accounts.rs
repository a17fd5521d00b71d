//! Organisations, people, tokens and the audit trail over gRPC.

use stepcast_proto::v1;
use stepcast_proto::v1::accounts_service_server::AccountsService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::freshness::Freshness;
use crate::service;

/// The service.
pub(crate) struct Accounts(pub(crate) service::Accounts);

#[tonic::async_trait]
impl AccountsService for Accounts {
    async fn create_org(
        &self,
        request: Request<v1::CreateOrgRequest>,
    ) -> Result<Response<v1::CreateOrgResponse>, Status> {
        let caller = Caller::by(&request)?;
        let created = self.0.create_org(&caller, request.into_inner()).await;
        created.map(Response::new)
    }

    async fn list_orgs(
        &self,
        request: Request<v1::ListOrgsRequest>,
    ) -> Result<Response<v1::ListOrgsResponse>, Status> {
        let freshness = Freshness::of(request.metadata())?;
        self.0.list_orgs(freshness).await.map(Response::new)
    }

    async fn delete_org(
        &self,
        request: Request<v1::DeleteOrgRequest>,
    ) -> Result<Response<v1::DeleteOrgResponse>, Status> {
        let caller = Caller::by(&request)?;
        let deleted = self.0.delete_org(&caller, &request.get_ref().name).await;
        deleted.map(Response::new)
    }

    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::CreateUserResponse>, Status> {
        let caller = Caller::by(&request)?;
        let created = self.0.create_user(&caller, request.into_inner()).await;
        created.map(Response::new)
    }

    async fn list_users(
        &self,
        request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        let (caller, freshness) = (Caller::by(&request)?, Freshness::of(request.metadata())?);
        let org = &request.get_ref().org;
        let users = self.0.list_users(&caller, org, freshness).await;
        users.map(Response::new)
    }

    async fn set_user_role(
        &self,
        request: Request<v1::SetUserRoleRequest>,
    ) -> Result<Response<v1::SetUserRoleResponse>, Status> {
        let caller = Caller::by(&request)?;
        let set = self.0.set_role(&caller, request.into_inner()).await;
        set.map(Response::new)
    }

    async fn delete_user(
        &self,
        request: Request<v1::DeleteUserRequest>,
    ) -> Result<Response<v1::DeleteUserResponse>, Status> {
        let caller = Caller::by(&request)?;
        let deleted = self.0.delete_user(&caller, &request.get_ref().name).await;
        deleted.map(Response::new)
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let caller = Caller::by(&request)?;
        let created = self.0.create_token(&caller, request.into_inner()).await;
        created.map(Response::new)
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let (caller, freshness) = (Caller::by(&request)?, Freshness::of(request.metadata())?);
        let user = &request.get_ref().user;
        let tokens = self.0.list_tokens(&caller, user, freshness).await;
        tokens.map(Response::new)
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let caller = Caller::by(&request)?;
        let revoked = self.0.revoke_token(&caller, &request.get_ref().name).await;
        revoked.map(Response::new)
    }

    async fn list_audit_entries(
        &self,
        request: Request<v1::ListAuditEntriesRequest>,
    ) -> Result<Response<v1::ListAuditEntriesResponse>, Status> {
        let (caller, freshness) = (Caller::by(&request)?, Freshness::of(request.metadata())?);
        let entries = self.0.audit(&caller, request.into_inner(), freshness).await;
        entries.map(Response::new)
    }

    async fn claim_operator(
        &self,
        request: Request<v1::ClaimOperatorRequest>,
    ) -> Result<Response<v1::ClaimOperatorResponse>, Status> {
        self.0.claim(request.into_inner()).await.map(Response::new)
    }
}
