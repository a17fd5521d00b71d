//! Lets gRPC calls of people in: who calls and whether they may is known before a message is read.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::future::Either;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::access::{Needed, authorise, of_call};
use crate::auth::People;
use crate::{origin, status};

/// A service that only those may call who may do what they ask for. It finds the caller beside the request.
#[derive(Clone)]
pub(crate) struct Admitted<S>(pub(crate) S, pub(crate) People);

impl<S: NamedService> NamedService for Admitted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Admitted<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Self::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let needed = of_call(request.uri().path()).ok_or_else(status::no_such_call);
        let admitted = needed.and_then(|needed| match needed {
            Needed::Nothing => {
                if self.1.ask_nobody() {
                    origin::check_grpc(request.uri(), request.headers())?;
                }
                Ok(None)
            }
            Needed::This(permission) => {
                let caller = self.1.caller_of(request.headers())?;
                if caller.is_anybody() {
                    origin::check_grpc(request.uri(), request.headers())?;
                }
                authorise(&caller, permission)?;
                Ok(Some(caller))
            }
        });
        match admitted {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                Either::Left(self.0.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
