//! What the benchmark tables could not do, as callers are told.

use stepcast_estimator::Error;
use tonic::{Code, Status};

use super::{RETRY, RETRY_FULL, Refusal, busy};

/// What the estimator could not do. Its causes may name a location, so they stay in the server's log.
pub(crate) fn records(error: &Error) -> Status {
    let message = error.to_string();
    match error {
        Error::Unreachable { .. } if is_full(error) => full(),
        Error::Unreachable { .. } | Error::Denied { .. } => {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "a call needed the record store"
            );
            unreachable(message)
        }
        Error::Damaged { .. } => {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a query met an object that cannot be read"
            );
            hinted(Refusal::new(Code::DataLoss, "RECORDS_DAMAGED", message), error)
        }
        Error::LogDamaged { .. } => Refusal::new(Code::DataLoss, "RECORDS_DAMAGED", message).into(),
        Error::Contended { .. } => Refusal::new(Code::Aborted, "RECORDS_CONTENDED", message).retry(RETRY).into(),
        Error::Config(_) => Refusal::new(Code::InvalidArgument, "RECORDS_INVALID", message).into(),
        Error::Foreign { .. } => Refusal::new(Code::FailedPrecondition, "UPGRADE_REQUIRED", message)
            .hint("start a server of the version that wrote the tables, or give this one a location of its own")
            .into(),
        Error::TooMany { .. } => Refusal::new(Code::InvalidArgument, "TOO_MANY", message).into(),
        Error::Refused { .. } => hinted(Refusal::new(Code::InvalidArgument, "STATEMENT_REFUSED", message), error),
        Error::Query { .. } => hinted(Refusal::new(Code::InvalidArgument, "QUERY_INVALID", message), error),
        Error::TimedOut(_) => hinted(Refusal::new(Code::ResourceExhausted, "QUERY_TIMEOUT", message), error),
        Error::OutOfMemory => hinted(Refusal::new(Code::ResourceExhausted, "QUERY_MEMORY", message), error),
        Error::Busy | Error::NotRun => busy(message, RETRY),
    }
}

/// Whether the cause is a disk without room.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull)
        || error.source().is_some_and(is_full)
}

fn hinted(refusal: Refusal, error: &Error) -> Status {
    match error.hint() {
        Some(hint) => refusal.hint(hint).into(),
        None => refusal.into(),
    }
}

/// The store does not answer.
pub(super) fn unreachable(message: impl Into<String>) -> Status {
    Refusal::new(Code::Unavailable, "RECORDS_UNREACHABLE", message)
        .hint("estimates and jobs go on without it, and samples wait; the server's log says what is wrong with the store")
        .retry(RETRY_FULL)
        .into()
}

/// No room for rows, on a disk that is not the data folder's where a store was named.
fn full() -> Status {
    let message = "the disk of the benchmark tables is full, so nothing new is stored";
    Refusal::new(Code::ResourceExhausted, "RECORDS_DISK_FULL", message)
        .hint("make room on the disk of the folder that --store names, without which it is in the data folder; running jobs go on")
        .quota("disk", message)
        .retry(RETRY_FULL)
        .into()
}

#[cfg(test)]
mod tests {
    use std::io;

    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn a_full_disk_is_told_as_that_of_the_tables() {
        let source = io::Error::from(io::ErrorKind::StorageFull).into();
        let status = records(&Error::Unreachable { source });
        assert_eq!(status.code(), Code::ResourceExhausted);
        let info = status.get_details_error_info().expect("a reason");
        assert_eq!(info.reason, "RECORDS_DISK_FULL");
        assert!(info.metadata["hint"].contains("--store"), "{info:?}");
        assert!(
            status.get_details_quota_failure().is_some()
                && status.get_details_retry_info().is_some()
        );
        let source = io::Error::from(io::ErrorKind::TimedOut).into();
        let info = records(&Error::Unreachable { source }).get_details_error_info();
        assert_eq!(info.expect("a reason").reason, "RECORDS_UNREACHABLE");
    }
}
