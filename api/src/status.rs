//! Every refusal as a `google.rpc.Status`: its code, a stable reason, and what a person or a program can do about it.

mod rejected;
mod tables;

use std::collections::HashMap;
use std::time::Duration;

use stepcast_cluster::{AttachError, ContributeError, ProposeError, ReadError, WatchError};
use stepcast_records::simpletuner::{Missing, Problems};
use stepcast_scheduler::Rejection;
use stepcast_scheduler::ids::InstanceId;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt};

pub(crate) use rejected::rejection;
pub(crate) use tables::records;

/// The domain of every reason.
pub const DOMAIN: &str = "stepcast";

/// The reason of a refusal by a node that does not lead. Its metadata says who does, and where that node is.
pub const NOT_LEADER: &str = "NOT_LEADER";

/// The reason of a refusal after which nobody knows whether what was asked took effect.
pub(crate) const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";

/// The reason of a refusal to whom has used up what one person may have of something.
pub(crate) const YOURS_FULL: &str = "YOURS_FULL";

/// The leader's node id in that metadata.
pub(crate) const LEADER_ID: &str = "leader_id";

/// A good moment to try again when nothing better is known: an election is over by then.
pub(crate) const RETRY: Duration = Duration::from_millis(500);

/// A full disk or table does not empty sooner than somebody or a sweep looks at it.
pub(crate) const RETRY_FULL: Duration = Duration::from_secs(30);

/// Problems of a configuration that are told at once: a screen of them. The rest is counted.
const PROBLEMS_TOLD: usize = 50;

/// So much of a caller's word is repeated: longer than any name that could have been meant.
const WORD_CHARS: usize = 40;

/// A refusal in the making.
pub(crate) struct Refusal {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
}

impl Refusal {
    pub(crate) fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            details: ErrorDetails::new(),
        }
    }

    /// A fact for programs.
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// What to do next.
    pub(crate) fn hint(self, hint: impl ToString) -> Self {
        self.with("hint", hint)
    }

    /// When to try again.
    pub(crate) fn retry(mut self, after: Duration) -> Self {
        self.details.set_retry_info(Some(after));
        self
    }

    pub(crate) fn fields(mut self, fields: Vec<FieldViolation>) -> Self {
        self.details.set_bad_request(fields);
        self
    }

    pub(crate) fn preconditions(mut self, violations: Vec<PreconditionViolation>) -> Self {
        self.details.set_precondition_failure(violations);
        self
    }

    fn resource(mut self, kind: &str, name: &str, what: &str) -> Self {
        self.details.set_resource_info(kind, name, "", what);
        self
    }

    pub(crate) fn quota(mut self, subject: &str, what: &str) -> Self {
        self.details.add_quota_failure_violation(subject, what);
        self
    }
}

impl From<Refusal> for Status {
    fn from(mut refusal: Refusal) -> Self {
        refusal
            .details
            .set_error_info(refusal.reason, DOMAIN, refusal.metadata);
        Self::with_error_details(refusal.code, refusal.message, refusal.details)
    }
}

/// A field of the request that is wrong.
pub(crate) fn bad_field(field: &str, what: impl Into<String>) -> Status {
    let what = what.into();
    let refusal = Refusal::new(
        Code::InvalidArgument,
        "INVALID_FIELD",
        format!("{field}: {what}"),
    );
    refusal
        .fields(vec![FieldViolation::new(field, what)])
        .into()
}

/// A caller's word, fit to be repeated: short and on one line.
pub(crate) fn shown(word: &str) -> String {
    let short: String = word.chars().take(WORD_CHARS).collect();
    short.escape_debug().to_string()
}

/// A resource that is not there.
pub(crate) fn not_found(kind: &'static str, article: &str, name: &str) -> Status {
    let (reason, hint) = match kind {
        "jobs" => (
            "NO_SUCH_JOB",
            "`stepcast jobs` lists the jobs that are known; a job is forgotten 90 days after its end",
        ),
        "workers" => ("NO_SUCH_WORKER", "`stepcast workers` lists the workers"),
        "teams" => (
            "NO_SUCH_TEAM",
            "`stepcast teams` lists the teams; a part is made once its whole is there",
        ),
        "nodes" => (
            "NO_SUCH_NODE",
            "`stepcast cluster status` lists the nodes; one that was removed does not come back",
        ),
        "orgs" => ("NO_SUCH_ORG", "`stepcast org ls` lists the organisations"),
        "users" => ("NO_SUCH_USER", "`stepcast user ls` lists the people"),
        _ => ("NO_SUCH_TOKEN", "a revoked token is forgotten"),
    };
    let what = format!(
        "there is no such {}",
        article.split_once(' ').map_or(article, |(_, noun)| noun)
    );
    // A name is repeated only when it can be one, since a caller may have sent anything.
    let fits = name != kind && name.len() <= 64 && !name.chars().any(char::is_control);
    let (shown, message) = if fits {
        (name, format!("{what}: {name}"))
    } else {
        ("", what.clone())
    };
    let refusal = Refusal::new(Code::NotFound, reason, message).hint(hint);
    refusal.resource(kind, shown, &what).into()
}

/// A configuration that cannot be read: every problem with its place.
pub(crate) fn problems(problems: &Problems) -> Status {
    let all = &problems.0;
    let message = match all.as_slice() {
        [one] => format!("the configuration cannot be used: {one}"),
        _ => format!("the configuration cannot be used: {} problems", all.len()),
    };
    let told = all.iter().take(PROBLEMS_TOLD).map(|problem| {
        FieldViolation::new(
            format!("{} {}", problem.file, problem.path),
            format!("{}; {}", problem.what, problem.hint),
        )
    });
    let refusal =
        Refusal::new(Code::InvalidArgument, "CONFIG_INVALID", message).with("problems", all.len());
    refusal.fields(told.collect()).into()
}

/// A fact without which a run cannot be counted. A data set is called as its person calls it.
pub(crate) fn missing(missing: &Missing, dataset: Option<&str>) -> Status {
    let (reason, field, hint) = match missing {
        Missing::Samples { .. } => (
            "SAMPLES_MISSING",
            "sample_counts",
            "say how many samples it has: `--samples N`, or `sample_counts` over gRPC and HTTP",
        ),
        Missing::TooFewSamples { .. } => (
            "TOO_FEW_SAMPLES",
            "files",
            "raise the data set's repeats, or use fewer GPUs",
        ),
        Missing::TooManySteps { .. } => (
            "TOO_MANY_STEPS",
            "files",
            "lower num_train_epochs, or give max_train_steps instead",
        ),
        Missing::Gpus { .. } => (
            "GPUS_INDIVISIBLE",
            "wishes.gpu_count",
            "choose another number of GPUs",
        ),
        Missing::Datasets => (
            "NO_DATASETS",
            "files",
            "add a data set to the data loader's settings",
        ),
    };
    let message = missing.to_string();
    let refusal = Refusal::new(Code::InvalidArgument, reason, message.clone()).hint(hint);
    let refusal = refusal.fields(vec![FieldViolation::new(field, message)]);
    match dataset {
        Some(dataset) => refusal.with("dataset", dataset).into(),
        None => refusal.into(),
    }
}

/// What an answer of the log means for its caller.
pub(crate) fn propose(error: ProposeError) -> Status {
    let message = error.to_string();
    match error {
        ProposeError::Rejected(refused) => rejection(refused),
        ProposeError::NotLeader { leader } => not_leader(leader),
        ProposeError::OutcomeUnknown => Refusal::new(Code::Unavailable, OUTCOME_UNKNOWN, message)
            .hint("ask again with the same request id: it takes effect once; without one look first whether it took effect")
            .retry(RETRY)
            .into(),
        ProposeError::Busy { retry_ms } => busy(message, Duration::from_millis(retry_ms)),
        ProposeError::StorageFull => storage_full(),
        ProposeError::Stalled { retry_ms, .. } => {
            Refusal::new(Code::Unavailable, "LOG_STALLED", message)
                .hint("the server tries again by itself; its log says more")
                .retry(Duration::from_millis(retry_ms))
                .into()
        }
        ProposeError::TooLarge { .. } => {
            Refusal::new(Code::InvalidArgument, "TOO_LARGE", message).into()
        }
        ProposeError::Stopped(_) => stopped(message),
    }
}

/// The same of a command about one thing, which is called by its name if it is not there.
pub(crate) fn propose_about(error: ProposeError, name: &str) -> Status {
    match error {
        ProposeError::Rejected(Rejection::NoSuchJob) => not_found("jobs", "a job", name),
        ProposeError::Rejected(Rejection::NoSuchWorker) => not_found("workers", "a worker", name),
        ProposeError::Rejected(Rejection::NoSuchToken) => {
            not_found("workerTokens", "a worker token", name)
        }
        other => propose(other),
    }
}

/// Why a read was not answered.
pub(crate) fn read(error: ReadError) -> Status {
    let message = error.to_string();
    match error {
        ReadError::NotLeader { leader } => not_leader(leader),
        ReadError::Timeout => Refusal::new(Code::Unavailable, "READ_TIMEOUT", message)
            .retry(RETRY)
            .into(),
        ReadError::Busy { retry_ms } => busy(message, Duration::from_millis(retry_ms)),
        ReadError::Stopped(_) => stopped(message),
    }
}

/// Why a worker got no session.
pub(crate) fn attach(error: AttachError) -> Status {
    let message = error.to_string();
    match error {
        AttachError::NotLeader { leader } => not_leader(leader),
        AttachError::UnknownWorker => Refusal::new(Code::NotFound, "NO_SUCH_WORKER", message)
            .hint("register again")
            .resource("workers", "", "the worker is not registered")
            .into(),
        AttachError::StaleInstance => stale_instance(message),
    }
}

/// Why a job is not watched.
pub(crate) fn watch(error: WatchError, name: &str) -> Status {
    match error {
        WatchError::NoSuchJob => not_found("jobs", "a job", name),
        WatchError::Busy => busy(error.to_string(), RETRY),
    }
}

/// Why samples were not stored.
pub(crate) fn contribute(error: ContributeError) -> Status {
    let message = error.to_string();
    match error {
        ContributeError::Busy => busy(message, RETRY),
        ContributeError::Failed => {
            tables::unreachable("the samples were not stored: the record store does not answer")
        }
        ContributeError::Stopped => stopped(message),
    }
}

/// The secret that a worker showed is none of a valid token.
pub(crate) fn invalid_token() -> Status {
    Refusal::new(Code::Unauthenticated, "INVALID_TOKEN", "the worker's token is not valid")
        .hint("make a new worker token and give it to the worker with --join-token-file; a revoked one stays revoked")
        .into()
}

/// A person's call without the access token, or with another one.
pub(crate) fn access_denied(message: &str) -> Status {
    Refusal::new(Code::Unauthenticated, "ACCESS_TOKEN_REQUIRED", message)
        .hint("give the file with your token, or with the server's access token: --access-token-file FILE, or STEPCAST_ACCESS_TOKEN_FILE")
        .into()
}

/// A call that this server has not, or that nobody may make.
pub(crate) fn no_such_call() -> Status {
    Refusal::new(
        Code::Unimplemented,
        "NO_SUCH_CALL",
        "this server has no such call",
    )
    .into()
}

/// No room for what was sent; nothing of it was kept.
pub(crate) fn storage_full() -> Status {
    let message = "the server's disk is nearly full, so nothing new is taken";
    Refusal::new(Code::ResourceExhausted, "STORAGE_FULL", message)
        .hint("make room on the disk of the server's data folder; running jobs go on")
        .quota("disk", message)
        .retry(RETRY_FULL)
        .into()
}

/// Too much of something waits.
pub(crate) fn busy(message: impl Into<String>, after: Duration) -> Status {
    Refusal::new(Code::ResourceExhausted, "BUSY", message)
        .retry(after)
        .into()
}

/// Something of the server's own went wrong; its log says what.
pub(crate) fn internal(reason: &'static str, message: &str) -> Status {
    Refusal::new(Code::Internal, reason, message)
        .hint("the server's log says more")
        .into()
}

/// Another node leads, or none does.
pub(crate) fn not_leader(leader: Option<u64>) -> Status {
    let message = match leader {
        Some(leader) => format!("this node does not lead; node {leader} does"),
        None => "no node leads at the moment".to_owned(),
    };
    let refusal = Refusal::new(Code::Unavailable, NOT_LEADER, message).retry(RETRY);
    match leader {
        Some(leader) => refusal.with(LEADER_ID, leader).into(),
        None => refusal.into(),
    }
}

fn token_in_use(message: String, worker: impl ToString, instance: InstanceId) -> Status {
    Refusal::new(Code::FailedPrecondition, "TOKEN_IN_USE", message)
        .with("worker", worker)
        .with("instance", instance)
        .hint("make a worker token of its own for this worker, and give it with --join-token-file")
        .into()
}

fn stale_instance(message: String) -> Status {
    Refusal::new(Code::FailedPrecondition, "STALE_INSTANCE", message)
        .hint("run one worker process on each state folder, with a token of its own")
        .into()
}

fn stopped(message: String) -> Status {
    Refusal::new(Code::Unavailable, "STOPPED", message)
        .retry(RETRY_FULL)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(status: &Status) -> String {
        let info = status.get_details_error_info();
        info.filter(|info| info.domain == DOMAIN)
            .map(|info| info.reason)
            .unwrap_or_default()
    }

    #[test]
    fn an_unknown_outcome_says_to_ask_again() {
        let status = propose(ProposeError::OutcomeUnknown);
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unavailable, "OUTCOME_UNKNOWN")
        );
        assert!(status.get_details_retry_info().is_some());
    }

    #[test]
    fn a_follower_names_its_leader() {
        let status = propose(ProposeError::NotLeader { leader: Some(2) });
        assert_eq!(reason(&status), "NOT_LEADER");
        let info = status.get_details_error_info();
        assert_eq!(
            info.and_then(|info| info.metadata.get(LEADER_ID).cloned())
                .as_deref(),
            Some("2")
        );
    }

    #[test]
    fn a_full_disk_is_a_quota_with_a_time_to_try_again() {
        let status = propose(ProposeError::StorageFull);
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::ResourceExhausted, "STORAGE_FULL")
        );
        assert!(
            status.get_details_quota_failure().is_some()
                && status.get_details_retry_info().is_some()
        );
    }

    #[test]
    fn a_name_that_cannot_be_one_is_not_repeated() {
        let status = not_found("jobs", "a job", &format!("jobs/{}", "x".repeat(100)));
        assert_eq!(status.message(), "there is no such job");
    }
}
