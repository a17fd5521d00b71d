//! When jobs start and are done if something were different: questions about a copy of the state, which change nothing.

use std::collections::BTreeMap;

use stepcast_proto::v1;
use stepcast_records::{GpuModel, UsdMicros};
use stepcast_scheduler::ids::{JobId, TeamId};
use stepcast_scheduler::model::{
    Budget, Inventory, Job, JobState, Period, TeamName, TeamRules, TrainerKind,
};
use stepcast_scheduler::outlook::Whom;
use stepcast_scheduler::what_if::{WhatIf, joins, what_if};
use stepcast_scheduler::{Command, State};
use tonic::Status;

use super::ahead;
use super::changes::{mixed, paths};
use super::jobs::Jobs;
use crate::access::{Caller, Permission, authorise};
use crate::context::Context;
use crate::freshness::Freshness;
use crate::{convert, names, status};

/// Jobs in one answer.
const JOBS_MAX: usize = 200;

/// Changes of one kind in one question.
const CHANGES_MAX: usize = 32;

/// Workers of one kind that may be supposed: many more than anybody adds in one day.
const WORKERS_MAX: u32 = 1_000;

impl Jobs {
    /// When jobs start and are done, as it is and if something were different.
    pub(crate) async fn what_if(
        &self,
        caller: &Caller,
        request: v1::WhatIfRequest,
        freshness: Freshness,
    ) -> Result<v1::WhatIfResponse, Status> {
        check(caller, &request)?;
        let fresh = freshness.await_at(&self.context.handle).await;
        fresh.map_err(status::read)?;
        let turn = self.looks.enter(caller.user).await?;
        let (jobs, caller) = (self.clone(), caller.clone());
        let answer = turn.aside(move || jobs.supposed(&caller, request));
        answer
            .await
            .map_err(|_stopped| status::internal("WHAT_IF_FAILED", "the answer was not finished"))?
    }

    /// The answer by the state as it is now. The whole queue is gone through: on a copy, so that the log does not wait.
    fn supposed(
        &self,
        caller: &Caller,
        request: v1::WhatIfRequest,
    ) -> Result<v1::WhatIfResponse, Status> {
        let Context {
            handle, forecasts, ..
        } = &self.context;
        let state = handle.read_stale(State::clone);
        let (now_ms, measured) = (handle.now_ms(), handle.measured(forecasts.clone()));
        let (jobs, left_out) = asked_about(caller, &state, &request.jobs)?;
        let commands = self.commands(caller, &state, request, now_ms)?;
        let whom = Whom::These(&jobs);
        let found = what_if(&state, &measured, now_ms, &commands, whom, &ahead::spent(2));
        let found = found.map_err(|impossible| status::rejection(impossible.source))?;
        Ok(v1::WhatIfResponse {
            jobs: told(&found, &jobs, &state),
            left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
        })
    }

    /// What would be done for it to be so.
    fn commands(
        &self,
        caller: &Caller,
        state: &State,
        request: v1::WhatIfRequest,
        now_ms: u64,
    ) -> Result<Vec<Command>, Status> {
        let mut commands = Vec::new();
        // What earlier changes of the same question have made of a team and of a job: each begins with that.
        let mut rules_so_far = BTreeMap::new();
        let mut jobs_so_far: BTreeMap<JobId, Job> = BTreeMap::new();
        let mut added = 0;
        for (index, workers) in request.add_workers.into_iter().enumerate() {
            let field = format!("add_workers[{index}]");
            let count = workers.count.max(1);
            added += count.min(WORKERS_MAX + 1);
            if added > WORKERS_MAX {
                let what = format!("no more than {WORKERS_MAX} workers can be supposed");
                return Err(status::bad_field(&field, what));
            }
            let inventory = inventory(&field, state, workers)?;
            // Those before are not there yet, so each kind begins behind them.
            let all = joins(state, &inventory, added as usize);
            let first = all.len() - 2 * count as usize;
            commands.extend(all.into_iter().skip(first));
        }
        for (index, name) in request.remove_workers.iter().enumerate() {
            let worker = names::worker(&format!("remove_workers[{index}]"), name)?;
            if state.worker(worker).is_none() {
                return Err(status::not_found("workers", "a worker", name));
            }
            commands.push(Command::DrainWorker {
                worker,
                stop_running: true,
            });
        }
        for (index, name) in request.cancel_jobs.iter().enumerate() {
            let job = names::job(&format!("cancel_jobs[{index}]"), name)?;
            seen(caller, state, job, name)?;
            commands.push(Command::CancelJob { job });
        }
        for team in request.teams {
            let (name, rules) = set_team(state, &team, &rules_so_far)?;
            rules_so_far.insert(name.clone(), rules);
            commands.push(Command::SetTeam { name, rules });
        }
        for (index, asked) in request.wishes.into_iter().enumerate() {
            let id = names::job(&format!("wishes[{index}].job"), &asked.job)?;
            let mut job = match jobs_so_far.remove(&id) {
                Some(job) => job,
                None => seen(caller, state, id, &asked.job)?.into_owned(),
            };
            let told = convert::job(&job, state, now_ms).wishes.unwrap_or_default();
            let wishes = asked.wishes.unwrap_or_default();
            let wishes = mixed(told, wishes, &paths(asked.update_mask)?);
            let team = team(state, &wishes.team)?;
            let spec = self.asked(&job.spec, wishes, team)?;
            self.check_deadline(&job.spec, &spec)?;
            job.spec = spec.clone();
            jobs_so_far.insert(id, job);
            commands.push(Command::UpdateJob {
                job: id,
                spec: Box::new(spec),
                seq: None,
            });
        }
        if !request.aim.is_empty() || !request.preemption.is_empty() {
            let asked = v1::Policy {
                aim: request.aim,
                preemption: request.preemption,
                ..v1::Policy::default()
            };
            let policy = convert::changed_policy(state.policy(), &asked)?;
            commands.push(Command::SetPolicy { policy });
        }
        Ok(commands)
    }
}

/// Refuses more than fits into one question, and what the caller may not see the effect of.
fn check(caller: &Caller, request: &v1::WhatIfRequest) -> Result<(), Status> {
    let lists = [
        ("jobs", request.jobs.len(), JOBS_MAX),
        ("add_workers", request.add_workers.len(), CHANGES_MAX),
        ("remove_workers", request.remove_workers.len(), JOBS_MAX),
        ("wishes", request.wishes.len(), CHANGES_MAX),
        ("cancel_jobs", request.cancel_jobs.len(), JOBS_MAX),
        ("teams", request.teams.len(), CHANGES_MAX),
    ];
    if let Some((field, _, most)) = lists.iter().find(|(_, count, most)| count > most) {
        let what = format!("no more than {most} fit into one question");
        return Err(status::bad_field(field, what));
    }
    if request.teams.is_empty() && request.aim.is_empty() && request.preemption.is_empty() {
        return Ok(());
    }
    authorise(caller, Permission::ReadCluster)
}

/// A job that the caller sees.
fn seen<'a>(
    caller: &Caller,
    state: &'a State,
    id: JobId,
    name: &str,
) -> Result<std::borrow::Cow<'a, Job>, Status> {
    let job = state.job(id).filter(|job| caller.sees(job));
    job.ok_or_else(|| status::not_found("jobs", "a job", name))
}

/// The team with this name; the default one if there is no name.
fn team(state: &State, name: &str) -> Result<TeamId, Status> {
    if name.is_empty() {
        return Ok(TeamId::DEFAULT);
    }
    let known = names::team("wishes.team", name)?;
    let team = state.team_named(&known).map(|team| team.id);
    team.ok_or_else(|| status::not_found("teams", "a team", &names::of_team(&known)))
}

/// Whose times are wanted, and how many more there are.
fn asked_about(
    caller: &Caller,
    state: &State,
    asked: &[String],
) -> Result<(Vec<JobId>, usize), Status> {
    if !asked.is_empty() {
        let jobs = asked.iter().enumerate().map(|(index, name)| {
            let id = names::job(&format!("jobs[{index}]"), name)?;
            seen(caller, state, id, name).map(|_| id)
        });
        return Ok((jobs.collect::<Result<_, _>>()?, 0));
    }
    let waiting = state.pending();
    let leases = state.leases();
    let running = leases.filter_map(|lease| state.open_job(lease.job));
    let all = waiting.chain(running).filter(|job| caller.sees(job));
    let mut jobs: Vec<JobId> = all.map(|job| job.id).collect();
    let left_out = jobs.len().saturating_sub(JOBS_MAX);
    jobs.truncate(JOBS_MAX);
    Ok((jobs, left_out))
}

/// What supposed workers offer.
fn inventory(
    field: &str,
    state: &State,
    workers: v1::SupposedWorkers,
) -> Result<Inventory, Status> {
    let gpu: GpuModel = workers.gpu.parse().map_err(|error| {
        let what = format!(
            "{error}: {}; {}",
            status::shown(&workers.gpu),
            convert::written_instead(&workers.gpu)
        );
        status::bad_field(&format!("{field}.gpu"), what)
    })?;
    let gpus = workers.gpus.max(1);
    let trainer = if gpu.is_replay() {
        TrainerKind::Replay
    } else {
        TrainerKind::SimpleTuner
    };
    let least = || {
        let same = state.present_workers();
        let same = same.filter(|worker| worker.inventory.gpus.contains(&gpu));
        same.filter_map(|worker| worker.price_per_gpu_hour(gpu))
            .min()
    };
    // More than a worker can have is refused by the state; no more than that is made for it.
    let most = stepcast_scheduler::model::limits::GPUS_PER_WORKER_MAX + 1;
    Ok(Inventory {
        gpus: vec![gpu; (gpus as usize).min(most)],
        trainers: [trainer].into(),
        labels: convert::labels(&format!("{field}.labels"), workers.labels)?,
        price_per_gpu_hour: workers
            .price_per_gpu_hour_usd_micros
            .map(UsdMicros)
            .or_else(least),
        // Nobody would be asked to reach them, so they may take part in gangs like those that others reach.
        address: (state.format() >= 3)
            .then(|| "supposed:29500".parse().ok())
            .flatten(),
        outputs: None,
    })
}

/// A team with other limits; what is not given stays as it is, or as earlier changes have it.
fn set_team(
    state: &State,
    asked: &v1::SupposedTeam,
    so_far: &BTreeMap<TeamName, TeamRules>,
) -> Result<(TeamName, TeamRules), Status> {
    let name = names::team("teams.name", &asked.name)?;
    let team = state
        .team_named(&name)
        .ok_or_else(|| status::not_found("teams", "a team", &names::of_team(&name)))?;
    let before = so_far.get(&name).copied().unwrap_or(team.rules);
    let weight = match asked.weight {
        None => before.weight,
        Some(weight) => u32::try_from(weight).map_err(|_| {
            status::bad_field(
                "teams.weight",
                "a weight is from 1 to 10,000, and never negative",
            )
        })?,
    };
    let mut rules = TeamRules { weight, ..before };
    if asked.no_limits {
        (rules.gpu_quota, rules.budget) = (None, None);
    }
    rules.gpu_quota = asked.gpu_quota.or(rules.gpu_quota);
    if let Some(micros) = asked.budget_usd_micros {
        let period = rules.budget.map_or(Period::Once, |budget| budget.period);
        rules.budget = Some(Budget {
            amount: UsdMicros(micros),
            period,
        });
    }
    rules
        .check()
        .map_err(|why| status::bad_field("teams", why))?;
    Ok((name, rules))
}

/// How it stands and how it would, for each of the jobs.
fn told(found: &WhatIf, jobs: &[JobId], state: &State) -> Vec<v1::JobTimes> {
    let known = jobs.iter().filter_map(|id| state.job(*id));
    let times = known.map(|job| {
        let title = job.spec.name.as_ref().map(ToString::to_string);
        let after = convert::outlook(&found.after, job.id, &found.changed);
        v1::JobTimes {
            name: names::of_job(job.id),
            title: title.unwrap_or_else(|| job.spec.workload.recipe.title()),
            state: convert::job_state(job.state).into(),
            before: convert::outlook(&found.before, job.id, state),
            after: after.filter(|_| job.state != JobState::Cancelling),
        }
    });
    times.collect()
}
