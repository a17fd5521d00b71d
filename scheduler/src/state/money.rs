//! Money of teams: set aside when an attempt is placed, more of it when it is used up, and settled at its end.
//!
//! What an attempt is charged is never more than what was set aside for it, and what is set aside is never more than what
//! the budget has left: so no budget is overshot, whoever leads. An attempt is asked to stop before its money is used up;
//! what it holds beyond that, since nobody could end it in time, is nobody's debt.

use std::sync::Arc;

use stepcast_records::{UsdMicros, units};

use super::State;
use super::apply::Entry;
use crate::ids::{Epoch, TeamId};
use crate::model::limits::{BUDGET_MARGIN_MS, RESERVE_MORE_MS, RESERVE_UNKNOWN_MS};
use crate::model::{Attempt, Deadline, Job, Outcome, StopReason};
use crate::placement::feasible;

/// What is to be set aside for an attempt at a price for all its GPUs: what nine in ten such runs cost, and what saving a
/// checkpoint takes; never more than the job itself may cost.
pub(crate) fn wanted(
    job: &Job,
    price_per_hour: Option<UsdMicros>,
    run_ms_p90: Option<u64>,
    now_ms: u64,
) -> UsdMicros {
    let Some(price) = price_per_hour else {
        return UsdMicros(0);
    };
    let run_ms = run_ms_p90.unwrap_or(RESERVE_UNKNOWN_MS);
    let run_ms = job
        .spec
        .max_runtime_ms
        .map_or(run_ms, |max| run_ms.min(max));
    let wanted = units::cost(run_ms.saturating_add(BUDGET_MARGIN_MS), price);
    job.budget_left(now_ms)
        .map_or(wanted, |left| left.min(wanted))
}

/// What an attempt is charged at its end, and how much of its work was kept.
pub(super) struct Bill {
    teams: Vec<TeamId>,
    charge: UsdMicros,
    cost: UsdMicros,
    work: u64,
}

impl Bill {
    /// The bill of a job's newest attempt, which has ended, with what was set aside for it.
    pub(super) fn of(job: &Job, reserved: UsdMicros, now_ms: u64) -> Option<Self> {
        let attempt = job.attempts.last()?;
        let cost = attempt.cost(now_ms);
        Some(Self {
            teams: job.teams().collect(),
            charge: cost.min(reserved),
            cost,
            work: useful_work(job, attempt, now_ms),
        })
    }
}

/// Seconds of GPUs times their rated TFLOPS, for the share of the steps that a checkpoint or the end has kept.
fn useful_work(job: &Job, attempt: &Attempt, now_ms: u64) -> u64 {
    let resumed = job.begun_step(attempt.epoch);
    let done = attempt.last_step.saturating_sub(resumed);
    let kept = match attempt.outcome() {
        Some(Outcome::Succeeded) => done.max(1),
        _ => attempt.checkpoint_step.saturating_sub(resumed).min(done),
    };
    let held_ms = attempt
        .ended_ms
        .unwrap_or(now_ms)
        .saturating_sub(attempt.placed_ms);
    let whole = u128::from(held_ms) * u128::from(rating(attempt)) / 1_000;
    u64::try_from(whole * u128::from(kept) / u128::from(done.max(1))).unwrap_or(u64::MAX)
}

/// The rated TFLOPS of an attempt's GPUs together; what is not rated counts as one.
pub(crate) fn rating(attempt: &Attempt) -> u64 {
    let tflops = attempt.gpu.rated().map_or(1.0, |rated| rated.bf16_tflops);
    // A table of constants below a few thousand, the same on every node.
    (tflops as u64).max(1) * attempt.gpu_count() as u64
}

/// When the attempt will have run as long as it may, cost what is left, or used up what its teams have set aside.
pub(super) fn deadline(
    state: &State,
    job: &Job,
    price_per_hour: Option<UsdMicros>,
    reserved: UsdMicros,
    placed_ms: u64,
) -> Option<Deadline> {
    let by_time = job
        .spec
        .max_runtime_ms
        .map(|ms| (ms, StopReason::MaxRuntime));
    // What its own limit leaves was known when it was placed, and its attempts before have not become dearer.
    let earlier: u64 = job
        .attempts
        .iter()
        .filter(|attempt| !attempt.is_live())
        .map(|attempt| attempt.cost(placed_ms).0)
        .fold(job.standing.forgotten.cost.0, u64::saturating_add);
    let own = job
        .spec
        .max_cost
        .map(|UsdMicros(max)| UsdMicros(max.saturating_sub(earlier)));
    let lasts = |money: Option<UsdMicros>| feasible::lasts_ms(money?, price_per_hour?);
    let in_time = |ms: u64| ms.saturating_sub(BUDGET_MARGIN_MS);
    let by_money = lasts(own).map(|ms| (in_time(ms), StopReason::BudgetSpent));
    let limited = state.is_limited(job).then_some(reserved);
    let by_team = lasts(limited).map(|ms| (in_time(ms), StopReason::TeamBudget));
    let all = by_time.into_iter().chain(by_money).chain(by_team);
    let (ms, why) = all.min_by_key(|(ms, _)| *ms)?;
    Some(Deadline {
        at_ms: placed_ms.saturating_add(ms),
        why,
    })
}

impl State {
    /// Whether a team of the job limits what it may cost without another look.
    fn is_limited(&self, job: &Job) -> bool {
        let mut teams = job.teams().filter_map(|team| self.team(team));
        teams.any(|team| {
            let unapproved =
                team.rules.approve_above.is_some() && job.standing.approved_ms.is_none();
            team.rules.budget.is_some() || unapproved
        })
    }

    /// What may still be set aside for a job's next or live attempt; `None` without a limit.
    pub(crate) fn may_reserve(&self, job: &Job, now_ms: u64) -> Option<UsdMicros> {
        let teams = job.teams().filter_map(|team| self.team(team));
        let budgets = teams.filter_map(|team| self.money_left(team, now_ms));
        let unapproved = self
            .approval_above(job)
            .map(|UsdMicros(above)| UsdMicros(above.saturating_sub(job.committed().0)));
        budgets.chain(unapproved).min()
    }

    /// What the job may cost without anybody's approval; `None` if it needs none.
    #[must_use]
    pub fn approval_above(&self, job: &Job) -> Option<UsdMicros> {
        if job.standing.approved_ms.is_some() {
            return None;
        }
        let teams = job.teams().filter_map(|team| self.team(team));
        teams.filter_map(|team| team.rules.approve_above).min()
    }

    /// Sets more money aside for an attempt that has used up what it had, if there is more; false if it must stop.
    pub(super) fn reserve_more(&mut self, entry: &Entry, epoch: Epoch) -> bool {
        let now_ms = entry.now_ms;
        let Some((job, attempt)) = self.live_attempt(epoch) else {
            return false;
        };
        let (Some(price), UsdMicros(reserved)) = (attempt.price_per_hour, job.standing.reserved)
        else {
            return false;
        };
        let held_ms = now_ms.saturating_sub(attempt.placed_ms);
        let until_then = held_ms.saturating_add(RESERVE_MORE_MS + BUDGET_MARGIN_MS);
        let UsdMicros(needed) = units::cost(until_then, price);
        let needed = needed.saturating_sub(reserved);
        let own = job
            .spec
            .max_cost
            .map(|UsdMicros(max)| max.saturating_sub(job.committed().0));
        let limit = self.may_reserve(job, now_ms).map(|UsdMicros(limit)| limit);
        let more = own
            .into_iter()
            .chain(limit)
            .fold(needed.max(reserved / 4), u64::min);
        // The last of it is worth having too: once it is given nothing is left, so the question comes once. Before format 3
        // it was not given where it paid for little.
        let least = match entry.format {
            0..3 => needed.min(own.unwrap_or(u64::MAX)),
            _ => 1,
        };
        if more < least.max(1) {
            return false;
        }
        let reserved = UsdMicros(reserved.saturating_add(more));
        let (id, placed_ms) = (job.id, attempt.placed_ms);
        let deadline = deadline(self, job, Some(price), reserved, placed_ms);
        self.change(id, |job| {
            job.standing.reserved = reserved;
            if let Some(attempt) = job.attempts.last_mut() {
                attempt.deadline = deadline;
            }
        });
        deadline.is_none_or(|deadline| deadline.at_ms > now_ms)
    }

    /// Gives what runs for a team and its parts the deadline that its limits mean now.
    pub(super) fn renew_deadlines(&mut self, _: &Entry, team: TeamId) {
        let leases = self.leases().filter_map(|lease| self.open_job(lease.job));
        let meant: Vec<_> = leases
            .filter(|job| job.teams().any(|other| other == team))
            .filter_map(|job| {
                let attempt = job.live_attempt()?;
                let (price, reserved) = (attempt.price_per_hour, job.standing.reserved);
                let deadline = deadline(self, job, price, reserved, attempt.placed_ms);
                (deadline != attempt.deadline && attempt.stop.is_none())
                    .then_some((job.id, deadline))
            })
            .collect();
        for (job, deadline) in meant {
            self.change(job, |job| {
                if let Some(attempt) = job.attempts.last_mut() {
                    attempt.deadline = deadline;
                }
            });
        }
    }

    /// Writes the end of an attempt into its teams' accounts.
    pub(super) fn settle_bill(&mut self, bill: &Bill, now_ms: u64) {
        if self.format < 3 {
            return;
        }
        let teams = Arc::make_mut(&mut self.teams);
        for id in &bill.teams {
            if let Some(team) = teams.get_mut(id) {
                let spent = team.spent(now_ms);
                let period = team
                    .rules
                    .budget
                    .map_or(0, |budget| budget.period.start_ms(now_ms));
                team.account.period_ms = team.account.period_ms.max(period);
                // Without a budget nothing is counted against it: one that is set later begins with nothing spent.
                let charge = team.rules.budget.map_or(0, |_| bill.charge.0);
                team.account.spent = UsdMicros(spent.0.saturating_add(charge));
                team.account.usd.add(bill.cost.0, now_ms);
                team.account.work.add(bill.work, now_ms);
            }
        }
    }
}
