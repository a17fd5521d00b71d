//! Answers that come before a request has been read, over HTTP: the connection stays, or the answer says that it does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use stepcast_api::{AccessToken, ApiConfig};

use crate::support::Server;

/// What becomes of a connection after an answer.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// The next request on it is answered.
    Stays,
    /// It ends, as the answer has said.
    Closes,
}

/// A connection that asks one thing after the other.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends these bytes; gives the status of the answer and whether it says that the connection ends.
    fn ask(&mut self, request: &str) -> (u16, Then) {
        // A server that has heard enough may close while this writes.
        let _ = self.0.get_mut().write_all(request.as_bytes());
        let (mut status, mut length, mut then) = (0, 0, Then::Stays);
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).expect("an answer");
            assert_ne!(read, 0, "it ended without an answer to {:.60}", request);
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(number) = line.strip_prefix("http/1.1 ") {
                status = number[..3].parse().unwrap();
            } else if let Some(bytes) = line.strip_prefix("content-length: ") {
                length = bytes.parse().unwrap();
            } else if line == "connection: close" {
                then = Then::Closes;
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, then)
    }

    /// Whether it does what was said.
    fn is(&mut self, then: &Then) {
        match then {
            Then::Stays => {
                let next = "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n";
                assert_eq!(self.ask(next), (404, Then::Stays));
            }
            // What was sent and not read may end it with an error.
            Then::Closes => assert!(matches!(self.0.read(&mut [0]), Ok(0) | Err(_))),
        }
    }
}

/// A request with so many bytes of a body, of which so many are sent.
fn post(path: &str, headers: &str, said: usize, sent: usize) -> String {
    let body = " ".repeat(sent);
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {said}\r\n\r\n{body}"
    )
}

async fn with_token() -> Server {
    let api = ApiConfig {
        access_token: AccessToken::new("0123456789abcdef0123").ok(),
        ..ApiConfig::default()
    };
    Server::with(api).await
}

const WRONG: &str = "Authorization: Bearer wrong\r\n";

const RIGHT: &str = "Authorization: Bearer 0123456789abcdef0123\r\n";

/// More than the server takes off a socket at once.
const SOME: usize = 200 << 10;

/// More than is read of what has been refused.
const MUCH: usize = 64 << 20;

#[tokio::test]
async fn a_connection_stays_when_something_is_asked_too_often() {
    let server = with_token().await;
    let port = server.port;
    let asked = tokio::task::spawn_blocking(move || {
        for request in [
            format!("GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n{WRONG}\r\n"),
            post("/v1/jobs", WRONG, SOME, SOME),
        ] {
            let mut connection = Connection::open(port);
            let first = (0..1_000).find_map(|_| match connection.ask(&request) {
                (401, Then::Stays) => None,
                other => Some(other),
            });
            assert_eq!(first, Some((429, Then::Stays)));
            connection.is(&Then::Stays);
        }
    });
    asked.await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_answer_before_the_whole_request_says_what_becomes_of_the_connection() {
    let server = with_token().await;
    let port = server.port;
    let expects = format!("{WRONG}Expect: 100-continue\r\n");
    let heads = "A: b\r\n".repeat(200);
    let chunked = format!(
        "POST /v1/sql HTTP/1.1\r\nHost: localhost\r\n{RIGHT}Transfer-Encoding: chunked\r\n\r\n{SOME:x}\r\n{}\r\n0\r\n\r\n",
        " ".repeat(SOME)
    );
    let cases = [
        (post("/v1/jobs", WRONG, SOME, SOME), 401, Then::Stays),
        (post("/v1/jobs", WRONG, MUCH, 10), 401, Then::Closes),
        (post("/v1/jobs", &expects, 10, 0), 401, Then::Closes),
        (post("/v1/sql", RIGHT, SOME, SOME), 413, Then::Stays),
        (post("/v1/sql", RIGHT, MUCH, 10), 413, Then::Closes),
        (chunked, 413, Then::Stays),
        (post("/nothing", "", SOME, SOME), 404, Then::Stays),
        (post("/nothing", "", MUCH, 10), 404, Then::Closes),
        (post("/v1/openapi.json", "", SOME, SOME), 405, Then::Stays),
        (
            post("/v1/jobs/%ff/cancel", RIGHT, MUCH, 10),
            400,
            Then::Closes,
        ),
        (post("/v1/sql", &heads, 0, 0), 431, Then::Closes),
        (
            "nonsense\r\n\r\nnonsense\r\n\r\n".to_owned(),
            400,
            Then::Closes,
        ),
    ];
    let asked = tokio::task::spawn_blocking(move || {
        for (request, status, then) in cases {
            let mut connection = Connection::open(port);
            let told = connection.ask(&request);
            assert_eq!(told, (status, then), "{request:.80}");
            connection.is(&told.1);
        }
    });
    asked.await.unwrap();
    server.stop().await;
}
