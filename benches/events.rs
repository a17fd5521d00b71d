//! How long the planner takes for one event in a large cluster: a submission, an end, a worker that joins, new records.
//!
//! `cargo bench --workspace --bench events -- [PENDING...]`: 10,000 workers with 8 GPUs each, all of them busy, and as
//! many waiting jobs as is said: 1,000, 10,000, 100,000 and 1,000,000 if nothing is. Once more with as many jobs that wait
//! for hosts which have their checkpoints and are busy, while one in ten of the others is free.
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sharing, Workload};
use stepcast_records::{
    FrameClass, GpuModel, HalfMegapixels, Hardware, Precision, Quantization, Recipe, UsdMicros,
};
use stepcast_scheduler::ids::{
    Epoch, InstanceId, JobId, OutputsId, StagingId, TokenHash, WorkerId,
};
use stepcast_scheduler::model::{
    FailureReason, Inventory, JobSpec, Objective, Outcome, TrainerKind,
};
use stepcast_scheduler::placement::{
    Forecast, ForecastSource, Placement, PlacementNote, Planner, Portion,
};
use stepcast_scheduler::{Command, Envelope, Reply, State, codec};

const WORKERS: u64 = 10_000;
const PENDING: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const GPUS: [&str; 5] = ["rtx4090", "l40s", "a100-80", "h100", "h200"];
const OBJECTIVES: [Objective; 3] = [Objective::Cheapest, Objective::Fastest, Objective::Balanced];

/// Events of each kind that are timed.
const EVENTS: usize = 1_000;

/// New records come with one of so many events of another kind, and change every forecast.
const RECORDS: usize = 250;

/// Looks that are timed after new records have come: the first of those that take them in.
const LOOKS: usize = 1_000;

/// Placements in one look, as the leader asks for,
const PLACEMENTS: usize = 1_024;

/// and in one command of them.
const OF_A_COMMAND: usize = 256;

/// Hosts of so many that are free where jobs wait for others: the last ones.
const FREE_OF: u64 = 10;

/// Hosts carry one of so many labels, where jobs ask for one.
const SITES: u64 = 1_000;

/// What the jobs of a queue have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// A thousand sweeps: jobs of one differ in their files alone.
    Sweeps,
    /// Every job has a length of its own.
    Lengths,
    /// Every job has a length and a budget of its own, and asks for one of a thousand labels.
    Needs,
    /// Every job has a length of its own, and has done half of it on a host that keeps its results to itself.
    Homes,
}

fn main() {
    let asked: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let sizes = if asked.is_empty() {
        PENDING.to_vec()
    } else {
        asked
    };
    println!("QUEUE     PENDING   AGE     EVENT          P50         P99         MOST");
    for pending in sizes {
        for kind in [Kind::Sweeps, Kind::Lengths, Kind::Needs, Kind::Homes] {
            let mut cluster = Cluster::new(kind);
            (0..WORKERS).for_each(|_| cluster.join());
            if kind == Kind::Homes {
                cluster.leave_home(pending);
            } else {
                cluster.fill(pending);
            }
            cluster.measure("new", pending);
            // Longer than any of them is passed by others.
            cluster.now_ms += 7 * 24 * 3_600_000;
            cluster.measure("week", pending);
        }
    }
}

struct Cluster {
    state: State,
    planner: Planner,
    hours: Hours,
    kind: Kind,
    index: u64,
    now_ms: u64,
    workers: u64,
    jobs: u64,
    running: Vec<(JobId, Epoch)>,
    dice: u64,
}

impl Cluster {
    fn new(kind: Kind) -> Self {
        let mut cluster = Self {
            state: State::new(),
            planner: Planner::in_portions(Portion::OF_A_LOOK),
            hours: Hours { version: 0 },
            kind,
            index: 0,
            now_ms: 1_000_000_000,
            workers: 0,
            jobs: 0,
            running: Vec::new(),
            dice: 1,
        };
        cluster.apply(Command::Barrier {
            version: codec::VERSION,
        });
        cluster
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let envelope = Envelope::new(self.now_ms, None, command);
        self.state
            .apply(self.index, &envelope)
            .reply
            .expect("it is taken")
    }

    fn join(&mut self) {
        let number = self.workers;
        self.workers += 1;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        let name = format!("host-{number}").parse().expect("a label");
        self.apply(Command::CreateWorkerToken {
            name,
            hash: TokenHash(hash),
        });
        let labels = if self.kind == Kind::Needs {
            site(number)
        } else {
            BTreeMap::new()
        };
        self.apply(Command::RegisterWorker {
            token_hash: TokenHash(hash),
            instance: InstanceId([1; 16]),
            inventory: Inventory {
                gpus: vec![gpu(number); 8],
                trainers: [TrainerKind::SimpleTuner].into(),
                labels,
                price_per_gpu_hour: Some(UsdMicros(300_000 + 100 * number)),
                address: None,
                outputs: (self.kind == Kind::Homes).then(|| OutputsId(wide(number))),
            },
        });
    }

    /// Has so many jobs lose the hosts that they have begun on to others, which should end soon. One in ten hosts is free.
    fn leave_home(&mut self, pending: u64) {
        let hosts = WORKERS - WORKERS / FREE_OF;
        for number in 0..pending {
            self.submit();
            let job = JobId(self.jobs);
            let spec = self.state.open_job(job).expect("it waits").spec.clone();
            let Length::Steps(steps) = spec.workload.length else {
                panic!("a job has so many steps");
            };
            let may = |host: &u64| spec.allow.contains(&gpu(*host));
            let host = (number..).map(|host| host % hosts).find(may);
            let gpus = 0..spec.gpu_count;
            let epoch = self.put(job, host.expect("one in five is"), gpus.collect());
            self.apply(Command::StartAttempt { job, epoch });
            let step = steps / 2;
            self.apply(Command::Checkpoint { job, epoch, step });
            self.apply(Command::EndAttempt {
                job,
                epoch,
                outcome: Outcome::Failed(FailureReason::Preempted),
                step,
                detail: String::new(),
            });
        }
        for host in 0..hosts {
            self.jobs += 1;
            let mut spec = Box::new(self.kind.spec(self.jobs));
            spec.gpu_count = 8;
            spec.allow.clear();
            self.apply(Command::SubmitJob { spec });
            let job = JobId(self.jobs);
            let epoch = self.put(job, host, (0..8).collect());
            self.running.push((job, epoch));
        }
        // What has stopped may start again a while after.
        self.now_ms += 60_000;
        self.take_in();
    }

    /// Places a job on a host.
    fn put(&mut self, job: JobId, host: u64, gpus: Vec<u8>) -> Epoch {
        let attempt = self.state.open_job(job).expect("it waits").next_attempt();
        let placements = vec![Placement {
            job,
            attempt,
            worker: WorkerId(host + 1),
            gpus,
            note: PlacementNote {
                run_ms_p50: Some(1),
                run_ms_p90: Some(1),
                cost_p50: None,
            },
            others: Vec::new(),
        }];
        let Reply::Placed { outcomes } = self.apply(Command::Place { placements }) else {
            panic!("placements are answered");
        };
        let epoch = outcomes.into_iter().next().expect("one was proposed");
        epoch.expect("the host is free")
    }

    /// Submits until nothing is free and so many wait.
    fn fill(&mut self, pending: u64) {
        let mut full = false;
        while !full {
            (0..5_000).for_each(|_| self.submit());
            loop {
                let placed = self.look().1;
                let nothing = placed == 0 && !self.planner.is_behind();
                full |= nothing && self.state.pending_count() > 500;
                if nothing {
                    break;
                }
            }
        }
        while (self.state.pending_count() as u64) < pending {
            self.submit();
        }
        self.take_in();
    }

    /// Looks until everything is known and nothing more starts.
    fn take_in(&mut self) {
        let begun = Instant::now();
        let mut looks = 1;
        while self.look().1 > 0 || self.planner.is_behind() {
            looks += 1;
        }
        println!(
            "# {:?}: {} run, {} wait in {} lines, taken in with {looks} looks in {:.0} ms",
            self.kind,
            self.running.len(),
            self.state.pending_count(),
            self.state.line_count(),
            begun.elapsed().as_secs_f64() * 1e3
        );
    }

    fn submit(&mut self) {
        self.jobs += 1;
        let spec = Box::new(self.kind.spec(self.jobs));
        self.apply(Command::SubmitJob { spec });
    }

    /// One look, and what comes of it; how long it took, and how many were placed.
    fn look(&mut self) -> (Duration, usize) {
        let begun = Instant::now();
        let plan = self
            .planner
            .plan(&self.state, &self.hours, self.now_ms, PLACEMENTS);
        let took = begun.elapsed();
        for placements in plan.placements.chunks(OF_A_COMMAND) {
            let placements = placements.to_vec();
            let jobs: Vec<JobId> = placements.iter().map(|placement| placement.job).collect();
            let Reply::Placed { outcomes } = self.apply(Command::Place { placements }) else {
                panic!("placements are answered");
            };
            for (job, outcome) in jobs.into_iter().zip(outcomes) {
                self.running
                    .push((job, outcome.expect("what is planned is placed")));
            }
        }
        (took, plan.placements.len())
    }

    fn end(&mut self) {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let at = (self.dice >> 33) as usize % self.running.len();
        let (job, epoch) = self.running.swap_remove(at);
        self.apply(Command::EndAttempt {
            job,
            epoch,
            outcome: Outcome::Succeeded,
            step: 1,
            detail: String::new(),
        });
    }

    fn measure(&mut self, age: &str, pending: u64) {
        let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
        let mut placed = 0;
        // The first look after so long a time sees everything as it is by now.
        self.look();
        for event in 0..EVENTS {
            if event % RECORDS == 0 {
                self.hours.version += 1;
                for _ in 0..LOOKS {
                    let (took, count) = self.look();
                    placed += count;
                    times.entry("records").or_default().push(took);
                    if !self.planner.is_behind() {
                        break;
                    }
                }
                // The rest of it is taken in beside the events that follow.
            }
            for what in ["submission", "end", "join"] {
                // A cluster does not grow by a thousand workers in a minute.
                if what == "join" && event % 10 > 0 {
                    continue;
                }
                match what {
                    "submission" => self.submit(),
                    "end" => self.end(),
                    _ => self.join(),
                }
                self.now_ms += 10;
                let (took, count) = self.look();
                placed += count;
                times.entry(what).or_default().push(took);
                // As the leader does, until nothing more comes of it.
                while self.look().1 > 0 {
                    placed += 1;
                }
            }
        }
        let all: Vec<Duration> = times.values().flatten().copied().collect();
        times.insert("any", all);
        for (event, mut times) in times {
            times.sort_unstable();
            let at = |part: f64| {
                let at = (times.len() - 1) as f64 * part;
                times[at as usize].as_secs_f64() * 1e3
            };
            println!(
                "{:<9} {pending:<9} {age:<7} {event:<10} {:>8.3} ms {:>8.3} ms {:>9.3} ms",
                format!("{:?}", self.kind).to_lowercase(),
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
        println!("# {placed} placed");
    }
}

impl Kind {
    fn spec(self, number: u64) -> JobSpec {
        let of = if self == Self::Sweeps {
            number % 1_000
        } else {
            number
        };
        let dice = of.wrapping_add(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let dice = dice ^ dice >> 29;
        // From a thousand steps to two hundred thousand, as many short ones as long ones.
        let steps = 1_000.0 * 200_f64.powf((dice % 100_000) as f64 / 100_000.0);
        let mut spec = JobSpec::new(
            workload(steps as u64 * 100 + of % 100),
            StagingId(wide(number)),
        );
        spec.gpu_count = [1, 1, 1, 1, 2, 2, 4, 8][(dice >> 20) as usize % 8];
        spec.objective = OBJECTIVES[(dice >> 24) as usize % 3];
        let skipped = [0, 0, 1, 2][(dice >> 28) as usize % 4];
        let allowed = GPUS
            .iter()
            .skip(skipped)
            .map(|gpu| gpu.parse().expect("a GPU"));
        spec.allow = allowed.collect();
        if self == Self::Needs {
            spec.max_cost = Some(UsdMicros(500_000_000 + number));
            spec.labels = site(dice >> 32);
        }
        spec
    }
}

/// Four milliseconds a step on the slowest model, a little more or less with each version; some jobs gain much by a fast
/// one and some nothing.
struct Hours {
    version: u64,
}

impl ForecastSource for Hours {
    fn forecast(&self, spec: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        let Length::Steps(steps) = spec.workload.length else {
            return None;
        };
        let speed = [1.0, 1.1, 1.9, 3.4, 4.0];
        let model = GPUS
            .iter()
            .position(|name| name.parse() == Ok(hardware.gpu))?;
        let gain = f64::from(u32::try_from(steps % 7).ok()?) / 7.0;
        let step_ms = 4.0 + (self.version % 3) as f64 * 0.1;
        let ms = steps as f64 * step_ms / (1.0 + (speed[model] - 1.0) * gain);
        let run_ms_p50 = (ms / f64::from(hardware.count).powf(0.9)).max(1_000.0) as u64;
        Some(Forecast {
            run_ms_p50,
            run_ms_p90: run_ms_p50 * 3 / 2,
        })
    }

    fn version(&self) -> Option<u64> {
        Some(self.version)
    }
}

/// An id made of a number.
fn wide(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn gpu(number: u64) -> GpuModel {
    GPUS[number as usize % GPUS.len()].parse().expect("a GPU")
}

fn site(
    number: u64,
) -> BTreeMap<stepcast_scheduler::model::Label, stepcast_scheduler::model::Label> {
    let label = |text: &str| text.parse().expect("a label");
    BTreeMap::from([(label("site"), label(&format!("s{}", number % SITES)))])
}

fn workload(steps: u64) -> Workload {
    Workload {
        recipe: Recipe::parse("flux.dev/lora+ckpt").expect("a recipe"),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: HalfMegapixels::new(2).expect("a bucket"),
            frames: FrameClass::Single,
            batch_size: 4,
            samples: Some(120),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(steps),
        checkpoint_every: Some(500),
        validation: None,
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing::default(),
    }
}
