//! Pages of other sites at the calls of gRPC: what a browser sends for them reaches none, and programs are let in by every
//! name of loopback.

use prost::Message;
use stepcast_api::ApiConfig;
use stepcast_proto::v1::{self, workers_service_client::WorkersServiceClient};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::http::raw;
use crate::support::{Server, endpoint, reason};

/// Calls of people, of workers, and of whoever comes by.
const PATHS: [&str; 6] = [
    "/stepcast.v1.WorkersService/CreateWorkerToken",
    "/stepcast.v1.AccountsService/ClaimOperator",
    "/stepcast.v1.AgentService/RegisterWorker",
    "/arrow.flight.protocol.FlightService/DoGet",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

fn wish(name: &str) -> v1::CreateWorkerTokenRequest {
    v1::CreateWorkerTokenRequest {
        display_name: name.to_owned(),
    }
}

/// A message as gRPC has it on the wire.
fn framed() -> Vec<u8> {
    let message = wish("evil").encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    [&[0], length.to_be_bytes().as_slice(), &message].concat()
}

async fn tokens(server: &Server) -> usize {
    let request = v1::ListWorkerTokensRequest::default();
    let listed = server.workers().list_worker_tokens(request).await;
    listed.unwrap().into_inner().tokens.len()
}

#[tokio::test]
async fn what_a_browser_posts_for_a_page_is_no_call() {
    let server = Server::start().await;
    for path in PATHS {
        for kind in ["text/plain", "multipart/form-data", "application/grpc"] {
            let mut bytes = format!(
                "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: {kind}\r\n\
                 Content-Length: {}\r\n\r\n",
                framed().len()
            )
            .into_bytes();
            bytes.extend(framed());
            let refused = raw(server.port, bytes).await;
            assert_eq!(
                (refused.status, &refused.json()["code"]),
                (415, &"NOT_GRPC".into()),
                "{path} {kind}"
            );
        }
        for kind in [Some("text/plain"), None] {
            let mut request = http::Request::post(path);
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let body = Body::new(axum::body::Body::from(framed()));
            let mut channel = server.channel.clone();
            std::future::poll_fn(|context| channel.poll_ready(context))
                .await
                .unwrap();
            let answer = channel.call(request.body(body).unwrap()).await.unwrap();
            assert_eq!(answer.status(), 415, "{path} {kind:?} by HTTP/2");
        }
    }
    assert_eq!(tokens(&server).await, 0);
    server.stop().await;
}

/// What is said to somebody who calls by this name, with these headers, and wants a token for a worker called that.
async fn said(
    port: u16,
    name: &str,
    headers: &[(&'static str, &str)],
    worker: &str,
) -> Result<(), Status> {
    let channel = endpoint(&ApiConfig::default(), port);
    let named = format!("http://{name}:{port}").parse().unwrap();
    let channel: Channel = channel.origin(named).connect().await.unwrap();
    let mut request = Request::new(wish(worker));
    for (key, value) in headers {
        request.metadata_mut().insert(*key, value.parse().unwrap());
    }
    let mut client = WorkersServiceClient::new(channel);
    client.create_worker_token(request).await.map(drop)
}

#[tokio::test]
async fn calls_of_other_sites_are_refused_and_those_of_this_machine_are_not() {
    let server = Server::start().await;
    let port = server.port;
    for (name, headers) in [
        ("evil.example", &[][..]),
        ("127.0.0.1.evil.example", &[]),
        ("127.0.0.1", &[("origin", "https://evil.example")]),
        ("127.0.0.1", &[("origin", "null")]),
        ("localhost", &[("sec-fetch-site", "cross-site")]),
    ] {
        let refused = said(port, name, headers, "evil").await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::PermissionDenied, "ANOTHER_SITE"),
            "{name} {headers:?}"
        );
    }
    assert_eq!(tokens(&server).await, 0);
    let names = [
        "127.0.0.1",
        "LocalHost",
        "[::1]",
        "ip6-localhost",
        "127.1.2.3",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let worker = format!("worker-{number}");
        said(port, name, &[], &worker).await.unwrap();
    }
    let page = [("origin", "http://localhost:3000")];
    said(port, "localhost", &page, "of-a-page").await.unwrap();
    assert_eq!(tokens(&server).await, names.len() + 1);
    server.stop().await;
}
