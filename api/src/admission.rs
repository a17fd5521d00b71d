//! Lets callers in: who calls, whether they may, and how often, are known before a message is read.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::HeaderMap;
use axum::http::request::Parts;
use stepcast_cluster::Handle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::access::{Caller, Needed, Permission, authorise, of_call};
use crate::auth::People;
use crate::limits::Limits;
use crate::listen::Peer;
use crate::reader::Reader;
use crate::room;
use crate::{auth, origin, status};

/// What every call of people goes through, whichever way it comes. Clones share what they count.
#[derive(Clone)]
pub(crate) struct Admission {
    pub(crate) people: Arc<People>,
    pub(crate) limits: Arc<Limits>,
}

impl Admission {
    pub(crate) fn new(people: People) -> Self {
        Self {
            people: Arc::new(people),
            limits: Arc::default(),
        }
    }

    /// Who calls. Tokens that are none are counted; one that this node does not know, and that another may have made a moment
    /// ago, is looked for once more when it has caught up.
    pub(crate) async fn caller_of(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<Caller, Status> {
        let known = self.people.caller_of(headers);
        if known.is_ok() {
            return known;
        }
        self.limits.guess(peer)?;
        if self.people.may_be_new(headers) && self.people.catch_up().await {
            return self.people.caller_of(headers);
        }
        known
    }

    /// One more call over gRPC of somebody who is known.
    pub(crate) fn count(&self, caller: &Caller, peer: Option<IpAddr>) -> Result<(), Status> {
        if is_counted(caller) {
            self.limits.caller(caller, peer)?;
        }
        Ok(())
    }

    /// Who makes this call of gRPC, if they may do what it does and have not asked too often.
    async fn admitted(&self, head: &Parts, permission: Permission) -> Result<Reader, Status> {
        let (headers, peer) = (&head.headers, peer(&head.extensions));
        let caller = self.caller_of(headers, peer).await?;
        Peer::note_token(&head.extensions);
        if caller.is_anybody() {
            origin::check_grpc(&head.uri, headers)?;
        }
        self.count(&caller, peer)?;
        authorise(&caller, permission)?;
        Ok(Reader::new(self.clone(), headers, permission, caller, peer))
    }

    /// Lets a call of gRPC pass that is how one becomes somebody.
    fn passed(&self, head: &Parts, needed: Needed) -> Result<(), Status> {
        if self.people.ask_nobody() {
            origin::check_grpc(&head.uri, &head.headers)?;
        }
        if needed == Needed::Nothing {
            self.limits.stranger(peer(&head.extensions))?;
            Peer::note_call(&head.extensions);
        }
        Ok(())
    }
}

/// Whether somebody's calls and streams over gRPC are counted: those of everybody who has an account. Who shows the server's
/// own access token, or is asked for none, is a program of who runs the installation, and may end the server anyway.
pub(crate) const fn is_counted(caller: &Caller) -> bool {
    caller.user.is_some()
}

/// From where a request of gRPC comes.
pub(crate) fn peer(extensions: &http::Extensions) -> Option<IpAddr> {
    Peer::of(extensions).map(|peer| peer.address.ip())
}

/// A service that only those may call who may do what they ask for. It finds the caller beside the request, and who reads
/// its stream. What is sent takes room until there is an answer, and the answer until it has been read.
#[derive(Clone)]
pub(crate) struct Admitted<S>(pub(crate) S, pub(crate) Admission);

impl<S: NamedService> NamedService for Admitted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Admitted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut service = ready_one(&mut self.0);
        let admission = self.1.clone();
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let admitted = match of_call(head.uri.path()).ok_or_else(status::no_such_call) {
                Err(status) => Err(status),
                Ok(Needed::This(permission)) => {
                    admission.admitted(&head, permission).await.map(Some)
                }
                Ok(needed) => admission.passed(&head, needed).map(|()| None),
            };
            let (rooms, for_answers) = match admitted {
                Err(status) => return Ok(status.into_http()),
                Ok(None) => {
                    let (limits, peer) = (&admission.limits, peer(&head.extensions));
                    (
                        limits.rooms(&Caller::ANYBODY, peer),
                        limits.rooms_for_answers(&Caller::ANYBODY, peer),
                    )
                }
                Ok(Some(reader)) => {
                    let rooms = (reader.rooms(), reader.rooms_for_answers());
                    head.extensions.insert(reader.caller().clone());
                    head.extensions.insert(reader);
                    rooms
                }
            };
            let (body, _taken) = room::counted(body, rooms);
            let answer = service.call(http::Request::from_parts(head, body)).await?;
            Ok(room::for_call(answer, for_answers).await)
        })
    }
}

/// The service that is ready, with another one in its place.
fn ready_one<S: Clone>(service: &mut S) -> S {
    let next = service.clone();
    std::mem::replace(service, next)
}

/// The service of workers, which only those reach who show the secret of a worker's token. What one sends takes room until
/// there is an answer, and the answer until it has been read.
#[derive(Clone)]
pub(crate) struct OfWorkers<S>(pub(crate) S, pub(crate) Handle, pub(crate) Arc<Limits>);

impl<S: NamedService> NamedService for OfWorkers<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for OfWorkers<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut service = ready_one(&mut self.0);
        let (handle, limits) = (self.1.clone(), Arc::clone(&self.2));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // Orders and reports go on for as long as a worker does, each read before the next.
            let is_stream = head.uri.path().ends_with("/Attach");
            let is_leaders = is_stream || head.uri.path().ends_with("/RegisterWorker");
            let guessed = || limits.guess(peer(&head.extensions));
            let token = auth::check_worker(&handle, &head.headers, is_leaders, guessed);
            let token = match token.await {
                Ok(token) => token,
                Err(denied) => return Ok(denied.into_http()),
            };
            Peer::note_token(&head.extensions);
            if is_stream {
                return service.call(http::Request::from_parts(head, body)).await;
            }
            let (body, _taken) = room::counted(body, limits.rooms_of_worker(token));
            let answer = service.call(http::Request::from_parts(head, body)).await?;
            let for_answers = limits.rooms_for_answers_of_worker(token);
            Ok(room::for_call(answer, for_answers).await)
        })
    }
}
