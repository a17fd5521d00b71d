//! Messages arrive: at the right node, in order, and what they say of themselves with them.

use std::time::Duration;

use super::support::{CLUSTER, Endpoint, Told, append, cluster, credentials, indices, members};
use crate::consensus::{Standing, Transport, Word};
use crate::peers::authority::Authority;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_exchange_messages_in_order() {
    let (_, nodes) = cluster(3);
    for from in 1..=3_u64 {
        let mut messages = Vec::new();
        for n in 0..50 {
            let others = (1..=3).filter(|to| *to != from);
            messages.extend(others.map(|to| append(from, to, from * 1000 + n, 100)));
        }
        nodes[from as usize - 1].peers.send(messages);
    }
    for to in 1..=3_u64 {
        let ear = &nodes[to as usize - 1].ear;
        let told = ear.hears(|told| told.messages.len() == 100).await;
        for from in (1..=3).filter(|from| *from != to) {
            let of = |m: &&raft::eraftpb::Message| m.from == from;
            let found: Vec<u64> = told.messages.iter().filter(of).map(|m| m.index).collect();
            let sent: Vec<u64> = (from * 1000..from * 1000 + 50).collect();
            assert_eq!(found, sent, "from {from} to {to}");
        }
        assert_eq!(told.messages[0].entries[0].data.len(), 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_arrive_whole_and_in_parts() {
    let (_, nodes) = cluster(2);
    nodes[0].sees(2, |seen| seen.reachable).await;
    let mut large = append(1, 2, 10, 1 << 20);
    let entries: Vec<_> = (11..=40)
        .map(|index| append(1, 2, index - 1, 200 << 10).entries[0].clone())
        .collect();
    large.set_entries(entries.into());
    nodes[0].peers.send(vec![append(1, 2, 1, 1 << 20), large]);
    let all = |told: &Told| told.messages.iter().map(|m| m.entries.len()).sum::<usize>() == 31;
    let told = nodes[1].ear.hears(all).await;
    let (first, parts) = told.messages.split_first().unwrap();
    assert_eq!((first.index, first.entries[0].data.len()), (1, 1 << 20));
    assert!(parts.len() > 3, "6 MB do not go in one message");
    let mut before = 10;
    for part in parts {
        assert_eq!(part.index, before, "each part follows the one before");
        for entry in part.entries.iter() {
            before += 1;
            assert_eq!(entry.index, before);
            assert!(entry.data.iter().all(|b| *b == (before - 1) as u8));
        }
    }
    assert_eq!(before, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_knows_its_peers_versions_formats_and_distance() {
    let (_, nodes) = cluster(2);
    nodes[0].sees(2, |seen| seen.round_trip.is_some()).await;
    let seen = nodes[0].peers.seen().remove(0);
    assert!(seen.reachable && seen.failure.is_none());
    assert_eq!((seen.version.as_str(), seen.log_format), ("0.2", Some(12)));
    assert_eq!(seen.address, nodes[1].address.to_string());
    assert!(seen.round_trip.unwrap() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_moves_says_so_itself() {
    let authority = Authority::found(CLUSTER).unwrap();
    let first = Endpoint::start(1, credentials(&authority, 1, CLUSTER));
    let second = Endpoint::start(2, credentials(&authority, 2, CLUSTER));
    let mut told = members([&first, &second]);
    drop((first, second));
    // Both start again, and the second where nobody expects it.
    let first = Endpoint::start(1, credentials(&authority, 1, CLUSTER));
    let second = Endpoint::start(2, credentials(&authority, 2, CLUSTER));
    for member in told.nodes.values_mut() {
        member.key = [0; 32];
    }
    told.nodes.get_mut(&1).unwrap().peer_address = first.address.to_string();
    first.members(&told);
    second.members(&told);
    first.sees(2, |seen| seen.reachable).await;
    first.peers.send(vec![append(1, 2, 5, 1)]);
    second.ear.hears(|told| indices(told) == [5]).await;
    // The log's old word, said again, is no news.
    first.members(&told);
    let address = first.peers.seen().remove(0).address;
    assert_eq!(address, second.address.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_member_is_heard_and_answered_before_the_log_says_it() {
    let (authority, nodes) = cluster(1);
    let newer = Endpoint::start(2, credentials(&authority, 2, CLUSTER));
    newer.peers.members(&members(&nodes));
    newer.peers.send(vec![append(2, 1, 9, 1)]);
    nodes[0].ear.hears(|told| indices(told) == [9]).await;
    nodes[0].peers.send(vec![append(1, 2, 8, 1)]);
    newer.ear.hears(|told| indices(told) == [8]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_node_stands_is_known_for_as_long_as_it_is_reached() {
    let (_, nodes) = cluster(2);
    let [first, second] = <[Endpoint; 2]>::try_from(nodes).ok().unwrap();
    let said = |committed, has_room, time_ms, followed_ms| {
        Word::Said(Standing {
            committed,
            has_room,
            time_ms,
            followed_ms,
        })
    };
    first
        .sees(2, |_| first.peers.standing(2) == said(1, true, None, None))
        .await;
    *second.ear.standing.lock() = Standing {
        committed: 77,
        has_room: false,
        time_ms: Some(1_800_000_000_000),
        followed_ms: Some(1_800_000_000_001),
    };
    first
        .sees(2, |_| {
            first.peers.standing(2)
                == said(77, false, Some(1_800_000_000_000), Some(1_800_000_000_001))
        })
        .await;
    second.peers.shutdown().await;
    first
        .sees(2, |_| first.peers.standing(2) == Word::Awaited)
        .await;
    assert_eq!(
        first.peers.standing(7),
        Word::Awaited,
        "who is not known at all"
    );
}
