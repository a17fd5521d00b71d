//! Members that are not where the log says: they are found where they may be, and nobody else is.

use super::support::{CLUSTER, Endpoint, append, credentials, indices, members};
use crate::consensus::Transport;
use crate::members::Members;
use crate::peers::authority::Authority;

/// These members, all of them where nobody is.
fn nowhere(mut members: Members) -> Members {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for member in members.nodes.values_mut() {
        member.peer_address.clone_from(&address);
    }
    members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_have_all_moved_find_each_other_through_one_that_is_told_where_they_may_be() {
    let authority = Authority::found(CLUSTER).unwrap();
    let start = |node| Endpoint::start(node, credentials(&authority, node, CLUSTER));
    let (second, third, newer) = (start(2), start(3), start(4));
    let places = [second.address, third.address, newer.address];
    let first = Endpoint::seeking(1, credentials(&authority, 1, CLUSTER), &places);
    // None of the first three has heard of the fourth.
    let told = nowhere(members([&first, &second, &third]));
    for node in [&first, &second, &third] {
        node.members(&told);
    }
    newer.members(&nowhere(members([&first, &second, &third, &newer])));
    for (node, index) in [(&second, 2), (&third, 3), (&newer, 4)] {
        let address = node.address.to_string();
        first
            .sees(index, |seen| seen.reachable && seen.address == address)
            .await;
        // It has told where it is itself.
        let address = first.address.to_string();
        node.sees(1, |seen| seen.reachable && seen.address == address)
            .await;
        node.peers.send(vec![append(index, 1, index, 1)]);
        first.peers.send(vec![append(1, index, 9, 1)]);
        node.ear.hears(|told| indices(told) == [9]).await;
    }
    first.ear.hears(|told| told.messages.len() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_where_a_member_may_be_and_does_not_prove_to_be_it_is_let_be() {
    let authority = Authority::found(CLUSTER).unwrap();
    let second = Endpoint::start(2, credentials(&authority, 2, CLUSTER));
    // By another authority, by this one with another key, and removed.
    let other = Authority::found(CLUSTER).unwrap();
    let strangers = [
        Endpoint::start(2, credentials(&other, 2, CLUSTER)),
        Endpoint::start(2, credentials(&authority, 2, CLUSTER)),
        Endpoint::start(3, credentials(&authority, 3, CLUSTER)),
    ];
    let mut places: Vec<_> = strangers.iter().map(|stranger| stranger.address).collect();
    // They are looked at first.
    places.push(second.address);
    let first = Endpoint::seeking(1, credentials(&authority, 1, CLUSTER), &places);
    let mut told = nowhere(members([&first, &second]));
    // The third was there once.
    told.last_id = 3;
    first.members(&told);
    second.members(&told);
    let address = second.address.to_string();
    first
        .sees(2, |seen| seen.reachable && seen.address == address)
        .await;
    first.peers.send(vec![append(1, 2, 5, 1)]);
    second.ear.hears(|told| indices(told) == [5]).await;
    assert_eq!(first.peers.seen().len(), 1, "nobody else is spoken to");
    for stranger in &strangers {
        assert!(stranger.peers.seen().is_empty(), "and nobody was told");
        assert!(stranger.ear.now().messages.is_empty());
    }
}
