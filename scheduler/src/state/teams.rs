//! Teams: made, given rules, and forgotten; and what they have in use at a moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use stepcast_records::UsdMicros;

use super::State;
use super::apply::Entry;
use crate::effect::Effect;
use crate::ids::{JobId, TeamId};
use crate::model::limits::{TEAM_MEMBERS_MAX, TEAMS_MAX};
use crate::model::{Account, Job, JobSpec, Member, Team, TeamName, TeamRules, Usage};
use crate::rejection::Rejection;
use crate::reply::Reply;

impl State {
    /// A team.
    #[must_use]
    pub fn team(&self, team: TeamId) -> Option<&Team> {
        self.teams.get(&team)
    }

    /// Every team, oldest first. None before format 3.
    pub fn teams(&self) -> impl Iterator<Item = &Team> {
        self.teams.values()
    }

    /// The team with this name.
    #[must_use]
    pub fn team_named(&self, name: &TeamName) -> Option<&Team> {
        self.teams.values().find(|team| team.name == *name)
    }

    /// The team of a job; `None` before format 3.
    #[must_use]
    pub fn team_of(&self, job: &Job) -> Option<&Team> {
        self.team(job.spec.terms.team)
    }

    /// A team and the one that it is a part of: whose limits hold.
    pub fn team_chain(&self, team: TeamId) -> impl Iterator<Item = &Team> {
        let own = self.team(team);
        let parent = own.and_then(|own| self.team(own.parent?));
        own.into_iter().chain(parent)
    }

    /// How many GPUs a team and its parts use.
    #[must_use]
    pub fn gpus_in_use(&self, team: TeamId) -> u32 {
        self.indexes.in_use(team).gpus
    }

    /// The money that is set aside for the live attempts of a team and its parts.
    #[must_use]
    pub fn reserved(&self, team: TeamId) -> UsdMicros {
        self.indexes.in_use(team).reserved()
    }

    /// How many jobs of a team and its parts are not over.
    #[must_use]
    pub fn unfinished_of(&self, team: TeamId) -> usize {
        self.indexes.in_use(team).unfinished
    }

    /// How many tasks of an array hold GPUs.
    #[must_use]
    pub fn array_running(&self, array: JobId) -> u32 {
        self.indexes
            .arrays
            .get(&array)
            .map_or(0, |array| array.live)
    }

    /// What is left of a team's budget at `now_ms`, beyond what is set aside; `None` without a budget.
    #[must_use]
    pub fn money_left(&self, team: &Team, now_ms: u64) -> Option<UsdMicros> {
        let UsdMicros(amount) = team.rules.budget?.amount;
        let (UsdMicros(spent), UsdMicros(reserved)) = (team.spent(now_ms), self.reserved(team.id));
        Some(UsdMicros(
            amount.saturating_sub(spent).saturating_sub(reserved),
        ))
    }

    /// What a team and its parts have used lately, what runs included as if all of it were kept.
    #[must_use]
    pub fn usage(&self, team: TeamId, now_ms: u64) -> Usage {
        let Some(account) = self.team(team).map(|team| team.account) else {
            return Usage::default();
        };
        let live = self.indexes.in_use(team);
        Usage {
            usd: UsdMicros(
                account
                    .usd
                    .at(now_ms)
                    .saturating_add(live.price.by(now_ms) / 3_600_000),
            ),
            work: account
                .work
                .at(now_ms)
                .saturating_add(live.rating.by(now_ms) / 1_000),
        }
    }

    /// What a team and its parts use in an hour of what runs.
    pub(crate) fn pace(&self, team: TeamId) -> Usage {
        let live = self.indexes.in_use(team);
        Usage {
            usd: UsdMicros(live.price.rate()),
            work: live.rating.rate().saturating_mul(3_600),
        }
    }

    /// The teams that have jobs which are not over, themselves or in their parts.
    pub(crate) fn busy_teams(&self) -> impl Iterator<Item = &Team> {
        let busy = self.indexes.teams.keys();
        busy.filter_map(|team| self.team(*team))
    }

    pub(super) fn set_team(
        &mut self,
        entry: &mut Entry,
        name: &TeamName,
        rules: TeamRules,
    ) -> Result<Reply, Rejection> {
        rules
            .check()
            .map_err(|why| Rejection::InvalidTeam { why })?;
        let known = self.team_named(name).map(|team| team.id);
        let id = match known {
            Some(id) => id,
            None => self.new_team(entry, name)?,
        };
        let (in_use, now_ms) = (self.indexes.in_use(id), entry.now_ms);
        if let Some(team) = Arc::make_mut(&mut self.teams).get_mut(&id) {
            // What was spent in the running period stays spent, also if the period is another one from here on.
            let spent = match team.rules.budget {
                Some(_) => team.spent(now_ms),
                None => UsdMicros(0),
            };
            team.rules = rules;
            let period = rules
                .budget
                .map_or(0, |budget| budget.period.start_ms(now_ms));
            let promised = UsdMicros(spent.0.saturating_add(in_use.reserved().0));
            team.account = Account {
                period_ms: period,
                spent,
                ceiling: rules
                    .budget
                    .map_or(promised, |budget| budget.amount.max(promised)),
                gpu_ceiling: rules
                    .gpu_quota
                    .map_or(in_use.gpus, |quota| quota.max(in_use.gpus)),
                ..team.account
            };
        }
        // What runs may have a limit now, or another one.
        self.renew_deadlines(entry, id);
        entry.effects.push(Effect::Plan);
        Ok(Reply::TeamSet { team: id })
    }

    pub(super) fn remove_team(&mut self, name: &TeamName) -> Result<Reply, Rejection> {
        let no_team = || Rejection::NoSuchTeam {
            name: name.to_string(),
        };
        let id = self.team_named(name).ok_or_else(no_team)?.id;
        let why = match () {
            () if id == TeamId::DEFAULT => "it is the team of who has none",
            () if self.teams.values().any(|team| team.parent == Some(id)) => "it has parts",
            () if self.unfinished_of(id) > 0 => "it has jobs that are not over",
            () => {
                Arc::make_mut(&mut self.teams).remove(&id);
                return Ok(Reply::Done);
            }
        };
        Err(Rejection::TeamInUse { why })
    }

    /// Says whose jobs may run in a team. Those that are in it stay.
    pub(super) fn set_team_members(
        &mut self,
        name: &TeamName,
        only: &BTreeSet<Member>,
    ) -> Result<Reply, Rejection> {
        let known = self.team_named(name).map(|team| team.id);
        let id = known.ok_or_else(|| Rejection::NoSuchTeam {
            name: name.to_string(),
        })?;
        if only.len() > TEAM_MEMBERS_MAX {
            return Err(Rejection::TooMany {
                what: "members of a team",
            });
        }
        for member in only {
            match *member {
                Member::Org(org) => drop(self.accounts.org(org).ok_or(Rejection::NoSuchOrg)?),
                Member::User(user) => drop(self.accounts.user(user).ok_or(Rejection::NoSuchUser)?),
            }
        }
        if let Some(team) = Arc::make_mut(&mut self.teams).get_mut(&id) {
            team.only.clone_from(only);
        }
        Ok(Reply::TeamSet { team: id })
    }

    /// Refuses a job that its team may not have, unless it was one before and is no more so than it was. Gives back the team
    /// that its team is a part of.
    pub(super) fn check_team(
        &self,
        spec: &JobSpec,
        was: Option<&JobSpec>,
    ) -> Result<Option<TeamId>, Rejection> {
        let id = spec.terms.team;
        let was = was.filter(|was| was.terms.team == id);
        let is_wider = was.is_none_or(|was| spec.gpus() > was.gpus());
        let is_higher = was.is_none_or(|was| spec.priority > was.priority);
        let Some(team) = self.team(id) else {
            // Before format 3 there are no teams, and no job has one.
            return if id == TeamId::DEFAULT {
                Ok(None)
            } else {
                Err(Rejection::NoSuchTeam {
                    name: id.to_string(),
                })
            };
        };
        for team in self.team_chain(id) {
            if was.is_none() && !team.is_open_to(spec.terms.owner) {
                return Err(Rejection::NotInTeam {
                    team: team.name.clone(),
                });
            }
            let (rules, asked) = (team.rules, u32::from(spec.gpus()));
            if is_higher && spec.priority > rules.priority_max {
                return Err(Rejection::AbovePriority {
                    team: team.name.clone(),
                    max: rules.priority_max,
                });
            }
            let over = |quota: &u32| is_wider && asked > *quota;
            if let Some(quota) = rules.gpu_quota.filter(over) {
                return Err(Rejection::OverQuota {
                    team: team.name.clone(),
                    quota,
                    asked,
                });
            }
        }
        Ok(team.parent)
    }

    /// From format 3 on there is the team of who has none.
    pub(super) fn found_teams(&mut self) {
        if self.format >= 3 && self.teams.is_empty() {
            let team = Team::default_team();
            Arc::make_mut(&mut self.teams).insert(team.id, team);
        }
    }

    fn new_team(&mut self, entry: &Entry, name: &TeamName) -> Result<TeamId, Rejection> {
        if self.teams.len() >= TEAMS_MAX {
            return Err(Rejection::Full { what: "teams" });
        }
        let parent = match name.parent() {
            None => None,
            Some(parent) => {
                let known = self.team_named(&parent).map(|team| team.id);
                Some(known.ok_or_else(|| Rejection::NoSuchTeam {
                    name: parent.to_string(),
                })?)
            }
        };
        self.last_team += 1;
        let id = TeamId(self.last_team);
        let team = Team {
            id,
            name: name.clone(),
            parent,
            rules: TeamRules::default(),
            account: Account {
                period_ms: entry.now_ms,
                ..Account::default()
            },
            only: BTreeSet::new(),
        };
        Arc::make_mut(&mut self.teams).insert(id, team);
        Ok(id)
    }
}
