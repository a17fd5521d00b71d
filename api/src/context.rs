//! What every service shares.

use std::sync::Arc;
use std::time::Duration;

use stepcast_cluster::{Handle, ProposeError};
use stepcast_estimator::Estimator;
use stepcast_proto::certificate::Shown;
use stepcast_scheduler::accounts::{AccountChange, Action, Actor};
use stepcast_scheduler::{Command, Rejection};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::config::PrivacyMode;
use crate::fit::Offers;
use crate::limits::Entries;
use crate::ports::EstimatedForecasts;
use crate::staging::StagingArea;
use crate::status::{self, Refusal};
use crate::turns::Turns;

/// Places that all nodes of a cluster share; empty for a folder of this node alone.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) store: String,
    pub(crate) staging: String,
}

/// The parts behind the front door. Clones share them.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) handle: Handle,
    pub(crate) estimator: Arc<Estimator>,
    pub(crate) forecasts: Arc<EstimatedForecasts>,
    pub(crate) staging: Arc<StagingArea>,
    pub(crate) offers: Arc<Offers>,
    /// Turns of estimates.
    pub(crate) estimating: Turns,
    /// Turns of large submissions that are read.
    pub(crate) reading: Turns,
    /// Turns of large sweeps, from being read until they are kept.
    pub(crate) sweeps: Turns,
    /// What people write into the audit log.
    pub(crate) entries: Arc<Entries>,
    pub(crate) privacy_mode: PrivacyMode,
    /// Where every node keeps the tables and the files of jobs.
    pub(crate) places: Arc<Places>,
    /// When this server began.
    pub(crate) began: Instant,
    /// What its port shows, if it speaks TLS.
    pub(crate) certificate: Option<Arc<Shown>>,
    /// Becomes true when the server is about to end.
    pub(crate) closing: watch::Receiver<bool>,
}

impl Context {
    /// Writes down what is about to be done to something that is not in the state. A cluster whose log knows no audit trail yet
    /// goes on without.
    pub(crate) async fn note(
        &self,
        actor: Option<Actor>,
        action: Action,
        subject: &str,
    ) -> Result<(), Status> {
        let change = AccountChange::Note {
            action,
            subject: subject.to_owned(),
        };
        let command = Command::Account { change };
        match self.handle.propose_by(actor, command, None).await {
            Ok(_) | Err(ProposeError::Rejected(Rejection::NotYet)) => Ok(()),
            Err(error) => Err(status::propose(error)),
        }
    }

    /// What comes of something that may take long, unless the server ends before: whoever waits for it is told that, and
    /// not cut off.
    pub(crate) async fn unless_closed<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let mut closing = self.closing.clone();
        tokio::select! {
            done = work => done,
            status = async {
                let status = closed(&mut closing).await;
                tokio::time::sleep(FINISH_WITHIN).await;
                status
            } => Err(status),
        }
    }
}

/// When the server is about to end, what its callers wait for may take this long.
pub(crate) const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// Waits until the server is about to end, and says so.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) -> Status {
    // Without its sender the server is over already.
    let _ = closing.wait_for(|closing| *closing).await;
    Refusal::new(Code::Unavailable, "STOPPED", "the server is shutting down")
        .hint("ask again when it is back, or ask another server of the cluster")
        .retry(AFTER_RESTART)
        .into()
}

/// A server that restarts is back by then.
const AFTER_RESTART: Duration = Duration::from_secs(1);
