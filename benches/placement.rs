//! How long one look at a long queue takes: 10,000 waiting jobs, 500 workers with 8 GPUs each.
//!
//! `cargo bench -p stepcast-benches --bench placement`
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::collections::BTreeMap;
use std::time::Instant;

use stepcast_records::{Hardware, UsdMicros};
use stepcast_scheduler::ids::{InstanceId, StagingId, TokenHash};
use stepcast_scheduler::model::{Inventory, JobSpec, Objective, TrainerKind};
use stepcast_scheduler::placement::{Forecast, ForecastSource, explain, plan};
use stepcast_scheduler::{Command, Envelope, State};

const JOBS: u64 = 10_000;
const WORKERS: u16 = 500;
const GPUS: [&str; 5] = ["rtx4090", "l40s", "a100-80", "h100", "h200"];
const OBJECTIVES: [Objective; 3] = [Objective::Cheapest, Objective::Fastest, Objective::Balanced];

/// An hour on everything, less on more.
struct Hours;

impl ForecastSource for Hours {
    fn forecast(&self, _: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        let run_ms_p50 = 3_600_000 / u64::from(hardware.count);
        Some(Forecast {
            run_ms_p50,
            run_ms_p90: run_ms_p50 * 3 / 2,
        })
    }

    fn version(&self) -> Option<u64> {
        Some(0)
    }
}

fn main() {
    measure("20 different needs", |number| wishes(number % 20));
    measure("as many budgets as jobs", |number| JobSpec {
        max_cost: Some(UsdMicros(5_000_000 + number)),
        ..wishes(number % 20)
    });
    measure("as many needs as jobs", |number| {
        let mut spec = wishes(number % 20);
        let label = |text: String| text.parse().expect("a label");
        spec.labels = BTreeMap::from([(
            label("site".to_owned()),
            label(format!("s{}", number % JOBS)),
        )]);
        spec
    });
}

fn measure(what: &str, spec: impl Fn(u64) -> JobSpec) {
    let mut state = State::new();
    let mut index = 0;
    let mut apply = |state: &mut State, command: Command| {
        index += 1;
        assert!(
            state
                .apply(index, &Envelope::new(index, None, command))
                .reply
                .is_ok()
        );
    };
    for number in 0..WORKERS {
        join(number, |command| apply(&mut state, command));
    }
    let submissions: Vec<Command> = (0..JOBS)
        .map(|number| {
            let staging = StagingId(u128::from(number).to_le_bytes());
            let spec = JobSpec {
                staging,
                ..spec(number)
            };
            Command::SubmitJob {
                spec: Box::new(spec),
            }
        })
        .collect();
    let begun = Instant::now();
    for command in submissions {
        apply(&mut state, command);
    }
    println!(
        "{what}: {:.0} submissions applied a second",
        JOBS as f64 / begun.elapsed().as_secs_f64()
    );
    // Later, so that every job that is passed has GPUs kept for it.
    let now_ms = state.newest_stamp_ms() + 3_600_000;
    println!(
        "  an idle cluster: {}",
        timed(|| plan(&state, &Hours, now_ms, 256).placements.len())
    );
    println!(
        "  all of it at once: {}",
        timed(|| plan(&state, &Hours, now_ms, usize::MAX).placements.len())
    );
    loop {
        let placements = plan(&state, &Hours, now_ms, 256).placements;
        if placements.is_empty() {
            break;
        }
        apply(&mut state, Command::Place { placements });
    }
    println!(
        "  a full cluster, {} waiting: {}",
        state.pending_count(),
        timed(|| plan(&state, &Hours, now_ms, 256).placements.len())
    );
    let last = state.pending().last().expect("a job waits").id;
    println!(
        "  why the last one waits: {}",
        timed(|| usize::from(explain(&state, &Hours, last, now_ms).is_some()))
    );
    let bytes = state.snapshot();
    println!(
        "  a snapshot of {} kB: {}",
        bytes.len() / 1_000,
        timed(|| state.snapshot().len())
    );
}

/// The best of five, and what came of it.
fn timed(mut run: impl FnMut() -> usize) -> String {
    let mut times = Vec::new();
    let mut count = 0;
    for _ in 0..5 {
        let begun = Instant::now();
        count = run();
        times.push(begun.elapsed());
    }
    format!(
        "{:.1} ms ({count})",
        times.iter().min().expect("a time").as_secs_f64() * 1e3
    )
}

fn join(number: u16, mut apply: impl FnMut(Command)) {
    let mut hash = [0; 32];
    hash[..2].copy_from_slice(&number.to_le_bytes());
    let gpu = GPUS[usize::from(number) % GPUS.len()]
        .parse()
        .expect("a GPU");
    let name = format!("host-{number}").parse().expect("a label");
    apply(Command::CreateWorkerToken {
        name,
        hash: TokenHash(hash),
    });
    apply(Command::RegisterWorker {
        token_hash: TokenHash(hash),
        instance: InstanceId([1; 16]),
        inventory: Inventory {
            gpus: vec![gpu; 8],
            trainers: [TrainerKind::SimpleTuner].into(),
            labels: BTreeMap::new(),
            price_per_gpu_hour: Some(UsdMicros(300_000 + 1_000 * u64::from(number))),
            address: None,
            outputs: None,
        },
    });
}

fn wishes(number: u64) -> JobSpec {
    let kind = usize::try_from(number).expect("a small number");
    JobSpec {
        gpu_count: Hardware::COUNTS[kind % 4],
        allow: GPUS
            .iter()
            .skip(kind % 5)
            .map(|gpu| gpu.parse().expect("a GPU"))
            .collect(),
        objective: OBJECTIVES[kind % 3],
        ..stepcast_benches::spec().expect("a recipe of the registry")
    }
}
