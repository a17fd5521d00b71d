//! What a person reads when something is refused: one primary line, details, a hint; and the exit code that scripts read.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How the program ends; the numbers are a contract (`stepcast --help`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A rule says no, or the work itself has failed.
    Refused = 1,
    /// The command line is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// No server answers.
    Unreachable = 4,
    /// It may or may not have happened: ask again with the same request id.
    Unknown = 5,
    /// A person pressed Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// The server's stable name for it, such as `NOT_LEADER`; empty for what went wrong here.
    pub(crate) reason: String,
    /// One line: what is wrong.
    pub(crate) primary: String,
    /// More of it, one line each.
    pub(crate) details: Vec<String>,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// What the server says of asking again, if it does.
    pub(crate) again: Option<Box<Again>>,
}

/// How to ask again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Again {
    /// How long the server asks callers to wait first.
    pub(crate) after: Option<Duration>,
    /// Where the leader is, as a URL.
    pub(crate) leader: Option<String>,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(exit: Exit, primary: impl Into<String>) -> Self {
        Self {
            exit,
            reason: String::new(),
            primary: primary.into(),
            details: Vec::new(),
            hint: None,
            again: None,
        }
    }

    /// Something that a rule, a file or the system refuses.
    pub(crate) fn refused(primary: impl Into<String>) -> Self {
        Self::new(Exit::Refused, primary)
    }

    /// A wrong command line.
    pub(crate) fn usage(primary: impl Into<String>) -> Self {
        Self::new(Exit::Usage, primary)
    }

    /// The same with one more line.
    pub(crate) fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    /// The same with what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The lines as people read them, without colour.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.primary);
        for line in &self.details {
            text.push_str(&format!("  {line}\n"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("  hint: {hint}\n"));
        }
        text
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        json!({ "error": {
            "exit_code": self.exit as u8,
            "reason": self.reason,
            "message": self.primary,
            "details": self.details,
            "hint": self.hint,
        }})
    }

    /// What a server's answer means for the person who asked.
    pub(crate) fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let reason = info.map(|info| info.reason.clone()).unwrap_or_default();
        let mut failure = if reason.is_empty() && is_broken(status) {
            Self::new(Exit::Unreachable, "the connection to the server broke").detail(cause(status))
        } else {
            Self::new(
                exit_of(status.code(), &reason),
                first_line(status.message()),
            )
        };
        failure.reason = reason;
        failure.details.extend(
            status
                .message()
                .lines()
                .skip(1)
                .map(|line| line.trim_end().to_owned()),
        );
        for violation in details
            .bad_request()
            .iter()
            .flat_map(|bad| &bad.field_violations)
        {
            failure
                .details
                .push(located(&violation.field, &violation.description));
        }
        for violation in details
            .precondition_failure()
            .iter()
            .flat_map(|failed| &failed.violations)
        {
            failure.details.push(violation.description.clone());
        }
        for violation in details
            .quota_failure()
            .iter()
            .flat_map(|failed| &failed.violations)
        {
            failure.details.push(violation.description.clone());
        }
        failure.hint = info
            .and_then(|info| info.metadata.get("hint").cloned())
            .or_else(|| {
                details
                    .help()
                    .and_then(|help| help.links.first())
                    .map(|link| link.description.clone())
            })
            .or_else(|| usual_hint(status.code()));
        let again = Again {
            after: details.retry_info().and_then(|retry| retry.retry_delay),
            leader: info.and_then(|info| info.metadata.get("leader").cloned()),
        };
        failure.again = (again != Again::default()).then(|| Box::new(again));
        // A single violation is often the message itself.
        let primary = failure.primary.clone();
        failure
            .details
            .retain(|line| !line.is_empty() && !primary.contains(line.as_str()));
        failure
    }
}

/// What may be wrong with a call in plain text: a server with TLS answers it by bytes that are no HTTP/2 and hangs up, and
/// either may be noticed first.
pub(crate) fn tls_hint(status: &Status) -> Option<String> {
    const SIGNS: [&str; 5] = [
        "frame with invalid size",
        "broken pipe",
        "reset",
        "connection closed",
        "connection was not ready",
    ];
    let cause = cause(status).to_lowercase();
    let is_other = is_broken(status) && SIGNS.iter().any(|sign| cause.contains(sign));
    is_other.then(|| "does the server speak TLS? Its address begins with https:// then".to_owned())
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::from_status(&status)
    }
}

fn exit_of(code: Code, reason: &str) -> Exit {
    match (code, reason) {
        (_, "OUTCOME_UNKNOWN") => Exit::Unknown,
        (Code::NotFound, _) => Exit::NotFound,
        // The server answers; it is its store that does not.
        (_, "RECORDS_UNREACHABLE") => Exit::Refused,
        (Code::Unavailable | Code::DeadlineExceeded, _) => Exit::Unreachable,
        _ => Exit::Refused,
    }
}

/// Whether the library itself made this status since the connection failed: one that a server has sent has no cause here. A
/// server that stood still while many calls were given up closes their connection as exhausted.
fn is_broken(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::ResourceExhausted
    ) && std::error::Error::source(status).is_some()
}

/// The deepest cause: the words above it say only that it did not work.
fn cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn usual_hint(code: Code) -> Option<String> {
    let hint = match code {
        Code::Unauthenticated => {
            "give the server's access token with --access-token-file or STEPCAST_ACCESS_TOKEN_FILE"
        }
        Code::Unimplemented => {
            "is the server older than this program? compare `stepcast --version` with the version in `stepcast cluster status`, \
             which operators may ask for"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

fn located(field: &str, description: &str) -> String {
    if field.is_empty() || description.starts_with(field) {
        description.to_owned()
    } else {
        format!("{field}: {description}")
    }
}

fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        "the server gave no reason".to_owned()
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_refusal_reads_as_primary_details_and_hint() {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "CONFIG_INVALID",
            "stepcast",
            std::collections::HashMap::new(),
        );
        details.add_bad_request_violation(
            "config.json:/model_family",
            "is missing; write one such as \"flux\"",
        );
        details.add_help_link("see `stepcast submit --help`", "");
        let status = Status::with_error_details(
            Code::InvalidArgument,
            "the configuration cannot be read",
            details,
        );
        let failure = Failure::from(status);
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(
            failure.text(),
            "error: the configuration cannot be read\n  config.json:/model_family: is missing; write one such as \"flux\"\n  \
             hint: see `stepcast submit --help`\n"
        );
        assert_eq!(failure.json()["error"]["reason"], "CONFIG_INVALID");
    }

    #[test]
    fn codes_and_reasons_choose_the_exit_code() {
        assert_eq!(
            Failure::from(Status::not_found("no such job")).exit,
            Exit::NotFound
        );
        assert_eq!(
            Failure::from(Status::unavailable("gone")).exit,
            Exit::Unreachable
        );
        assert_eq!(
            Failure::from(Status::failed_precondition("it is over")).exit,
            Exit::Refused
        );
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "OUTCOME_UNKNOWN",
            "stepcast",
            std::collections::HashMap::new(),
        );
        let lost = Status::with_error_details(Code::Unavailable, "the leader changed", details);
        assert_eq!(Failure::from(lost).exit, Exit::Unknown);
    }

    #[test]
    fn a_server_that_hangs_up_may_speak_tls() {
        use std::io::{Error, ErrorKind};
        let broken = |kind| Status::from_error(Box::new(Error::from(kind)));
        for kind in [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset] {
            let hint = tls_hint(&broken(kind)).expect("a hint");
            assert!(hint.contains("https://"), "{hint}");
        }
        assert_eq!(tls_hint(&broken(ErrorKind::ConnectionRefused)), None);
        assert_eq!(tls_hint(&Status::not_found("no such job")), None);
    }
}
