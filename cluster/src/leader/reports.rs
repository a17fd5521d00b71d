//! What an attached worker says: renewals and progress stay in memory, facts go into the log.

use std::sync::Arc;
use std::time::Duration;

use stepcast_scheduler::ids::{Epoch, InstanceId, JobId, WorkerId};
use stepcast_scheduler::model::Outcome;
use stepcast_scheduler::model::limits::DETAIL_BYTES_MAX;
use stepcast_scheduler::{Command, State};
use tokio::sync::{Semaphore, mpsc};

use super::context::Leader;
use super::{expiry, view};
use crate::error::{ProposeError, ReportError};
use crate::session::{Order, Report, StopReason};
use crate::watch::Update;

/// Facts of one worker on their way into the log. Beyond it the worker's stream is read no further.
const FACTS: usize = 64;

/// Renewals of one worker that wait to be confirmed. One comes every few seconds and is confirmed in milliseconds.
const RENEWALS: usize = 4;

/// Epochs in one renewal: many times what the GPUs of one host can run.
const RENEWED: usize = 256;

/// A fact that found no room in the log is tried again this often before the worker has to send it again.
const TRIES: u32 = 5;

/// An open session with a worker: its orders, and the way to report.
#[derive(Debug)]
pub struct Session {
    /// What the worker is told. Its end, or [`Order::Shutdown`], ends the session.
    pub orders: mpsc::Receiver<Order>,
    /// What the worker says. The session is closed when the last clone is dropped.
    pub reports: Reports,
}

/// Where a worker's reports go.
#[derive(Clone)]
pub struct Reports(Arc<Inner>);

struct Inner {
    leader: Arc<Leader>,
    worker: WorkerId,
    instance: InstanceId,
    number: u64,
    facts: Arc<Semaphore>,
    renewals: Arc<Semaphore>,
}

impl Session {
    /// Opens a session on this leadership; everything the state wants of the worker is ordered at once. One that leaves is
    /// given up with the next look at who stays away.
    pub(crate) fn open(
        leader: Arc<Leader>,
        worker: WorkerId,
        instance: InstanceId,
        is_leaving: bool,
    ) -> Self {
        let (number, orders) = leader.sessions.open(worker, instance, is_leaving);
        leader.signals.worker(worker);
        leader.signals.plan.notify_one();
        let facts = Arc::new(Semaphore::new(FACTS));
        Self {
            orders,
            reports: Reports(Arc::new(Inner {
                leader,
                worker,
                instance,
                number,
                facts,
                renewals: Arc::new(Semaphore::new(RENEWALS)),
            })),
        }
    }
}

impl Reports {
    /// Takes one report. Waits only if many of this worker's facts are on their way into the log.
    pub async fn report(&self, report: Report) -> Result<(), ReportError> {
        if self.0.leader.is_over() {
            return Err(ReportError::SessionOver);
        }
        match report {
            Report::Renew { renewal, epochs } => self.renew(renewal, epochs).await,
            Report::Progress { epoch, progress } => {
                self.0.live(epoch, |leader, job| {
                    let left = leader.heard(job, epoch, progress);
                    let staging = &leader.ports.staging;
                    staging.keep_progress(job, epoch, &progress, left);
                    let update = Update::Progress {
                        epoch,
                        progress,
                        left,
                    };
                    leader.hub.live(job, &update);
                });
                Ok(())
            }
            Report::LogLines { epoch, lines } => {
                self.0.live(epoch, |leader, job| {
                    leader.ports.staging.keep_lines(job, epoch, &lines);
                    let lines = leader.live.lines(job, epoch, lines);
                    leader.hub.live(job, &Update::Log { epoch, lines });
                });
                Ok(())
            }
            Report::Started { job, epoch, from } => {
                // The first part of a gang speaks for all.
                let speaks = self.0.rank(epoch).is_none_or(|rank| rank == 0);
                if let Some(step) = from.filter(|_| speaks) {
                    self.0.live(epoch, |leader, job| {
                        leader.live.goes_on_from(job, epoch, step)
                    });
                    self.goes_on(job, epoch, step).await?;
                }
                let command = match self.0.rank(epoch) {
                    None => Command::StartAttempt { job, epoch },
                    Some(_) => Command::StartPart {
                        job,
                        epoch,
                        worker: self.0.worker,
                    },
                };
                self.fact(epoch, false, command).await
            }
            Report::Checkpointed { job, epoch, step } => {
                // The first part of a gang speaks for all.
                if self.0.rank(epoch).is_some_and(|rank| rank > 0) {
                    return Ok(());
                }
                self.fact(epoch, false, Command::Checkpoint { job, epoch, step })
                    .await
            }
            Report::Ended {
                job,
                epoch,
                outcome,
                step,
                detail,
            } => {
                let detail = tail(detail);
                let command = match self.0.rank(epoch) {
                    None => Command::EndAttempt {
                        job,
                        epoch,
                        outcome,
                        step,
                        detail,
                    },
                    Some(_) => Command::EndPart {
                        job,
                        epoch,
                        worker: self.0.worker,
                        outcome,
                        step,
                        detail,
                    },
                };
                self.fact(epoch, true, command).await
            }
            Report::Leaving => self.leave().await,
        }
    }

    /// Takes down which step an attempt goes on from, where that is not the one that the state takes for granted.
    async fn goes_on(&self, job: JobId, epoch: Epoch, step: u64) -> Result<(), ReportError> {
        let is_new = |state: &State| view::begins_elsewhere(state, epoch, step);
        if !self.0.leader.replicated.read(is_new) {
            return Ok(());
        }
        tracing::info!(%job, %epoch, step, "an attempt goes on from another step than its job's newest checkpoint");
        self.fact(epoch, false, Command::GoOnFrom { job, epoch, step })
            .await
    }

    /// Has nothing more be placed on this worker, at once and not when a whole lease has passed without it. The session is
    /// held until that is in the log, so that its end tells the worker that it may go.
    async fn leave(&self) -> Result<(), ReportError> {
        let inner = Arc::clone(&self.0);
        let leader = &self.0.leader;
        if !leader.sessions.leave(inner.worker, inner.number) {
            return Err(ReportError::SessionOver);
        }
        if leader
            .replicated
            .read(|state| !view::is_present(state, inner.worker))
        {
            return Ok(());
        }
        tracing::info!(worker = %inner.worker, "a worker leaves");
        let mut leaving = Box::pin(async move {
            // What is not taken now is proposed again with the next look at who stays away.
            expiry::lose(&inner.leader, inner.worker, inner.instance).await;
        });
        if futures::poll!(leaving.as_mut()).is_pending() {
            leader.runtime.spawn(leaving);
        }
        Ok(())
    }

    /// Renews once it is certain that this node has led since it was asked: one that was paused, or is cut off, may have
    /// been deposed without knowing, and its word would outlast the lease that the new leader keeps. In the background, so
    /// that what comes behind is not kept waiting.
    async fn renew(&self, renewal: u64, epochs: Vec<Epoch>) -> Result<(), ReportError> {
        self.0.tell(Vec::new)?;
        // Without room the worker gets no answer, and asks again.
        let Ok(permit) = Arc::clone(&self.0.renewals).try_acquire_owned() else {
            return Ok(());
        };
        let inner = Arc::clone(&self.0);
        let mut renewing = Box::pin(async move {
            // A session that has ended meanwhile hears nothing.
            if inner.leader.proposer.confirm_read().await.is_ok() && !inner.leader.is_over() {
                let _ = inner.renew(renewal, epochs);
            }
            drop(permit);
        });
        if futures::poll!(renewing.as_mut()).is_pending() {
            self.0.leader.runtime.spawn(renewing);
        }
        Ok(())
    }

    /// Puts a fact into the log in the background, so that renewals behind it are not kept waiting.
    async fn fact(&self, epoch: Epoch, ends: bool, command: Command) -> Result<(), ReportError> {
        let inner = Arc::clone(&self.0);
        if inner
            .leader
            .replicated
            .read(|state| view::is_anothers(state, epoch, inner.worker))
        {
            tracing::warn!(worker = %inner.worker, %epoch, "a worker reports on another worker's attempt");
            return inner.tell(|| {
                vec![if ends {
                    Order::Acknowledged { epoch }
                } else {
                    lease_lost(epoch)
                }]
            });
        }
        let permit = Arc::clone(&self.0.facts)
            .acquire_owned()
            .await
            .map_err(|_| ReportError::SessionOver)?;
        let mut recording = Box::pin(async move {
            inner.record(epoch, ends, command).await;
            drop(permit);
        });
        // The first look at it puts the fact into the log's queue, so that facts stand there in the order of the reports.
        if futures::poll!(recording.as_mut()).is_pending() {
            self.0.leader.runtime.spawn(recording);
        }
        Ok(())
    }
}

impl Inner {
    /// Renews what the state and the table both hold for this worker; the worker ends what is missing in the answer.
    fn renew(&self, renewal: u64, mut epochs: Vec<Epoch>) -> Result<(), ReportError> {
        epochs.truncate(RENEWED);
        let leader = &self.leader;
        let now = leader.now();
        let live = leader
            .replicated
            .read(|state| view::held_on(&view::on(state, self.worker), self.worker));
        let renewed = {
            let mut leases = leader.leases.lock();
            leases.grant(&live, now);
            leases.renew(self.worker, &epochs, &live, now)
        };
        let lost: Vec<Epoch> = epochs
            .into_iter()
            .filter(|epoch| !renewed.contains(epoch))
            .collect();
        let lease_term_ms = leader.lease_term_ms();
        self.tell(move || {
            let mut orders = vec![Order::Renewed {
                renewal,
                epochs: renewed,
                lease_term_ms,
            }];
            orders.extend(lost.into_iter().map(lease_lost));
            orders
        })
    }

    fn live(&self, epoch: Epoch, tell: impl FnOnce(&Leader, JobId)) {
        let mine = self
            .leader
            .leases
            .lock()
            .held(epoch, self.worker)
            .filter(|held| held.is_first());
        // An attempt that is over, or another worker's, has nothing to say; nor have the other parts of a gang.
        if let Some(held) = mine {
            tell(&self.leader, held.job);
        }
    }

    /// The rank of this worker's part of an attempt, if it is one of several.
    fn rank(&self, epoch: Epoch) -> Option<u8> {
        let replicated = &self.leader.replicated;
        replicated.read(|state| view::rank(state, epoch, self.worker))
    }

    async fn record(&self, epoch: Epoch, ends: bool, command: Command) {
        let run = match &command {
            Command::EndAttempt {
                outcome: Outcome::Succeeded,
                ..
            } => self
                .leader
                .replicated
                .read(|state| view::expected(state, epoch)),
            _ => None,
        };
        for _ in 0..TRIES {
            if self.leader.is_over() {
                return;
            }
            let told = match self.leader.proposer.propose(command.clone(), None).await {
                Ok(_) if ends => {
                    if let Some((since_ms, expected)) = run {
                        let took_ms = self.leader.proposer.now_ms().saturating_sub(since_ms);
                        self.leader
                            .metrics
                            .ran(Duration::from_millis(took_ms), expected);
                    }
                    self.tell(|| vec![Order::Acknowledged { epoch }])
                }
                Ok(_) => Ok(()),
                // The state knows better: the attempt is over, or was never this worker's.
                Err(ProposeError::Rejected(_)) if ends => {
                    self.tell(|| vec![Order::Acknowledged { epoch }])
                }
                Err(ProposeError::Rejected(rejection)) => {
                    tracing::debug!(%rejection, %epoch, "a report came too late");
                    self.tell(|| vec![lease_lost(epoch)])
                }
                Err(ProposeError::Busy { retry_ms } | ProposeError::Stalled { retry_ms, .. }) => {
                    let wait = Duration::from_millis(retry_ms);
                    self.leader.runtime.sleep(wait).await;
                    continue;
                }
                // The worker says it again until it is acknowledged; the others are repeated by what comes after them.
                Err(error) => {
                    tracing::warn!(%error, %epoch, "a worker's report was not taken into the log");
                    Ok(())
                }
            };
            if told.is_err() {
                tracing::debug!(%epoch, "the answer to a report found no session");
            }
            return;
        }
    }

    fn tell(&self, orders: impl FnOnce() -> Vec<Order>) -> Result<(), ReportError> {
        let told = self.leader.sessions.tell_session(
            self.worker,
            self.number,
            |_| orders(),
            self.leader.now(),
        );
        told.then_some(()).ok_or(ReportError::SessionOver)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leader
            .sessions
            .close(self.worker, self.number, self.leader.now());
    }
}

impl std::fmt::Debug for Reports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reports")
            .field("worker", &self.0.worker)
            .finish_non_exhaustive()
    }
}

/// The end of a text, as much of it as the state keeps: what is longer would only be refused by the log.
fn tail(text: String) -> String {
    let from = text.ceil_char_boundary(text.len().saturating_sub(DETAIL_BYTES_MAX));
    if from == 0 {
        text
    } else {
        text[from..].to_owned()
    }
}

fn lease_lost(epoch: Epoch) -> Order {
    Order::Stop {
        job: None,
        epoch,
        why: StopReason::LeaseLost,
        grace_ms: 0,
    }
}
