//! How an explanation is said: short sentences for the job's owner, with the names of workers and jobs.

use std::collections::BTreeSet;
use std::fmt::Display;

use stepcast_records::{GpuModel, UsdMicros, units};

use super::explain::NAMED_MAX;
use super::feasible;
use super::forecast::ForecastSource;
use super::look::Hosts;
use super::reason::{Reason, Tier};
use crate::command::Placement;
use crate::drift::AS_EXPECTED;
use crate::ids::{JobId, WorkerId};
use crate::model::{Job, JobState, Label, Team, Worker, WorkerState};
use crate::outlook::Times;
use crate::state::State;

/// When a job that waits for GPUs starts, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct When {
    /// In the worlds that were looked at.
    pub(super) start: Times,
    /// When enough GPUs are free in nine of ten cases, by stamp, if nothing ahead takes them.
    pub(super) free_ms: Option<u64>,
}

/// What is said about one job.
pub(super) struct Wording<'a> {
    pub(super) state: &'a State,
    pub(super) forecast: &'a dyn ForecastSource,
    pub(super) job: &'a Job,
    pub(super) now_ms: u64,
}

impl Wording<'_> {
    /// About a job that does not wait.
    pub(super) fn not_waiting(&self) -> String {
        let id = self.job.id;
        let attempt = self.job.live_attempt();
        let workers = || attempt.iter().flat_map(|attempt| attempt.parts());
        let place = self.on(workers().map(|part| part.worker));
        match self.job.state {
            JobState::Pending => format!("{id} waits"),
            JobState::Running => {
                let workers = workers().filter_map(|part| self.state.worker(part.worker));
                match self.slow(workers) {
                    slow if slow.is_empty() => format!("{id} runs{place}"),
                    slow => format!("{id} runs{place}; {slow}"),
                }
            }
            JobState::Cancelling => format!("{id} is being cancelled{place}"),
            JobState::Succeeded => format!("{id} has succeeded"),
            JobState::Failed { reason } => format!("{id} has failed ({})", reason.code()),
            JobState::Cancelled => format!("{id} was cancelled"),
        }
    }

    /// What is added to it where the job's team has used more than its share.
    pub(super) fn share(&self, late_ms: i64) -> String {
        let late_ms = u64::try_from(late_ms).unwrap_or(0);
        if late_ms == 0 {
            return String::new();
        }
        format!(
            "; team {} has used more than its share lately, so it counts as if it had come {} later",
            name_of(self.state.team_of(self.job)),
            self.until(self.now_ms.saturating_add(late_ms))
        )
    }

    /// What is added where a job's checkpoint is known not to be everywhere.
    pub(super) fn checkpoint(&self, placement: Option<&Placement>) -> String {
        let Some(worker) = self.state.checkpoint_only_on(self.job) else {
            return String::new();
        };
        let (step, name) = (self.job.checkpoint_step(), &worker.name);
        match placement {
            Some(placement) if self.state.begins_anew_on(self.job, placement.worker) => format!(
                "; it begins anew there, since its checkpoint of step {step} is only where the results of {name} are"
            ),
            Some(_) => format!("; it goes on from step {step}"),
            None => format!("; it goes on from step {step} only where the results of {name} are"),
        }
    }

    /// The first sentence.
    pub(super) fn headline(
        &self,
        tier: Tier,
        held: Option<Reason>,
        placement: Option<&Placement>,
        (when, hosts): (When, Option<Hosts>),
        team: Option<&Team>,
    ) -> String {
        let id = self.job.id;
        match (tier, placement) {
            (_, Some(placement)) => {
                let place = self.on(placement.seats().map(|(worker, _)| worker));
                format!("{id} starts{place} with the next look at the queue")
            }
            (Tier::Never, _) if self.state.workers().next().is_none() => {
                format!("{id} cannot start: there is no worker")
            }
            (Tier::Never, _) if held == Some(Reason::BudgetTooSmall) => {
                format!("{id} cannot start: what it may still cost is too little for an attempt")
            }
            (Tier::Never, _) => match hosts {
                Some(hosts) => format!(
                    "{id} cannot start: {}, and {} could",
                    self.needs(hosts),
                    counted(hosts.able)
                ),
                None => format!("{id} cannot start: no worker could hold it"),
            },
            (Tier::Held, _) if held == Some(Reason::BudgetSpent) => {
                format!("{id} is held: its budget is spent")
            }
            (Tier::Held, _) if held == Some(Reason::AwaitingCredentials) => {
                format!(
                    "{id} is held: nobody holds its credentials any more ({}); give them again",
                    list(&self.job.spec.terms.credentials)
                )
            }
            (Tier::Held, _) if held == Some(Reason::NotBefore) => {
                format!(
                    "{id} is held: it is not to begin before another {}",
                    self.until(self.job.not_before_ms)
                )
            }
            (Tier::Held, _) if held == Some(Reason::ArrayFull) => {
                let parallel = self.job.spec.terms.array.map_or(0, |part| part.parallel);
                let tasks = number(parallel, "task");
                format!("{id} is held: its array may run {tasks} at a time")
            }
            (Tier::Held, _) if held == Some(Reason::QuotaFull) => {
                let quota = team.and_then(|team| team.rules.gpu_quota).unwrap_or(0);
                let asked = u32::from(self.job.spec.gpus());
                let may = format!(
                    "team {} may use {} at a time",
                    name_of(team),
                    number(quota, "GPU")
                );
                if asked > quota {
                    // No end of what the team runs helps.
                    format!(
                        "{id} is held: it asks for {}, and {may}: it needs fewer GPUs or a larger quota",
                        number(asked, "GPU")
                    )
                } else {
                    format!("{id} is held: {may}")
                }
            }
            (Tier::Held, _) if held == Some(Reason::AwaitingApproval) => {
                let above = team
                    .and_then(|team| team.rules.approve_above)
                    .unwrap_or_default();
                format!(
                    "{id} is held: what costs team {} more than {above} must be approved",
                    name_of(team)
                )
            }
            (Tier::Held, _) if held == Some(Reason::TeamBudget) => {
                let left = team.and_then(|team| self.state.money_left(team, self.now_ms));
                let left = left.unwrap_or_default();
                format!(
                    "{id} is held: team {} has {left} of its budget left",
                    name_of(team)
                )
            }
            (Tier::Held, _) => {
                let wait_ms = self.job.not_before_ms.saturating_sub(self.now_ms);
                format!(
                    "{id} is held: it is tried again in {} s",
                    wait_ms.div_ceil(1_000)
                )
            }
            (Tier::Capacity, _) => {
                let needs = hosts.map(|hosts| {
                    format!(
                        " ({}, and {} them free)",
                        self.needs(hosts),
                        if hosts.free == 1 {
                            "1 has".to_owned()
                        } else {
                            format!("{} have", counted(hosts.free))
                        }
                    )
                });
                let needs = needs.unwrap_or_default();
                format!("{id} is waiting for GPUs{needs}{}", self.when(when))
            }
            (Tier::Order | Tier::New, _) => format!("{id} is waiting for the jobs ahead of it"),
        }
    }

    /// What is added for a job that waits for GPUs: the middle of when it starts and how late it may be, or what plans go by.
    fn when(&self, when: When) -> String {
        let Some(likely_ms) = when.start.p50_ms else {
            let free_ms = when.free_ms.map(|ms| self.until(ms));
            return free_ms.map_or_else(String::new, |free| {
                format!(": nine times in ten they are free in {free}")
            });
        };
        let likely = self.until(likely_ms);
        let late = when.start.p90_ms.map(|ms| self.until(ms));
        match late.filter(|late| *late != likely) {
            Some(late) => {
                format!(": expected to start in {likely}, nine times in ten within {late}")
            }
            None => format!(": expected to start in {likely}"),
        }
    }

    /// What a gang needs.
    fn needs(&self, hosts: Hosts) -> String {
        let gpus = match self.job.spec.gpu_count {
            1 => "a GPU".to_owned(),
            count => format!("{count} GPUs"),
        };
        format!(
            "it needs {} hosts with {gpus} of one model each",
            hosts.needed
        )
    }

    /// Where something runs: the names of workers.
    fn on(&self, workers: impl Iterator<Item = WorkerId>) -> String {
        let names: Vec<&Label> = workers
            .filter_map(|worker| Some(&self.state.worker(worker)?.name))
            .collect();
        if names.is_empty() {
            return String::new();
        }
        format!(" on {}", list(names))
    }

    /// What a reason means for these workers, what clears it, and which of those that could hold the job are slow.
    pub(super) fn detail(&self, reason: Reason, workers: &[&Worker], jobs: &[JobId]) -> String {
        let meaning = match reason {
            Reason::OtherGpu => self.other_gpu(workers),
            Reason::TooLittleMemory => {
                format!(
                    "{}; the job asks for {} GiB",
                    gpus(workers),
                    self.job.spec.min_memory_gib
                )
            }
            Reason::TooFewGpus => {
                format!("the job asks for {} of one model", self.job.spec.gpu_count)
            }
            Reason::TooDear => self.too_dear(workers),
            Reason::GpusBusy => list(jobs.iter().map(|job| self.run(*job))),
            Reason::Reserved | Reason::TakenNow => list(jobs),
            Reason::TeamBudget => self.team_budget(),
            Reason::AwaitingApproval => self.approval(),
            Reason::KeyTaken => {
                let key = self.job.spec.terms.spread.as_ref();
                key.map_or_else(String::new, |key| format!("its key is {key}"))
            }
            Reason::FailedThere => self.failed_there(workers),
            Reason::CheckpointElsewhere => "it would begin anew there".to_owned(),
            Reason::Lost | Reason::Draining => workers
                .first()
                .map_or_else(String::new, |worker| self.since(worker)),
            _ => String::new(),
        };
        let clears = match reason {
            Reason::TeamBudget if !self.next_period_helps() => "a larger budget",
            reason => reason.clears(),
        };
        let clears = match clears {
            "" => String::new(),
            clears => format!("cleared by {clears}"),
        };
        let slow = match reason.tier() {
            Tier::Never => String::new(),
            _ => self.slow(workers.iter().copied()),
        };
        let parts = [meaning, clears, slow].into_iter();
        let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
        parts.join("; ")
    }

    /// The jobs that run on a worker.
    pub(super) fn runs_on(&self, worker: &Worker) -> impl Iterator<Item = JobId> {
        self.state.leases_on(worker.id).map(|lease| lease.job)
    }

    fn other_gpu(&self, workers: &[&Worker]) -> String {
        let allow = &self.job.spec.allow;
        let offered = gpus(workers);
        if allow.is_empty() {
            offered
        } else {
            format!("{offered}; the job allows {}", list(allow))
        }
    }

    fn too_dear(&self, workers: &[&Worker]) -> String {
        let prices = workers
            .iter()
            .filter_map(|worker| feasible::least_price(self.job, worker));
        let price = prices.min();
        let max = self.job.spec.max_price_per_hour.unwrap_or_default();
        format!(
            "from {} an hour; the job allows {max}",
            price.unwrap_or_default()
        )
    }

    fn team_budget(&self) -> String {
        let least = self.least_left();
        least.map_or_else(String::new, |(left, team)| {
            format!("team {} has {left} left", team.name)
        })
    }

    /// Of the job's teams, the one that has the least left of its budget, and how much that is.
    fn least_left(&self) -> Option<(UsdMicros, &Team)> {
        let teams = self.job.teams().filter_map(|team| self.state.team(team));
        let left = teams.filter_map(|team| Some((self.state.money_left(team, self.now_ms)?, team)));
        left.min_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)))
    }

    /// Whether that team has more when the next period of its budget begins: there is one, and some of this one's is gone.
    fn next_period_helps(&self) -> bool {
        let budget = self
            .least_left()
            .and_then(|(left, team)| Some((left, team.rules.budget?)));
        budget.is_some_and(|(left, budget)| {
            left < budget.amount && budget.period.next_ms(self.now_ms).is_some()
        })
    }

    fn approval(&self) -> String {
        let above = self.state.approval_above(self.job);
        above.map_or_else(String::new, |above| {
            format!("it may cost more than {above} there")
        })
    }

    /// A job that runs, and how much longer: the middle of what is left of it, as plans know it. Where they know nothing, what
    /// was expected when it was placed, and once that is over what it takes nine times in ten.
    fn run(&self, id: JobId) -> String {
        let running = self.state.open_job(id);
        let Some((job, attempt)) = running.and_then(|job| Some((job, job.live_attempt()?))) else {
            return id.to_string();
        };
        if attempt.stop.is_some() {
            return format!("{id} (is being stopped)");
        }
        if let Some(left) = self.forecast.left(job, attempt, self.now_ms) {
            return format!("{id} ({} more)", units::display_duration(left.run_ms_p50));
        }
        let end_ms = |run_ms: Option<u64>| Some(attempt.placed_ms.saturating_add(run_ms?));
        let is_to_come = |ms: &u64| *ms > self.now_ms;
        let likely_ms = end_ms(attempt.note.run_ms_p50).filter(is_to_come);
        match (likely_ms, end_ms(attempt.note.run_ms_p90)) {
            (Some(likely_ms), _) => format!("{id} ({} more)", self.until(likely_ms)),
            (None, Some(late_ms)) if is_to_come(&late_ms) => {
                format!("{id} (up to {} more)", self.until(late_ms))
            }
            (None, Some(_)) => format!("{id} (overdue)"),
            (None, None) => id.to_string(),
        }
    }

    fn failed_there(&self, workers: &[&Worker]) -> String {
        let is_one = |failed: &WorkerId| workers.iter().any(|worker| worker.id == *failed);
        let times = self.job.failed_to_start().filter(is_one).count();
        let times = number(u32::try_from(times).unwrap_or(u32::MAX), "attempt");
        format!("{times} could not be started there, so it goes to others first")
    }

    fn since(&self, worker: &Worker) -> String {
        let since_ms = match (worker.state, worker.drain) {
            (WorkerState::Lost { since_ms }, _) => since_ms,
            (_, Some(drain)) => drain.since_ms,
            _ => return String::new(),
        };
        format!(
            "for {}",
            units::display_duration(self.now_ms.saturating_sub(since_ms))
        )
    }

    fn until(&self, ms: u64) -> String {
        units::display_duration(ms.saturating_sub(self.now_ms))
    }

    /// Which of workers take longer than others with the same GPUs, and by how much; empty if none does.
    fn slow<'w>(&self, workers: impl Iterator<Item = &'w Worker>) -> String {
        let slow = workers.filter_map(|worker| {
            let more = self.forecast.drift(worker.id).saturating_sub(AS_EXPECTED);
            (more > 0).then(|| format!("{} by {} %", worker.name, more * 100 / AS_EXPECTED))
        });
        match list(slow.take(NAMED_MAX)) {
            names if names.is_empty() => names,
            names => format!("slower than others with the same GPUs: {names}"),
        }
    }
}

fn name_of(team: Option<&Team>) -> String {
    team.map_or_else(String::new, |team| team.name.to_string())
}

/// The GPU models of workers, each once.
fn gpus(workers: &[&Worker]) -> String {
    let models: BTreeSet<GpuModel> = workers
        .iter()
        .flat_map(|worker| worker.inventory.gpus.iter().copied())
        .collect();
    list(models)
}

/// A number of things, with a word for none.
fn counted(count: usize) -> String {
    match count {
        0 => "none".to_owned(),
        count => count.to_string(),
    }
}

fn number(count: u32, one: &str) -> String {
    let more = if count == 1 { "" } else { "s" };
    format!("{count} {one}{more}")
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}
