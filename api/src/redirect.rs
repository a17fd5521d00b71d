//! Says where the leader is, in every refusal of a node that does not lead.

use std::collections::HashMap;

use stepcast_cluster::Handle;
use stepcast_cluster::members::Member;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::status::{DOMAIN, LEADER_ID, NOT_LEADER};

/// The URL of the leader's client port, in the refusal's metadata.
const LEADER: &str = "leader";

/// The refusal with the leader's address, if it is one of a node that knows who leads.
pub(crate) fn told(status: Status, handle: &Handle) -> Status {
    point(status, |id| handle.member(id))
}

/// The same for an answer that is on its way out.
pub(crate) fn tell(response: http::Response<Body>, handle: &Handle) -> http::Response<Body> {
    // Looked at by its number first: nearly every answer is none of these.
    let unavailable = response
        .headers()
        .get(Status::GRPC_STATUS)
        .is_some_and(|code| code.as_bytes() == b"14");
    match Status::from_header_map(response.headers()).filter(|_| unavailable) {
        Some(status) if is_not_leader(&status) => told(status, handle).into_http(),
        _ => response,
    }
}

/// Whether a call was refused since this node does not lead.
pub(crate) fn is_not_leader(status: &Status) -> bool {
    status.code() == Code::Unavailable
        && status
            .get_details_error_info()
            .is_some_and(|info| info.reason == NOT_LEADER)
}

fn point(status: Status, member: impl FnOnce(u64) -> Option<Member>) -> Status {
    let mut details: ErrorDetails = status.get_error_details();
    let mut metadata: HashMap<String, String> = match details.error_info() {
        Some(info) if info.reason == NOT_LEADER => info.metadata.clone(),
        _ => return status,
    };
    let leader = metadata.get(LEADER_ID).and_then(|id| id.parse().ok());
    let Some(leader) = leader.and_then(member) else {
        return status;
    };
    // One that nobody has ever had to reach has not said where it is.
    if leader.client_address.is_empty() {
        return status;
    }
    metadata.insert(LEADER.to_owned(), leader.client_address);
    details.set_error_info(NOT_LEADER, DOMAIN, metadata);
    Status::with_error_details(status.code(), status.message(), details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::not_leader;

    fn member(id: u64) -> Option<Member> {
        let address = match id {
            2 => "https://b:7070",
            3 => "",
            _ => return None,
        };
        Some(Member {
            id,
            peer_address: String::new(),
            client_address: address.to_owned(),
            key: [0; 32],
        })
    }

    fn leader(status: Status) -> Option<String> {
        let details = point(status, member).get_error_details();
        assert!(details.retry_info().is_some(), "says when to ask again");
        let info = details.error_info().cloned();
        info.and_then(|info| info.metadata.get(LEADER).cloned())
    }

    #[test]
    fn a_refusal_says_where_the_leader_is() {
        assert_eq!(
            leader(not_leader(Some(2))).as_deref(),
            Some("https://b:7070")
        );
        assert_eq!(leader(not_leader(Some(3))), None, "it has no address");
        assert_eq!(leader(not_leader(Some(9))), None, "nobody knows it");
        assert_eq!(leader(not_leader(None)), None);
    }

    #[test]
    fn other_refusals_stay_as_they_are() {
        let full = crate::status::storage_full();
        let same = point(full.clone(), |_| unreachable!("nobody is to be looked up"));
        assert_eq!((same.code(), same.details()), (full.code(), full.details()));
    }
}
