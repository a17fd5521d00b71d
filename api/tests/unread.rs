//! What anybody may call without a token over gRPC, and what a worker is answered: bounded for who reads none of it, and in
//! nobody's way.

use std::time::Duration;

use stepcast_api::ApiConfig;
use stepcast_proto::v1;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::limits::{OWN, Town, message};
use crate::support::{Agent, CONFIG, Server, endpoint, files, reason, submission};

/// Anything here takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// `file_containing_symbol = "stepcast.v1.JobsService"`, three times.
fn questions() -> Vec<u8> {
    let symbol = b"stepcast.v1.JobsService";
    let length = u8::try_from(symbol.len()).unwrap();
    let message = [&[0x22, length], symbol.as_slice()].concat();
    [&[0, 0, 0, 0, length + 2], message.as_slice()]
        .concat()
        .repeat(3)
}

/// A connection that takes the heads of answers, and of what they say nothing.
async fn reads_nothing(server: &Server) -> Channel {
    endpoint(&ApiConfig::default(), server.port)
        .initial_stream_window_size(0)
        .connect()
        .await
        .unwrap()
}

/// A call that sends these bytes, and what comes at once: a refusal, or what can be read.
async fn call(
    channel: &mut Channel,
    path: &str,
    sent: Vec<u8>,
    token: Option<&str>,
) -> Result<http::Response<Body>, Status> {
    let mut request = http::Request::post(path).header("content-type", "application/grpc");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = Body::new(axum::body::Body::from(sent));
    let request = request.body(body).unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context))
        .await
        .unwrap();
    let answer = timeout(PATIENCE, channel.call(request)).await;
    let answer = answer.unwrap().unwrap();
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(answer),
    }
}

#[tokio::test]
async fn what_anybody_may_ask_and_nobody_reads_is_bounded_and_in_nobody_s_way() {
    let town = Town::build().await;
    let mut unread = Vec::new();
    for (path, sent) in [(REFLECTION, questions()), (WATCH, vec![0; 5])] {
        let refused = loop {
            let mut channel = reads_nothing(&town.server).await;
            match call(&mut channel, path, sent.clone(), None).await {
                Ok(answer) => unread.push((answer, channel)),
                Err(status) => break status,
            }
            assert!(unread.len() <= 32, "{path}: of one address 16 have room");
        };
        assert_eq!(refused.code(), Code::ResourceExhausted, "{path}");
        assert_eq!(reason(&refused), "BUSY", "{path}");
    }
    assert_eq!(unread.len(), 32);
    let mut channel = town.server.channel.clone();
    let health = call(&mut channel, CHECK, vec![0; 5], None).await;
    assert!(health.is_ok(), "{:?}", health.err());
    let watched = town.jobs(OWN).watch_job(town.watch()).await;
    assert!(watched.is_ok(), "{watched:?}");
    drop((unread, watched));
    let again = async {
        while call(&mut channel, REFLECTION, questions(), None)
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_worker_is_answered_and_does_not_read_is_bounded() {
    let server = Server::start().await;
    let secret = server.token("greedy").await.secret;
    let agent = Agent::new(&server, secret.clone());
    let registered = agent.register('a', &["replay"]).await.unwrap();
    let mut worker = agent.attach(registered.worker, 'a').await.unwrap();
    let mut request = submission('7');
    request.files = files(&format!("{CONFIG}{}", " ".repeat(1_000_000)));
    server.jobs().submit_job(request).await.unwrap();
    let assignment = worker.assigned().await;
    let asks = v1::GetAssignmentFilesRequest {
        job: assignment.job.clone(),
        epoch: assignment.epoch,
    };
    let path = "/stepcast.v1.AgentService/GetAssignmentFiles";
    let mut channel = reads_nothing(&server).await;
    let mut unread = Vec::new();
    let refused = loop {
        match call(&mut channel, path, message(&asks), Some(&secret)).await {
            Ok(answer) => unread.push(answer),
            Err(status) => break status,
        }
        assert!(unread.len() < 80, "of a megabyte fewer have room in 64");
    };
    assert_eq!(reason(&refused), "BUSY", "{refused:?}");
    assert!(unread.len() > 50, "{}", unread.len());
    drop((unread, channel));
    let again = async {
        while worker
            .agent
            .files(&assignment.job, assignment.epoch)
            .await
            .is_err()
        {}
    };
    timeout(PATIENCE, again).await.unwrap();
    server.stop().await;
}
