//! The bridge from what the log does to those who care: watchers of jobs on every node, and the duties of a leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stepcast_scheduler::model::{EventKind, Job, JobEvent};
use stepcast_scheduler::{Command, Effect};

use crate::consensus::log::Position;
use crate::credentials::Keeper;
use crate::leader::Signals;
use crate::metrics::Metrics;
use crate::replica::Follow;
use crate::snapshotter::Due;
use crate::watch::{Hub, Update, Watch};

/// A watch of one job: a stream of [`JobUpdate`]s that starts with the job as it is and ends with it.
pub type JobWatch = Watch<Job, JobEvent>;

/// One thing a job's watcher is told.
pub type JobUpdate = Update<Job, JobEvent>;

/// Everybody who watches a job on this node.
pub(crate) type JobHub = Hub<Job, JobEvent>;

/// Passes effects on. It only takes note, since the apply thread waits for it.
pub(crate) struct Follower {
    pub(crate) hub: Arc<JobHub>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) due: Arc<Due>,
    pub(crate) snapshot_index: Arc<AtomicU64>,
    pub(crate) credentials: Arc<dyn Keeper>,
}

impl Follow for Follower {
    fn changed(&self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::JobChanged { job, event } => {
                    self.hub.event(*job, event.seq, event, event.kind.is_last());
                }
                Effect::DropCredentials { staging } => self.credentials.forget(staging),
                _ => {}
            }
        }
    }

    fn lead(&self, effects: &[Effect]) {
        for effect in effects {
            match *effect {
                Effect::Dispatch { worker, .. }
                | Effect::Stop { worker, .. }
                | Effect::WorkerChanged { worker } => {
                    self.signals.worker(worker);
                }
                Effect::Plan => self.signals.plan.notify_one(),
                Effect::DropStaging { staging } => self.signals.dropped(staging),
                // Done on every node already.
                Effect::DropCredentials { .. } => {}
                Effect::JobChanged { event, .. } => {
                    if let EventKind::AttemptEnded { outcome, .. } = event.kind {
                        self.metrics.attempt_ended(outcome);
                    }
                }
            }
        }
    }

    fn applied(&self, command: &Command, took: Duration) {
        self.metrics.applied(command, took);
    }

    fn grown(&self, entries: u64, bytes: u64) {
        self.due.applied(entries, bytes);
    }

    fn replaced(&self, at: Position) {
        self.snapshot_index.fetch_max(at.index, Ordering::AcqRel);
        self.hub.restart();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use futures::FutureExt;
    use stepcast_scheduler::ids::{AttemptNumber, Epoch, JobId, StagingId, WorkerId};
    use stepcast_scheduler::model::{Outcome, StopReason};

    use super::*;
    use crate::credentials::MemoryKeeper;

    fn follower() -> Follower {
        Follower {
            hub: Arc::default(),
            signals: Arc::default(),
            metrics: Arc::default(),
            due: Arc::new(Due::new(&crate::Config::new("/nowhere"))),
            snapshot_index: Arc::default(),
            credentials: Arc::new(MemoryKeeper::default()),
        }
    }

    #[test]
    fn effects_say_where_to_look_and_the_newest_signal_is_enough() {
        let follower = follower();
        let (job, epoch) = (JobId(1), Epoch(5));
        follower.lead(&[
            Effect::Dispatch {
                worker: WorkerId(2),
                job,
                epoch,
            },
            Effect::Stop {
                worker: WorkerId(3),
                job,
                epoch,
                why: StopReason::Cancelled,
            },
            Effect::WorkerChanged {
                worker: WorkerId(2),
            },
            Effect::Plan,
            Effect::Plan,
            Effect::DropStaging {
                staging: StagingId([7; 16]),
            },
        ]);
        let workers = follower.signals.workers().now_or_never().unwrap();
        assert_eq!(
            workers.into_iter().collect::<Vec<_>>(),
            [WorkerId(2), WorkerId(3)]
        );
        assert!(follower.signals.plan.notified().now_or_never().is_some());
        assert!(follower.signals.plan.notified().now_or_never().is_none());
        assert_eq!(
            follower
                .signals
                .take_dropped()
                .into_iter()
                .collect::<Vec<_>>(),
            [StagingId([7; 16])]
        );
    }

    #[test]
    fn attempts_are_counted_by_their_end_and_only_where_they_were_led() {
        let follower = follower();
        let kind = EventKind::AttemptEnded {
            attempt: AttemptNumber(1),
            outcome: Outcome::LeaseExpired,
            step: 0,
        };
        let ended = [Effect::JobChanged {
            job: JobId(1),
            event: JobEvent {
                seq: 3,
                stamp_ms: 0,
                kind,
            },
        }];
        follower.changed(&ended);
        assert_eq!(follower.metrics.attempts_ended(Outcome::LeaseExpired), 0);
        follower.lead(&ended);
        assert_eq!(follower.metrics.attempts_ended(Outcome::LeaseExpired), 1);
    }
}
