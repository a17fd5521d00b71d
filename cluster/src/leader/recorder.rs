//! Gathers workers' contributions for a moment and records them together. Samples never enter the log.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::sync::{mpsc, oneshot};

use crate::ports::{Contribution, NotRecorded, PortError, RecordSink};
use crate::runtime::{Runtime, timeout};

/// Contributions recorded at once: enough for one table file, few enough to retry as a whole.
const BATCH: usize = 256;

/// Contributions that wait. A worker keeps what is refused in its spool and sends it again.
const WAITING: usize = 1024;

/// A store that has not answered by then is not going to: the batch is refused, and the next may fare better. Longer than
/// any store needs, and what it still does with the batch is no harm, since an id is stored once.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a contribution was not recorded. The worker keeps it and sends it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContributeError {
    /// Too many are waiting.
    #[error("too many contributions are waiting")]
    Busy,
    /// The records could not be written.
    #[error("the records could not be written")]
    Failed,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopped,
}

/// The way in.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Waiting>,
}

type Waiting = (Contribution, oneshot::Sender<Result<(), ContributeError>>);

impl Recorder {
    /// A recorder, and the task behind it, which ends when the last recorder is dropped.
    pub(crate) fn new(
        sink: Arc<dyn RecordSink>,
        every: Duration,
        runtime: Arc<dyn Runtime>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(WAITING);
        (Self { queue }, run(sink, every, PATIENCE, runtime, waiting))
    }

    /// Waits until the contribution is durable.
    pub(crate) async fn contribute(
        &self,
        contribution: Contribution,
    ) -> Result<(), ContributeError> {
        let (answer, recorded) = oneshot::channel();
        self.queue
            .try_send((contribution, answer))
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => ContributeError::Busy,
                mpsc::error::TrySendError::Closed(_) => ContributeError::Stopped,
            })?;
        recorded.await.unwrap_or(Err(ContributeError::Stopped))
    }
}

async fn run(
    sink: Arc<dyn RecordSink>,
    every: Duration,
    patience: Duration,
    runtime: Arc<dyn Runtime>,
    mut waiting: mpsc::Receiver<Waiting>,
) {
    while let Some(first) = waiting.recv().await {
        let batch = gather(first, every, runtime.as_ref(), &mut waiting).await;
        let (contributions, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let ids: Vec<[u8; 16]> = contributions.iter().map(|one| one.id).collect();
        let recorded = record(sink.as_ref(), contributions, patience, runtime.as_ref()).await;
        let failure = recorded.err();
        if let Some(NotRecorded { error, kept }) = &failure {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                count = ids.len() - kept.len().min(ids.len()),
                "contributions were not recorded; workers send them again"
            );
        }
        for (id, answer) in ids.into_iter().zip(answers) {
            let kept = failure
                .as_ref()
                .is_none_or(|failure| failure.kept.contains(&id));
            // A worker that is gone asks again with the same id.
            let _ = answer.send(kept.then_some(()).ok_or(ContributeError::Failed));
        }
    }
}

async fn record(
    sink: &dyn RecordSink,
    contributions: Vec<Contribution>,
    patience: Duration,
    runtime: &dyn Runtime,
) -> Result<(), NotRecorded> {
    match timeout(runtime, patience, sink.record(contributions)).await {
        Some(recorded) => recorded,
        None => Err(PortError::new("the store did not answer in time").into()),
    }
}

/// Everything that comes within `every` of the first, up to one batch.
async fn gather(
    first: Waiting,
    every: Duration,
    runtime: &dyn Runtime,
    waiting: &mut mpsc::Receiver<Waiting>,
) -> Vec<Waiting> {
    let mut over = runtime.sleep(every);
    let mut batch = vec![first];
    while batch.len() < BATCH {
        match select(pin!(waiting.recv()), &mut over).await {
            Either::Left((Some(next), _)) => batch.push(next),
            Either::Left((None, _)) | Either::Right(_) => break,
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use futures::future::{BoxFuture, join_all};
    use parking_lot::Mutex;

    use super::*;
    use crate::runtime::Tokio;

    #[derive(Default)]
    struct Sink {
        batches: Mutex<Vec<Vec<[u8; 16]>>>,
        failing: Mutex<bool>,
    }

    impl RecordSink for Sink {
        fn record(
            &self,
            contributions: Vec<Contribution>,
        ) -> BoxFuture<'_, Result<(), NotRecorded>> {
            Box::pin(async move {
                if *self.failing.lock() {
                    let odd = contributions.iter().filter(|c| c.id[0] % 2 == 1);
                    return Err(NotRecorded {
                        error: PortError::new("one of the tables is away"),
                        kept: odd.map(|c| c.id).collect(),
                    });
                }
                self.batches
                    .lock()
                    .push(contributions.iter().map(|c| c.id).collect());
                Ok(())
            })
        }
    }

    fn contribution(n: u8) -> Contribution {
        Contribution {
            id: [n; 16],
            samples: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_comes_together_is_recorded_together_and_then_acknowledged() {
        let sink = Arc::new(Sink::default());
        let (recorder, task) =
            Recorder::new(sink.clone(), Duration::from_millis(5), Arc::new(Tokio));
        let task = tokio::spawn(task);
        let answers = join_all((0..5).map(|n| recorder.contribute(contribution(n)))).await;
        assert!(answers.iter().all(|answer| *answer == Ok(())));
        assert_eq!(
            *sink.batches.lock(),
            [(0..5).map(|n| [n; 16]).collect::<Vec<_>>()]
        );
        drop(recorder);
        assert!(task.await.is_ok());
    }

    #[tokio::test]
    async fn a_failure_is_told_to_everybody_in_the_batch_whom_it_concerns_and_the_next_one_works() {
        let sink = Arc::new(Sink::default());
        let (recorder, task) =
            Recorder::new(sink.clone(), Duration::from_millis(5), Arc::new(Tokio));
        tokio::spawn(task);
        *sink.failing.lock() = true;
        let answers = join_all((0..3).map(|n| recorder.contribute(contribution(n)))).await;
        let failed = Err(ContributeError::Failed);
        assert_eq!(answers, [failed, Ok(()), failed]);
        *sink.failing.lock() = false;
        assert_eq!(recorder.contribute(contribution(2)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_store_that_never_answers_is_given_up() {
        struct Silent;
        impl RecordSink for Silent {
            fn record(&self, _: Vec<Contribution>) -> BoxFuture<'_, Result<(), NotRecorded>> {
                Box::pin(std::future::pending())
            }
        }
        let (queue, waiting) = mpsc::channel(1);
        let short = Duration::from_millis(5);
        tokio::spawn(run(
            Arc::new(Silent),
            short,
            short,
            Arc::new(Tokio),
            waiting,
        ));
        assert_eq!(
            Recorder { queue }.contribute(contribution(1)).await,
            Err(ContributeError::Failed)
        );
    }

    #[tokio::test]
    async fn a_full_queue_refuses_instead_of_waiting() {
        let sink = Arc::new(Sink::default());
        let (recorder, task) = Recorder::new(sink, Duration::from_millis(5), Arc::new(Tokio));
        let mut waiting: Vec<_> = (0..WAITING)
            .map(|_| Box::pin(recorder.contribute(contribution(0))))
            .collect();
        for one in &mut waiting {
            assert!(futures::poll!(one.as_mut()).is_pending());
        }
        assert_eq!(
            recorder.contribute(contribution(9)).await,
            Err(ContributeError::Busy)
        );
        drop((waiting, task));
    }
}
