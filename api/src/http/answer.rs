//! Refusals as HTTP: a status, and one flat JSON object that says what a person or a program can do about it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Why a call was refused. SimpleTuner's client shows `detail`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Refused {
    /// One sentence for people.
    pub(crate) detail: String,
    /// A stable name, such as `NO_SUCH_JOB`.
    pub(crate) code: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// What is wrong with which part of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) fields: Vec<WrongField>,
    /// URL of the node that leads, if this one does not and the call needs the leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leader: Option<String>,
    /// By which a submission of which it is not known whether it was taken is asked for again, and takes effect once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

/// A part of a request that is wrong.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WrongField {
    /// Where it stands.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) detail: String,
}

/// What is said of a refusal.
pub(crate) fn told(status: &Status) -> Refused {
    let details = status.get_error_details();
    let (code, mut metadata) = details.error_info().map_or_else(
        || (format!("{:?}", status.code()), Default::default()),
        |info| (info.reason.clone(), info.metadata.clone()),
    );
    let fields = details.bad_request().map(|bad| &bad.field_violations);
    Refused {
        detail: status.message().to_owned(),
        hint: metadata.remove("hint"),
        leader: metadata.remove("leader"),
        request_id: metadata.remove("request_id"),
        fields: fields
            .into_iter()
            .flatten()
            .map(|field| WrongField {
                field: field.field.clone(),
                detail: field.description.clone(),
            })
            .collect(),
        code,
    }
}

/// A refusal as an answer.
pub(crate) fn refused(status: &Status) -> Response {
    let (details, body) = (status.get_error_details(), told(status));
    let mut answer = (number(status.code(), &body.code), Json(body)).into_response();
    if let Some(after) = details.retry_info().and_then(|info| info.retry_delay) {
        let seconds = after.as_millis().div_ceil(1000);
        if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
            answer.headers_mut().insert(header::RETRY_AFTER, value);
        }
    }
    answer
}

/// The HTTP status of a refusal. What the state forbids is a conflict: SimpleTuner's client reads it as "cannot be
/// cancelled any more".
fn number(code: Code, reason: &str) -> StatusCode {
    match (code, reason) {
        (_, "BODY_TOO_LARGE" | "MESSAGE_TOO_LARGE" | "FILES_TOO_LARGE") => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        (_, "NOT_GRPC") => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        (_, "BODY_TOO_SLOW") => StatusCode::REQUEST_TIMEOUT,
        (_, "METHOD_NOT_ALLOWED") => StatusCode::METHOD_NOT_ALLOWED,
        (_, "STORAGE_FULL" | "STAGING_FULL" | "STAGING_DISK_FULL" | "RECORDS_DISK_FULL") => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        (Code::Ok, _) => StatusCode::OK,
        (Code::InvalidArgument | Code::OutOfRange, _) => StatusCode::BAD_REQUEST,
        (Code::Unauthenticated, _) => StatusCode::UNAUTHORIZED,
        (Code::PermissionDenied, _) => StatusCode::FORBIDDEN,
        (Code::NotFound, _) => StatusCode::NOT_FOUND,
        (Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted, _) => StatusCode::CONFLICT,
        (Code::ResourceExhausted, _) => StatusCode::TOO_MANY_REQUESTS,
        (Code::Unavailable | Code::Cancelled, _) => StatusCode::SERVICE_UNAVAILABLE,
        (Code::DeadlineExceeded, _) => StatusCode::GATEWAY_TIMEOUT,
        (Code::Unimplemented, _) => StatusCode::NOT_IMPLEMENTED,
        (Code::Internal | Code::Unknown | Code::DataLoss, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status;

    #[test]
    fn refusals_have_the_status_that_clients_act_on() {
        for (status, number) in [
            (status::bad_field("a", "b"), 400),
            (status::invalid_token(), 401),
            (status::not_found("jobs", "a job", "jobs/jmnpq"), 404),
            (status::not_leader(Some(2)), 503),
            (status::storage_full(), 503),
            (crate::staging::no_room(), 503),
            (status::busy("b", std::time::Duration::from_millis(1)), 429),
        ] {
            assert_eq!(refused(&status).status().as_u16(), number, "{status:?}");
        }
        let busy = refused(&status::busy("b", std::time::Duration::from_millis(1200)));
        assert_eq!(busy.headers()[header::RETRY_AFTER], "2");
    }
}
