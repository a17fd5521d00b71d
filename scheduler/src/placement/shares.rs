//! What teams are due: jobs of a team that has used more than its share lately have their turns as if they had come later.
//!
//! Teams of one level share what they use by their weights: those with jobs that are not over, counted in money, or in
//! useful work where nothing costs any. A team that has had more than its part waits for as long as the others take to
//! use so much that it is its part again, at the pace at which all of them use it: with `used` and a part `due` of all
//! that was used lately, `(used / due - all) / pace`. Past use fades (`model::decay`), and a bound keeps every wait finite.

use std::collections::BTreeMap;

use crate::ids::TeamId;
use crate::model::{HALF_LIFE_MS, Job, Team, Usage};
use crate::policy::Aim;
use crate::state::State;

/// The latest that jobs are taken to have come for what their team has used beside the others of its level: so long that
/// half of that is forgotten. For a part comes on top what the whole is late by, or its parts would be alike where the
/// whole is as late as can be.
const LATE_MAX_MS: f64 = HALF_LIFE_MS as f64;

/// How much later than they came the jobs of each team have their turns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shares {
    /// In milliseconds; nothing for a team within its share.
    late_ms: BTreeMap<TeamId, i64>,
}

impl Shares {
    /// Those of a state at `now_ms`. Where the order in which jobs came does not count, or alone, there are none.
    pub(super) fn of(state: &State, aim: Aim, now_ms: u64) -> Self {
        if !matches!(aim, Aim::Balanced | Aim::Priority | Aim::Cost) {
            return Self::default();
        }
        let mut levels: BTreeMap<Option<TeamId>, Vec<&Team>> = BTreeMap::new();
        for team in state.busy_teams() {
            levels.entry(team.parent).or_default().push(team);
        }
        let mut late_ms = BTreeMap::new();
        // Those without a parent come first, so what a parent is late by is known when its parts are looked at.
        for (parent, teams) in levels {
            let whole = parent.and_then(|parent| late_ms.get(&parent).copied());
            for (team, own) in late(state, &teams, now_ms) {
                late_ms.insert(team, own + whole.unwrap_or(0));
            }
        }
        late_ms.retain(|_, ms| *ms > 0);
        Self { late_ms }
    }

    /// How much later than they came jobs of a team have their turns, in milliseconds.
    pub(super) fn late_ms(&self, team: TeamId) -> i64 {
        self.late_ms.get(&team).copied().unwrap_or(0)
    }

    /// A job's place in the queue as its team has it.
    pub(super) fn order(&self, job: &Job) -> i64 {
        job.order()
            .saturating_add(self.late_ms(job.spec.terms.team))
    }
}

/// How late the teams of one level are, in milliseconds.
fn late(state: &State, teams: &[&Team], now_ms: u64) -> Vec<(TeamId, i64)> {
    let used: Vec<Usage> = teams
        .iter()
        .map(|team| state.usage(team.id, now_ms))
        .collect();
    let is_priced = used.iter().any(|used| used.usd.0 > 0);
    let counted = |usage: Usage| match is_priced {
        true => usage.usd.0 as f64,
        false => usage.work as f64,
    };
    let all: f64 = used.iter().copied().map(counted).sum();
    let paces = teams.iter().map(|team| counted(state.pace(team.id)));
    // What is used at all times together is what fades at all times together: a cluster that rests for a moment is no
    // slower for it.
    let fades = all * std::f64::consts::LN_2 / HALF_LIFE_MS as f64;
    let pace = (paces.sum::<f64>() / 3_600_000.0).max(fades);
    let weights: f64 = teams.iter().map(|team| f64::from(team.rules.weight)).sum();
    let one = |(team, used): (&&Team, &Usage)| {
        let due = f64::from(team.rules.weight) / weights;
        let ms = (counted(*used) / due - all) / pace;
        // Nothing was used yet: 0 / 0.
        let ms = if ms > 0.0 { ms.min(LATE_MAX_MS) } else { 0.0 };
        (team.id, ms as i64)
    };
    teams.iter().zip(&used).map(one).collect()
}

#[cfg(test)]
mod tests;
