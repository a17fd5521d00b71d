//! What a failed call means for the session: find the leader, try again, or give up with a word on what to do.

use stepcast_proto::v1::Parting;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Why this worker may not take part. Trying again would change nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The token is unknown or revoked.
    #[error(
        "the server does not accept this worker's token ({0}); make a new one with `stepcast workers token create NAME` \
         and start the worker with it (--join-token-file)"
    )]
    Token(String),
    /// Another worker has it.
    #[error(
        "{0}; every worker needs a token of its own: stop the other one, or make a new one with `stepcast workers \
         token create NAME` and start this worker with it (--join-token-file)"
    )]
    InUse(String),
    /// Another process of the same worker has come.
    #[error(
        "another process has taken this worker's place ({0}); do not start two workers with one token or with copies of \
         one state folder"
    )]
    Replaced(String),
    /// What it offers cannot be taken.
    #[error("the server does not take what this worker offers: {0}")]
    Offer(String),
}

/// What to do after a failed call or a lost connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Give up.
    Stop(Refusal),
    /// Go to the leader, there if it is known.
    Leader(Option<String>),
    /// The leader does not know this worker: register again.
    Unknown,
    /// Try again, elsewhere if there is an elsewhere.
    Again(String),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        let words = words(&status);
        let reason = info.as_ref().map_or("", |info| info.reason.as_str());
        match (reason, status.code()) {
            ("NOT_LEADER", _) => {
                Self::Leader(info.and_then(|info| info.metadata.get("leader").cloned()))
            }
            ("TOKEN_IN_USE", _) => Self::Stop(Refusal::InUse(status.message().to_owned())),
            ("STALE_INSTANCE", _) => Self::Stop(Refusal::Replaced(status.message().to_owned())),
            ("INVALID_INVENTORY", _) => Self::Stop(Refusal::Offer(status.message().to_owned())),
            ("INVALID_TOKEN", _) => {
                Self::Stop(Refusal::Token("it is unknown, or was revoked".to_owned()))
            }
            (_, Code::Unauthenticated | Code::PermissionDenied) => {
                Self::Stop(Refusal::Token(status.message().to_owned()))
            }
            ("NO_SUCH_WORKER", _) | (_, Code::NotFound) => Self::Unknown,
            _ => Self::Again(words),
        }
    }
}

/// What the status says, with its causes: tonic's own words leave out why a connection failed.
fn words(status: &Status) -> String {
    let mut words = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}

impl From<Parting> for Trouble {
    fn from(parting: Parting) -> Self {
        match parting {
            Parting::Replaced => Self::Stop(Refusal::Replaced(
                "the leader has a newer session of it".to_owned(),
            )),
            Parting::Revoked => Self::Stop(Refusal::Token("it was revoked".to_owned())),
            Parting::NotLeader => Self::Leader(None),
            Parting::TooSlow => Self::Again("this worker read its orders too slowly".to_owned()),
            Parting::Unspecified => Self::Again("the server ended the session".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn trouble(code: Code, reason: &str, leader: Option<&str>) -> Trouble {
        let metadata: HashMap<String, String> = leader
            .map(|leader| ("leader".to_owned(), leader.to_owned()))
            .into_iter()
            .collect();
        let details = ErrorDetails::with_error_info(reason, "stepcast", metadata);
        Trouble::from(Status::with_error_details(code, "words", details))
    }

    #[test]
    fn the_leader_s_address_is_followed() {
        let told = trouble(Code::Unavailable, "NOT_LEADER", Some("http://b:7070"));
        assert_eq!(told, Trouble::Leader(Some("http://b:7070".to_owned())));
        assert_eq!(
            trouble(Code::Unavailable, "NOT_LEADER", None),
            Trouble::Leader(None)
        );
    }

    #[test]
    fn what_will_never_work_stops_and_says_what_to_do() {
        let cases = [
            (
                trouble(Code::Unauthenticated, "INVALID_TOKEN", None),
                "workers token create NAME",
            ),
            (
                Trouble::from(Status::unauthenticated("x")),
                "workers token create NAME",
            ),
            (
                trouble(Code::FailedPrecondition, "TOKEN_IN_USE", None),
                "a token of its own",
            ),
            (
                trouble(Code::FailedPrecondition, "STALE_INSTANCE", None),
                "do not start two workers",
            ),
            (Trouble::from(Parting::Replaced), "do not start two workers"),
            (Trouble::from(Parting::Revoked), "workers token create NAME"),
        ];
        for (trouble, words) in cases {
            let Trouble::Stop(refusal) = trouble else {
                panic!("{trouble:?} does not stop")
            };
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
    }

    #[test]
    fn everything_else_is_tried_again() {
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Internal,
            Code::Unimplemented,
            Code::ResourceExhausted,
        ] {
            assert!(
                matches!(trouble(code, "OTHER", None), Trouble::Again(_)),
                "{code:?}"
            );
        }
        assert!(matches!(Trouble::from(Parting::TooSlow), Trouble::Again(_)));
    }
}
