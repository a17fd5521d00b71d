//! A planner that finds out in portions asks for few forecasts in one look, and plans in the end what one plans that asks
//! for all of them at once.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use stepcast_records::Hardware;
use stepcast_records::simpletuner::Length;
use stepcast_scheduler::ids::{InstanceId, TokenHash};
use stepcast_scheduler::model::{Inventory, JobSpec, TrainerKind};
use stepcast_scheduler::placement::{Forecast, ForecastSource, Planner, Portion};
use stepcast_scheduler::policy::{Aim, Policy, Preemption};
use stepcast_scheduler::{Command, Reply};

use crate::drawn::staging;
use crate::history::{History, steps};
use crate::support::{Table, workload};

/// The models of the workers in these tests, at most.
const MODELS: usize = 8;

/// The table's minutes, of another length in each version, and how often somebody has asked for them.
struct Versions<'a> {
    table: &'a Table,
    version: u64,
    asked: Cell<usize>,
}

impl ForecastSource for Versions<'_> {
    fn version(&self) -> Option<u64> {
        Some(self.version)
    }

    fn forecast(&self, spec: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        self.asked.set(self.asked.get() + 1);
        let known = self.table.forecast(spec, hardware)?;
        // Which of two models is the faster one is another thing in each version.
        let longer = 1 + (self.version + u64::from(hardware.gpu.number())) % 5;
        Some(Forecast {
            run_ms_p50: known.run_ms_p50 * longer,
            run_ms_p90: known.run_ms_p90 * longer,
        })
    }
}

fn crowds(portion: Portion) -> Planner {
    Planner::in_portions(portion).with_crowds_above(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn portions_are_kept_and_come_to_the_same(
        steps in steps(160),
        new in 1..4_usize,
        again in 1..3_usize,
        aim in prop::sample::select(vec![Aim::Balanced, Aim::Makespan, Aim::ShortestRemaining, Aim::Cost]),
    ) {
        let portion = Portion { new, again };
        let mut history = History::new();
        let mut planner = crowds(portion);
        for (number, step) in steps.iter().enumerate() {
            history.step(step);
            if history.state.format() >= 3 {
                let policy = Policy { aim, preemption: Preemption::Never, ..Policy::default() };
                history.propose(Command::SetPolicy { policy }, None);
            }
            let table = history.forecast.clone();
            let version = number as u64 / 7;
            let forecast = Versions { table: &table, version, asked: Cell::new(0) };
            let planned = planner.plan(&history.state, &forecast, history.now_ms, usize::MAX);
            prop_assert!(forecast.asked.get() <= (new + again) * MODELS, "{}", forecast.asked.get());
            if number % 3 == 0 {
                let applied = history.propose(Command::Place { placements: planned.placements }, None);
                let Ok(Reply::Placed { outcomes }) = applied.reply else { panic!("a plan is refused") };
                prop_assert!(outcomes.iter().all(Result::is_ok), "what is planned is placed: {outcomes:?}");
            }
            if number % 13 == 0 {
                let (state, now_ms) = (&history.state, history.now_ms);
                let most = 2 + state.line_count() * 2;
                let mut looks = 0;
                let mut planned = planner.plan(state, &forecast, now_ms, usize::MAX);
                while planner.is_behind() {
                    looks += 1;
                    prop_assert!(looks <= most, "it is behind for ever");
                    planned = planner.plan(state, &forecast, now_ms, usize::MAX);
                }
                prop_assert_eq!(planned, crowds(Portion::ALL).plan(state, &forecast, now_ms, usize::MAX));
            }
        }
    }
}

/// Many different jobs, and forecasts that change: each look asks for a portion and no more, and nothing is asked twice.
#[test]
fn a_thousand_lines_are_asked_about_little_by_little() {
    const LINES: usize = 1_000;
    let portion = Portion { new: 64, again: 16 };
    let mut history = History::new();
    let version = stepcast_scheduler::codec::VERSION;
    history.propose(Command::Barrier { version }, None);
    let hosts = ["h100", "a100-80", "rtx4090"];
    let models = hosts.len();
    (0..)
        .zip(hosts)
        .for_each(|(host, gpu)| join(&mut history, host, gpu));
    (1..=LINES as u64).for_each(|number| submit(&mut history, number));
    assert_eq!(history.state.line_count(), LINES);
    let table = history.forecast.clone();
    let mut planner = crowds(portion);
    for version in 0..3 {
        let forecast = Versions {
            table: &table,
            version,
            asked: Cell::new(0),
        };
        let (mut looks, mut before) = (0, 0);
        loop {
            let (state, now_ms) = (&history.state, history.now_ms);
            let questions = planner.questions(state, &forecast, now_ms);
            let told: usize = questions.iter().map(|asked| asked.hardware.len()).sum();
            assert_eq!(forecast.asked.get(), before, "it is told and not asked");
            let _ = planner.plan(state, &forecast, now_ms, 0);
            let asked = forecast.asked.get();
            assert_eq!(asked - before, told, "what was told beforehand");
            assert!(asked - before <= (portion.new + portion.again) * models);
            (looks, before) = (looks + 1, asked);
            if !planner.is_behind() {
                break;
            }
        }
        assert_eq!(before, LINES * models, "each is asked about once");
        let part = if version == 0 {
            portion.new
        } else {
            portion.again
        };
        assert!(looks <= LINES.div_ceil(part) + 1, "{looks}");
        let again = forecast.asked.get();
        let _ = planner.plan(&history.state, &forecast, history.now_ms, 0);
        assert_eq!(forecast.asked.get(), again, "nothing is new");
    }
}

fn join(history: &mut History, host: u8, gpu: &str) {
    let token_hash = TokenHash([host; 32]);
    let name = format!("host-{host}").parse().expect("a label");
    let hash = token_hash;
    history.propose(Command::CreateWorkerToken { name, hash }, None);
    let inventory = Inventory {
        gpus: vec![gpu.parse().expect("a GPU"); 4],
        trainers: [TrainerKind::SimpleTuner].into(),
        labels: BTreeMap::new(),
        price_per_gpu_hour: None,
        address: None,
        outputs: None,
    };
    let instance = InstanceId([host; 16]);
    let joins = Command::RegisterWorker {
        token_hash,
        instance,
        inventory,
    };
    assert!(history.propose(joins, None).reply.is_ok());
}

/// Each of another length.
fn submit(history: &mut History, number: u64) {
    let mut workload = workload();
    workload.length = Length::Steps(100 + number);
    let spec = Box::new(JobSpec::new(workload, staging(number)));
    let submitted = history.propose(Command::SubmitJob { spec }, None);
    assert!(submitted.reply.is_ok());
}
