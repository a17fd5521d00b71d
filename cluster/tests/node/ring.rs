//! The ring on one node: a job is submitted, placed, run, recorded and over, and whoever watches sees all of it.

use std::sync::Arc;

use stepcast_cluster::session::{Order, Parting, Phase, Progress, Report};
use stepcast_cluster::{
    AttachError, Contribution, Health, ProposeError, ReportError, Update, WatchError,
};
use stepcast_records::{
    Accumulation, BatchSize, HalfMegapixels, Histogram, Precision, Quantization, Recipe, Sample,
    TrainingShape,
};
use stepcast_scheduler::ids::{AttemptNumber, Epoch, JobId};
use stepcast_scheduler::model::{EventKind, JobState, Outcome};
use stepcast_scheduler::{Command, Rejection, RequestId};

use crate::support::{
    Worker, World, assignment, config, ended, events_until, order, spec, start, submit, until,
    wide, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_once_round() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    world.stage(spec(1).staging);
    let job = submit(&node, 1).await;
    let mut watch = node.watch(job).unwrap();

    let worker = Worker::join(&node, 7).await;
    let mut session = worker.attach(&node);
    let assigned = assignment(&mut session).await;
    assert_eq!(
        (assigned.job, assigned.attempt, &assigned.gpus[..]),
        (job, AttemptNumber(1), &[0][..])
    );
    assert_eq!(assigned.spec, spec(1));
    assert_eq!(node.attached(), [worker.id]);

    let epoch = assigned.epoch;
    let progress = Progress {
        step: 500,
        steps_total: 1_000,
        step_ms: Some(730.0),
        phase: Phase::Training,
    };
    let lines = vec!["step 500".to_owned()];
    for report in [
        Report::Started {
            job,
            epoch,
            from: None,
        },
        Report::Progress { epoch, progress },
        Report::LogLines {
            epoch,
            lines: lines.clone(),
        },
        Report::Checkpointed {
            job,
            epoch,
            step: 500,
        },
        ended(&assigned, Outcome::Succeeded),
    ] {
        session.reports.report(report).await.unwrap();
    }
    assert!(matches!(order(&mut session).await, Order::Acknowledged { epoch: e } if e == epoch));

    let (mut kinds, mut seen) = (Vec::new(), (None, Vec::new()));
    while let Some(update) = within(watch.next()).await {
        match update {
            Update::Current { job, .. } => kinds.extend(job.events.iter().map(|event| event.kind)),
            Update::Event { event, .. } => kinds.push(event.kind),
            Update::Progress { progress, .. } => seen.0 = Some(progress),
            Update::Log { lines, .. } => seen.1 = lines,
            Update::Behind { .. } => panic!("a few events are never too many"),
        }
    }
    let attempt = AttemptNumber(1);
    let all = [
        EventKind::Submitted,
        EventKind::Placed {
            attempt,
            epoch,
            worker: worker.id,
        },
        EventKind::Started { attempt },
        EventKind::Checkpointed { attempt, step: 500 },
        EventKind::AttemptEnded {
            attempt,
            outcome: Outcome::Succeeded,
            step: 1_000,
        },
        EventKind::Succeeded,
    ];
    assert_eq!(kinds, all);
    assert_eq!(seen, (Some(progress), lines));
    assert_eq!(node.live(epoch).unwrap().progress, Some(progress));

    let state = node
        .read(|state| state.job(job).unwrap().state)
        .await
        .unwrap();
    assert_eq!(state, JobState::Succeeded);
    until("the removal of the job's files", || {
        !world.is_staged(spec(1).staging)
    })
    .await;
    let metrics = node.metrics_text();
    for line in [
        "stepcast_attempts_total{outcome=\"succeeded\"} 1",
        "stepcast_jobs{state=\"succeeded\"} 1",
        "stepcast_pending_jobs{reason=\"capacity\"} 0",
        "stepcast_gpus{model=\"h100\",state=\"free\"} 1",
        "stepcast_raft_leader 1",
        "stepcast_queue_wait_seconds_count 1",
        "stepcast_apply_duration_seconds_count{command=\"submit_job\"} 1",
    ] {
        assert!(
            metrics.lines().any(|l| l == line),
            "{line} is missing in\n{metrics}"
        );
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contribution_reaches_the_records_once_however_often_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    let contribution = Contribution {
        id: [5; 16],
        samples: vec![sample()],
    };
    let (first, again) = tokio::join!(
        node.contribute(contribution.clone()),
        node.contribute(contribution.clone())
    );
    assert_eq!((first, again), (Ok(()), Ok(())));
    assert_eq!(
        world.recorded().into_iter().collect::<Vec<_>>(),
        [([5; 16], vec![sample()])]
    );
    node.shutdown().await;
    assert!(node.contribute(contribution).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_gets_the_first_reply_and_another_command_under_its_id_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    let job = submit(&node, 1).await;
    assert_eq!(submit(&node, 1).await, job);
    let other = Command::SubmitJob {
        spec: Box::new(spec(2)),
    };
    let refused = node.propose(other, Some(RequestId(wide(1)))).await;
    assert!(
        matches!(
            refused,
            Err(ProposeError::Rejected(Rejection::RequestIdReused))
        ),
        "{refused:?}"
    );
    assert_eq!(node.watch(JobId(99)).err(), Some(WatchError::NoSuchJob));
    assert_eq!(node.read(|state| state.jobs().count()).await.unwrap(), 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_job_is_cancelled_and_the_worker_has_the_last_word() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    let job = submit(&node, 1).await;
    let worker = Worker::join(&node, 7).await;
    let mut session = worker.attach(&node);
    let assigned = assignment(&mut session).await;
    node.propose(Command::CancelJob { job }, None)
        .await
        .unwrap();
    let Order::Stop {
        epoch,
        why,
        grace_ms,
        ..
    } = order(&mut session).await
    else {
        panic!("no stop")
    };
    assert_eq!(
        (epoch, why),
        (
            assigned.epoch,
            stepcast_cluster::session::StopReason::Cancelled
        )
    );
    assert!(grace_ms > 0, "a checkpoint may be saved");
    session
        .reports
        .report(ended(&assigned, Outcome::Cancelled))
        .await
        .unwrap();
    let mut watch = node.watch(job).unwrap();
    events_until(&mut watch, |kind| kind == EventKind::Cancelled).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_where_it_stands_and_a_stopped_one_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    let status = node.status();
    assert_eq!(
        (status.node_id, status.leader, status.leading),
        (1, Some(1), true)
    );
    assert_eq!((status.voters, status.health), (vec![1], Health::Serving));
    node.shutdown().await;
    let refused = node.propose(Command::Sweep, None).await;
    assert!(
        matches!(refused, Err(ProposeError::Stopped(_))),
        "{refused:?}"
    );
    assert!(matches!(node.status().health, Health::Stopped(_)));
    assert_eq!(node.read_stale(|state| state.jobs().count()), 0);
}

fn sample() -> Sample {
    let shape = TrainingShape {
        recipe: Recipe::parse("flux.dev/lora+ckpt").unwrap(),
        resolution: HalfMegapixels::new(2).unwrap(),
        batch_size: BatchSize::new(4).unwrap(),
        accumulation: Accumulation::new(1).unwrap(),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
    };
    let mut histogram = Histogram::new();
    (0..20).for_each(|_| histogram.record_ms(730.0).unwrap());
    Sample {
        key: shape.on("h100".parse().unwrap()).into(),
        histogram,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_leadership() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let node = start(config(dir.path()), &world).await;
    let worker = Worker::join(&node, 7).await;
    let mut session = worker.attach(&node);
    node.shutdown().await;
    assert!(matches!(
        order(&mut session).await,
        Order::Shutdown(Parting::NotLeader)
    ));
    let report = Report::Renew {
        renewal: 1,
        epochs: vec![Epoch(1)],
    };
    assert_eq!(
        session.reports.report(report).await,
        Err(ReportError::SessionOver)
    );
    assert!(matches!(
        node.attach(worker.id, worker.instance),
        Err(AttachError::NotLeader { .. })
    ));
}
