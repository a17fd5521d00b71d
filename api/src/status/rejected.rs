//! What the state refuses, as callers are told: its stable name, its code, and what helps.

use stepcast_scheduler::Rejection;
use tonic::{Code, Status};
use tonic_types::FieldViolation;

use super::{RETRY_FULL, Refusal, invalid_token, not_found, stale_instance, token_in_use};

/// A command that the state refuses.
pub(crate) fn rejection(rejection: Rejection) -> Status {
    let (reason, message) = (rejection.code(), rejection.to_string());
    let refuse = |code| Refusal::new(code, reason, message.clone());
    match rejection {
        Rejection::NoSuchJob => not_found("jobs", "a job", "jobs"),
        Rejection::NoSuchWorker => not_found("workers", "a worker", "workers"),
        Rejection::NoSuchToken => not_found("workerTokens", "a worker token", "workerTokens"),
        Rejection::InvalidSpec(error) => {
            refuse(Code::InvalidArgument).fields(vec![FieldViolation::new("wishes", error.to_string())]).into()
        }
        Rejection::InvalidInventory { .. } => refuse(Code::InvalidArgument).into(),
        Rejection::RequestIdReused => refuse(Code::AlreadyExists)
            .hint("draw a new request id for every new request; send the same one only with the same request")
            .into(),
        Rejection::StagingInUse => refuse(Code::AlreadyExists).into(),
        Rejection::JobOver { .. } => refuse(Code::FailedPrecondition).into(),
        Rejection::StaleEpoch { given, newest } => refuse(Code::FailedPrecondition)
            .with("given", given)
            .with("newest", newest.map_or_else(String::new, |newest| newest.to_string()))
            .into(),
        Rejection::NoSuchPart => refuse(Code::FailedPrecondition).into(),
        Rejection::AttemptOver { epoch } => refuse(Code::FailedPrecondition).with("epoch", epoch).into(),
        Rejection::InvalidToken => invalid_token(),
        Rejection::TokenInUse { worker, instance, .. } => token_in_use(message, worker, instance),
        Rejection::NameTaken { .. } => refuse(Code::AlreadyExists)
            .hint("choose another name, or revoke the token that has it")
            .into(),
        Rejection::TokenExists => refuse(Code::AlreadyExists).into(),
        Rejection::GpusInUse => refuse(Code::FailedPrecondition).retry(RETRY_FULL).into(),
        Rejection::StaleInstance => stale_instance(message),
        Rejection::YoursFull { .. } => refuse(Code::ResourceExhausted)
            .hint("cancel those that you do not need (`stepcast jobs --state pending`, `stepcast job cancel JOB --array`), or wait until some have ended")
            .quota("unfinished jobs", &message)
            .into(),
        Rejection::Full { what } => refuse(Code::ResourceExhausted).quota(what, &message).retry(RETRY_FULL).into(),
        Rejection::Busy => refuse(Code::ResourceExhausted).retry(RETRY_FULL).into(),
        Rejection::TooMany { .. } => refuse(Code::InvalidArgument).into(),
        Rejection::OutOfOrder => refuse(Code::Internal).into(),
        Rejection::NoSuchTeam { name } => not_found("teams", "a team", &format!("teams/{name}")),
        Rejection::TeamInUse { .. } | Rejection::NotWaiting => {
            refuse(Code::FailedPrecondition).into()
        }
        Rejection::InvalidTeam { .. }
        | Rejection::InvalidPolicy
        | Rejection::ArraySize { .. }
        | Rejection::AbovePriority { .. } => refuse(Code::InvalidArgument).into(),
        Rejection::NotInTeam { .. } => refuse(Code::PermissionDenied)
            .hint("name a team that you are in with --team, or have an operator let you in: `stepcast teams members`")
            .into(),
        Rejection::OverQuota { ref team, .. } => refuse(Code::FailedPrecondition)
            .hint("ask for fewer GPUs, or have the team's quota raised")
            .quota(team.as_str(), &message)
            .into(),
        Rejection::Changed => refuse(Code::Aborted)
            .hint("look at the job again, and ask for the change again if it still makes sense")
            .into(),
        Rejection::NoSuchOrg => not_found("orgs", "an organisation", "orgs"),
        Rejection::NoSuchUser => not_found("users", "a user", "users"),
        Rejection::NotAllowed => refuse(Code::PermissionDenied).into(),
        Rejection::RoleElsewhere => refuse(Code::InvalidArgument).into(),
        Rejection::LastOne => refuse(Code::FailedPrecondition)
            .hint("make somebody else an owner or operator first")
            .into(),
        Rejection::AccountNameTaken { .. } => {
            refuse(Code::AlreadyExists).hint("choose another name").into()
        }
        Rejection::SecondOrg => refuse(Code::FailedPrecondition)
            .hint("the benchmark records hold single contributions, which a second organisation could trace: give it a server of its own")
            .into(),
        Rejection::NotYet => refuse(Code::FailedPrecondition)
            .hint("`stepcast cluster status`, which operators may ask for, names nodes that are older; where all are held by --hold-format, take that away")
            .into(),
    }
}
