//! A whole worker against a leader: registration, leases, reports, samples, cancelling, lost connections and refusals.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod leader;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use leader::{Event, Leader, PATIENCE, TOKEN, workload};
use stepcast_proto::v1;
use stepcast_worker::config::{MetricsConfig, ReplayStream, WorkerConfig};
use stepcast_worker::{Error, Refusal, run_until};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::Code;
use v1::attach_request::Report;
use v1::attach_response::Order;

/// A worker on one pretend device.
struct Worker {
    stop: Arc<Notify>,
    running: JoinHandle<Result<(), Error>>,
    folder: tempfile::TempDir,
}

impl Worker {
    fn config(servers: &[&str], state: &Path) -> WorkerConfig {
        let servers = servers.iter().map(|server| (*server).to_owned()).collect();
        let helper = vec![env!("CARGO_BIN_EXE_stepcast-worker").into()];
        let mut config = WorkerConfig::replay(servers, state.join("state"), helper);
        config.join_token = Some(TOKEN.to_owned());
        config.replay.speed = 0.0;
        config
    }

    fn start(servers: &[&str], change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Self::config(servers, folder.path());
        change(&mut config);
        let stop = Arc::new(Notify::new());
        let asked = Arc::clone(&stop);
        let running = tokio::spawn(run_until(config, async move { asked.notified().await }));
        Self {
            stop,
            running,
            folder,
        }
    }

    /// Plays steps that take their time until it is ended.
    fn endless(servers: &[&str]) -> Self {
        Self::start(servers, |config| {
            let path = config.state.with_file_name("endless.jsonl");
            let step = |step: u64| {
                format!(
                    "{{\"after_ms\":20,\"body\":{{\"type\":\"training.status\",\"data\":{{\"status\":\"running\",\"global_step\":{step},\
                     \"total_num_steps\":9000}},\"progress\":{{\"metrics\":{{\"step_speed_seconds\":0.02}}}}}}}}\n"
                )
            };
            std::fs::write(&path, (1..9_000).map(step).collect::<String>()).unwrap();
            config.replay.stream = ReplayStream::File(path);
            config.replay.speed = 1.0;
        })
    }

    async fn ended(self) -> Result<(), Error> {
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .expect("the worker does not end")
            .unwrap()
    }

    async fn stopped(self) {
        self.stop.notify_one();
        self.ended().await.unwrap();
    }

    fn attempts(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("state/attempts"))
            .unwrap()
            .count()
    }
}

#[tokio::test]
async fn a_replayed_job_is_renewed_started_followed_ended_and_contributed() {
    let mut leader = Leader::start().await;
    let worker = Worker::start(&[&leader.address], |_| {});
    let Event::Registered(offer) = leader.next().await else {
        panic!("it did not register first")
    };
    assert_eq!(
        (offer.gpus, offer.instance.len()),
        (vec!["replay".to_owned()], 32)
    );
    assert_eq!(offer.trainers, [i32::from(v1::Trainer::Replay)]);
    let hello = leader.attached().await;
    assert_eq!(
        (hello.worker.as_str(), hello.instance),
        ("workers/w2", offer.instance)
    );
    leader.assign(5, v1::Trainer::Replay, workload(150)).await;
    let (mut order, mut samples, mut ended) = (Vec::new(), None, None);
    while samples.is_none() || ended.is_none() {
        match leader.next().await {
            Event::Report(Report::Renew(renew)) => order.push(("renew", renew.epochs == [5])),
            Event::Report(Report::Started(started)) => {
                order.push(("started", started.job == "jobs/j5"))
            }
            Event::Report(Report::Progress(progress)) => {
                order.push(("progress", progress.epoch == 5))
            }
            Event::Report(Report::Checkpointed(at)) => {
                order.push(("checkpointed", [50, 100, 150].contains(&at.step)))
            }
            Event::Report(Report::Ended(end)) => ended = Some(end),
            Event::Samples(given) => samples = Some(given),
            other => drop(other),
        }
    }
    assert!(order.iter().all(|(_, right)| *right), "{order:?}");
    let first = |name| order.iter().position(|(kind, _)| *kind == name).unwrap();
    assert!(
        first("renew") < first("started") && first("started") < first("checkpointed"),
        "{order:?}"
    );
    assert!(
        order.iter().any(|(kind, _)| *kind == "progress"),
        "{order:?}"
    );
    let ended = ended.unwrap();
    assert_eq!(
        (ended.outcome(), ended.step, ended.detail.as_str()),
        (v1::Outcome::Succeeded, 150, "")
    );
    check_samples(&samples.unwrap());
    worker.stop.notify_one();
    let attempts = worker.folder.path().join("state/attempts");
    let spool = worker.folder.path().join("state/spool");
    let _folder = worker.folder;
    tokio::time::timeout(PATIENCE, worker.running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(
        std::fs::read_dir(attempts).unwrap().count(),
        0,
        "nothing private is left"
    );
    assert_eq!(
        std::fs::read_dir(spool).unwrap().count(),
        0,
        "nothing waits to be handed over"
    );
}

#[tokio::test]
async fn machines_are_told_how_it_is_while_it_works() {
    let mut leader = Leader::start().await;
    // The kernel gives ports in turn, so that nobody is given this one again so soon.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let worker = Worker::start(&[&leader.address], |config| {
        config.metrics = Some(MetricsConfig { listen, tls: None });
    });
    leader.attached().await;
    leader.assign(5, v1::Trainer::Replay, workload(150)).await;
    let ended = |event| matches!(event, Event::Report(Report::Ended(_))).then_some(());
    leader.until(ended).await;
    let ask = |path: &str| reqwest::get(format!("http://{listen}{path}"));
    let text = ask("/metrics").await.unwrap().text().await.unwrap();
    let steps = "stepcast_step_duration_seconds_count{model=\"";
    for (start, end) in [
        (steps, "gpu=\"replay\"} 150"),
        ("stepcast_worker_connected 1", ""),
        ("stepcast_outbox_pending{what=\"samples\"} ", ""),
        ("stepcast_webhook_events_total{type=\"checkpoint\"} 3", ""),
        ("stepcast_build_info{version=", ""),
    ] {
        let fits = |line: &str| line.starts_with(start) && line.ends_with(end);
        assert!(text.lines().any(fits), "{start} {end}\n{text}");
    }
    assert!(!text.contains("jobs/"), "no job is named: {text}");
    assert_eq!(ask("/readyz").await.unwrap().status(), 200);
    worker.stopped().await;
}

/// Pretend hardware only, and what a recorder can read.
fn check_samples(given: &v1::ContributeSamplesRequest) {
    assert_eq!((given.id.len(), given.samples.len()), (16, 2));
    for sample in &given.samples {
        let histogram = stepcast_records::Histogram::from_v2_bytes(&sample.histogram_v2).unwrap();
        match sample.key.as_ref().unwrap() {
            v1::sample::Key::Training(key) => {
                assert_eq!(
                    (key.recipe.as_str(), key.hardware.as_str()),
                    ("flux.dev/lora", "replayx1")
                );
                assert!(histogram.count() > 100, "{}", histogram.count());
            }
            v1::sample::Key::Validation(key) => {
                assert_eq!(
                    (key.hardware.as_str(), key.inference_steps),
                    ("replayx1", 20)
                );
                assert!(histogram.count() >= 2, "{}", histogram.count());
            }
        }
    }
}

#[tokio::test]
async fn cancelling_saves_a_checkpoint_first_and_ends_the_trainer() {
    let mut leader = Leader::start().await;
    let worker = Worker::endless(&[&leader.address]);
    leader.attached().await;
    leader.assign(3, v1::Trainer::Replay, workload(9_000)).await;
    leader
        .until(|event| {
            matches!(event, Event::Report(Report::Progress(progress)) if progress.step > 0)
                .then_some(())
        })
        .await;
    leader.stop(3, 30_000).await;
    let step = leader
        .until(|event| {
            if let Event::Report(Report::Checkpointed(at)) = event {
                Some(at.step)
            } else {
                None
            }
        })
        .await;
    let ended = leader.ended().await;
    assert_eq!(ended.outcome(), v1::Outcome::Cancelled);
    assert!(step > 0 && ended.step >= step, "{step} {}", ended.step);
    worker.stopped().await;
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_the_run_goes_on() {
    let mut leader = Leader::start().await;
    let worker = Worker::endless(&[&leader.address]);
    leader.attached().await;
    leader.assign(4, v1::Trainer::Replay, workload(9_000)).await;
    assert_eq!(leader.started().await, 4);
    leader.cut().await;
    leader
        .until(|event| {
            if let Event::Registered(_) = event {
                panic!("it registered again")
            } else {
                matches!(event, Event::Attached(..)).then_some(())
            }
        })
        .await;
    assert_eq!(leader.started().await, 4, "what runs is said again");
    assert_eq!(worker.attempts(), 1);
    leader.order(Order::Drain(v1::Drain { grace_ms: 0 })).await;
    assert_eq!(leader.ended().await.outcome(), v1::Outcome::Preempted);
    // A drained worker that is used again takes work again.
    leader.assign(5, v1::Trainer::Replay, workload(9_000)).await;
    assert_eq!(leader.started().await, 5);
    worker.stopped().await;
    assert_eq!(leader.ended().await.outcome(), v1::Outcome::Preempted);
}

#[tokio::test]
async fn a_worker_that_is_stopped_says_so_at_once_and_on_every_connection() {
    let mut leader = Leader::start().await;
    // Its trainer saves nothing: it would be waited for as long as a checkpoint may take.
    let worker = Worker::start(&[&leader.address], |config| {
        config.replay.stream = ReplayStream::Shipped("stuck".to_owned());
    });
    assert!(!leader.attached().await.leaving);
    leader.assign(4, v1::Trainer::Replay, workload(60)).await;
    assert_eq!(leader.started().await, 4);
    worker.stop.notify_one();
    leader.left().await;
    leader.cut().await;
    assert!(leader.attached().await.leaving, "another leader knows too");
    leader.left().await;
    leader.stop(4, 0).await;
    assert_eq!(leader.ended().await.epoch, 4);
    worker.ended().await.unwrap();
}

#[tokio::test]
async fn an_idle_worker_that_is_stopped_is_heard_before_it_is_gone() {
    let mut leader = Leader::start().await;
    let worker = Worker::start(&[&leader.address], |_| {});
    leader.attached().await;
    worker.stopped().await;
    leader.left().await;
}

#[tokio::test]
async fn a_server_that_comes_late_is_found() {
    let early = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = early.local_addr().unwrap();
    let worker = Worker::start(&[&format!("http://{address}")], |_| {});
    for _tries in 0..3 {
        drop(
            tokio::time::timeout(PATIENCE, early.accept())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    drop(early);
    let mut leader = Leader::on(
        tokio::net::TcpListener::bind(address).await.unwrap(),
        10_000,
        Vec::new(),
    );
    leader.attached().await;
    worker.stopped().await;
}

#[tokio::test]
async fn the_leader_is_found_by_what_a_follower_says() {
    let mut leader = Leader::start().await;
    let follower = Leader::start().await;
    *follower.ways.refusal.lock().unwrap() = Some((
        Code::Unavailable,
        "NOT_LEADER",
        Some(leader.address.clone()),
    ));
    let worker = Worker::start(&[&follower.address], |_| {});
    leader.attached().await;
    worker.stopped().await;
}

#[tokio::test]
async fn a_running_attempt_goes_on_with_the_next_leader() {
    let mut first = Leader::with(6_000, Vec::new()).await;
    let mut second = Leader::with(6_000, Vec::new()).await;
    let worker = Worker::endless(&[&first.address, &second.address]);
    first.attached().await;
    first.assign(9, v1::Trainer::Replay, workload(9_000)).await;
    assert_eq!(first.started().await, 9);
    // The first hangs: it accepts everything and answers nothing. Only its silence can tell the worker.
    first.ways.answers.store(false, Ordering::SeqCst);
    second.attached().await;
    let renewed = second.renewed().await;
    assert_eq!(renewed, [9], "the lease is asked for at once");
    // Past every deadline that the first leader's renewals gave.
    let mut over = std::pin::pin!(second.ended());
    let lease = std::time::Duration::from_secs(6);
    assert!(tokio::time::timeout(lease, &mut over).await.is_err());
    worker.stopped().await;
}

#[tokio::test]
async fn a_dead_server_is_passed_over_at_once() {
    let mut leader = Leader::start().await;
    let gone = |_| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let dead: Vec<String> = (0..3).map(gone).collect();
    let servers = [&dead[0], &dead[1], &dead[2], &leader.address].map(String::as_str);
    let worker = Worker::start(&servers, |_| {});
    leader.attached().await;
    worker.stopped().await;
}

#[tokio::test]
async fn a_worker_that_is_not_wanted_says_what_to_do() {
    let leader = Leader::start().await;
    let wrong = Worker::start(&[&leader.address], |config| {
        config.join_token = Some("scw_wrong".to_owned())
    });
    let error = wrong.ended().await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(Refusal::Token(_))),
        "{error}"
    );
    assert!(error.to_string().contains("--join-token-file"), "{error}");
    let missing = Worker::start(&[&leader.address], |config| config.join_token = None);
    assert!(matches!(missing.ended().await.unwrap_err(), Error::NoToken));
    *leader.ways.refusal.lock().unwrap() = Some((Code::FailedPrecondition, "TOKEN_IN_USE", None));
    let second = Worker::start(&[&leader.address], |_| {});
    let error = second.ended().await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(Refusal::InUse(_))),
        "{error}"
    );
}

#[tokio::test]
async fn a_worker_that_is_replaced_ends_its_trainer_and_itself() {
    let mut leader = Leader::start().await;
    let worker = Worker::endless(&[&leader.address]);
    leader.attached().await;
    leader.assign(6, v1::Trainer::Replay, workload(9_000)).await;
    assert_eq!(leader.started().await, 6);
    leader
        .order(Order::Parting(v1::Parting::Replaced.into()))
        .await;
    let error = worker.ended().await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(Refusal::Replaced(_))),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_renewal_ends_the_attempt() {
    let mut leader = Leader::with(3_000, Vec::new()).await;
    let worker = Worker::endless(&[&leader.address]);
    leader.attached().await;
    leader.assign(7, v1::Trainer::Replay, workload(9_000)).await;
    assert_eq!(leader.started().await, 7);
    leader.ways.grants.store(false, Ordering::SeqCst);
    assert_eq!(leader.ended().await.outcome(), v1::Outcome::Preempted);
    worker.stopped().await;
}
