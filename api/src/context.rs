//! What every service shares.

use std::sync::Arc;

use stepcast_cluster::Handle;
use stepcast_estimator::Estimator;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::config::PrivacyMode;
use crate::fit::Offers;
use crate::ports::EstimatedForecasts;
use crate::staging::StagingArea;
use crate::status::Refusal;

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
    pub(crate) privacy_mode: PrivacyMode,
    /// Where every node keeps the tables and the files of jobs.
    pub(crate) places: Arc<Places>,
    /// When this server began.
    pub(crate) began: Instant,
    /// Becomes true when the server is about to end.
    pub(crate) closing: watch::Receiver<bool>,
}

/// Waits until the server is about to end, and says so.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) -> Status {
    // Without its sender the server is over already.
    let _ = closing.wait_for(|closing| *closing).await;
    Refusal::new(Code::Unavailable, "STOPPED", "the server is shutting down")
        .retry(AFTER_RESTART)
        .into()
}

/// A server that restarts is back by then.
const AFTER_RESTART: std::time::Duration = std::time::Duration::from_secs(1);
