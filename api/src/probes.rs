//! What machines ask of a node over HTTP: its measurements, whether it lives, and whether it is ready.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use stepcast_cluster::{Handle, Health, NodeStatus, Tasks};
use stepcast_estimator::{Estimator, Requests};
use stepcast_proto::certificate::Shown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::certificate;
use crate::server::Error;
use crate::wire::Wire;

/// What is spoken here.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// Connections at once: a scraper or two, a balancer, and a person with curl.
const CONNECTIONS: usize = 16;

/// A connection asks one question and is closed by then at the latest, so that nobody can hold all of them.
const CONNECTION_LIFE: Duration = Duration::from_secs(3);

/// A port that takes no connection is tried again after this long: usually too many files are open.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// An entry that is committed is applied by then, or this node is behind.
const APPLY_WITHIN: Duration = Duration::from_millis(250);

/// How often it is looked at whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The text format that Prometheus reads.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The listener for machines: `/metrics`, `/livez` and `/readyz`. It answers from before the log is read for as long as its
/// task runs, to everybody who can reach it: it names no job and takes no order.
#[derive(Debug)]
pub struct Probes {
    node: Node,
}

/// What there is to tell of: the node, its tables, and the certificate that its ports show, if one does.
type Node = Arc<OnceLock<(Handle, Arc<Estimator>, Option<Arc<Shown>>)>>;

impl Probes {
    /// Answers on a listener, with this certificate or in plain text, as yet for a node that starts. What answers is one of
    /// these tasks from then on.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn start(
        listener: TcpListener,
        tls: Option<&Arc<Shown>>,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let node = Node::default();
        let app = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(Arc::clone(&node));
        let tls = tls.map(|shown| shown.greeting(&PROTOCOLS)).transpose()?;
        let serving = serve(listener, tls.map(TlsAcceptor::from), app);
        tasks.spawn("port for metrics", serving);
        Ok(Self { node })
    }

    /// From now on it speaks of this node, its tables and the certificate that its ports show.
    pub fn attach(
        &self,
        handle: Handle,
        estimator: Arc<Estimator>,
        certificate: Option<Arc<Shown>>,
    ) {
        // A second node has nothing to say here.
        let _ = self.node.set((handle, estimator, certificate));
    }
}

type Answer = (StatusCode, [(HeaderName, &'static str); 1], String);

fn answer(code: StatusCode, kind: &'static str, text: String) -> Answer {
    (code, [(header::CONTENT_TYPE, kind)], text)
}

fn probe(verdict: Result<&'static str, String>) -> Answer {
    let (code, text) = match verdict {
        Ok(text) => (StatusCode::OK, text.to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    answer(code, "text/plain; charset=utf-8", format!("{text}\n"))
}

async fn metrics(State(node): State<Node>) -> impl IntoResponse {
    match node.get() {
        Some((handle, estimator, shown)) => {
            let mut text = handle.metrics_text();
            text += &estimator.stats().metrics_text();
            text += &Requests::of_process().metrics_text();
            if let Some(shown) = shown {
                text += &certificate::metrics_text(shown);
            }
            answer(StatusCode::OK, METRICS_TYPE, text)
        }
        None => probe(Err(STARTING.to_owned())),
    }
}

/// What is said until it serves.
const STARTING: &str = "the node starts and does not serve yet";

/// Alive unless only a restart helps.
async fn livez(State(node): State<Node>) -> impl IntoResponse {
    probe(
        match node.get().map(|(handle, ..)| handle.status().health) {
            Some(Health::Stopped(why)) => {
                Err(format!("the node cannot go on without a restart: {why}"))
            }
            _ => Ok("alive"),
        },
    )
}

/// Ready when it knows a leader and has applied what that has committed.
async fn readyz(State(node): State<Node>) -> impl IntoResponse {
    probe(match node.get() {
        Some((handle, ..)) => readiness(handle).await.map(|()| "ready"),
        None => Err(STARTING.to_owned()),
    })
}

/// What a node must have applied to be ready, or why it is not whatever it has applied. A node that waits for a snapshot knows
/// of hardly an entry that it does not have: what counts is what its leader says.
pub(crate) fn due(status: &NodeStatus) -> Result<u64, String> {
    match &status.health {
        Health::Stopped(why) => return Err(format!("the node has stopped: {why}")),
        Health::Electing => return Err("no node leads at the moment".to_owned()),
        // These keep it from writing; it still reads.
        Health::Serving | Health::StorageFull | Health::LogStalled(_) => {}
    }
    match (status.leader, status.cluster_commit_index) {
        (None, _) => Err("no node leads at the moment".to_owned()),
        (_, None) => Err("the leader has not said yet how far the log is".to_owned()),
        (_, Some(committed)) => Ok(committed),
    }
}

async fn readiness(handle: &Handle) -> Result<(), String> {
    let committed = due(&handle.status())?;
    let began = Instant::now();
    loop {
        let status = handle.status();
        if status.applied_index >= committed {
            return Ok(());
        }
        if began.elapsed() >= APPLY_WITHIN {
            return Err(late(committed - status.applied_index, &status.health));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What is said of a node that is so many entries behind.
fn late(behind: u64, health: &Health) -> String {
    let late = format!("{behind} committed entries are not applied yet");
    match health {
        // What it has not written it does not apply.
        Health::LogStalled(why) => {
            format!("{late}: the log cannot be written at the moment: {why}")
        }
        _ => late,
    }
}

/// Answers on few and short connections until it is dropped.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, app: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut asked = JoinSet::new();
    loop {
        // A semaphore that nobody closes always has room again.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        while asked.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let (tls, app) = (tls.clone(), TowerToHyperService::new(app.clone()));
        asked.spawn(async move {
            let hear = async {
                let wire = Wire::greet(stream, tls.as_ref()).await.ok()?;
                let connection = http1::Builder::new()
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(wire), app);
                connection.await.ok()
            };
            // Whoever is too slow, or goes away, gets no answer.
            let _ = timeout(CONNECTION_LIFE, hear).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use stepcast_cluster::members::Members;

    use super::*;

    #[test]
    fn a_node_that_cannot_write_says_so_where_it_is_behind() {
        let stalled = Health::LogStalled("its disk has not answered for 12 seconds".to_owned());
        assert_eq!(
            late(15, &stalled),
            "15 committed entries are not applied yet: the log cannot be written at the moment: its disk has not answered for \
             12 seconds"
        );
        let said = late(15, &Health::Serving);
        assert_eq!(said, "15 committed entries are not applied yet");
    }

    #[test]
    fn what_is_due_is_what_the_leader_has_committed_whatever_the_node_knows_itself() {
        let waiting = NodeStatus {
            node_id: 3,
            cluster_id: 1,
            term: 4,
            leader: Some(1),
            leading: false,
            led_for: None,
            voters: vec![1, 2, 3],
            members: Members::founder(1),
            followers: Vec::new(),
            log_format: 3,
            commit_index: 1,
            cluster_commit_index: Some(262_204),
            applied_index: 1,
            last_index: 1,
            snapshot_index: 0,
            sessions: 0,
            disk_free_bytes: 0,
            health: Health::Serving,
        };
        assert_eq!(due(&waiting), Ok(262_204));
        let untold = NodeStatus {
            cluster_commit_index: None,
            ..waiting.clone()
        };
        let said = due(&untold).expect_err("nothing to go by");
        assert!(said.contains("has not said yet"), "{said}");
        let full = NodeStatus {
            health: Health::StorageFull,
            ..waiting.clone()
        };
        assert_eq!(due(&full), Ok(262_204), "it still reads");
        let alone = NodeStatus {
            leader: None,
            ..waiting
        };
        let said = due(&alone).expect_err("nobody to say it");
        assert!(said.contains("no node leads"), "{said}");
    }
}
