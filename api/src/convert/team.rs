//! Teams and policies, in both directions.

use std::collections::BTreeSet;

use stepcast_proto::v1;
use stepcast_records::UsdMicros;
use stepcast_scheduler::model::{Budget, Member, Period, Team, TeamRules};
use stepcast_scheduler::{Policy, State};
use tonic::Status;

use super::quantity::{duration_ms, duration_to_ms};
use crate::names;
use crate::status::bad_field;

/// A team with what it has in use.
pub(crate) fn team(team: &Team, state: &State, now_ms: u64) -> v1::Team {
    let rules = team.rules;
    let UsdMicros(spent) = rules.budget.map_or(UsdMicros(0), |_| team.spent(now_ms));
    let UsdMicros(reserved) = state.reserved(team.id);
    let usage = state.usage(team.id, now_ms);
    v1::Team {
        name: names::of_team(&team.name),
        weight: i32::try_from(rules.weight).unwrap_or(i32::MAX),
        gpu_quota: rules.gpu_quota,
        budget_usd_micros: rules.budget.map(|budget| budget.amount.0),
        budget_period: match rules.budget.map(|budget| budget.period) {
            None => v1::BudgetPeriod::Unspecified,
            Some(Period::Once) => v1::BudgetPeriod::Once,
            Some(Period::Day) => v1::BudgetPeriod::Day,
            Some(Period::Month) => v1::BudgetPeriod::Month,
        }
        .into(),
        approve_above_usd_micros: rules.approve_above.map(|UsdMicros(micros)| micros),
        priority_max: Some(rules.priority_max.into()),
        r#use: Some(v1::TeamUse {
            gpus: state.gpus_in_use(team.id),
            unfinished_jobs: u32::try_from(state.unfinished_of(team.id)).unwrap_or(u32::MAX),
            spent_usd_micros: spent,
            reserved_usd_micros: reserved,
            recent_usd_micros: usage.usd.0,
            recent_work: usage.work,
        }),
        members: team.only.iter().copied().map(names::of_member).collect(),
    }
}

/// Whom a team is for.
pub(crate) fn members(written: &[String]) -> Result<BTreeSet<Member>, Status> {
    let each = written.iter().enumerate();
    let each = each.map(|(index, name)| names::member(&format!("members[{index}]"), name));
    each.collect()
}

/// The rules of a team as they are asked for.
pub(crate) fn team_rules(team: &v1::Team) -> Result<TeamRules, Status> {
    let default = TeamRules::default();
    let period = match v1::BudgetPeriod::try_from(team.budget_period) {
        Ok(v1::BudgetPeriod::Unspecified | v1::BudgetPeriod::Once) => Period::Once,
        Ok(v1::BudgetPeriod::Day) => Period::Day,
        Ok(v1::BudgetPeriod::Month) => Period::Month,
        Err(_) => {
            return Err(bad_field(
                "team.budget_period",
                "this server does not know the period",
            ));
        }
    };
    let weight = match team.weight {
        0 => default.weight,
        weight => u32::try_from(weight).map_err(|_| {
            bad_field(
                "team.weight",
                "a weight is from 1 to 10,000, and never negative",
            )
        })?,
    };
    let priority_max = match team.priority_max {
        None => default.priority_max,
        Some(priority) => i8::try_from(priority)
            .map_err(|_| bad_field("team.priority_max", "a priority is from -10 to 10"))?,
    };
    let rules = TeamRules {
        weight,
        gpu_quota: team.gpu_quota,
        budget: team.budget_usd_micros.map(|micros| Budget {
            amount: UsdMicros(micros),
            period,
        }),
        approve_above: team.approve_above_usd_micros.map(UsdMicros),
        priority_max,
    };
    rules.check().map_err(|why| bad_field("team", why))?;
    Ok(rules)
}

/// A policy.
pub(crate) fn policy(policy: &Policy) -> v1::Policy {
    v1::Policy {
        aim: policy.aim.name().to_owned(),
        preemption: policy.preemption.name().to_owned(),
        min_run_time: Some(duration_ms(policy.min_run_ms)),
        preemptions_max: Some(policy.preemptions_max.into()),
        restart_time: Some(duration_ms(policy.restart_ms)),
    }
}

/// The policy with what is asked for in it; the rest stays.
pub(crate) fn changed_policy(now: &Policy, asked: &v1::Policy) -> Result<Policy, Status> {
    let mut policy = *now;
    if !asked.aim.is_empty() {
        policy.aim = asked.aim.parse().map_err(|_| {
            let names = stepcast_scheduler::policy::Aim::ALL
                .map(|aim| aim.name())
                .join(", ");
            bad_field(
                "policy.aim",
                format!("there is no such aim; there are {names}"),
            )
        })?;
    }
    if !asked.preemption.is_empty() {
        policy.preemption = asked.preemption.parse().map_err(|_| {
            bad_field(
                "policy.preemption",
                "there are never, for-priority and priced",
            )
        })?;
    }
    let span = |field: &str, span: &Option<prost_types::Duration>, was: u64| match span {
        None => Ok(was),
        Some(span) => {
            duration_to_ms(span).ok_or_else(|| bad_field(field, "a length of time is not negative"))
        }
    };
    policy.min_run_ms = span(
        "policy.min_run_time",
        &asked.min_run_time,
        policy.min_run_ms,
    )?;
    policy.restart_ms = span(
        "policy.restart_time",
        &asked.restart_time,
        policy.restart_ms,
    )?;
    if let Some(count) = asked.preemptions_max {
        policy.preemptions_max = u8::try_from(count)
            .map_err(|_| bad_field("policy.preemptions_max", "this is too often"))?;
    }
    if !policy.is_sound() {
        let why = format!(
            "a job is asked to yield at most {} times, and times are at most a day",
            Policy::PREEMPTIONS_MAX
        );
        return Err(bad_field("policy", why));
    }
    Ok(policy)
}
