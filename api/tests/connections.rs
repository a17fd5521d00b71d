//! Connections on which no token was shown: they make room, end, and keep nobody from being served.

use std::time::Duration;

use stepcast_api::{AccessToken, ApiConfig, Connections};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::ask;
use crate::limits::OWN;
use crate::support::Server;

/// Anything here takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How HTTP/2 begins, and settings that change nothing.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

async fn served(connections: Connections) -> Server {
    Server::with(ApiConfig {
        access_token: AccessToken::new(OWN).ok(),
        connections,
        ..ApiConfig::default()
    })
    .await
}

/// A connection that has greeted and was greeted.
async fn stranger(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    stream.write_all(GREETING).await.unwrap();
    let read = timeout(PATIENCE, stream.read_u8()).await.unwrap();
    assert_eq!(read.unwrap(), 0);
    stream
}

/// Waits until the server has closed a connection, and answers it nothing before.
async fn closed(stream: &mut TcpStream) {
    let mut said = Vec::new();
    // Closed with something unread is closed too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .unwrap();
}

/// Asks on a connection that stays.
async fn asked(stream: &mut TcpStream, path: &str, token: &str) {
    let head =
        format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await.unwrap();
        answer.push(byte.unwrap());
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

async fn known(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    asked(&mut stream, "/v1/jobs", OWN).await;
    stream
}

#[tokio::test]
async fn a_connection_without_a_token_ends_and_one_with_a_token_stays() {
    let server = served(Connections {
        stranger_within: Duration::from_millis(100),
        ..Connections::default()
    })
    .await;
    let mut known = known(&server).await;
    closed(&mut stranger(&server).await).await;
    // What needs no token buys no more than that time again.
    let mut asks = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    asked(&mut asks, "/v1/openapi.json", "wrong").await;
    closed(&mut asks).await;
    asked(&mut known, "/v1/jobs", OWN).await;
    server.stop().await;
}

#[tokio::test]
async fn the_eldest_without_a_token_makes_room_for_the_next_of_its_address() {
    let server = served(Connections {
        of_address: 4,
        ..Connections::default()
    })
    .await;
    let mut known = known(&server).await;
    let mut strangers = Vec::new();
    for _ in 0..8 {
        strangers.push(stranger(&server).await);
    }
    let (eldest, newest) = strangers.split_at_mut(4);
    for stranger in eldest {
        closed(stranger).await;
    }
    for stranger in newest {
        let open = timeout(Duration::ZERO, stranger.read_to_end(&mut Vec::new())).await;
        assert!(open.is_err(), "{open:?}");
    }
    let answer = ask(server.port, "GET", "/v1/jobs", Some(OWN), None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    asked(&mut known, "/v1/jobs", OWN).await;
    server.stop().await;
}

#[tokio::test]
async fn where_there_is_no_room_who_shows_a_token_has_that_of_who_does_not() {
    let server = served(Connections {
        at_once: 6,
        ..Connections::default()
    })
    .await;
    let mut known = known(&server).await;
    let mut strangers = Vec::new();
    for _ in 0..12 {
        strangers.push(stranger(&server).await);
    }
    let answer = ask(server.port, "GET", "/v1/jobs", Some(OWN), None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    asked(&mut known, "/v1/jobs", OWN).await;
    closed(&mut strangers[0]).await;
    server.stop().await;
}
