//! Kills a node's process at random moments: what it acknowledged is there afterwards, exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use stepcast_cluster::session::Order;
use stepcast_cluster::{Config, Handle, ProposeError};
use stepcast_scheduler::ids::{Epoch, InstanceId, JobId, TokenHash};
use stepcast_scheduler::model::Outcome;
use stepcast_scheduler::{Command, Reply, RequestId, invariants};

use crate::support::{Worker, World, config, ended, spec, start, submit, wide};

/// Tells the child where to run and which number to begin with.
const DIR: &str = "STEPCAST_CRASH_TEST_DIR";
const FROM: &str = "STEPCAST_CRASH_TEST_FROM";

/// Kills in the test that always runs.
const KILLS: u64 = 30;

/// Kills in the one that runs every night.
const KILLS_SLOW: u64 = 200;

/// Jobs that are submitted at the same time.
const AT_ONCE: u64 = 8;

#[test]
fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    kill_again_and_again(0x5eed, KILLS);
}

#[test]
#[ignore = "takes two minutes"]
fn what_was_acknowledged_survives_200_kills_slow() {
    kill_again_and_again(0x1dea, KILLS_SLOW);
}

fn kill_again_and_again(seed: u64, kills: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let mut known = Known::default();
    for _ in 0..kills {
        let (child, lines) = spawn(dir.path(), known.next);
        // From the first write of the start to a moment in which everything is going on.
        let told = read_until_killed(child, &lines, Duration::from_micros(random.below(250_000)));
        known.take(&told);
        let checking = check(dir.path(), &known);
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(checking);
    }
    let (jobs, ended) = (known.jobs.len(), known.ended.len());
    assert!(
        jobs > 100 && ended > 10,
        "only {jobs} jobs and {ended} ends were acknowledged"
    );
    eprintln!("{kills} kills, {jobs} jobs and {ended} ends acknowledged");
}

/// What the children have said they acknowledged.
#[derive(Default)]
struct Known {
    /// By the number of the request.
    jobs: BTreeMap<u64, String>,
    ended: BTreeSet<(String, u64)>,
    /// Numbers from here on were not used.
    next: u64,
}

impl Known {
    fn take(&mut self, lines: &[String]) {
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["try", number] => self.next = self.next.max(number.parse::<u64>().unwrap() + 1),
                ["ack", number, job] => {
                    let before = self.jobs.insert(number.parse().unwrap(), job.to_owned());
                    assert_eq!(before, None, "{line}");
                }
                ["end", job, epoch] => {
                    _ = self.ended.insert((job.to_owned(), epoch.parse().unwrap()))
                }
                // What the test's own frame prints.
                _ => {}
            }
        }
    }
}

/// Starts on what the killed process left and compares.
async fn check(dir: &Path, known: &Known) {
    let node = start(settings(dir), &Arc::new(World::default())).await;
    node.read(|state| {
        assert_eq!(invariants::check(state), []);
        let mut by_files = BTreeMap::new();
        for job in state.jobs() {
            let twin = by_files.insert(job.spec.staging, job.id);
            assert_eq!(twin, None, "{} was submitted once", job.id);
        }
        for (number, job) in &known.jobs {
            assert_eq!(
                by_files
                    .get(&spec(*number).staging)
                    .map(ToString::to_string)
                    .as_ref(),
                Some(job)
            );
        }
        for (job, epoch) in &known.ended {
            let job = state.job(job.parse::<JobId>().unwrap()).unwrap();
            let attempt = job
                .attempts
                .iter()
                .find(|attempt| attempt.epoch == Epoch(*epoch))
                .unwrap();
            assert_eq!(
                attempt.outcome(),
                Some(Outcome::Succeeded),
                "{} was acknowledged as ended",
                job.id
            );
            assert!(job.state.is_terminal());
        }
    })
    .await
    .unwrap();
    for (number, job) in known.jobs.iter().rev().take(5) {
        assert_eq!(
            submit(&node, *number).await.to_string(),
            *job,
            "the same request gets the first reply"
        );
    }
    node.shutdown().await;
}

/// Snapshots are taken all the time, so that kills meet them as well.
fn settings(dir: &Path) -> Config {
    Config {
        snapshot_entries: 40,
        log_tail_entries: 10,
        ..config(dir)
    }
}

fn spawn(dir: &Path, from: u64) -> (Child, mpsc::Receiver<String>) {
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::the_process_that_is_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let (told, lines) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        output
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| told.send(line))
    });
    (child, lines)
}

/// Everything the child said until it was killed, `moment` after it began its work (or at once, for a short one).
fn read_until_killed(
    mut child: Child,
    lines: &mpsc::Receiver<String>,
    moment: Duration,
) -> Vec<String> {
    let mut told = Vec::new();
    if moment > Duration::from_millis(50) {
        told.push(lines.recv_timeout(Duration::from_secs(60)).unwrap());
        while told.last().is_none_or(|line| line != "up") {
            told.push(lines.recv_timeout(Duration::from_secs(60)).unwrap());
        }
    }
    std::thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
    told.extend(lines.iter());
    told
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Does nothing in a run of the tests; as a child of the test above it is the process that is killed.
#[test]
fn the_process_that_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let from: u64 = std::env::var(FROM).unwrap().parse().unwrap();
    tell("");
    let work = async {
        let node = start(settings(Path::new(&dir)), &Arc::new(World::default())).await;
        tell("up");
        let submitting = (0..AT_ONCE).map(|n| submit_for_ever(&node, from + n));
        tokio::join!(futures::future::join_all(submitting), run_jobs(&node));
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work);
}

/// One write a line: as short a write into a pipe is whole or not there.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

async fn submit_for_ever(node: &Handle, mut number: u64) {
    loop {
        tell(&format!("try {number}"));
        let command = Command::SubmitJob {
            spec: Box::new(spec(number)),
        };
        match node.propose(command, Some(RequestId(wide(number)))).await {
            Ok(Reply::JobSubmitted { job }) => tell(&format!("ack {number} {job}")),
            Err(ProposeError::Busy { .. }) => {}
            other => panic!("{other:?}"),
        }
        number += AT_ONCE;
    }
}

/// A worker that ends everything at once.
async fn run_jobs(node: &Handle) {
    let token = TokenHash([7; 32]);
    let known = node.read_stale(|state| state.tokens().next().is_some());
    let worker = if known {
        Worker::register(node, token, InstanceId([7; 16])).await
    } else {
        Worker::join(node, 7).await
    };
    let mut session = worker.attach(node);
    let mut running = BTreeMap::new();
    while let Some(order) = session.orders.recv().await {
        match order {
            Order::Assign(assigned) => {
                session
                    .reports
                    .report(ended(&assigned, Outcome::Succeeded))
                    .await
                    .unwrap();
                running.insert(assigned.epoch, assigned.job);
            }
            Order::Acknowledged { epoch } => tell(&format!("end {} {epoch}", running[&epoch])),
            other => panic!("{other:?}"),
        }
    }
}
