//! The receiver's connections: few at once, and each says soon what it wants, so that nobody holds the trainer's place.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at once. A trainer's loop has one and its log thread another; any process of this host can open the rest.
pub(super) const CONNECTIONS: usize = 32;

/// How soon the head of a request is there, also of one that follows another on its connection. The trainer gives up after
/// 5 s, so one that waits for others to be closed is still heard in time.
const HEAD_WITHIN: Duration = Duration::from_secs(2);

/// A port that takes no connection is tried again after this long: usually too many files are open.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Answers by `app` until it is dropped, and what it has begun with it. `room` has a permit for each connection.
pub(super) async fn serve(listener: TcpListener, room: Arc<Semaphore>, app: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN);
    let mut connections = JoinSet::new();
    loop {
        // A semaphore that nobody closes always has room again.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a webhook's connection could not be taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(app.clone());
        let serving = http.serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            // Whoever is too slow, or goes away, gets no answer.
            let _gone = serving.await;
            drop(permit);
        });
    }
}
