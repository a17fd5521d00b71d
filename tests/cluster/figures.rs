//! How long it takes to go on: figures for benches/README.md, measured by this harness on a network that is good.
//!
//! `cargo test --release --workspace --test cluster -- --ignored --nocapture figures`; `STEPCAST_CLUSTER_KILLS` and
//! `STEPCAST_CLUSTER_NODES` choose other numbers. The machine should have nothing else to do.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stepcast_proto::v1;
use stepcast_tests::random::Random;

use crate::cluster::{Cluster, LEASE, PATIENCE};
use crate::crowd::join;
use crate::faults::{make_good, serves};
use crate::history::{History, key};
use crate::people::People;
use crate::trainers::Trainer;
use crate::wires::Wires;
use crate::{ALONE, WORKERS, begin, number, verdict};

/// Leaders killed.
const KILLS: u64 = 100;

/// Workers killed: each takes a lease.
const WORKER_KILLS: u64 = 20;

/// Of a failover that takes longer the nodes' logs are printed: something was in the way of the first election.
const SLOW: Duration = Duration::from_secs(1);

/// Between a cluster that is whole again and the next kill, so that kills fall on every moment of a heartbeat.
const BETWEEN_MS: std::ops::Range<u64> = 100..600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes, on a machine with nothing else to do: figures for benches/README.md"]
async fn figures_of_failover() {
    let mut random = begin("failover");
    let _alone = ALONE.lock().await;
    let history = History::new();
    let mut cluster = Cluster::new(Wires::Direct, &history, random.fork()).await;
    for _ in 0..number("STEPCAST_CLUSTER_NODES").unwrap_or(3) {
        cluster.grow(false).await;
    }
    cluster.hire(WORKERS).await;
    let people = People::new(cluster.servers.clone(), history.clone(), false);
    let calling = people.begin(&mut random);
    serves(&history).await;
    let kills = kill_leaders(&mut cluster, &history, &people, &mut random).await;
    let (mut restarts, mut again) = (Vec::new(), Vec::new());
    let wanted = number("STEPCAST_CLUSTER_WORKER_KILLS").unwrap_or(WORKER_KILLS);
    while (restarts.len() as u64) < wanted {
        let restart = kill_a_worker(&mut cluster, &history, &people, &mut random).await;
        if restart.waits {
            again.push(restart.took);
        } else {
            restarts.push(restart.took);
        }
    }
    people.close();
    join(calling).await;
    let jobs = people.await_ends(&mut random).await;
    let trainers = cluster.trainers.all();
    cluster.stop().await;
    tell_leaders(&kills, &jobs, &trainers);
    tell("dead worker to its job restarted elsewhere", restarts);
    if !again.is_empty() {
        tell(
            "the same of jobs that lose a worker again, which wait by rule",
            again,
        );
    }
    println!("  a lease has {} s", LEASE.as_secs());
    verdict::of(&history, &jobs, &trainers).tell();
}

/// One leader's death, and the job that was submitted at that moment: one worker is kept free for it, so that nothing but
/// the cluster is waited for.
struct Kill {
    at: Instant,
    /// The same moment by the clock that stamps are taken from.
    wall: SystemTime,
    /// When the job was acknowledged.
    served: Duration,
    /// Its key.
    job: String,
}

async fn kill_leaders(
    cluster: &mut Cluster,
    history: &History,
    people: &People,
    random: &mut Random,
) -> Vec<Kill> {
    let mut kills = Vec::new();
    for _ in 0..number("STEPCAST_CLUSTER_KILLS").unwrap_or(KILLS) {
        cluster.until_even().await;
        let between = random.within(BETWEEN_MS);
        tokio::time::sleep(Duration::from_millis(between)).await;
        let leader = cluster.await_leader().await;
        let logs = cluster.logs();
        let process = cluster.node(leader).process.take();
        let (at, wall) = (Instant::now(), SystemTime::now());
        process.into_iter().for_each(crate::process::Process::kill);
        let job = people.submit_apart(random).await;
        let job = job.unwrap_or_else(|| panic!("nothing is taken in after the leader's death"));
        let served = at.elapsed();
        if served > SLOW {
            println!(
                "{} ms after the death of node {leader}:",
                served.as_millis()
            );
            logs.tell();
        }
        kills.push(Kill {
            at,
            wall,
            served,
            job,
        });
        make_good(cluster);
        serves(history).await;
    }
    kills
}

fn tell_leaders(kills: &[Kill], jobs: &[v1::Job], trainers: &[Trainer]) {
    let (mut placed, mut started, mut served) = (Vec::new(), Vec::new(), Vec::new());
    for kill in kills {
        served.push(kill.served);
        let job = jobs.iter().find(|job| key(job) == kill.job);
        let Some(first) = job.and_then(|job| job.attempts.first()) else {
            continue;
        };
        let stamp = first.place_time.and_then(|time| {
            let seconds = u64::try_from(time.seconds).ok()?;
            Some(Duration::new(seconds, u32::try_from(time.nanos).ok()?))
        });
        let wall = kill.wall.duration_since(UNIX_EPOCH).unwrap();
        placed.extend(stamp.map(|stamp| stamp.saturating_sub(wall)));
        let trainer = trainers.iter().find(|one| one.epoch == first.epoch);
        started.extend(trainer.map(|trainer| trainer.start - kill.at));
    }
    println!("leader killed {} times", kills.len());
    tell("to the next submission acknowledged", served);
    tell("to the next placement", placed);
    tell("to the next trainer started", started);
}

/// A job that ran again after its worker had died.
struct Restart {
    took: Duration,
    /// Whether it had lost a worker before: only the first loss costs no wait.
    waits: bool,
}

/// Kills a worker that runs something; how long it took until a job of it ran elsewhere.
async fn kill_a_worker(
    cluster: &mut Cluster,
    history: &History,
    people: &People,
    random: &mut Random,
) -> Restart {
    cluster.until_even().await;
    let busy = cluster.trainers.until(PATIENCE, |all| {
        all.iter()
            .rev()
            .find(|one| one.end.is_none())
            .map(|one| (one.worker, one.epoch))
    });
    let (worker, _) = busy
        .await
        .unwrap_or_else(|| panic!("no worker runs anything"));
    let process = cluster.workers[worker].process.take();
    let at = Instant::now();
    process.into_iter().for_each(crate::process::Process::kill);
    // What ran there ends with its worker.
    let ended = cluster.trainers.until(PATIENCE, |all| {
        let here = || all.iter().filter(|one| one.worker == worker);
        let lost = here().filter(|one| one.end.is_some_and(|end| end > at));
        here()
            .all(|one| one.end.is_some())
            .then(|| lost.map(|one| one.epoch).collect::<Vec<_>>())
    });
    let lost = ended.await.unwrap_or_default();
    let begun = Instant::now();
    let restarted = 'found: loop {
        assert!(
            begun.elapsed() < PATIENCE,
            "no job of a dead worker is restarted: {lost:?}"
        );
        for job in people.newest(random).await {
            let after = job
                .attempts
                .iter()
                .skip_while(|attempt| !lost.contains(&attempt.epoch))
                .nth(1);
            let epoch = after.map(|attempt| attempt.epoch);
            let all = cluster.trainers.all();
            if let Some(trainer) = all.iter().find(|trainer| Some(trainer.epoch) == epoch) {
                let took = trainer.start - at;
                if took > LEASE + Duration::from_secs(1) {
                    println!("{} ms: {}", took.as_millis(), story(&job));
                }
                let before = job.attempts.iter();
                let mut before = before.take_while(|attempt| !lost.contains(&attempt.epoch));
                let waits = before.any(|attempt| attempt.outcome == "LEASE_EXPIRED");
                break 'found Restart { took, waits };
            }
        }
    };
    make_good(cluster);
    serves(history).await;
    restarted
}

/// What became of a job's attempts, for whoever wonders why one took long.
fn story(job: &v1::Job) -> String {
    let told = job.attempts.iter().map(|attempt| {
        let seconds = |time: Option<prost_types::Timestamp>| {
            time.map_or_else(String::new, |time| {
                format!("{}.{:03}", time.seconds % 1_000, time.nanos / 1_000_000)
            })
        };
        format!(
            "{} (epoch {}) placed {} started {} ended {} {}",
            attempt.name,
            attempt.epoch,
            seconds(attempt.place_time),
            seconds(attempt.start_time),
            seconds(attempt.end_time),
            attempt.outcome,
        )
    });
    let told: Vec<String> = told.collect();
    format!("{}: {}", job.name, told.join("; "))
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| {
        let last = times.len().saturating_sub(1);
        let place = (part * times.len() as f64).ceil() as usize;
        times
            .get(place.saturating_sub(1).min(last))
            .copied()
            .unwrap_or_default()
            .as_millis()
    };
    println!(
        "  {what}: {} times, p50 {} ms, p99 {} ms, most {} ms",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
