//! Passes what only the leader can do on to it: a client that knows one address, as SimpleTuner's does, may know any node's.
//!
//! The leader decides about everything once more, by the same token. A node that cannot reach it says where it is instead.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use axum::response::Response;
use stepcast_cluster::{Handle, ProposeError};
use stepcast_proto::certificate::Shown;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::unknown;
use crate::status;

/// Says that a request has come through another node, so that it goes through no third.
const FORWARDED: HeaderName = HeaderName::from_static("stepcast-forwarded");

/// Headers that go along, both ways. What else a caller says is of no meaning here.
const HEADERS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
    header::ACCEPT,
    unknown::DRAWN,
];

/// A leader that does not take a connection by then is not there.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);

/// Bytes of an answer at most, as of any answer in one piece.
const ANSWER_BYTES: usize = 32 << 20;

/// Where Linux distributions keep the authorities that a host trusts.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// The way to other nodes' client ports.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// What the host trusts.
    tls: ClientTlsConfig,
    own: Option<Arc<Shown>>,
}

impl Way {
    /// One that trusts the authorities of the host and this node's own certificate, which the others may have as well.
    pub(crate) fn new(own: Option<Arc<Shown>>) -> Self {
        let host = AUTHORITIES.map(Path::new);
        let host = host.into_iter().find(|path| path.is_file());
        let trusted = host.and_then(|file| std::fs::read(file).ok());
        Self {
            tls: trusting(ClientTlsConfig::new(), trusted),
            own,
        }
    }

    /// The leader's answer within this time; `None` where this node leads, nobody does, or the leader cannot be reached from
    /// here.
    pub(crate) async fn leaders_answer(
        &self,
        handle: &Handle,
        parts: &Parts,
        body: &[u8],
        time: Duration,
    ) -> Option<Result<Response, Status>> {
        if handle.leads() || parts.headers.contains_key(FORWARDED) {
            return None;
        }
        self.others_answer(handle, parts, body, time).await
    }

    /// The answer of who leads now instead of this node, which led when the request came: also to one that came through
    /// another node, since it comes no further without a change of the leader.
    pub(crate) async fn others_answer(
        &self,
        handle: &Handle,
        parts: &Parts,
        body: &[u8],
        time: Duration,
    ) -> Option<Result<Response, Status>> {
        let status = handle.status();
        let leader = status.leader.filter(|leader| *leader != status.node_id)?;
        let leader = handle.member(leader)?.client_address;
        if leader.is_empty() {
            return None;
        }
        let channel = match self.reach(&leader).await {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the leader cannot be reached from here"
                );
                return None;
            }
        };
        match timeout(time, ask(channel, parts, body)).await {
            Ok(Ok(response)) => Some(Ok(response)),
            // It may have been taken.
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("the leader's answer to a request that was passed on did not come");
                Some(Err(status::propose(ProposeError::OutcomeUnknown)))
            }
        }
    }

    async fn reach(&self, leader: &str) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(leader.to_owned())?.connect_timeout(CONNECTS_WITHIN);
        let endpoint = if leader.starts_with("https://") {
            // As it is shown now: it may have changed.
            let own = self.own.as_ref().map(|own| own.pem());
            endpoint.tls_config(trusting(self.tls.clone(), own))?
        } else {
            endpoint
        };
        endpoint.connect().await
    }
}

fn trusting(tls: ClientTlsConfig, pem: Option<Vec<u8>>) -> ClientTlsConfig {
    match pem {
        Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
        None => tls,
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn ask(mut channel: Channel, parts: &Parts, body: &[u8]) -> Result<Response, Failed> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Body::new(axum::body::Body::from(body.to_vec())));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = Uri::try_from(path)?;
    *request.headers_mut() = picked(&parts.headers);
    request
        .headers_mut()
        .insert(FORWARDED, HeaderValue::from_static("1"));
    std::future::poll_fn(|context| channel.poll_ready(context)).await?;
    let (head, body) = channel.call(request).await?.into_parts();
    let body = to_bytes(axum::body::Body::new(body), ANSWER_BYTES).await?;
    let mut response = Response::new(axum::body::Body::from(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = picked(&head.headers);
    Ok(response)
}

fn picked(headers: &HeaderMap) -> HeaderMap {
    let known = HEADERS.into_iter();
    known
        .filter_map(|name| Some((name.clone(), headers.get(&name)?.clone())))
        .collect()
}
