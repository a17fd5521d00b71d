//! Peers die, hang and come back; what is not read is bounded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::{
    CLUSTER, Endpoint, SOON, Then, acquaint, append, copy, credentials, indices, members,
};
use crate::consensus::Transport;
use crate::peers::authority::{Authority, new_key, node_name, read_key};
use crate::peers::credentials::Credentials;
use crate::peers::tls;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_killed_is_reached_again_when_it_is_back() {
    let authority = Authority::found(CLUSTER).unwrap();
    let key = new_key().unwrap();
    let again = |key: &rcgen::KeyPair| {
        let key = read_key(key.serialized_der()).unwrap();
        let certificate = authority.certify(2, &key).unwrap();
        Credentials::joined(copy(&authority, CLUSTER), key, certificate)
    };
    let first = Endpoint::start(1, credentials(&authority, 1, CLUSTER));
    let second = Endpoint::start(2, again(&key));
    let at = second.address;
    acquaint([&first, &second]);
    let everybody = members([&first, &second]);
    first.sees(2, |seen| seen.reachable).await;
    second.peers.shutdown().await;
    drop(second);
    first.ear.hears(|told| told.unreachable.contains(&2)).await;
    let told = first.ear.hears(|told| told.hung_up.contains(&2)).await;
    assert_eq!(told.reached, [2]);
    let gone = |seen: &crate::peers::Seen| !seen.reachable && seen.failure.is_some();
    first.sees(2, gone).await;
    // Its messages are dropped now, and that is said.
    let before = first.ear.now().unreachable.len();
    first.peers.send(vec![append(1, 2, 1, 1)]);
    first
        .ear
        .hears(|told| told.unreachable.len() > before)
        .await;
    let begun = Instant::now();
    let second = Endpoint::start_at(2, again(&key), at);
    // It knows nobody yet, so that only the first can reach out.
    first.sees(2, |seen| seen.reachable).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    first.ear.hears(|told| told.reached == [2, 2]).await;
    second.members(&everybody);
    first.peers.send(vec![append(1, 2, 2, 1)]);
    second.ear.hears(|told| indices(told) == [2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_nothing_costs_bounded_memory_and_is_given_up() {
    let authority = Authority::found(CLUSTER).unwrap();
    let first = Endpoint::start(1, credentials(&authority, 1, CLUSTER));
    let two = credentials(&authority, 2, CLUSTER);
    let (second, proxy) = Endpoint::behind(2, two, 8 << 20, Then::Hang).await;
    acquaint([&first, &second]);
    first.sees(2, |seen| seen.reachable).await;
    // 200 MB, of which the outbox holds 64 MiB, and what is on its way a few more.
    for index in 0..400 {
        first.peers.send(vec![append(1, 2, index, 512 << 10)]);
    }
    let dropped = first.peers.seen().remove(0).dropped;
    assert!(dropped > 200, "{dropped} of 400 were dropped");
    first.ear.hears(|told| told.unreachable.contains(&2)).await;
    // Nothing is read for 3 s: the peer hangs, and that is noticed without its help.
    let given_up = |seen: &crate::peers::Seen| !seen.reachable && seen.failure.is_some();
    first.sees(2, given_up).await;
    assert!(proxy.passed() < 16 << 20, "{}", proxy.passed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_fails_is_told_and_one_that_is_ended_is_not() {
    let authority = Authority::found(CLUSTER).unwrap();
    let first = Endpoint::start(1, credentials(&authority, 1, CLUSTER));
    let second = Endpoint::start(2, credentials(&authority, 2, CLUSTER));
    acquaint([&first, &second]);
    first.sees(2, |seen| seen.reachable).await;
    // One that is removed is spoken to no more.
    let third = Endpoint::start(3, credentials(&authority, 3, CLUSTER));
    acquaint([&first, &third]);
    first.sees(3, |seen| seen.reachable).await;
    assert_eq!(first.peers.seen().len(), 1);
    assert_eq!(first.peers.ended().now_or_never(), None);
    first.ear.fails.store(true, Ordering::Relaxed);
    third.peers.shutdown().await;
    assert_eq!(third.peers.ended().now_or_never(), None);
    let ended = timeout(SOON, first.peers.ended()).await.unwrap();
    assert_eq!(
        ended.to_string(),
        "the link to another node has ended: it has failed: not node 3"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_and_says_nothing_keeps_no_peer_from_being_heard() {
    let authority = Authority::found(CLUSTER).unwrap();
    let [first, second] =
        [1, 2].map(|node| Endpoint::start(node, credentials(&authority, node, CLUSTER)));
    // So many that one after the other they would take longer than anybody waits.
    let mut silent = Vec::new();
    for node in [&first, &second] {
        for _ in 0..200 {
            silent.push(tokio::net::TcpStream::connect(node.address).await.unwrap());
        }
    }
    acquaint([&first, &second]);
    first.sees(2, |seen| seen.reachable).await;
    second.sees(1, |seen| seen.reachable).await;
    assert_eq!(silent.len(), 400);
}

/// A connection on which TLS is done and nothing is said; whether this end of it is served.
async fn silent(to: &Endpoint, with: &Arc<ClientConfig>) -> (TlsStream<TcpStream>, bool) {
    let tcp = TcpStream::connect(to.address).await.unwrap();
    let name = node_name(to.peers.me().id, CLUSTER);
    let name = ServerName::try_from(name).unwrap();
    let connected = TlsConnector::from(Arc::clone(with)).connect(name, tcp);
    let mut stream = timeout(SOON, connected).await.unwrap().unwrap();
    // HTTP/2's settings come without a word from here.
    let said = timeout(SOON, stream.read(&mut [0])).await.unwrap();
    (stream, said.is_ok_and(|bytes| bytes > 0))
}

/// TLS takes the certificate of a node that was removed, any that it has made with what it knew, and none at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_greets_and_says_nothing_more_keeps_no_peer_and_no_newcomer_from_being_heard() {
    let authority = Authority::found(CLUSTER).unwrap();
    let [first, second] =
        [1, 3].map(|node| Endpoint::start(node, credentials(&authority, node, CLUSTER)));
    let token = first.peers.mint_token(None, SOON).unwrap();
    let stranger = tls::joiner(&token).unwrap();
    // Node 2 was removed, and node 4 has not been let in.
    let with = [2, 4].map(|node| tls::client(&credentials(&authority, node, CLUSTER)).unwrap());
    let mut open = Vec::new();
    for node in [&first, &second] {
        for certificate in &with {
            for _ in 0..70 {
                open.push(silent(node, certificate).await);
            }
        }
        for _ in 0..20 {
            open.push(silent(node, &stranger).await);
        }
    }
    assert!(open.iter().all(|(_, is_served)| *is_served));
    acquaint([&first, &second]);
    first.sees(3, |seen| seen.reachable).await;
    second.sees(1, |seen| seen.reachable).await;
    // Those that came first had to go, and whoever comes last is served still.
    let (first_of_all, _) = &mut open[0];
    let ended = timeout(SOON, async {
        while first_of_all.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
    });
    ended.await.unwrap();
    assert!(silent(&first, &stranger).await.1);
}
