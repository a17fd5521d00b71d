//! Says clearly that a message was too large, where the library underneath only says so in its own words, and where the
//! leader is.

use std::pin::Pin;
use std::task::{Context, Poll};

use stepcast_cluster::Handle;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

use crate::redirect;
use crate::status::Refusal;

/// How the library's own words begin.
const TOO_LARGE: &str = "Error, decoded message length too large";

/// A service whose refusals of large messages can be understood, and whose refusals for want of leadership lead on.
#[derive(Debug, Clone)]
pub(crate) struct Explained<S>(pub(crate) S, pub(crate) Handle);

impl<S: NamedService> NamedService for Explained<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Explained<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (answer, handle) = (self.0.call(request), self.1.clone());
        Box::pin(async move {
            let answer = answer.await?;
            Ok(redirect::tell(explain(answer), &handle))
        })
    }
}

fn explain(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status)
            if status.code() == Code::OutOfRange && status.message().starts_with(TOO_LARGE) =>
        {
            too_large().into_http()
        }
        _ => response,
    }
}

fn too_large() -> Status {
    Refusal::new(
        Code::ResourceExhausted,
        "MESSAGE_TOO_LARGE",
        "the message is larger than this call takes",
    )
    .hint("a submission's files have 1 MiB each and 3 MiB together, with those of all tasks of a sweep, an imported file 16 MiB")
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_library_s_refusal_of_a_large_message_is_said_anew() {
        let large =
            explain(Status::out_of_range(format!("{TOO_LARGE}: found 5 bytes")).into_http());
        assert_eq!(
            Status::from_header_map(large.headers()).map(|s| s.code()),
            Some(Code::ResourceExhausted)
        );
        let other = explain(Status::out_of_range("something else").into_http());
        assert_eq!(
            Status::from_header_map(other.headers()).map(|s| s.code()),
            Some(Code::OutOfRange)
        );
    }
}
