//! A call of which it is not known what has become: how its caller finds out, or asks again without harm.
//!
//! A submission has a request id in any case, so that it can be asked for again and takes effect once: where its caller drew
//! none, the node that takes it does, before it is passed on, and says so where it does not know what has become of it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use stepcast_scheduler::RequestId;
use tonic::Status;
use tonic_types::StatusExt;

use super::route::Route;
use crate::status::{OUTCOME_UNKNOWN, RETRY, Refusal};

/// The request id that a node has drawn for a submission, beside its body.
pub(super) const DRAWN: HeaderName = HeaderName::from_static("stepcast-request-id");

/// What of a body says which request it is.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    request_id: Option<String>,
}

/// By which request id a submission is known: that of its body, that of the node that has passed it on, or one that is drawn
/// now and stands in the head from then on. None of a call that is no submission, or of a body that is none.
pub(super) fn request_id(route: &Route, head: &mut HeaderMap, body: &[u8]) -> Option<String> {
    if !route.is_submission {
        return None;
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    if let Some(given) = body.request_id.filter(|given| !given.is_empty()) {
        return Some(given);
    }
    let drawn = drawn(head);
    if !drawn.is_empty() {
        return Some(drawn);
    }
    let drawn = RequestId(rand::random()).to_string();
    head.insert(DRAWN, HeaderValue::from_str(&drawn).ok()?);
    Some(drawn)
}

/// The request id in a head; empty if there is none.
pub(super) fn drawn(head: &HeaderMap) -> String {
    let drawn = head.get(DRAWN).and_then(|drawn| drawn.to_str().ok());
    drawn.unwrap_or_default().to_owned()
}

/// A refusal as this call's caller is told it: with its request id and when to ask again where that does no harm, or with
/// where to look first.
pub(super) fn told(refused: Status, route: &Route, request_id: Option<&str>) -> Status {
    let info = refused.get_details_error_info();
    if info.is_none_or(|info| info.reason != OUTCOME_UNKNOWN) {
        return refused;
    }
    let told = Refusal::new(refused.code(), OUTCOME_UNKNOWN, refused.message());
    match request_id {
        Some(id) => told
            .hint(format!(
                "ask again with the request id {id}: it takes effect once"
            ))
            .with("request_id", id)
            .retry(RETRY),
        None => told.hint(look(route.path)),
    }
    .into()
}

/// What to do before a call to this path is made once more.
fn look(path: &str) -> String {
    let place = match path {
        "/v1/tokens" | "/v1/worker-tokens" => {
            return format!(
                "look at GET {path}: if the token is there, nobody has its secret, so revoke it and ask for another"
            );
        }
        "/v1/join-tokens" => {
            return "ask for another: one that nobody has ends by itself".to_owned();
        }
        "/v1/operator" => {
            return "ask again: it took effect where you are told that there is an operator"
                .to_owned();
        }
        "/v1/records/take-back" => {
            return "look at GET /v1/records/versions whether it took effect, or ask again for the same versions: what went is not taken twice"
                .to_owned();
        }
        "/v1/leadership" | "/v1/nodes/{id}/remove" => "/v1/cluster",
        _ => match path.split_once("/{id}") {
            Some((things @ ("/v1/jobs" | "/v1/sweeps"), _)) => {
                &path[..things.len() + "/{id}".len()]
            }
            Some((things, _)) => things,
            None => path,
        },
    };
    format!("look at GET {place} whether it took effect, and ask again only where it did not")
}

#[cfg(test)]
mod tests {
    use stepcast_cluster::ProposeError;

    use super::super::answer;
    use super::*;
    use crate::access::Permission;
    use crate::status;

    fn told(route: &Route, id: Option<&str>) -> answer::Refused {
        let unknown = status::propose(ProposeError::OutcomeUnknown);
        answer::told(&super::told(unknown, route, id))
    }

    #[test]
    fn a_submission_has_a_request_id_that_its_refusal_names() {
        let route = Route::post("/v1/jobs", Permission::SubmitJobs, "").submission();
        let mut head = HeaderMap::new();
        let own = request_id(&route, &mut head, br#"{"request_id": "aa", "config": {}}"#);
        assert_eq!((own.as_deref(), head.len()), (Some("aa"), 0));
        assert_eq!(request_id(&route, &mut head, b"[no"), None);
        for body in ["{}", r#"{"request_id": null}"#, r#"{"request_id": ""}"#] {
            let mut head = HeaderMap::new();
            let id = request_id(&route, &mut head, body.as_bytes()).unwrap_or_default();
            assert!(id.parse::<RequestId>().is_ok(), "{body}: {id}");
            assert_eq!(drawn(&head), id);
            // The node that it is passed on to draws no other.
            let passed_on = request_id(&route, &mut head, body.as_bytes());
            assert_eq!(passed_on.as_ref(), Some(&id));
            let told = told(&route, Some(&id));
            assert!(told.hint.is_some_and(|hint| hint.contains(&id)));
            assert_eq!(
                (told.code.as_str(), told.request_id),
                (OUTCOME_UNKNOWN, Some(id))
            );
        }
    }

    #[test]
    fn whoever_cannot_ask_again_is_told_where_to_look() {
        for (path, place) in [
            ("/v1/jobs/{id}/cancel", "GET /v1/jobs/{id} "),
            ("/v1/teams/{id}/remove", "GET /v1/teams "),
            ("/v1/users", "GET /v1/users "),
            ("/v1/leadership", "GET /v1/cluster "),
            ("/v1/worker-tokens", "revoke"),
            ("/v1/records/take-back", "GET /v1/records/versions "),
        ] {
            let route = Route::post(path, Permission::SubmitJobs, "");
            assert_eq!(request_id(&route, &mut HeaderMap::new(), b"{}"), None);
            let told = told(&route, None);
            let hint = told.hint.unwrap_or_default();
            assert!(
                hint.contains(place) && told.request_id.is_none(),
                "{path}: {hint}"
            );
        }
        let other = super::told(
            status::storage_full(),
            &Route::post("", Permission::SubmitJobs, ""),
            None,
        );
        assert_eq!(answer::told(&other).code, "STORAGE_FULL");
    }
}
