//! The stream of a job's watch, opened again where it breaks, at another server where there is one.

use std::time::Duration;

use stepcast_proto::v1::{WatchJobRequest, WatchJobResponse};
use tonic::{Request, Streaming};

use super::Watcher;
use crate::client::Client;
use crate::command::job::get;
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// A stream that breaks is opened again so often in a row before the watcher gives up.
const REOPENED_MAX: usize = 60;
/// So many in a row are told on a pipe.
const TOLD_AFTER: usize = 4;
/// The pause before it is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(500);

/// Follows a job until it is over.
pub(super) async fn followed<'output>(
    context: &'output Context,
    client: &Client,
    name: &str,
    logs: bool,
) -> Result<Watcher<'output>, Failure> {
    let mut watcher = Watcher::new(&context.output, name);
    let mut broken = 0;
    loop {
        let seq = watcher.seq;
        let followed = follow(&mut watcher, client, name, logs).await;
        if watcher.seq > seq {
            broken = 0;
        }
        let gone = match followed {
            Ok(()) if watcher.is_over() => break,
            Ok(()) => None,
            Err(failure) if may_go_on(&failure) => {
                client.go_on(&failure);
                (failure.exit == Exit::Unreachable && failure.reason.is_empty()).then_some(failure)
            }
            Err(failure) => return Err(failure),
        };
        broken += 1;
        // A server that is started anew is back at once; of one that is not, whoever watches wants to know.
        if let Some(failure) = gone.as_ref().filter(|_| broken == TOLD_AFTER) {
            let text = client.gone(failure).primary;
            watcher.live.clear();
            context.output.say(format!("{text}; it is asked again"));
        }
        if broken >= REOPENED_MAX {
            return Err(match &gone {
                Some(failure) => client.gone(failure),
                None => Failure::new(
                    Exit::Unreachable,
                    "the server ended the watch again and again",
                ),
            });
        }
        // Every server is asked once without a pause.
        if broken % client.server_count() == 0 {
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }
    // The stream ends with the job; what it cost in the end is asked for once more.
    watcher.job = get(client, name).await?;
    Ok(watcher)
}

/// Whether the watch can be opened again, here or elsewhere, and go on where it was.
fn may_go_on(failure: &Failure) -> bool {
    failure.exit == Exit::Unreachable || matches!(failure.reason.as_str(), "WATCH_BEHIND" | "BUSY")
}

async fn follow(
    watcher: &mut Watcher<'_>,
    client: &Client,
    name: &str,
    logs: bool,
) -> Result<(), Failure> {
    let request = Request::new(WatchJobRequest {
        name: name.to_owned(),
        logs,
        after_seq: watcher.seq,
    });
    let stream = client
        .jobs()
        .watch_job(request)
        .await
        .map_err(|status| client.failure(&status))?;
    let mut stream: Streaming<WatchJobResponse> = stream.into_inner();
    while let Some(message) = stream
        .message()
        .await
        .map_err(|status| client.failure(&status))?
    {
        if let Some(update) = message.update {
            watcher.take(update)?;
        }
        watcher.seq = watcher.seq.max(message.seq);
    }
    Ok(())
}
