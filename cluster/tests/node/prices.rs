//! The operator's book of prices: the leader has the state go by what it says, and what runs keeps its price.

use std::sync::Arc;
use std::time::Duration;

use stepcast_cluster::{Config, Handle, Node, Pricing};
use stepcast_records::UsdMicros;
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::{JobState, Outcome, Prices};
use stepcast_scheduler::{Command, Reply, State};

use crate::support::{Worker, World, assignment, config, end, spec, start, submit, until};

const HOUR: Duration = Duration::from_secs(3_600);

impl Pricing for World {
    fn prices(&self, _: u64) -> Option<Prices> {
        self.prices.lock().clone()
    }
}

/// Has the book say that an H100 costs so much an hour, in millionths of a dollar, or nothing.
fn says(world: &World, micros: Option<u64>) {
    let gpu = "h100".parse().unwrap();
    let said = micros.map(|micros| (gpu, UsdMicros(micros)));
    *world.prices.lock() = Some(said.into_iter().collect());
}

async fn submit_capped(node: &Handle, number: u64) -> JobId {
    let mut spec = Box::new(spec(number));
    spec.max_cost = Some(UsdMicros(50_000_000));
    match node.propose(Command::SubmitJob { spec }, None).await {
        Ok(Reply::JobSubmitted { job }) => job,
        other => panic!("{other:?}"),
    }
}

/// The price that the newest attempt of a job was placed at.
fn price_of(node: &Handle, job: JobId) -> Option<u64> {
    node.read_stale(|state| {
        let job = state.job(job).unwrap();
        let price = job.attempts.last().unwrap().price_per_hour;
        price.map(|price| price.0)
    })
}

/// What the worker's GPU costs now.
fn asks(node: &Handle, worker: &Worker) -> Option<u64> {
    node.read_stale(|state| {
        let price = state
            .worker(worker.id)
            .unwrap()
            .price_per_hour("h100".parse().unwrap(), 1);
        price.map(|price| price.0)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_with_a_limit_on_its_cost_runs_once_the_book_has_a_price() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    let worker = Worker::join(&node, 7).await;
    let mut session = worker.attach(&node);
    let capped = submit_capped(&node, 1).await;
    assert_eq!(asks(&node, &worker), None);
    says(&world, Some(2_000_000));
    let assigned = assignment(&mut session).await;
    assert_eq!(assigned.job, capped);
    assert_eq!(price_of(&node, capped), Some(2_000_000));
    // Another price is for what comes later.
    says(&world, Some(3_000_000));
    until("the new price", || asks(&node, &worker) == Some(3_000_000)).await;
    assert_eq!(price_of(&node, capped), Some(2_000_000));
    let later = submit_capped(&node, 2).await;
    end(&mut session, &assigned, Outcome::Succeeded).await;
    let assigned = assignment(&mut session).await;
    assert_eq!(assigned.job, later);
    assert_eq!(price_of(&node, later), Some(3_000_000));
    end(&mut session, &assigned, Outcome::Succeeded).await;
    // The operator takes it back.
    says(&world, None);
    until("no price", || asks(&node, &worker).is_none()).await;
    let waits = submit_capped(&node, 3).await;
    let state = node.read_stale(|state| state.job(waits).unwrap().state);
    assert_eq!(state, JobState::Pending);
    drop(session);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_goes_by_its_own_book_from_its_first_look_on_and_by_the_log_while_it_knows_none() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    says(&world, Some(2_000_000));
    let node = start(config(dir.path()), &world).await;
    let worker = Worker::join(&node, 7).await;
    until("the price", || asks(&node, &worker) == Some(2_000_000)).await;
    node.shutdown().await;
    // As where the store does not answer at the start.
    *world.prices.lock() = None;
    let node = start(config(dir.path()), &world).await;
    let mut session = worker.attach(&node);
    let job = submit_capped(&node, 1).await;
    let assigned = assignment(&mut session).await;
    assert_eq!(price_of(&node, job), Some(2_000_000));
    end(&mut session, &assigned, Outcome::Succeeded).await;
    drop(session);
    // Its time comes while nobody leads, so that the next leader's first look would place it.
    let mut spec = Box::new(spec(2));
    let now_ms = node.read_stale(State::newest_stamp_ms);
    spec.terms.not_before_ms = Some(now_ms + HOUR.as_millis() as u64);
    let submitted = node.propose(Command::SubmitJob { spec }, None).await;
    let Ok(Reply::JobSubmitted { job }) = submitted else {
        panic!("{submitted:?}");
    };
    node.shutdown().await;
    world.pass(2 * HOUR);
    says(&world, Some(4_000_000));
    let node = start(config(dir.path()), &world).await;
    let mut session = worker.attach(&node);
    assert_eq!(assignment(&mut session).await.job, job);
    assert_eq!(price_of(&node, job), Some(4_000_000));
    drop(session);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_right_after_an_upgrade_runs_at_the_price_of_the_book() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    says(&world, Some(2_000_000));
    let older = Config {
        log_format: 2,
        ..config(dir.path())
    };
    let node = Node::start(older, world.ports()).unwrap();
    assert!(node.leading().await);
    let worker = Worker::join(&node, 7).await;
    until("the older format", || {
        node.status().log_format == 2 && asks(&node, &worker).is_none()
    })
    .await;
    node.shutdown().await;
    let node = start(config(dir.path()), &world).await;
    let job = submit(&node, 1).await;
    until("a place", || {
        node.read_stale(|state| !state.job(job).unwrap().attempts.is_empty())
    })
    .await;
    assert_eq!(price_of(&node, job), Some(2_000_000));
    node.shutdown().await;
}
