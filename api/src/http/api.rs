//! The list of routes, and what every call goes through before its own code runs: who calls, whether they may, how often,
//! and how much they send.

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stepcast_cluster::ProposeError;
use tokio::time::timeout;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::body::Sent;
use super::document::Document;
use super::forward::Way;
use super::route::{Nothing, Route, Shape};
use super::shapes::Done;
use super::{
    accounts, answer, body, estimates, figures, jobs, nodes, prices, records, session, submit,
    sweeps, take_back, teams, unknown, watch, what_if, workers,
};
use crate::access::{Caller, Permission, authorise};
use crate::admission::{Admission, peer};
use crate::auth::People;
use crate::context::Context;
use crate::freshness::Freshness;
use crate::listen::Peer;
use crate::reader::Reader;
use crate::server::CALL_TIMEOUT;
use crate::status::{self, Refusal};
use crate::{origin, redirect, room, service};

/// How long any call may take. It is told here what has become of it: what the library says a moment later is an empty answer
/// with 200 to everybody who does not speak gRPC.
pub(super) const SERVED_WITHIN: Duration = CALL_TIMEOUT.saturating_sub(Duration::from_secs(2));

/// What the routes share. Clones share it too.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) context: Context,
    pub(crate) admission: Admission,
    pub(crate) jobs: service::Jobs,
    pub(crate) accounts: service::Accounts,
    /// How other nodes are reached.
    pub(crate) way: Way,
}

impl Http {
    /// Who asks for this, to be asked again whether they may.
    pub(crate) fn reader<Q>(&self, asked: &Asked<Q>, permission: Permission) -> Reader {
        let (admission, caller) = (self.admission.clone(), asked.caller.clone());
        Reader::new(admission, &asked.headers, permission, caller, asked.peer)
    }
}

/// A request as a route's own code sees it.
pub(crate) struct Asked<Q> {
    pub(crate) caller: Caller,
    pub(crate) query: Q,
    pub(crate) freshness: Freshness,
    pub(crate) headers: HeaderMap,
    pub(crate) peer: Option<IpAddr>,
    path: Vec<(String, String)>,
}

impl<Q> Asked<Q> {
    /// What stands in the path under this name.
    pub(crate) fn part(&self, name: &str) -> &str {
        let part = self.path.iter().find(|(key, _)| key == name);
        part.map_or("", |(_, value)| value)
    }

    /// By which request id a submission is known: as its caller says, or as the node that took it has drawn.
    pub(crate) fn request_id(&self, given: Option<String>) -> String {
        let given = given.filter(|given| !given.is_empty());
        given.unwrap_or_else(|| unknown::drawn(&self.headers))
    }

    /// The answer that what was asked is done to what stands in the path.
    pub(crate) fn done(&self) -> Done {
        Done {
            id: self.part("id").to_owned(),
        }
    }
}

/// Routes in the making.
pub(crate) struct Api {
    http: Http,
    router: Router,
    document: Document,
}

/// Every route, for the whole port.
pub(crate) fn router(
    context: Context,
    admission: Admission,
    jobs: service::Jobs,
    way: Way,
) -> Router {
    let accounts = service::Accounts::new(context.clone(), People::clone(&admission.people));
    let http = Http {
        accounts,
        context,
        admission,
        jobs,
        way,
    };
    let mut api = Api {
        http,
        router: Router::new(),
        document: Document::default(),
    };
    session::routes(&mut api);
    submit::routes(&mut api);
    sweeps::routes(&mut api);
    jobs::routes(&mut api);
    watch::routes(&mut api);
    estimates::routes(&mut api);
    prices::routes(&mut api);
    what_if::routes(&mut api);
    teams::routes(&mut api);
    workers::routes(&mut api);
    records::routes(&mut api);
    figures::routes(&mut api);
    take_back::routes(&mut api);
    nodes::routes(&mut api);
    accounts::routes(&mut api);
    api.finish()
}

impl Api {
    /// Adds a route whose answer is JSON.
    pub(crate) fn route<Q, B, A, F, Fut>(&mut self, route: Route, handler: F)
    where
        Q: DeserializeOwned + Shape + Send + 'static,
        B: DeserializeOwned + Shape + Send + 'static,
        A: Serialize + JsonSchema,
        F: Fn(Http, Asked<Q>, B) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let status = route.status;
        self.document.add::<Q, B, A>(&route);
        self.raw(route, move |http, asked, body| {
            let answer = handler(http, asked, body);
            async move {
                let number = axum::http::StatusCode::from_u16(status).unwrap_or_default();
                Ok((number, axum::Json(answer.await?)).into_response())
            }
        });
    }

    /// Adds a route that makes its answer itself, of the shape `A`.
    pub(crate) fn stream<Q, A, F, Fut>(&mut self, route: Route, handler: F)
    where
        Q: DeserializeOwned + Shape + Send + 'static,
        A: JsonSchema,
        F: Fn(Http, Asked<Q>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Status>> + Send + 'static,
    {
        self.document.add::<Q, Nothing, A>(&route);
        self.raw(route, move |http, asked, _: Nothing| handler(http, asked));
    }

    fn raw<Q, B, F, Fut>(&mut self, route: Route, handler: F)
    where
        Q: DeserializeOwned + Shape + Send + 'static,
        B: DeserializeOwned + Shape + Send + 'static,
        F: Fn(Http, Asked<Q>, B) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Status>> + Send + 'static,
    {
        let http = self.http.clone();
        // Every method here has a filter.
        let filter = MethodFilter::try_from(route.method.clone()).unwrap_or(MethodFilter::GET);
        let path = route.path;
        let serve = move |parameters: Result<RawPathParams, RawPathParamsRejection>,
                          request: Request| {
            let (http, handler, route) = (http.clone(), handler.clone(), route.clone());
            async move {
                let (parts, body) = request.into_parts();
                let mut sent = Sent::new(&parts, body);
                let handle = http.context.handle.clone();
                let id = OnceLock::new();
                let served = async {
                    let path = parts_of(parameters)?;
                    serve(http, &route, path, parts, (&mut sent, &id), handler).await
                };
                let answer = in_time(SERVED_WITHIN, route.anywhere, served).await;
                let answer = answer.unwrap_or_else(|status| {
                    let status = unknown::told(status, &route, id.get().map(String::as_str));
                    answer::refused(&redirect::told(status, &handle))
                });
                sent.answered(answer).await
            }
        };
        let router = std::mem::take(&mut self.router);
        self.router = router.route(path, on(filter, serve));
    }

    fn finish(mut self) -> Router {
        let document = Route::open(
            Method::GET,
            "/v1/openapi.json",
            "This document, in the words of OpenAPI 3.1.",
        );
        self.document
            .add::<Nothing, Nothing, serde_json::Value>(&document);
        let text: Arc<str> = self.document.text().into();
        self.raw(document, move |_, _: Asked<Nothing>, _: Nothing| {
            let text = Arc::clone(&text);
            async move {
                let kind = [(axum::http::header::CONTENT_TYPE, super::route::JSON)];
                Ok((kind, text.to_string()).into_response())
            }
        });
        self.router
            .method_not_allowed_fallback(wrong_method)
            .fallback(nothing_there)
    }
}

/// What comes of a call in this time, which only reads or may have changed something.
async fn in_time<T>(
    time: Duration,
    reads: bool,
    served: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let late = |_| match reads {
        true => Err(Refusal::new(
            Code::DeadlineExceeded,
            "TOO_SLOW",
            "there was no answer in the time that a call has",
        )
        .into()),
        false => Err(status::propose(ProposeError::OutcomeUnknown)),
    };
    timeout(time, served).await.unwrap_or_else(late)
}

/// Everything that comes before a route's own code. Of a submission it says by which request id it is known.
async fn serve<Q, B, F, Fut>(
    http: Http,
    route: &Route,
    path: Vec<(String, String)>,
    mut parts: Parts,
    (sent, known_by): (&mut Sent, &OnceLock<String>),
    handler: F,
) -> Result<Response, Status>
where
    Q: DeserializeOwned + Shape,
    B: DeserializeOwned + Shape,
    F: Fn(Http, Asked<Q>, B) -> Fut,
    Fut: Future<Output = Result<Response, Status>>,
{
    let peer = peer(&parts.extensions);
    let caller = match route.permission {
        Some(permission) => admitted(&http, &parts, peer, permission).await?,
        None => {
            let Admission { people, limits } = &http.admission;
            if people.ask_nobody() {
                origin::check(&parts.uri, &parts.headers)?;
            }
            limits.stranger(peer)?;
            Peer::note_call(&parts.extensions);
            Caller::ANYBODY
        }
    };
    let (_room, bytes) = if expects_body::<B>() {
        let most = body::said(&parts.headers, route.body_max)?;
        let rooms = http.admission.limits.rooms(&caller, peer);
        let room = rooms.wait(most).await?;
        let bytes = Zeroizing::new(sent.read(route.body_within, most).await?);
        (Some(room), bytes)
    } else {
        (None, Zeroizing::default())
    };
    if let Some(id) = unknown::request_id(route, &mut parts.headers, &bytes) {
        known_by.get_or_init(|| id);
    }
    let (way, handle) = (http.way.clone(), http.context.handle.clone());
    let led = handle.leads();
    if !route.anywhere {
        let answer = way.leaders_answer(&handle, &parts, &bytes, route.answer_within);
        if let Some(answer) = answer.await {
            return answer;
        }
    }
    let rooms = http.admission.limits.rooms_for_answers(&caller, peer);
    let asked = Asked {
        caller,
        query: body::query(parts.uri.query())?,
        freshness: Freshness::of_http(&parts.headers)?,
        headers: parts.headers.clone(),
        peer,
        path,
    };
    let is_missing = !expects_body::<B>() || (route.body_may_be_missing && bytes.is_empty());
    let said = body::json(if is_missing { b"{}" } else { &bytes })?;
    // It may have held a secret.
    drop(bytes);
    let answer = match handler(http, asked, said).await {
        // A leader that is to go hands over first, and what it was asked for is the next one's: nothing of it was done.
        Err(status) if led && is_missing && redirect::is_not_leader(&status) => {
            let answer = way.others_answer(&handle, &parts, b"", route.answer_within);
            return answer.await.unwrap_or(Err(status));
        }
        answer => answer?,
    };
    room::for_answer(answer, &rooms)
}

/// Who calls, if they may do what the route does and have not asked too often.
async fn admitted(
    http: &Http,
    parts: &Parts,
    peer: Option<IpAddr>,
    permission: Permission,
) -> Result<Caller, Status> {
    let caller = http.admission.caller_of(&parts.headers, peer).await?;
    Peer::note_token(&parts.extensions);
    if caller.is_anybody() {
        origin::check(&parts.uri, &parts.headers)?;
    }
    http.admission.limits.caller(&caller, peer)?;
    authorise(&caller, permission)?;
    Ok(caller)
}

/// The named parts of a path.
fn parts_of(
    parameters: Result<RawPathParams, RawPathParamsRejection>,
) -> Result<Vec<(String, String)>, Status> {
    let parameters =
        parameters.map_err(|_| status::bad_field("path", "a part of it is no UTF-8"))?;
    let parts = parameters.iter();
    Ok(parts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

fn expects_body<B: Shape>() -> bool {
    B::schema(&mut schemars::SchemaGenerator::default()).is_some()
}

async fn wrong_method(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let message = format!("{} takes no {}", head.uri.path(), head.method);
    let refusal = Refusal::new(Code::Unimplemented, "METHOD_NOT_ALLOWED", message);
    let sent = Sent::new(&head, body);
    sent.answered(answer::refused(&refusal.into())).await
}

async fn nothing_there(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let answer = nothing_at_path(&head.headers);
    Sent::new(&head, body).answered(answer).await
}

/// Nothing is at this path. A caller that speaks gRPC is told so in its own words.
fn nothing_at_path(headers: &HeaderMap) -> Response {
    let kind = headers.get(axum::http::header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return Status::unimplemented("this server has no such service")
            .into_http::<axum::body::Body>();
    }
    let refusal = Refusal::new(
        Code::NotFound,
        "NO_SUCH_PATH",
        "there is nothing at this path",
    );
    answer::refused(
        &refusal
            .hint("GET /v1/openapi.json lists what there is")
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_call_that_takes_too_long_says_so() {
        for (reads, number, code) in [(true, 504, "TOO_SLOW"), (false, 503, "OUTCOME_UNKNOWN")] {
            let late = in_time(Duration::ZERO, reads, pending::<Result<(), Status>>()).await;
            let late = late.expect_err("there is no answer");
            assert_eq!(answer::refused(&late).status().as_u16(), number);
            assert_eq!(answer::told(&late).code, code);
            let done = in_time(Duration::ZERO, reads, ready(Ok(1))).await;
            assert_eq!(done.ok(), Some(1));
        }
    }
}
