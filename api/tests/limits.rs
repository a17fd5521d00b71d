//! What people may ask over gRPC and Flight, and how much they may send at once.

use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use futures::stream::{self, StreamExt};
use serde_json::json;
use stepcast_api::{AccessToken, ApiConfig};
use stepcast_estimator::import::{Mapping, TRAINING_HEADER};
use stepcast_proto::v1::records_service_client::RecordsServiceClient;
use stepcast_proto::v1::{self, jobs_service_client::JobsServiceClient};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::http::{ask, submission};
use crate::support::{Agent, CONFIG, Server, endpoint, files, reason, until};

/// The server's own access token.
pub(crate) const OWN: &str = "the-own-token-of-this-server";

/// Anything here takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that asks for tokens, somebody who may look, and a job that waits.
pub(crate) struct Town {
    pub(crate) server: Server,
    pub(crate) user: String,
    pub(crate) token: String,
    pub(crate) job: String,
}

impl Town {
    pub(crate) async fn build() -> Self {
        Self::on(Server::with(Self::api()).await).await
    }

    /// How its server is set up.
    pub(crate) fn api() -> ApiConfig {
        ApiConfig {
            access_token: AccessToken::new(OWN).ok(),
            ..ApiConfig::default()
        }
    }

    pub(crate) async fn on(server: Server) -> Self {
        let handle = server.handle.clone();
        until("the log's format", || handle.status().log_format >= 3).await;
        let port = server.port;
        let posted = async |path: &str, sent: serde_json::Value| {
            let answer = ask(port, "POST", path, Some(OWN), Some(&sent)).await;
            assert_eq!(answer.status, 201, "{path}: {}", answer.body);
            answer.json()
        };
        let org = posted("/v1/orgs", json!({"name": "one"})).await;
        let member = json!({"org_id": org["id"], "name": "ana", "role": "member"});
        let user = posted("/v1/users", member).await["id"].clone();
        let token = posted("/v1/tokens", json!({"user_id": user})).await;
        let token = token["refresh_token"].as_str().unwrap().to_owned();
        let submitted = ask(port, "POST", "/v1/jobs", Some(&token), Some(&submission())).await;
        Self {
            job: submitted.json()["id"].as_str().unwrap().to_owned(),
            user: user.as_str().unwrap().to_owned(),
            server,
            token,
        }
    }

    /// The jobs as they are for who shows this token.
    pub(crate) fn jobs(&self, token: &str) -> JobsServiceClient<Shown> {
        let channel = self.server.channel.clone();
        JobsServiceClient::new(InterceptedService::new(channel, Token::of(token)))
    }

    pub(crate) fn watch(&self) -> v1::WatchJobRequest {
        v1::WatchJobRequest {
            name: format!("jobs/{}", self.job),
            logs: true,
            after_seq: 0,
        }
    }
}

pub(crate) type Shown = InterceptedService<Channel, Token>;

/// A token that is shown with every call.
#[derive(Debug, Clone)]
pub(crate) struct Token(MetadataValue<Ascii>);

impl Token {
    pub(crate) fn of(token: &str) -> Self {
        Self(format!("Bearer {token}").parse().unwrap())
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

fn is_busy(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && reason(status) == "BUSY"
}

/// The first refusal for want of patience among so many calls, a few at once.
async fn slowed<F: Future<Output = Result<(), Status>>>(
    calls: usize,
    call: impl Fn() -> F,
) -> bool {
    let asked = stream::iter(0..calls).map(|_| call()).buffer_unordered(16);
    let refused = asked.any(async |answer| answer.err().is_some_and(|status| is_busy(&status)));
    refused.await
}

#[tokio::test]
async fn calls_of_people_are_counted_and_those_of_who_runs_the_server_are_not() {
    let town = Town::build().await;
    let listed = |token: &str| {
        let mut jobs = town.jobs(token);
        async move {
            jobs.list_jobs(v1::ListJobsRequest::default())
                .await
                .map(drop)
        }
    };
    assert!(slowed(5_000, || listed(&town.token)).await);
    assert!(!slowed(400, || listed(OWN)).await);
    assert!(slowed(500, || listed("wrong")).await, "guesses");
    let shaken = || {
        let mut flight = FlightServiceClient::new(town.server.channel.clone());
        let mut request = Request::new(stream::empty());
        let wrong = "Basic YW55Ym9keTp3cm9uZw==".parse().unwrap();
        request.metadata_mut().insert("authorization", wrong);
        async move { flight.handshake(request).await.map(drop) }
    };
    assert!(slowed(500, shaken).await, "guesses of Flight");
    let of_worker = || {
        let agent = Agent::new(&town.server, "scw_wrong".to_owned());
        async move { agent.files("jobs/jmnpq", 1).await.map(drop) }
    };
    assert!(slowed(500, of_worker).await, "guesses of workers");
    let claimed = || {
        let channel = town.server.channel.clone();
        let mut accounts = v1::accounts_service_client::AccountsServiceClient::new(channel);
        let request = v1::ClaimOperatorRequest::default();
        async move { accounts.claim_operator(request).await.map(drop) }
    };
    assert!(slowed(500, claimed).await, "guesses of the first token");
    assert!(listed(OWN).await.is_ok(), "behind the same address");
    town.server.stop().await;
}

#[tokio::test]
async fn streams_of_one_person_are_counted_over_grpc_and_http_together() {
    let town = Town::build().await;
    let mut jobs = town.jobs(&town.token);
    let mut open = Vec::new();
    let refused = loop {
        match jobs.watch_job(town.watch()).await {
            Ok(watch) => open.push(watch),
            Err(status) => break status,
        }
    };
    assert!(
        is_busy(&refused) && open.len() == 16,
        "{} {refused:?}",
        open.len()
    );
    let path = format!("/v1/jobs/{}/watch", town.job);
    let over_http = ask(town.server.port, "GET", &path, Some(&town.token), None).await;
    assert_eq!(over_http.status, 429);
    let of_own = town.jobs(OWN).watch_job(town.watch()).await;
    assert!(of_own.is_ok(), "{of_own:?}");
    open.pop();
    let again = async { while jobs.watch_job(town.watch()).await.is_err() {} };
    timeout(PATIENCE, again).await.unwrap();
    drop(open);
    town.server.stop().await;
}

/// A message as a call sends it.
pub(crate) fn message(message: &impl prost::Message) -> Vec<u8> {
    let length = u32::try_from(message.encoded_len()).unwrap();
    let mut sent = vec![0];
    sent.extend(length.to_be_bytes());
    sent.extend(message.encode_to_vec());
    sent
}

/// What comes of a call that says so many bytes and sends all but the last.
async fn unfinished(town: &Town, path: &str, token: Option<&str>, bytes: u32) -> Status {
    let mut sent = vec![0; bytes as usize + 4];
    sent[1..5].copy_from_slice(&bytes.to_be_bytes());
    let pieces: Vec<_> = sent.chunks(16 << 10).map(<[u8]>::to_vec).collect();
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
    let body = axum::body::Body::from_stream(pieces.chain(stream::pending()));
    let mut request = http::Request::post(path).header("content-type", "application/grpc");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut channel = town.server.channel.clone();
    std::future::poll_fn(|context| channel.poll_ready(context))
        .await
        .unwrap();
    let answer = channel
        .call(request.body(Body::new(body)).unwrap())
        .await
        .unwrap();
    Status::from_header_map(answer.headers()).unwrap()
}

#[tokio::test]
async fn who_shows_no_token_is_refused_before_anything_of_the_call_is_read() {
    let town = Town::build().await;
    for (path, bytes, code) in [
        (
            "/stepcast.v1.AgentService/ContributeSamples",
            4 << 20,
            Code::Unauthenticated,
        ),
        (
            "/stepcast.v1.AgentService/RegisterWorker",
            4 << 20,
            Code::Unauthenticated,
        ),
        (
            "/stepcast.v1.JobsService/SubmitJob",
            2 << 20,
            Code::Unauthenticated,
        ),
        (
            "/stepcast.v1.AccountsService/ClaimOperator",
            1 << 20,
            Code::ResourceExhausted,
        ),
        ("/grpc.health.v1.Health/Check", 1 << 20, Code::OutOfRange),
    ] {
        let answer = timeout(PATIENCE, unfinished(&town, path, None, bytes)).await;
        assert_eq!(answer.map(|status| status.code()), Ok(code), "{path}");
    }
    town.server.stop().await;
}

#[tokio::test]
async fn what_one_person_sends_at_once_is_bounded_and_in_nobody_s_way() {
    let town = Town::build().await;
    let path = "/stepcast.v1.EstimatesService/EstimateJob";
    let all = (0..12).map(|_| Box::pin(unfinished(&town, path, Some(&town.token), 3 << 20)));
    let first = timeout(PATIENCE, futures::future::select_all(all)).await;
    let (refused, _, held) = first.unwrap();
    assert!(is_busy(&refused), "{refused:?}");
    let estimate = json!({"config": submission()["config"], "dataloader_config": submission()["dataloader_config"]});
    let of_own = ask(
        town.server.port,
        "POST",
        "/v1/estimates",
        Some(OWN),
        Some(&estimate),
    )
    .await;
    assert_eq!(of_own.status, 200, "{}", of_own.body);
    drop(held);
    town.server.stop().await;
}

#[tokio::test]
async fn what_one_worker_sends_at_once_is_bounded_and_in_no_other_s_way() {
    let town = Town::build().await;
    let token = async |name: &str| {
        let channel = InterceptedService::new(town.server.channel.clone(), Token::of(OWN));
        let request = v1::CreateWorkerTokenRequest {
            display_name: name.to_owned(),
        };
        let made = v1::workers_service_client::WorkersServiceClient::new(channel);
        let made = { made }.create_worker_token(request).await.unwrap();
        made.into_inner().secret
    };
    let (greedy, honest) = (token("greedy").await, token("honest").await);
    let path = "/stepcast.v1.AgentService/ContributeSamples";
    let all = (0..5).map(|_| Box::pin(unfinished(&town, path, Some(&greedy), 7 << 20)));
    let first = timeout(PATIENCE, futures::future::select_all(all)).await;
    let (refused, _, held) = first.unwrap();
    assert!(is_busy(&refused), "{refused:?}");
    let agent = Agent::new(&town.server, honest);
    let registered = agent.register('b', &["h100"]).await;
    assert!(registered.is_ok(), "{registered:?}");
    drop(held);
    town.server.stop().await;
}

/// A thousand jobs of who shows this token, which wait.
async fn sweep(town: &Town, token: &str) {
    let of_town = crate::support::submission('7');
    let tasks = (1..=1_000).map(|rate| {
        let config = CONFIG.replacen('{', &format!("{{\"learning_rate\": {rate}e-6,"), 1);
        v1::ArrayTaskFiles {
            files: vec![files(&config).remove(0)],
        }
    });
    let request = v1::SubmitArrayRequest {
        request_id: of_town.request_id,
        files: of_town.files,
        tasks: tasks.collect(),
        wishes: of_town.wishes,
        ..v1::SubmitArrayRequest::default()
    };
    town.jobs(token).submit_array(request).await.unwrap();
}

#[tokio::test]
async fn what_one_person_does_not_read_is_bounded_and_in_nobody_s_way() {
    let town = Town::build().await;
    sweep(&town, &town.token).await;
    let page = v1::ListJobsRequest {
        page_size: 1_000,
        ..v1::ListJobsRequest::default()
    };
    let mut unread = Vec::new();
    let refused = loop {
        // Connections that take the heads of answers, and of what they say nothing.
        let mut channel = endpoint(&ApiConfig::default(), town.server.port)
            .initial_stream_window_size(0)
            .connect()
            .await
            .unwrap();
        let refused = loop {
            let body = Body::new(axum::body::Body::from(message(&page)));
            let request = http::Request::post("/stepcast.v1.JobsService/ListJobs")
                .header("content-type", "application/grpc")
                .header("authorization", format!("Bearer {}", town.token))
                .body(body);
            std::future::poll_fn(|context| channel.poll_ready(context))
                .await
                .unwrap();
            let answer = timeout(PATIENCE, channel.call(request.unwrap())).await;
            let answer = answer.unwrap().unwrap();
            match Status::from_header_map(answer.headers()) {
                None => unread.push((answer, channel.clone())),
                Some(status) => break Some(status),
            }
            if unread.len() % 100 == 0 {
                break None;
            }
        };
        assert!(unread.len() < 2_000, "of a page of 60 kB no more have room");
        if let Some(refused) = refused
            && !refused.message().contains("too often")
        {
            break refused;
        }
    };
    assert!(
        is_busy(&refused) && refused.message().contains("not being read"),
        "{refused:?}"
    );
    let of_own = town.jobs(OWN).list_jobs(page).await.unwrap();
    assert_eq!(of_own.into_inner().jobs.len(), 1_000);
    drop(unread);
    let again = async {
        let show = v1::GetJobRequest {
            name: format!("jobs/{}", town.job),
            with_outlook: false,
        };
        while town.jobs(&town.token).get_job(show.clone()).await.is_err() {}
    };
    timeout(PATIENCE, again).await.unwrap();
    town.server.stop().await;
}

/// What nobody sees the end of.
const ENDLESS: &str = "SELECT count(*) FROM training_steps a, training_steps b, training_steps c \
                       WHERE a.avg_step_ms + b.avg_step_ms + c.avg_step_ms = 7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_one_person_leave_a_turn_to_others() {
    let town = Town::build().await;
    let mut file = format!("{TRAINING_HEADER}\n");
    for row in 0..1_000 {
        file += &format!("flux.dev/lora,h100,1.0,4,1,bf16,int8,{},120\n", 300 + row);
    }
    let figures = &town.server.estimator;
    let figures = figures.import("figures", Mapping::Records, file.as_bytes());
    assert_eq!(figures.await.unwrap().stored, 1_000);
    let asked = |token: &str, sql: &str| {
        let channel = InterceptedService::new(town.server.channel.clone(), Token::of(token));
        let request = v1::RunQueryRequest {
            sql: sql.to_owned(),
            max_rows: 0,
        };
        let mut records = RecordsServiceClient::new(channel);
        async move { records.run_query(request).await.map(drop) }
    };
    let endless = [(); 2].map(|()| tokio::spawn(asked(&town.token, ENDLESS)));
    loop {
        let refused = asked(&town.token, "SELECT 1 AS one").await;
        if refused.is_err_and(|status| is_busy(&status)) {
            break;
        }
    }
    let answered = asked(OWN, "SELECT 1 AS one").await;
    assert!(answered.is_ok(), "{answered:?}");
    for one in endless {
        one.abort();
    }
    town.server.stop().await;
}
