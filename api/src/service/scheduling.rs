//! Teams and the policy by which the cluster decides.

use stepcast_proto::v1;
use stepcast_scheduler::model::TeamName;
use stepcast_scheduler::{Command, Reply};
use tonic::Status;

use super::jobs::request_id;
use super::unexpected;
use crate::access::Caller;
use crate::context::Context;
use crate::freshness::Freshness;
use crate::{convert, names, status};

/// The service.
#[derive(Clone)]
pub(crate) struct Scheduling(pub(crate) Context);

impl Scheduling {
    /// Every team.
    pub(crate) async fn list_teams(
        &self,
        caller: &Caller,
        freshness: Freshness,
    ) -> Result<v1::ListTeamsResponse, Status> {
        let now_ms = self.0.handle.now_ms();
        let teams = freshness.read(&self.0.handle, |state| {
            let teams = state.teams().filter(|team| caller.runs_in(team, state));
            let told = teams.map(|team| {
                let told = convert::team(team, state, now_ms);
                match caller.sees_into(team, state) {
                    true => told,
                    false => v1::Team {
                        r#use: None,
                        members: Vec::new(),
                        ..told
                    },
                }
            });
            told.collect()
        });
        Ok(v1::ListTeamsResponse {
            teams: teams.await?,
        })
    }

    /// Makes a team, or gives one other rules.
    pub(crate) async fn set_team(
        &self,
        caller: &Caller,
        request: v1::SetTeamRequest,
    ) -> Result<v1::SetTeamResponse, Status> {
        let asked = request.team.unwrap_or_default();
        let name = names::team("team.name", &asked.name)?;
        let rules = convert::team_rules(&asked)?;
        let command = Command::SetTeam { name, rules };
        let team = self.change(caller, command, &request.request_id).await?;
        Ok(v1::SetTeamResponse { team })
    }

    /// Says whose jobs may run in a team.
    pub(crate) async fn set_team_members(
        &self,
        caller: &Caller,
        request: v1::SetTeamMembersRequest,
    ) -> Result<v1::SetTeamMembersResponse, Status> {
        let name = names::team("name", &request.name)?;
        let only = convert::members(&request.members)?;
        let command = Command::SetTeamMembers { name, only };
        let team = self.change(caller, command, &request.request_id).await?;
        Ok(v1::SetTeamMembersResponse { team })
    }

    /// Changes a team, and looks at it.
    async fn change(
        &self,
        caller: &Caller,
        command: Command,
        request: &str,
    ) -> Result<Option<v1::Team>, Status> {
        let id = match self.propose(caller, command, request).await? {
            Reply::TeamSet { team } => team,
            other => return Err(unexpected(&other)),
        };
        let now_ms = self.0.handle.now_ms();
        // Applied here already.
        Ok(self.0.handle.read_stale(|state| {
            let team = state.team(id)?;
            Some(convert::team(team, state, now_ms))
        }))
    }

    /// Forgets a team.
    pub(crate) async fn remove_team(
        &self,
        caller: &Caller,
        request: v1::RemoveTeamRequest,
    ) -> Result<v1::RemoveTeamResponse, Status> {
        let name: TeamName = names::team("name", &request.name)?;
        self.propose(caller, Command::RemoveTeam { name }, &request.request_id)
            .await?;
        Ok(v1::RemoveTeamResponse {})
    }

    /// The policy.
    pub(crate) async fn get_policy(
        &self,
        freshness: Freshness,
    ) -> Result<v1::GetPolicyResponse, Status> {
        let policy = freshness.read(&self.0.handle, |state| convert::policy(state.policy()));
        Ok(v1::GetPolicyResponse {
            policy: Some(policy.await?),
        })
    }

    /// Has the cluster decide by another policy.
    pub(crate) async fn set_policy(
        &self,
        caller: &Caller,
        request: v1::SetPolicyRequest,
    ) -> Result<v1::SetPolicyResponse, Status> {
        let asked = request.policy.unwrap_or_default();
        let now = self.0.handle.read(|state| *state.policy()).await;
        let policy = convert::changed_policy(&now.map_err(status::read)?, &asked)?;
        self.propose(caller, Command::SetPolicy { policy }, &request.request_id)
            .await?;
        Ok(v1::SetPolicyResponse {
            policy: Some(convert::policy(&policy)),
        })
    }

    async fn propose(
        &self,
        caller: &Caller,
        command: Command,
        request: &str,
    ) -> Result<Reply, Status> {
        let request = request_id(request)?;
        let proposed = self
            .0
            .handle
            .propose_by(caller.actor(), command, request)
            .await;
        proposed.map_err(status::propose)
    }
}
