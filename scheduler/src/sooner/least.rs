//! Of changes that start a job together, those that do: each is left out once and the rest tried again.

use super::{Change, Search, Sooner, Try};
use crate::model::{Budget, TeamName, TeamRules};

/// Looks at the whole queue that are taken for it altogether.
pub(super) const LEAVES_OUT_MAX: usize = 12;

impl Search<'_> {
    /// The same with as few of its changes as start the job, of which others have to make as few as can be; at most so many
    /// looks are taken for it, and counted down.
    pub(super) fn least(&self, found: Sooner, looks: &mut usize) -> Sooner {
        let mut order = found.changes.clone();
        // Whether anybody's word is needed was tried with each.
        order.retain(|change| *change != Change::Approve);
        order.sort_by_key(|change| !matches!(change, Change::Quota(..) | Change::TeamBudget(..)));
        let mut least = found;
        for change in order {
            if least.changes.len() < 2 || *looks == 0 {
                break;
            }
            *looks -= 1;
            let rest = least.changes.iter().filter(|other| **other != change);
            let less = self.tried(self.with(rest.cloned().collect()));
            if let Some(less) = less.filter(|less| less.changes.len() < least.changes.len()) {
                least = less;
            }
        }
        least
    }

    /// The job as it asks with these changes, and what else they change.
    fn with(&self, changes: Vec<Change>) -> Try {
        let mut spec = self.job.spec.clone();
        let mut attempt = Try::default();
        for change in &changes {
            match change {
                Change::Allow(model) => spec.allow.push(*model),
                Change::Memory(gib) => spec.min_memory_gib = *gib,
                Change::Gpus(count) => spec.gpu_count = *count,
                Change::Hosts(hosts) => spec.terms.more_hosts = hosts.saturating_sub(1),
                Change::Price(price) => spec.max_price_per_hour = Some(*price),
                Change::Cost(cost) => spec.max_cost = Some(*cost),
                Change::NoLimits => (spec.max_price_per_hour, spec.max_cost) = (None, None),
                Change::NoLabels => spec.labels.clear(),
                Change::Anywhere => {
                    spec.terms.avoid.clear();
                    spec.terms.spread = None;
                }
                Change::Now => spec.terms.not_before_ms = None,
                Change::Priority(priority) => spec.priority = *priority,
                Change::Approve => attempt.approve = true,
                Change::Quota(team, gpus) => self.rule(&mut attempt, team, |rules| {
                    rules.gpu_quota = Some(*gpus);
                }),
                Change::TeamBudget(team, amount) => self.rule(&mut attempt, team, |rules| {
                    let more = |budget| Budget {
                        amount: *amount,
                        ..budget
                    };
                    rules.budget = rules.budget.map(more);
                }),
            }
        }
        attempt.spec = (spec != self.job.spec).then_some(spec);
        attempt.changes = changes;
        attempt
    }

    /// The same with the quotas that what it asks for takes: a job that was told to take fewer GPUs or hosts needs less of them
    /// than it did when they were put down, or none at all.
    pub(super) fn with_quotas_that_fit(&self, mut attempt: Try) -> Try {
        let gpus = attempt.spec.as_ref().unwrap_or(&self.job.spec).gpus();
        let mut fit = Vec::with_capacity(attempt.changes.len());
        for change in std::mem::take(&mut attempt.changes) {
            let Change::Quota(name, _) = &change else {
                fit.push(change);
                continue;
            };
            let Some(team) = self.state.team_named(name) else {
                continue;
            };
            let needed = self.state.gpus_in_use(team.id) + u32::from(gpus);
            let quota = team.rules.gpu_quota;
            let more = quota.filter(|quota| *quota < needed).map(|_| needed);
            self.rule(&mut attempt, name, |rules| {
                rules.gpu_quota = more.or(quota);
            });
            fit.extend(more.map(|more| Change::Quota(name.clone(), more)));
        }
        let is_other = |(name, rules): &(TeamName, TeamRules)| {
            let known = self.state.team_named(name);
            known.is_none_or(|known| known.rules != *rules)
        };
        attempt.teams.retain(is_other);
        attempt.changes = fit;
        attempt
    }

    /// Has a team have another rule beside those that it has by then.
    fn rule(&self, attempt: &mut Try, team: &TeamName, change: impl FnOnce(&mut TeamRules)) {
        if let Some((_, rules)) = attempt.teams.iter_mut().find(|(name, _)| name == team) {
            change(rules);
        } else if let Some(known) = self.state.team_named(team) {
            let mut rules = known.rules;
            change(&mut rules);
            attempt.teams.push((team.clone(), rules));
        }
    }
}
