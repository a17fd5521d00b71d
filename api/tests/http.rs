//! The port over HTTP with JSON: what SimpleTuner's client reads, what is refused, and what a slow caller gets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use stepcast_api::{AccessToken, ApiConfig};

use crate::support::{CONFIG, LOADER, Server};

/// An answer: its status, its headers and its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Asks in HTTP/1.1, as any client would, with a connection of its own.
pub(crate) async fn ask(
    port: u16,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Answer {
    let body = body.map(Value::to_string);
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    if let Some(token) = token {
        text += &format!("Authorization: Bearer {token}\r\n");
    }
    if let Some(body) = &body {
        text += &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
    }
    text += "\r\n";
    text += body.as_deref().unwrap_or_default();
    raw(port, text.into_bytes()).await
}

/// A server that asks for this token.
async fn with_token() -> (Server, &'static str) {
    let token = "0123456789abcdef0123";
    let api = ApiConfig {
        access_token: AccessToken::new(token).ok(),
        ..ApiConfig::default()
    };
    (Server::with(api).await, token)
}

/// Sends these bytes and reads to the end.
pub(crate) async fn raw(port: u16, bytes: Vec<u8>) -> Answer {
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        // A server that has heard enough closes while this writes.
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    let text = asked.await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|number| number.parse().ok());
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        joined(body)
    } else {
        body.to_owned()
    };
    Answer {
        status: status.unwrap_or(0),
        head: head.to_owned(),
        body,
    }
}

/// The pieces of a body that came in pieces.
fn joined(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 || rest.len() < length {
            break;
        }
        whole += &rest[..length];
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

/// A submission as SimpleTuner's client sends it, for a pretend device.
pub(crate) fn submission() -> Value {
    let mut config: Value = serde_json::from_str(CONFIG).unwrap();
    config["--stepcast_on"] = "replay".into();
    config["--max_runtime_minutes"] = 240.into();
    let loader: Value = serde_json::from_str(LOADER).unwrap();
    json!({"max_runtime_minutes": 240, "config": config, "dataloader_config": loader})
}

#[tokio::test]
async fn a_job_is_submitted_shown_listed_and_cancelled_as_simpletuner_s_client_does_it() {
    let server = Server::start().await;
    let port = server.port;
    let submitted = ask(port, "POST", "/v1/jobs", None, Some(&submission())).await;
    assert_eq!(submitted.status, 201, "{}", submitted.body);
    let submitted = submitted.json();
    let id = submitted["id"].as_str().unwrap();
    assert_eq!(
        (submitted["status"].as_str(), id.contains('/')),
        (Some("queued"), false)
    );
    let shown = ask(port, "GET", &format!("/v1/jobs/{id}"), None, None)
        .await
        .json();
    assert_eq!(shown["job"]["status"], "queued");
    assert_eq!(shown["attempts"][0]["attempt_number"], 1);
    assert!(shown["job"]["created_at"].as_str().unwrap().ends_with('Z'));
    let listed = ask(port, "GET", "/v1/jobs?page_size=50", None, None)
        .await
        .json();
    assert_eq!(listed["items"][0]["id"], id);
    let logs = ask(port, "GET", &format!("/v1/jobs/{id}/logs"), None, None)
        .await
        .json();
    assert_eq!(logs, json!({"logs": ""}));
    let why = ask(port, "GET", &format!("/v1/jobs/{id}/why"), None, None)
        .await
        .json();
    assert_ne!(why["tier"], "UNSPECIFIED");
    let cancel = format!("/v1/jobs/{id}/cancel");
    let cancelled = ask(port, "POST", &cancel, None, None).await;
    assert_eq!(
        (cancelled.status, &cancelled.json()["status"]),
        (200, &json!("cancelled"))
    );
    let again = ask(port, "POST", &cancel, None, None).await;
    assert_eq!(
        (again.status, &again.json()["status"]),
        (200, &json!("cancelled"))
    );
    server.stop().await;
}

#[tokio::test]
async fn estimates_sql_tables_and_workers_are_there_without_grpc() {
    let server = Server::start().await;
    let port = server.port;
    let mut ask_for = submission();
    ask_for["hardware"] = json!(["h100"]);
    ask_for["sample_counts"] = json!({"cats": 100});
    let estimated = ask(port, "POST", "/v1/estimates", None, Some(&ask_for))
        .await
        .json();
    assert_eq!(
        (
            &estimated["steps_total"],
            &estimated["estimates"][0]["hardware"]
        ),
        (&json!(150), &json!("h100x1"))
    );
    let question = json!({"sql": "SELECT count(*) AS n FROM training_steps"});
    let rows = ask(port, "POST", "/v1/sql", None, Some(&question))
        .await
        .json();
    assert_eq!(
        (&rows["columns"], &rows["rows"]),
        (&json!(["n"]), &json!([{"n": 0}]))
    );
    // JSON has no number for these, and none of them is missing.
    let numbers = "SELECT CAST('NaN' AS DOUBLE) AS a, CAST('-inf' AS REAL) AS b, \
                   CAST(1.5 AS DOUBLE) AS c, CAST(NULL AS DOUBLE) AS d";
    let asked = Some(json!({"sql": numbers}));
    let rows = ask(port, "POST", "/v1/sql", None, asked.as_ref())
        .await
        .json();
    assert_eq!(
        rows["rows"],
        json!([{"a": "NaN", "b": "-inf", "c": 1.5}]),
        "{rows}"
    );
    let digits = "SELECT CAST('12345678901234567890.123456789' AS DECIMAL(38, 9)) AS d, \
                  CAST(NULL AS DECIMAL(38, 9)) AS none, 9223372036854775807 AS n";
    let asked = Some(json!({"sql": digits}));
    let rows = ask(port, "POST", "/v1/sql", None, asked.as_ref())
        .await
        .json();
    assert_eq!(
        rows["rows"],
        json!([{"d": "12345678901234567890.123456789", "n": i64::MAX}]),
        "{rows}"
    );
    let alike = "SELECT a.hardware, b.hardware FROM training_steps a, training_steps b";
    let asked = Some(json!({"sql": alike}));
    let refused = ask(port, "POST", "/v1/sql", None, asked.as_ref()).await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (400, &json!("SAME_COLUMNS"))
    );
    let refused = ask(
        port,
        "POST",
        "/v1/sql",
        None,
        Some(&json!({"sql": "DROP TABLE x"})),
    )
    .await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (400, &json!("STATEMENT_REFUSED"))
    );
    let tables = ask(port, "GET", "/v1/tables", None, None).await.json();
    assert_eq!(tables["tables"].as_array().unwrap().len(), 2);
    let workers = ask(port, "GET", "/v1/workers", None, None).await.json();
    assert_eq!(workers, json!({"items": []}));
    server.stop().await;
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_and_only_then_is_anybody_let_in() {
    let (server, token) = with_token().await;
    let port = server.port;
    for shown in [None, Some("wrong"), Some("sca1_AAAA")] {
        let refused = ask(port, "GET", "/v1/jobs", shown, None).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (401, Some("ACCESS_TOKEN_REQUIRED"))
        );
    }
    let exchange = |refresh: &str| json!({"refresh_token": refresh, "org_id": "main"});
    let refused = ask(
        port,
        "POST",
        "/v1/auth/cli/token",
        None,
        Some(&exchange("wrong")),
    )
    .await;
    assert_eq!(refused.status, 401);
    let granted = ask(
        port,
        "POST",
        "/v1/auth/cli/token",
        None,
        Some(&exchange(token)),
    )
    .await
    .json();
    assert!(granted["expires_in"].as_u64().unwrap() > 120, "{granted}");
    let ticket = granted["access_token"].as_str().unwrap();
    assert_eq!(
        ask(port, "GET", "/v1/jobs", Some(ticket), None)
            .await
            .status,
        200
    );
    let me = ask(port, "GET", "/v1/account/me", Some(ticket), None)
        .await
        .json();
    assert_eq!(me["org_role"], "operator");
    server.stop().await;
}

#[tokio::test]
async fn pages_of_other_sites_get_nothing_from_a_server_that_asks_nobody() {
    let server = Server::start().await;
    let sql = r#"{"sql": "SELECT 1 AS one"}"#;
    let ask = |headers: &str| {
        let length = sql.len();
        let text = format!(
            "POST /v1/sql HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{sql}"
        );
        raw(server.port, text.into_bytes())
    };
    for (headers, status) in [
        ("Host: 127.0.0.1:7070\r\n", 200),
        ("Host: localhost\r\nOrigin: http://localhost:3000\r\n", 200),
        (
            "Host: localhost\r\nOrigin: https://evil.example\r\nContent-Type: text/plain\r\n",
            403,
        ),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ("Host: evil.example\r\n", 403),
    ] {
        let answer = ask(headers).await;
        assert_eq!(answer.status, status, "{headers}: {}", answer.body);
        if status == 403 {
            assert_eq!(answer.json()["code"], "ANOTHER_SITE");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn wrong_tokens_are_slowed_down_and_nobody_else_is() {
    let (server, token) = with_token().await;
    let port = server.port;
    let mut statuses = Vec::new();
    for _ in 0..80 {
        let refused = ask(port, "GET", "/v1/jobs", Some("wrong"), None).await;
        statuses.push(refused.status);
        if refused.status == 429 {
            break;
        }
    }
    assert_eq!(statuses.first(), Some(&401));
    assert_eq!(statuses.last(), Some(&429), "{}", statuses.len());
    // Behind the same address.
    let good = ask(port, "GET", "/v1/jobs", Some(token), None).await;
    assert_eq!(good.status, 200);
    let exchange = json!({"refresh_token": token, "org_id": "main"});
    let granted = ask(port, "POST", "/v1/auth/cli/token", None, Some(&exchange)).await;
    assert_eq!(granted.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_has_a_status_and_one_flat_sentence() {
    let server = Server::start().await;
    let port = server.port;
    let object = json!({});
    for (method, path, body, status, code) in [
        ("GET", "/v1/jobs/jmnpq", None, 404, "NO_SUCH_JOB"),
        ("GET", "/v1/jobs/nonsense", None, 404, "NO_SUCH_JOB"),
        ("GET", "/v1/jobs?page_size=-1", None, 400, "INVALID_FIELD"),
        ("GET", "/v1/jobs?state=RUN", None, 400, "INVALID_FIELD"),
        ("DELETE", "/v1/jobs", None, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/", None, 404, "NO_SUCH_PATH"),
        ("GET", "/v1/jobs/%ff", None, 400, "INVALID_FIELD"),
        ("POST", "/v1/jobs", Some(&object), 400, "INVALID_FIELD"),
        ("POST", "/v1/jobs", None, 400, "INVALID_FIELD"),
    ] {
        let refused = ask(port, method, path, None, body).await;
        let told = refused.json();
        assert_eq!(
            (refused.status, told["code"].as_str()),
            (status, Some(code)),
            "{method} {path}"
        );
        assert!(told["detail"].as_str().is_some_and(|text| !text.is_empty()));
    }
    let large = "POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100000000\r\n\r\n";
    let refused = raw(port, large.into()).await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (413, &json!("BODY_TOO_LARGE"))
    );
    let unsaid = format!(
        "POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{0:x}\r\n{1}\r\n0\r\n\r\n",
        1 << 20,
        " ".repeat(1 << 20)
    );
    assert_eq!(raw(port, unsaid.into_bytes()).await.status, 413);
    let broken = "POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(raw(port, broken.into()).await.status, 400);
    let grpc = "POST /no.Such/Call HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/grpc\r\n\r\n";
    assert!(
        raw(port, grpc.into())
            .await
            .head
            .contains("grpc-status: 12")
    );
    server.stop().await;
}

#[tokio::test]
async fn the_document_names_every_route_and_what_it_needs() {
    let server = Server::start().await;
    let document = ask(server.port, "GET", "/v1/openapi.json", None, None)
        .await
        .json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    let mut open = Vec::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            if operation["x-permission"].is_null() {
                open.push(format!("{method} {path}"));
            }
            let answers = operation["responses"].as_object().unwrap();
            assert!(
                answers.contains_key("429") && answers.contains_key("400"),
                "{method} {path}"
            );
        }
    }
    // Whatever else is everybody's has to be put here in so many words.
    assert_eq!(
        open,
        [
            "post /v1/auth/cli/token",
            "post /v1/operator",
            "get /v1/openapi.json"
        ]
    );
    assert!(paths.len() >= 13, "{}", paths.len());
    server.stop().await;
}

#[tokio::test]
async fn a_watch_is_a_stream_of_events_that_ends_with_the_job() {
    let server = Server::start().await;
    let port = server.port;
    let id = ask(port, "POST", "/v1/jobs", None, Some(&submission()))
        .await
        .json();
    let id = id["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/jobs/{id}/watch");
    let watching = tokio::spawn(async move { ask(port, "GET", &path, None, None).await });
    // Whichever comes first, the watch or the end, it tells both.
    ask(port, "POST", &format!("/v1/jobs/{id}/cancel"), None, None).await;
    let watched = watching.await.unwrap();
    assert!(
        watched.head.contains("text/event-stream"),
        "{}",
        watched.head
    );
    assert!(watched.body.contains("event: current"), "{}", watched.body);
    assert!(
        watched.body.contains("\"state\":\"CANCELLED\""),
        "{}",
        watched.body
    );
    // A browser that connects again repeats the address with which it began.
    let (_, last) = watched.body.rsplit_once("id: ").unwrap();
    let last = last.lines().next().unwrap();
    let again = |header: String| {
        let text = format!(
            "GET /v1/jobs/{id}/watch?after_seq=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n"
        );
        raw(port, text.into_bytes())
    };
    let behind_first = again(String::new()).await;
    assert!(
        behind_first.body.contains("event: event"),
        "{}",
        behind_first.body
    );
    let behind_last = again(format!("Last-Event-ID: {last}\r\n")).await;
    assert!(
        behind_last.body.contains("event: current"),
        "{}",
        behind_last.body
    );
    assert!(
        !behind_last.body.contains("event: event"),
        "{}",
        behind_last.body
    );
    server.stop().await;
}
