//! What would start a job now, with the command that a person would type.

use std::borrow::Cow;

use stepcast_proto::v1;
use stepcast_records::UsdMicros;
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::{Job, Period, TeamName, TeamRules};
use stepcast_scheduler::sooner::{Change, Sooner};
use stepcast_scheduler::{Command, State};

use crate::access::{Caller, Permission};

/// A suggestion for a job, to somebody who may not be allowed to do it.
pub(crate) fn sooner(sooner: &Sooner, job: JobId, caller: &Caller, state: &State) -> v1::Sooner {
    let worker = state.worker(sooner.placement.worker);
    let changes: Vec<String> = sooner.changes.iter().map(ToString::to_string).collect();
    let commands: Vec<String> = sooner
        .commands
        .iter()
        .filter_map(|command| match command {
            Command::SetTeam { name, rules } => Some(set_team(name, rules)),
            Command::UpdateJob { .. } => Some(update(job, &sooner.changes)),
            Command::ApproveJob { .. } => Some(format!("stepcast job approve {job}")),
            _ => None,
        })
        .collect();
    v1::Sooner {
        text: changes.join(", "),
        command: commands.join(" && "),
        worker: worker.map_or_else(String::new, |worker| worker.name.to_string()),
        cost_usd_micros: sooner
            .placement
            .note
            .cost_p50
            .map(|UsdMicros(micros)| micros),
        by: by(&sooner.commands, job, caller, state).to_owned(),
    }
}

/// Who may do that, if the caller may not.
fn by(commands: &[Command], job: JobId, caller: &Caller, state: &State) -> &'static str {
    let is_of_operators = commands
        .iter()
        .any(|command| !matches!(command, Command::UpdateJob { .. }));
    if is_of_operators && !caller.role.may(Permission::RunCluster) {
        return "an operator";
    }
    let may = |job: Cow<'_, Job>| caller.role.may(caller.to_change(&job));
    match state.job(job).is_none_or(may) {
        true => "",
        false => "who submitted it or an admin",
    }
}

fn update(job: JobId, changes: &[Change]) -> String {
    let mut line = format!("stepcast job update {job}");
    for change in changes {
        line += &match change {
            Change::Allow(model) => format!(" --allow {}", model.slug()),
            Change::Memory(gib) => format!(" --min-memory {gib}"),
            Change::Gpus(count) => format!(" --gpus {count}"),
            Change::Hosts(count) => format!(" --hosts {count}"),
            Change::Price(price) => format!(" --max-price {}", dollars(*price)),
            Change::Cost(cost) => format!(" --max-cost {}", dollars(*cost)),
            Change::NoLimits => " --no-limits".to_owned(),
            Change::NoLabels => " --no-labels".to_owned(),
            Change::Anywhere => " --anywhere".to_owned(),
            Change::Now => " --now".to_owned(),
            Change::Priority(priority) => format!(" --priority {priority}"),
            // These are commands of their own.
            Change::Approve | Change::Quota(..) | Change::TeamBudget(..) => String::new(),
        };
    }
    line
}

/// All of a team's rules, since what is not given has no limit.
fn set_team(name: &TeamName, rules: &TeamRules) -> String {
    let mut line = format!("stepcast teams set {name} --weight {}", rules.weight);
    if let Some(quota) = rules.gpu_quota {
        line += &format!(" --quota {quota}");
    }
    if let Some(budget) = rules.budget {
        let per = match budget.period {
            Period::Once => "once",
            Period::Day => "day",
            Period::Month => "month",
        };
        line += &format!(" --budget {} --per {per}", dollars(budget.amount));
    }
    if let Some(above) = rules.approve_above {
        line += &format!(" --approve-above {}", dollars(above));
    }
    if rules.priority_max != TeamRules::default().priority_max {
        line += &format!(" --priority-max {}", rules.priority_max);
    }
    line
}

/// An amount as it is typed, to the millionth: less would not be enough.
fn dollars(UsdMicros(micros): UsdMicros) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let kept = text.trim_end_matches('0');
    kept.strip_suffix('.').unwrap_or(kept).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_what_a_person_types() {
        let changes = [
            Change::Allow("h100".parse().expect("a GPU")),
            Change::Price(UsdMicros(2_500_001)),
        ];
        let line = update(JobId(5), &changes);
        assert!(
            line.ends_with(" --allow h100 --max-price 2.500001"),
            "{line}"
        );
        assert_eq!(dollars(UsdMicros(3_000_000)), "3");
        let name = "acme/vision".parse().expect("a name");
        let rules = TeamRules {
            gpu_quota: Some(4),
            ..TeamRules::default()
        };
        assert_eq!(
            set_team(&name, &rules),
            "stepcast teams set acme/vision --weight 1 --quota 4"
        );
    }
}
