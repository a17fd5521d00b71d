//! Tests of the client against servers that lead, lead on, hang or are not there.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use stepcast_proto::v1;
use stepcast_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::server::TcpIncoming;
use tonic_types::{ErrorDetails, StatusExt};

use super::*;

/// What a server does with every question.
#[derive(Debug, Clone)]
enum Way {
    Answers,
    /// Does not lead, and says who does.
    PointsTo(String),
    /// Does not lead, and nobody does.
    Elects,
    /// Takes the question and says nothing.
    Hangs,
    /// Does not know what became of it.
    Forgets,
}

#[derive(Debug)]
struct Server {
    address: String,
    way: Mutex<Way>,
    asked: AtomicUsize,
    freshness: Mutex<String>,
}

impl Server {
    async fn start(way: Way) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Arc::new(Self {
            address: format!("http://{}", listener.local_addr().expect("its address")),
            way: Mutex::new(way),
            asked: AtomicUsize::new(0),
            freshness: Mutex::default(),
        });
        let service = ClusterServiceServer::from_arc(Arc::clone(&server));
        let incoming = TcpIncoming::from(listener);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        server
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn now(&self, way: Way) {
        *self.way.lock().expect("whole") = way;
    }
}

fn refusal(reason: &str, leader: Option<String>) -> Status {
    let metadata: HashMap<String, String> = leader
        .map(|leader| ("leader".to_owned(), leader))
        .into_iter()
        .collect();
    let details = ErrorDetails::with_error_info(reason, "stepcast", metadata);
    Status::with_error_details(Code::Unavailable, "not here", details)
}

#[tonic::async_trait]
impl ClusterService for Server {
    async fn get_cluster_status(
        &self,
        request: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let freshness = request
            .metadata()
            .get(READ)
            .and_then(|word| word.to_str().ok());
        *self.freshness.lock().expect("whole") = freshness.unwrap_or_default().to_owned();
        let way = self.way.lock().expect("whole").clone();
        match way {
            Way::Answers => Ok(Response::new(v1::GetClusterStatusResponse::default())),
            Way::PointsTo(leader) => Err(refusal("NOT_LEADER", Some(leader))),
            Way::Elects => Err(refusal("NOT_LEADER", None)),
            Way::Forgets => Err(refusal("OUTCOME_UNKNOWN", None)),
            Way::Hangs => std::future::pending().await,
        }
    }

    async fn create_join_token(
        &self,
        _: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn remove_node(
        &self,
        _: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn rotate_secret(
        &self,
        _: Request<v1::RotateSecretRequest>,
    ) -> Result<Response<v1::RotateSecretResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn transfer_leadership(
        &self,
        _: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type BackupStream = tonic::codegen::BoxStream<v1::BackupResponse>;

    async fn backup(
        &self,
        _: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn client(servers: &[&str]) -> Client {
    let address = Address {
        server: servers.join(","),
        ..Address::default()
    };
    Client::connect(&address).await.expect("one is there")
}

/// A port at which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("its address"))
}

async fn status(client: &Client) -> Result<v1::GetClusterStatusResponse, Failure> {
    status_within(client, UNARY_DEADLINE).await
}

async fn status_once(client: &Client) -> Result<v1::GetClusterStatusResponse, Failure> {
    let answer = client.ask_once(|| {
        let mut service = client.cluster();
        async move {
            service
                .get_cluster_status(v1::GetClusterStatusRequest {})
                .await
        }
    });
    answer.await
}

async fn status_within(
    client: &Client,
    deadline: Duration,
) -> Result<v1::GetClusterStatusResponse, Failure> {
    let answer = client.ask_within(deadline, || {
        let mut service = client.cluster();
        async move {
            service
                .get_cluster_status(v1::GetClusterStatusRequest {})
                .await
        }
    });
    answer.await
}

#[tokio::test]
async fn a_follower_leads_on_to_a_leader_that_nobody_has_named() {
    let leader = Server::start(Way::Answers).await;
    let follower = Server::start(Way::PointsTo(leader.address.clone())).await;
    let client = client(&[&follower.address]).await;
    status(&client).await.expect("the leader answers");
    status(&client).await.expect("it is asked at once now");
    assert_eq!((follower.asked(), leader.asked()), (1, 2));
    assert_eq!(*leader.freshness.lock().expect("whole"), LIVE);
}

#[tokio::test]
async fn the_others_are_asked_when_one_is_not_there() {
    let there = Server::start(Way::Answers).await;
    let client = client(&[&nobody(), &there.address]).await;
    status(&client).await.expect("the second answers");
    let follower = Server::start(Way::PointsTo(nobody())).await;
    let client = self::client(&[&follower.address, &there.address]).await;
    status(&client)
        .await
        .expect("a leader that is gone is passed over");
    follower.now(Way::PointsTo(nobody()));
    let client = self::client(&[&follower.address, &there.address]).await;
    status_once(&client)
        .await
        .expect("what was never sent may be sent elsewhere");
    assert_eq!(there.asked(), 3);
}

#[tokio::test]
async fn one_that_hangs_is_left_for_the_next() {
    let hangs = Server::start(Way::Hangs).await;
    let answers = Server::start(Way::Answers).await;
    let client = client(&[&hangs.address, &answers.address]).await;
    status_within(&client, Duration::from_secs(3))
        .await
        .expect("the other one answers");
    assert_eq!((hangs.asked(), answers.asked()), (1, 1));
}

#[tokio::test]
async fn an_election_is_waited_for() {
    let first = Server::start(Way::Elects).await;
    let second = Server::start(Way::Elects).await;
    let client = client(&[&first.address, &second.address]).await;
    let asked = status(&client);
    tokio::pin!(asked);
    while first.asked() < 2 {
        let soon = tokio::time::sleep(Duration::from_millis(5));
        tokio::select! {
            answer = &mut asked => panic!("nobody leads, and yet {answer:?}"),
            () = soon => {}
        }
    }
    second.now(Way::Answers);
    asked.await.expect("the new leader answers");
}

#[tokio::test]
async fn what_is_in_doubt_is_asked_again_only_if_it_may_be() {
    let forgets = Server::start(Way::Forgets).await;
    let client = client(&[&forgets.address]).await;
    let once = status_once(&client).await;
    assert_eq!(once.expect_err("in doubt").exit, Exit::Unknown);
    assert_eq!(forgets.asked(), 1);
    let again = status_within(&client, Duration::from_millis(500)).await;
    assert_eq!(again.expect_err("still in doubt").exit, Exit::Unknown);
    assert!(forgets.asked() > 2, "{}", forgets.asked());
}

#[tokio::test]
async fn silence_leaves_a_change_in_doubt_and_a_question_unanswered() {
    let hangs = Server::start(Way::Hangs).await;
    let elects = Server::start(Way::Elects).await;
    let ask = async |servers: &[&str], kind| {
        let client = client(servers).await;
        let asked = client.repeat(Duration::from_millis(300), kind, || {
            let mut service = client.cluster();
            async move {
                let message = v1::GetClusterStatusRequest {};
                service.get_cluster_status(message).await
            }
        });
        asked.await.expect_err("nobody answers")
    };
    for (kind, exit) in [
        (Kind::Reads, Exit::Unreachable),
        (Kind::Changes, Exit::Unknown),
        (Kind::ChangesOnce, Exit::Unknown),
    ] {
        assert_eq!(ask(&[&hangs.address], kind).await.exit, exit, "{kind:?}");
    }
    // That another server does not lead is no news once the leader was asked.
    for (kind, exit) in [
        (Kind::Reads, Exit::Unreachable),
        (Kind::Changes, Exit::Unknown),
        (Kind::ChangesOnce, Exit::Unknown),
    ] {
        let follower = Server::start(Way::PointsTo(hangs.address.clone())).await;
        let silent = ask(&[&follower.address], kind).await;
        assert_eq!((silent.exit, silent.reason.as_str()), (exit, ""));
        assert_eq!(silent.primary, "no answer in time");
        let asked = format!("asked {}", hangs.address);
        assert_eq!(
            silent.details,
            [asked.as_str(), "another server says that it leads"]
        );
    }
    // What one of several servers says tells more than that another one is silent.
    let both = ask(&[&elects.address, &hangs.address], Kind::Changes).await;
    assert_eq!(
        (both.reason.as_str(), both.exit),
        ("NOT_LEADER", Exit::Unknown)
    );
}

#[tokio::test]
async fn a_person_may_want_whatever_a_server_has() {
    let server = Server::start(Way::Answers).await;
    let address = Address {
        server: server.address.clone(),
        stale: true,
        ..Address::default()
    };
    let client = Client::connect(&address).await.expect("it is there");
    status(&client).await.expect("it answers");
    assert_eq!(*server.freshness.lock().expect("whole"), STALE);
}

#[test]
fn request_ids_are_32_digits_and_differ() {
    let (first, second) = (request_id(), request_id());
    assert_eq!(first.len(), 32);
    assert!(first.chars().all(|digit| digit.is_ascii_hexdigit()));
    assert_ne!(first, second);
}

#[tokio::test]
async fn nobody_there_is_its_own_exit_code() {
    let address = Address {
        server: "http://127.0.0.1:1".to_owned(),
        ..Address::default()
    };
    let failure = Client::connect(&address)
        .await
        .expect_err("nobody listens on port 1");
    assert_eq!(failure.exit, Exit::Unreachable);
    assert_eq!(failure.primary, "no server answers at http://127.0.0.1:1");
}

#[tokio::test]
async fn only_a_connection_that_breaks_at_once_may_have_met_tls() {
    let server = Server::start(Way::Answers).await;
    let mut client = client(&[&server.address]).await;
    let broken = Status::from_error(Box::new(std::io::Error::from(
        std::io::ErrorKind::BrokenPipe,
    )));
    let failure = client.failure(&broken);
    assert!(failure.text().contains("TLS"), "{}", failure.text());
    // What has answered is spoken to as it wants to be.
    status(&client).await.expect("an answer");
    assert_eq!(client.failure(&broken).hint, None);
    client.answered = Arc::default();
    client.connected -= HANGS_UP_WITHIN;
    let failure = client.failure(&broken);
    assert_eq!(failure.exit, Exit::Unreachable);
    assert_eq!(failure.primary, "the connection to the server broke");
    assert_eq!(failure.hint, None);
}

#[test]
fn a_long_call_is_not_tried_for_all_its_time_where_nobody_leads() {
    let begun = Instant::now();
    let ends = begun + CHANGE_DEADLINE;
    let at = |status: &Status, ends| given_up(&Failure::from_status(status), begun, ends) - begun;
    let nobody = refusal("NOT_LEADER", None);
    assert_eq!(at(&nobody, ends), UNARY_DEADLINE);
    let soon = Duration::from_secs(1);
    assert_eq!(at(&nobody, begun + soon), soon);
    let another = refusal("NOT_LEADER", Some("http://there:7070".to_owned()));
    assert_eq!(at(&another, ends), CHANGE_DEADLINE);
    assert_eq!(at(&refusal("BUSY", None), ends), CHANGE_DEADLINE);
}
