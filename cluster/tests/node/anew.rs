//! A job that goes on where its newest checkpoint is not: the worker says so, and the state goes by it.

use std::time::Duration;

use stepcast_cluster::session::Report;
use stepcast_scheduler::codec;
use stepcast_scheduler::model::EventKind;

use crate::support::{Worker, World, alone, assignment, events_until, submit, until};

const TERM: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_begins_anew_where_its_checkpoint_is_not() {
    let (_dir, world, node) = alone(World::still()).await;
    until("the newest format", || {
        node.status().log_format == codec::VERSION
    })
    .await;
    let job = submit(&node, 1).await;
    let mut watch = node.watch(job).unwrap();
    let lost = Worker::join(&node, 7).await;
    let mut session = lost.attach(&node);
    let first = assignment(&mut session).await;
    assert_eq!(first.resume_step, 0);
    let checkpointed = Report::Checkpointed {
        job,
        epoch: first.epoch,
        step: 120,
    };
    session.reports.report(checkpointed).await.unwrap();
    events_until(&mut watch, |kind| {
        matches!(kind, EventKind::Checkpointed { .. })
    })
    .await;
    let other = Worker::join(&node, 8).await;
    let mut elsewhere = other.attach(&node);
    world.pass(TERM + Duration::from_secs(1));
    let second = assignment(&mut elsewhere).await;
    assert_eq!(second.resume_step, 120);
    let started = |from| Report::Started {
        job,
        epoch: second.epoch,
        from: Some(from),
    };
    // Said again after a reconnect, it is told once.
    for _ in 0..2 {
        elsewhere.reports.report(started(0)).await.unwrap();
    }
    let checkpointed = Report::Checkpointed {
        job,
        epoch: second.epoch,
        step: 40,
    };
    elsewhere.reports.report(checkpointed).await.unwrap();
    let is_saved = |kind: EventKind| matches!(kind, EventKind::Checkpointed { step: 40, .. });
    let kinds = events_until(&mut watch, is_saved).await;
    let of_second: Vec<EventKind> = kinds
        .into_iter()
        .skip_while(|kind| !matches!(kind, EventKind::Placed { .. }))
        .collect();
    let attempt = second.attempt;
    assert_eq!(
        of_second[1..],
        [
            EventKind::GoesOn { attempt, step: 0 },
            EventKind::Started { attempt },
            EventKind::Checkpointed { attempt, step: 40 },
        ]
    );
    let step = node.read_stale(|state| state.job(job).unwrap().checkpoint_step());
    assert_eq!(step, 40);
    node.shutdown().await;
}
