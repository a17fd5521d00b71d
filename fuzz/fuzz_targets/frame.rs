//! Whatever a peer sends: frames and the messages of Raft in them are decoded or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use protobuf::Message as _;
use stepcast_proto::raft::v1::{
    ExchangeRequest, ExchangeResponse, InstallSnapshotRequest, JoinRequest, JoinResponse,
};

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = ExchangeRequest::decode(data) {
        for message in &request.messages {
            raft_message(message);
        }
        assert_eq!(
            ExchangeRequest::decode(&request.encode_to_vec()[..]),
            Ok(request)
        );
    }
    if let Ok(request) = InstallSnapshotRequest::decode(data)
        && let Some(header) = request.header
    {
        raft_message(&header.message);
    }
    let _ = ExchangeResponse::decode(data);
    let _ = JoinRequest::decode(data);
    let _ = JoinResponse::decode(data);
    raft_message(data);
});

fn raft_message(bytes: &[u8]) {
    let bytes = prost::bytes::Bytes::copy_from_slice(bytes);
    if let Ok(message) = raft::eraftpb::Message::parse_from_carllerche_bytes(&bytes) {
        let written = message.write_to_bytes().expect("a message that was read");
        let again = raft::eraftpb::Message::parse_from_bytes(&written);
        assert_eq!(again.expect("a message that was written"), message);
    }
}
