//! Hands waiting samples to the leader, one contribution at a time, until it has said that it keeps them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::host::{Host, Refused};
use crate::session::backoff::Backoff;

/// How often the folder is looked at without being told: samples that could not be sent before a restart wait there.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Sends whatever waits, for as long as the worker runs.
pub(crate) async fn run(host: Arc<Host>, added: Arc<Notify>) {
    let mut backoff = Backoff::default();
    loop {
        let wait = match send_all(&host).await {
            Ok(()) => {
                backoff.reset();
                LOOK_EVERY
            }
            Err(why) => {
                tracing::debug!(why, "samples wait");
                backoff.next()
            }
        };
        let _told = tokio::time::timeout(wait, added.notified()).await;
    }
}

/// Sends everything that waits now; the first refusal for now ends it.
pub(crate) async fn send_all(host: &Host) -> Result<(), String> {
    for contribution in host.state.spooled().map_err(|error| error.to_string())? {
        match host.wire.contribute(&contribution).await {
            Ok(()) => {}
            Err(Refused::Never(why)) => {
                tracing::warn!(why, "a contribution is refused for good and dropped")
            }
            Err(Refused::Later(why)) => return Err(why),
        }
        host.state
            .unspool(&contribution.id)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}
