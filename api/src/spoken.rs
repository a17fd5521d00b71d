//! Lets nothing reach the services of gRPC but gRPC: HTTP/2 with its content type.
//!
//! The library underneath looks at neither, and takes whatever bytes are posted to a call's path. A browser posts for a page
//! of any site, and asks nobody whether it may, as long as the content type is one of a form's.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::http::Version;
use axum::http::header::CONTENT_TYPE;
use futures::future::Either;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::http::answer;
use crate::status::Refusal;

/// How the content type of a call begins, whatever its messages are written in.
const KIND: &[u8] = b"application/grpc";

/// A service that only calls of gRPC reach. Whatever else comes is refused in the words of HTTP.
#[derive(Clone)]
pub(crate) struct Spoken<S>(pub(crate) S);

impl<S: NamedService> NamedService for Spoken<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Spoken<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Self::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if is_grpc(&request) {
            return Either::Left(self.0.call(request));
        }
        let refusal = Refusal::new(
            Code::InvalidArgument,
            "NOT_GRPC",
            "at this path is a call of gRPC: it takes HTTP/2 with the Content-Type application/grpc",
        );
        let refusal = refusal.hint("JSON is taken under /v1, which GET /v1/openapi.json lists");
        let answer = answer::refused(&refusal.into());
        Either::Right(ready(Ok(answer.map(Body::new))))
    }
}

/// Whether a request is spoken as gRPC is.
fn is_grpc<B>(request: &http::Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && kind.is_some_and(|kind| kind.as_bytes().starts_with(KIND))
}
