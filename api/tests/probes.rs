//! What machines are told of a node: measurements, whether it lives, whether it is ready.

use stepcast_api::Probes;
use stepcast_cluster::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::Server;

/// The answer to one question, as it comes over the wire.
async fn ask(address: std::net::SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // The server closes after each answer, or this would wait for ever.
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_whether_it_lives_is_ready_and_what_it_measured() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::default();
    let probes = Probes::start(listener, None, &tasks).unwrap();
    let (head, why) = ask(address, "/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(why, "the node starts and does not serve yet\n");
    assert!(ask(address, "/metrics").await.0.starts_with("HTTP/1.1 503"));
    assert_eq!(ask(address, "/livez").await.1, "alive\n");

    let server = Server::start().await;
    probes.attach(server.handle.clone(), server.estimator.clone(), None);
    let (head, text) = ask(address, "/readyz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(text, "ready\n");
    let (head, text) = ask(address, "/metrics").await;
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(text.contains("\nstepcast_raft_leader 1\n"), "{text}");
    assert!(text.contains("\nstepcast_records_reachable 1\n"), "{text}");
    assert!(ask(address, "/jobs").await.0.starts_with("HTTP/1.1 404"));

    // Those who connect and say nothing do not keep others out for longer than their time.
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(ask(address, "/livez").await.1, "alive\n");

    server.handle.shutdown().await;
    let (head, why) = ask(address, "/livez").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}{why}");
}
