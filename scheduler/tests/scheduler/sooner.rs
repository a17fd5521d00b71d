//! What is said to start a job starts it, and how often nothing is said although something would.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use stepcast_records::{Hardware, UsdMicros};
use stepcast_scheduler::ids::{InstanceId, JobId, StagingId, TokenHash};
use stepcast_scheduler::model::{
    Budget, Inventory, Job, JobSpec, JobState, Label, Outcome, Period, TeamName, TeamRules,
    TrainerKind,
};
use stepcast_scheduler::placement::explain;
use stepcast_scheduler::sooner::{Change, sooner};
use stepcast_scheduler::{Command, Envelope, Reply, State, codec};

use crate::history::{History, steps};
use crate::support::{planned, workload};

/// Waiting jobs of one state that are asked about.
const JOBS: usize = 4;

/// What came of it.
#[derive(Debug, Default)]
struct Tally {
    /// Waiting jobs that do not start by themselves.
    held_up: usize,
    /// Those of them for which something is suggested.
    helped: usize,
    suggestions: usize,
    started: usize,
    /// Those for which nothing is suggested although one simple change would do.
    missed: usize,
}

/// Applies commands to a copy of a state; `None` if one is refused.
fn changed(state: &State, now_ms: u64, commands: &[Command]) -> Option<State> {
    let mut changed = state.clone();
    for command in commands {
        apply(&mut changed, now_ms, command.clone())?;
    }
    Some(changed)
}

fn apply(state: &mut State, now_ms: u64, command: Command) -> Option<Reply> {
    let index = state.applied_index() + 1;
    let applied = state.apply(index, &Envelope::new(now_ms, None, command));
    applied.reply.ok()
}

/// What an update makes of a job here: what it is expected to cost is another sum with other hardware, and eight GPUs are
/// refused.
fn revise(was: &JobSpec, mut asked: JobSpec) -> Option<JobSpec> {
    let hardware = |spec: &JobSpec| (spec.allow.clone(), spec.gpus());
    if asked.gpus() == 8 {
        return None;
    }
    if hardware(was) != hardware(&asked) {
        let models = asked.allow.iter().map(|gpu| u64::from(gpu.memory_gib()));
        let micros = models.sum::<u64>() * u64::from(asked.gpus()) * 100_000;
        asked.terms.expected_cost = Some(UsdMicros(micros));
    }
    Some(asked)
}

/// Whether a job runs after one look at the queue when these commands are sent as a person would send them.
fn starts_as_sent(history: &History, job: JobId, commands: &[Command]) -> bool {
    let was = history.state.job(job).expect("a job").spec.clone();
    let as_sent = |command: &Command| {
        let Command::UpdateJob { job, spec, seq } = command else {
            return Some(command.clone());
        };
        // Whoever sends it says nothing of what it is expected to cost.
        let mut spec = JobSpec::clone(spec);
        spec.terms.expected_cost = was.terms.expected_cost;
        Some(Command::UpdateJob {
            job: *job,
            spec: Box::new(revise(&was, spec)?),
            seq: *seq,
        })
    };
    let commands: Option<Vec<Command>> = commands.iter().map(as_sent).collect();
    commands.is_some_and(|commands| starts(history, job, &commands))
}

/// Whether a job runs after one look at the queue.
fn starts(history: &History, job: JobId, commands: &[Command]) -> bool {
    let now_ms = history.now_ms;
    let Some(mut state) = changed(&history.state, now_ms, commands) else {
        return false;
    };
    let placements = planned(&state, &history.forecast, now_ms);
    apply(&mut state, now_ms, Command::Place { placements });
    state
        .job(job)
        .is_some_and(|job| job.state == JobState::Running)
}

/// Every suggestion for some waiting jobs of a random state, applied to it, and one look at the queue.
fn look_at(history: &History, tally: &mut Tally) {
    let (state, now_ms) = (&history.state, history.now_ms);
    for job in state.pending().take(JOBS) {
        if explain(state, &history.forecast, job.id, now_ms)
            .is_none_or(|why| why.placement.is_some())
        {
            continue;
        }
        tally.held_up += 1;
        let found = sooner(state, &history.forecast, &revise, job.id, now_ms);
        tally.suggestions += found.len();
        for suggestion in &found {
            assert!(!suggestion.changes.is_empty() && !suggestion.commands.is_empty());
            if starts_as_sent(history, job.id, &suggestion.commands) {
                tally.started += 1;
            }
        }
        if found.is_empty() {
            let would = simple(state, job)
                .into_iter()
                .find(|command| starts_as_sent(history, job.id, std::slice::from_ref(command)));
            tally.missed += usize::from(would.is_some());
        } else {
            tally.helped += 1;
        }
    }
}

/// The simple changes that there are: one wish less, the highest priority, a word, or a limit of a team.
fn simple(state: &State, job: &Job) -> Vec<Command> {
    let mut commands = vec![Command::ApproveJob {
        job: job.id,
        seq: None,
    }];
    let mut wish = |change: &dyn Fn(&mut JobSpec)| {
        let mut spec = job.spec.clone();
        change(&mut spec);
        commands.push(Command::UpdateJob {
            job: job.id,
            spec: Box::new(spec),
            seq: None,
        });
    };
    for worker in state.workers() {
        for gpu in &worker.inventory.gpus {
            wish(&|spec| spec.allow.push(*gpu));
        }
    }
    for count in Hardware::COUNTS {
        wish(&|spec| spec.gpu_count = count.min(spec.gpu_count));
    }
    wish(&|spec| spec.min_memory_gib = 0);
    wish(&|spec| spec.labels.clear());
    wish(&|spec| (spec.max_price_per_hour, spec.max_cost) = (None, None));
    wish(&|spec| (spec.terms.avoid, spec.terms.spread) = Default::default());
    wish(&|spec| spec.terms.not_before_ms = None);
    let teams: Vec<_> = job.teams().filter_map(|team| state.team(team)).collect();
    let most = teams.iter().map(|team| team.rules.priority_max).min();
    wish(&|spec| spec.priority = most.unwrap_or(10));
    for team in teams {
        let mut limit = |rules: TeamRules| {
            let name = team.name.clone();
            commands.push(Command::SetTeam { name, rules });
        };
        limit(TeamRules {
            gpu_quota: None,
            ..team.rules
        });
        let budget = Some(Budget {
            amount: UsdMicros(u64::MAX / 4),
            period: team
                .rules
                .budget
                .map_or(Period::Once, |budget| budget.period),
        });
        limit(TeamRules {
            budget: budget.filter(|_| team.rules.budget.is_some()),
            ..team.rules
        });
    }
    commands
}

#[test]
fn a_suggested_change_starts_the_job_and_few_are_missed() {
    look_at_many(250);
}

#[test]
#[ignore = "takes minutes: `cargo test -p stepcast-scheduler --test scheduler -- --ignored --nocapture suggested`"]
fn of_ten_thousand_states_suggested_changes_start_the_job() {
    look_at_many(10_000);
}

fn look_at_many(states: usize) {
    let mut runner = TestRunner::deterministic();
    let mut tally = Tally::default();
    for _ in 0..states {
        let drawn = steps(120).new_tree(&mut runner).expect("steps");
        look_at(&History::of(&drawn.current()), &mut tally);
    }
    println!("{states} states: {tally:?}");
    let Tally {
        held_up,
        helped,
        suggestions,
        started,
        missed,
    } = tally;
    // Not vacuous: there is something to suggest, and often enough.
    assert!(
        suggestions * 4 > states && helped * 8 > held_up,
        "{helped} of {held_up}"
    );
    assert!(
        started * 1_000 >= suggestions * 995,
        "{started} of {suggestions}"
    );
    assert!(missed * 100 <= held_up, "{missed} of {held_up} are missed");
}

/// A job of a team that has to approve what costs more than $5, on a card that is not there, beside a free H100 on which it
/// takes half an hour at most.
fn beside_a_free_gpu(expected: u64) -> (History, JobId) {
    let mut history = History::new();
    let label: Label = "w".parse().expect("a label");
    let hash = TokenHash([1; 32]);
    let inventory = Inventory {
        gpus: vec!["h100".parse().expect("a GPU")],
        trainers: [TrainerKind::SimpleTuner].into(),
        price_per_gpu_hour: Some(UsdMicros(2_000_000)),
        labels: Default::default(),
        address: None,
        outputs: None,
    };
    let rules = TeamRules {
        approve_above: Some(UsdMicros(5_000_000)),
        ..TeamRules::default()
    };
    let mut spec = JobSpec::new(workload(), StagingId([7; 16]));
    spec.allow = vec!["rtx4090".parse().expect("a GPU")];
    spec.terms.expected_cost = Some(UsdMicros(expected));
    let name: TeamName = "t".parse().expect("a name");
    for command in [
        Command::Barrier {
            version: codec::VERSION,
        },
        Command::CreateWorkerToken { name: label, hash },
        Command::RegisterWorker {
            token_hash: hash,
            instance: InstanceId([1; 16]),
            inventory,
        },
        Command::SetTeam { name, rules },
    ] {
        history.propose(command, None).reply.expect("taken");
    }
    spec.terms.team = history
        .state
        .team_named(&"t".parse().expect("a name"))
        .expect("a team")
        .id;
    let spec = Box::new(spec);
    let submitted = history.propose(Command::SubmitJob { spec }, None);
    let Ok(Reply::JobSubmitted { job }) = submitted.reply else {
        panic!("{submitted:?}");
    };
    (history, job)
}

fn said(history: &History, job: JobId, costs: u64) -> Vec<String> {
    let revise = |_: &JobSpec, mut asked: JobSpec| {
        asked.terms.expected_cost = Some(UsdMicros(costs));
        Some(asked)
    };
    let forecast = &history.forecast;
    let found = sooner(&history.state, forecast, &revise, job, history.now_ms);
    let changes = found.iter().map(|sooner| &sooner.changes);
    changes
        .map(|changes| {
            let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
            words.join(", ")
        })
        .collect()
}

#[test]
fn what_a_change_is_expected_to_cost_decides_whether_it_must_be_approved() {
    let (history, job) = beside_a_free_gpu(3_000_000);
    assert_eq!(said(&history, job, 4_000_000), ["allow H100"]);
    assert_eq!(
        said(&history, job, 6_000_000),
        ["allow H100, have its cost approved"]
    );
    let (history, job) = beside_a_free_gpu(9_000_000);
    assert_eq!(said(&history, job, 4_000_000), ["allow H100"]);
}

/// The budget that the dearer of two workers would need starts the job on the cheaper one, as the smaller one does.
#[test]
fn of_two_budgets_that_start_it_at_one_place_the_smaller_is_said() {
    let (mut history, job) = beside_a_free_gpu(3_000_000);
    history
        .forecast
        .0
        .insert("h100".parse().expect("a hardware"), 600);
    let (hash, dearer) = (TokenHash([2; 32]), UsdMicros(9_000_000));
    let mut spec = history.state.job(job).expect("a job").spec.clone();
    spec.allow.clear();
    let spent = Budget {
        amount: UsdMicros(10_000),
        period: Period::Once,
    };
    for command in [
        Command::CreateWorkerToken {
            name: "dear".parse().expect("a label"),
            hash,
        },
        Command::RegisterWorker {
            token_hash: hash,
            instance: InstanceId([2; 16]),
            inventory: Inventory {
                gpus: vec!["h100".parse().expect("a GPU")],
                trainers: [TrainerKind::SimpleTuner].into(),
                price_per_gpu_hour: Some(dearer),
                labels: Default::default(),
                address: None,
                outputs: None,
            },
        },
        Command::UpdateJob {
            job,
            spec: Box::new(spec),
            seq: None,
        },
        Command::SetTeam {
            name: "t".parse().expect("a name"),
            rules: TeamRules {
                budget: Some(spent),
                ..TeamRules::default()
            },
        },
    ] {
        history.propose(command, None).reply.expect("taken");
    }
    let said = said(&history, job, 3_000_000);
    let [one] = &said[..] else {
        panic!("{said:?}");
    };
    let dollars = one.strip_prefix("let team t spend $").expect(one);
    // Nine in ten such runs take 15 hours at most: at $2 an hour that is $30, at $9 it is $135.
    assert!(
        dollars.parse::<f64>().is_ok_and(|dollars| dollars < 40.0),
        "{one}"
    );
}

#[test]
fn a_change_that_would_be_refused_is_not_said() {
    let (history, job) = beside_a_free_gpu(3_000_000);
    let forecast = &history.forecast;
    let found = sooner(&history.state, forecast, &|_, _| None, job, history.now_ms);
    assert_eq!(found, []);
}

/// The money that a job is said to need is what is left of it, and not what all of it costs: with a cent less it waits.
#[test]
fn what_a_checkpoint_keeps_need_not_be_paid_for_again() {
    let (mut history, job) = beside_a_free_gpu(3_000_000);
    let hardware = "h100".parse().expect("a hardware");
    history.forecast.0.insert(hardware, 600);
    let mut spec = history.state.job(job).expect("a job").spec.clone();
    spec.allow.clear();
    let spec = Box::new(spec);
    let name: TeamName = "t".parse().expect("a name");
    let with = |micros| TeamRules {
        budget: Some(Budget {
            amount: UsdMicros(micros),
            period: Period::Once,
        }),
        ..TeamRules::default()
    };
    let mut tell = |command| history.propose(command, None).reply.expect("taken");
    tell(Command::UpdateJob {
        job,
        spec,
        seq: None,
    });
    let rules = with(100_000_000);
    tell(Command::SetTeam {
        name: name.clone(),
        rules,
    });
    let placements = planned(&history.state, &history.forecast, history.now_ms);
    history.propose(Command::Place { placements }, None);
    let running = history.state.job(job).expect("a job").into_owned();
    let attempt = running.live_attempt().expect("it runs");
    let (epoch, worker) = (attempt.epoch, attempt.worker);
    let outcome = Outcome::Cancelled;
    for command in [
        Command::Checkpoint {
            job,
            epoch,
            step: 90,
        },
        Command::DrainWorker {
            worker,
            stop_running: true,
        },
        Command::EndAttempt {
            job,
            epoch,
            outcome,
            step: 90,
            detail: String::new(),
        },
        Command::ResumeWorker { worker },
        Command::SetTeam {
            name: name.clone(),
            rules: with(1_000_000),
        },
    ] {
        history.propose(command, None).reply.expect("taken");
    }
    let keep = |_: &JobSpec, asked| Some(asked);
    let found = sooner(
        &history.state,
        &history.forecast,
        &keep,
        job,
        history.now_ms,
    );
    let [first] = &found[..] else {
        panic!("{found:?}");
    };
    let [Change::TeamBudget(_, UsdMicros(amount))] = first.changes[..] else {
        panic!("{first:?}");
    };
    let starts_with = |micros| {
        let (name, rules) = (name.clone(), with(micros));
        starts(&history, job, &[Command::SetTeam { name, rules }])
    };
    assert!(
        starts_with(amount) && !starts_with(amount - 10_000),
        "{amount}"
    );
}

#[test]
fn no_number_of_gpus_is_suggested_that_the_workload_cannot_have() {
    let mut spec = JobSpec::new(workload(), StagingId([0; 16]));
    spec.gpu_count = 8;
    assert_eq!(spec.fewer_gpus(7), Some(4));
    assert_eq!(spec.fewer_gpus(1), Some(1));
    spec.workload.context_parallel = 2;
    assert_eq!(spec.fewer_gpus(3), Some(2));
    assert_eq!(spec.fewer_gpus(1), None);
}
