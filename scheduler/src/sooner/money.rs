//! What a team's budget would have to be for a job to start.

use stepcast_records::UsdMicros;

use super::{Change, Search, Try};
use crate::model::{Budget, Job, TeamRules};
use crate::state::wanted;

impl Search<'_> {
    /// Gives the teams that have too little left as much as this needs.
    pub(super) fn more_money(
        &self,
        job: &Job,
        attempt: &mut Try,
        price: Option<UsdMicros>,
        run_ms_p90: Option<u64>,
    ) {
        let UsdMicros(wanted) = wanted(job, price, run_ms_p90, self.now_ms);
        for team in job.teams().filter_map(|team| self.state.team(team)) {
            let Some(budget) = team.rules.budget else {
                continue;
            };
            let left = self.state.money_left(team, self.now_ms).unwrap_or_default();
            if left.0 >= wanted || attempt.teams.iter().any(|(name, _)| *name == team.name) {
                continue;
            }
            let committed = budget.amount.0 - left.0.min(budget.amount.0);
            let spent = team
                .spent(self.now_ms)
                .0
                .saturating_add(self.state.reserved(team.id).0);
            let amount = UsdMicros(committed.max(spent).saturating_add(wanted));
            let rules = TeamRules {
                budget: Some(Budget { amount, ..budget }),
                ..team.rules
            };
            attempt.teams.push((team.name.clone(), rules));
            attempt
                .changes
                .push(Change::TeamBudget(team.name.clone(), amount));
        }
    }
}
