//! The proxy does what its links say, and knows who is who.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use stepcast_tests::random::Random;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::{Link, Network, Party};
use crate::random::SharedRandom;

const NODE: Party = Party::Node(1);

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough to believe that nothing comes.
const NOTHING: Duration = Duration::from_millis(200);

/// A server that sends back what it gets, and a proxy before it.
async fn echo() -> (Arc<Network>, SocketAddr) {
    let network = Network::new(SharedRandom::new(Random::new(1)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = stream.split();
                drop(tokio::io::copy(&mut reads, &mut writes).await);
                drop(writes.shutdown().await);
            });
        }
    });
    let address = network.before(NODE, port).await;
    (network, address)
}

async fn says(stream: &mut TcpStream, what: &[u8]) {
    stream.write_all(what).await.unwrap();
}

async fn hears(stream: &mut TcpStream, what: &[u8]) {
    let mut heard = vec![0; what.len()];
    let read = timeout(PATIENCE, stream.read_exact(&mut heard)).await;
    read.unwrap().unwrap();
    assert_eq!(heard, what);
}

async fn hears_nothing(stream: &mut TcpStream) {
    assert!(timeout(NOTHING, stream.read_u8()).await.is_err());
}

#[tokio::test]
async fn bytes_pass_and_an_end_is_passed_on() {
    let (_network, address) = echo().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let much = vec![7; 3 << 20];
    let (mut reads, mut writes) = stream.split();
    let send = async {
        writes.write_all(&much).await.unwrap();
        writes.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (_, read) = tokio::join!(send, reads.read_to_end(&mut back));
    read.unwrap();
    assert!(back == much);
}

#[tokio::test]
async fn a_cut_in_one_direction_holds_back_and_loses_nothing() {
    let (network, address) = echo().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    says(&mut stream, b"one").await;
    hears(&mut stream, b"one").await;
    for (from, to) in [(Party::People, NODE), (NODE, Party::People)] {
        network.set(from, to, Link::cut());
        says(&mut stream, b"two").await;
        hears_nothing(&mut stream).await;
        // A new connection is as mute, and the other direction of a link is not touched.
        let mut other = TcpStream::connect(address).await.unwrap();
        says(&mut other, b"new").await;
        hears_nothing(&mut other).await;
        network.heal();
        hears(&mut stream, b"two").await;
        hears(&mut other, b"new").await;
    }
    network.set(Party::Node(2), NODE, Link::cut());
    says(&mut stream, b"three").await;
    hears(&mut stream, b"three").await;
}

#[tokio::test]
async fn delay_and_bandwidth_take_their_time() {
    let (network, address) = echo().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let slow = Link {
        delay: Duration::from_millis(80),
        jitter: Duration::from_millis(20),
        ..Link::default()
    };
    network.set(Party::People, NODE, slow);
    let begun = Instant::now();
    says(&mut stream, b"late").await;
    hears(&mut stream, b"late").await;
    assert!(begun.elapsed() >= slow.delay);
    network.heal();
    let narrow = Link {
        bytes_per_second: Some(100_000),
        ..Link::default()
    };
    network.set(NODE, Party::People, narrow);
    let begun = Instant::now();
    let much = vec![1; 30_000];
    says(&mut stream, &much).await;
    hears(&mut stream, &much).await;
    assert!(begun.elapsed() >= Duration::from_millis(290));
}

#[tokio::test]
async fn a_lost_piece_comes_late_and_in_its_place() {
    let (network, address) = echo().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let lossy = Link {
        lost_per_mille: 1_000,
        ..Link::default()
    };
    network.set(Party::People, NODE, lossy);
    let begun = Instant::now();
    says(&mut stream, b"first").await;
    hears(&mut stream, b"first").await;
    assert!(begun.elapsed() >= Duration::from_millis(200));
    network.set(Party::People, NODE, Link::default());
    says(&mut stream, b"second").await;
    hears(&mut stream, b"second").await;
}

#[tokio::test]
async fn a_reset_ends_a_connection_though_it_is_cut() {
    let (network, address) = echo().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    says(&mut stream, b"one").await;
    hears(&mut stream, b"one").await;
    network.set(Party::People, NODE, Link::cut());
    network.reset(NODE, Party::People);
    let ended = timeout(PATIENCE, stream.read_u8()).await.unwrap();
    assert!(ended.is_err());
}

#[tokio::test]
async fn another_process_is_known_by_its_sockets() {
    let (network, address) = echo().await;
    // It is there before it connects, so that it can be told who it is.
    let script = format!(
        "read -r _; exec 3<>/dev/tcp/127.0.0.1/{}; echo hello >&3; head -n 1 <&3",
        address.port()
    );
    let mut child = Command::new("bash")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let other = Party::Worker(3);
    network.is_process(other, child.id());
    network.set(other, NODE, Link::cut());
    drop(child.stdin.take());
    let mut ours = TcpStream::connect(address).await.unwrap();
    says(&mut ours, b"ours").await;
    hears(&mut ours, b"ours").await;
    tokio::time::sleep(NOTHING).await;
    assert!(child.try_wait().unwrap().is_none(), "its link is cut");
    network.heal();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = timeout(PATIENCE, output).await.unwrap().unwrap().unwrap();
    assert_eq!(output.stdout, b"hello\n");
}
