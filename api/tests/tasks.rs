//! A server of which a part has ended stops, and says which part and why.

use std::sync::Arc;

use futures::future::BoxFuture;
use stepcast_api::ApiConfig;
use stepcast_cluster::{ContributeError, Contribution, NotRecorded, RecordSink};

use crate::support::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stops_when_what_runs_beside_it_ends() {
    let server = Server::start().await;
    server.tasks.spawn("follower of the records", async {
        panic!("the tables are gone")
    });
    assert_eq!(
        server.ended().await.to_string(),
        "the follower of the records has ended: it has failed: the tables are gone"
    );
    let server = Server::start().await;
    server.tasks.spawn("port for metrics", async {});
    assert_eq!(
        server.ended().await.to_string(),
        "the port for metrics has ended: it has returned"
    );
}

/// Records nothing, once.
struct Fails;

impl RecordSink for Fails {
    fn record(&self, _: Vec<Contribution>) -> BoxFuture<'_, Result<(), NotRecorded>> {
        panic!("no records")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stops_when_a_task_of_its_node_ends() {
    let server = Server::recording(ApiConfig::default(), |_| Arc::new(Fails)).await;
    let contribution = Contribution {
        id: [7; 16],
        samples: Vec::new(),
    };
    let recorded = server.handle.contribute(contribution).await;
    assert_eq!(recorded, Err(ContributeError::Stopped));
    assert_eq!(
        server.ended().await.to_string(),
        "the recorder has ended: it has failed: no records"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_asked_to_end_fails_with_nothing() {
    let server = Server::start().await;
    let (handle, tasks) = (server.handle.clone(), Arc::clone(&server.tasks));
    server.stop().await;
    tasks.shutdown().await;
    let ended = async {
        tokio::select! { ended = handle.ended() => ended, ended = tasks.ended() => ended }
    };
    assert_eq!(futures::FutureExt::now_or_never(ended), None);
}
