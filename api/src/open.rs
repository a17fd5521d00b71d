//! Services of gRPC that anybody may call, whatever they show: how the server is, and what it can be asked.
//!
//! Their calls are counted by the address they come from, each service by itself, so that a balancer's questions and whoever
//! asks without an end are in nobody's way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::access::Caller;
use crate::admission::peer;
use crate::limits::{Asked, Limits, OpenStream};
use crate::listen::Peer;
use crate::room;

/// The calls that are answered at once and have no stream.
const ONE_ANSWER: [&str; 2] = ["/Check", "/List"];

/// A service that anybody may call, so often and with so many streams of one address.
#[derive(Clone)]
pub(crate) struct Open<S> {
    service: S,
    asked: Arc<Asked>,
    limits: Arc<Limits>,
}

impl<S> Open<S> {
    pub(crate) fn new(service: S, limits: &Arc<Limits>) -> Self {
        Self {
            service,
            asked: Arc::default(),
            limits: Arc::clone(limits),
        }
    }
}

impl<S: NamedService> NamedService for Open<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Open<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let peer = peer(request.extensions());
        let has_stream = !ONE_ANSWER
            .iter()
            .any(|of| request.uri().path().ends_with(of));
        let open = match self.asked.call(peer, has_stream) {
            Ok(open) => open,
            Err(busy) => return Box::pin(async move { Ok(busy.into_http()) }),
        };
        Peer::note_call(request.extensions());
        let answered = self.service.call(request);
        let rooms = self.limits.rooms_for_answers(&Caller::ANYBODY, peer);
        Box::pin(async move {
            let answer = answered.await?;
            let answer = room::for_call(answer, rooms).await;
            Ok(answer.map(|body| Body::new(Counted { body, _open: open })))
        })
    }
}

/// An answer that is counted as a stream until it has been read or nobody wants it.
struct Counted {
    body: Body,
    _open: Option<OpenStream>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
