//! A planner that has seen everything decides what one decides that has seen nothing, with few jobs and with crowds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use stepcast_records::Hardware;
use stepcast_records::simpletuner::Sampling;
use stepcast_scheduler::ids::StagingId;
use stepcast_scheduler::model::JobSpec;
use stepcast_scheduler::outlook::{Whom, outlook};
use stepcast_scheduler::placement::{Forecast, ForecastSource, Plan, Planner, explain, plan};
use stepcast_scheduler::policy::{Aim, Policy, Preemption};
use stepcast_scheduler::{Command, Reply, State};

use crate::drawn::Offer;
use crate::history::{History, Step, steps};
use crate::support::workload;

/// By stages, which is where a crowd is looked at in another way.
fn policy(aim: Aim) -> Policy {
    Policy {
        aim,
        preemption: Preemption::ForPriority,
        min_run_ms: 0,
        ..Policy::default()
    }
}

fn aims() -> impl Strategy<Value = Aim> {
    prop::sample::select(vec![
        Aim::Balanced,
        Aim::Makespan,
        Aim::ShortestRemaining,
        Aim::Cost,
    ])
}

fn fresh(state: &State, forecast: &dyn ForecastSource, now_ms: u64) -> Plan {
    Planner::default()
        .with_crowds_above(0)
        .plan(state, forecast, now_ms, usize::MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_was_seen_before_changes_no_plan(steps in steps(160), aim in prop::option::of(aims())) {
        let mut history = History::new();
        let (mut few, mut crowds) = (Planner::default(), Planner::default().with_crowds_above(0));
        for step in &steps {
            history.step(step);
            if let (Some(aim), 3..) = (aim, history.state.format()) {
                history.propose(Command::SetPolicy { policy: policy(aim) }, None);
            }
            let (state, forecast, now_ms) = (&history.state, &history.forecast, history.now_ms);
            let planned = few.plan(state, forecast, now_ms, usize::MAX);
            prop_assert_eq!(planned, plan(state, forecast, now_ms, usize::MAX));
            let planned = crowds.plan(state, forecast, now_ms, usize::MAX);
            prop_assert_eq!(planned, fresh(state, forecast, now_ms));
        }
    }

    #[test]
    fn a_crowd_leaves_nothing_free_that_somebody_could_have(steps in steps(160), aim in aims()) {
        let mut history = History::new();
        history.propose(Command::Barrier { version: stepcast_scheduler::codec::VERSION }, None);
        steps.iter().for_each(|step| _ = history.step(step));
        history.propose(Command::SetPolicy { policy: policy(aim) }, None);
        let placements = fresh(&history.state, &history.forecast, history.now_ms).placements;
        let applied = history.propose(Command::Place { placements }, None);
        let Ok(Reply::Placed { outcomes }) = applied.reply else { panic!("a plan is refused") };
        prop_assert!(outcomes.iter().all(Result::is_ok), "what is planned is placed: {outcomes:?}");
        let (state, forecast, now_ms) = (&history.state, &history.forecast, history.now_ms);
        let again = fresh(state, forecast, now_ms).placements;
        prop_assert!(again.is_empty(), "it would have started with the first look: {again:?}");
        // Which GPUs are kept for whom may differ; where none are, one by one finds nothing either.
        let young = |job: &stepcast_scheduler::model::Job| job.queued_ms.max(job.not_before_ms) + 900_000 > now_ms;
        if state.pending().all(|job| young(job) && !job.has_lost_its_worker()) {
            let left = plan(state, forecast, now_ms, usize::MAX).placements;
            prop_assert!(left.is_empty(), "one by one somebody has found something: {left:?}");
        }
    }
}

/// A cluster with two hosts of one GPU, and so many jobs that wait.
fn two_hosts(jobs: u8) -> History {
    let mut history = History::new();
    history.step(&Step::Raise);
    for token in 0..2 {
        let offer = Offer {
            gpus: vec!["h100"],
            replay: false,
            price: None,
            label: false,
            reached: false,
        };
        let instance = token;
        history.step(&Step::Token(token));
        history.step(&Step::Register {
            token,
            instance,
            offer,
        });
    }
    for number in 0..jobs {
        let spec = Box::new(JobSpec::new(workload(), StagingId([number; 16])));
        history.propose(Command::SubmitJob { spec }, None);
    }
    history
}

/// What one absurd submission is expected to take holds nobody else up, neither while it waits nor when it runs.
#[test]
fn jobs_of_any_length_are_planned() {
    let hardware = "h100".parse().expect("a hardware");
    for minutes in [1, 1_000_000_000, 10_000_000_000, 100_000_000_000_000] {
        let mut history = two_hosts(3);
        history.forecast.0.insert(hardware, minutes);
        let plans = |history: &mut History, policy| {
            history.propose(Command::SetPolicy { policy }, None);
            let (state, forecast, now_ms) = (&history.state, &history.forecast, history.now_ms);
            let one_by_one = plan(state, forecast, now_ms, 256);
            [one_by_one, fresh(state, forecast, now_ms)]
        };
        for aim in Aim::ALL {
            for plan in plans(&mut history, policy(aim)) {
                assert_eq!(plan.placements.len(), 2, "{minutes} {aim}");
            }
        }
        let [Plan { placements, .. }, _] = plans(&mut history, Policy::default());
        history.propose(Command::Place { placements }, None);
        for wait_ms in [1_000, 3_000_000_000] {
            history.step(&Step::Wait(wait_ms));
            let all = [
                Preemption::Never,
                Preemption::ForPriority,
                Preemption::Priced,
            ];
            for (aim, preemption) in Aim::ALL
                .into_iter()
                .flat_map(|aim| all.map(|all| (aim, all)))
            {
                let yielding = Policy {
                    preemption,
                    ..policy(aim)
                };
                for plan in plans(&mut history, yielding) {
                    assert!(
                        plan.placements.is_empty(),
                        "{minutes} {aim}: nothing is free"
                    );
                }
            }
            let (state, forecast, now_ms) = (&history.state, &history.forecast, history.now_ms);
            let waits = state.pending().next().expect("one waits").id;
            let why = explain(state, forecast, waits, now_ms).expect("it waits");
            assert_eq!(why.placement, None);
            let _ = outlook(state, forecast, now_ms, Whom::All, &|| 0.0);
        }
    }
}

/// Forecasts that fail once.
struct Failing<'a>(&'a dyn ForecastSource, AtomicBool);

impl ForecastSource for Failing<'_> {
    fn version(&self) -> Option<u64> {
        self.0.version()
    }

    fn forecast(&self, spec: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        assert!(!self.1.swap(false, Ordering::Relaxed), "as it should");
        self.0.forecast(spec, hardware)
    }
}

#[test]
fn a_look_that_fails_leaves_no_planner_that_knows_a_part() {
    for mut planner in [Planner::default(), Planner::default().with_crowds_above(0)] {
        let mut history = two_hosts(0);
        let first = planner.plan(&history.state, &history.forecast, history.now_ms, 256);
        assert!(first.is_empty());
        let spec = Box::new(JobSpec::new(workload(), StagingId([1; 16])));
        history.propose(Command::SubmitJob { spec }, None);
        let (state, now_ms) = (&history.state, history.now_ms);
        let forecast = Failing(&history.forecast, AtomicBool::new(true));
        let mut look = || planner.plan(state, &forecast, now_ms, 256);
        assert!(catch_unwind(AssertUnwindSafe(&mut look)).is_err());
        assert_eq!(look(), plan(state, &history.forecast, now_ms, 256));
        assert!(!look().placements.is_empty());
    }
}

/// Two jobs that differ in nothing but how their data sets are drawn from, of which one takes eight times as long.
#[test]
fn jobs_that_are_shared_out_otherwise_are_forecast_by_themselves() {
    struct BySampling;
    impl ForecastSource for BySampling {
        fn version(&self) -> Option<u64> {
            Some(0)
        }
        fn forecast(&self, spec: &JobSpec, _: Hardware) -> Option<Forecast> {
            let is_uniform = spec.workload.sharing.sampling == Sampling::Uniform;
            let run_ms = if is_uniform { 8_000_000 } else { 1_000_000 };
            Some(Forecast {
                run_ms_p50: run_ms,
                run_ms_p90: run_ms,
            })
        }
    }
    let mut history = two_hosts(1);
    let mut spec = Box::new(JobSpec::new(workload(), StagingId([7; 16])));
    spec.workload.sharing.sampling = Sampling::Uniform;
    history.propose(Command::SubmitJob { spec }, None);
    assert_eq!(history.state.line_count(), 2);
    for mut planner in [Planner::default(), Planner::default().with_crowds_above(0)] {
        let plan = planner.plan(&history.state, &BySampling, history.now_ms, 256);
        let mut times: Vec<_> = plan
            .placements
            .iter()
            .map(|one| one.note.run_ms_p90)
            .collect();
        times.sort_unstable();
        assert_eq!(times, [Some(1_000_000), Some(8_000_000)]);
    }
}

/// Nothing else about them is new.
#[test]
fn workers_that_say_where_they_are_reached_take_part_in_gangs_from_then_on() {
    let mut history = History::new();
    history.step(&Step::Raise);
    let join = |history: &mut History, reached| {
        for token in 0..2 {
            let offer = Offer {
                gpus: vec!["h100"],
                replay: false,
                price: None,
                label: false,
                reached,
            };
            let instance = token;
            history.step(&Step::Token(token));
            history.step(&Step::Register {
                token,
                instance,
                offer,
            });
        }
    };
    let mut spec = Box::new(JobSpec::new(workload(), StagingId([7; 16])));
    spec.terms.more_hosts = 1;
    history.propose(Command::SubmitJob { spec }, None);
    let (mut few, mut crowds) = (Planner::default(), Planner::default().with_crowds_above(0));
    for (reached, started) in [(false, 0), (true, 1), (false, 0)] {
        join(&mut history, reached);
        for planner in [&mut few, &mut crowds] {
            let (state, forecast, now_ms) = (&history.state, &history.forecast, history.now_ms);
            let placements = planner.plan(state, forecast, now_ms, usize::MAX).placements;
            assert_eq!(placements.len(), started, "{reached}");
        }
    }
}
