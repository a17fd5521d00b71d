//! Peers die, hang and come back; what is not read is bounded.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::time::timeout;

use super::support::{
    CLUSTER, Endpoint, SOON, Then, acquaint, append, copy, credentials, indices, members,
};
use crate::consensus::Transport;
use crate::peers::authority::{Authority, new_key, read_key};
use crate::peers::credentials::Credentials;

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
