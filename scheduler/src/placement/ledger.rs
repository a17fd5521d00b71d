//! What teams, arrays and keys have left as one look at the queue sees it: the one opinion of apply, plan and explanation.

use std::collections::{BTreeMap, BTreeSet};

use stepcast_records::UsdMicros;

use super::feasible;
use super::reason::Reason;
use crate::ids::{JobId, TeamId, WorkerId};
use crate::model::limits::BUDGET_MARGIN_MS;
use crate::model::{Job, Label, Team, Worker};
use crate::state::{State, wanted};

/// What is left, with what jobs ahead take in this look already gone.
#[derive(Debug)]
pub struct Ledger<'a> {
    state: &'a State,
    now_ms: u64,
    teams: BTreeMap<TeamId, Taken>,
    arrays: BTreeMap<JobId, u32>,
    keys: BTreeSet<(WorkerId, &'a Label)>,
}

/// What jobs ahead take of a team's limits.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    gpus: u32,
    usd_micros: u64,
}

/// What was set aside for a job of limits of its teams and its array: GPUs and micro-dollars.
#[derive(Debug)]
pub(super) struct SetAside {
    teams: Vec<(TeamId, u32, u64)>,
    array: Option<JobId>,
    worker: WorkerId,
}

impl<'a> Ledger<'a> {
    /// What is left in a state at `now_ms`.
    #[must_use]
    pub const fn new(state: &'a State, now_ms: u64) -> Self {
        Self {
            state,
            now_ms,
            teams: BTreeMap::new(),
            arrays: BTreeMap::new(),
            keys: BTreeSet::new(),
        }
    }

    /// Why a job may not run anywhere now, whatever the worker.
    #[must_use]
    pub fn held(&self, job: &Job) -> Option<Reason> {
        if let Some(reason) = feasible::held(job, self.now_ms) {
            return Some(reason);
        }
        if let Some(part) = job.spec.terms.array {
            let taken = self.arrays.get(&part.array).copied().unwrap_or(0);
            if self.state.array_running(part.array) + taken >= part.parallel {
                return Some(Reason::ArrayFull);
            }
        }
        let above = self.state.approval_above(job);
        let may_cost = job.spec.max_cost.or(job.spec.terms.expected_cost);
        if above.is_some_and(|above| may_cost.is_some_and(|cost| cost > above)) {
            return Some(Reason::AwaitingApproval);
        }
        let asked = u32::from(job.spec.gpus());
        self.teams(job).find_map(|(team, taken)| {
            let in_use = self.state.gpus_in_use(team.id) + taken.gpus;
            let full = team
                .rules
                .gpu_quota
                .is_some_and(|quota| in_use + asked > quota);
            full.then_some(Reason::QuotaFull)
        })
    }

    /// Whether the quotas of a team and of the one that it is a part of leave so many GPUs.
    pub(super) fn has_quota(&self, team: TeamId, gpus: u32) -> bool {
        self.state.team_chain(team).all(|team| {
            let taken = self.teams.get(&team.id).map_or(0, |taken| taken.gpus);
            let fits = |quota| self.state.gpus_in_use(team.id) + taken + gpus <= quota;
            team.rules.gpu_quota.is_none_or(fits)
        })
    }

    /// Whether a job may run on a worker, or on several, at a price for all its GPUs, if nine in ten such runs take at most
    /// `run_ms_p90` there.
    ///
    /// # Errors
    /// The reason against it.
    pub fn allows<'w>(
        &self,
        job: &Job,
        workers: impl IntoIterator<Item = &'w Worker>,
        price_per_hour: Option<UsdMicros>,
        run_ms_p90: Option<u64>,
    ) -> Result<(), Reason> {
        let mut workers = workers.into_iter();
        if workers.any(|worker| self.is_kept_away(job, worker)) {
            return Err(Reason::KeyTaken);
        }
        let limited = job.spec.terms.team != TeamId::DEFAULT || self.state.team_of(job).is_some();
        if !limited {
            return Ok(());
        }
        let UsdMicros(wanted) = wanted(job, price_per_hour, run_ms_p90, self.now_ms);
        let mut budgets = self.teams(job).filter_map(|(team, taken)| {
            let UsdMicros(left) = self.state.money_left(team, self.now_ms)?;
            Some(left.saturating_sub(taken.usd_micros))
        });
        let above = self.state.approval_above(job);
        let unpriced = price_per_hour.is_none();
        if let Some(left) = budgets.by_ref().reduce(u64::min) {
            // What has no price cannot be paid from a budget: nobody could say when it is used up.
            if unpriced {
                return Err(Reason::NoPrice);
            }
            let lasts_ms = feasible::lasts_ms(UsdMicros(left), price_per_hour.unwrap_or_default());
            if wanted > left || lasts_ms.is_some_and(|ms| ms <= BUDGET_MARGIN_MS) {
                return Err(Reason::TeamBudget);
            }
        }
        match above {
            Some(_) if unpriced => Err(Reason::NoPrice),
            Some(UsdMicros(above)) if job.committed().0.saturating_add(wanted) > above => {
                Err(Reason::AwaitingApproval)
            }
            _ => Ok(()),
        }
    }

    /// Takes what a job that starts on a worker, or on several, in this look needs.
    pub fn take(
        &mut self,
        job: &'a Job,
        workers: impl IntoIterator<Item = WorkerId>,
        price_per_hour: Option<UsdMicros>,
        run_ms_p90: Option<u64>,
    ) {
        let UsdMicros(wanted) = wanted(job, price_per_hour, run_ms_p90, self.now_ms);
        for team in job.teams() {
            let taken = self.teams.entry(team).or_default();
            taken.gpus += u32::from(job.spec.gpus());
            taken.usd_micros = taken.usd_micros.saturating_add(wanted);
        }
        if let Some(part) = job.spec.terms.array {
            *self.arrays.entry(part.array).or_default() += 1;
        }
        if let Some(key) = &job.spec.terms.spread {
            self.keys
                .extend(workers.into_iter().map(|worker| (worker, key)));
        }
    }

    /// Sets aside what a job needs that starts on a worker as soon as others have stopped. What these use of the same limits
    /// until then is its own afterwards, and is not counted twice.
    pub(super) fn set_aside(
        &mut self,
        job: &'a Job,
        stop: &[&Job],
        worker: WorkerId,
        price_per_hour: Option<UsdMicros>,
        run_ms_p90: Option<u64>,
    ) -> SetAside {
        let UsdMicros(wanted) = wanted(job, price_per_hour, run_ms_p90, self.now_ms);
        let teams = job.teams().map(|team| {
            let theirs = stop
                .iter()
                .filter(|other| other.teams().any(|of| of == team));
            let theirs: u32 = theirs.map(|other| u32::from(other.spec.gpus())).sum();
            let gpus = u32::from(job.spec.gpus()).saturating_sub(theirs);
            (team, gpus, wanted)
        });
        let array = job.spec.terms.array.map(|part| part.array);
        let is_of = |other: &&Job| other.spec.terms.array.map(|part| part.array) == array;
        let aside = SetAside {
            teams: teams.collect(),
            array: array.filter(|_| !stop.iter().any(is_of)),
            worker,
        };
        for (team, gpus, usd_micros) in &aside.teams {
            let taken = self.teams.entry(*team).or_default();
            taken.gpus += gpus;
            taken.usd_micros = taken.usd_micros.saturating_add(*usd_micros);
        }
        if let Some(array) = aside.array {
            *self.arrays.entry(array).or_default() += 1;
        }
        if let Some(key) = &job.spec.terms.spread {
            self.keys.insert((worker, key));
        }
        aside
    }

    /// Gives back what was set aside for a job: it starts somewhere else, or may.
    pub(super) fn give_back(&mut self, job: &'a Job, aside: &SetAside) {
        for (team, gpus, usd_micros) in &aside.teams {
            let taken = self.teams.entry(*team).or_default();
            taken.gpus = taken.gpus.saturating_sub(*gpus);
            taken.usd_micros = taken.usd_micros.saturating_sub(*usd_micros);
        }
        if let Some(array) = aside.array {
            let taken = self.arrays.entry(array).or_default();
            *taken = taken.saturating_sub(1);
        }
        if let Some(key) = &job.spec.terms.spread {
            self.keys.remove(&(aside.worker, key));
        }
    }

    /// The team whose limit is in the way of a job, for the words of an explanation.
    pub(super) fn team_in_the_way(&self, job: &Job, reason: Reason) -> Option<&'a Team> {
        let mut teams = job.teams().filter_map(|team| self.state.team(team));
        match reason {
            Reason::QuotaFull => teams.find(|team| {
                let taken = self.teams.get(&team.id).map_or(0, |taken| taken.gpus);
                let in_use = self.state.gpus_in_use(team.id) + taken;
                let asked = u32::from(job.spec.gpus());
                team.rules
                    .gpu_quota
                    .is_some_and(|quota| in_use + asked > quota)
            }),
            Reason::TeamBudget => teams
                .filter(|team| team.rules.budget.is_some())
                .min_by_key(|team| self.state.money_left(team, self.now_ms)),
            Reason::AwaitingApproval => teams
                .filter(|team| team.rules.approve_above.is_some())
                .min_by_key(|team| team.rules.approve_above),
            _ => None,
        }
    }

    fn teams(&self, job: &Job) -> impl Iterator<Item = (&'a Team, Taken)> {
        job.teams().filter_map(|id| {
            let taken = self.teams.get(&id).copied().unwrap_or_default();
            Some((self.state.team(id)?, taken))
        })
    }

    fn is_kept_away(&self, job: &Job, worker: &Worker) -> bool {
        let Some(key) = &job.spec.terms.spread else {
            return false;
        };
        self.keys.contains(&(worker.id, key)) || self.state.holds_key(worker.id, key)
    }
}
