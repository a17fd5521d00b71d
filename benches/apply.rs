//! How many log entries a second the state takes, by command, and what a snapshot of it costs.
//!
//! `cargo bench -p stepcast-benches --bench apply -- [JOBS]`: the log costs its part beside this (`submit`).
#![expect(clippy::print_stdout, reason = "it is what a person runs it for")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::{Duration, Instant};

use stepcast_benches::{spec, wide};
use stepcast_records::{GpuModel, UsdMicros};
use stepcast_scheduler::ids::{InstanceId, RequestId, StagingId, TokenHash};
use stepcast_scheduler::model::{Inventory, JobSpec, Outcome, TrainerKind};
use stepcast_scheduler::placement::{self, NoForecast};
use stepcast_scheduler::{Command, Envelope, Reply, State, codec};

/// Workers with eight GPUs each.
const WORKERS: u8 = 100;

/// A state, where its log is, and how long each command took.
struct Bench {
    state: State,
    index: u64,
    took: BTreeMap<&'static str, (u64, Duration)>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let jobs: u64 = std::env::args()
        .skip(1)
        .find(|word| word != "--bench")
        .map_or(Ok(20_000), |text| text.parse())?;
    let mut bench = Bench {
        state: State::new(),
        index: 1,
        took: BTreeMap::new(),
    };
    bench.workers()?;
    let spec = spec().ok_or("the recipe is gone from the registry")?;
    for number in 0..jobs {
        let id = wide(number);
        let spec = JobSpec {
            staging: StagingId(id),
            ..spec.clone()
        };
        bench.apply(
            "submit",
            Command::SubmitJob {
                spec: Box::new(spec),
            },
            Some(RequestId(id)),
        )?;
    }
    bench.run_all()?;
    println!("command     entries   entries/s    us each");
    for (command, (count, took)) in &bench.took {
        let seconds = took.as_secs_f64();
        let (rate, micros) = (*count as f64 / seconds, seconds * 1e6 / *count as f64);
        println!("{command:<10}  {count:>7}  {rate:>10.0}  {micros:>9.2}");
    }
    snapshot(&bench.state)
}

impl Bench {
    /// Decodes and applies one entry, as a node does.
    fn apply(
        &mut self,
        name: &'static str,
        command: Command,
        request_id: Option<RequestId>,
    ) -> Result<Reply, Box<dyn Error>> {
        let bytes = codec::encode(&Envelope::new(1_000 + self.index, request_id, command));
        self.index += 1;
        let begun = Instant::now();
        let envelope = codec::decode(&bytes)?;
        let applied = self.state.apply(self.index, &envelope);
        let entry = self.took.entry(name).or_default();
        entry.0 += 1;
        entry.1 += begun.elapsed();
        Ok(applied.reply?)
    }

    fn workers(&mut self) -> Result<(), Box<dyn Error>> {
        let gpu: GpuModel = "h100".parse()?;
        for number in 0..WORKERS {
            let hash = TokenHash([number; 32]);
            let name = format!("host-{number}").parse()?;
            self.apply("token", Command::CreateWorkerToken { name, hash }, None)?;
            let inventory = Inventory {
                gpus: vec![gpu; 8],
                trainers: BTreeSet::from([TrainerKind::SimpleTuner]),
                labels: BTreeMap::new(),
                price_per_gpu_hour: Some(UsdMicros(2_000_000)),
                address: None,
                outputs: None,
            };
            let instance = InstanceId([number; 16]);
            self.apply(
                "register",
                Command::RegisterWorker {
                    token_hash: hash,
                    instance,
                    inventory,
                },
                None,
            )?;
        }
        Ok(())
    }

    /// Places, starts and ends until nothing waits.
    fn run_all(&mut self) -> Result<(), Box<dyn Error>> {
        while self.state.pending_count() > 0 {
            let begun = Instant::now();
            let placements =
                placement::plan(&self.state, &NoForecast, self.state.newest_stamp_ms(), 256)
                    .placements;
            let planned = self.took.entry("(plan)").or_default();
            planned.0 += 1;
            planned.1 += begun.elapsed();
            self.apply("place 256", Command::Place { placements }, None)?;
            let leases: Vec<_> = self.state.leases().copied().collect();
            for lease in leases {
                let (job, epoch) = (lease.job, lease.epoch);
                self.apply("start", Command::StartAttempt { job, epoch }, None)?;
                let outcome = Outcome::Succeeded;
                let (step, detail) = (3_000, String::new());
                self.apply(
                    "end",
                    Command::EndAttempt {
                        job,
                        epoch,
                        outcome,
                        step,
                        detail,
                    },
                    None,
                )?;
            }
        }
        Ok(())
    }
}

fn snapshot(state: &State) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let bytes = state.snapshot();
    let written = begun.elapsed();
    let begun = Instant::now();
    let restored = State::restore(&bytes)?;
    let read = begun.elapsed();
    println!(
        "snapshot of {} jobs: {:.1} MB, written in {} ms, restored in {} ms",
        restored.jobs().count(),
        bytes.len() as f64 / 1e6,
        written.as_millis(),
        read.as_millis()
    );
    Ok(())
}
