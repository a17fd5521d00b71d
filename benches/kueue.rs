//! Kueue's published load, baseline and large scale, through a single node with a real log: how long until all of it is done.
//!
//! `cargo bench --workspace --bench kueue -- [DIR]`: DIR says which disk the log lies on. Takes a minute and a half.
//!
//! Kueue admits against quotas of an abstract unit: workloads of 1, 5 and 20 units, queues of 20 with 100 to borrow from
//! their cohort. Here a queue's 20 units are a worker with eight GPUs, so workloads take 1, 2 and 8 GPUs of one host: the
//! small ones take two and a half times their part, and what is free must lie together. Cohorts are labels, queues are
//! teams with a quota, and the workers are sessions in this process that end what they are given after its time.
#![expect(clippy::print_stdout, reason = "it is what a person runs it for")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use stepcast_benches::{Latencies, ports, spec, wide};
use stepcast_cluster::session::{Order, Report};
use stepcast_cluster::{Config, Handle, Node, Session};
use stepcast_records::UsdMicros;
use stepcast_scheduler::ids::{InstanceId, RequestId, StagingId, TeamId, TokenHash};
use stepcast_scheduler::model::{Inventory, JobSpec, Outcome, TeamRules, TrainerKind};
use stepcast_scheduler::{Command, Reply, State, codec};

/// A class of workloads: as many in each queue, each so long after the one before.
#[derive(Debug, Clone, Copy)]
struct Class {
    name: &'static str,
    count: u64,
    every_ms: u64,
    run_ms: u64,
    gpus: u8,
    units: u64,
    priority: i8,
}

/// One of Kueue's configurations.
struct Load {
    name: &'static str,
    cohorts: u64,
    queues: u64,
    classes: [Class; 3],
    /// What Kueue's own runs take on average, in seconds.
    kueue_s: f64,
    /// What a scheduler without any delay takes in Kueue's units.
    bound_s: f64,
}

/// `test/performance/scheduler/configs/{baseline,large-scale}/generator.yaml` of kubernetes-sigs/kueue.
const LOADS: [Load; 2] = [
    Load {
        name: "baseline",
        cohorts: 5,
        queues: 6,
        classes: [
            class("small", 350, 100, 200),
            class("medium", 100, 500, 500),
            class("large", 50, 1_200, 1_000),
        ],
        kueue_s: 351.0,
        bound_s: 66.1,
    },
    Load {
        name: "large-scale",
        cohorts: 10,
        queues: 100,
        classes: [
            class("small", 35, 60, 150),
            class("medium", 11, 300, 350),
            class("large", 4, 700, 700),
        ],
        kueue_s: 1_179.0,
        bound_s: 4.1,
    },
];

/// GPUs of a queue's own worker.
const GPUS: u8 = 8;

/// What a queue may use with all that it borrows: six times its own.
const QUOTA: u32 = 6 * GPUS as u32;

/// How often a worker says that it is there.
const RENEW: Duration = Duration::from_secs(5);

const fn class(name: &'static str, count: u64, every_ms: u64, run_ms: u64) -> Class {
    let (gpus, units, priority) = match name.as_bytes()[0] {
        b's' => (1, 1, 0),
        b'm' => (2, 5, 1),
        _ => (8, 20, 2),
    };
    Class {
        name,
        count,
        every_ms,
        run_ms,
        gpus,
        units,
        priority,
    }
}

/// When each workload was submitted, by where its files are, and how long each class waited.
#[derive(Default)]
struct Board {
    begun: Mutex<BTreeMap<StagingId, Instant>>,
    waited: [Mutex<Vec<Duration>>; 3],
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let below = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "LOAD         WORKLOADS  DONE AFTER   AT LEAST      KUEUE  KUEUE AT LEAST   GPUS IN USE"
    );
    for load in &LOADS {
        let dir = below.join(format!(
            "stepcast-kueue-{}-{}",
            std::process::id(),
            load.name
        ));
        let node = Node::start(Config::new(&dir), ports())?;
        node.leading().await;
        while node.read(|state| state.format()).await? < codec::VERSION {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let board = Arc::new(Board::default());
        let teams = teams(&node, load).await?;
        for queue in 0..load.cohorts * load.queues {
            let session = join(&node, queue, queue / load.queues).await?;
            tokio::spawn(work(session, load, Arc::clone(&board)));
        }
        let took = play(&node, load, &teams, &board).await?;
        let attempts = node.read(attempts).await?;
        node.shutdown().await;
        std::fs::remove_dir_all(&dir)?;
        load.tell(took, &board);
        load.tell_course(&attempts);
    }
    Ok(())
}

impl Load {
    fn workloads(&self) -> u64 {
        let each: u64 = self.classes.iter().map(|class| class.count).sum();
        each * self.queues * self.cohorts
    }

    /// What all of a queue's workloads take of what `size` says of each, in seconds.
    fn seconds(&self, size: impl Fn(&Class) -> u64) -> f64 {
        let classes = self.classes.iter();
        let all: u64 = classes
            .map(|class| class.count * class.run_ms * size(class))
            .sum();
        all as f64 / 1e3
    }

    fn tell(&self, took: Duration, board: &Board) {
        let seconds = self.seconds(|class| u64::from(class.gpus));
        // No class is done before the last of it has come and run.
        let last = self
            .classes
            .iter()
            .map(|class| (class.count - 1) * class.every_ms + class.run_ms);
        let last_s = last.max().unwrap_or(0) as f64 / 1e3;
        let at_least = (seconds / f64::from(GPUS)).max(last_s);
        println!(
            "{:<12} {:>9}  {:>8.1} s  {:>7.1} s  {:>7.0} s  {:>12.1} s  {:>10.1} %",
            self.name,
            self.workloads(),
            took.as_secs_f64(),
            at_least,
            self.kueue_s,
            self.bound_s.max(self.seconds(|class| class.units) / 20.0),
            100.0 * seconds / f64::from(GPUS) / took.as_secs_f64(),
        );
        for (class, waited) in self.classes.iter().zip(&board.waited) {
            let waited =
                std::mem::take(&mut *waited.lock().unwrap_or_else(PoisonError::into_inner));
            let count = waited.len();
            let mean = waited.iter().sum::<Duration>().as_secs_f64() / count.max(1) as f64;
            let waited = Latencies::new(waited, took);
            println!(
                "  {:<8} {count:>11}  waits {mean:>6.2} s on average, p50 {:>6.2} s, p99 {:>6.2} s",
                class.name,
                waited.ms(0.5) / 1e3,
                waited.ms(0.99) / 1e3,
            );
        }
    }
}

impl Load {
    /// What the GPUs did in each of twenty parts of the time: in use, given to somebody who has not begun yet, and free.
    fn tell_course(&self, attempts: &[Attempt]) {
        const PARTS: u64 = 20;
        let begun = attempts.iter().map(|attempt| attempt.submitted_ms).min();
        let ended = attempts.iter().map(|attempt| attempt.ended_ms).max();
        let (Some(begun), Some(ended)) = (begun, ended) else {
            return;
        };
        let part_ms = (ended - begun).div_ceil(PARTS).max(1);
        let gpus = self.cohorts * self.queues * u64::from(GPUS);
        println!("  FROM        SUBMITTED    PLACED     ENDED   IN USE   NOT BEGUN    FREE");
        for part in 0..PARTS {
            let (from, to) = (begun + part * part_ms, begun + (part + 1) * part_ms);
            let count = |at: fn(&Attempt) -> u64| {
                let within = attempts.iter().map(at).filter(|at| (from..to).contains(at));
                within.count()
            };
            let overlap = |since: u64, until: u64| until.min(to).saturating_sub(since.max(from));
            let percent = |of: fn(&Attempt) -> (u64, u64)| {
                let ms = attempts.iter().map(|attempt| {
                    let (since, until) = of(attempt);
                    attempt.gpus * overlap(since, until)
                });
                100.0 * ms.sum::<u64>() as f64 / (gpus * part_ms) as f64
            };
            let used = percent(|attempt| (attempt.started_ms, attempt.ended_ms));
            let given = percent(|attempt| (attempt.placed_ms, attempt.started_ms));
            println!(
                "  {:>6.2} s  {:>9}  {:>9} {:>9}   {used:>4.0} %      {given:>4.0} %  {:>4.0} %",
                (from - begun) as f64 / 1e3,
                count(|attempt| attempt.submitted_ms),
                count(|attempt| attempt.placed_ms),
                count(|attempt| attempt.ended_ms),
                100.0 - used - given,
            );
        }
    }
}

/// When what happened to a workload, by the log's stamps.
struct Attempt {
    gpus: u64,
    submitted_ms: u64,
    placed_ms: u64,
    started_ms: u64,
    ended_ms: u64,
}

/// Those of all workloads: each has one.
fn attempts(state: &State) -> Vec<Attempt> {
    let jobs = state.jobs();
    let attempts = jobs.filter_map(|job| {
        let attempt = job.attempts.first()?;
        Some(Attempt {
            gpus: attempt.gpu_count() as u64,
            submitted_ms: job.submitted_ms,
            placed_ms: attempt.placed_ms,
            started_ms: attempt.started_ms?,
            ended_ms: attempt.ended_ms?,
        })
    });
    attempts.collect()
}

/// A team for every cohort, and one of its parts for every queue.
async fn teams(node: &Handle, load: &Load) -> Result<Vec<TeamId>, Box<dyn Error>> {
    let mut queues = Vec::new();
    for cohort in 0..load.cohorts {
        set_team(node, format!("cohort-{cohort}"), None).await?;
        for queue in 0..load.queues {
            let name = format!("cohort-{cohort}/queue-{queue}");
            queues.push(set_team(node, name, Some(QUOTA)).await?);
        }
    }
    Ok(queues)
}

async fn set_team(
    node: &Handle,
    name: String,
    gpu_quota: Option<u32>,
) -> Result<TeamId, Box<dyn Error>> {
    let rules = TeamRules {
        gpu_quota,
        ..TeamRules::default()
    };
    let name = name.parse()?;
    match node.propose(Command::SetTeam { name, rules }, None).await? {
        Reply::TeamSet { team } => Ok(team),
        other => Err(format!("{other:?}").into()),
    }
}

async fn join(node: &Handle, number: u64, cohort: u64) -> Result<Session, Box<dyn Error>> {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    let token_hash = TokenHash(hash);
    let name = format!("host-{number}").parse()?;
    let token = Command::CreateWorkerToken {
        name,
        hash: token_hash,
    };
    node.propose(token, None).await?;
    let inventory = Inventory {
        gpus: vec!["h100".parse()?; GPUS.into()],
        trainers: BTreeSet::from([TrainerKind::SimpleTuner]),
        labels: BTreeMap::from([("cohort".parse()?, format!("c{cohort}").parse()?)]),
        price_per_gpu_hour: Some(UsdMicros(2_000_000)),
        address: None,
        outputs: None,
    };
    let instance = InstanceId(wide(number + 1));
    let register = Command::RegisterWorker {
        token_hash,
        instance,
        inventory,
    };
    match node.propose(register, None).await? {
        Reply::WorkerRegistered { worker } => Ok(node.attach(worker, instance)?),
        other => Err(format!("{other:?}").into()),
    }
}

/// Runs whatever it is told to, for as long as its class says.
async fn work(mut session: Session, load: &'static Load, board: Arc<Board>) {
    let mut renewals = tokio::time::interval(RENEW);
    let mut running = BTreeSet::new();
    for renewal in 0.. {
        tokio::select! {
            _ = renewals.tick() => {
                let epochs = running.iter().copied().collect();
                if session.reports.report(Report::Renew { renewal, epochs }).await.is_err() {
                    return;
                }
            }
            order = session.orders.recv() => match order {
                Some(Order::Assign(assigned)) if running.insert(assigned.epoch) => {
                    let class = load.classes.iter().position(|class| class.gpus == assigned.spec.gpu_count);
                    let class = class.unwrap_or(0);
                    let begun = board.begun.lock().unwrap_or_else(PoisonError::into_inner);
                    let begun = { begun }.remove(&assigned.spec.staging);
                    if let Some(begun) = begun {
                        let waited = board.waited[class].lock();
                        waited.unwrap_or_else(PoisonError::into_inner).push(begun.elapsed());
                    }
                    let reports = session.reports.clone();
                    let run = Duration::from_millis(load.classes[class].run_ms);
                    tokio::spawn(async move {
                        let (job, epoch) = (assigned.job, assigned.epoch);
                        let until = tokio::time::Instant::now() + run;
                        if reports.report(Report::Started { job, epoch, from: None }).await.is_err() {
                            return;
                        }
                        tokio::time::sleep_until(until).await;
                        let ended = Report::Ended {
                            job,
                            epoch,
                            outcome: Outcome::Succeeded,
                            step: 3_000,
                            detail: String::new(),
                        };
                        let _ = reports.report(ended).await;
                    });
                }
                Some(Order::Acknowledged { epoch }) => _ = running.remove(&epoch),
                Some(_) => {}
                None => return,
            },
        }
    }
}

/// Submits everything at its time, and waits until it is done; says how long that took.
async fn play(
    node: &Handle,
    load: &'static Load,
    teams: &[TeamId],
    board: &Arc<Board>,
) -> Result<Duration, Box<dyn Error>> {
    let template = spec().ok_or("the recipe is gone from the registry")?;
    let begun = Instant::now() + Duration::from_millis(100);
    let mut number = 0;
    let mut generators = Vec::new();
    for (queue, team) in (0..).zip(teams) {
        for class in &load.classes {
            let mut spec = template.clone();
            spec.gpu_count = class.gpus;
            spec.priority = class.priority;
            spec.terms.team = *team;
            let cohort: u64 = queue / load.queues;
            spec.labels = BTreeMap::from([("cohort".parse()?, format!("c{cohort}").parse()?)]);
            let first = number + 1;
            number += class.count;
            let (node, board) = (node.clone(), Arc::clone(board));
            generators.push(tokio::spawn(async move {
                for of in 0..class.count {
                    let at = begun + Duration::from_millis(of * class.every_ms);
                    tokio::time::sleep_until(at.into()).await;
                    let id = wide(first + of);
                    let spec = Box::new(JobSpec {
                        staging: StagingId(id),
                        ..spec.clone()
                    });
                    let known = board.begun.lock();
                    known
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(spec.staging, Instant::now());
                    node.propose(Command::SubmitJob { spec }, Some(RequestId(id)))
                        .await?;
                }
                Ok::<_, stepcast_cluster::ProposeError>(())
            }));
        }
    }
    try_join_all(generators)
        .await?
        .into_iter()
        .collect::<Result<(), _>>()?;
    while node.read(|state| state.unfinished_count()).await? > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(begun.elapsed())
}
