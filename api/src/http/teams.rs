//! Teams, whose jobs may run in them, and the policy by which the cluster decides.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepcast_proto::v1;
use tonic::Status;

use super::api::{Api, Asked, Http};
use super::route::{Nothing, Route};
use super::shapes::{Done, short};
use crate::access::Permission as P;
use crate::service::Scheduling;
use crate::status::bad_field;
use crate::{convert, names};

pub(super) fn routes(api: &mut Api) {
    let list = "The teams that jobs of the caller's may run in; every team for an operator.";
    api.route(Route::get("/v1/teams", P::ReadJobs, list), self::list);
    let set = "Makes a team, or gives one other rules: what is not given has no limit.";
    api.route(Route::post("/v1/teams", P::RunCluster, set), self::set);
    let members = "Says whose jobs may run in a team and its parts. Those that are in it stay.";
    let members = Route::post("/v1/teams/{id}/members", P::RunCluster, members);
    api.route(members, set_members);
    let remove = "Forgets a team that has no part and no job that is not over.";
    let remove = Route::post("/v1/teams/{id}/remove", P::RunCluster, remove);
    api.route(remove, self::remove);
    let policy = "The policy by which the cluster decides.";
    api.route(Route::get("/v1/policy", P::ReadCluster, policy), get_policy);
    let policy = "Has the cluster decide by another policy: what is not given stays.";
    api.route(Route::post("/v1/policy", P::RunCluster, policy), set_policy);
}

/// Teams.
#[derive(Debug, Serialize, JsonSchema)]
struct Teams {
    /// Oldest first.
    items: Vec<TeamShown>,
}

/// A team. Limits are for it and its parts together.
#[derive(Debug, Serialize, JsonSchema)]
struct TeamShown {
    /// Such as `acme/vision`. Where it stands in a path, the stroke is written `%2F`.
    name: String,
    /// Its share against the other teams of the same level.
    weight: i32,
    /// Most GPUs at the same time; null for no quota.
    gpu_quota: Option<u32>,
    /// Most money in a period, in millionths of a US dollar; null for no budget.
    budget_usd_micros: Option<u64>,
    /// What the budget is for: `ONCE`, `DAY` or `MONTH`. Periods begin at midnight UTC.
    budget_period: Option<String>,
    /// A job may cost more than this only once somebody has approved it; null for no threshold.
    approve_above_usd_micros: Option<u64>,
    /// The highest priority that its jobs may have.
    priority_max: Option<i32>,
    /// Whose jobs alone may run in it and its parts: `orgs/ID` and `users/ID`; none for everybody's. Null for who may not
    /// see that.
    members: Option<Vec<String>>,
    /// What it and its parts have in use; null for who may not see that.
    r#use: Option<UseShown>,
}

/// What a team has in use.
#[derive(Debug, Serialize, JsonSchema)]
struct UseShown {
    /// GPUs under a lease.
    gpus: u32,
    /// Jobs that are not over.
    unfinished_jobs: u32,
    /// What attempts that ended in this period have cost, in millionths of a US dollar; 0 without a budget.
    spent_usd_micros: u64,
    /// What is set aside for running attempts, in millionths of a US dollar.
    reserved_usd_micros: u64,
    /// What its attempts have cost lately, in millionths of a US dollar: half of it is forgotten in a week.
    recent_usd_micros: u64,
    /// Useful work done lately, in seconds of GPUs times their rated TFLOPS.
    recent_work: u64,
}

/// A team as it is to be. What is not given has no limit, also if it had one before.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TeamRules {
    /// One word, or two for a part of a team, as in `acme/vision`.
    name: String,
    /// Its share against the other teams of the same level, 1 to 10,000; 1 unless given.
    weight: Option<i32>,
    /// Most GPUs at the same time.
    gpu_quota: Option<u32>,
    /// Most money in a period, in millionths of a US dollar.
    budget_usd_micros: Option<u64>,
    /// What the budget is for: `ONCE`, `DAY` or `MONTH`; once unless given.
    budget_period: Option<String>,
    /// A job may cost more than this only once an operator has approved it, in millionths of a US dollar.
    approve_above_usd_micros: Option<u64>,
    /// The highest priority that its jobs may have, -10 to 10; 10 unless given.
    priority_max: Option<i32>,
    /// 32 hexadecimal digits drawn by the caller: the same id again gives the first answer again.
    #[serde(default)]
    request_id: String,
}

/// Whose jobs may run in a team.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewMembers {
    /// `orgs/ID` and `users/ID`, 256 at most; none for everybody.
    members: Vec<String>,
    /// 32 hexadecimal digits drawn by the caller: the same id again gives the first answer again.
    #[serde(default)]
    request_id: String,
}

/// How a cluster decides.
#[derive(Debug, Serialize, JsonSchema)]
struct PolicyShown {
    /// What it aims at, such as `shortest-remaining`.
    aim: String,
    /// When a running job yields: `never`, `for-priority` or `priced`.
    preemption: String,
    /// How long an attempt is left in peace at least, in milliseconds; a job may ask for more.
    min_run_ms: Option<u64>,
    /// How often one job may be asked to yield; a job may ask for less.
    preemptions_max: Option<u32>,
    /// What a restart takes before the first new step, in milliseconds.
    restart_ms: Option<u64>,
}

/// How a cluster is to decide. What is not given stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewPolicy {
    /// `default`, `fifo`, `priority`, `max-min-blind`, `max-min`, `makespan`, `shortest-remaining` or `cost`.
    #[serde(default)]
    aim: String,
    /// `never`, `for-priority` or `priced`.
    #[serde(default)]
    preemption: String,
    /// How long an attempt is left in peace at least, in milliseconds.
    min_run_ms: Option<u64>,
    /// How often one job may be asked to yield.
    preemptions_max: Option<u32>,
    /// What a restart takes before the first new step, in milliseconds.
    restart_ms: Option<u64>,
    /// 32 hexadecimal digits drawn by the caller: the same id again gives the first answer again.
    #[serde(default)]
    request_id: String,
}

async fn list(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Teams, Status> {
    let listed = Scheduling(http.context)
        .list_teams(&asked.caller, asked.freshness)
        .await?;
    Ok(Teams {
        items: listed.teams.into_iter().map(shown).collect(),
    })
}

async fn set(http: Http, asked: Asked<Nothing>, sent: TeamRules) -> Result<TeamShown, Status> {
    let team = v1::Team {
        name: names::of_text("teams", &sent.name),
        weight: match sent.weight {
            // On the wire nothing means one; who writes 0 is told that it is none.
            Some(0) => -1,
            weight => weight.unwrap_or(0),
        },
        gpu_quota: sent.gpu_quota,
        budget_usd_micros: sent.budget_usd_micros,
        budget_period: period(sent.budget_period.as_deref())?.into(),
        approve_above_usd_micros: sent.approve_above_usd_micros,
        priority_max: sent.priority_max,
        r#use: None,
        members: Vec::new(),
    };
    let request = v1::SetTeamRequest {
        team: Some(team),
        request_id: sent.request_id,
    };
    let scheduling = Scheduling(http.context);
    let set = scheduling.set_team(&asked.caller, request);
    Ok(shown(set.await?.team.unwrap_or_default()))
}

async fn set_members(
    http: Http,
    asked: Asked<Nothing>,
    sent: NewMembers,
) -> Result<TeamShown, Status> {
    let request = v1::SetTeamMembersRequest {
        name: names::of_text("teams", asked.part("id")),
        members: sent.members,
        request_id: sent.request_id,
    };
    let scheduling = Scheduling(http.context);
    let set = scheduling.set_team_members(&asked.caller, request);
    Ok(shown(set.await?.team.unwrap_or_default()))
}

async fn remove(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<Done, Status> {
    let request = v1::RemoveTeamRequest {
        name: names::of_text("teams", asked.part("id")),
        request_id: String::new(),
    };
    let scheduling = Scheduling(http.context);
    let removed = scheduling.remove_team(&asked.caller, request);
    removed.await?;
    Ok(asked.done())
}

async fn get_policy(http: Http, asked: Asked<Nothing>, _: Nothing) -> Result<PolicyShown, Status> {
    let scheduling = Scheduling(http.context);
    let policy = scheduling.get_policy(asked.freshness);
    Ok(policy_shown(policy.await?.policy.unwrap_or_default()))
}

async fn set_policy(
    http: Http,
    asked: Asked<Nothing>,
    sent: NewPolicy,
) -> Result<PolicyShown, Status> {
    let request = v1::SetPolicyRequest {
        policy: Some(v1::Policy {
            aim: sent.aim,
            preemption: sent.preemption,
            min_run_time: sent.min_run_ms.map(convert::duration_ms),
            preemptions_max: sent.preemptions_max,
            restart_time: sent.restart_ms.map(convert::duration_ms),
        }),
        request_id: sent.request_id,
    };
    let scheduling = Scheduling(http.context);
    let set = scheduling.set_policy(&asked.caller, request);
    Ok(policy_shown(set.await?.policy.unwrap_or_default()))
}

/// What stands before each period on the wire.
const PERIOD: &str = "BUDGET_PERIOD_";

fn period(text: Option<&str>) -> Result<v1::BudgetPeriod, Status> {
    let Some(text) = text else {
        return Ok(v1::BudgetPeriod::Unspecified);
    };
    let name = format!("{PERIOD}{}", text.to_ascii_uppercase());
    v1::BudgetPeriod::from_str_name(&name)
        .filter(|period| *period != v1::BudgetPeriod::Unspecified)
        .ok_or_else(|| bad_field("team.budget_period", "there are ONCE, DAY and MONTH"))
}

fn shown(team: v1::Team) -> TeamShown {
    let period = short(team.budget_period().as_str_name(), PERIOD);
    TeamShown {
        name: names::bare_team(&team.name).to_owned(),
        weight: team.weight,
        gpu_quota: team.gpu_quota,
        budget_usd_micros: team.budget_usd_micros,
        budget_period: team.budget_usd_micros.map(|_| period),
        approve_above_usd_micros: team.approve_above_usd_micros,
        priority_max: team.priority_max,
        members: team.r#use.is_some().then_some(team.members),
        r#use: team.r#use.map(|using| UseShown {
            gpus: using.gpus,
            unfinished_jobs: using.unfinished_jobs,
            spent_usd_micros: using.spent_usd_micros,
            reserved_usd_micros: using.reserved_usd_micros,
            recent_usd_micros: using.recent_usd_micros,
            recent_work: using.recent_work,
        }),
    }
}

fn policy_shown(policy: v1::Policy) -> PolicyShown {
    let ms = |span: Option<prost_types::Duration>| {
        let span = span.as_ref();
        span.and_then(convert::duration_to_ms)
    };
    PolicyShown {
        aim: policy.aim,
        preemption: policy.preemption,
        min_run_ms: ms(policy.min_run_time),
        preemptions_max: policy.preemptions_max,
        restart_ms: ms(policy.restart_time),
    }
}
