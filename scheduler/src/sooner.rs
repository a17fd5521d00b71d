//! What would start a waiting job now: the cheapest change that does, found by trying it with the rules that place jobs.
//!
//! Nothing is guessed. Each change that is named was applied to a copy of the state by the command that a person would
//! send, and the job started there with the next look at the queue.

mod change;
mod least;
mod money;

use std::collections::BTreeSet;

use stepcast_records::{GpuModel, UsdMicros, units};

pub use self::change::Change;
use self::least::LEAVES_OUT_MAX;

use crate::command::{Command, Envelope, Placement};
use crate::ids::JobId;
use crate::model::limits::BUDGET_MARGIN_MS;
use crate::model::{Inventory, Job, JobSpec, JobState, TeamName, TeamRules, Worker};
use crate::placement::{ForecastSource, Ledger, Left, Reason, explain, feasible};
use crate::state::State;

/// Changes that are proposed: the first few are enough to choose from.
pub const SOONER_MAX: usize = 3;

/// Places that changes are tried for, each with its own reason against the job. Every try is a look at the whole queue.
const TRIES: usize = 24;

/// Wishes that one proposal may change together.
const TOGETHER: usize = 4;

/// A change that starts the job now.
#[derive(Debug, Clone, PartialEq)]
pub struct Sooner {
    /// What to change, all of it together.
    pub changes: Vec<Change>,
    /// Where the job then starts.
    pub placement: Placement,
    /// The commands that change it.
    pub commands: Vec<Command>,
}

impl Sooner {
    /// By what is told first: the fewest changes, and the least money, also of what is asked for; what has no price costs
    /// nothing that anybody knows of.
    fn rank(&self) -> (usize, u64, u64) {
        let cost = self.placement.note.cost_p50.map_or(0, |cost| cost.0);
        let asked = self.changes.iter().map(|change| change.money().0);
        let asked = asked.fold(0, u64::saturating_add);
        (self.changes.len(), cost, asked)
    }

    /// Whether it changes the same and starts the job at the same place, whatever the sums of money in it are.
    fn is_less_of(&self, other: &Self) -> bool {
        let (one, two) = (&self.placement, &other.placement);
        (one.worker, &one.gpus, &one.others) == (two.worker, &two.gpus, &two.others)
            && self.changes.len() == other.changes.len()
            && self
                .changes
                .iter()
                .zip(&other.changes)
                .all(|(one, two)| one.without_money() == two.without_money())
    }
}

/// What becomes of a change: what a job that asks for the first is to ask for, with what is expected of that by a new
/// estimate; `None` where the change would be refused.
pub type Revise<'a> = dyn Fn(&JobSpec, JobSpec) -> Option<JobSpec> + 'a;

/// What would start a job now, the cheapest first; nothing for one that starts anyway, or that nothing simple starts. What
/// it would ask for goes through `revise`, as an update of it would.
#[must_use]
pub fn sooner(
    state: &State,
    forecast: &dyn ForecastSource,
    revise: &Revise<'_>,
    job: JobId,
    now_ms: u64,
) -> Vec<Sooner> {
    let now_ms = now_ms.max(state.newest_stamp_ms());
    let waiting = state
        .open_job(job)
        .filter(|job| job.state == JobState::Pending);
    let Some(job) = waiting else {
        return Vec::new();
    };
    let search = Search {
        state,
        forecast,
        revise,
        job,
        now_ms,
    };
    search.run()
}

struct Search<'a> {
    state: &'a State,
    forecast: &'a dyn ForecastSource,
    revise: &'a Revise<'a>,
    job: &'a Job,
    now_ms: u64,
}

/// A job as it might ask, and what else must change for it.
#[derive(Debug, Clone, Default)]
struct Try {
    changes: Vec<Change>,
    spec: Option<JobSpec>,
    approve: bool,
    teams: Vec<(TeamName, TeamRules)>,
}

impl Try {
    fn without_approval(mut self) -> Self {
        self.approve = false;
        self.changes.retain(|change| *change != Change::Approve);
        self
    }

    fn with_approval(mut self) -> Self {
        self.approve = true;
        self.changes.push(Change::Approve);
        self
    }
}

impl Search<'_> {
    fn run(&self) -> Vec<Sooner> {
        if self.starts(&Try::default()).is_some() {
            return Vec::new();
        }
        let mut found: Vec<Sooner> = Vec::new();
        let mut tried = BTreeSet::new();
        if self.job.spec.hosts() > 1 {
            found.extend(self.for_gang());
        }
        for worker in self.workers() {
            if tried.len() >= TRIES {
                break;
            }
            for model in worker.models() {
                let Some(attempt) = self.for_worker(worker, model) else {
                    continue;
                };
                if attempt.changes.is_empty() || !tried.insert(format!("{:?}", attempt.changes)) {
                    continue;
                }
                let starts = self.tried(attempt);
                let is_new = |new: &Sooner| found.iter().all(|known| known.changes != new.changes);
                if let Some(new) = starts.filter(is_new) {
                    found.push(new);
                }
            }
        }
        if found.is_empty() {
            found.extend(self.by_priority());
        }
        // One wish may have been given up for what another one was given up for as well.
        found.sort_by_key(Sooner::rank);
        let mut looks = LEAVES_OUT_MAX;
        let found = found.into_iter().map(|new| self.least(new, &mut looks));
        let mut found: Vec<Sooner> = found.collect();
        found.sort_by_key(Sooner::rank);
        let mut least: Vec<Sooner> = Vec::new();
        for new in found {
            // More money that starts it on the same worker as less of it is nothing to choose from.
            let is_known = |known: &Sooner| known.changes == new.changes || known.is_less_of(&new);
            if !least.iter().any(is_known) {
                least.push(new);
            }
        }
        least.truncate(SOONER_MAX);
        least
    }

    /// Workers that could take something now, one of each kind, price, and of what else is for or against the job there.
    fn workers(&self) -> impl Iterator<Item = &Worker> {
        let mut seen = BTreeSet::new();
        let workers = self.state.workers().filter(|worker| worker.takes_work());
        workers.filter(move |worker| {
            let free = (0..)
                .zip(&worker.inventory.gpus)
                .filter(|(gpu, _)| self.state.user_of(worker.id, *gpu).is_none());
            let free: Vec<GpuModel> = free.map(|(_, model)| *model).collect();
            let prices: Vec<_> = free
                .iter()
                .map(|gpu| worker.price_per_gpu_hour(*gpu))
                .collect();
            let Inventory {
                labels,
                trainers,
                address,
                ..
            } = &worker.inventory;
            let key = self.job.spec.terms.spread.as_ref();
            let kept_away = key.is_some_and(|key| self.state.holds_key(worker.id, key));
            let begins_anew = self.state.begins_anew_on(self.job, worker.id);
            let here = (address.is_some(), kept_away, begins_anew);
            let kind = format!("{free:?} {prices:?} {labels:?} {trainers:?} {here:?}");
            !free.is_empty() && seen.insert(kind)
        })
    }

    /// What lifts what holds a gang, with as many of its hosts as can start then.
    fn for_gang(&self) -> Option<Sooner> {
        let mut attempt = Try::default();
        let mut job = self.job.clone();
        self.release(&mut job, &mut attempt)?;
        let asked = job.spec.hosts();
        (1..=asked).rev().find_map(|hosts| {
            let mut attempt = attempt.clone();
            let mut spec = job.spec.clone();
            if hosts < asked {
                spec.terms.more_hosts = hosts - 1;
                attempt.changes.push(Change::Hosts(hosts));
            }
            if attempt.changes.is_empty() {
                return None;
            }
            attempt.spec = (spec != self.job.spec).then_some(spec);
            self.tried(attempt)
        })
    }

    /// What must change for the job, or a part of a gang, to be taken by free GPUs of one model of a worker, as far as wishes
    /// and limits go.
    fn for_worker(&self, worker: &Worker, model: GpuModel) -> Option<Try> {
        let mut attempt = Try::default();
        let mut job = self.job.clone();
        self.release(&mut job, &mut attempt)?;
        let free: Vec<u8> = (0..)
            .zip(&worker.inventory.gpus)
            .filter(|(gpu, other)| {
                **other == model && self.state.user_of(worker.id, *gpu).is_none()
            })
            .map(|(gpu, _)| gpu)
            .collect();
        // One wish after the other, until nothing is against it any more.
        for _ in 0..=TOGETHER {
            let count = usize::from(job.spec.gpu_count);
            let against = match free.get(..count) {
                None => Err(Reason::TooFewGpus),
                Some(gpus) => feasible::admits_part(&job, worker, gpus, self.now_ms).map(drop),
            };
            let price = worker.price_per_hour(model, job.spec.gpus().into());
            // As a plan has it: what its checkpoints keep need not be paid for again where they are.
            let policy = self.state.policy();
            let left = if self.state.begins_anew_on(&job, worker.id) {
                Left::anew(self.forecast, &job, model, policy)?
            } else {
                Left::of_waiting(self.forecast, &job, model, policy)?
            };
            let run_ms_p90 = left.forecast().map(|left| left.run_ms_p90);
            let against = against.and_then(|()| {
                Ledger::new(self.state, self.now_ms).allows(&job, [worker], price, run_ms_p90)
            });
            let Err(reason) = against else {
                attempt.spec = (job.spec != self.job.spec).then_some(job.spec);
                return (attempt.changes.len() <= TOGETHER).then_some(attempt);
            };
            if reason == Reason::TeamBudget {
                // The ledger knows nothing of a larger budget, so nothing else is tried behind it: the whole is anyway.
                self.more_money(&job, &mut attempt, price, run_ms_p90);
                attempt.spec = (job.spec != self.job.spec).then_some(job.spec);
                return Some(attempt);
            }
            self.relax(
                reason,
                &mut job,
                &mut attempt,
                (worker, model, free.len(), run_ms_p90),
            )?;
        }
        None
    }

    /// Lifts what holds the job wherever it might run.
    fn release(&self, job: &mut Job, attempt: &mut Try) -> Option<()> {
        match Ledger::new(self.state, self.now_ms).held(job) {
            None => Some(()),
            Some(Reason::NotBefore) => {
                job.spec.terms.not_before_ms = None;
                job.not_before_ms = job.queued_ms;
                attempt.changes.push(Change::Now);
                self.release_rest(job, attempt)
            }
            Some(_) => self.release_rest(job, attempt),
        }
    }

    fn release_rest(&self, job: &mut Job, attempt: &mut Try) -> Option<()> {
        match Ledger::new(self.state, self.now_ms).held(job) {
            None => Some(()),
            Some(Reason::AwaitingApproval) => {
                job.standing.approved_ms = Some(self.now_ms);
                attempt.approve = true;
                attempt.changes.push(Change::Approve);
                self.release_rest(job, attempt)
            }
            Some(Reason::QuotaFull) => {
                for team in job.teams().filter_map(|team| self.state.team(team)) {
                    let needed = self.state.gpus_in_use(team.id) + u32::from(job.spec.gpus());
                    if team.rules.gpu_quota.is_some_and(|quota| quota < needed) {
                        let rules = TeamRules {
                            gpu_quota: Some(needed),
                            ..team.rules
                        };
                        attempt.teams.push((team.name.clone(), rules));
                        attempt
                            .changes
                            .push(Change::Quota(team.name.clone(), needed));
                    }
                }
                Some(())
            }
            // Neither time nor money that is gone can be asked for back.
            Some(_) => None,
        }
    }

    fn relax(
        &self,
        reason: Reason,
        job: &mut Job,
        attempt: &mut Try,
        (worker, model, free, run_ms_p90): (&Worker, GpuModel, usize, Option<u64>),
    ) -> Option<()> {
        let price = worker.price_per_hour(model, job.spec.gpus().into());
        let change = match reason {
            Reason::NoGangs => {
                job.spec.terms.more_hosts = 0;
                job.spec.can_train().then_some(Change::Hosts(1))?
            }
            // Whoever names nothing takes any GPU: the first name would leave it that alone.
            Reason::OtherGpu if job.spec.allow.is_empty() => return None,
            Reason::OtherGpu if !job.spec.allow.contains(&model) && !model.is_replay() => {
                job.spec.allow.push(model);
                Change::Allow(model)
            }
            Reason::TooLittleMemory => {
                job.spec.min_memory_gib = model.memory_gib();
                Change::Memory(model.memory_gib())
            }
            Reason::TooFewGpus => {
                let most = job.spec.fewer_gpus(free)?;
                job.spec.gpu_count = most;
                Change::Gpus(most)
            }
            Reason::TooDear => {
                job.spec.max_price_per_hour = price;
                Change::Price(price?)
            }
            Reason::BudgetTooSmall => {
                let UsdMicros(spent) = job.cost(self.now_ms);
                let run_ms = run_ms_p90?.saturating_add(2 * BUDGET_MARGIN_MS);
                let UsdMicros(more) = units::cost(run_ms, price?);
                let cost = UsdMicros(spent.saturating_add(more));
                job.spec.max_cost = Some(cost);
                Change::Cost(cost)
            }
            Reason::NoPrice
                if job.spec.max_price_per_hour.is_some() || job.spec.max_cost.is_some() =>
            {
                (job.spec.max_price_per_hour, job.spec.max_cost) = (None, None);
                Change::NoLimits
            }
            Reason::MissingLabel => {
                job.spec.labels.clear();
                Change::NoLabels
            }
            Reason::Avoided | Reason::KeyTaken => {
                job.spec.terms.avoid.clear();
                job.spec.terms.spread = None;
                Change::Anywhere
            }
            Reason::AwaitingApproval if !attempt.approve => {
                job.standing.approved_ms = Some(self.now_ms);
                attempt.approve = true;
                Change::Approve
            }
            _ => return None,
        };
        attempt.changes.push(change);
        Some(())
    }

    /// The lowest higher priority with which the job goes first.
    fn by_priority(&self) -> Option<Sooner> {
        let most = job_priority_max(self.state, self.job);
        (self.job.spec.priority.saturating_add(1)..=most).find_map(|priority| {
            let attempt = Try {
                changes: vec![Change::Priority(priority)],
                spec: Some(JobSpec {
                    priority,
                    ..self.job.spec.clone()
                }),
                ..Try::default()
            };
            self.tried(attempt)
        })
    }

    /// What starts the job with these changes, if they do. Whether anybody's word on its cost is needed with them shows only
    /// in what is expected of it then: it is left out where the job starts without it, and comes on top where it does not.
    fn tried(&self, attempt: Try) -> Option<Sooner> {
        let attempt = self.with_quotas_that_fit(attempt);
        let asks = attempt.approve || self.asks_for_approval();
        let without = attempt.without_approval();
        let with = asks.then(|| without.clone().with_approval());
        let tries = [(!without.changes.is_empty()).then_some(without), with];
        tries.into_iter().flatten().find_map(|attempt| {
            let (placement, commands) = self.starts(&attempt)?;
            Some(Sooner {
                changes: attempt.changes,
                placement,
                commands,
            })
        })
    }

    /// Whether a team of the job asks for somebody's word above a sum.
    fn asks_for_approval(&self) -> bool {
        let mut teams = self.job.teams().filter_map(|team| self.state.team(team));
        teams.any(|team| team.rules.approve_above.is_some())
    }

    /// Where the job starts with these changes, and the commands that make them; `None` if it does not.
    fn starts(&self, attempt: &Try) -> Option<(Placement, Vec<Command>)> {
        let commands = self.commands(attempt)?;
        let place =
            |state: &State| explain(state, self.forecast, self.job.id, self.now_ms)?.placement;
        if commands.is_empty() {
            return Some((place(self.state)?, commands));
        }
        let mut state = self.state.clone();
        for command in &commands {
            let index = state.applied_index() + 1;
            let envelope = Envelope::new(self.now_ms, None, command.clone());
            state.apply(index, &envelope).reply.ok()?;
        }
        Some((place(&state)?, commands))
    }

    /// The commands that make these changes; `None` where one of them would be refused.
    fn commands(&self, attempt: &Try) -> Option<Vec<Command>> {
        let job = self.job.id;
        let teams = attempt.teams.iter().map(|(name, rules)| Command::SetTeam {
            name: name.clone(),
            rules: *rules,
        });
        let revised = match &attempt.spec {
            None => None,
            Some(spec) => Some((self.revise)(&self.job.spec, spec.clone())?),
        };
        let update = revised.map(|spec| Command::UpdateJob {
            job,
            spec: Box::new(spec),
            seq: None,
        });
        let approve = attempt
            .approve
            .then_some(Command::ApproveJob { job, seq: None });
        Some(teams.chain(update).chain(approve).collect())
    }
}

/// The highest priority that a job's teams let it have.
fn job_priority_max(state: &State, job: &Job) -> i8 {
    let teams = job.teams().filter_map(|team| state.team(team));
    let most = teams.map(|team| team.rules.priority_max).min();
    most.unwrap_or(*crate::model::limits::PRIORITIES.end())
}
