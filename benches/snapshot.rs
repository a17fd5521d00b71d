//! What a large state costs: memory, a view, a snapshot, a restore, and what submitters notice of a snapshot.
//!
//! `cargo bench -p stepcast-benches --bench snapshot -- [DIR [FINISHED [PENDING]]]`: DIR says which disk is measured.
#![expect(clippy::print_stdout, reason = "it is what a person runs it for")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use stepcast_benches::{Latencies, ports, spec, wide};
use stepcast_cluster::consensus::log::Position;
use stepcast_cluster::members::Members;
use stepcast_cluster::snapshot::{Header, Snapshots};
use stepcast_cluster::{Config, Handle, Node, restore_into};
use stepcast_records::UsdMicros;
use stepcast_scheduler::ids::{AttemptNumber, InstanceId, JobId, RequestId, StagingId, TokenHash};
use stepcast_scheduler::model::limits::JOB_RETENTION_MS;
use stepcast_scheduler::model::{Inventory, JobSpec, Outcome, TrainerKind};
use stepcast_scheduler::placement::{Placement, PlacementNote};
use stepcast_scheduler::{Command, Envelope, Reply, State, codec};

/// Workers with eight GPUs each.
const WORKERS: u8 = 100;

/// GPUs of each.
const GPUS: u8 = 8;

/// Who submits at the same time, each waiting for its reply before the next.
const PROPOSERS: usize = 64;

/// How long submitters are measured, without a snapshot and with one after the other.
const MEASURED: Duration = Duration::from_secs(8);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let below = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse());
    let (finished, pending): (u64, u64) = (number(1_000_000)?, number(100_000)?);
    let dir = below.join(format!("stepcast-snapshot-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let before = resident_mb();
    let begun = Instant::now();
    let mut seed = Seed::new()?;
    seed.grow(finished, pending)?;
    println!(
        "state        {finished} finished and {pending} pending jobs, {} entries applied in {:.1} s ({:.0}/s)",
        seed.index,
        begun.elapsed().as_secs_f64(),
        seed.index as f64 / begun.elapsed().as_secs_f64(),
    );
    println!(
        "memory       {} MB resident, {before} before",
        resident_mb()
    );
    let file = written(&dir, &mut seed)?;
    swept(&mut seed);
    drop(seed);
    let begun = Instant::now();
    let restored = Snapshots::read_file(&file)?;
    println!("restore      {:.2} s", begun.elapsed().as_secs_f64());
    drop(restored);
    let data = dir.join("data");
    let begun = Instant::now();
    restore_into(&data, &file)?;
    println!(
        "backup       restored into a new node in {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    std::fs::remove_file(&file)?;
    commits(&data).await?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// A state that is made by its own rules.
struct Seed {
    state: State,
    index: u64,
    next: u64,
    template: JobSpec,
}

impl Seed {
    fn new() -> Result<Self, Box<dyn Error>> {
        let mut seed = Self {
            state: State::new(),
            index: 1,
            next: 0,
            template: spec().ok_or("the recipe is gone from the registry")?,
        };
        seed.apply(
            Command::Barrier {
                version: codec::VERSION,
            },
            None,
        )?;
        for number in 0..WORKERS {
            let hash = TokenHash([number; 32]);
            let name = format!("host-{number}").parse()?;
            seed.apply(Command::CreateWorkerToken { name, hash }, None)?;
            let inventory = Inventory {
                gpus: vec!["h100".parse()?; usize::from(GPUS)],
                trainers: BTreeSet::from([TrainerKind::SimpleTuner]),
                labels: BTreeMap::new(),
                price_per_gpu_hour: Some(UsdMicros(2_000_000)),
                address: None,
                outputs: None,
            };
            let register = Command::RegisterWorker {
                token_hash: hash,
                instance: InstanceId([number; 16]),
                inventory,
            };
            seed.apply(register, None)?;
        }
        Ok(seed)
    }

    fn apply(
        &mut self,
        command: Command,
        request: Option<RequestId>,
    ) -> Result<Reply, Box<dyn Error>> {
        self.index += 1;
        let envelope = Envelope::new(1_000 + self.index / 10, request, command);
        Ok(self.state.apply(self.index, &envelope).reply?)
    }

    fn submit(&mut self) -> Result<JobId, Box<dyn Error>> {
        self.next += 1;
        let id = wide(self.next);
        let spec = JobSpec {
            staging: StagingId(id),
            name: Some(format!("job-{}", self.next).parse()?),
            ..self.template.clone()
        };
        match self.apply(
            Command::SubmitJob {
                spec: Box::new(spec),
            },
            Some(RequestId(id)),
        )? {
            Reply::JobSubmitted { job } => Ok(job),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// So many jobs that have run, each with a checkpoint, and so many that wait.
    fn grow(&mut self, finished: u64, pending: u64) -> Result<(), Box<dyn Error>> {
        let workers: Vec<_> = self.state.workers().map(|worker| worker.id).collect();
        let mut left = finished;
        while left > 0 {
            let mut placements = Vec::new();
            for worker in workers.iter().take(32) {
                for gpu in 0..GPUS {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                    placements.push(Placement {
                        job: self.submit()?,
                        attempt: AttemptNumber(1),
                        worker: *worker,
                        gpus: vec![gpu],
                        note: PlacementNote {
                            run_ms_p50: Some(3_600_000),
                            run_ms_p90: Some(4_200_000),
                            cost_p50: None,
                        },
                        others: Vec::new(),
                    });
                }
            }
            self.apply(Command::Place { placements }, None)?;
            let leases: Vec<_> = self.state.leases().copied().collect();
            for lease in leases {
                let (job, epoch) = (lease.job, lease.epoch);
                self.apply(Command::StartAttempt { job, epoch }, None)?;
                self.apply(
                    Command::Checkpoint {
                        job,
                        epoch,
                        step: 500,
                    },
                    None,
                )?;
                let end = Command::EndAttempt {
                    job,
                    epoch,
                    outcome: Outcome::Succeeded,
                    step: 3_000,
                    detail: String::new(),
                };
                self.apply(end, None)?;
            }
        }
        for _ in 0..pending {
            self.submit()?;
        }
        Ok(())
    }
}

/// A snapshot of the state, with what it costs and what it costs whoever goes on meanwhile.
fn written(dir: &Path, seed: &mut Seed) -> Result<PathBuf, Box<dyn Error>> {
    let begun = Instant::now();
    let view = seed.state.view();
    let viewed = begun.elapsed();
    let snapshots = Snapshots::open(&dir.join("seed"))?;
    let at = Position {
        index: seed.index,
        term: 1,
    };
    let members = Members::founder(1);
    let begun = Instant::now();
    let written = snapshots.write(&Header { at, members }, &view)?;
    println!(
        "snapshot     view in {:.2} ms, {:.1} MB written in {:.2} s",
        viewed.as_secs_f64() * 1e3,
        written.bytes as f64 / 1e6,
        begun.elapsed().as_secs_f64()
    );
    let rate = |seed: &mut Seed| -> Result<f64, Box<dyn Error>> {
        let begun = Instant::now();
        let count = 50_000;
        for _ in 0..count {
            seed.submit()?;
        }
        Ok(f64::from(count) / begun.elapsed().as_secs_f64())
    };
    let shared = rate(seed)?;
    drop(view);
    println!(
        "submits      {shared:.0}/s beside a view, {:.0}/s without",
        rate(seed)?
    );
    let file = dir.join("backup.snapshot");
    let outgoing = snapshots.open_at(at)?.ok_or("the snapshot is gone")?;
    std::io::copy(&mut &outgoing.file, &mut std::fs::File::create(&file)?)?;
    Ok(file)
}

/// The end of every finished job's retention: what one command of the log does about it.
fn swept(seed: &mut Seed) {
    let before = seed.state.job_count();
    let stamp_ms = seed.state.newest_stamp_ms() + JOB_RETENTION_MS;
    // The first also ends what has waited for too long, and forgets replies; the tenth is like any other.
    let sweeps = (0..10).map(|_| {
        seed.index += 1;
        let begun = Instant::now();
        let sweep = Envelope::new(stamp_ms, None, Command::Sweep);
        let _ = seed.state.apply(seed.index, &sweep);
        begun.elapsed()
    });
    let longest = sweeps.max().unwrap_or_default();
    println!(
        "retention    {} jobs forgotten by 10 sweeps, the longest in {:.2} ms",
        before - seed.state.job_count(),
        longest.as_secs_f64() * 1e3
    );
}

/// Submitters on a node with this state: alone, and while snapshots are written.
async fn commits(data: &Path) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let mut config = Config::new(data);
    // Snapshots are taken when this says so.
    config.snapshot_entries = u64::MAX;
    config.snapshot_bytes = u64::MAX;
    let node = Node::start(config, ports())?;
    node.leading().await;
    println!(
        "start        {:.2} s until it leads, {} MB resident",
        begun.elapsed().as_secs_f64(),
        resident_mb()
    );
    println!("commits      submits/s    p50 ms    p99 ms    max ms   snapshots");
    for with in [false, true, false, true] {
        let (took, snapshots) = measure(&node, with).await?;
        println!(
            "{:<11}  {:>9.0}  {:>8.2}  {:>8.2}  {:>8.2}   {snapshots}",
            if with { "beside one" } else { "alone" },
            took.rate(),
            took.ms(0.5),
            took.ms(0.99),
            took.ms(1.0),
        );
    }
    println!("memory       {} MB resident at the end", resident_mb());
    node.shutdown().await;
    Ok(())
}

/// The time of every submission within [`MEASURED`], and how many snapshots were written meanwhile.
async fn measure(node: &Handle, with: bool) -> Result<(Latencies, u32), Box<dyn Error>> {
    let template = Arc::new(spec().ok_or("the recipe is gone from the registry")?);
    let next = Arc::new(AtomicU64::new(1));
    let base = node.read_stale(State::job_count) as u64 + (1 << 40);
    let begun = Instant::now();
    let snapshots = tokio::spawn({
        let node = node.clone();
        async move {
            let mut count = 0;
            while with && begun.elapsed() < MEASURED {
                node.snapshot_now()
                    .await
                    .map_err(|error| error.to_string())?;
                count += 1;
            }
            Ok::<_, String>(count)
        }
    });
    let proposing = (0..PROPOSERS).map(|_| {
        let (node, template, next) = (node.clone(), Arc::clone(&template), Arc::clone(&next));
        tokio::spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < MEASURED {
                let id = wide(base + next.fetch_add(1, Ordering::Relaxed));
                let spec = JobSpec {
                    staging: StagingId(id),
                    ..JobSpec::clone(&template)
                };
                let from = Instant::now();
                let spec = Box::new(spec);
                let reply = node.propose(Command::SubmitJob { spec }, None).await;
                let Ok(Reply::JobSubmitted { job }) = reply else {
                    return Err(format!("{reply:?}"));
                };
                took.push(from.elapsed());
                // The queue stays as long as it is.
                let cancelled = node.propose(Command::CancelJob { job }, None).await;
                cancelled.map_err(|error| error.to_string())?;
            }
            Ok(took)
        })
    });
    let all: Result<Vec<_>, _> = try_join_all(proposing).await?.into_iter().collect();
    let elapsed = begun.elapsed();
    let took = all?.into_iter().flatten().collect();
    Ok((Latencies::new(took, elapsed), snapshots.await??))
}

/// Memory of this process in MB, as the kernel counts it.
fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kb.unwrap_or_default() / 1024
}
