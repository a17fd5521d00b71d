//! Whatever members send, in whatever order: a node's Raft takes it or leaves it.
//!
//! Members are who the cluster trusts, and Raft's library stops a node on purpose when one of them claims what cannot be
//! true of an honest cluster: a commit beyond what it has sent, or another entry in the place of a committed one. Such
//! claims are left out here.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use stepcast_cluster::consensus::log::Loaded;
use stepcast_cluster::consensus::{Begin, Output, Peer};
use stepcast_cluster::members::Members;

fuzz_target!(|data: &[u8]| {
    let members = Members {
        voters: [1, 2, 3].into(),
        last_id: 3,
        ..Members::default()
    };
    let mut peer = Peer::new(Begin {
        id: 1,
        loaded: Loaded::new_cluster(),
        applied: 1,
        members,
        snapshot: None,
    })
    .expect("a new node");
    peer.set_election_timeout(10);
    let mut out = Vec::new();
    for piece in stepcast_fuzz::pieces(data) {
        match piece {
            [] => peer.tick(),
            [count] => (0..*count % 32).for_each(|_| peer.tick()),
            [0, node] => peer.hung_up((*node).into()),
            [1, node] => peer.reached((*node).into()),
            bytes => {
                let bytes = Bytes::copy_from_slice(bytes);
                let Ok(message) = Message::parse_from_carllerche_bytes(&bytes) else {
                    continue;
                };
                if honest(&peer, &message) {
                    peer.step(message);
                }
            }
        }
        peer.outputs(&mut out);
        for output in out.drain(..) {
            match output {
                Output::Persist(write) => peer.persisted(write.number),
                Output::Apply { entries, .. } => {
                    if let Some(last) = entries.last() {
                        peer.applied(last.index);
                    }
                }
                Output::Install { at, .. } => peer.applied(at.index),
                _ => {}
            }
        }
        assert!(peer.committed() <= peer.last_index());
    }
});

/// Whether an honest member could say this.
fn honest(peer: &Peer, message: &Message) -> bool {
    match message.get_msg_type() {
        MessageType::MsgAppend => message.index >= peer.committed(),
        MessageType::MsgHeartbeat => message.commit <= peer.last_index(),
        MessageType::MsgSnapshot => false,
        _ => true,
    }
}
