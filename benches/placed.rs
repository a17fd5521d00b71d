//! From a submission to the worker that is told to run it: how many a second, and how long each takes, with fsync on.
//!
//! `cargo bench -p stepcast-benches --bench placed -- [DIR [SECONDS]]`: DIR says which disk is measured. A
//! hundred workers with eight GPUs each end whatever they are given at once, so what is measured is the log and the plan.
#![expect(clippy::print_stdout, reason = "it is what a person runs it for")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use stepcast_benches::{Latencies, ports, spec, wide};
use stepcast_cluster::session::{Order, Report};
use stepcast_cluster::{Config, Handle, Node, ProposeError, Session};
use stepcast_records::UsdMicros;
use stepcast_scheduler::ids::{InstanceId, RequestId, StagingId, TokenHash};
use stepcast_scheduler::model::{Inventory, JobSpec, Outcome, TrainerKind};
use stepcast_scheduler::{Command, Rejection, Reply};

/// Who submits at the same time, each waiting for its reply before the next.
const PROPOSERS: [usize; 3] = [1, 64, 512];

/// Workers with eight GPUs each.
const WORKERS: u8 = 100;

/// When each submission began, by where its files are, and how long it took until a worker was told.
#[derive(Default)]
struct Board {
    begun: Mutex<BTreeMap<StagingId, Instant>>,
    took: Mutex<Vec<Duration>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let below = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    println!("proposers   placed/s    p50 ms    p99 ms    max ms");
    for proposers in PROPOSERS {
        let dir = below.join(format!(
            "stepcast-placed-rate-{}-{proposers}",
            std::process::id()
        ));
        let node = Node::start(Config::new(&dir), ports())?;
        node.leading().await;
        let board = Arc::new(Board::default());
        for number in 0..WORKERS {
            tokio::spawn(run(join(&node, number).await?, Arc::clone(&board)));
        }
        let elapsed = submit(&node, proposers, Duration::from_secs(seconds), &board).await?;
        let took = std::mem::take(&mut *board.took.lock().unwrap_or_else(PoisonError::into_inner));
        let took = Latencies::new(took, elapsed);
        node.shutdown().await;
        std::fs::remove_dir_all(&dir)?;
        println!(
            "{proposers:>9}  {:>9.0}  {:>8.2}  {:>8.2}  {:>8.2}",
            took.rate(),
            took.ms(0.5),
            took.ms(0.99),
            took.ms(1.0)
        );
    }
    Ok(())
}

async fn join(node: &Handle, number: u8) -> Result<Session, Box<dyn Error>> {
    let token_hash = TokenHash([number; 32]);
    let name = format!("host-{number}").parse()?;
    node.propose(
        Command::CreateWorkerToken {
            name,
            hash: token_hash,
        },
        None,
    )
    .await?;
    let inventory = Inventory {
        gpus: vec!["h100".parse()?; 8],
        trainers: BTreeSet::from([TrainerKind::SimpleTuner]),
        labels: BTreeMap::new(),
        price_per_gpu_hour: Some(UsdMicros(2_000_000)),
        address: None,
        outputs: None,
    };
    let instance = InstanceId([number; 16]);
    match node
        .propose(
            Command::RegisterWorker {
                token_hash,
                instance,
                inventory,
            },
            None,
        )
        .await?
    {
        Reply::WorkerRegistered { worker } => Ok(node.attach(worker, instance)?),
        other => Err(format!("{other:?}").into()),
    }
}

/// Ends whatever it is told to run.
async fn run(mut session: Session, board: Arc<Board>) {
    while let Some(order) = session.orders.recv().await {
        let Order::Assign(assigned) = order else {
            continue;
        };
        let begun = board
            .begun
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&assigned.spec.staging);
        if let Some(begun) = begun {
            board
                .took
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(begun.elapsed());
        }
        let (job, epoch, outcome) = (assigned.job, assigned.epoch, Outcome::Succeeded);
        let report = Report::Ended {
            job,
            epoch,
            outcome,
            step: 3_000,
            detail: String::new(),
        };
        if session.reports.report(report).await.is_err() {
            return;
        }
    }
}

/// Submits for this long, and waits until all of it was placed; says how long that took.
async fn submit(
    node: &Handle,
    proposers: usize,
    time: Duration,
    board: &Arc<Board>,
) -> Result<Duration, Box<dyn Error>> {
    let template = Arc::new(spec().ok_or("the recipe is gone from the registry")?);
    let next = Arc::new(AtomicU64::new(1));
    let begun = Instant::now();
    let proposing = (0..proposers).map(|_| {
        let (node, template) = (node.clone(), Arc::clone(&template));
        let (next, board) = (Arc::clone(&next), Arc::clone(board));
        tokio::spawn(async move {
            while begun.elapsed() < time {
                let id = wide(next.fetch_add(1, Ordering::Relaxed));
                let spec = JobSpec {
                    staging: StagingId(id),
                    ..JobSpec::clone(&template)
                };
                board
                    .begun
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(spec.staging, Instant::now());
                let command = Command::SubmitJob {
                    spec: Box::new(spec),
                };
                match node.propose(command, Some(RequestId(id))).await {
                    Ok(_) => {}
                    // More than the planner takes: the queue's bound is reached, and what is in it is still placed.
                    Err(ProposeError::Rejected(Rejection::Full { .. })) => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    });
    try_join_all(proposing)
        .await?
        .into_iter()
        .collect::<Result<(), _>>()?;
    while node.read(|state| state.unfinished_count()).await? > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(begun.elapsed())
}
