//! Streams that are open when their reader is shut out: they end with the reason, wherever they are.

use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightDescriptor, flight_service_client::FlightServiceClient};
use futures::StreamExt;
use prost::Message;
use stepcast_api::ApiConfig;
use stepcast_estimator::import::{Mapping, TRAINING_HEADER};
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Status, Streaming};

use crate::http::ask;
use crate::limits::{OWN, Token, Town};
use crate::support::{endpoint, reason};

/// Bytes that a reader takes at once.
const WINDOW: u32 = 65_535;

/// The refusal that a stream ends with.
async fn end<T>(mut stream: Streaming<T>) -> Status {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it has ended without a word"),
            Err(status) => return status,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_watch_ends_when_its_reader_is_removed_or_their_token_taken_back() {
    let town = Town::build().await;
    let port = town.server.port;
    let other = ask(
        port,
        "POST",
        "/v1/tokens",
        Some(&town.token),
        Some(&serde_json::json!({})),
    )
    .await
    .json();
    let second = other["refresh_token"].as_str().unwrap().to_owned();
    let path = format!("/v1/jobs/{}/watch?logs=true", town.job);
    let over_http = {
        let (path, token) = (path.clone(), town.token.clone());
        tokio::spawn(async move { ask(port, "GET", &path, Some(&token), None).await })
    };
    let mut of_second = town
        .jobs(&second)
        .watch_job(town.watch())
        .await
        .unwrap()
        .into_inner();
    let mut of_first = town
        .jobs(&town.token)
        .watch_job(town.watch())
        .await
        .unwrap()
        .into_inner();
    let mut of_own = town
        .jobs(OWN)
        .watch_job(town.watch())
        .await
        .unwrap()
        .into_inner();
    for watch in [&mut of_first, &mut of_second, &mut of_own] {
        assert!(watch.message().await.unwrap().is_some());
    }
    let revoke = format!(
        "/v1/tokens/{}/revoke",
        other["token"]["id"].as_str().unwrap()
    );
    let revoked = ask(port, "POST", &revoke, Some(&town.token), None).await;
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    let told = end(of_second).await;
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::Unauthenticated, "ACCESS_TOKEN_REQUIRED")
    );
    assert!(!over_http.is_finished(), "only the one whose token it was");
    let remove = format!("/v1/users/{}/remove", town.user);
    let removed = ask(port, "POST", &remove, Some(OWN), None).await;
    assert_eq!(removed.status, 200, "{}", removed.body);
    assert_eq!(end(of_first).await.code(), Code::Unauthenticated);
    let over_http = over_http.await.unwrap();
    let (_, last) = over_http.body.rsplit_once("event: ").unwrap();
    assert!(
        last.starts_with("refused") && last.contains("ACCESS_TOKEN_REQUIRED"),
        "{}",
        over_http.body
    );
    let cancel = format!("/v1/jobs/{}/cancel", town.job);
    ask(port, "POST", &cancel, Some(OWN), None).await;
    while of_own.message().await.unwrap().is_some() {}
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_on_their_way_end_when_their_reader_is_removed() {
    let town = Town::build().await;
    let mut file = format!("{TRAINING_HEADER}\n");
    for row in 0..200 {
        file += &format!("flux.dev/lora,h100,1.0,4,1,bf16,int8,{},120\n", 300 + row);
    }
    let figures = town
        .server
        .estimator
        .import("figures", Mapping::Records, file.as_bytes());
    assert_eq!(figures.await.unwrap().stored, 200);
    // It takes little at once, so that most of the rows wait in the server.
    let channel = endpoint(&ApiConfig::default(), town.server.port)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let channel = channel.connect().await.unwrap();
    let channel = InterceptedService::new(channel, Token::of(&town.token));
    let mut flight = FlightServiceClient::new(channel);
    // Several messages.
    let text = "x".repeat(250);
    let sql = format!(
        "SELECT '{text}' AS x FROM training_steps a CROSS JOIN training_steps b LIMIT 10000"
    );
    let command = CommandStatementQuery {
        query: sql,
        transaction_id: None,
    };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let info = flight
        .get_flight_info(descriptor)
        .await
        .unwrap()
        .into_inner();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut rows = flight.do_get(ticket).await.unwrap().into_inner();
    assert!(rows.next().await.unwrap().is_ok());
    let remove = format!("/v1/users/{}/remove", town.user);
    let removed = ask(town.server.port, "POST", &remove, Some(OWN), None).await;
    assert_eq!(removed.status, 200, "{}", removed.body);
    let told = end(rows).await;
    assert_eq!(told.code(), Code::Unauthenticated, "{told:?}");
    town.server.stop().await;
}
