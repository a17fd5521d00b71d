//! Refusals between nodes: a status with a word for the program beside the sentence for people.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::roster::Stranger;

/// Where the word is.
const KEY: &str = "stepcast-refusal";

/// Where the leader's peer address is.
const LEADER: &str = "stepcast-leader";

/// The caller was a member once.
pub(super) const REMOVED: &str = "removed";

/// The caller is no member, or takes the other for somebody else.
pub(super) const STRANGER: &str = "stranger";

/// Another node leads.
pub(super) const NOT_LEADER: &str = "not_leader";

/// This node has not started, or is busy: ask again.
pub(super) const LATER: &str = "later";

/// A refusal for this reason.
pub(super) fn refuse(code: Code, word: &'static str, message: impl Into<String>) -> Status {
    let mut status = Status::new(code, message);
    status
        .metadata_mut()
        .insert(KEY, MetadataValue::from_static(word));
    status
}

/// The caller is not heard.
pub(super) fn stranger(why: &Stranger) -> Status {
    let (code, word) = match why {
        Stranger::NoCertificate => (Code::Unauthenticated, STRANGER),
        Stranger::Removed { .. } => (Code::PermissionDenied, REMOVED),
        _ => (Code::PermissionDenied, STRANGER),
    };
    refuse(code, word, why.to_string())
}

/// Not before the node behind has started.
pub(super) fn starting() -> Status {
    refuse(Code::Unavailable, LATER, "this node is starting")
}

/// Another node leads: there, if that is known.
pub(super) fn not_leader(address: Option<&str>) -> Status {
    let mut status = refuse(Code::Unavailable, NOT_LEADER, "this node does not lead");
    if let Some(address) = address.and_then(|address| address.parse().ok()) {
        status.metadata_mut().insert(LEADER, address);
    }
    status
}

/// The word of a refusal, if it is one of ours.
pub(super) fn read(status: &Status) -> Option<&'static str> {
    let word = status.metadata().get(KEY)?.to_str().ok()?;
    [REMOVED, STRANGER, NOT_LEADER, LATER]
        .into_iter()
        .find(|known| *known == word)
}

/// Where the leader is, as a refusal says.
pub(super) fn leader(status: &Status) -> Option<String> {
    let address = status.metadata().get(LEADER)?.to_str().ok()?;
    Some(address.to_owned())
}
