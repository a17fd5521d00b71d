//! Who is not heard: without a certificate, with another authority's, removed, or of another cluster.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use stepcast_proto::raft::v1::peer_service_client::PeerServiceClient;
use stepcast_proto::raft::v1::{ExchangeRequest, Hello, Proof};
use stepcast_scheduler::model::{Generation, Secret};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::support::{CLUSTER, Endpoint, SOON, append, cluster, credentials, indices, members};
use crate::consensus::Transport;
use crate::members::Members;
use crate::peers::authority::Authority;
use crate::peers::credentials::Credentials;
use crate::peers::dial::{Watch, dial};
use crate::peers::{FRAME_BYTES_MAX, proof, refusal, tls};

fn hello(from: u64, to: u64) -> Hello {
    Hello {
        cluster_id: CLUSTER,
        from,
        to,
        ..Hello::default()
    }
}

/// A caller that is no endpoint: says what it likes.
async fn call(to: &Endpoint, with: &Credentials) -> PeerServiceClient<Channel> {
    let tls = tls::client(with).unwrap();
    let name = crate::peers::authority::node_name(to.peers.me().id, CLUSTER);
    let dialled = dial(&to.address.to_string(), Some(&name), tls, Watch::Pings).await;
    PeerServiceClient::new(dialled.unwrap().channel).max_encoding_message_size(usize::MAX)
}

async fn say(
    client: &mut PeerServiceClient<Channel>,
    requests: Vec<ExchangeRequest>,
) -> Result<(), Status> {
    let requests = futures::stream::iter(requests);
    let mut answers = client.exchange(requests).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

fn greeting(hello: Hello) -> ExchangeRequest {
    ExchangeRequest {
        hello: Some(hello),
        ..ExchangeRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_reaches_nobody() {
    let (_, nodes) = cluster(1);
    // Even if it calls itself the same cluster's.
    let other = Authority::found(CLUSTER).unwrap();
    let stranger = Endpoint::start(2, credentials(&other, 2, CLUSTER));
    stranger.peers.members(&members(&nodes));
    stranger
        .sees(1, |seen| {
            let failure = seen.failure.as_deref().unwrap_or_default();
            failure.contains("has not proved that it belongs to the cluster")
        })
        .await;
    assert!(nodes[0].ear.now().messages.is_empty());
    // Nor does somebody without scruples about whom it talks to: it trusts by a token, and shows nothing.
    let token = nodes[0]
        .peers
        .mint_token(None, std::time::Duration::from_secs(9));
    let tls = tls::joiner(&token.unwrap()).unwrap();
    let address = nodes[0].address.to_string();
    let mut client = PeerServiceClient::new(
        dial(&address, None, tls, Watch::Pings)
            .await
            .unwrap()
            .channel,
    );
    let status = say(&mut client, vec![greeting(hello(1, 1))])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(
        status.message(),
        "nodes are known by their certificates, and this call came without one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_is_told_apart() {
    let (authority, nodes) = cluster(2);
    let two = credentials(&authority, 2, CLUSTER);
    let mut client = call(&nodes[0], &two).await;
    let mut other = hello(2, 1);
    other.cluster_id = 9;
    let lies = [
        (
            other,
            "the caller belongs to cluster 0000000000000009, this node to cluster 00000000000000c1",
        ),
        (
            hello(2, 5),
            "the call was meant for node 5, but this is node 1",
        ),
        (hello(3, 1), "the certificate is not node 3's"),
        // The right name and authority, but not the key that the log knows.
        (hello(2, 1), "the certificate is not node 2's"),
    ];
    for (lie, sentence) in lies {
        let status = say(&mut client, vec![greeting(lie)]).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(status.message(), sentence);
    }
    let status = say(&mut client, vec![ExchangeRequest::default()]).await;
    assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
    assert!(nodes[0].ear.now().messages.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_others_and_frames_beyond_all_bounds_end_the_stream() {
    let (authority, nodes) = cluster(1);
    let newer = credentials(&authority, 2, CLUSTER);
    let mut client = call(&nodes[0], &newer).await;
    let message = |message: &raft::eraftpb::Message| {
        Bytes::from(protobuf::Message::write_to_bytes(message).unwrap())
    };
    let frame = |messages| ExchangeRequest {
        messages,
        ..ExchangeRequest::default()
    };
    let mut snapshot = append(2, 1, 1, 1);
    snapshot.set_msg_type(raft::eraftpb::MessageType::MsgSnapshot);
    let bad = [
        (
            frame(vec![message(&append(3, 1, 1, 1))]),
            Code::InvalidArgument,
        ),
        (
            frame(vec![message(&append(2, 3, 1, 1))]),
            Code::InvalidArgument,
        ),
        (
            frame(vec![Bytes::from_static(b"\xff\xff")]),
            Code::InvalidArgument,
        ),
        (frame(vec![message(&snapshot)]), Code::InvalidArgument),
        (
            frame(vec![Bytes::from(vec![0; FRAME_BYTES_MAX])]),
            Code::OutOfRange,
        ),
    ];
    for (frame, code) in bad {
        let requests = vec![greeting(hello(2, 1)), frame];
        let status = say(&mut client, requests).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
    assert!(nodes[0].ear.now().messages.is_empty());
    // The node goes on.
    let good = frame(vec![message(&append(2, 1, 4, 1))]);
    say(&mut client, vec![greeting(hello(2, 1)), good])
        .await
        .unwrap();
    nodes[0].ear.hears(|told| indices(told) == [4]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_cut_off_and_told_so() {
    let (_, nodes) = cluster(3);
    nodes[1].sees(1, |seen| seen.reachable).await;
    let mut without = members(&nodes);
    without.voters.remove(&2);
    without.nodes.remove(&2);
    assert!(!nodes[1].ear.now().removed);
    nodes[0].members(&without);
    assert_eq!(nodes[0].peers.seen().len(), 1, "the link to it ends");
    // Its own stream ends with the next ping, and it is told why when it tries again.
    nodes[1].ear.hears(|told| told.removed).await;
    nodes[1]
        .sees(1, |seen| {
            let failure = seen.failure.as_deref().unwrap_or_default();
            failure.starts_with("node 2 was removed from the cluster")
        })
        .await;
    let heard = nodes[0].ear.now().messages.len();
    nodes[1]
        .peers
        .send(vec![append(2, 1, 1, 1), append(2, 3, 2, 1)]);
    nodes[2].ear.hears(|told| indices(told) == [2]).await;
    assert_eq!(nodes[0].ear.now().messages.len(), heard);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_cut_off_though_it_says_nothing_more() {
    let (authority, nodes) = cluster(1);
    let mut client = call(&nodes[0], &credentials(&authority, 2, CLUSTER)).await;
    let first = futures::stream::iter([greeting(hello(2, 1))]);
    let requests = first.chain(futures::stream::pending());
    let mut answers = client.exchange(requests).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let without = Members {
        last_id: 2,
        ..members(&nodes)
    };
    nodes[0].members(&without);
    let ended = tokio::time::timeout(SOON, answers.message()).await.unwrap();
    let status = ended.unwrap_err();
    assert_eq!(refusal::read(&status), Some(refusal::REMOVED), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_node_has_started_calls_are_put_off() {
    let (authority, nodes) = cluster(1);
    nodes[0].peers.shared.attach(None);
    let newer = credentials(&authority, 2, CLUSTER);
    let mut client = call(&nodes[0], &newer).await;
    let status = say(&mut client, vec![greeting(hello(2, 1))])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(refusal::read(&status), Some(refusal::LATER));
}

/// Whoever was removed has the authority's key: it can sign itself a certificate of a node that nobody has heard of yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_nobody_has_heard_of_shows_what_members_know_or_is_not_heard() {
    let (authority, nodes) = cluster(1);
    let generation = |number: u8| Generation {
        number: number.into(),
        secret: Secret([number; 32]),
    };
    // It lags behind a real one, and is beyond what a removed one knew.
    *nodes[0].desk.generations.lock() = vec![generation(1), generation(2)];
    let forger = credentials(&authority, 9, CLUSTER);
    let key = forger.key_hash();
    let mut client = call(&nodes[0], &forger).await;
    let other = credentials(&authority, 9, CLUSTER).key_hash();
    for proofs in [
        Vec::new(),
        proof::of(&authority, &[generation(1)], (9, 1), &key),
        // With another number, of other nodes, by another key, and a guess.
        proof::of(&authority, &[generation(3)], (9, 1), &key),
        proof::of(&authority, &[generation(2)], (9, 2), &key),
        proof::of(&authority, &[generation(2)], (9, 1), &other),
        vec![Proof {
            generation: 2,
            tag: Bytes::from_static(&[7; 32]),
        }],
    ] {
        let hello = Hello {
            proofs,
            ..hello(9, 1)
        };
        let status = say(&mut client, vec![greeting(hello)]).await.unwrap_err();
        assert!(
            status
                .message()
                .contains("does not show that it is a member"),
            "{status:?}"
        );
    }
    // One that does is heard until that is not the secret any more.
    let hello = Hello {
        proofs: proof::of(&authority, &[generation(2)], (9, 1), &key),
        ..hello(9, 1)
    };
    let again = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let ping = ExchangeRequest {
            ping: 1,
            ..ExchangeRequest::default()
        };
        Some((ping, ()))
    });
    let first = futures::stream::iter([greeting(hello)]);
    let mut answers = client.exchange(first.chain(again)).await.unwrap();
    let answers = answers.get_mut();
    assert!(answers.message().await.unwrap().is_some());
    *nodes[0].desk.generations.lock() = vec![generation(2), generation(3)];
    let ended = async {
        loop {
            if let Err(status) = answers.message().await {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(SOON, ended).await.unwrap();
    assert_eq!(refusal::read(&status), Some(refusal::LATER), "{status:?}");
    *nodes[0].desk.generations.lock() = vec![generation(1), generation(2)];
    let newer = Endpoint::start(8, credentials(&authority, 8, CLUSTER));
    *newer.desk.generations.lock() = vec![generation(2), generation(3)];
    newer.peers.shared.connect(1, &nodes[0].address.to_string());
    newer.peers.send(vec![append(8, 1, 5, 1)]);
    nodes[0].ear.hears(|told| indices(told) == [5]).await;
}
