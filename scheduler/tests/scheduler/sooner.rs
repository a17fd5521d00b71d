//! What is said to start a job starts it, and how often nothing is said although something would.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use stepcast_records::{Hardware, UsdMicros};
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::{Budget, Job, JobSpec, JobState, Period, TeamRules};
use stepcast_scheduler::placement::explain;
use stepcast_scheduler::sooner::sooner;
use stepcast_scheduler::{Command, Envelope, Reply, State};

use crate::history::{History, steps};
use crate::support::planned;

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
        let found = sooner(state, &history.forecast, job.id, now_ms);
        tally.suggestions += found.len();
        for suggestion in &found {
            assert!(!suggestion.changes.is_empty() && !suggestion.commands.is_empty());
            if starts(history, job.id, &suggestion.commands) {
                tally.started += 1;
            }
        }
        if found.is_empty() {
            let would = simple(state, job)
                .into_iter()
                .find(|command| starts(history, job.id, std::slice::from_ref(command)));
            tally.missed += usize::from(would.is_some());
        } else {
            tally.helped += 1;
        }
    }
}

/// The simple changes that there are: one wish less, the highest priority, a word, or a limit of a team.
fn simple(state: &State, job: &Job) -> Vec<Command> {
    let mut commands = vec![Command::ApproveJob { job: job.id }];
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
