//! When jobs are said to start and to be done.

use std::cell::Cell;

use proptest::prelude::*;
use stepcast_records::{Hardware, UsdMicros};
use stepcast_scheduler::ids::{InstanceId, JobId, TokenHash};
use stepcast_scheduler::model::{
    Attempt, Budget, Job, JobSpec, JobState, Outcome, Period, TeamRules,
};
use stepcast_scheduler::outlook::{Outlook, WORLDS, Whom, outlook};
use stepcast_scheduler::placement::{Forecast, ForecastSource, explain};
use stepcast_scheduler::{Command, Reply, codec};

use crate::drawn::{Offer, inventory, label, staging, team_name};
use crate::history::{History, steps};
use crate::support::{planned, workload};

/// What is expected of these jobs, with all the time in the world.
fn expected(history: &History, whom: Whom<'_>) -> Outlook {
    outlook(
        &history.state,
        &history.forecast,
        history.now_ms,
        whom,
        &|| 0.0,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nine_in_ten_is_never_earlier_than_half_and_nothing_is_before_now(steps in steps(60)) {
        let history = History::of(&steps);
        let (state, now_ms) = (&history.state, history.now_ms);
        let all = expected(&history, Whom::All);
        prop_assert_eq!(all.jobs.len(), state.pending_count() + state.leases().count());
        prop_assert_eq!(all.worlds, WORLDS[0]);
        prop_assert_eq!(&all, &expected(&history, Whom::All));
        for (job, expected) in all.jobs {
            let runs = state.open_job(job).is_some_and(|job| job.state != JobState::Pending);
            prop_assert!(!runs || expected.start.p50_ms.is_none());
            for times in [expected.start, expected.finish] {
                prop_assert!(times.p50_ms.is_none_or(|ms| ms >= now_ms));
                prop_assert!(times.p90_ms.is_none_or(|late| times.p50_ms.is_some_and(|ms| ms <= late)));
            }
            let (start, finish) = (expected.start.p50_ms, expected.finish.p50_ms);
            prop_assert!(finish.is_none() || runs || start.is_some_and(|start| start <= finish.unwrap_or(0)));
        }
    }

    /// To ask for a few is quicker and says the same of them.
    #[test]
    fn some_are_told_what_all_are(steps in steps(60), every in 1..4_usize) {
        let history = History::of(&steps);
        let all = expected(&history, Whom::All);
        let some: Vec<JobId> = all.jobs.keys().copied().step_by(every).collect();
        let told = expected(&history, Whom::These(&some));
        prop_assert_eq!(told.jobs.len(), some.len());
        for (job, expected) in told.jobs {
            prop_assert_eq!(Some(&expected), all.jobs.get(&job), "{}", job);
        }
    }
}

/// Two workers, and jobs that wait.
fn some_history() -> History {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let histories = (0..).map(|_| {
        let tree = steps(60).new_tree(&mut runner).expect("steps");
        History::of(&tree.current())
    });
    let waits = |history: &History| history.state.pending_count() > 2;
    let mut waiting = histories.filter(waits);
    waiting.next().expect("histories go on for ever")
}

#[test]
fn less_time_means_fewer_worlds_and_no_time_means_nothing() {
    let history = some_history();
    let (state, forecast) = (&history.state, &history.forecast);
    let with = |spent: &dyn Fn() -> f64| outlook(state, forecast, history.now_ms, Whom::All, spent);
    assert_eq!(with(&|| 1.0), Outlook::default());
    let whole = Cell::new(0.0);
    _ = with(&|| {
        whole.set(whole.get() + 1.0);
        0.0
    });
    let one = whole.get() / 17.0;
    let mut found = Vec::new();
    for room in [40.0, 12.0, 6.5, 1.7] {
        let asked = Cell::new(0.0);
        let told = with(&|| {
            asked.set(asked.get() + 1.0);
            asked.get() / (room * one)
        });
        found.push(told.worlds);
        let late = |times: stepcast_scheduler::outlook::Times| times.p90_ms.is_some();
        let any = told
            .jobs
            .values()
            .any(|job| late(job.start) || late(job.finish));
        assert!(told.worlds > 1 || !any, "one world has no ninth decile");
    }
    // Worlds differ in how long they take, so it is only known that there are fewer and fewer.
    assert!(found.is_sorted_by(|a, b| a >= b), "{found:?}");
    assert_eq!((found[0], found[3] < 4), (16, true), "{found:?}");
}

/// A worker with one GPU.
fn register(history: &mut History) {
    let version = codec::VERSION;
    history.propose(Command::Barrier { version }, None);
    join(history, 0, None);
}

/// One more worker with one GPU at so many millionths of a dollar an hour, which others reach.
fn join(history: &mut History, number: u8, price: Option<u64>) {
    let (name, hash) = (label(number), TokenHash([number; 32]));
    history.propose(Command::CreateWorkerToken { name, hash }, None);
    let offer = Offer {
        gpus: vec!["h100"],
        replay: false,
        price,
        label: false,
        reached: true,
    };
    let register = Command::RegisterWorker {
        token_hash: hash,
        instance: InstanceId([0; 16]),
        inventory: inventory(&offer, codec::VERSION),
    };
    history.propose(register, None);
}

#[test]
fn nobody_is_told_of_a_start_after_the_longest_wait() {
    let mut history = History::new();
    // Forty days: longer than anything waits, and not as long as a world is followed.
    let hardware = "h100".parse().expect("a hardware");
    history.forecast.0.insert(hardware, 40 * 24 * 60);
    register(&mut history);
    let mut submit = |number| {
        let spec = Box::new(JobSpec::new(workload(), staging(number)));
        let applied = history.propose(Command::SubmitJob { spec }, None);
        match applied.reply {
            Ok(Reply::JobSubmitted { job }) => job,
            other => panic!("{other:?}"),
        }
    };
    let (runs, waits) = (submit(1), submit(2));
    let placements = planned(&history.state, &history.forecast, history.now_ms);
    history.propose(Command::Place { placements }, None);
    let told = expected(&history, Whom::All);
    assert!(told.jobs[&runs].finish.p50_ms.is_some());
    assert_eq!(told.jobs[&waits].start.p50_ms, None);
}

/// Nothing is known of such runs, but of one that runs what is left.
struct Measured(JobId);

impl ForecastSource for Measured {
    fn forecast(&self, _: &JobSpec, _: Hardware) -> Option<Forecast> {
        None
    }

    fn left(&self, job: &Job, _: &Attempt, _: u64) -> Option<Forecast> {
        (job.id == self.0).then_some(Forecast {
            run_ms_p50: 600_000,
            run_ms_p90: 900_000,
        })
    }
}

#[test]
fn what_a_run_has_shown_tells_when_it_ends_where_nothing_is_known_of_such_runs() {
    let mut history = History::new();
    register(&mut history);
    let jobs = [1, 2].map(|number| {
        let spec = Box::new(JobSpec::new(workload(), staging(number)));
        match history.propose(Command::SubmitJob { spec }, None).reply {
            Ok(Reply::JobSubmitted { job }) => job,
            other => panic!("{other:?}"),
        }
    });
    let [runs, waits] = jobs;
    let placements = planned(&history.state, &history.forecast, history.now_ms);
    history.propose(Command::Place { placements }, None);
    let attempt = history.state.open_job(runs).and_then(Job::live_attempt);
    let epoch = attempt.expect("it runs").epoch;
    history.propose(Command::StartAttempt { job: runs, epoch }, None);
    let (state, now_ms) = (&history.state, history.now_ms);
    let told = outlook(state, &Measured(runs), now_ms, Whom::All, &|| 0.0);
    let done = told.jobs[&runs].finish;
    // The middle of sixteen worlds, and the ninth of ten.
    let half_ms = done.p50_ms.expect("its end is known") - now_ms;
    let late_ms = done.p90_ms.expect("its end is known") - now_ms;
    assert!((500_000..=600_000).contains(&half_ms), "{half_ms}");
    assert!((700_000..=1_000_000).contains(&late_ms), "{late_ms}");
    assert_eq!(told.jobs[&waits].start, done);
    // Nothing is known of the one behind it, and it has shown nothing yet.
    assert_eq!(told.jobs[&waits].finish.p50_ms, None);
}

/// Of what is in the way, `why` says what is left by how far it has come, as its first line does, and not what was expected
/// when it was placed.
#[test]
fn what_is_left_of_a_run_in_the_way_is_what_it_has_shown() {
    let hardware = "h100".parse().expect("a hardware");
    for expected_minutes in [1, 1_000] {
        let mut history = History::new();
        history.forecast.0.insert(hardware, expected_minutes);
        register(&mut history);
        let [runs, waits] = [1, 2].map(|number| {
            let spec = Box::new(JobSpec::new(workload(), staging(number)));
            match history.propose(Command::SubmitJob { spec }, None).reply {
                Ok(Reply::JobSubmitted { job }) => job,
                other => panic!("{other:?}"),
            }
        });
        let placements = planned(&history.state, &history.forecast, history.now_ms);
        history.propose(Command::Place { placements }, None);
        history.now_ms += 120_000;
        let told = |source: &dyn ForecastSource| {
            let why = explain(&history.state, source, waits, history.now_ms).expect("it is there");
            why.lines[0].detail.clone()
        };
        let left = "~10 minutes more";
        assert!(told(&Measured(runs)).starts_with(&format!("{runs} ({left})")));
        let placed = told(&history.forecast);
        assert!(!placed.contains(left), "{placed}");
    }
}

/// What is cancelled says nothing of others any more: they are told the same before and after it has ended.
#[test]
fn what_is_being_cancelled_tells_nothing_of_others() {
    let mut history = History::new();
    for (hardware, minutes) in [("h100", 10), ("h100x2", 1_000)] {
        let hardware = hardware.parse().expect("a hardware");
        history.forecast.0.insert(hardware, minutes);
    }
    let version = codec::VERSION;
    history.propose(Command::Barrier { version }, None);
    let (name, hash) = (label(0), TokenHash([0; 32]));
    history.propose(Command::CreateWorkerToken { name, hash }, None);
    let offer = Offer {
        gpus: vec!["h100", "h100"],
        replay: false,
        price: None,
        label: false,
        reached: false,
    };
    let register = Command::RegisterWorker {
        token_hash: hash,
        instance: InstanceId([0; 16]),
        inventory: inventory(&offer, version),
    };
    history.propose(register, None);
    for number in 0..12 {
        let mut spec = JobSpec::new(workload(), staging(number));
        spec.gpu_count = if number == 0 { 2 } else { 1 };
        spec.priority = if number == 0 { 5 } else { 0 };
        let spec = Box::new(spec);
        history.propose(Command::SubmitJob { spec }, None);
    }
    let placements = planned(&history.state, &history.forecast, history.now_ms);
    let job = placements.first().expect("one starts").job;
    history.propose(Command::Place { placements }, None);
    let cancel = Command::CancelJob { job };
    history.propose(cancel, None).reply.expect("cancelled");
    let before = expected(&history, Whom::All);
    let cancelled = history.state.open_job(job).expect("it has not ended yet");
    let epoch = cancelled.live_attempt().expect("it runs").epoch;
    let outcome = Outcome::Cancelled;
    let (step, detail) = (0, String::new());
    let end = Command::EndAttempt {
        job,
        epoch,
        outcome,
        step,
        detail,
    };
    history.propose(end, None).reply.expect("ended");
    let after = expected(&history, Whom::All);
    assert!(after.jobs.len() == 11 && after.worlds == WORLDS[0]);
    for (job, times) in &after.jobs {
        assert_eq!(Some(times), before.jobs.get(job), "{job}");
    }
}

/// Whose end nobody knows is stopped by its team's budget every day and starts again, more often than attempts are kept.
#[test]
fn what_a_budget_stops_every_day_is_told_of_its_first_start() {
    for more_hosts in [0, 1] {
        let mut history = History::new();
        let version = codec::VERSION;
        history.propose(Command::Barrier { version }, None);
        for number in 0..2 {
            join(&mut history, number, Some(2_000_000));
        }
        let budget = Budget {
            amount: UsdMicros(5_000_000),
            period: Period::Day,
        };
        let name = team_name(1);
        let rules = TeamRules {
            budget: Some(budget),
            ..TeamRules::default()
        };
        history.propose(Command::SetTeam { name, rules }, None);
        let team = history.state.team_named(&team_name(1)).expect("a team").id;
        let mut spec = JobSpec::new(workload(), staging(1));
        spec.terms.team = team;
        spec.terms.more_hosts = more_hosts;
        let spec = Box::new(spec);
        let submitted = history.propose(Command::SubmitJob { spec }, None);
        let Ok(Reply::JobSubmitted { job }) = submitted.reply else {
            panic!("{submitted:?}");
        };
        let told = expected(&history, Whom::All);
        assert_eq!(told.jobs[&job].start.p90_ms, Some(history.now_ms));
    }
}
